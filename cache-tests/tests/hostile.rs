//! Clients and origins that mean ill: bounded in time and memory, and harmless to everyone else.

use std::time::{Duration, Instant};

use cache_tests::answer::{Answer, Framing, pattern};
use cache_tests::client::{Client, HOST, Socket, address_of};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::raise_open_files_limit;
use cache_tests::table::{Table, same, that};
use tokio::task::JoinSet;
use tokio::time::interval;

const MIB: u64 = 1_024 * 1_024;

/// What the good client must never see, and what the bad ones must not have.
const SLOWEST_ANSWER: Duration = Duration::from_secs(1);
const LONGEST_DRIP: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_and_dripping_clients_disturb_nobody() {
    let limit = raise_open_files_limit();
    assert!(limit >= 8_192, "this test needs 8,192 open files, the hard limit is {limit}");
    let origin = Origin::start();
    origin.serve("/page", Answer::ok(pattern(10_000, 1)).field("Cache-Control: max-age=60"));
    origin.serve("/passed", Answer::ok("passed").field("Cache-Control: no-store"));
    let node = NodeOptions::before(&origin).with("--head-timeout", "10s").alone().start().await;
    let mut idle = Vec::new();
    let mut drippers = JoinSet::new();
    for number in 0..2_000 {
        let socket = Socket { from: Some(address_of(number)), ..Socket::default() };
        let client = Client::connect_with(node.address(), socket).await;
        let client = client.unwrap_or_else(|error| panic!("client {number}: {error}"));
        if number % 2 == 0 {
            idle.push(client);
        } else {
            drippers.spawn(drip(client, number));
        }
    }
    let mut slowest = Duration::ZERO;
    let mut beat = interval(Duration::from_millis(20));
    let mut kept = node.client().await;
    let mut round = 0_u32;
    // 50 requests a second, as long as somebody drips.
    while !drippers.is_empty() {
        beat.tick().await;
        let began = Instant::now();
        round += 1;
        let target = if round.is_multiple_of(5) { "/passed" } else { "/page" };
        // Half of them on connections of their own: accepting must work too.
        let response = if round.is_multiple_of(2) { node.get(target).await } else { kept.get(target).await };
        assert_eq!((response.status, response.end.is_clean()), (200, true), "round {round}");
        slowest = slowest.max(began.elapsed());
        while let Some(dripped) = drippers.try_join_next() {
            let lasted = dripped.expect("a dripper does not panic");
            assert!(lasted <= LONGEST_DRIP, "a dripping connection lasted {lasted:?}");
        }
    }
    assert!(slowest <= SLOWEST_ANSWER, "the slowest of {round} answers took {slowest:?}");
    assert!(round >= 100, "the drippers were gone after {round} requests: what was tested?");
    drop(idle);
}

/// Sends a head byte by byte until the node has had enough; how long that took.
async fn drip(mut client: Client, number: usize) -> Duration {
    let began = Instant::now();
    let mut beat = interval(Duration::from_millis(500));
    let head = format!("GET /{number} HTTP/1.1\r\nHost: {HOST}\r\nX-Drip: ");
    let mut wire = head.bytes().chain(std::iter::repeat(b'x'));
    while began.elapsed() < 2 * LONGEST_DRIP {
        tokio::select! {
            _ = beat.tick() => {
                let byte = wire.next().unwrap_or(b'x');
                if client.send([byte]).await.is_err() {
                    break;
                }
            }
            (_, end) = client.closed() => {
                // The client's own patience with a silent node is no end.
                if end.is_closed() {
                    break;
                }
            }
        }
    }
    began.elapsed()
}

