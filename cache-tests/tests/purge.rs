//! Purging: what each selector reaches, what a receipt promises, and that nothing brings purged content back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST};
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same};
use serde_json::{Value, json};

const FRESH: &str = "Cache-Control: max-age=600";

fn keyed(body: &str, keys: &str) -> Answer {
    Answer::ok(body.to_owned()).field(FRESH).field(&format!("Surrogate-Key: {keys}"))
}

/// What a GET is told: `hit`, or the reason, or how it was forwarded.
async fn told(node: &Node, target: &str) -> String {
    let response = node.get(target).await;
    let status = response.cache_status().expect("a valid Cache-Status");
    match (status.hit, &status.detail, &status.fwd) {
        (true, None, _) => "hit".into(),
        (_, Some(detail), _) => detail.clone(),
        (_, None, fwd) => fwd.clone().unwrap_or_default(),
    }
}

#[tokio::test]
async fn each_selector_reaches_what_it_names() {
    let origin = Origin::start();
    origin.serve("/a/one", keyed("1", "all first"));
    origin.serve("/a/one?q", keyed("2", "all"));
    origin.serve("/b", keyed("3", "all second"));
    let node = NodeOptions::before(&origin).start().await;
    let site = "default";
    let mut table = Table::new("selectors");
    for (name, body, gone) in [
        ("a URL", json!({ "urls": [format!("https://{HOST}/a/one")] }), [true, false, false]),
        ("a URL with its query", json!({ "urls": [format!("http://{HOST}/a/one?q")] }), [false, true, false]),
        ("a tag", json!({ "tags": ["first"] }), [true, false, false]),
        ("a tag of many", json!({ "tags": ["all"] }), [true, true, true]),
        ("a tag of none", json!({ "tags": ["nobody"] }), [false, false, false]),
        ("a prefix", json!({ "prefixes": ["/a/"] }), [true, true, false]),
        ("a prefix behind a host", json!({ "prefixes": [format!("{HOST}/b")] }), [false, false, true]),
        ("another host's prefix", json!({ "prefixes": ["elsewhere.test/a"] }), [false, false, false]),
        ("a host", json!({ "hosts": [HOST] }), [true, true, true]),
        ("another host", json!({ "hosts": ["elsewhere.test"] }), [false, false, false]),
        ("the site", json!({ "sites": [site] }), [true, true, true]),
        ("everything", json!({ "everything": true }), [true, true, true]),
        ("several", json!({ "tags": ["first", "second"] }), [true, false, true]),
    ] {
        for target in ["/a/one", "/a/one?q", "/b"] {
            node.get(target).await;
            table.row(name, same(&format!("{target} before"), told(&node, target).await, "hit".into()));
        }
        node.purge(&body).await;
        for (target, gone) in ["/a/one", "/a/one?q", "/b"].into_iter().zip(gone) {
            let is_hit = told(&node, target).await == "hit";
            table.row(name, same(&format!("{target} is gone"), !is_hit, gone));
        }
    }
    table.finish();
}

#[tokio::test]
async fn a_soft_purge_is_validated_and_a_hard_one_never() {
    let origin = Origin::start();
    let stale = "Cache-Control: max-age=600, stale-while-revalidate=600";
    let page = |body: &str| keyed(body, "page").field("ETag: \"v\"").when_matched("\"v\"", Answer::status(304));
    origin.serve("/page", page("one"));
    origin.serve("/swr", Answer::ok("one").field(stale).field("Surrogate-Key: page").numbered());
    let node = NodeOptions::before(&origin).start().await;
    for target in ["/page", "/swr"] {
        node.get(target).await;
    }
    node.purge(&json!({ "tags": ["page"], "mode": "invalidate" })).await;
    let again = node.get("/page").await;
    assert_eq!((again.text().as_str(), again.status), ("one", 200));
    let status = again.cache_status().expect("a valid Cache-Status");
    assert_eq!((status.fwd_status, status.detail.as_deref()), (Some(304), Some("purged")), "it is validated");
    assert_eq!(told(&node, "/page").await, "hit", "a 304 to a question asked after the purge makes it live again");
    assert_eq!(told(&node, "/swr").await, "purged", "served stale while it is renewed");
    until(Duration::from_secs(10), "it is renewed", || async {
        let found = told(&node, "/swr").await;
        if found == "hit" { Ok(()) } else { Err(found) }
    })
    .await;
    let before = origin.requests_for("/page").len();
    node.purge(&json!({ "tags": ["page"] })).await;
    assert_eq!(told(&node, "/page").await, "purged");
    let asked = origin.requests_for("/page");
    assert_eq!(asked.len(), before + 1);
    assert!(asked[before].field("if-none-match").is_none(), "what is gone is not asked about");
}

