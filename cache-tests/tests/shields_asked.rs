//! Who may ask a node as a node does, sites with shields of their own, and what of a client passes through the tiers.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};
use cache_tests::tiers::{Cdn, Over, Plan, hops};

/// What a node signs, as the one that it asks gets it.
async fn signed(key: [u8; 32], target: &str) -> String {
    let (origin, listener) = (Origin::start(), Origin::start());
    origin.serve(target, Answer::ok("text"));
    listener.serve(target, Answer::ok("no node"));
    let plan = Plan {
        pops: &[("edge", 1), ("shield", 1)],
        key,
        reached: Some(("shield", listener.address())),
        ..Plan::default()
    };
    let cdn = Cdn::start(&origin.url(), plan).await;
    let response = cdn.named("edge-0").get(target).await;
    // Who does not answer as a node does is none.
    assert_eq!((response.status, response.text().as_str()), (200, "text"));
    let asked = listener.requests_for(target).pop().expect("the shield is asked");
    asked.field("littoral-node").expect("it is signed")
}

/// How many requests a node has refused because they come from no node.
async fn refused(node: &Node) -> u64 {
    node.metrics().await.sum("littoral_refusals_total", &[("reason", "node-request")]) as u64
}

async fn ask(node: &Node, method: &str, host: &str, target: &str, more: &str) -> u16 {
    let mut client = Client::connect(node.address()).await;
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")).await.expect("it is sent");
    client.response(method).await.map_or(0, |response| response.status)
}

#[tokio::test]
async fn nobody_else_asks_as_a_node_does() {
    let (target, key) = ("/signed", [9; 32]);
    let value = signed(key, target).await;
    let of_another = signed([8; 32], target).await;
    let origin = Origin::start();
    origin.serve("/", Answer::ok("text"));
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 1), ("shield", 1)], key, ..Plan::default() }).await;
    let shield = cdn.named("shield-0");
    let field = |value: &str| format!("Littoral-Node: {value}\r\n");
    let digit = if value.ends_with('0') { "1" } else { "0" };
    let mut rows: Vec<(&str, &str, &str, &str, String)> = vec![
        ("garbage", "GET", HOST, target, field("garbage")),
        ("nothing", "GET", HOST, target, field("")),
        ("another key", "GET", HOST, target, field(&of_another)),
        ("another target", "GET", HOST, "/other", field(&value)),
        ("a query", "GET", HOST, "/signed?a", field(&value)),
        ("another host", "GET", "other.test", target, field(&value)),
        ("another method", "HEAD", HOST, target, field(&value)),
        ("to invalidate", "INVALIDATE", HOST, target, field(&value)),
        ("a POST", "POST", HOST, target, field(&value) + "Content-Length: 0\r\n"),
        ("a body", "GET", HOST, target, field(&value) + "Content-Length: 1\r\n"),
        ("twice", "GET", HOST, target, field(&value) + &field(&value)),
        ("another signature", "GET", HOST, target, field(&(value[..value.len() - 1].to_owned() + digit))),
        ("another role", "GET", HOST, target, field(&value.replace("role=shield", "role=owner"))),
    ];
    let mut table = Table::new("forged");
    // What is said of others is signed.
    assert!(value.contains("role=shield; at="), "{value}");
    for (count, (name, method, host, target, more)) in rows.drain(..).enumerate() {
        table.row(name, same("the status", ask(shield, method, host, target, &more).await, 403));
        table.row(name, same("counted", refused(shield).await, count as u64 + 1));
    }
    table.row("all", same("requests at the origin", origin.heads(), 0));
    // The very same within half a minute: whoever sees what nodes say to one another can ask what they ask.
    table.row("the same again", same("the status", ask(shield, "GET", HOST, target, &field(&value)).await, 404));
    let before = origin.heads();
    cdn.advance_clocks(Duration::from_secs(31)).await;
    table.row("too old", same("the status", ask(shield, "GET", HOST, target, &field(&value)).await, 403));
    table.row("too old", same("requests at the origin", origin.heads(), before));
    table.finish();
}

