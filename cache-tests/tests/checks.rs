//! Knowing that an origin is gone, and that it is back: active checks of every type, ejection and its trial.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{Identity, authority_pem};
use http::HeaderMap;
use tokio::net::TcpListener;

const FRESH: &str = "Cache-Control: max-age=60";
/// Often enough for a test, and long enough for a machine that has other things to do.
const PACE: &str = "interval = \"100ms\", timeout = \"100ms\", fall = 2, rise = 2";

fn before(origins: &[String], more: &str) -> NodeOptions {
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{}]\n{more}\n", origins.join(", "));
    NodeOptions::configured_before(&nobody_listens(), &text)
}

fn quoted(url: &str) -> String {
    format!("\"{url}\"")
}

/// Waits until all of some origins are up or down as expected.
async fn are_up(node: &Node, expected: &[(&str, f64)]) {
    until(Duration::from_secs(10), &format!("{expected:?}"), || async {
        let metrics = node.metrics().await;
        let up = |url: &str| metrics.sum("littoral_origin_up", &[("origin", authority(url))]);
        let found: Vec<f64> = expected.iter().map(|(url, _)| up(url)).collect();
        if found.iter().zip(expected).all(|(found, (_, up))| found == up) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").trim_start_matches("https://")
}

async fn ejections(node: &Node, outcome: &str) -> f64 {
    node.metrics().await.sum("littoral_origin_ejections_total", &[("outcome", outcome)])
}

#[tokio::test]
async fn the_body_of_a_check_has_to_contain_a_text() {
    let origin = Origin::start();
    let answer = |body: String| Answer::ok(body).field("Cache-Control: no-store");
    origin.serve("/healthz", answer("database: ready".into()));
    let health = format!("health = {{ path = \"/healthz\", body = \"database: ready\", {PACE} }}");
    let node = before(&[quoted(&origin.url())], &health).start().await;
    let far = "x".repeat(64 << 10);
    for (name, body, up) in [
        ("another text", answer("database: gone".into()), 0.0),
        ("the text", answer("a: ready\ndatabase: ready\n".into()), 1.0),
        ("behind what is looked at", answer(format!("{far}database: ready")), 0.0),
        ("in two pieces", Answer::ok("data").field("Cache-Control: no-store").piece("base: ready"), 1.0),
        ("no body", answer(String::new()), 0.0),
        ("at the very end of what is looked at", answer(format!("{}database: ready", &far[15..])), 1.0),
        ("another status", Answer::status(500), 0.0),
    ] {
        origin.serve("/healthz", body);
        println!("{name}");
        are_up(&node, &[(&origin.url(), up)]).await;
    }
}

#[tokio::test]
async fn who_accepts_connections_passes_a_check_of_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("http://{address}");
    let silent = Origin::start();
    silent.serve("/", Answer::silent());
    let health = format!("health = {{ type = \"tcp\", {PACE} }}");
    let node = before(&[quoted(&url), quoted(&silent.url())], &health).start().await;
    listener.accept().await.expect("a check");
    drop(listener);
    are_up(&node, &[(&url, 0.0), (&silent.url(), 1.0)]).await;
    let _again = TcpListener::bind(address).await.expect("the same port");
    are_up(&node, &[(&url, 1.0), (&silent.url(), 1.0)]).await;
    assert!(silent.requests().is_empty(), "nothing is asked");
}

#[tokio::test]
async fn who_has_the_right_certificate_passes_a_check_of_tls() {
    let content = Origin::start();
    let server = NodeOptions::configured(&content, "").start().await;
    let url = |address: std::net::SocketAddr| format!("https://{address}");
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute = url(mute.local_addr().expect("an address"));
    let plain = url(content.address());
    let good = url(server.tls_address());
    let member = |url: &str, more: &str| format!("{{ url = \"{url}\", {more} }}");
    let mut table = Table::new("TLS");
    for (name, more, up) in [
        ("its authority", "ca = \"right.pem\"", 1.0),
        ("another authority", "ca = \"wrong.pem\"", 0.0),
        ("not checked", "verify = false", 1.0),
    ] {
        let more = format!("sni = \"{HOST}\", {more}");
        let members: Vec<String> = [&good, &mute, &plain].iter().map(|url| member(url, &more)).collect();
        let health = format!("health = {{ type = \"tls\", {PACE} }}");
        let node = before(&members, &health)
            .file("right.pem", authority_pem())
            .file("wrong.pem", Identity::of(&[HOST]).certificate_pem)
            .start()
            .await;
        are_up(&node, &[(&good, up), (&mute, 0.0), (&plain, 0.0)]).await;
        let states = node.metrics().await.sum("littoral_origin_up", &[]);
        table.row(name, same("how many are up", states, up));
    }
    table.finish();
    assert!(content.requests().is_empty(), "nothing is asked");
}

/// Method and path, and the body.
type Questions = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server of the health protocol of gRPC.
struct Serving {
    url: String,
    /// What it says: a number of the protocol, or [`ERROR`], or [`MUTE`].
    says: Arc<AtomicU8>,
    asked: Questions,
}

/// It answers with a status of gRPC other than 0.
const ERROR: u8 = 100;
/// It answers without a status of gRPC.
const MUTE: u8 = 101;

impl Serving {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = Self { url, says: Arc::new(AtomicU8::new(1)), asked: Arc::default() };
        let (says, asked) = (serving.says.clone(), serving.asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, asked) = (says.clone(), asked.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, says.load(Ordering::SeqCst), asked.clone()));
                    }
                });
            }
        });
        serving
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    says: u8,
    asked: Questions,
) {
    let line = format!("{} {}", request.method(), request.uri().path());
    let mut body = request.into_body();
    let mut question = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        question.extend_from_slice(&piece);
    }
    asked.lock().expect("nobody panics").push((line, question));
    let head = http::Response::builder().header("content-type", "application/grpc");
    if says == ERROR {
        // UNIMPLEMENTED, in the head.
        let head = head.header("grpc-status", "12").body(()).expect("a response");
        let _ = respond.send_response(head, true);
        return;
    }
    // A client that has gone away is none of our business.
    let Ok(mut stream) = respond.send_response(head.body(()).expect("a response"), false) else { return };
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, if says == MUTE { 1 } else { says }]);
    let _ = stream.send_data(message, says == MUTE);
    if says != MUTE {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        let _ = stream.send_trailers(trailers);
    }
}

