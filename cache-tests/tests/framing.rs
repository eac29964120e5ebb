//! The framing gate: what is not exactly one request is refused, closes the connection and never reaches the origin.

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, post, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};

/// Comes right after every refused request: it must never be executed.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: www.example.test\r\n\r\n";

/// A request line and a Host, for heads that go wrong after them.
const POST: &str = "POST /refused HTTP/1.1\r\nHost: www.example.test\r\n";
const GET: &str = "GET /refused HTTP/1.1\r\nHost: www.example.test\r\n";
const BAD_REQUEST: &[u16] = &[400];

#[tokio::test]
async fn lengths_and_codings_that_can_be_read_two_ways() {
    let mut rows = vec![
        ("CL and TE", format!("{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE and CL", format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n")),
        ("CL twice, the same", format!("{POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")),
        ("CL twice, different", format!("{POST}Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc")),
        ("CL twice, other case", format!("{POST}Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc")),
        ("TE twice", format!("{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE in HTTP/1.0", format!("{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", POST.replace("1.1", "1.0"))),
    ];
    for length in ["+3", "3, 3", "3,3", "-1", "0x3", "", "3 3", "3.0", "3;", "\"3\"", "99999999999999999999", "1e1"] {
        rows.push(("CL", format!("{POST}Content-Length: {length}\r\n\r\nabc")));
    }
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "chunked, identity",
        "xchunked",
        "chunked;foo",
        "chunked;a=b",
        "\"chunked\"",
        ",chunked",
        "chunked,",
        "",
        "chunked\x0b",
        "chun\tked",
    ] {
        rows.push(("TE", format!("{POST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")));
    }
    refuse("lengths and codings", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn lines_and_fields_that_are_none() {
    let rows = vec![
        ("bare LF everywhere", format!("GET /refused HTTP/1.1\nHost: {HOST}\n\n")),
        ("bare LF after the request line", format!("GET /refused HTTP/1.1\nHost: {HOST}\r\n\r\n")),
        ("bare LF after a field", format!("GET /refused HTTP/1.1\r\nHost: {HOST}\nA: b\r\n\r\n")),
        ("bare LF as the empty line", format!("{GET}A: b\r\n\n")),
        ("bare CR in a value", format!("{GET}A: b\rc\r\n\r\n")),
        ("bare CR as a line end", format!("{GET}A: b\rC: d\r\n\r\n")),
        ("CR CR LF", format!("{GET}A: b\r\r\n\r\n")),
        ("obs-fold with a space", format!("{GET}A: b\r\n c\r\n\r\n")),
        ("obs-fold with a tab", format!("{GET}A: b\r\n\tc\r\n\r\n")),
        ("a fold before the first field", format!("GET /refused HTTP/1.1\r\n Host: {HOST}\r\n\r\n")),
        ("space before the colon", format!("{GET}A : b\r\n\r\n")),
        ("tab before the colon", format!("{GET}A\t: b\r\n\r\n")),
        ("space before the colon of a length", format!("{POST}Content-Length : 3\r\n\r\nabc")),
        ("NUL in a value", format!("{GET}A: b\0c\r\n\r\n")),
        ("a control character in a value", format!("{GET}A: b\x01c\r\n\r\n")),
        ("DEL in a value", format!("{GET}A: b\x7fc\r\n\r\n")),
        ("NUL in a name", format!("{GET}A\0: b\r\n\r\n")),
        ("a space in a name", format!("{GET}A B: c\r\n\r\n")),
        ("a bracket in a name", format!("{GET}A[: b\r\n\r\n")),
        ("a name that is not ASCII", format!("{GET}\u{e9}: b\r\n\r\n")),
        ("an empty name", format!("{GET}: b\r\n\r\n")),
        ("no colon", format!("{GET}Nothing\r\n\r\n")),
    ];
    refuse("lines and fields", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn request_lines_that_are_none() {
    let mut rows = Vec::new();
    for line in [
        "G@T /refused HTTP/1.1",
        "G(T /refused HTTP/1.1",
        " GET /refused HTTP/1.1",
        "G\tET /refused HTTP/1.1",
        "GET",
        "GET /refused",
        "GET /refused ",
        "GET  /refused HTTP/1.1",
        "GET /refused  HTTP/1.1",
        "GET\t/refused\tHTTP/1.1",
        "GET /refused HTTP/1.1 ",
        "GET /refused HTTP/1.1x",
        "GET /refused HTTP/11",
        "GET /refused HTTP/1.",
        "GET /refused HTTP/01.1",
        "GET /refused http/1.1",
        "GET /refused HTTPS/1.1",
        "GET /ref used HTTP/1.1",
        "GET /ref\x01used HTTP/1.1",
        "GET /ref\0used HTTP/1.1",
        "GET /ref\x7fused HTTP/1.1",
        "GET /r\u{e9}fused HTTP/1.1",
        "GET /refused#fragment HTTP/1.1",
        "GET refused HTTP/1.1",
        "GET ?refused HTTP/1.1",
        "GET * HTTP/1.1",
        "GET www.example.test HTTP/1.1",
        "GET http:///refused HTTP/1.1",
        "GET http://user@www.example.test/refused HTTP/1.1",
        "GET ftp://www.example.test/refused HTTP/1.1",
    ] {
        rows.push((line, format!("{line}\r\nHost: {HOST}\r\n\r\n")));
    }
    refuse("request lines", rows, BAD_REQUEST).await;
    let mut rows = Vec::new();
    for line in ["GET /refused HTTP/2.0", "GET /refused HTTP/1.2", "GET /refused HTTP/0.9", "GET /refused HTTP/3.0"] {
        rows.push((line, format!("{line}\r\nHost: {HOST}\r\n\r\n")));
    }
    // RFC 9110 section 15.6.6: 505 says the same, more exactly.
    refuse("versions", rows, &[400, 505]).await;
}

#[tokio::test]
async fn hosts_that_are_none_or_two() {
    let line = "GET /refused HTTP/1.1\r\n";
    let mut rows = vec![
        ("no Host", format!("{line}\r\n")),
        ("two Hosts, the same", format!("{GET}Host: {HOST}\r\n\r\n")),
        ("two Hosts, different", format!("{GET}Host: other.example.test\r\n\r\n")),
        ("another absolute form", format!("GET http://other.example.test/refused HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        ("another port", format!("GET http://{HOST}:81/refused HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        ("absolute form, no Host", format!("GET http://{HOST}/refused HTTP/1.1\r\n\r\n")),
    ];
    for host in [
        "",
        "a b",
        "a/b",
        "a\\b",
        "user@a",
        "user:secret@a",
        "a:port",
        "a:99999",
        "a:-1",
        "a:1:2",
        "a,b",
        "a?b",
        "a#b",
        "[::1",
        "::1",
        "[::1]x",
        "[zz]",
        "a<b>",
        "a\"b",
        "a%",
        "http://a",
    ] {
        rows.push(("Host", format!("{line}Host: {host}\r\n\r\n")));
    }
    refuse("hosts", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn bodies_where_none_belongs() {
    let mut rows = Vec::new();
    for method in ["GET", "HEAD"] {
        let line = format!("{method} /refused HTTP/1.1\r\nHost: {HOST}\r\n");
        rows.push((method, format!("{line}Content-Length: 5\r\n\r\nhello")));
        rows.push((method, format!("{line}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")));
    }
    refuse("bodies", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let many: String = (0..200).map(|number| format!("F{number}: v\r\n")).collect();
    let rows = vec![
        ("one field of 70 KiB", format!("{GET}A: {}\r\n\r\n", "a".repeat(70 * 1_024))),
        ("100 fields of 1 KiB", {
            let fields: String = (0..100).map(|number| format!("F{number}: {}\r\n", "v".repeat(1_024))).collect();
            format!("{GET}{fields}\r\n")
        }),
        ("200 fields", format!("{GET}{many}\r\n")),
        ("a name of 70 KiB", format!("{GET}{}: a\r\n\r\n", "a".repeat(70 * 1_024))),
        ("70 KiB without a line end", "a".repeat(70 * 1_024)),
    ];
    refuse("sizes of heads", rows, &[400, 431]).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "a".repeat(9 * 1_024));
    refuse("sizes of targets", vec![("9 KiB", long)], &[400, 414]).await;
}

#[tokio::test]
async fn connect_is_not_for_us() {
    let row = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    refuse("CONNECT", vec![("authority form", row)], &[405]).await;
}

#[tokio::test]
async fn a_body_whose_chunks_break_never_ends_well() {
    let (origin, node) = site().await;
    let mut table = Table::new("chunks of requests");
    for (name, body) in [
        ("no size", "xyz\r\nabc\r\n0\r\n\r\n"),
        ("negative size", "-1\r\nabc\r\n0\r\n\r\n"),
        ("size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("size with a plus", "+3\r\nabc\r\n0\r\n\r\n"),
        ("huge size", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("bare LF after the size", "3\nabc\r\n0\r\n\r\n"),
        ("data longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("bare LF after the data", "3\r\nabc\n0\r\n\r\n"),
    ] {
        let mut client = node.client().await;
        let sent = client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}")).await;
        let outcome = async {
            sent.map_err(|error| error.to_string())?;
            if let Ok(response) = client.response("POST").await {
                that(matches!(response.status, 400 | 502), || format!("status {}", response.status))?;
            }
            let (more, end) = client.closed().await;
            that(end.is_closed(), || format!("not closed: {end:?}"))?;
            same("what comes after it", more.is_empty(), true)?;
            same("complete requests at the origin", origin.count("/refused") + origin.count("/smuggled"), 0)
        };
        table.row(name, outcome.await);
    }
    table.finish();
    assert!(node.get("/after").await.end.is_clean());
}

/// An origin that welcomes everything, and a node before it.
async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    for target in ["/refused", "/smuggled", "/after"] {
        origin.serve(target, Answer::ok("from the origin"));
    }
    let node = NodeOptions::before(&origin).start().await;
    (origin, node)
}

/// Each row on a connection of its own: one refusal, then the end, and nothing at the origin.
async fn refuse(name: &'static str, rows: Vec<(&str, String)>, statuses: &[u16]) {
    let (origin, node) = site().await;
    let mut table = Table::new(name);
    for (row, wire) in &rows {
        let shown: String = wire.escape_debug().take(120).collect();
        table.row(&format!("{row} [{shown}]"), refused(&origin, &node, wire, statuses).await);
    }
    // Had anything slipped through with a delay, it would be there before this one.
    assert_eq!(node.get("/after").await.status, 200);
    let (seen, expected) = (origin.heads(), origin.count("/after"));
    table.row("all together", same("heads at the origin", seen, expected));
    table.finish();
}

async fn refused(origin: &Origin, node: &Node, wire: &str, statuses: &[u16]) -> Result<(), String> {
    let before = origin.heads();
    let mut client = Client::connect(node.address()).await;
    // The node may close before it has read everything.
    let _ = client.send(format!("{wire}{SMUGGLED}")).await;
    let method = if wire.starts_with("HEAD") { "HEAD" } else { "GET" };
    let response = client.response(method).await.map_err(|end| format!("no answer: {end:?}"))?;
    that(statuses.contains(&response.status), || format!("status {}, not one of {statuses:?}", response.status))?;
    let (more, end) = client.closed().await;
    that(end.is_closed(), || format!("not closed: {end:?}"))?;
    that(more.is_empty(), || format!("more after the refusal: {}", more.escape_ascii()))?;
    same("Connection", response.field("connection").as_deref(), Some("close"))?;
    same("heads at the origin", origin.heads(), before)
}

#[tokio::test]
async fn the_limits_themselves_are_allowed() {
    let (origin, node) = site().await;
    let mut table = Table::new("within the limits");
    // The node's own fields come on top at the origin: ours count only on the client's side.
    let fields: String = (0..120).map(|number| format!("F{number}: v\r\n")).collect();
    let target = format!("/after?{}", "a".repeat(8 * 1_024 - 100));
    for (name, wire) in [
        ("121 fields", format!("GET /after HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")),
        ("60 KiB of fields", request("GET", "/after", &[&format!("A: {}", "a".repeat(60 * 1_024))])),
        ("a target of nearly 8 KiB", request("GET", &target, &[])),
        ("a body", post("/after", &[], "hello")),
    ] {
        let mut client = node.client().await;
        let sent = client.send(&wire).await.map_err(|error| error.to_string());
        let status = client.response("GET").await.map(|response| response.status);
        table.row(name, sent.and_then(|()| same("the status", status, Ok(200))));
    }
    table.finish();
    assert!(origin.count("/after") > 0);
}
