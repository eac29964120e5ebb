//! WebSockets through the node, and reloads that neither they nor anyone else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::h2::polite::Polite;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use cache_tests::upgrade::{EchoOrigin, Socket, download};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

#[tokio::test]
async fn bytes_go_both_ways() {
    let origin = EchoOrigin::start(1, Duration::ZERO).await;
    let node = NodeOptions::configured_before(&origin.url(), "").start().await;
    let mut table = Table::new("WebSockets");
    for name in ["http", "https"] {
        let client = if name == "http" { node.client().await } else { node.tls_client().await };
        let mut socket = Socket::open(client).await.unwrap_or_else(|problem| panic!("{name}: {problem}"));
        for length in [1, 10, 1_000, 100_000, 1] {
            table.row(&format!("{name} {length}"), socket.echo(&pattern(length, 1)).await);
        }
        // Nothing in them is HTTP any more.
        table.row(name, socket.echo(b"GET /smuggled HTTP/1.1\r\nHost: www.example.test\r\n\r\n").await);
        table.row(name, same("open at the origin", origin.open(), 1));
        drop(socket);
        until(PATIENCE, "the origin sees the end", || async {
            if origin.open() == 0 { Ok(()) } else { Err(format!("{} are open", origin.open())) }
        })
        .await;
    }
    table.finish();
}

#[tokio::test]
async fn an_origin_that_does_not_switch_answers() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=60"));
    let node = NodeOptions::configured(&origin, "").start().await;
    let fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAA"];
    for _ in 0..2 {
        let mut client = node.client().await;
        let response = client.exchange("GET", "/page", &fields).await;
        assert_eq!((response.status, response.text().as_str()), (200, "page"));
        assert_eq!(client.get("/page").await.status, 200);
    }
}

