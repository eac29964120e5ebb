//! Several origins of one site: who is asked, how a dead one is noticed, and what that costs clients.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_tests::answer::{Answer, Framing};
use cache_tests::client::{HOST, post};
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::peer::{Peer, skipped_without};
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{Identity, authority_pem};
use http::HeaderMap;

const FRESH: &str = "Cache-Control: max-age=60";

async fn before(origins: &str, more: &str) -> Node {
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{origins}]\n{more}\n");
    NodeOptions::configured_before(&nobody_listens(), &text).start().await
}

fn quoted(origins: &[&Origin]) -> String {
    origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect::<Vec<_>>().join(", ")
}

/// Origins that answer everything below `/p` and say how often.
fn some(count: usize) -> Vec<Origin> {
    let origins: Vec<Origin> = (0..count).map(|_| Origin::start()).collect();
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/p", Answer::ok(number.to_string()).field(FRESH));
    }
    origins
}

async fn up(node: &Node, origin: &str) -> f64 {
    let label = origin.trim_start_matches("http://");
    node.metrics().await.sum("littoral_origin_up", &[("origin", label)])
}

async fn is_up(node: &Node, origin: &str, expected: f64) {
    until(Duration::from_secs(10), &format!("{origin} is up: {expected}"), || async {
        let found = up(node, origin).await;
        if found == expected { Ok(()) } else { Err(format!("up is {found}")) }
    })
    .await;
}

#[tokio::test]
async fn weights_are_honoured_exactly() {
    let origins = some(3);
    let list = format!(
        "{{ url = \"{}\", weight = 5 }}, {{ url = \"{}\", weight = 2 }}, \"{}\"",
        origins[0].url(),
        origins[1].url(),
        origins[2].url()
    );
    let node = before(&list, "").await;
    for number in 0..80 {
        assert_eq!(node.get(&format!("/p?{number}")).await.status, 200);
    }
    let asked: Vec<usize> = origins.iter().map(Origin::heads).collect();
    assert_eq!(asked, [50, 20, 10]);
    let record = &node.log_lines(80).await[79];
    assert!(origins.iter().any(|origin| record["origin"] == origin.address().to_string()), "{record}");
}

#[tokio::test]
async fn a_spare_is_asked_while_its_betters_are_down_and_no_longer() {
    let origins = some(2);
    for origin in &origins {
        origin.serve("/healthz", Answer::ok("well").field("Cache-Control: no-store"));
    }
    let list = format!("\"{}\", {{ url = \"{}\", tier = 2 }}", origins[0].url(), origins[1].url());
    let node =
        before(&list, "health = { path = \"/healthz\", interval = \"400ms\", timeout = \"400ms\", fall = 2 }").await;
    let mut table = Table::new("tiers");
    table.row("at first", same("the origin", node.get("/p?1").await.text(), "0".to_owned()));
    origins[0].serve("/healthz", Answer::status(503));
    is_up(&node, &origins[0].url(), 0.0).await;
    table.row("down", same("the origin", node.get("/p?2").await.text(), "1".to_owned()));
    origins[0].serve("/healthz", Answer::ok("well").field("Cache-Control: no-store"));
    is_up(&node, &origins[0].url(), 1.0).await;
    table.row("up again", same("the origin", node.get("/p?3").await.text(), "0".to_owned()));
    let check = &origins[0].requests_for("/healthz")[0];
    table.row("Host", same("the Host", check.field("host"), Some(origins[0].address().to_string())));
    table.finish();
}

#[tokio::test]
async fn a_failed_get_is_sent_to_another_origin_and_a_failed_post_is_not() {
    let mut table = Table::new("retries");
    for (name, first, method, expected) in [
        ("GET, nobody listens", None, "GET", (200, 1)),
        ("GET, hung up on", Some(Answer::hang_up()), "GET", (200, 1)),
        ("GET, reset before the head", Some(Answer::raw(b"HTTP/1.1 2".as_slice())), "GET", (200, 1)),
        ("POST, nobody listens: nothing was sent", None, "POST", (200, 1)),
        ("POST, hung up on", Some(Answer::hang_up()), "POST", (502, 0)),
        ("GET, answered 500", Some(Answer::status(500)), "GET", (500, 0)),
    ] {
        let (mut bad, good) = (Origin::start(), Origin::start());
        good.serve("/p", Answer::ok("good").field(FRESH));
        match first {
            Some(answer) => bad.serve("/p", answer),
            None => bad.stop(),
        }
        // The tiers say who is asked first.
        let list = format!("\"{}\", {{ url = \"{}\", tier = 2 }}", bad.url(), good.url());
        let node = before(&list, "").await;
        let mut client = node.client().await;
        if method == "GET" {
            client.ask("GET", "/p", &[]).await;
        } else {
            client.send(post("/p", &[], "body")).await.expect("the node reads");
        }
        let status = client.response(method).await.map(|response| response.status);
        table.row(name, same("the answer", (status, good.heads()), (Ok(expected.0), expected.1)));
        let record = &node.log_lines(1).await[0];
        table.row(name, same("retries in the log", record["retries"].as_u64(), Some(expected.1 as u64)));
    }
    table.finish();
}

