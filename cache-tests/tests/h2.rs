//! HTTP/2 for those who keep to it: everything HTTP/1 clients get, and the same stored objects.

use ::h2::client::Builder;
use bytes::Bytes;
use cache_tests::answer::{Answer, Framing, pattern};
use cache_tests::client::{Client, HOST};
use cache_tests::h2::polite::Polite;
use cache_tests::h2::raw::{Fate, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::{End, Response};
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{H2, TLS12, Tls};
use http::HeaderMap;

const FRESH: &str = "Cache-Control: max-age=60";

async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    let node = NodeOptions::configured(&origin, "").start().await;
    (origin, node)
}

#[tokio::test]
async fn a_page_is_stored_and_served_in_every_way() {
    let (origin, node) = site().await;
    let page = pattern(10_000, 1);
    let answer = Answer::ok(page.clone()).field(FRESH).field("ETag: \"one\"").field("Content-Type: text/plain");
    origin.serve("/page", answer);
    let client = node.h2().await;
    let mut table = Table::new("one page over HTTP/2");
    let ask = async |method: &str, lines: &[&str]| client.exchange(method, "/page", lines, None).await;
    let check = |response: &Response, status: u16, body: &[u8], hit: bool| {
        same("the status", response.status, status)?;
        that(response.body == body, || format!("{} bytes, not {}, or others", response.body.len(), body.len()))?;
        same("the end", response.end.clone(), End::Whole)?;
        same("a hit", response.is_hit(), hit)
    };
    table.row("miss", check(&ask("GET", &[]).await, 200, &page, false));
    let hit = ask("GET", &[]).await;
    table.row("hit", check(&hit, 200, &page, true));
    table.row("hit", same("Content-Type", hit.field("content-type").as_deref(), Some("text/plain")));
    table.row("hit", that(hit.field("age").is_some(), || "no Age".to_owned()));
    let head = ask("HEAD", &[]).await;
    table.row("HEAD", check(&head, 200, b"", true));
    table.row("HEAD", same("Content-Length", head.field("content-length").as_deref(), Some("10000")));
    let unchanged = ask("GET", &["If-None-Match: \"one\""]).await;
    table.row("304", check(&unchanged, 304, b"", true));
    table.row("304", same("ETag", unchanged.field("etag").as_deref(), Some("\"one\"")));
    let range = ask("GET", &["Range: bytes=100-199"]).await;
    table.row("206", check(&range, 206, &page[100..200], true));
    let said = range.field("content-range");
    table.row("206", same("Content-Range", said.as_deref(), Some("bytes 100-199/10000")));
    let beyond = ask("GET", &["Range: bytes=10000-"]).await;
    table.row("416", same("the status", beyond.status, 416));
    table.row("origin", same("requests", origin.count("/page"), 1));
    table.finish();
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let (origin, node) = site().await;
    origin.serve("/nothing", Answer::status(204).field(FRESH));
    origin.serve("/empty", Answer::ok("").field(FRESH));
    origin.serve("/chunks", Answer::status(200).framed(Framing::Chunked).field(FRESH));
    origin.serve("/private", Answer::ok("").field("Cache-Control: no-store"));
    let client = node.h2().await;
    let mut table = Table::new("empty answers");
    for (target, status) in [("/nothing", 204), ("/empty", 200), ("/chunks", 200), ("/private", 200)] {
        for _ in 0..2 {
            let response = client.get(target).await;
            let found = (response.status, response.body.len(), response.end);
            table.row(target, same("the answer", found, (status, 0, End::Whole)));
        }
    }
    table.finish();
}

#[tokio::test]
async fn the_date_of_a_stored_response_is_its_origins() {
    let (origin, node) = site().await;
    let mut table = Table::new("Date");
    for (target, control) in [("/stored", FRESH), ("/passed", "Cache-Control: no-store")] {
        let date = "Tue, 24 Nov 2020 06:04:53 GMT";
        let answer = Answer::ok("dated")
            .field(control)
            .field(&format!("Date: {date}"))
            .field("Cache-Control: s-maxage=999999999");
        origin.serve(target, answer);
        let client = node.h2().await;
        for time in ["first", "second"] {
            let response = client.get(target).await;
            table.row(&format!("{target} {time}"), same("Date", response.head.field_lines("date"), vec![date]));
        }
    }
    table.finish();
}