#[tokio::test]
async fn nobody_switches_to_http_2_by_upgrade() {
    // RFC 9113 section 3.1 has no h2c upgrade any more; an origin that has would be spoken to behind the node's back.
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: no-store"));
    let node = NodeOptions::configured(&origin, "").start().await;
    let mut table = Table::new("h2c");
    for upgrade in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"] {
        let line = format!("Upgrade: {upgrade}");
        let settings = "HTTP2-Settings: AAMAAABkAAQAAP__";
        let fields = ["Connection: Upgrade, HTTP2-Settings", &line, settings];
        let response = node.client().await.exchange("GET", "/page", &fields).await;
        table.row(upgrade, that(matches!(response.status, 200 | 400), || format!("status {}", response.status)));
        for seen in origin.requests() {
            let said = seen.field("upgrade").unwrap_or_default().to_ascii_lowercase();
            table.row(upgrade, that(!said.contains("h2c"), || format!("the origin sees Upgrade: {said}")));
            table.row(upgrade, same("HTTP2-Settings", seen.field("http2-settings"), None));
        }
    }
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reloads_disturb_nobody() {
    reloads(10, Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes; cache-tests/run --soak"]
async fn a_hundred_and_thirty_six_reloads_in_ten_minutes_disturb_nobody() {
    let growth = reloads(136, Duration::from_millis(4_410)).await;
    assert!(growth < 1.05, "memory grew by a factor of {growth:.3}");
}

/// Reloads under traffic of every kind: no error, no connection closed. Gives the growth of memory since a tenth of them.
async fn reloads(count: u32, pause: Duration) -> f64 {
    // Two seconds for a download: most reloads meet one.
    let origin = EchoOrigin::start(20, Duration::from_millis(100)).await;
    let node = Arc::new(NodeOptions::configured_before(&origin.url(), &version(0)).alone().start().await);
    let (stop, stopped) = watch::channel(false);
    let done: Arc<[AtomicU64; 3]> = Arc::default();
    let mut clients = JoinSet::new();
    for number in 0..16 {
        clients.spawn(talk(number, Arc::clone(&node), stopped.clone(), Arc::clone(&done)));
        clients.spawn(load(number, Arc::clone(&node), stopped.clone(), Arc::clone(&done)));
    }
    until(PATIENCE, "16 WebSockets", || async {
        if origin.open() == 16 { Ok(()) } else { Err(format!("{} are open", origin.open())) }
    })
    .await;
    let (mut early, mut versions) = (0, Vec::new());
    for number in 1..=count {
        let next = Instant::now() + pause;
        let answer = node.reload(&version(number)).await;
        assert_eq!(answer.status, 200, "reload {number}: {}", answer.text());
        let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        versions.push(said["version"].as_u64().unwrap_or_else(|| panic!("no version: {said}")));
        if number == count.div_ceil(10) {
            early = node.rss_bytes();
        }
        if let Some(ended) = clients.try_join_next() {
            panic!("after {number} reloads: {:?}", ended.expect("a client does not panic"));
        }
        sleep_until(next).await;
    }
    let late = node.rss_bytes();
    assert_eq!(origin.open(), 16, "WebSockets that are still open");
    stop.send_replace(true);
    while let Some(outcome) = clients.join_next().await {
        outcome.expect("a client does not panic").unwrap_or_else(|problem| panic!("{problem}"));
    }
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    let [echoes, downloads, pages] = [0, 1, 2].map(|at| done[at].load(Ordering::Relaxed));
    eprintln!("{count} reloads; {echoes} echoes, {downloads} downloads, {pages} pages; {early} to {late} bytes");
    assert!(echoes > 0 && downloads > 0 && pages > 0);
    late as f64 / early as f64
}

/// A configuration that differs from the one before.
fn version(number: u32) -> String {
    format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n\
         [[site.main.rule]]\nthen = {{ set_response = {{ \"x-version\" = \"{number}\" }} }}\n"
    )
}

/// One WebSocket that stays open to the end.
async fn talk(
    number: u64,
    node: Arc<Node>,
    stopped: watch::Receiver<bool>,
    done: Arc<[AtomicU64; 3]>,
) -> Result<(), String> {
    let client = if number.is_multiple_of(2) { node.client().await } else { node.tls_client().await };
    let mut socket = Socket::open(client).await?;
    let mut beat = interval(Duration::from_millis(50));
    while !*stopped.borrow() {
        beat.tick().await;
        socket.echo(&pattern(500, number)).await.map_err(|problem| format!("WebSocket {number}: {problem}"))?;
        done[0].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Downloads, one after another, over one connection that stays; beside them, for some, small pages.
async fn load(
    number: u64,
    node: Arc<Node>,
    stopped: watch::Receiver<bool>,
    done: Arc<[AtomicU64; 3]>,
) -> Result<(), String> {
    let expected = download();
    let broken = |what: &str| format!("download {number}: {what}");
    let mut connection = Connection::open(&node, number).await;
    while !*stopped.borrow() {
        let response = connection.get("/download").await;
        that(response.status == 200 && response.body == expected && response.end.is_clean(), || {
            broken(&format!("{} {} bytes, {:?}", response.status, response.body.len(), response.end))
        })?;
        done[1].fetch_add(1, Ordering::Relaxed);
        let page = connection.exchange("HEAD", "/page").await;
        that(page.status == 200, || broken(&format!("a page: {}", page.status)))?;
        done[2].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A connection of one of three kinds; whoever closes it fails the test.
enum Connection {
    Http1(Client),
    Http2(Polite),
}

impl Connection {
    async fn open(node: &Node, number: u64) -> Self {
        match number % 3 {
            0 => Self::Http1(node.client().await),
            1 => Self::Http1(node.tls_client().await),
            _ => Self::Http2(node.h2().await),
        }
    }

    async fn get(&mut self, target: &str) -> Response {
        self.exchange("GET", target).await
    }

    async fn exchange(&mut self, method: &str, target: &str) -> Response {
        match self {
            Self::Http1(client) => client.exchange(method, target, &[]).await,
            Self::Http2(client) => client.exchange(method, target, &[], None).await,
        }
    }
}
