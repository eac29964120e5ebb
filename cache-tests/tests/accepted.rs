//! What the gate lets through: every form a request may have, and connections that go on or end as they should.

use std::net::{IpAddr, Ipv6Addr};

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::{HOST, post, request};
use cache_tests::node::NodeOptions;
use cache_tests::origin::Origin;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("a page").field("Cache-Control: max-age=60"));
    origin.serve("/upload", Answer::ok("thank you").field("Cache-Control: no-store"));
    origin
}

#[tokio::test]
async fn every_form_of_a_request_for_one_page() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("forms of a request");
    for (name, wire) in [
        ("plain", request("GET", "/page", &[])),
        ("absolute form", format!("GET http://{HOST}/page HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        ("absolute form, other case", format!("GET HTTP://WWW.example.TEST/page HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        ("an empty line before", format!("\r\n{}", request("GET", "/page", &[]))),
        ("Host in capitals", "GET /page HTTP/1.1\r\nHOST: WWW.EXAMPLE.TEST\r\n\r\n".to_owned()),
        ("no space after the colon", format!("GET /page HTTP/1.1\r\nHost:{HOST}\r\n\r\n")),
        ("space around a value", format!("GET /page HTTP/1.1\r\nHost: \t {HOST} \t\r\n\r\n")),
        ("an empty value", request("GET", "/page", &["Empty:"])),
        ("a value beyond ASCII", request("GET", "/page", &["Name: caf\u{e9}"])),
        ("a length of nothing", request("GET", "/page", &["Content-Length: 0"])),
    ] {
        let mut client = node.client().await;
        let sent = client.send(&wire).await.map_err(|error| error.to_string());
        let answer = client.response("GET").await.map(|response| (response.status, response.text()));
        table.row(name, sent.and_then(|()| same("the answer", answer, Ok((200, "a page".to_owned())))));
    }
    table.finish();
    // All of these are one page: the key knows neither case nor form.
    assert_eq!(origin.count("/page"), 1, "{:?}", origin.requests());
}

#[tokio::test]
async fn a_connection_goes_on_or_ends_as_agreed() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("ends of connections");
    for (name, version, field, goes_on) in [
        ("HTTP/1.1", "1.1", "", true),
        ("HTTP/1.1 with close", "1.1", "Connection: close\r\n", false),
        ("HTTP/1.1 with close in a list", "1.1", "Connection: x, Close\r\n", false),
        ("HTTP/1.0", "1.0", "", false),
        ("HTTP/1.0 with keep-alive", "1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        for target in ["/page", "/upload"] {
            let wire = format!("GET {target} HTTP/{version}\r\nHost: {HOST}\r\n{field}\r\n");
            let mut client = node.client().await;
            let outcome = async {
                client.send(&wire).await.map_err(|error| error.to_string())?;
                let first = client.response("GET").await.map_err(|end| format!("{end:?}"))?;
                same("the status", first.status, 200)?;
                // A second request tells whether the connection goes on, without waiting for a silence.
                let _ = client.send(request("GET", "/page", &[])).await;
                let second = client.response("GET").await;
                same("goes on", second.as_ref().is_ok_and(|second| second.status == 200), goes_on)?;
                let said = first.field("connection").unwrap_or_default().to_ascii_lowercase();
                match (version, goes_on) {
                    ("1.0", true) => same("Connection", said.as_str(), "keep-alive"),
                    ("1.1", false) => same("Connection", said.as_str(), "close"),
                    _ => Ok(()),
                }
            };
            table.row(&format!("{name} {target}"), outcome.await);
        }
    }
    table.finish();
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_order() {
    let origin = origin();
    for number in 0..20 {
        origin.serve(&format!("/{number}"), Answer::ok(format!("answer {number}")).field("Cache-Control: max-age=60"));
    }
    let node = NodeOptions::before(&origin).start().await;
    // Once cold, once from the cache; between them requests that cannot be cached.
    for _ in 0..2 {
        let mut client = node.client().await;
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
    assert!(origin.requests_for("/upload").iter().all(|upload| upload.body == "body"));
}

#[tokio::test]
async fn bodies_reach_the_origin_as_they_were_sent() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    let large = pattern(1_000_000, 1);
    let mut chunked = request("POST", "/upload", &["Transfer-Encoding: chunked"]).into_bytes();
    for chunk in large.chunks(33_333) {
        chunked.extend_from_slice(format!("{:X};name=\"value\"\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let length = format!("Content-Length: {}", large.len());
    let whole = [request("POST", "/upload", &[&length]).as_bytes(), &large].concat();
    let mut client = node.client().await;
    for (name, wire, body) in [
        ("chunked", chunked, &large[..]),
        ("by length", whole, &large[..]),
        ("coding in capitals", request("PUT", "/upload", &["Transfer-Encoding: CHUNKED"]).into_bytes(), b"abc"),
    ] {
        client.send(&wire).await.expect("the node reads a body");
        if name == "coding in capitals" {
            client.send("3\r\nabc\r\n0\r\n\r\n").await.expect("the node reads a body");
        }
        let response = client.response("POST").await.unwrap_or_else(|end| panic!("{name}: {end:?}"));
        assert_eq!(response.status, 200, "{name}");
        let received = origin.requests_for("/upload").pop().expect("it reached the origin");
        assert!(received.body == body, "{name}: {} of {} bytes, or others", received.body.len(), body.len());
    }
}

#[tokio::test]
async fn expect_100_continue_does_not_wait_for_ever() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    let mut client = node.client().await;
    client.ask("POST", "/upload", &["Content-Length: 5", "Expect: 100-continue"]).await;
    let head = client.any_head("POST").await.expect("an interim answer");
    assert_eq!(head.status, 100);
    client.send("hello").await.expect("the node reads the body");
    let response = client.response("POST").await.expect("a final answer");
    assert_eq!((response.status, response.end), (200, End::Whole));
    assert_eq!(origin.requests_for("/upload")[0].body, "hello");
}

#[tokio::test]
async fn a_get_with_a_body_passes_where_the_operator_says_so() {
    let origin = origin();
    let node = NodeOptions::before(&origin).with("--get-body", "pass").start().await;
    for _ in 0..2 {
        let mut client = node.client().await;
        client.ask("GET", "/page", &["Content-Length: 5"]).await;
        client.send("hello").await.expect("the node reads the body");
        let response = client.response("GET").await.expect("an answer");
        assert_eq!((response.status, response.is_hit()), (200, false));
    }
    // Never from the cache, never into it: the body is not in the key.
    assert!(origin.requests_for("/page").iter().all(|request| request.body == "hello"));
    assert_eq!(origin.count("/page"), 2);
    assert!(!node.get("/page").await.is_hit());
}

#[tokio::test]
async fn methods_are_case_sensitive() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    node.get("/page").await;
    let mut client = node.client().await;
    client.ask("get", "/page", &[]).await;
    let response = client.response("get").await.expect("an answer");
    // "get" is a method nobody knows: refuse it or pass it on, but it is not GET.
    let passed = origin.requests_for("/page").iter().any(|request| request.method == "get");
    let refused = matches!(response.status, 400 | 405 | 501);
    assert!(!response.is_hit() && (passed || refused), "{}", response.status);
}

#[tokio::test]
async fn ipv6_is_served_too() {
    let origin = origin();
    let node = NodeOptions::before(&origin).listening_on(IpAddr::V6(Ipv6Addr::LOCALHOST)).start().await;
    let mut table = Table::new("IPv6");
    let host = format!("Host: {}", node.address());
    for number in 0..2 {
        let mut client = node.client().await;
        client.send(format!("GET /page HTTP/1.1\r\n{host}\r\n\r\n")).await.expect("the node reads");
        let response = client.response("GET").await.expect("an answer");
        let outcome = same("the status", response.status, 200);
        table.row("page", outcome.and_then(|()| same("a hit", response.is_hit(), number == 1)));
    }
    let forwarded = origin.requests_for("/page")[0].field("x-forwarded-for").unwrap_or_default();
    table.row("X-Forwarded-For", that(forwarded.contains("::1"), || forwarded));
    table.finish();
}
