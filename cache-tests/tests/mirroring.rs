//! Copies of requests for a group that nobody waits for: what is copied, what is not, and that no client notices.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{HOST, post, request};
use cache_tests::deadline::until;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";

/// A site whose requests are copied to `shadow` as this rule says, and rules before it.
fn site(shadow: &str, mirror: &str, rules: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n[site.main.group.shadow]\norigins = \"{shadow}\"\n\
         [[site.main.rule]]\nthen = {{ mirror = {{ group = \"shadow\"{mirror} }} }}\n"
    );
    for (when, then) in rules {
        text += &format!("[[site.main.rule]]\nwhen = {{ {when} }}\nthen = {{ {then} }}\n");
    }
    text
}

fn named(name: &'static str) -> Origin {
    let origin = Origin::start();
    for path in ["/p", "/form"] {
        origin.serve(path, Answer::ok(name).field(FRESH));
    }
    origin
}

async fn count(node: &Node, name: &str, labels: &[(&str, &str)], expected: f64) {
    until(Duration::from_secs(10), &format!("{name} {labels:?} is {expected}"), || async {
        let found = node.metrics().await.sum(name, labels);
        if found == expected { Ok(()) } else { Err(format!("it is {found}")) }
    })
    .await;
}

async fn sent(node: &Node, outcome: &str, expected: f64) {
    count(node, "littoral_mirror_requests_total", &[("group", "shadow"), ("outcome", outcome)], expected).await;
}

async fn dropped(node: &Node, reason: &str, expected: f64) {
    count(node, "littoral_mirror_dropped_total", &[("group", "shadow"), ("reason", reason)], expected).await;
}

#[tokio::test]
async fn a_copy_is_what_an_origin_gets() {
    let (own, shadow) = (named("own"), named("shadow"));
    let rules = [("path = \"/moved/*\"", "rewrite = { from = \"/moved\", to = \"/\" }, ignore_query = \"utm_*\"")];
    let node = NodeOptions::configured(&own, &site(&shadow.url(), "", &rules)).start().await;
    let mut table = Table::new("copies");
    let chunked = request("POST", "/form", &["Transfer-Encoding: chunked"]) + "3\r\none\r\n4\r\nmore\r\n0\r\n\r\n";
    let rows = [
        ("a miss", request("GET", "/p?a", &["Cookie: a=b"]), "GET", "/p?a", ""),
        ("a hit", request("GET", "/p?a", &[]), "GET", "/p?a", ""),
        ("conditional", request("GET", "/p?a", &["If-None-Match: \"x\""]), "GET", "/p?a", ""),
        ("HEAD", request("HEAD", "/p?b", &[]), "HEAD", "/p?b", ""),
        ("another path", request("GET", "/moved/p?c&utm_x=1", &[]), "GET", "/p?c", ""),
        ("no body", request("DELETE", "/p", &[]), "DELETE", "/p", ""),
        ("an empty body", post("/form", &[], ""), "POST", "/form", ""),
        ("a body", post("/form", &[], "a=1&b=2"), "POST", "/form", "a=1&b=2"),
        ("chunks", chunked, "POST", "/form", "onemore"),
    ];
    for (number, (name, wire, method, target, body)) in rows.iter().enumerate() {
        let mut client = node.client().await;
        client.send(wire).await.expect("the node reads");
        let answer = client.response(method).await.expect("an answer");
        table.row(name, same("the status", answer.status, 200));
        let from_own = answer.text() == "own" || *method == "HEAD";
        table.row(name, that(from_own, || format!("the answer is {:?}", answer.text())));
        sent(&node, "answered", number as f64 + 1.0).await;
        let copies = shadow.requests();
        let copy = copies.last().expect("a copy");
        table.row(name, same("copies", copies.len(), number + 1));
        table.row(name, same("the request", (copy.method.as_str(), copy.target.as_str()), (*method, *target)));
        table.row(name, same("the body", &copy.body[..], body.as_bytes()));
        table.row(name, same("the mark", copy.field("x-littoral-mirror").as_deref(), Some("1")));
    }
    let h2 = node.h2().await;
    let answer = h2.exchange("POST", "/form", &[], Some("over HTTP/2".into())).await;
    table.row("HTTP/2", same("the answer", answer.text(), "own".to_owned()));
    sent(&node, "answered", 10.0).await;
    let copy = shadow.requests().pop().expect("a copy");
    table.row("HTTP/2", same("the body", &copy.body[..], &b"over HTTP/2"[..]));
    // One name in the log, at the origin and at the group.
    let traces: Vec<String> =
        node.log_lines(10).await.iter().filter_map(|record| Some(record["trace_id"].as_str()?.to_owned())).collect();
    for copy in shadow.requests() {
        let name = copy.field("x-request-id").unwrap_or_default().to_owned();
        table.row("names", that(traces.contains(&name), || format!("{name} is not in the log")));
    }
    let cookie = shadow.requests_for("/p?a")[0].field("cookie").map(|cookie| cookie.to_string());
    table.row("a miss", same("the cookie", cookie, Some("a=b".to_owned())));
    // Copies share connections of their own.
    table.row("in the end", that(shadow.connections() <= 2, || format!("{} connections", shadow.connections())));
    let asked = node.metrics().await.sum("littoral_origin_requests_total", &[]);
    table.row("in the end", same("requests to origins", asked, own.heads() as f64));
    table.finish();
}

