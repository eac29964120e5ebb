//! Many nodes, one configuration: what is pushed is live on all of them, or on as many as it is for; what is not good on none.

use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::hub::{Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

/// How soon a good configuration is live on all nodes.
const LIVE_WITHIN: Duration = Duration::from_secs(1);

/// A node whose sites all come from the hub.
fn following(url: &str, name: &str, more: &str) -> NodeOptions {
    let text =
        format!("[node]\nname = \"{name}\"\n[purge]\nlog = {{ nats = \"{url}\" }}\n# instead of [site.*]\n{more}");
    NodeOptions::configured_before("", &text).with("--data", "data")
}

/// An origin that says what it is called.
fn called(name: &str) -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok(name.to_owned()).field("Cache-Control: no-store"));
    origin
}

fn site(name: &str, host: &str, origin: &Origin) -> String {
    format!("[site.{name}]\nhosts = \"{host}\"\norigins = \"{}\"\n", origin.url())
}

/// What a node answers for a host.
async fn body(node: &Node, host: &str) -> String {
    let mut client = Client::connect(node.address()).await;
    client.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.expect("it is sent");
    let response = client.response("GET").await.expect("an answer");
    if response.status == 200 { response.text() } else { response.status.to_string() }
}

async fn post(node: &Node, what: &str, body: Value, token: Option<&str>) -> Response {
    node.admin_json("POST", &format!("/v1/config/{what}"), &body, token).await
}

/// Pushes a version of the site `shop`, and gives its number.
async fn push(node: &Node, text: &str) -> u64 {
    let response = post(node, "push", json!({ "site": "shop", "text": text }), None).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["version"].as_u64().expect("a version")
}

async fn live(node: &Node, host: &str, expected: &str) {
    until(PATIENCE, &format!("{expected} for {host}"), || async {
        let found = body(node, host).await;
        if found == expected { Ok(()) } else { Err(format!("{found}\n{}", node.admin_get("/v1/config").await?.text())) }
    })
    .await;
}

/// Waits until every node answers so, and gives how long that took.
async fn live_on_all(nodes: &[Node], host: &str, expected: &str) -> Duration {
    let begun = Instant::now();
    for node in nodes {
        live(node, host, expected).await;
    }
    begun.elapsed()
}

async fn connected(nodes: &[Node]) {
    for node in nodes {
        until(PATIENCE, "nodes that know one another", || async {
            let known = node.admin_get("/v1/nodes").await?.json();
            let current = node.admin_get("/currentz").await?.status == 200;
            let count = known["nodes"].as_array().map_or(0, Vec::len);
            if count == nodes.len() && current { Ok(()) } else { Err(format!("{known}")) }
        })
        .await;
    }
}

async fn start(hub: &Hub, count: usize, more: &str) -> (Machine, Vec<Node>) {
    let machine = Machine::shared();
    let mut nodes = Vec::new();
    for number in 0..count {
        nodes.push(following(&hub.url(), &format!("edge-{number}"), more).within(&machine).start().await);
    }
    connected(&nodes).await;
    (machine, nodes)
}

async fn rejects(node: &Node) -> u64 {
    node.metrics().await.sum("littoral_config_rejects_total", &[]) as u64
}