#[tokio::test]
async fn who_says_that_it_serves_passes_a_check_of_grpc() {
    let (server, plain) = (Serving::start().await, Origin::start());
    let health = format!("health = {{ type = \"grpc\", service = \"a.B\", {PACE} }}");
    let node = before(&[quoted(&server.url), quoted(&plain.url())], &health).start().await;
    for (name, says, up) in [
        ("not serving", 2, 0.0),
        ("serving", 1, 1.0),
        ("service unknown", 3, 0.0),
        ("serving again", 1, 1.0),
        ("an error", ERROR, 0.0),
        ("serving once more", 1, 1.0),
        ("no status", MUTE, 0.0),
    ] {
        server.says.store(says, Ordering::SeqCst);
        println!("{name}");
        // The other one speaks no HTTP/2.
        are_up(&node, &[(&server.url, up), (&plain.url(), 0.0)]).await;
    }
    let question = ("POST /grpc.health.v1.Health/Check".to_owned(), b"\0\0\0\0\x05\x0a\x03a.B".to_vec());
    assert!(server.asked.lock().expect("nobody panics").iter().all(|asked| *asked == question));
}

/// Asks for so many pages that nobody has asked for.
async fn ask(node: &Node, round: &str, count: usize) {
    for number in 0..count {
        assert_eq!(node.get(&format!("/p?{round}-{number}")).await.status, 200, "{round}, request {number}");
    }
}