#[tokio::test]
async fn nothing_is_tried_again_after_the_first_byte() {
    let (bad, good) = (Origin::start(), Origin::start());
    bad.serve("/p", Answer::ok("half of it").field(FRESH).framed(Framing::ShortLength));
    good.serve("/p", Answer::ok("good").field(FRESH));
    let list = format!("\"{}\", {{ url = \"{}\", tier = 2 }}", bad.url(), good.url());
    let node = before(&list, "").await;
    let mut client = node.client().await;
    client.ask("GET", "/p", &[]).await;
    let broken = client.response("GET").await.expect("a head");
    assert!(broken.status != 200 || !broken.end.is_clean(), "a broken answer must not look complete");
    assert_eq!(good.heads(), 0);
}

#[tokio::test]
async fn the_budget_of_retries_is_kept() {
    let (mut bad, good) = (Origin::start(), Origin::start());
    bad.stop();
    good.serve("/p", Answer::ok("good").field(FRESH));
    let list = format!("\"{}\", {{ url = \"{}\", tier = 2 }}", bad.url(), good.url());
    let node = before(&list, "eject = false\nretry = { budget = \"50%\", reserve = 0 }").await;
    let mut statuses = Vec::new();
    for number in 0..20 {
        statuses.push(node.get(&format!("/p?{number}")).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    let node = before(&list, "eject = false\nretry = { attempts = 0 }").await;
    assert_eq!(node.get("/p").await.status, 502);
}

#[tokio::test]
async fn an_origin_whose_requests_fail_is_left_alone() {
    let (bad, good) = (Origin::start(), Origin::start());
    bad.serve("/p", Answer::hang_up());
    good.serve("/p", Answer::ok("good").field(FRESH));
    let node = before(&quoted(&[&bad, &good]), "eject = { failures = 3, for = \"1h\" }").await;
    for number in 0..40 {
        assert_eq!(node.get(&format!("/p?{number}")).await.status, 200, "request {number}");
    }
    assert_eq!(bad.heads(), 3);
    is_up(&node, &bad.url(), 0.0).await;
    is_up(&node, &good.url(), 1.0).await;
    // Alone in the world it is asked all the same.
    let node = before(&quoted(&[&bad]), "eject = { failures = 1, for = \"1h\" }").await;
    node.get("/p").await;
    bad.serve("/p", Answer::ok("well again").field(FRESH));
    assert_eq!(node.get("/p").await.text(), "well again");
}

#[tokio::test]
async fn deadlines_of_origins() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/head", Answer::ok("late").after(&gate));
    origin.serve("/body", Answer::ok("").field(FRESH).piece("half").hold(&gate).piece("rest"));
    let mut table = Table::new("deadlines");
    let short = "first_byte = \"200ms\", between_bytes = \"200ms\"";
    for (name, method, target, timeouts, expected) in [
        ("first byte", "GET", "/head", "first_byte = \"200ms\"", Some(504)),
        ("between bytes", "GET", "/body", "between_bytes = \"200ms\"", None),
        ("total, before the head", "GET", "/head", "total = \"200ms\"", Some(504)),
        ("total, in the body", "GET", "/body", "total = \"200ms\"", None),
        ("passed, first byte", "POST", "/head", short, Some(504)),
        ("passed, between bytes", "POST", "/body", short, None),
        ("passed, total, before the head", "POST", "/head", "total = \"200ms\"", None),
        ("passed, total, in the body", "POST", "/body", "total = \"200ms\"", None),
    ] {
        let node = before(&quoted(&[&origin]), &format!("timeouts = {{ {timeouts} }}")).await;
        let started = Instant::now();
        let mut client = node.client().await;
        client.ask(method, target, &[]).await;
        let whole = client.response(method).await.ok().filter(|response| response.end.is_clean());
        table.row(name, same("the whole answer", whole.map(|response| response.status), expected));
        table.row(name, that(started.elapsed() < Duration::from_secs(5), || format!("{:?}", started.elapsed())));
    }
    table.finish();
}

/// SIGKILL of one of two origins under 300 misses a second; then of the other.
#[tokio::test]
async fn a_killed_origin_costs_no_request() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/origins.mjs");
    let (Some(first), Some(second)) = (Peer::node_js(&script).await, Peer::node_js(&script).await) else {
        return skipped_without("node");
    };
    let list = format!("\"{}\", \"{}\"", first.url(), second.url());
    let health = "health = { path = \"/healthz\" }\n";
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{list}]\n{health}");
    let node = NodeOptions::configured_before(&nobody_listens(), &text).test_clock().start().await;
    assert_eq!(node.get("/stale").await.status, 200);
    node.advance_clock(Duration::from_secs(10)).await;

    const REQUESTS: usize = 1_200;
    let (done, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let address = node.address();
    let load = tokio::spawn({
        let (done, failed) = (done.clone(), failed.clone());
        async move {
            let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / 300));
            let mut requests = Vec::new();
            for number in 0..REQUESTS {
                pace.tick().await;
                let (done, failed) = (done.clone(), failed.clone());
                requests.push(tokio::spawn(async move {
                    let mut client = cache_tests::client::Client::connect(address).await;
                    let status = client.get(&format!("/miss/{number}")).await.status;
                    if status != 200 {
                        failed.lock().expect("nobody panics").push((number, status));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }));
            }
            for request in requests {
                request.await.expect("a request ends");
            }
        }
    });
    until(Duration::from_secs(10), "some requests are answered", || async {
        if done.load(Ordering::Relaxed) > 200 { Ok(()) } else { Err("too early".to_owned()) }
    })
    .await;
    first.kill();
    let killed = Instant::now();
    is_up(&node, &first.url(), 0.0).await;
    let noticed = killed.elapsed();
    load.await.expect("the load ends");
    assert_eq!(*failed.lock().expect("nobody panics"), []);
    assert!(noticed < Duration::from_secs(2), "noticed after {noticed:?}");

    second.kill();
    is_up(&node, &second.url(), 0.0).await;
    let mut table = Table::new("both dead");
    for (target, expected) in [("/stale", 200), ("/new", 502), ("/other", 502)] {
        let started = Instant::now();
        let response = node.get(target).await;
        table.row(target, same("the status", response.status, expected));
        table.row(target, that(started.elapsed() < Duration::from_secs(1), || format!("{:?}", started.elapsed())));
    }
    table.finish();
}

