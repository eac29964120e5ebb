//! Many nodes, one log of purges: a receipt is true of every node, and a node that cannot know does not serve as if it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::many::{
    Nodes, Seen, applied, current, following, isolated, load, objects, page, purge, purge_everywhere, told, version,
};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

#[tokio::test]
async fn after_a_receipt_no_node_serves_what_was_purged() {
    receipts(4, 40, 0).await;
}

#[tokio::test]
#[ignore = "eight nodes and 500 purges; cache-tests/run --soak"]
async fn after_500_receipts_no_node_serves_what_was_purged() {
    // Beside 2,000 hits a second.
    let mut took = receipts(8, 500, 2_000).await;
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e3;
    println!(
        "receipts of 8 nodes, 500 purges: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(50),
        at(99),
        took[took.len() - 1].as_secs_f64() * 1e3
    );
}

async fn receipts(count: usize, purges: u64, hits: u64) -> Vec<Duration> {
    let origin = Origin::start();
    origin.serve("/page", page());
    let hub = Hub::start().await;
    objects(&origin);
    let Nodes { nodes, .. } = &Nodes::start(&origin, &hub, count).await;
    let (stop, seen) = (Arc::new(AtomicBool::new(hits == 0)), Arc::new(Seen::default()));
    let all: Vec<&Node> = nodes.iter().collect();
    let work = async {
        let took = receipts_of(nodes, purges).await;
        stop.store(true, Ordering::Relaxed);
        took
    };
    let (took, ()) = tokio::join!(work, load(&all, hits.max(1), stop.clone(), seen.clone()));
    println!("{} answers beside {purges} purges", seen.answers.load(Ordering::Relaxed));
    took
}

async fn receipts_of(nodes: &[Node], purges: u64) -> Vec<Duration> {
    let count = nodes.len();
    let mut took = Vec::new();
    let mut last = 0;
    for number in 0..purges {
        for node in nodes {
            last = last.max(version(node, "/page").await);
        }
        let begun = Instant::now();
        let (status, receipt) = purge_everywhere(&nodes[number as usize % count], "5s").await;
        took.push(begun.elapsed());
        assert_eq!((status, &receipt["applied"]), (200, &json!(true)), "{receipt}");
        assert_eq!(receipt["nodes"].as_array().map(Vec::len), Some(count), "{receipt}");
        for node in nodes {
            let found = version(node, "/page").await;
            assert!(found > last, "purge {number}: {found} after {last}: {receipt}");
        }
    }
    // Every node knows the receipt, also those that were not asked.
    let (_, receipt) = purge_everywhere(&nodes[0], "5s").await;
    let id = receipt["id"].as_str().expect("an id").to_owned();
    for node in nodes {
        applied(node, &id).await;
    }
    took
}

#[tokio::test]
async fn a_node_that_is_cut_off_serves_nothing_that_was_purged() {
    cut_off(300).await;
}

#[tokio::test]
#[ignore = "10,000 purges; cache-tests/run --soak"]
async fn a_node_that_misses_10_000_records_is_soon_current_again() {
    cut_off(10_000).await;
}

async fn cut_off(missed: usize) {
    let mut table = Table::new("cuts");
    for cut in [Cut::BlackHole, Cut::Reset] {
        let origin = Origin::start();
        origin.serve("/page", page());
        let hub = Hub::start().await;
        let wire = Wire::to(hub.address()).await;
        let machine = Machine::shared();
        let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
        let far = following(&origin, &wire.url(), "far", "").within(&machine).start().await;
        current(&near).await;
        current(&far).await;
        let first = version(&far, "/page").await;
        table.row("before", same("a hit", told(&far, "/page").await, "hit".into()));
        wire.cut(cut);
        // Known to be applied everywhere: the far node's lease has run out.
        let (status, receipt) = purge_everywhere(&near, "10s").await;
        let name = format!("{cut:?}");
        table.row(&name, same("a receipt without it", (status, receipt["applied"].clone()), (200, json!(true))));
        let found = version(&far, "/page").await;
        table.row(&name, that(found > first, || format!("{found} is served, {first} was purged: {receipt}")));
        table.row(&name, same("why", told(&far, "/page").await, "isolated".into()));
        let ready = far.admin_get("/readyz").await.expect("an answer").status;
        table.row(&name, same("it stays ready", ready, 200));
        for _ in 0..missed {
            purge(&near, "other").await;
        }
        wire.cut(Cut::No);
        let healed = Instant::now();
        current(&far).await;
        println!("{cut:?}: current again {} ms after it was healed", healed.elapsed().as_millis());
        version(&far, "/page").await;
        table.row(&name, same("a hit again", told(&far, "/page").await, "hit".into()));
    }
    table.finish();
}

