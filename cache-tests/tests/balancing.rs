//! Which of several origins is asked, and what becomes of requests that none of them has room for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, post};
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn options(origins: &str, more: &str) -> NodeOptions {
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{origins}]\n{more}\n");
    NodeOptions::configured_before(&nobody_listens(), &text)
}

async fn before(origins: &str, more: &str) -> Node {
    options(origins, more).start().await
}

fn quoted(origins: &[Origin]) -> String {
    origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect::<Vec<_>>().join(", ")
}

/// Origins whose answers say which of them it was, and are not stored.
fn some(count: usize) -> Vec<Origin> {
    let origins: Vec<Origin> = (0..count).map(|_| Origin::start()).collect();
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/p", Answer::ok(number.to_string()).field("Cache-Control: no-store"));
        origin.serve("/healthz", Answer::ok("well").field("Cache-Control: no-store"));
    }
    origins
}

/// An origin that takes its time for each answer, and knows how many it had at once.
struct Slow {
    address: SocketAddr,
    seen: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    heads: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    async fn start(takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Counts::default());
        let counts = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let counts = counts.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while client.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        head.clear();
                        counts.heads.fetch_add(1, Ordering::SeqCst);
                        let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
                        counts.most.fetch_max(now, Ordering::SeqCst);
                        // What is tested is what a slow origin makes of it.
                        tokio::time::sleep(takes).await;
                        counts.now.fetch_sub(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok";
                        if client.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn heads(&self) -> usize {
        self.seen.heads.load(Ordering::SeqCst)
    }
}

/// Has `clients` ask for something else each time, `each` times, and gives the statuses.
async fn storm(node: &Node, clients: usize, each: usize) -> HashMap<u16, usize> {
    let statuses = Arc::new(Mutex::new(HashMap::new()));
    let mut tasks = Vec::new();
    for number in 0..clients {
        let (mut client, statuses) = (node.client().await, statuses.clone());
        tasks.push(tokio::spawn(async move {
            for request in 0..each {
                let status = client.get(&format!("/p?{number}-{request}")).await.status;
                *statuses.lock().expect("no panic").entry(status).or_default() += 1;
            }
        }));
    }
    for task in tasks {
        task.await.expect("every client is answered");
    }
    let statuses = statuses.lock().expect("no panic");
    statuses.clone()
}

#[tokio::test]
async fn shares_are_those_of_the_weights() {
    let mut table = Table::new("shares");
    // Requests of one client, one after the other: nobody is ever busy.
    for (rule, within) in
        [("smooth-weighted", 0.001), ("least-requests", 0.03), ("random", 0.03), ("consistent-hash", 0.03)]
    {
        let origins = some(3);
        let list = [5, 2, 1]
            .iter()
            .zip(&origins)
            .map(|(weight, origin)| format!("{{ url = \"{}\", weight = {weight} }}", origin.url()));
        let list = list.collect::<Vec<_>>().join(", ");
        let node = before(&list, &format!("balance = \"{rule}\"")).await;
        assert_eq!(storm(&node, 4, 1_000).await, HashMap::from([(200, 4_000)]));
        for (origin, wanted) in origins.iter().zip([0.625, 0.25, 0.125]) {
            let share = origin.heads() as f64 / 4_000.0;
            let close = (share - wanted).abs() <= within;
            table.row(rule, that(close, || format!("a share of {share}, expected {wanted}")));
        }
    }
    table.finish();
}

#[tokio::test]
async fn an_origin_that_is_slow_gets_less() {
    let mut table = Table::new("one is twice as slow");
    for (rule, most) in [("least-requests", 0.6), ("peak-ewma", 0.6)] {
        let (slow, fast) = (Slow::start(Duration::from_millis(20)).await, Slow::start(Duration::from_millis(10)).await);
        let list = format!("\"http://{}\", \"http://{}\"", slow.address, fast.address);
        let node = before(&list, &format!("balance = \"{rule}\"")).await;
        assert_eq!(storm(&node, 32, 60).await, HashMap::from([(200, 1_920)]));
        let share = slow.heads() as f64 / fast.heads() as f64;
        println!("{rule}: the slow one had {:.1} % of what the fast one had", share * 100.0);
        table.row(rule, that(share <= most, || format!("{share} of the share of the fast one")));
        table.row(rule, that(slow.heads() > 0, || "the slow one was never asked".into()));
    }
    table.finish();
}

/// Which origin answers each of `count` paths or cookies.
async fn who(node: &Node, by_cookie: bool, count: usize) -> Vec<String> {
    let mut client = node.client().await;
    let mut answers = Vec::new();
    for key in 0..count {
        let (target, cookie) = match by_cookie {
            true => (format!("/p?{}", answers.len() * 7), format!("Cookie: a=b; session=user-{key}")),
            false => (format!("/p?{key}"), format!("Cookie: session={}", answers.len())),
        };
        answers.push(client.exchange("GET", &target, &[&cookie]).await.text());
    }
    answers
}

#[tokio::test]
async fn a_hash_stays_with_its_origin_and_survives_the_loss_of_another() {
    for (hash, by_cookie) in [("url", false), ("cookie session", true)] {
        let mut origins = some(4);
        let more = format!(
            "balance = \"consistent-hash\"\nhash = \"{hash}\"\nretry = {{ reserve = 1000 }}\neject = {{ failures = 1, for = \"1h\" }}"
        );
        let node = before(&quoted(&origins), &more).await;
        let first = who(&node, by_cookie, 200).await;
        assert_eq!(who(&node, by_cookie, 200).await, first, "{hash}: the same again");
        let lost = first.iter().filter(|origin| *origin == "2").count();
        assert!((20..=90).contains(&lost), "{hash}: a fourth of them are with each, and {lost} with one");
        origins[2].stop();
        let after = who(&node, by_cookie, 200).await;
        for (before, after) in first.iter().zip(&after) {
            assert!(before == after || before == "2", "{hash}: one of {before} moved to {after}");
            assert!(after != "2" && !after.is_empty());
        }
    }
}

async fn is_up(node: &Node, origin: &Origin, expected: f64) {
    until(Duration::from_secs(5), &format!("up: {expected}"), || async {
        let label = origin.address().to_string();
        let found = node.metrics().await.sum("littoral_origin_up", &[("origin", &label)]);
        if found == expected { Ok(()) } else { Err(format!("up is {found}")) }
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_came_up_gets_its_share_little_by_little() {
    let health = "health = { path = \"/healthz\", interval = \"50ms\", timeout = \"50ms\" }\n";
    for (period, expected) in [("1h", 10..=10), ("1ms", 55..=55)] {
        let origins = some(2);
        let text = format!("{health}slow_start = \"{period}\"");
        let node = before(&quoted(&origins), &text).await;
        origins[0].serve("/healthz", Answer::status(503));
        is_up(&node, &origins[0], 0.0).await;
        origins[0].serve("/healthz", Answer::ok("well").field("Cache-Control: no-store"));
        is_up(&node, &origins[0], 1.0).await;
        assert_eq!(storm(&node, 1, 110).await, HashMap::from([(200, 110)]));
        let asked =
            origins[0].count("/p") + origins[0].requests().iter().filter(|r| r.target.starts_with("/p?")).count();
        assert!(expected.contains(&asked), "{asked} of 110 within {period}");
    }
    // One that a new configuration brings is as new as one that came up.
    let origins = some(2);
    let site = |list: &str| format!("[site.main]\nhosts = [\"*\"]\norigins = [{list}]\nslow_start = \"1h\"\n");
    let node = NodeOptions::configured_before(&nobody_listens(), &site(&quoted(&origins[..1]))).start().await;
    assert_eq!(storm(&node, 1, 10).await, HashMap::from([(200, 10)]));
    assert_eq!(origins[0].heads(), 10, "at the start everybody has all of its share");
    assert_eq!(node.reload(&site(&quoted(&origins))).await.status, 200);
    assert_eq!(storm(&node, 1, 110).await, HashMap::from([(200, 110)]));
    assert_eq!(origins[1].heads(), 10);
}

/// Origins' answers held, each behind a gate of its own.
fn held(origin: &Origin, count: usize) -> Vec<Gate> {
    let gates: Vec<Gate> = (0..count).map(|_| Gate::closed()).collect();
    for (number, gate) in gates.iter().enumerate() {
        let answer = Answer::ok("").field("Cache-Control: no-store").piece("half").hold(gate).piece("rest");
        origin.serve(&format!("/held?{number}"), answer);
    }
    gates
}

async fn asking(node: &Node, number: usize) -> Client {
    let mut client = node.client().await;
    client.ask("GET", &format!("/held?{number}"), &[]).await;
    client
}

async fn queued(node: &Node, expected: f64) {
    until(Duration::from_secs(5), &format!("{expected} in the queue"), || async {
        let found = node.metrics().await.sum("littoral_origin_queue", &[]);
        if found == expected { Ok(()) } else { Err(format!("{found} wait")) }
    })
    .await;
}

#[tokio::test]
async fn a_full_origin_is_waited_for_in_order_and_the_rest_is_told_to_come_back() {
    let origin = Origin::start();
    let gates = held(&origin, 6);
    let node = before(&format!("\"{}\"", origin.url()), "max_requests = 2\nqueue = 3\nqueue_wait = \"60s\"").await;
    let mut clients = Vec::new();
    for number in 0..2 {
        clients.push(asking(&node, number).await);
        origin.arrived(&format!("/held?{number}"), 1).await;
    }
    for number in 2..5 {
        clients.push(asking(&node, number).await);
        queued(&node, (number - 1) as f64).await;
    }
    let mut table = Table::new("no room");
    let mut late = node.client().await;
    let refused = late.get("/held?5").await;
    table.row("GET", same("the status", refused.status, 503));
    table.row("GET", same("Retry-After", refused.field("retry-after"), Some("1".into())));
    let says = refused.field("cache-status").unwrap_or_default();
    table.row("GET", that(says.contains("detail=origin-busy"), || says.clone()));
    late.send(post("/held?5", &[], "body")).await.expect("the node reads");
    let refused = late.response("POST").await.expect("an answer");
    table.row("POST", same("the status", refused.status, 503));
    table.row("POST", same("Retry-After", refused.field("retry-after"), Some("1".into())));
    let metrics = node.metrics().await;
    table.row("metrics", same("rejected", metrics.sum("littoral_origin_rejected_total", &[]), 2.0));
    table.row("metrics", same("in flight", metrics.sum("littoral_origin_in_flight", &[]), 2.0));
    table.row("metrics", same("ejected", metrics.sum("littoral_origin_up", &[]), 1.0));
    // Each answer that ends, the body too, lets the next one through.
    for number in 0..3 {
        let next = format!("/held?{}", number + 2);
        table.row(&next, same("asked too early", origin.count(&next), 0));
        gates[number].open();
        let answer = clients[number].response("GET").await.expect("an answer");
        table.row(&next, same("the answer before", (answer.status, answer.text()), (200, "halfrest".to_owned())));
        origin.arrived(&next, 1).await;
    }
    gates.iter().for_each(Gate::open);
    for client in &mut clients[3..] {
        table.row("the last", same("the status", client.response("GET").await.map(|answer| answer.status), Ok(200)));
    }
    queued(&node, 0.0).await;
    table.finish();
}

#[tokio::test]
async fn an_origin_never_has_more_than_it_may() {
    let (one, other) = (Slow::start(Duration::from_millis(3)).await, Slow::start(Duration::from_millis(3)).await);
    for rule in ["smooth-weighted", "least-requests", "peak-ewma", "consistent-hash", "random"] {
        let list = format!("{{ url = \"http://{}\", max_requests = 2 }}, \"http://{}\"", one.address, other.address);
        let more = format!("balance = \"{rule}\"\nmax_requests = 3\nqueue = 100\nqueue_wait = \"30s\"");
        let node = before(&list, &more).await;
        assert_eq!(storm(&node, 40, 10).await, HashMap::from([(200, 400)]), "{rule}");
        let most = [&one, &other].map(|origin| origin.seen.most.swap(0, Ordering::SeqCst));
        assert_eq!(most, [2, 3], "{rule}");
    }
}

#[tokio::test]
async fn what_is_stale_stands_in_where_there_is_no_room() {
    let origin = Origin::start();
    origin.serve("/stale", Answer::ok("old").field("Cache-Control: max-age=1, stale-if-error=600"));
    origin.serve("/strict", Answer::ok("old").field("Cache-Control: max-age=1, must-revalidate"));
    let gates = held(&origin, 1);
    let node = options(&format!("\"{}\"", origin.url()), "max_requests = 1\nqueue = 1\nqueue_wait = \"100ms\"");
    let node = node.test_clock().start().await;
    for target in ["/stale", "/strict"] {
        assert_eq!(node.get(target).await.status, 200);
    }
    node.advance_clock(Duration::from_secs(10)).await;
    let mut client = asking(&node, 0).await;
    origin.arrived("/held?0", 1).await;
    let stale = node.get("/stale").await;
    assert_eq!((stale.status, stale.text()), (200, "old".to_owned()));
    let says = stale.field("cache-status").unwrap_or_default();
    assert!(says.contains("hit") && says.contains("detail=origin-busy"), "{says}");
    assert_eq!(node.get("/strict").await.status, 503, "it waited in vain, and nothing may stand in");
    gates[0].open();
    assert_eq!(client.response("GET").await.map(|answer| answer.status), Ok(200));
    assert_eq!(node.get("/strict").await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_halfway_gives_its_place_back() {
    let origin = Origin::start();
    let _gates = held(&origin, 1);
    origin.serve("/p", Answer::ok("there is room").field("Cache-Control: no-store"));
    let node = before(&format!("\"{}\"", origin.url()), "max_requests = 1\nqueue = 1\nqueue_wait = \"30s\"").await;
    let client = asking(&node, 0).await;
    origin.arrived("/held?0", 1).await;
    client.vanish();
    assert_eq!(node.get("/p").await.text(), "there is room");
}