#[tokio::test]
async fn origins_under_tls_are_who_they_say_they_are() {
    let root = Path::new("/usr/share/doc");
    let Some(nginx) = Peer::nginx_with_tls(root).await else { return skipped_without("nginx") };
    let other = Identity::of(&[HOST]).certificate_pem;
    let url = nginx.url().replace("http:", "https:");
    let mut table = Table::new("TLS to an origin");
    for (name, settings, expected) in [
        ("its own authority", format!("sni = \"{HOST}\", ca = \"right.pem\""), 404),
        ("HTTP/2", format!("sni = \"{HOST}\", ca = \"right.pem\", http2 = true"), 404),
        ("another name", "sni = \"other.example\", ca = \"right.pem\"".to_owned(), 502),
        ("another authority", format!("sni = \"{HOST}\", ca = \"wrong.pem\""), 502),
        ("the system's authorities", format!("sni = \"{HOST}\""), 502),
        ("not checked", format!("sni = \"{HOST}\", verify = false"), 404),
    ] {
        let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{url}\", {settings} }}]\n");
        let node = NodeOptions::configured_before(&nobody_listens(), &text)
            .file("right.pem", authority_pem())
            .file("wrong.pem", &other)
            .start()
            .await;
        table.row(name, same("the status", node.get("/no/such/page").await.status, expected));
        let pass = node.client().await.exchange("OPTIONS", "/no/such/page", &[]).await.status;
        table.row(name, that((pass == 502) == (expected == 502), || format!("on the pass path: {pass}")));
    }
    table.finish();
}

/// An origin that speaks HTTP/2 in the clear and answers like a server of gRPC.
async fn grpc_origin() -> (String, Arc<std::sync::Mutex<Vec<http::Request<Bytes>>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let of_origin = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = of_origin.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let seen = seen.clone();
                    tokio::spawn(async move {
                        let (parts, mut body) = request.into_parts();
                        let mut sent = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            sent.extend_from_slice(&data);
                        }
                        let whole = http::Request::from_parts(parts, Bytes::from(sent));
                        seen.lock().expect("nobody panics").push(whole);
                        let head = http::Response::builder().header("content-type", "application/grpc");
                        let head = head.header("cache-control", "max-age=60").body(()).expect("a response");
                        let mut stream = respond.send_response(head, false).expect("sent");
                        stream.send_data(Bytes::from_static(b"message"), false).expect("sent");
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().expect("a value"));
                        stream.send_trailers(trailers).expect("sent");
                    });
                }
            });
        }
    });
    (url, seen)
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let (url, seen) = grpc_origin().await;
    let node = before(&format!("{{ url = \"{url}\", http2 = true }}"), "").await;
    let client = node.h2().await;
    let fields = ["content-type: application/grpc", "te: trailers"];
    let body = Some(Bytes::from_static(b"request"));
    let mut begun = client.begin("POST", "/service/Method", &fields, body).await.expect("an answer");
    assert_eq!(&begun.rest().await.0[..], b"message");
    let trailers = begun.trailers().await.expect("the end of the stream").unwrap_or_default();
    assert_eq!(trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]));
    {
        let seen = seen.lock().expect("nobody panics");
        assert_eq!(&seen[0].body()[..], b"request");
        assert_eq!(seen[0].headers().get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]));
    }
    // What can be cached comes over HTTP/2 too, and is stored.
    let (miss, hit) = (node.get("/page").await, node.get("/page").await);
    assert_eq!((miss.status, miss.text().as_str(), hit.is_hit()), (200, "message", true));
    assert_eq!(seen.lock().expect("nobody panics").len(), 2);
}
