//! Many nodes under load: cut off from their hub again and again, and without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::fleet::{body, called, live_on_all, post, rejects, site};
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::many::{
    Nodes, Seen, applied, current, following, isolated, load, objects, page, purge_everywhere, version,
};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use serde_json::json;

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

#[tokio::test]
async fn a_thousand_purges_a_second_are_applied_everywhere() {
    many_purges(3, Duration::from_secs(2)).await;
}

#[tokio::test]
#[ignore = "eight nodes and 60,000 purges; cache-tests/run --soak"]
async fn a_thousand_purges_a_second_for_a_minute() {
    many_purges(8, Duration::from_secs(60)).await;
}

/// A thousand purges a second at one node, of names that nobody has seen before.
async fn many_purges(count: usize, time: Duration) {
    const RATE: u64 = 1_000;
    const CLIENTS: u64 = 16;
    let origin = Origin::start();
    let hub = Hub::start().await;
    let Nodes { nodes, .. } = &Nodes::start(&origin, &hub, count).await;
    let before: Vec<u64> = nodes.iter().map(Node::rss_bytes).collect();
    let all = time.as_secs() * RATE;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let admin = nodes[0].admin();
        clients.spawn(async move {
            let mut connection = Client::connect(admin).await;
            for number in (client..all).step_by(CLIENTS as usize) {
                tokio::time::sleep_until((begun + Duration::from_secs_f64(number as f64 / RATE as f64)).into()).await;
                let body = format!("{{\"tags\":[\"name-{number}\"]}}");
                let head =
                    format!("POST /v1/purge HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n", body.len());
                connection.send(head + &body).await.expect("it is sent");
                let response = connection.response("POST").await.expect("an answer");
                assert!(matches!(response.status, 200 | 202), "{} {}", response.status, response.text());
                assert!(!response.json()["position"].is_null(), "{}", response.text());
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client whose purges were taken");
    }
    let took = begun.elapsed();
    for (node, before) in nodes.iter().zip(before) {
        until(PATIENCE, "a node that has applied everything", || async {
            let purge = node.admin_get("/v1/stat").await?.json()["purge"].clone();
            if purge["position"]["seq"].as_u64() >= Some(all) { Ok(()) } else { Err(format!("{purge}")) }
        })
        .await;
        let entries = node.admin_get("/v1/stat").await.expect("an answer").json()["purge"]["entries"].as_u64();
        // 96 bytes an entry, at most a sixteenth of the memory: as `purge::ledger` has it; twice that while its table grows.
        assert!(entries <= Some((256 << 20) / 16 / 96), "{entries:?} entries");
        let grown = node.rss_bytes().saturating_sub(before) >> 20;
        println!("{entries:?} entries, {grown} MiB more");
        assert!(grown < 160, "{grown} MiB more for {all} purges");
    }
    println!("{all} purges in {:.1} s on {count} nodes", took.as_secs_f64());
    assert!(took < time * 2, "{all} purges took {took:?}");
}

#[tokio::test]
#[ignore = "eight nodes beside 2,000 hits a second; cache-tests/run --soak"]
async fn configuration_of_eight_nodes_beside_hits() {
    let (origin, one, two) = (Origin::start(), called("one"), called("two"));
    objects(&origin);
    let hub = Hub::start().await;
    let Nodes { nodes, .. } = &Nodes::start(&origin, &hub, 8).await;
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let all: Vec<&Node> = nodes.iter().collect();
    let host = "news.test";
    let text = |origin: &Origin| json!({ "site": "news", "text": site("news", host, origin) });
    let with = async |expected: &str| {
        let mut count = 0;
        for node in nodes {
            count += usize::from(body(node, host).await == expected);
        }
        count
    };
    let work = async {
        let mut worst = Duration::ZERO;
        let mut timed = |what: &str, begun: Instant| {
            let took = begun.elapsed();
            println!("{what}: {took:?}");
            worst = worst.max(took);
        };
        for (number, (origin, name)) in [(&one, "one"), (&two, "two"), (&one, "one")].into_iter().enumerate() {
            let begun = Instant::now();
            let pushed = post(&nodes[number], "push", text(origin), None).await;
            assert_eq!(pushed.status, 200, "{}", pushed.text());
            live_on_all(nodes, host, name).await;
            timed("live on all eight nodes", begun);
        }
        let bad = post(&nodes[0], "push", json!({ "site": "news", "text": "[site.news]\\nhosts = 1\\n" }), None).await;
        assert_eq!(bad.status, 422, "{}", bad.text());
        for (share, expected) in [(25, 2), (50, 4), (75, 6)] {
            let begun = Instant::now();
            let mut staged = text(&two);
            staged["share"] = json!(share);
            assert_eq!(post(&nodes[3], "push", staged, None).await.status, 200);
            until(PATIENCE, "its share of the nodes", || async {
                let count = with("two").await;
                if count == expected { Ok(()) } else { Err(format!("{count} of {expected}")) }
            })
            .await;
            timed(&format!("{share} % of eight nodes"), begun);
        }
        let begun = Instant::now();
        assert_eq!(post(&nodes[5], "rollback", json!({ "site": "news" }), None).await.status, 200);
        live_on_all(nodes, host, "one").await;
        timed("rolled back", begun);
        stop.store(true, Ordering::Relaxed);
        worst
    };
    let (worst, ()) = tokio::join!(work, load(&all, 2_000, stop.clone(), seen.clone()));
    println!("{seen:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    for node in nodes {
        assert_eq!(rejects(node).await, 0, "a bad one never reaches a node");
    }
}