#[tokio::test]
async fn without_its_hub_a_node_serves_and_takes_purges() {
    let origin = Origin::start();
    origin.serve("/page", page());
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
    let far = following(&origin, &hub.url(), "far", "").within(&machine).start().await;
    current(&near).await;
    current(&far).await;
    let first = version(&far, "/page").await;
    hub.kill().await;
    let response = near.admin_json("POST", "/v1/purge", &json!({ "tags": ["page"] }), None).await;
    let receipt = response.json();
    assert_eq!((response.status, &receipt["position"], &receipt["applied"]), (202, &Value::Null, &json!(false)));
    isolated(&far).await;
    assert_eq!(near.admin_get("/readyz").await.map(|response| response.status), Ok(200));
    assert!(version(&far, "/page").await > first, "what cannot be known to be current is asked for");
    assert!((near.metrics().await.sum("littoral_purges_pending", &[]) - 1.0).abs() < 0.1);
    hub.start_again().await;
    current(&near).await;
    current(&far).await;
    let id = receipt["id"].as_str().expect("an id").to_owned();
    applied(&far, &id).await;
    assert!(near.metrics().await.sum("littoral_purges_pending", &[]) < 0.1);
}

#[tokio::test]
async fn a_purge_that_waited_for_the_hub_survives_a_kill() {
    let origin = Origin::start();
    origin.serve("/page", page());
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let far = following(&origin, &hub.url(), "far", "").within(&machine).start().await;
    current(&far).await;
    let first = version(&far, "/page").await;
    let data = Scratch::new("kept");
    let url = hub.url();
    let near = || following(&origin, &url, "near", "").with("--data", data.path().to_str().expect("UTF-8"));
    let killed = near().within(&machine).start().await;
    current(&killed).await;
    hub.kill().await;
    let response = killed.admin_json("POST", "/v1/purge", &json!({ "tags": ["page"] }), None).await;
    assert_eq!(response.status, 202, "{}", response.text());
    killed.kill().await;
    let again = near().within(&machine).start().await;
    assert!((again.metrics().await.sum("littoral_purges_pending", &[]) - 1.0).abs() < 0.1, "it is still to be sent");
    assert!(!again.said().contains("was lost"), "its log is the one it has followed: {}", again.said());
    hub.start_again().await;
    current(&again).await;
    current(&far).await;
    until(PATIENCE, "the purge reaches the other node", || async {
        let found = version(&far, "/page").await;
        if found > first { Ok(()) } else { Err(format!("{found}")) }
    })
    .await;
}

#[tokio::test]
async fn sites_say_what_becomes_of_what_is_stored() {
    let mut table = Table::new("isolated");
    for (mode, expected) in
        [("revalidate", (200, "isolated")), ("serve", (200, "isolated")), ("fail", (503, "isolated"))]
    {
        let origin = Origin::start();
        origin.serve("/page", page());
        let mut hub = Hub::start().await;
        let node = following(&origin, &hub.url(), "edge", &format!("isolated = \"{mode}\"")).start().await;
        current(&node).await;
        let first = version(&node, "/page").await;
        hub.kill().await;
        isolated(&node).await;
        let response = node.get("/page").await;
        let status = response.cache_status().expect("a valid Cache-Status");
        table.row(
            mode,
            same("status and reason", (response.status, status.detail.as_deref()), (expected.0, Some(expected.1))),
        );
        let is_first = response.text() == format!("version {first}");
        table.row(mode, same("the stored one", is_first, mode == "serve"));
        table.row(mode, same("when to come again", response.field("retry-after").is_some(), mode == "fail"));
        let explained = node.admin_get("/v1/explain?url=http://www.example.test/page").await.expect("an answer");
        table.row(mode, that(explained.text().contains("isolated"), || explained.text()));
    }
    table.finish();
}