/// Races 1 and 2 of a purge: a fill begun before it, and a follower that comes after it.
#[tokio::test]
async fn a_purge_during_a_slow_fill_is_never_lost() {
    let mut table = Table::new("moments");
    for moment in ["before the head", "in the body"] {
        let origin = Origin::start();
        let gate = Gate::closed();
        let (old, new) = (keyed("", "page"), keyed("new", "page"));
        let old = match moment {
            "before the head" => old.piece("old").after(&gate),
            _ => old.piece("o").hold(&gate).piece("ld"),
        };
        origin.serve_in_turn("/slow", vec![old, new]);
        let node = NodeOptions::before(&origin).start().await;
        let mut first = node.client().await;
        first.ask("GET", "/slow", &[]).await;
        origin.arrived("/slow", 1).await;
        if moment == "in the body" {
            first.begin("GET").await.expect("a head");
        }
        node.purge(&json!({ "tags": ["page"] })).await;
        // It comes after the acknowledgement, and so must not have what was being fetched before.
        let mut follower = node.client().await;
        follower.ask("GET", "/slow", &[]).await;
        if moment == "in the body" {
            let answer = follower.response("GET").await.expect("an answer");
            table.row(moment, same("the follower", answer.text(), "new".into()));
            gate.open();
        } else {
            gate.open();
            let answer = follower.response("GET").await.expect("an answer");
            table.row(moment, same("the follower", answer.text(), "new".into()));
        }
        let answer = match moment {
            "in the body" => String::from_utf8_lossy(&first.rest().await.0).into_owned(),
            _ => first.response("GET").await.expect("an answer").text(),
        };
        table.row(moment, same("the delivery under way", answer, "old".into()));
        table.row(moment, same("the next", node.get("/slow").await.text(), "new".into()));
    }
    table.finish();
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_said() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("refused");
    let many: Vec<String> = (0..501).map(|number| number.to_string()).collect();
    for (name, body, status, said) in [
        ("nothing", json!({}), 400, "nothing is named"),
        ("no URL", json!({ "urls": ["nonsense"] }), 400, "urls[0]"),
        ("no site", json!({ "sites": ["nosuch"] }), 400, "no site is called nosuch"),
        ("a key nobody knows", json!({ "tag": ["a"] }), 400, "unknown field"),
        ("too many", json!({ "tags": many }), 400, "at most 500"),
        ("a long tag", json!({ "tags": ["a".repeat(1025)] }), 400, "tags[0]"),
        ("no mode", json!({ "everything": true, "mode": "maybe" }), 400, "maybe"),
        ("too much", json!({ "tags": ["a".repeat(1 << 20)] }), 413, "larger"),
    ] {
        let response = node.admin_json("POST", "/v1/purge", &body, None).await;
        table.row(name, same("the status", response.status, status));
        table.row(name, same("it says why", String::from_utf8_lossy(&response.body).contains(said), true));
    }
    for (target, status) in [("/v1/purge?wait=some", 400), ("/v1/purges/nonsense", 404)] {
        let method = if status == 400 { "POST" } else { "GET" };
        let response = node.admin_json(method, target, &json!({ "everything": true }), None).await;
        table.row(target, same("the status", response.status, status));
    }
    table.finish();
    let position = node.purge(&json!({ "everything": true })).await["position"]["seq"].clone();
    assert_eq!(position, json!(1), "what was refused is not in the log");
}