#[tokio::test]
async fn uploads_reach_the_origin_as_they_were_sent() {
    let (origin, node) = site().await;
    origin.serve("/upload", Answer::ok("thank you").field("Cache-Control: no-store"));
    let client = node.h2().await;
    let mut table = Table::new("uploads over HTTP/2");
    for length in [0, 1, 5, 16_384, 65_535, 65_536, 5 * 1_024 * 1_024] {
        let body = pattern(length, 2);
        let said = format!("Content-Length: {length}");
        for (method, lines) in [("POST", &[said.as_str()][..]), ("POST", &[]), ("PUT", &[])] {
            let response = client.exchange(method, "/upload", lines, Some(body.clone())).await;
            let seen = origin.requests_for("/upload").pop().map(|request| request.body);
            let name = format!("{method} {length} {lines:?}");
            table.row(&name, same("the answer", (response.status, response.text().as_str()), (200, "thank you")));
            table.row(&name, that(seen.is_some_and(|seen| seen == body), || "other bytes arrived".to_owned()));
        }
    }
    let seen = origin.requests_for("/upload");
    // However the body is framed there, it is framed once.
    for request in &seen {
        let framings = request.field_lines("content-length").len() + request.field_lines("transfer-encoding").len();
        table.row(&request.method, that(framings <= 1, || format!("{:?}", request.fields)));
    }
    table.finish();
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let (origin, node) = site().await;
    origin.serve("/upload", Answer::ok("thank you").field("Cache-Control: no-store"));
    let client = node.h2().await;
    let mut sent = client.send("POST", "/upload", &[], false).await.expect("a stream");
    sent.send_body("first, ".into(), false).expect("a window");
    sent.send_body("second, ".into(), false).expect("a window");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().expect("a value"));
    sent.send_body("last".into(), false).expect("a window");
    sent.send_trailers(trailers).expect("trailers");
    let mut begun = sent.begun().await.expect("an answer");
    assert_eq!((begun.head.status, begun.rest().await), (200, (Bytes::from("thank you"), End::Whole)));
    assert_eq!(origin.requests_for("/upload")[0].body, "first, second, last");
}

/// An empty DATA frame written as a chunk would end the body for an HTTP/1 origin, and the rest would be a request.
#[tokio::test]
async fn empty_frames_in_an_upload_are_no_chunks() {
    let (origin, node) = site().await;
    origin.serve("/upload", Answer::ok("thank you").field("Cache-Control: no-store"));
    origin.serve("/smuggled", Answer::ok("smuggled"));
    let client = node.h2().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
    for round in 1..=5 {
        let mut sent = client.send("POST", "/upload", &[], false).await.expect("a stream");
        for part in ["", "first, ", "", smuggled, ""] {
            sent.send_body(part.into(), false).expect("a window");
            // Each in a frame, and a packet, of its own.
            tokio::task::yield_now().await;
        }
        sent.send_body(Bytes::new(), true).expect("a window");
        let mut begun = sent.begun().await.expect("an answer");
        assert_eq!((begun.head.status, begun.rest().await), (200, (Bytes::from("thank you"), End::Whole)));
        assert_eq!(origin.heads(), round, "{:?}", origin.requests());
        assert_eq!(origin.requests_for("/upload")[round - 1].body, format!("first, {smuggled}"));
    }
}

#[tokio::test]
async fn expect_100_continue_does_not_wait_for_ever() {
    let (origin, node) = site().await;
    origin.serve("/upload", Answer::ok("thank you"));
    let client = node.h2().await;
    let mut sent = client.send("POST", "/upload", &["Expect: 100-continue"], false).await.expect("a stream");
    sent.send_body("hello".into(), true).expect("a window");
    let begun = sent.begun().await.expect("an answer");
    assert_eq!(begun.head.status, 200);
    assert_eq!(origin.requests_for("/upload")[0].body, "hello");
}