#[tokio::test]
async fn nodes_with_another_key_are_no_nodes() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("text").field("Cache-Control: max-age=600"));
    let other = Cdn::start(&origin.url(), Plan { pops: &[("shield", 1)], key: [1; 32], ..Plan::default() }).await;
    let shield = other.named("shield-0");
    let plan =
        Plan { pops: &[("edge", 1), ("shield", 1)], reached: Some(("shield", shield.address())), ..Plan::default() };
    let cdn = Cdn::start(&origin.url(), plan).await;
    let response = cdn.named("edge-0").get("/page").await;
    assert_eq!((response.status, response.text().as_str()), (200, "text"));
    assert_eq!((refused(shield).await, origin.requests().len()), (1, 1));
}

#[tokio::test]
async fn each_site_has_its_shield() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("text").field("Cache-Control: max-age=600"));
    let site = |name: &str, shield: &str| {
        format!("[site.{name}]\nhosts = \"{name}.test\"\norigins = \"{{origin}}\"\n{shield}\n")
    };
    let sites = site("one", "shield = \"fra\"") + &site("two", "shield = \"sin\"") + &site("three", "");
    let plan = Plan { pops: &[("edge", 2), ("fra", 1), ("sin", 1)], sites: Some(&sites), ..Plan::default() };
    let cdn = Cdn::start(&origin.url(), plan).await;
    let mut table = Table::new("shields");
    for (site, fra, sin) in [("one", 1, 0), ("two", 0, 1), ("three", 0, 0)] {
        for edge in cdn.pop("edge") {
            table.row(site, same("the status", ask(edge, "GET", &format!("{site}.test"), "/page", "").await, 200));
        }
        for (pop, expected) in [("fra", fra), ("sin", sin)] {
            let found = cdn.sum(pop, "littoral_requests_total", &[("site", site)]).await as u64;
            table.row(site, same(&format!("requests at {pop}"), found, expected));
        }
    }
    table.row("all", same("requests at the origin", origin.requests().len(), 3));
    // A shield is an edge of the other site.
    table.row("fra", same("the status", ask(cdn.named("fra-0"), "GET", "two.test", "/page", "").await, 200));
    table.row("fra", same("requests at the origin", origin.requests().len(), 3));
    table.finish();
}

#[tokio::test]
async fn nodes_ask_one_another_over_tls() {
    let mut table = Table::new("TLS");
    for (over, caches) in [(Over::Tls, 2), (Over::UnknownTls, 1)] {
        let origin = Origin::start();
        origin.serve("/page", Answer::ok("text").field("Cache-Control: max-age=600"));
        let plan = Plan { pops: &[("edge", 1), ("shield", 1)], over, ..Plan::default() };
        let cdn = Cdn::start(&origin.url(), plan).await;
        let name = format!("{over:?}");
        let edge = cdn.named("edge-0");
        let mut client = edge.tls_client().await;
        let response = client.exchange("GET", "/page", &[]).await;
        table.row(&name, same("the answer", (response.status, response.text()), (200, "text".to_owned())));
        table.row(&name, same("caches", hops(&response.head).map(|hops| hops.len()), Ok(caches)));
        let asked = origin.requests_for("/page").pop().expect("a request");
        table.row(&name, same("the scheme", asked.field("x-forwarded-proto"), Some("https".to_owned())));
        table.row(&name, same("the client", asked.field("x-forwarded-for"), Some("127.0.0.1".to_owned())));
        table.row(&name, same("Host", asked.field("host"), Some(origin.address().to_string())));
        until(PATIENCE, "a hit", || async {
            let response = edge.tls_client().await.get("/page").await;
            if response.is_hit() { Ok(()) } else { Err(format!("{:?}", response.head)) }
        })
        .await;
        // Over HTTP it is another one, and passes as such.
        table.row(&name, same("HTTP", edge.get("/page").await.status, 200));
        let asked = origin.requests_for("/page").pop().expect("a request");
        table.row(&name, same("the scheme", asked.field("x-forwarded-proto"), Some("http".to_owned())));
        table.row(&name, that(origin.count("/page") == 2, || format!("{} requests", origin.count("/page"))));
    }
    table.finish();
}