#[tokio::test]
async fn a_token_is_for_its_site_alone() {
    let origin = Origin::start();
    origin.serve_with("/page", |asked| {
        keyed("body", "page").field(&format!("X-Host: {}", asked.field("host").unwrap_or_default()))
    });
    let hash = |token: &str| blake3::hash(token.as_bytes()).to_hex().to_string();
    let text = format!(
        "[[admin.tokens]]\nname = \"shop\"\nhash = \"{}\"\nsites = \"shop\"\nverbs = \"purge\"\n\
         [[admin.tokens]]\nname = \"all\"\nhash = \"{}\"\nsites = \"*\"\nverbs = [\"purge\", \"explain\", \"operate\"]\n\
         [site.shop]\nhosts = \"shop.test\"\norigins = \"{2}\"\n[site.blog]\nhosts = \"blog.test\"\norigins = \"{2}\"\n",
        hash("shop-secret"),
        hash("root-secret"),
        origin.url(),
    );
    let node = NodeOptions::configured(&origin, &text).start().await;
    let mut table = Table::new("tokens");
    let shop = json!({ "tags": ["page"] });
    for (name, method, target, body, token, status) in [
        ("no token", "POST", "/v1/purge", &shop, None, 401),
        ("an unknown one", "POST", "/v1/purge", &shop, Some("guess"), 401),
        ("its own site", "POST", "/v1/purge", &shop, Some("shop-secret"), 200),
        ("another site", "POST", "/v1/purge", &json!({ "sites": ["blog"] }), Some("shop-secret"), 403),
        ("no such site", "POST", "/v1/purge", &json!({ "sites": ["nosuch"] }), Some("shop-secret"), 403),
        ("another host", "POST", "/v1/purge", &json!({ "hosts": ["blog.test"] }), Some("shop-secret"), 403),
        ("everything", "POST", "/v1/purge", &json!({ "everything": true }), Some("shop-secret"), 403),
        ("another verb", "GET", "/v1/stat", &Value::Null, Some("shop-secret"), 403),
        ("another verb", "GET", "/v1/explain?url=http://shop.test/page", &Value::Null, Some("shop-secret"), 403),
        ("the operator", "GET", "/v1/stat", &Value::Null, Some("root-secret"), 200),
        ("the operator, everything", "POST", "/v1/purge", &json!({ "everything": true }), Some("root-secret"), 200),
        ("health is for everybody", "GET", "/readyz", &Value::Null, None, 200),
    ] {
        let response = node.admin_json(method, target, body, token).await;
        table.row(name, same(target, response.status, status));
    }
    // A tag of one site is not that of another, and a receipt is for who may purge what it names.
    let fetch = async |host: &str| {
        let mut client = node.client().await;
        client.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.expect("it is sent");
        let response = client.response("GET").await.expect("an answer");
        response.cache_status().expect("a valid Cache-Status").hit
    };
    for host in ["shop.test", "blog.test"] {
        fetch(host).await;
    }
    let receipt = node.admin_json("POST", "/v1/purge", &shop, Some("shop-secret")).await;
    let receipt: Value = receipt.json();
    table.row("a tag", same("the shop's page is a hit", fetch("shop.test").await, false));
    table.row("a tag", same("the blog's page is a hit", fetch("blog.test").await, true));
    let id = receipt["id"].as_str().expect("an id").to_owned();
    let blog = node.admin_json("POST", "/v1/purge", &json!({ "sites": ["blog"] }), Some("root-secret")).await;
    let blog: Value = blog.json();
    for (name, id, status) in [("its own", id.as_str(), 200), ("another's", blog["id"].as_str().expect("an id"), 404)] {
        let response = node.admin_json("GET", &format!("/v1/purges/{id}"), &Value::Null, Some("shop-secret")).await;
        table.row(name, same("the status of the receipt", response.status, status));
    }
    table.finish();
}

#[tokio::test]
async fn a_site_purges_no_faster_than_it_may() {
    let origin = Origin::start();
    let text = format!("[purge]\nrate = 5\n[site.main]\nhosts = \"*\"\norigins = \"{}\"\n", origin.url());
    let node = NodeOptions::configured(&origin, &text).start().await;
    let five = json!({ "tags": ["1", "2", "3", "4", "5"] });
    assert_eq!(node.admin_json("POST", "/v1/purge", &five, None).await.status, 200);
    let refused = node.admin_json("POST", "/v1/purge", &five, None).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.field("retry-after").as_deref(), Some("1"));
}

/// Killed right after an acknowledgement and started again, as often as is asked for.
async fn survives_being_killed(times: u64) {
    let origin = Origin::start();
    let data = std::env::temp_dir().join(format!("littoral-killed-{}", std::process::id()));
    let options = || NodeOptions::before(&origin).with("--data", data.to_str().expect("UTF-8"));
    let mut node = options().start().await;
    let mut receipts: Vec<Value> = Vec::new();
    for run in 1..=times {
        receipts.push(node.purge(&json!({ "tags": [format!("tag-{run}")] })).await);
        node.kill().await;
        node = options().start().await;
        let stat = node.admin_json("GET", "/v1/stat", &Value::Null, None).await;
        let stat: Value = stat.json();
        assert_eq!(stat["purge"]["position"]["seq"], json!(run), "run {run}");
        assert_eq!(stat["purge"]["entries"], json!(run), "run {run}");
        for receipt in receipts.iter().rev().take(3) {
            let id = receipt["id"].as_str().expect("an id");
            let found = node.admin_json("GET", &format!("/v1/purges/{id}"), &Value::Null, None).await;
            let found: Value = found.json();
            assert_eq!(found["selectors"], receipt["selectors"], "run {run}");
            assert_eq!(found["applied"], json!(true), "run {run}");
        }
    }
    node.kill().await;
    std::fs::remove_dir_all(&data).expect("the log is there");
}