#[tokio::test]
async fn a_large_download_fits_through_small_windows() {
    let (origin, node) = site().await;
    let large = pattern(8 * 1_024 * 1_024, 3);
    origin.serve("/stored", Answer::ok(large.clone()).field(FRESH));
    origin.serve("/passed", Answer::ok(large.clone()).field("Cache-Control: no-store").framed(Framing::Chunked));
    let mut builder = Builder::new();
    builder.initial_window_size(20_000).initial_connection_window_size(65_535);
    let stream = Tls::offering(&[H2]).connect(node.tls_address()).await.expect("a handshake");
    let client = Polite::open_with(stream, &builder).await.expect("HTTP/2");
    for target in ["/stored", "/stored", "/passed"] {
        let response = client.get(target).await;
        assert!(response.body == large, "{target}: {} bytes, or others", response.body.len());
        assert_eq!(response.end, End::Whole, "{target}");
    }
    let (one, two) = tokio::join!(client.get("/stored"), client.get("/passed"));
    assert!(one.body == large && two.body == large && one.is_hit());
}

#[tokio::test]
async fn early_hints_are_passed_on() {
    let (origin, node) = site().await;
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\npage";
    origin.serve("/page", Answer::raw(format!("{hint}{last}")));
    let client = node.h2().await;
    let mut table = Table::new("103");
    for method in ["POST", "GET"] {
        let body = (method == "POST").then(Bytes::new);
        let begun = client.begin(method, "/page", &[], body).await;
        let mut begun = begun.unwrap_or_else(|end| panic!("{method}: {end:?}"));
        let hints: Vec<_> = begun.interim.iter().map(|head| (head.status, head.field("link"))).collect();
        let expected = vec![(103, Some("</style.css>; rel=preload".to_owned()))];
        table.row(method, same("interim answers", hints, expected));
        table.row(method, same("the page", begun.rest().await, ("page".into(), End::Whole)));
    }
    table.finish();
}

#[tokio::test]
async fn trailers_of_an_answer_do_no_harm() {
    let (origin, node) = site().await;
    let head =
        |control: &str| format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = "4\r\npage\r\n0\r\nX-Checksum: abc\r\n\r\n";
    origin.serve("/stored", Answer::raw(head("max-age=60") + body));
    origin.serve("/passed", Answer::raw(head("no-store") + body));
    let client = node.h2().await;
    for (method, target) in [("GET", "/stored"), ("GET", "/stored"), ("GET", "/passed"), ("POST", "/passed")] {
        let body = (method == "POST").then(Bytes::new);
        let mut begun = client.begin(method, target, &["TE: trailers"], body).await.expect("an answer");
        assert_eq!(begun.rest().await, ("page".into(), End::Whole), "{method} {target}");
        // RFC 9110 section 6.5.1: a proxy may leave trailers out; what it passes on is what came.
        let trailers = begun.trailers().await.expect("the end of the stream").unwrap_or_default();
        assert!(trailers.iter().all(|(name, value)| name == "x-checksum" && value == "abc"), "{trailers:?}");
    }
}

#[tokio::test]
async fn http_1_and_http_2_share_what_is_stored() {
    let (origin, node) = site().await;
    for (target, http_2_first) in [("/one", true), ("/two", false)] {
        origin.serve(target, Answer::ok("shared").field(FRESH));
        let (client, mut old) = (node.h2().await, node.tls_client().await);
        let hits = if http_2_first {
            [client.get(target).await.is_hit(), old.get(target).await.is_hit()]
        } else {
            [old.get(target).await.is_hit(), client.get(target).await.is_hit()]
        };
        assert_eq!(hits, [false, true], "{target}");
        assert_eq!(origin.count(target), 1);
        // Another scheme is another URI (RFC 9110 section 4.2.2).
        assert!(!node.get(target).await.is_hit());
        assert_eq!(origin.count(target), 2);
        assert!(client.get(target).await.is_hit());
    }
}