#[tokio::test]
async fn what_is_not_copied() {
    let (own, shadow) = (named("own"), named("shadow"));
    let rules = [
        ("path = \"/gone\"", "respond = 404"),
        ("path = \"/moved\"", "redirect = \"/p\""),
        ("path = \"/private\"", "mirror = false"),
    ];
    own.serve("/private", Answer::ok("own"));
    let node = NodeOptions::configured(&own, &site(&shadow.url(), ", body_max = \"10B\"", &rules)).start().await;
    let long = request("POST", "/form", &["Transfer-Encoding: chunked"]) + "a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n";
    let mut table = Table::new("not copied");
    for (name, wire, status) in [
        ("a status", request("GET", "/gone", &[]), 404),
        ("a redirect", request("GET", "/moved", &[]), 302),
        ("a rule says so", request("GET", "/private", &[]), 200),
        ("a copy", request("GET", "/p", &["X-Littoral-Mirror: 1"]), 200),
        ("a long body", post("/form", &[], "01234567890"), 200),
        ("long chunks", long, 200),
        ("refused", request("TRACE", "/p", &[]), 405),
    ] {
        let mut client = node.client().await;
        client.send(wire).await.expect("the node reads");
        let answer = client.response("GET").await.expect("an answer");
        table.row(name, same("the status", answer.status, status));
    }
    dropped(&node, "body-too-long", 2.0).await;
    // A client that vanishes in the middle of its body.
    let mut client = node.client().await;
    let half = request("POST", "/form", &["Content-Length: 10"]) + "01234";
    let before = own.heads();
    client.send(half).await.expect("the node reads");
    until(Duration::from_secs(10), "its head is at the origin", || async {
        if own.heads() > before { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    client.vanish();
    dropped(&node, "body-incomplete", 1.0).await;
    // The longest body that is copied.
    let mut client = node.client().await;
    client.send(post("/form", &[], "0123456789")).await.expect("the node reads");
    assert_eq!(client.response("POST").await.expect("an answer").status, 200);
    sent(&node, "answered", 1.0).await;
    table.row("in the end", same("copies", shadow.heads(), 1));
    table.finish();
}

/// The bar: a target that never answers makes no difference to any client.
#[tokio::test]
async fn nobody_waits_for_a_target_that_never_answers() {
    const REQUESTS: usize = 60;
    let (own, shadow) = (named("own"), Origin::start());
    for path in ["/p", "/form"] {
        shadow.serve(path, Answer::silent());
    }
    let node = NodeOptions::configured(&own, &site(&shadow.url(), ", max_requests = 3", &[])).start().await;
    let mut client = node.client().await;
    for number in 0..REQUESTS / 3 {
        // A miss, a hit, and one that is passed on.
        for _ in 0..2 {
            assert_eq!(client.get(&format!("/p?{number}")).await.text(), "own");
        }
        client.send(post("/form", &[], "body")).await.expect("the node reads");
        assert_eq!(client.response("POST").await.expect("an answer").text(), "own");
    }
    dropped(&node, "busy", (REQUESTS - 3) as f64).await;
    until(Duration::from_secs(10), "three copies hang", || async {
        let heads = shadow.heads();
        if heads == 3 { Ok(()) } else { Err(format!("{heads} copies")) }
    })
    .await;
    assert_eq!(node.metrics().await.sum("littoral_mirror_requests_total", &[]), 0.0, "none has come to an end");
    assert_eq!(own.heads(), REQUESTS / 3 * 2);
}

#[tokio::test]
async fn nobody_waits_for_a_target_that_is_not_there() {
    let own = named("own");
    let node = NodeOptions::configured(&own, &site(&nobody_listens(), "", &[])).start().await;
    let mut client = node.client().await;
    for number in 1..=3 {
        assert_eq!(client.get("/p").await.text(), "own");
        sent(&node, "connect", f64::from(number)).await;
    }
    // From here on one a second tries it out.
    let (mut requests, mut tried) = (3.0, 3.0);
    for _ in 0..50 {
        assert_eq!(client.get("/p").await.text(), "own");
        requests += 1.0;
        let metrics = node.metrics().await;
        let down = metrics.sum("littoral_mirror_dropped_total", &[("reason", "down")]);
        tried = requests - down;
    }
    assert!(tried <= 10.0, "{tried} of {requests} requests were copied");
    let up = node.metrics().await.sum("littoral_origin_up", &[]);
    assert_eq!(up, 2.0, "copies say nothing about whether an origin is up");
}

#[tokio::test]
async fn a_part_of_the_requests_is_copied_and_a_reload_changes_it() {
    const REQUESTS: usize = 500;
    let (own, shadow) = (named("own"), named("shadow"));
    let text = site(&shadow.url(), ", share = \"10%\"", &[]);
    let node = NodeOptions::configured(&own, &text).start().await;
    let mut client = node.client().await;
    for _ in 0..REQUESTS {
        client.get("/p").await;
    }
    let copied = async || {
        let all = node.metrics().await;
        let count = |name| all.sum(name, &[]);
        (count("littoral_mirror_requests_total"), count("littoral_mirror_dropped_total"))
    };
    until(Duration::from_secs(10), "all copies have been sent", || async {
        let (sent, dropped) = copied().await;
        if sent + dropped >= 25.0 { Ok(()) } else { Err(format!("{sent} sent, {dropped} dropped")) }
    })
    .await;
    let (sent, dropped) = copied().await;
    // What is left to chance may be off by as much as is once in a million times.
    assert!((20.0..=90.0).contains(&(sent + dropped)), "{sent} sent, {dropped} dropped");
    assert_eq!(node.reload(&site(&shadow.url(), "", &[("path = \"/p\"", "mirror = false")])).await.status, 200);
    for _ in 0..20 {
        client.get("/p?none").await;
    }
    assert_eq!(node.reload(&text.replace("10%", "100%")).await.status, 200);
    client.get("/p?all").await;
    // Copies of before the first reload may come as late as this one; none of them is of what was asked for between.
    shadow.arrived("/p?all", 1).await;
    assert_eq!(shadow.count("/p?none"), 0);
    let copy = shadow.requests_for("/p?all").pop().expect("a copy");
    assert_eq!(copy.field("host").map(|host| host.to_string()), Some(shadow.address().to_string()), "not {HOST}");
}