#[tokio::test]
async fn an_acknowledged_purge_survives_a_kill() {
    survives_being_killed(8).await;
}

#[tokio::test]
#[ignore = "takes a minute; cache-tests/run --soak"]
async fn a_hundred_acknowledged_purges_survive_a_hundred_kills() {
    survives_being_killed(100).await;
}

#[tokio::test]
async fn the_memory_of_what_was_purged_comes_back_although_nobody_asks() {
    let origin = Origin::start();
    origin.serve_with("/n", |_| keyed("body", "all"));
    let node = NodeOptions::before(&origin).start().await;
    let mut client = node.client().await;
    for number in 0..2_000 {
        client.get(&format!("/n?{number}")).await;
    }
    let stored = async || node.metrics().await.sum("littoral_store_objects", &[("tier", "memory")]);
    assert!(stored().await >= 2_000.0);
    node.purge(&json!({ "tags": ["all"] })).await;
    // It is counted when a round is over.
    until(Duration::from_secs(60), "what was purged is taken out", || async {
        let left = stored().await;
        let counted = node.metrics().await.sum("littoral_store_reclaimed_total", &[]);
        if (left, counted) == (0.0, 2_000.0) { Ok(()) } else { Err(format!("{left} are left, {counted} counted")) }
    })
    .await;
}

/// Clients ask all the time; each purge comes with a new version, and after its receipt nobody gets an older one.
async fn under_load(limit: Duration) {
    let origin = Origin::start();
    let version = Arc::new(AtomicU64::new(1));
    let answered = version.clone();
    origin.serve_with("/page", move |_| {
        // The version is fixed when the origin decides, and some time passes until it has answered.
        let version = answered.load(Ordering::SeqCst);
        let body = version.to_string();
        keyed(&body, &format!("page v{version}"))
    });
    let node = Arc::new(NodeOptions::before(&origin).start().await);
    let promised = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (node, promised, over) = (node.clone(), promised.clone(), over.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(node.address()).await;
                let (mut asked, mut hits) = (0_u64, 0_u64);
                while !over.load(Ordering::SeqCst) {
                    let least = promised.load(Ordering::SeqCst);
                    let response = client.get("/page").await;
                    let got: u64 = response.text().parse().expect("a version");
                    assert!(got >= least, "version {got} after the receipt of the purge of everything before {least}");
                    asked += 1;
                    hits += u64::from(response.is_hit());
                }
                (asked, hits)
            })
        })
        .collect();
    let started = std::time::Instant::now();
    let mut purges = 0_u64;
    // At least some, however slow the disk is.
    while started.elapsed() < limit || purges <= 100 {
        let next = version.fetch_add(1, Ordering::SeqCst) + 1;
        let mode = if purges % 3 == 2 { "invalidate" } else { "delete" };
        let body = match purges % 4 {
            0 => json!({ "tags": ["page"], "mode": mode }),
            1 => json!({ "urls": [format!("http://{HOST}/page")], "mode": mode }),
            2 => json!({ "prefixes": ["/pa"], "mode": mode }),
            _ => json!({ "tags": [format!("v{}", next - 1)], "mode": mode }),
        };
        node.purge(&body).await;
        promised.store(next, Ordering::SeqCst);
        purges += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    over.store(true, Ordering::SeqCst);
    let (mut asked, mut hits) = (0, 0);
    for client in clients {
        let (more, hit) = client.await.expect("no client got what was purged");
        (asked, hits) = (asked + more, hits + hit);
    }
    println!("{purges} purges, {asked} answers, {hits} of them hits");
    assert!(hits > asked / 10, "{purges} purges, {asked} answers, {hits} hits");
}

#[tokio::test]
async fn no_race_brings_purged_content_back() {
    under_load(Duration::from_secs(3)).await;
}

#[tokio::test]
#[ignore = "takes 20 s; cache-tests/run --soak"]
async fn no_race_brings_purged_content_back_for_twenty_seconds() {
    under_load(Duration::from_secs(20)).await;
}
