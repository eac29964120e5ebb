//! HTTP/1 over TLS: as in the clear, and ends that cannot be mistaken for an attacker's.

use cache_tests::answer::{Answer, Framing, pattern};
use cache_tests::client::{Client, HOST, Socket, address_of, post, request};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";
const NO_STORE: &str = "Cache-Control: no-store";

async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("a page").field(FRESH));
    origin.serve("/upload", Answer::ok("thank you").field(NO_STORE));
    let node = NodeOptions::configured(&origin, "").start().await;
    (origin, node)
}

#[tokio::test]
async fn requests_are_answered_as_in_the_clear() {
    let (origin, node) = site().await;
    let large = pattern(3_000_000, 1);
    origin.serve("/large", Answer::ok(large.clone()).field(FRESH));
    origin.serve("/chunks", Answer::ok(large.clone()).field(NO_STORE).framed(Framing::Chunked));
    let mut client = node.tls_client().await;
    let mut table = Table::new("HTTP/1 over TLS");
    for (hit, target, length) in [
        (false, "/page", 6),
        (true, "/page", 6),
        (false, "/large", large.len()),
        (true, "/large", large.len()),
        (false, "/chunks", large.len()),
        (false, "/chunks", large.len()),
    ] {
        let response = client.get(target).await;
        let found = (response.status, response.body.len(), response.end.clone(), response.is_hit());
        table.row(target, same("the answer", found, (200, length, End::Whole, hit)));
    }
    let head = client.exchange("HEAD", "/large", &[]).await;
    let length = large.len().to_string();
    table.row("HEAD", same("Content-Length", head.field("content-length"), Some(length)));
    let range = client.exchange("GET", "/large", &["Range: bytes=1000-1999"]).await;
    table.row("Range", that(range.status == 206 && range.body == large[1_000..2_000], || format!("{:?}", range.head)));
    client.send(post("/upload", &[], "hello")).await.expect("the node reads");
    let upload = client.response("POST").await.map(|response| response.status);
    table.row("POST", same("the status", upload, Ok(200)));
    let seen = origin.requests_for("/upload").pop().expect("a request at the origin");
    table.row("POST", same("the body", &seen.body[..], b"hello"));
    table.row("POST", same("X-Forwarded-Proto", seen.field("x-forwarded-proto").as_deref(), Some("https")));
    table.finish();
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    let (origin, node) = site().await;
    let body = pattern(5 * 1_024 * 1_024, 2);
    let mut client = node.tls_client().await;
    client.ask("POST", "/upload", &[&format!("Content-Length: {}", body.len())]).await;
    client.send(&body).await.expect("the node reads");
    assert_eq!(client.response("POST").await.map(|response| response.status), Ok(200));
    assert!(origin.requests_for("/upload")[0].body == body);
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_order() {
    let (origin, node) = site().await;
    for number in 0..20 {
        origin.serve(&format!("/{number}"), Answer::ok(format!("answer {number}")).field(FRESH));
    }
    for _ in 0..2 {
        let mut client = node.tls_client().await;
        let wire: String =
            (0..20).map(|number| request("GET", &format!("/{number}"), &[]) + &post("/upload", &[], "body")).collect();
        client.send(wire).await.expect("the node reads a pipeline");
        for number in 0..20 {
            let answer = client.response("GET").await.expect("an answer for each request");
            assert_eq!(answer.text(), format!("answer {number}"));
            let answer = client.response("POST").await.expect("an answer for each upload");
            assert_eq!(answer.text(), "thank you");
        }
    }
}

/// RFC 8446 section 6.1: close_notify tells an end from a cut.
#[tokio::test]
async fn an_end_is_announced_and_a_cut_is_not() {
    let (origin, node) = site().await;
    let mut table = Table::new("ends of TLS connections");
    for (target, control) in [("/stored", FRESH), ("/passed", NO_STORE)] {
        origin.serve(target, Answer::ok(pattern(50_000, 3)).field(control).framed(Framing::Close));
        // HTTP/1.0 knows no chunks: the end of the body may be the end of the connection.
        let wire = format!("GET {target} HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
        let mut client = node.tls_client().await;
        client.send(&wire).await.expect("the node reads");
        let response = client.response("GET").await.unwrap_or_else(|end| panic!("{target}: {end:?}"));
        table.row(target, that(response.end.is_clean(), || format!("{:?}", response.end)));
        table.row(target, same("the length", response.body.len(), 50_000));
    }
    for (name, framing) in [
        ("/reset-in-close", Framing::ResetInClose),
        ("/reset-in-chunks", Framing::ResetInChunks),
        ("/short-chunks", Framing::ShortChunks),
        ("/short-length", Framing::ShortLength),
    ] {
        for (method, control) in [("GET", FRESH), ("GET", NO_STORE), ("POST", NO_STORE)] {
            let target = format!("{name}-{method}-{}", control.len());
            origin.serve(&target, Answer::ok(pattern(50_000, 3)).field(control).framed(framing));
            for version in ["1.0", "1.1"] {
                let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
                let mut client = node.tls_client().await;
                let wire = format!("{method} {target} HTTP/{version}\r\nHost: {HOST}\r\n{length}\r\n");
                client.send(wire).await.expect("the node reads");
                let row = format!("{method} {target} HTTP/{version}");
                match client.response(method).await {
                    Ok(response) if response.status == 200 => {
                        table.row(&row, that(!response.end.is_clean(), || format!("whole: {:?}", response.end)));
                    }
                    Ok(response) => {
                        table.row(&row, that(matches!(response.status, 502 | 504), || format!("{:?}", response.head)));
                    }
                    Err(end) => table.row(&row, that(end.is_closed(), || format!("{end:?}"))),
                }
            }
        }
    }
    let mut client = node.tls_client().await;
    client.exchange("GET", "/page", &["Connection: close"]).await;
    // Without close_notify this would be `Reset`.
    table.row("Connection: close", same("the end", client.closed().await.1, End::Cut));
    table.finish();
}

#[tokio::test]
async fn the_gate_is_the_same() {
    let (origin, node) = site().await;
    let mut table = Table::new("the gate over TLS");
    let before = origin.heads();
    for (name, wire) in [
        (
            "CL and TE",
            "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("bare LF", "GET /page HTTP/1.1\nHost: a\n\n"),
        ("a space before the colon", "GET /page HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
        ("two hosts", "GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no host", "GET /page HTTP/1.1\r\n\r\n"),
    ] {
        let mut client = node.tls_client().await;
        let _ = client.send(format!("{wire}GET /upload HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let status = client.response("GET").await.map(|response| response.status);
        table.row(name, same("the status", status, Ok(400)));
        let (more, end) = client.closed().await;
        table.row(name, that(more.is_empty() && end.is_closed(), || format!("{end:?} after {}", more.escape_ascii())));
    }
    table.row("origin", same("heads", origin.heads(), before));
    table.finish();
}

#[tokio::test]
async fn a_scheme_is_that_of_the_connection() {
    let (origin, node) = site().await;
    // Whatever a request line says, what is stored for https is not given to those who came in the clear.
    assert_eq!(node.tls_client().await.get("/page").await.status, 200);
    let mut table = Table::new("schemes");
    for (name, client, scheme, may_hit) in [
        ("https over TLS", node.tls_client().await, "https", true),
        ("http over TLS", node.tls_client().await, "http", true),
        ("https in the clear", node.client().await, "https", false),
        ("http in the clear", node.client().await, "http", false),
    ] {
        origin.serve("/page", Answer::ok("another page").field(FRESH));
        let mut client: Client = client;
        client
            .send(format!("GET {scheme}://{HOST}/page HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await
            .expect("the node reads");
        let answer = client.response("GET").await.map(|response| (response.status, response.text()));
        let fine = match &answer {
            Ok((200, body)) => body == "another page" || may_hit,
            // A scheme that is not the connection's may be refused.
            Ok((status, _)) => matches!(status, 400 | 421),
            Err(_) => false,
        };
        table.row(name, that(fine, || format!("{answer:?}")));
    }
    table.row("origin", that(origin.count("/page") <= 2, || format!("{} requests", origin.count("/page"))));
    table.finish();
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("a page").field(FRESH));
    let node = NodeOptions::configured(&origin, "[limits]\nconnections_per_client = 5\n").start().await;
    let mut kept = Vec::new();
    for number in 0..5 {
        let mut client = if number % 2 == 0 { node.client().await } else { node.tls_client().await };
        assert_eq!(client.get("/page").await.status, 200);
        kept.push(client);
    }
    // The limit counts both kinds together.
    let mut table = Table::new("connections beyond the limit");
    for (name, address) in [("http", node.address()), ("https", node.tls_address())] {
        let mut client = Client::connect(address).await;
        let _ = client.send(request("GET", "/page", &[])).await;
        let (answer, end) = client.closed().await;
        table.row(name, that(end.is_closed(), || format!("{end:?}")));
        table.row(name, that(!answer.starts_with(b"HTTP/1.1 200 "), || answer.escape_ascii().to_string()));
    }
    // Another address is another client.
    let socket = Socket { from: Some(address_of(0)), ..Socket::default() };
    let mut other = Client::connect_with(node.address(), socket).await.expect("the node accepts");
    table.row("another address", same("the status", other.get("/page").await.status, 200));
    drop(kept.pop());
    until(PATIENCE, "room for one more", || async {
        let mut client = node.client().await;
        client.ask("GET", "/page", &[]).await;
        client.response("GET").await.map(drop).map_err(|end| format!("{end:?}"))
    })
    .await;
    table.finish();
}