/// What each node says that it runs with.
async fn sets(node: &Node) -> Vec<String> {
    let answer = node.admin_get("/v1/config").await.expect("an answer").json();
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node["documents"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_good_version_is_live_everywhere_and_a_bad_one_nowhere() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 3, "").await;
    let mut table = Table::new("versions");
    for node in &nodes {
        table.row("before", that(body(node, "shop.test").await != "one", || "a site of nobody".into()));
    }
    let first = push(&nodes[0], &site("shop", "shop.test", &one)).await;
    let took = live_on_all(&nodes, "shop.test", "one").await;
    table.row("a first one", that(took < LIVE_WITHIN, || format!("{took:?}")));
    let second = push(&nodes[1], &site("shop", "shop.test", &two)).await;
    let took = live_on_all(&nodes, "shop.test", "two").await;
    table.row("another one", that(took < LIVE_WITHIN, || format!("{took:?}")));
    table.row("versions grow", that(second > first, || format!("{first} {second}")));

    let bad = post(
        &nodes[2],
        "push",
        json!({ "site": "shop", "text": "[site.shop]\nhosts = \"shop.test\"\norigin = 1\n" }),
        None,
    );
    let bad = bad.await;
    let errors = bad.json();
    table.row("a bad one", same("status", bad.status, 422));
    table.row(
        "a bad one",
        same("line and column", (&errors["errors"][0]["line"], &errors["errors"][0]["column"]), (&json!(1), &json!(1))),
    );
    table.row(
        "a bad one",
        same("message", errors["errors"][1]["message"].as_str(), Some("unknown key `origin` in [site.shop]")),
    );
    let taken = post(&nodes[0], "push", json!({ "site": "blog", "text": site("blog", "shop.test", &one) }), None).await;
    table.row("a host of another site", same("status", taken.status, 422));
    for (name, body, status) in [
        (
            "an older version is expected",
            json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": first }),
            409,
        ),
        (
            "none is expected",
            json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": 0 }),
            409,
        ),
        ("no text", json!({ "site": "shop" }), 400),
        ("no share", json!({ "site": "shop", "text": "", "share": 0 }), 400),
        ("site and node", json!({ "site": "shop", "node": true, "text": "" }), 400),
        ("no name", json!({ "site": "a b", "text": "" }), 400),
    ] {
        let response = post(&nodes[0], "push", body, None).await;
        table.row(name, same("status", response.status, status));
    }
    live_on_all(&nodes, "shop.test", "two").await;
    let diff =
        post(&nodes[0], "diff", json!({ "site": "shop", "text": site("shop", "shop.test", &one) }), None).await.json();
    let text = diff["diff"].as_str().unwrap_or_default();
    table.row("a difference", same("version", diff["version"].as_u64(), Some(second)));
    table.row("a difference", that(text.contains(&format!("+origins = \"{}\"", one.url())), || text.to_owned()));
    let expected = json!({ "site": "shop", "text": site("shop", "shop.test", &one), "expected_version": second });
    table.row("the latest is expected", same("status", post(&nodes[0], "push", expected, None).await.status, 200));
    live_on_all(&nodes, "shop.test", "one").await;
    for node in &nodes {
        table.row("nothing was refused by a node", same("rejects", rejects(node).await, 0));
    }

    let begun = Instant::now();
    let back = post(&nodes[2], "rollback", json!({ "site": "shop" }), None).await;
    table.row("back", same("status", back.status, 200));
    live_on_all(&nodes, "shop.test", "two").await;
    let took = begun.elapsed();
    table.row("back", that(took < LIVE_WITHIN, || format!("{took:?}")));
    let history = nodes[1].admin_get("/v1/config/history?site=shop").await.expect("an answer").json();
    table.row("versions", same("count", history["versions"].as_array().map(Vec::len), Some(4)));
    let target = format!("/v1/config/history?site=shop&version={first}");
    let version = nodes[1].admin_get(&target).await.expect("an answer").json();
    table.row(
        "versions",
        same("text", version["versions"][0]["text"].as_str(), Some(site("shop", "shop.test", &one).as_str())),
    );
    table.row(
        "versions",
        same(
            "rollback to no such one",
            post(&nodes[0], "rollback", json!({ "site": "shop", "version": 77 }), None).await.status,
            404,
        ),
    );
    post(&nodes[0], "rollback", json!({ "site": "shop", "version": first }), None).await;
    live_on_all(&nodes, "shop.test", "one").await;
    push(&nodes[0], "").await;
    until(PATIENCE, "a site that is removed", || async {
        let found = body(&nodes[1], "shop.test").await;
        if found == "one" { Err(found) } else { Ok(()) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn what_was_published_past_every_check_is_in_force_nowhere() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 2, "").await;
    push(&nodes[0], &site("shop", "shop.test", &one)).await;
    live_on_all(&nodes, "shop.test", "one").await;
    let client = hub.client().await;
    let mut count = 0;
    let mut table = Table::new("published past every check");
    let document = |text: &str| json!({ "v": 1, "text": text, "at": 1, "by": "x", "share": 100 }).to_string();
    for (name, subject, payload) in [
        ("no document", "config.site.shop", "[site.shop]".to_owned()),
        (
            "of another form",
            "config.site.shop",
            json!({ "v": 2, "text": "", "at": 1, "by": "x", "share": 100 }).to_string(),
        ),
        ("no TOML", "config.site.shop", document("[site")),
        ("another site", "config.site.shop", document(&site("blog", "blog.test", &two))),
        ("a host of another site", "config.site.blog", document(&site("blog", "shop.test", &two))),
        ("what is a node's own", "config.node", document("workers = 7\n")),
    ] {
        client.publish(subject, payload.into()).await.expect("it is sent").await.expect("it is kept");
        count += 1;
        for node in &nodes {
            until(PATIENCE, &format!("{name}: it is refused"), || async {
                let found = rejects(node).await;
                if found == count { Ok(()) } else { Err(format!("{found} of {count}: {}", node.said())) }
            })
            .await;
            table.row(name, same("what is served", body(node, "shop.test").await, "one".into()));
        }
    }
    let state = nodes[0].admin_get("/v1/config").await.expect("an answer").text();
    table.row("it is told", that(state.contains("is there no") || state.contains("refused"), || state.clone()));
    // Other documents do not wait for those that are not good.
    let response =
        post(&nodes[0], "push", json!({ "site": "news", "text": site("news", "news.test", &two) }), None).await;
    table.row("another site", same("status", response.status, 200));
    live_on_all(&nodes, "news.test", "two").await;
    // And a good one takes the place of a bad one.
    push(&nodes[1], &site("shop", "shop.test", &two)).await;
    live_on_all(&nodes, "shop.test", "two").await;
    table.finish();
}

#[tokio::test]
async fn a_staged_version_is_on_exactly_its_share() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 4, "").await;
    push(&nodes[0], &site("shop", "shop.test", &one)).await;
    live_on_all(&nodes, "shop.test", "one").await;
    let mut table = Table::new("staged");
    let with_new = async || {
        let mut count = 0;
        for node in &nodes {
            count += usize::from(body(node, "shop.test").await == "two");
        }
        count
    };
    let staged = async |share: u8| {
        let text = site("shop", "shop.test", &two);
        let response = post(&nodes[0], "push", json!({ "site": "shop", "text": text, "share": share }), None).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let version = response.json()["version"].as_u64().expect("a version");
        for node in &nodes {
            until(PATIENCE, "a node that has heard of it", || async {
                let state = node.admin_get("/v1/config").await?.json();
                let latest = state["documents"][0]["latest"]["version"].as_u64();
                if latest == Some(version) { Ok(()) } else { Err(format!("{state}")) }
            })
            .await;
        }
        let expected = (nodes.len() * usize::from(share)).div_ceil(100);
        let begun = Instant::now();
        until(PATIENCE, &format!("{share} % of the nodes"), || async {
            let found = with_new().await;
            if found == expected { Ok(()) } else { Err(format!("{found} of {expected}")) }
        })
        .await;
        begun.elapsed()
    };
    for share in [25, 50, 75] {
        let took = staged(share).await;
        table.row(&format!("{share} %"), that(took < LIVE_WITHIN, || format!("{took:?}")));
    }
    until(PATIENCE, "two sets of documents", || async {
        let sets = sets(&nodes[3]).await;
        let count = |set: &String| sets.iter().filter(|other| *other == set).count();
        let mut counts: Vec<usize> = sets.iter().map(count).collect();
        counts.sort_unstable();
        if counts == [1, 3, 3, 3] { Ok(()) } else { Err(format!("{sets:?}")) }
    })
    .await;
    staged(100).await;
    table.row(
        "completed",
        same("rollback", post(&nodes[1], "rollback", json!({ "site": "shop" }), None).await.status, 200),
    );
    live_on_all(&nodes, "shop.test", "one").await;
    // Of a staged one a rollback leaves nothing.
    staged(50).await;
    post(&nodes[1], "rollback", json!({ "site": "shop" }), None).await;
    let took = live_on_all(&nodes, "shop.test", "one").await;
    table.row("a staged one is taken back", that(took < LIVE_WITHIN, || format!("{took:?}")));
    // A new site that is staged is on no other node.
    let text = site("news", "news.test", &two);
    let response = post(&nodes[0], "push", json!({ "site": "news", "text": text, "share": 50 }), None).await;
    table.row("a new site", same("status", response.status, 200));
    until(PATIENCE, "half of the nodes have it", || async {
        let mut count = 0;
        for node in &nodes {
            count += usize::from(body(node, "news.test").await == "two");
        }
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn a_node_starts_without_the_hub_with_what_it_had() {
    let (one, two) = (called("one"), called("two"));
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let wire = Wire::to(hub.address()).await;
    let data = Scratch::new("kept");
    let node =
        || following(&wire.url(), "edge", "").with("--data", data.path().to_str().expect("UTF-8")).within(&machine);
    let first = node().start().await;
    connected(std::slice::from_ref(&first)).await;
    push(&first, &site("shop", "shop.test", &one)).await;
    let settings = json!({ "node": true, "text": "[limits]\nconnections_per_client = 77\n[purge]\nrate = 7\n" });
    assert_eq!(post(&first, "push", settings, None).await.status, 200);
    live(&first, "shop.test", "one").await;
    first.kill().await;
    hub.kill().await;
    let again = node().start().await;
    let mut table = Table::new("without the hub");
    table.row("the last good copy", same("served", body(&again, "shop.test").await, "one".into()));
    let response = post(&again, "push", json!({ "site": "shop", "text": "" }), None).await;
    table.row("a push", same("status", response.status, 503));
    table.row(
        "a reload",
        same("status", again.admin_post("/v1/config/reload").await.map(|reply| reply.status), Ok(200)),
    );
    table.row("a reload", same("served", body(&again, "shop.test").await, "one".into()));
    let many: Vec<String> = (0..20).map(|number| format!("tag-{number}")).collect();
    let purge = json!({ "site": "shop", "tags": many });
    again.admin_json("POST", "/v1/purge", &purge, None).await;
    let purged = again.admin_json("POST", "/v1/purge", &purge, None).await.status;
    table.row("settings for all nodes", same("purges above the rate", purged, 429));
    hub.start_again().await;
    connected(std::slice::from_ref(&again)).await;
    push(&again, &site("shop", "shop.test", &two)).await;
    live(&again, "shop.test", "two").await;
    // A hub that was made anew has lost what there was: nothing of it is taken away.
    hub.client().await.delete_stream("CONFIG").await.expect("it is deleted");
    hub.init();
    let response = until(PATIENCE, "a hub that takes the first version", || async {
        let body = json!({ "site": "news", "text": site("news", "news.test", &one), "expected_version": 0 });
        let response = post(&again, "push", body, None).await;
        if response.status < 300 { Ok(response) } else { Err(response.text()) }
    })
    .await;
    table.row("a hub made anew", that(response.status < 300, || response.text()));
    live(&again, "news.test", "one").await;
    table.row("a hub made anew", same("what it has lost", body(&again, "shop.test").await, "two".into()));
    table.finish();
}

#[tokio::test]
async fn what_a_nodes_own_file_has_the_hub_does_not_change() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let own = format!("{}[limits]\nidle_timeout = \"50s\"\n", site("own", "own.test", &one));
    let (_machine, nodes) = start(&hub, 1, &own).await;
    let node = &nodes[0];
    let mut table = Table::new("both");
    for (name, body, expected) in [
        (
            "a site of the file",
            json!({ "site": "own", "text": site("own", "other.test", &two) }),
            "the site `own` is there twice",
        ),
        (
            "a table of the file",
            json!({ "node": true, "text": "[limits]\nhead_timeout = \"9s\"\n" }),
            "[limits] is both in",
        ),
        ("a host of the file", json!({ "site": "shop", "text": site("shop", "own.test", &two) }), "belongs to both"),
    ] {
        let response = post(node, "push", body, None).await;
        table.row(name, same("status", response.status, 422));
        table.row(name, that(response.text().contains(expected), || response.text()));
    }
    // What stands in the file and was not reloaded does not come with what the hub has.
    let text = |host: &str| {
        format!("[node]\nname = \"edge-0\"\n[purge]\nlog = {{ nats = \"{}\" }}\n{}", hub.url(), site("own", host, &one))
    };
    node.write_configuration(&text("late.test"));
    push(node, &site("shop", "shop.test", &two)).await;
    live(node, "shop.test", "two").await;
    table.row("a file that was not reloaded", that(body(node, "late.test").await != "one", || "it is in force".into()));
    table.row("a reload", same("status", node.reload(&text("late.test")).await.status, 200));
    live(node, "late.test", "one").await;
    table.row("a reload", same("the hub's site", body(node, "shop.test").await, "two".into()));
    table.row("a reload that takes the hub's host", same("status", node.reload(&text("shop.test")).await.status, 422));
    table.row("and then", same("the hub's site", body(node, "shop.test").await, "two".into()));
    table.finish();
}

#[tokio::test]
async fn the_token_of_a_site_changes_its_rules_alone() {
    let origin = called("one");
    let hub = Hub::start().await;
    let hash = |token: &str| blake3::hash(token.as_bytes()).to_hex().to_string();
    let tokens = format!(
        "[[admin.tokens]]\nname = \"shop\"\nhash = \"{}\"\nsites = \"shop\"\nverbs = \"configure\"\n\
         [[admin.tokens]]\nname = \"all\"\nhash = \"{}\"\nsites = \"*\"\nverbs = [\"configure\", \"operate\"]\n",
        hash("shop-secret"),
        hash("root-secret"),
    );
    let machine = Machine::shared();
    let node = following(&hub.url(), "edge", &tokens).within(&machine).start().await;
    until(PATIENCE, "a current node", || async {
        let response = node.admin_get("/currentz").await?;
        if response.status == 200 { Ok(()) } else { Err(response.text()) }
    })
    .await;
    let text = site("shop", "shop.test", &origin);
    let blog = site("blog", "blog.test", &origin);
    let rules = format!("{text}[[site.shop.rule]]\nthen = {{ cache = false }}\n");
    let mut table = Table::new("tokens");
    for (name, body, token, status) in [
        ("no token", json!({ "site": "shop", "text": text }), None, 401),
        ("a new site", json!({ "site": "shop", "text": text }), Some("shop-secret"), 403),
        ("a new site, by the operator", json!({ "site": "shop", "text": text }), Some("root-secret"), 200),
        ("another one", json!({ "site": "blog", "text": blog }), Some("root-secret"), 200),
        ("rules", json!({ "text": rules }), Some("shop-secret"), 200),
        (
            "rules that are none",
            json!({ "site": "shop", "text": format!("{text}rule = 1\n") }),
            Some("shop-secret"),
            422,
        ),
        ("hosts", json!({ "site": "shop", "text": rules.replace("shop.test", "all.test") }), Some("shop-secret"), 403),
        (
            "origins",
            json!({ "site": "shop", "text": rules.replace("127.0.0.1", "127.0.0.2") }),
            Some("shop-secret"),
            403,
        ),
        (
            "a file",
            json!({ "site": "shop", "text": format!("{text}error_pages = {{ 502 = \"/etc/passwd\" }}\n") }),
            Some("shop-secret"),
            403,
        ),
        ("its removal", json!({ "site": "shop", "text": "" }), Some("shop-secret"), 403),
        ("another site", json!({ "site": "blog", "text": blog }), Some("shop-secret"), 403),
        ("settings for all nodes", json!({ "node": true, "text": "" }), Some("shop-secret"), 403),
    ] {
        let response = post(&node, "push", body, token).await;
        table.row(name, same("status", (response.status, response.text().contains("blog")), (status, false)));
    }
    for (target, status) in [
        ("/v1/config/history?site=shop", 200),
        ("/v1/config/history?site=blog", 403),
        ("/v1/config/history?node=1", 403),
        ("/v1/config", 200),
    ] {
        let response = node.admin_json("GET", target, &Value::Null, Some("shop-secret")).await;
        table.row(target, same("status", (response.status, response.text().contains("blog")), (status, false)));
    }
    table.row("back", same("status", post(&node, "rollback", json!({}), Some("shop-secret")).await.status, 200));
    table.finish();
}
