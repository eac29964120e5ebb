//! Many nodes, one log of purges: a receipt is true of every node, and a node that cannot know does not serve as if it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until, within};
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

/// How long a node may take itself for current, as the reference says.
const LEASE: Duration = Duration::from_secs(3);

fn page() -> Answer {
    Answer::ok("version ").field("Cache-Control: max-age=6000").field("Surrogate-Key: page").numbered()
}

/// A node that follows a hub.
fn following(origin: &Origin, url: &str, name: &str, more: &str) -> NodeOptions {
    let site = format!("[site.shop]\nhosts = \"*\"\norigins = \"{{origin}}\"\n{more}\n");
    let text = format!("[node]\nname = \"{name}\"\n[purge]\nlog = {{ nats = \"{url}\" }}\nrate = 100000\n{site}");
    NodeOptions::configured(origin, &text).with("--data", "data")
}

/// Waits until a node knows every purge there is.
async fn current(node: &Node) {
    until(Duration::from_secs(10), "a current node", || async {
        match node.admin_get("/currentz").await {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error),
        }
    })
    .await;
}

async fn isolated(node: &Node) {
    until(LEASE + Duration::from_secs(2), "an isolated node", || async {
        match node.admin_get("/currentz").await {
            Ok(response) if response.status == 503 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error),
        }
    })
    .await;
}