#[tokio::test]
async fn the_origin_sees_a_request_as_it_was_meant() {
    let origin = Origin::start();
    let text = "[site.main]\nhosts = [\"*\"]\norigins = [{ url = \"{origin}\", host = \"client\" }]\n";
    let node = NodeOptions::configured(&origin, text).start().await;
    origin.serve("/seen", Answer::ok("seen").field("Cache-Control: no-store"));
    let mut raw = node.raw_h2(&[]).await;
    let mut without_authority = get("/seen", &["host: www.example.test"]);
    without_authority.retain(|(name, _)| name != b":authority");
    let mut table = Table::new("requests at the origin");
    for (name, fields) in [
        (":authority", get("/seen?q=1", &["cookie: a=1", "cookie: b=2", "cookie: c=3", "x-twice: 1", "x-twice: 2"])),
        ("host alone", without_authority),
        ("both", get("/seen", &["host: www.example.test"])),
        ("te: trailers", get("/seen", &["te: trailers"])),
        ("another method", request("OPTIONS", "/seen", &[])),
    ] {
        let stream = raw.ask(&fields).await;
        let fate = raw.fate(stream).await;
        table.row(name, same("the status", fate.status(), Some(200)).map_err(|problem| format!("{problem}: {fate:?}")));
        let Some(seen) = origin.requests().pop() else { continue };
        table.row(name, same("Host", seen.field_lines("host"), vec![HOST]));
        let proto = seen.field("x-forwarded-proto");
        table.row(name, same("X-Forwarded-Proto", proto.as_deref(), Some("https")));
        table.row(name, same("the version", seen.version.as_str(), "HTTP/1.1"));
        let pseudo = seen.fields.iter().any(|(name, _)| name.starts_with(':'));
        table.row(name, that(!pseudo, || format!("{:?}", seen.fields)));
        if name == ":authority" {
            // RFC 9113 section 8.2.3: for HTTP/1.1, crumbs are one field again.
            table.row(name, same("Cookie", seen.field_lines("cookie"), vec!["a=1; b=2; c=3"]));
            table.row(name, same("X-Twice", seen.field("x-twice").as_deref(), Some("1, 2")));
            table.row(name, same("the target", seen.target.as_str(), "/seen?q=1"));
        }
    }
    table.finish();
}

#[tokio::test]
async fn fields_of_the_origins_connection_stay_there() {
    let (origin, node) = site().await;
    for (target, control) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        let head =
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n";
        let rest = format!("Proxy-Connection: close\r\nCache-Control: {control}\r\nContent-Length: 4\r\n\r\npage");
        origin.serve(target, Answer::raw(format!("{head}{rest}")));
    }
    // The raw client takes none of them for well-formed.
    let mut raw = node.raw_h2(&[]).await;
    for (method, target) in [("GET", "/stored"), ("GET", "/stored"), ("GET", "/passed"), ("POST", "/passed")] {
        let stream = raw.ask(&request(method, target, &[])).await;
        let Fate::Answered(response) = raw.fate(stream).await else { panic!("{method} {target}: {raw:?}") };
        assert_eq!((response.status, response.text().as_str()), (200, "page"), "{method} {target}");
        assert_eq!(response.field("x-hop"), None, "{method} {target}");
    }
}

#[tokio::test]
async fn the_log_says_what_was_spoken() {
    let (origin, node) = site().await;
    for target in ["/1", "/2", "/3", "/4", "/5"] {
        origin.serve(target, Answer::ok("page").field(FRESH));
    }
    let client = node.h2().await;
    client.get("/1").await;
    client.exchange("POST", "/2", &[], Some("body".into())).await;
    node.tls_client().await.get("/3").await;
    let tls = Tls::with_versions(&[&TLS12], &[]);
    let mut old = Client::on(tls.connect(node.tls_address()).await.expect("a handshake"));
    old.get("/4").await;
    node.get("/5").await;
    let records = node.log_lines(5).await;
    let mut table = Table::new("protocols in the log");
    for record in &records {
        let [path, proto, tls] = ["path", "proto", "tls"].map(|name| record[name].as_str());
        let expected = match path {
            Some("/1" | "/2") => (Some("HTTP/2"), Some("TLSv1.3")),
            Some("/3") => (Some("HTTP/1.1"), Some("TLSv1.3")),
            Some("/4") => (Some("HTTP/1.1"), Some("TLSv1.2")),
            _ => (Some("HTTP/1.1"), None),
        };
        table.row(&record.to_string(), same("proto and tls", (proto, tls), expected));
    }
    table.finish();
}