#[tokio::test]
async fn each_ejection_lasts_longer_and_one_trial_ends_it() {
    let (bad, good) = (Origin::start(), Origin::start());
    bad.serve("/p", Answer::hang_up());
    good.serve("/p", Answer::ok("good").field(FRESH));
    let origins = [quoted(&bad.url()), quoted(&good.url())];
    let eject = "eject = { failures = 3, for = \"100ms\", max = \"400ms\" }";
    let node = Arc::new(before(&origins, eject).start().await);
    let begun = Instant::now();
    // When the request that was the last trial was about to be sent: the ejection after it began later.
    let last = Mutex::new(begun);
    ask(&node, "failures", 6).await;
    let mut table = Table::new("trials");
    for (trial, after_ms) in [(1, 100), (2, 200), (3, 400), (4, 400), (5, 400), (6, 400)] {
        let name = format!("trial {trial}");
        let before = *last.lock().expect("nobody panics");
        let asked = AtomicUsize::new(0);
        until(Duration::from_secs(10), &name, || async {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            *last.lock().expect("nobody panics") = Instant::now();
            assert_eq!(node.get(&format!("/p?trial-{trial}-{number}")).await.status, 200, "{name}: nobody notices");
            if bad.heads() > 2 + trial { Ok(()) } else { Err(format!("{} requests", bad.heads())) }
        })
        .await;
        let long_enough = before.elapsed() >= Duration::from_millis(after_ms);
        table.row(&name, that(long_enough, || format!("after {:?}", before.elapsed())));
        table.row(&name, same("requests to the bad one", bad.heads(), 3 + trial));
    }
    let all = begun.elapsed();
    table.row("no longer than the longest", that(all < Duration::from_secs(5), || format!("{all:?}")));
    table.row("ejections", same("counted", ejections(&node, "ejected").await, 7.0));

    // The trial is answered late; until then nobody else is sent there.
    let gate = Gate::closed();
    bad.serve("/p", Answer::ok("well again").field(FRESH).after(&gate));
    let asked = Mutex::new(Vec::new());
    until(Duration::from_secs(10), "a trial", || async {
        let mut asked = asked.lock().expect("nobody panics");
        let (node, number) = (node.clone(), asked.len());
        asked.push(tokio::spawn(async move { node.get(&format!("/p?late-{number}")).await.text() }));
        if bad.heads() == 10 { Ok(()) } else { Err(format!("{} requests", bad.heads())) }
    })
    .await;
    ask(&node, "meanwhile", 10).await;
    table.row("meanwhile", same("requests to the bad one", bad.heads(), 10));
    are_up(&node, &[(&bad.url(), 0.0), (&good.url(), 1.0)]).await;
    gate.open();
    are_up(&node, &[(&bad.url(), 1.0), (&good.url(), 1.0)]).await;
    let mut late = 0;
    for body in asked.into_inner().expect("nobody panics") {
        late += usize::from(body.await.expect("it is answered") == "well again");
    }
    table.row("the trial", same("answers of it", late, 1));
    ask(&node, "back", 10).await;
    table.row("back", same("its half of ten", bad.heads(), 15));
    table.finish();
}

#[tokio::test]
async fn never_are_all_ejected() {
    let mut table = Table::new("max_percent");
    for (count, percent, out) in
        [(1, "100%", 0), (2, "50%", 1), (2, "100%", 1), (4, "50%", 2), (4, "0%", 0), (4, "100%", 3)]
    {
        let name = format!("{percent} of {count}");
        let origins: Vec<Origin> = (0..count).map(|_| Origin::start()).collect();
        origins.iter().for_each(|origin| origin.serve("/p", Answer::hang_up()));
        let list: Vec<String> = origins.iter().map(|origin| quoted(&origin.url())).collect();
        let eject = format!(
            "eject = {{ failures = 2, for = \"1h\", max_percent = \"{percent}\" }}\nretry = {{ attempts = 0 }}"
        );
        let node = before(&list, &eject).start().await;
        for number in 0..6 * count {
            assert_eq!(node.get(&format!("/p?{number}")).await.status, 502, "{name}");
        }
        let up = node.metrics().await.sum("littoral_origin_up", &[]);
        table.row(&name, same("up", up, f64::from(count - out)));
        table.row(&name, same("ejected", ejections(&node, "ejected").await, f64::from(out)));
        table.row(&name, same("some were withheld", ejections(&node, "withheld").await > 0.0, true));
    }
    table.finish();
}