#[tokio::test]
async fn nobody_waits_for_a_node_that_was_stopped() {
    let origin = Origin::start();
    let hub = Hub::start().await;
    let machine = Machine::shared();
    let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
    let mut far = following(&origin, &hub.url(), "far", "").within(&machine).start().await;
    current(&near).await;
    current(&far).await;
    let nodes = async |count: usize| {
        until(PATIENCE, "as many nodes", || async {
            let nodes = near.admin_get("/v1/nodes").await?.json();
            if nodes["nodes"].as_array().map(Vec::len) == Some(count) { Ok(()) } else { Err(format!("{nodes}")) }
        })
        .await;
    };
    nodes(2).await;
    far.terminate();
    far.end_within(Duration::from_secs(30)).await;
    nodes(1).await;
    let (status, receipt) = purge_everywhere(&near, "5s").await;
    assert_eq!((status, receipt["nodes"].as_array().map(Vec::len)), (200, Some(1)), "{receipt}");
}

/// A node that was killed is waited for until its lease is out; later, when that is known, not at all.
#[tokio::test]
#[ignore = "a node that is silent for 14 seconds; cache-tests/run --soak"]
async fn soon_nobody_waits_for_a_node_that_was_killed() {
    let origin = Origin::start();
    let hub = Hub::start().await;
    let machine = Machine::shared();
    let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
    let far = following(&origin, &hub.url(), "far", "").within(&machine).start().await;
    current(&near).await;
    current(&far).await;
    far.kill().await;
    let (status, receipt) = purge_everywhere(&near, "10s").await;
    assert_eq!((status, receipt["nodes"].as_array().map(Vec::len)), (200, Some(2)), "{receipt}");
    until(Duration::from_secs(20), "a receipt within a second", || async {
        let begun = Instant::now();
        let (status, receipt) = purge_everywhere(&near, "2s").await;
        let took = begun.elapsed();
        if status == 200 && took < Duration::from_secs(1) { Ok(()) } else { Err(format!("{took:?}: {receipt}")) }
    })
    .await;
}

/// Isolated, a node answers with nothing that may be older than the request: who comes while an origin is asked waits for the next
/// answer, and all who come meanwhile share that.
#[tokio::test]
async fn who_comes_later_shares_a_later_answer() {
    let origin = Origin::start();
    let gate = Gate::closed();
    let answer = |body: &str| Answer::ok(body.to_owned()).field("Cache-Control: max-age=6000");
    origin.serve_in_turn("/page", vec![answer("stored"), answer("first").after(&gate), answer("second")]);
    let mut hub = Hub::start().await;
    let node = following(&origin, &hub.url(), "edge", "").start().await;
    current(&node).await;
    assert_eq!(node.get("/page").await.text(), "stored");
    hub.kill().await;
    isolated(&node).await;
    let asked = |count: usize| {
        let origin = &origin;
        until(PATIENCE, "requests at the origin", move || async move {
            let found = origin.count("/page");
            if found == count { Ok(()) } else { Err(format!("{found}")) }
        })
    };
    let first = async { node.get("/page").await.text() };
    let later = async {
        asked(2).await;
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let mut client = node.client().await;
            client.ask("GET", "/page", &[]).await;
            waiting.push(client);
        }
        until(PATIENCE, "those who wait", || async {
            let waiters = node.metrics().await.sum("littoral_fill_waiters", &[]);
            if waiters > 5.5 { Ok(()) } else { Err(format!("{waiters}")) }
        })
        .await;
        assert_eq!(origin.count("/page"), 2, "they do not ask as long as one is asked");
        gate.open();
        let mut texts = Vec::new();
        for mut client in waiting {
            texts.push(client.response("GET").await.expect("an answer").text());
        }
        texts
    };
    let (first, later) = tokio::join!(first, later);
    assert_eq!((first.as_str(), later), ("first", vec!["second".to_owned(); 5]));
    asked(3).await;
}