#[tokio::test]
async fn a_dripping_head_is_told_408_or_nothing() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).with("--head-timeout", "500ms").start().await;
    for begun in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: www.example.test\r\nA: b\r\n"] {
        let mut client = node.client().await;
        client.send(begun).await.expect("the node reads");
        let status = client.response("GET").await.map(|response| response.status);
        assert!(matches!(status, Ok(408) | Err(_)), "{status:?}");
        let (_, end) = client.closed().await;
        assert!(end.is_closed(), "{begun:?}: {end:?}");
    }
    assert_eq!(origin.heads(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page"));
    let node = NodeOptions::before(&origin).with("--idle-timeout", "500ms").start().await;
    let mut client = node.client().await;
    client.get("/page").await;
    let (rest, end) = client.closed().await;
    assert!(end.is_closed() && rest.is_empty(), "{end:?} {rest:?}");
}

#[tokio::test]
async fn those_who_never_read_are_cut_off() {
    let origin = Origin::start();
    let whole = pattern(32 * 1_024 * 1_024, 2);
    origin.serve("/stored", Answer::ok(whole.clone()).field("Cache-Control: max-age=60"));
    origin.serve("/passed", Answer::ok(whole.clone()).field("Cache-Control: no-store"));
    let node = NodeOptions::before(&origin).with("--write-timeout", "1s").alone().start().await;
    assert_eq!(node.get("/stored").await.body.len(), whole.len());
    let before = node.rss_bytes();
    let mut clients = Vec::new();
    // 60 of them, half of whom have a stream from the origin to themselves.
    for number in 0..60 {
        let socket = Socket { from: Some(address_of(number)), receive_buffer: Some(4_096) };
        let mut client = Client::connect_with(node.address(), socket).await.expect("the node accepts");
        client.ask("GET", if number % 2 == 0 { "/stored" } else { "/passed" }, &[]).await;
        clients.push(client);
    }
    // The records say when the node has given up: the first one is of the request before.
    node.log_lines(61).await;
    let grown = node.peak_rss_bytes().saturating_sub(before);
    // 30 streams, each at most 1 MiB ahead of its reader, and as much again for buffers on the way.
    assert!(grown <= 60 * MIB, "memory grew by {} MiB for clients that never read", grown / MIB);
    for mut client in clients {
        let outcome = client.response("GET").await;
        assert!(outcome.as_ref().map_or(true, |answer| !answer.end.is_clean()), "somebody got it all");
    }
    assert_eq!(node.get("/stored").await.body.len(), whole.len());
}

#[tokio::test]
async fn a_hostile_head_from_an_origin_is_502() {
    let origin = Origin::start();
    let many: String = (0..50_000).map(|number| format!("F{number}: v\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(1_024 * 1_024));
    for (target, fields) in [("/many", &many), ("/long", &long)] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 4\r\n\r\nbody");
        origin.serve(target, Answer::raw(head));
    }
    origin.serve("/endless", Answer::raw("HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(1_000_000)));
    origin.serve("/no-line", Answer::raw("a".repeat(4 * 1_024 * 1_024)));
    origin.serve("/page", Answer::ok("page"));
    let mut node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("hostile heads");
    for method in ["GET", "POST"] {
        for target in ["/many", "/long", "/endless", "/no-line"] {
            let fields: &[&str] = if method == "POST" { &["Content-Length: 0"] } else { &[] };
            let mut client = node.client().await;
            client.ask(method, target, fields).await;
            let status = client.response(method).await.map(|response| response.status);
            table.row(&format!("{method} {target}"), same("the status", status, Ok(502)));
            table.row(&format!("{method} {target}"), healthy(&node).await);
        }
    }
    table.finish();
    node.assert_alive();
}

#[tokio::test]
async fn many_small_chunks_are_only_slow_for_those_who_asked() {
    let origin = Origin::start();
    let mut answer = Answer::status(200).field("Cache-Control: max-age=60").framed(Framing::Chunked);
    for _ in 0..20_000 {
        answer = answer.piece("x");
    }
    origin.serve("/crumbs", answer);
    origin.serve("/page", Answer::ok("page"));
    let node = NodeOptions::before(&origin).start().await;
    let response = node.get("/crumbs").await;
    assert_eq!((response.body.len(), response.end.is_clean()), (20_000, true));
    let again = node.get("/crumbs").await;
    assert!(again.is_hit() && again.body == response.body);
    healthy(&node).await.expect("a healthy node");
}

#[tokio::test]
async fn a_body_that_is_never_sent_ends_in_time() {
    let origin = Origin::start();
    origin.serve("/upload", Answer::ok("thank you"));
    origin.serve("/page", Answer::ok("page"));
    let node = NodeOptions::before(&origin).with("--idle-timeout", "500ms").start().await;
    let mut client = node.client().await;
    client.ask("POST", "/upload", &["Content-Length: 1000"]).await;
    client.send("not a thousand bytes").await.expect("the node reads");
    let (_, end) = client.closed().await;
    assert!(end.is_closed(), "{end:?}");
    assert_eq!(origin.count("/upload"), 0, "half a body was taken for a whole one");
    healthy(&node).await.expect("a healthy node");
}

/// A page on a new connection, now.
async fn healthy(node: &Node) -> Result<(), String> {
    let response = node.client().await.exchange("GET", "/page", &[]).await;
    same("the page", response.text().as_str(), "page")?;
    that(response.end.is_clean(), || format!("{:?}", response.end))
}