/// The number of the origin's answer that a node answers with.
async fn version(node: &Node, target: &str) -> u64 {
    let response = node.get(target).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let text = response.text();
    text.rsplit(' ').next().and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

/// What a node says of a GET: `hit`, or why not.
async fn told(node: &Node, target: &str) -> String {
    let response = node.get(target).await;
    let status = response.cache_status().expect("a valid Cache-Status");
    match (status.hit, &status.detail) {
        (true, None) => "hit".into(),
        (_, Some(detail)) => detail.clone(),
        (_, None) => status.fwd.clone().unwrap_or_default(),
    }
}

/// Purges a tag; it is durable then, and on its way.
async fn purge(node: &Node, tag: &str) {
    let response = node.admin_json("POST", "/v1/purge", &json!({ "tags": [tag] }), None).await;
    assert!(matches!(response.status, 200 | 202), "{} {}", response.status, response.text());
}

/// Purges the tag `page` and waits for every node.
async fn purge_everywhere(node: &Node, timeout: &str) -> (u16, Value) {
    let target = format!("/v1/purge?wait=all&timeout={timeout}");
    let response = node.admin_json("POST", &target, &json!({ "tags": ["page"] }), None).await;
    (response.status, response.json())
}

/// Waits until a node says that a purge is applied everywhere.
async fn applied(node: &Node, id: &str) {
    until(PATIENCE, "a receipt of a purge that is applied everywhere", || async {
        let found = node.admin_get(&format!("/v1/purges/{id}")).await?;
        if found.status == 200 && found.json()["applied"] == json!(true) { Ok(()) } else { Err(found.text()) }
    })
    .await;
}

struct Nodes {
    _machine: Machine,
    nodes: Vec<Node>,
}

impl Nodes {
    async fn start(origin: &Origin, hub: &Hub, count: usize) -> Self {
        let machine = Machine::shared();
        let mut nodes = Vec::new();
        for number in 0..count {
            let options = following(origin, &hub.url(), &format!("edge-{number}"), "");
            nodes.push(options.within(&machine).start().await);
        }
        for node in &nodes {
            current(node).await;
        }
        let all = Self { _machine: machine, nodes };
        all.know_one_another().await;
        all
    }

    async fn know_one_another(&self) {
        for node in &self.nodes {
            until(PATIENCE, "nodes that know one another", || async {
                let nodes = node.admin_get("/v1/nodes").await?.json();
                let count = nodes["nodes"].as_array().map_or(0, Vec::len);
                if count == self.nodes.len() { Ok(()) } else { Err(format!("{nodes}")) }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn after_a_receipt_no_node_serves_what_was_purged() {
    receipts(4, 40).await;
}

#[tokio::test]
#[ignore = "eight nodes and 500 purges; cache-tests/run --soak"]
async fn after_500_receipts_no_node_serves_what_was_purged() {
    let mut took = receipts(8, 500).await;
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e3;
    println!("receipts of 8 nodes, 500 purges: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(50), at(99), at(100 - 1));
}

async fn receipts(count: usize, purges: u64) -> Vec<Duration> {
    let origin = Origin::start();
    origin.serve("/page", page());
    let hub = Hub::start().await;
    let Nodes { nodes, .. } = &Nodes::start(&origin, &hub, count).await;
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

/// What happens to a hub while nodes are away or there.
#[tokio::test]
async fn a_log_that_was_lost_is_noticed() {
    let mut table = Table::new("lost logs");
    for name in ["trimmed", "recreated", "restored", "restored and refilled", "another server", "killed and restarted"]
    {
        let origin = Origin::start();
        origin.serve("/page", page());
        let mut hub = Hub::start().await;
        let machine = Machine::shared();
        let wire = Wire::to(hub.address()).await;
        let near = following(&origin, &hub.url(), "near", "").within(&machine).start().await;
        let far = following(&origin, &wire.url(), "far", "").within(&machine).start().await;
        current(&near).await;
        current(&far).await;
        for _ in 0..20 {
            purge(&near, "other").await;
        }
        hub.kill().await;
        let saved = hub.saved();
        hub.start_again().await;
        current(&near).await;
        current(&far).await;
        for _ in 0..20 {
            purge(&near, "other").await;
        }
        until(PATIENCE, "a node that has caught up", || async {
            let stat = far.admin_get("/v1/stat").await?.json();
            if stat["purge"]["position"]["seq"].as_u64() >= Some(40) {
                Ok(())
            } else {
                Err(format!("{}", stat["purge"]))
            }
        })
        .await;
        let (first_near, first_far) = (version(&near, "/page").await, version(&far, "/page").await);
        // The far node is away; what it stored is purged; and then the log is not what it was.
        wire.cut(Cut::Reset);
        purge(&near, "page").await;
        isolated(&far).await;
        let lost = match name {
            "trimmed" => {
                let stream = hub.client().await.get_stream("PURGE").await.expect("the stream");
                stream.purge().await.expect("it is emptied");
                true
            }
            "recreated" => {
                hub.client().await.delete_stream("PURGE").await.expect("it is deleted");
                hub.init();
                true
            }
            "restored" | "restored and refilled" => {
                hub.kill().await;
                hub.restore(&saved);
                hub.start_again().await;
                if name == "restored and refilled" {
                    let client = hub.client().await;
                    for number in 0..60 {
                        let record = json!({ "v": 1, "id": format!("01ARZ3NDEKTSV4RRFFQ69G5{number:03}"), "at": 1,
                            "selectors": [], "mode": "delete", "by": "somebody" });
                        let sent = client.publish("purge.shop", record.to_string().into()).await.expect("it is sent");
                        sent.await.expect("it is kept");
                    }
                }
                true
            }
            "another server" => {
                let other = Hub::start().await;
                hub.kill().await;
                let mut other = other;
                other.kill().await;
                hub.restore(&other.saved());
                hub.start_again().await;
                true
            }
            _ => {
                hub.kill().await;
                hub.start_again().await;
                false
            }
        };
        wire.cut(Cut::No);
        // Who is there all the time misses nothing of what was trimmed away. What was lost of a store that was restored the near
        // node sends again, and the hub knows what it has by its ids: the far node may find the very log it has followed.
        let near_notices = if name == "trimmed" { None } else { Some(lost) };
        let far_notices = if name == "restored" { None } else { Some(lost) };
        for (node, first, notices) in [(&far, first_far, far_notices), (&near, first_near, near_notices)] {
            if notices == Some(true) {
                until(Duration::from_secs(10), &format!("{name}: a node that has noticed"), || async {
                    let resets = node.metrics().await.sum("littoral_floor_resets_total", &[]);
                    if resets > 0.0 { Ok(()) } else { Err(node.admin_get("/v1/stat").await?.text()) }
                })
                .await;
            }
            current(node).await;
            let found = version(node, "/page").await;
            table.row(name, that(found > first, || format!("{found} is served, {first} was purged")));
            let resets = node.metrics().await.sum("littoral_floor_resets_total", &[]);
            table.row(name, same("it has noticed", resets > 0.0, notices.unwrap_or(resets > 0.0)));
        }
        // And it goes on as before, once the near node has found the hub again.
        until(PATIENCE, "a purge that the hub has", || async {
            let response = near.admin_json("POST", "/v1/purge", &json!({ "tags": ["other"] }), None).await;
            if response.json()["position"].is_null() { Err(response.text()) } else { Ok(()) }
        })
        .await;
        let before = version(&far, "/page").await;
        let (status, receipt) = purge_everywhere(&near, "10s").await;
        table.row(name, same("a receipt", status, 200));
        let found = version(&far, "/page").await;
        table.row(name, that(found > before, || format!("{found} after {before}: {receipt}")));
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

/// A load on all nodes, and what it found.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    busy: AtomicU64,
}

/// Clients that ask for `/object/0` to `/object/999` in turn, `rate` a second together, until told to stop. Every answer is one, or
/// 503 with `Retry-After`, and comes in time.
async fn load(nodes: &[&Node], rate: u64, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    const CLIENTS: u64 = 32;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = nodes[client as usize % nodes.len()].address();
        let (stop, seen) = (stop.clone(), seen.clone());
        clients.spawn(async move {
            let mut connection = Client::connect(address).await;
            let mut number = client;
            while !stop.load(Ordering::Relaxed) {
                let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
                let target = format!("/object/{}", number % 1_000);
                let response = within(Duration::from_secs(5), &target, connection.get(&target)).await;
                match response.status {
                    200 => _ = seen.answers.fetch_add(1, Ordering::Relaxed),
                    503 if response.field("retry-after").is_some() => _ = seen.busy.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{target}: {other} {}", response.text()),
                }
                number += CLIENTS;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client that found nothing wrong");
    }
}

/// An origin of 1,000 objects that do not change.
fn objects(origin: &Origin) {
    for number in 0..1_000 {
        let answer = Answer::ok(format!("object {number}"))
            .field("Cache-Control: max-age=6000")
            .field("ETag: \"one\"")
            .when_matched("\"one\"", Answer::status(304).field("ETag: \"one\""));
        origin.serve(&format!("/object/{number}"), answer);
    }
}

#[tokio::test]
async fn an_isolated_node_asks_gently() {
    isolated_under_load(Duration::from_secs(4)).await;
}

#[tokio::test]
#[ignore = "a minute without a hub; cache-tests/run --soak"]
async fn a_minute_without_a_hub_under_load() {
    isolated_under_load(Duration::from_secs(60)).await;
}

async fn isolated_under_load(time: Duration) {
    const CAP: usize = 8;
    let origin = Origin::start();
    objects(&origin);
    origin.serve("/page", page());
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let more = format!("isolated_requests = {CAP}");
    let near = following(&origin, &hub.url(), "near", &more).within(&machine).start().await;
    let far = following(&origin, &hub.url(), "far", &more).within(&machine).start().await;
    let nodes = [&near, &far];
    for node in nodes {
        current(node).await;
        let mut client = node.client().await;
        for number in 0..1_000 {
            client.get(&format!("/object/{number}")).await;
        }
    }
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let before = origin.requests().len();
    let work = async {
        hub.kill().await;
        let since = Instant::now();
        isolated(&far).await;
        let receipt = near.admin_json("POST", "/v1/purge", &json!({ "tags": ["page"] }), None).await.json();
        while since.elapsed() < time {
            for node in nodes {
                let ready = node.admin_get("/readyz").await.map(|response| response.status);
                assert_eq!(ready, Ok(200), "a node that has lost its hub is ready all the same");
                let requests = node.metrics().await.sum("littoral_origin_in_flight", &[]);
                assert!(requests <= CAP as f64, "{requests} requests at the origin");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        hub.start_again().await;
        for node in nodes {
            current(node).await;
        }
        applied(&far, receipt["id"].as_str().expect("an id")).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(work, load(&nodes, 2_000, stop.clone(), seen.clone()));
    let (answers, busy) = (seen.answers.load(Ordering::Relaxed), seen.busy.load(Ordering::Relaxed));
    let asked = origin.requests().len() - before;
    println!("{answers} answers, {busy} told to come again, {asked} requests at the origin");
    assert!(answers > busy, "{answers} answers, {busy} told to come again");
}

#[tokio::test]
async fn purges_go_on_while_a_node_is_cut_off_again_and_again() {
    audited(Duration::from_secs(6)).await;
}

#[tokio::test]
#[ignore = "half a minute for each cut; cache-tests/run --soak"]
async fn purges_go_on_for_half_a_minute() {
    audited(Duration::from_secs(30)).await;
}

/// A node is cut off in both ways while purges go on. After each receipt no node answers with what the origin said before the purge.
async fn audited(time: Duration) {
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
        let stop = AtomicBool::new(false);
        // What is older than this must not be served any more.
        let oldest = AtomicU64::new(0);
        let purges = async {
            let mut count = 0;
            let begun = Instant::now();
            wire.cut(cut);
            while begun.elapsed() < time {
                let said = origin.count("/page") as u64;
                let (status, receipt) = purge_everywhere(&near, "10s").await;
                assert_eq!(status, 200, "{receipt}");
                oldest.fetch_max(said, Ordering::SeqCst);
                count += 1;
            }
            wire.cut(Cut::No);
            let healed = Instant::now();
            current(&far).await;
            println!("{cut:?}: {count} receipts, current {} ms after it was healed", healed.elapsed().as_millis());
            stop.store(true, Ordering::SeqCst);
        };
        let looks = async {
            let mut looked = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                for (name, node) in [("near", &near), ("far", &far)] {
                    let oldest = oldest.load(Ordering::SeqCst);
                    let found = version(node, "/page").await;
                    assert!(found > oldest, "{cut:?}: {name} serves {found}, all up to {oldest} was purged");
                    looked += 1;
                }
            }
            println!("{cut:?}: looked {looked} times");
        };
        tokio::join!(purges, looks);
    }
}
