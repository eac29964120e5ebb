//! The gate over HTTP/2: a malformed request is refused, alone or with its connection, and never reaches the origin.

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::h2::block::{FIRST_DYNAMIC, Field, field, indexed, kept, literal};
use cache_tests::h2::frame::{Frame, PROTOCOL_ERROR};
use cache_tests::h2::raw::{Fate, Raw, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};

/// Answers that refuse. RFC 9113 section 8.1.1 also has RST_STREAM(PROTOCOL_ERROR), and the end of the connection.
const BAD_REQUEST: &[u16] = &[400];
const TOO_LARGE: &[u16] = &[431];

#[tokio::test]
async fn fields_that_do_not_belong_in_http_2() {
    let mut rows = Vec::new();
    for line in [
        "connection: close",
        "connection: keep-alive",
        "connection: x-private",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "transfer-encoding: chunked",
        "transfer-encoding: identity",
        "upgrade: websocket",
        "te: gzip",
        "te: trailers, gzip",
        "te: trailers;q=0.5",
        "te: ",
    ] {
        rows.push((line.to_owned(), get("/refused", &[line])));
        rows.push((format!("POST {line}"), request("POST", "/refused", &[line])));
    }
    refuse("fields of HTTP/1", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn names_and_values_that_are_none() {
    let mut rows = Vec::new();
    for name in [
        &b"X-Upper"[..],
        b"xX",
        b"",
        b" x",
        b"x ",
        b"x y",
        b"x:y",
        b"x\0",
        b"x\r\ny",
        b"x\n",
        b"x\x7f",
        b"x\xff",
        b"x(",
        b"x\t",
    ] {
        rows.push((format!("name {:?}", name.escape_ascii().to_string()), with(name, b"value")));
    }
    for value in [
        &b"a\rb"[..],
        b"a\nb",
        b"a\r\nb: c",
        b"a\0b",
        b"\0",
        b"a\r",
        b"\na",
        b" a",
        b"a ",
        b"\ta",
        b"a\t",
        b"a\x01b",
        b"a\x7fb",
        b"GET /smuggled HTTP/1.1\r\nhost: www.example.test\r\n\r\n",
    ] {
        rows.push((format!("value {:?}", value.escape_ascii().to_string()), with(b"x-value", value)));
    }
    refuse("names and values", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn pseudo_fields_out_of_place() {
    let lines = |lines: &[&str]| lines.iter().map(|line| field(line)).collect::<Vec<Field>>();
    let host = format!(":authority: {HOST}");
    let (get, https, path) = (":method: GET", ":scheme: https", ":path: /refused");
    let rows = [
        ("after a field", lines(&[get, https, &host, "x: y", path])),
        (":authority after a field", lines(&[get, https, path, "x: y", &host])),
        (":method twice", lines(&[get, get, https, &host, path])),
        (":method twice, different", lines(&[get, ":method: POST", https, &host, path])),
        (":path twice", lines(&[get, https, &host, path, path])),
        (":path twice, different", lines(&[get, https, &host, ":path: /smuggled", path])),
        (":scheme twice", lines(&[get, https, https, &host, path])),
        (":authority twice", lines(&[get, https, &host, &host, path])),
        (":authority twice, different", lines(&[get, https, &host, ":authority: other.example.test", path])),
        ("no :method", lines(&[https, &host, path])),
        ("no :scheme", lines(&[get, &host, path])),
        ("no :path", lines(&[get, https, &host])),
        ("none at all", lines(&["x: y"])),
        ("no field at all", Vec::new()),
        ("no authority and no host", lines(&[get, https, path])),
        ("empty :method", lines(&[":method: ", https, &host, path])),
        ("empty :scheme", lines(&[get, ":scheme: ", &host, path])),
        ("empty :path", lines(&[get, https, &host, ":path: "])),
        ("empty :authority", lines(&[get, https, ":authority: ", path])),
        ("an unknown one", lines(&[get, https, &host, path, ":unknown: x"])),
        ("one of responses", lines(&[get, https, &host, path, ":status: 200"])),
        (":protocol without CONNECT", lines(&[get, https, &host, path, ":protocol: websocket"])),
        ("a colon as the name", lines(&[get, https, &host, path, ":: x"])),
        (":Path in capitals", lines(&[get, https, &host, ":Path: /refused"])),
        ("scheme http", lines(&[get, ":scheme: http", &host, path])),
        ("scheme ftp", lines(&[get, ":scheme: ftp", &host, path])),
        ("scheme javascript:", lines(&[get, ":scheme: https://x/?", &host, path])),
    ];
    refuse("pseudo-fields", rows.map(|(name, fields)| (name.to_owned(), fields)).into(), BAD_REQUEST).await;
}

#[tokio::test]
async fn methods_and_paths_that_are_none() {
    let mut rows = Vec::new();
    for path in [
        "refused",
        "?refused",
        "*",
        "/ref used",
        "/refused ",
        " /refused",
        "/ref\0used",
        "/ref\rused",
        "/refused HTTP/1.1\r\nhost: www.example.test\r\n\r\nGET /smuggled",
        "/ref\tused",
        "/ref\x7fused",
        "/r\u{e9}fused",
        "https://www.example.test/refused",
        "http://other.example.test/refused",
        "//other.example.test:x@/refused\n",
    ] {
        rows.push((format!("path {path:?}"), get(path, &[])));
    }
    for method in [
        "G T",
        "GET ",
        " GET",
        "G\0T",
        "GET /smuggled HTTP/1.1\r\nx: y\r\n\r\nGET",
        "G(T",
        "GET\n",
        "GET\t",
        "G\u{e9}T",
    ] {
        rows.push((format!("method {method:?}"), request(method, "/refused", &[])));
    }
    refuse("methods and paths", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn authorities_that_are_none_or_two() {
    let mut rows = vec![
        ("another host".to_owned(), get("/refused", &["host: other.example.test"])),
        ("another port".to_owned(), get("/refused", &["host: www.example.test:81"])),
        ("two hosts".to_owned(), get("/refused", &["host: www.example.test", "host: www.example.test"])),
        ("an empty host".to_owned(), get("/refused", &["host: "])),
    ];
    for authority in [
        "a b",
        "a/b",
        "a\\b",
        "user@www.example.test",
        "user:secret@www.example.test",
        "@www.example.test",
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
        "https://a",
        "a\r\nx: y",
        "a\0",
        " a",
    ] {
        let mut fields = get("/refused", &[]);
        fields.retain(|(name, _)| name != b":authority");
        let mut by_host = fields.clone();
        fields.insert(2, (b":authority".to_vec(), authority.as_bytes().to_vec()));
        by_host.push((b"host".to_vec(), authority.as_bytes().to_vec()));
        rows.push((format!(":authority {authority:?}"), fields));
        rows.push((format!("host {authority:?}"), by_host));
    }
    refuse("authorities", rows, BAD_REQUEST).await;
}

#[tokio::test]
async fn methods_that_are_not_for_us() {
    let only = |lines: &[&str]| lines.iter().map(|line| field(line)).collect::<Vec<Field>>();
    let rows = vec![
        ("CONNECT".to_owned(), only(&[":method: CONNECT", ":authority: www.example.test:443"])),
        ("CONNECT with a path".to_owned(), request("CONNECT", "/refused", &[])),
        ("extended CONNECT".to_owned(), {
            let mut fields = request("CONNECT", "/refused", &[]);
            fields.insert(1, field(":protocol: websocket"));
            fields
        }),
        ("TRACE".to_owned(), request("TRACE", "/refused", &[])),
    ];
    refuse("methods", rows, &[400, 405, 501]).await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let many = |count: usize| (0..count).map(|number| field(&format!("f{number}: v"))).collect::<Vec<_>>();
    let with_many = |count: usize| [get("/refused", &[]), many(count)].concat();
    let rows = vec![
        ("129 fields".to_owned(), with_many(129)),
        ("200 fields".to_owned(), with_many(200)),
        ("3,000 fields".to_owned(), with_many(3_000)),
        ("one field of 70 KiB".to_owned(), with(b"x-long", &vec![b'a'; 70 * 1_024])),
        ("a name of 70 KiB".to_owned(), with(&vec![b'a'; 70 * 1_024], b"value")),
        ("100 fields of 1 KiB".to_owned(), {
            let long = "v".repeat(1_024);
            let fields = (0..100).map(|number| field(&format!("f{number}: {long}"))).collect::<Vec<_>>();
            [get("/refused", &[]), fields].concat()
        }),
        ("a field of 1 MiB".to_owned(), with(b"x-long", &vec![b'a'; 1_024 * 1_024])),
    ];
    refuse("sizes of heads", rows, TOO_LARGE).await;
    let rows = [9, 20, 60].map(|kib| (format!("{kib} KiB"), get(&format!("/{}", "a".repeat(kib * 1_024)), &[])));
    refuse("sizes of paths", rows.into(), &[414, 431]).await;
}

#[tokio::test]
async fn small_blocks_that_unfold() {
    let (origin, node) = site().await;
    let mut table = Table::new("HPACK bombs");
    let before = node.rss_bytes();
    let base = literal(&get("/refused", &[]));
    let static_fields = [base.clone(), indexed(16).repeat(12_000)].concat();
    // 4,000 bytes kept, and 12,000 times as many meant.
    let dynamic = [base.clone(), kept(b"x-bomb", &[b'b'; 4_000]), indexed(FIRST_DYNAMIC).repeat(12_000)].concat();
    // The same, but no field has any value.
    let nameless = [base, kept(b"", b""), indexed(FIRST_DYNAMIC).repeat(12_000)].concat();
    for (name, block) in [("static table", static_fields), ("dynamic table", dynamic), ("empty names", nameless)] {
        for _ in 0..5 {
            let mut raw = node.raw_h2(&[]).await;
            let stream = raw.new_stream();
            let _ = raw.send_frames(&Frame::long_headers(stream, &block, true)).await;
            let fate = raw.fate(stream).await;
            table.row(name, refused(&fate, &[400, 431]));
            table.row(name, good(&node).await);
        }
    }
    let grown = node.peak_rss_bytes().saturating_sub(before) / (1_024 * 1_024);
    table.row("memory", that(grown <= 64, || format!("grew by {grown} MiB")));
    table.row("origin", same("heads", origin.heads(), 1));
    table.finish();
}

#[tokio::test]
async fn lengths_that_are_none_or_wrong() {
    let mut rows = Vec::new();
    for length in ["x", "+3", "-3", "3, 3", "3,3", "0x3", "", "3.0", " 3", "3 ", "99999999999999999999", "1e1", "3;"] {
        rows.push((format!("length {length:?}"), vec![format!("content-length: {length}")], "abc"));
    }
    rows.push(("twice".to_owned(), vec!["content-length: 3".to_owned(), "content-length: 4".to_owned()], "abc"));
    rows.push(("more than comes".to_owned(), vec!["content-length: 10".to_owned()], "abc"));
    rows.push(("less than comes".to_owned(), vec!["content-length: 2".to_owned()], "abc"));
    rows.push(("nothing, and something comes".to_owned(), vec!["content-length: 0".to_owned()], "abc"));
    let (origin, node) = site().await;
    let mut table = Table::new("lengths over HTTP/2");
    for (name, lines, body) in rows {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.ask_with_body(&request("POST", "/refused", &lines), body.as_bytes()).await;
        let fate = raw.fate(stream).await;
        table.row(&name, refused(&fate, &[400, 502]));
        table.row(&name, good(&node).await);
        // A body of nothing is complete before anything can be wrong with it.
        let seen = origin.requests_for("/refused").into_iter().filter(|request| !request.body.is_empty()).count();
        table.row(&name, same("requests with a body at the origin", seen, 0));
        let complete = if name.starts_with("nothing") { origin.count("/refused") } else { 0 };
        table.row(&name, same("complete requests at the origin", origin.count("/refused"), complete));
    }
    let mut raw = node.raw_h2(&[]).await;
    for (method, length) in [("POST", 5), ("GET", 5), ("HEAD", 5)] {
        let line = format!("content-length: {length}");
        let stream = raw.ask(&request(method, "/announced", &[&line])).await;
        let fate = raw.fate(stream).await;
        let name = format!("{method} without the body it tells of");
        table.row(&name, refused(&fate, BAD_REQUEST));
        table.row(&name, same("complete requests at the origin", origin.count("/announced"), 0));
        if matches!(fate, Fate::Gone(_) | Fate::Ended(_)) {
            raw = node.raw_h2(&[]).await;
        }
    }
    table.finish();
}

#[tokio::test]
async fn bodies_and_trailers_where_none_belong() {
    let (origin, node) = site().await;
    let mut table = Table::new("bodies over HTTP/2");
    for method in ["GET", "HEAD"] {
        for lines in [&[][..], &["content-length: 5"]] {
            let mut raw = node.raw_h2(&[]).await;
            let stream = raw.ask_with_body(&request(method, "/refused", lines), b"hello").await;
            let fate = raw.fate(stream).await;
            table.row(&format!("{method} with a body"), refused(&fate, BAD_REQUEST));
        }
    }
    for line in ["X-Upper: 1", "connection: close", "x: a\r\nb", "transfer-encoding: chunked"] {
        let mut raw = node.raw_h2(&[]).await;
        let fate = with_trailer(&mut raw, line).await;
        table.row(&format!("trailer {line:?}"), refused(&fate, &[400, 502]));
    }
    // What comes after trailers must end the stream (RFC 9113 section 8.1).
    let mut raw = node.raw_h2(&[]).await;
    let stream = raw.new_stream();
    let head = Frame::headers(stream, literal(&request("POST", "/refused", &[])), false);
    let trailers = Frame::headers(stream, literal(&[field("x: y")]), false);
    let _ = raw.send_frames(&[head, trailers, Frame::data(stream, "hello", true)]).await;
    let fate = raw.fate(stream).await;
    table.row("trailers that are not the end", refused(&fate, &[400, 502]));
    table.row("all together", same("complete requests at the origin", origin.count("/refused"), 0));
    table.row("all together", good(&node).await);
    table.finish();
}

/// RFC 9113 section 8.1 has no pseudo-fields in trailers. The `h2` crate drops them before the node can see them: that is
/// as good as a refusal, as long as nothing of them arrives anywhere.
#[tokio::test]
async fn pseudo_fields_in_trailers_are_nobodys() {
    let (origin, node) = site().await;
    let mut table = Table::new("pseudo-fields in trailers");
    for line in [":path: /smuggled", ":status: 200", ":method: GET"] {
        let mut raw = node.raw_h2(&[]).await;
        let fate = with_trailer(&mut raw, line).await;
        let refused = refused(&fate, &[400, 502]).is_ok();
        table.row(line, that(refused || fate.status() == Some(200), || fate.told()));
        table.row(line, same("/smuggled at the origin", origin.count("/smuggled"), 0));
        for seen in origin.requests() {
            let whole = seen.body == "hello" || seen.target == "/after";
            let (name, _) = line[1..].split_once(':').unwrap_or_default();
            table.row(line, that(whole && seen.field(name).is_none(), || format!("{:?}", seen.fields)));
        }
    }
    table.finish();
}

/// RFC 9113 section 8.3.1: `:path` has no fragment. The crate's `Uri` drops it before the node can see it: that is as
/// good as a refusal, as long as it is part neither of the key nor of what the origin gets.
#[tokio::test]
async fn a_fragment_is_no_part_of_a_path() {
    let (origin, node) = site().await;
    let mut table = Table::new("fragments");
    for path in ["/after#fragment", "/after#", "/after#/../x?y"] {
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.ask(&get(path, &[])).await;
        let fate = raw.fate(stream).await;
        let dropped = matches!(&fate, Fate::Answered(response) if response.is_hit());
        table.row(path, that(dropped || refused(&fate, BAD_REQUEST).is_ok(), || fate.told()));
    }
    table.row("origin", same("heads", origin.heads(), 1));
    table.finish();
}

#[tokio::test]
async fn the_limits_themselves_are_allowed() {
    let (_origin, node) = site().await;
    let mut table = Table::new("within the limits over HTTP/2");
    let long = vec![b'a'; 60 * 1_024];
    let mut large = get("/after", &[]);
    large.push((b"x-long".to_vec(), long));
    let fields: Vec<Field> = (0..120).map(|number| field(&format!("f{number}: v"))).collect();
    let target = format!("/after?{}", "a".repeat(8 * 1_024 - 100));
    for (name, fields) in [
        ("124 fields", [get("/after", &[]), fields].concat()),
        ("60 KiB of fields", large),
        ("a path of nearly 8 KiB", get(&target, &[])),
        ("an empty value", get("/after", &["x-empty: "])),
        ("a value beyond ASCII", get("/after", &["x-name: caf\u{e9}"])),
        ("a tab within a value", get("/after", &["x-tab: a\tb"])),
        ("te: trailers", get("/after", &["te: trailers"])),
        ("a length of nothing", get("/after", &["content-length: 0"])),
        ("host as :authority", get("/after", &["host: www.example.test"])),
        ("host in capitals", get("/after", &["host: WWW.EXAMPLE.TEST"])),
        ("* for OPTIONS", request("OPTIONS", "*", &[])),
    ] {
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.new_stream();
        let _ = raw.send_frames(&Frame::long_headers(stream, &literal(&fields), true)).await;
        let fate = raw.fate(stream).await;
        let refused = matches!(fate.status(), None | Some(400 | 414 | 431));
        table.row(name, that(!refused, || fate.told()));
    }
    table.finish();
}

/// An origin that welcomes everything, and a node before it that has one page of it.
async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    for target in ["/refused", "/smuggled"] {
        origin.serve(target, Answer::ok("from the origin"));
    }
    origin.serve("/after", Answer::ok("after").field("Cache-Control: max-age=600"));
    let node = NodeOptions::configured(&origin, "").start().await;
    assert_eq!(node.h2().await.get("/after").await.status, 200);
    (origin, node)
}

fn with(name: &[u8], value: &[u8]) -> Vec<Field> {
    let mut fields = get("/refused", &[]);
    fields.push((name.to_vec(), value.to_vec()));
    fields
}

/// A POST with a body and this trailer.
async fn with_trailer(raw: &mut Raw, line: &str) -> Fate {
    let stream = raw.new_stream();
    let head = Frame::headers(stream, literal(&request("POST", "/refused", &[])), false);
    let trailers = Frame::headers(stream, literal(&[field(line)]), true);
    let _ = raw.send_frames(&[head, Frame::data(stream, "hello", false), trailers]).await;
    raw.fate(stream).await
}

/// Each row on a connection of its own, which may or may not survive it.
async fn refuse(name: &'static str, rows: Vec<(String, Vec<Field>)>, statuses: &[u16]) {
    let (origin, node) = site().await;
    let mut table = Table::new(name);
    // One good client stays, one comes anew for each row.
    let kept = node.h2().await;
    for (row, fields) in &rows {
        let before = origin.heads();
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.new_stream();
        let _ = raw.send_frames(&Frame::long_headers(stream, &literal(fields), true)).await;
        let fate = raw.fate(stream).await;
        table.row(row, refused(&fate, statuses));
        table.row(row, others_are_fine(&mut raw, &fate).await);
        table.row(row, that(kept.get("/after").await.is_hit(), || "another connection suffers".to_owned()));
        table.row(row, good(&node).await);
        table.row(row, same("heads at the origin", origin.heads(), before));
    }
    table.finish();
}

/// A connection that goes on is as good as before.
async fn others_are_fine(raw: &mut Raw, fate: &Fate) -> Result<(), String> {
    if matches!(fate, Fate::Gone(_) | Fate::Ended(_)) || raw.goaway.is_some() {
        return Ok(());
    }
    let stream = raw.ask(&get("/after", &[])).await;
    let after = raw.fate(stream).await;
    same("the status of the next stream", after.status(), Some(200))
        .map_err(|problem| format!("{problem}: {}", after.told()))
}

fn refused(fate: &Fate, statuses: &[u16]) -> Result<(), String> {
    let well = match fate {
        Fate::Answered(response) => statuses.contains(&response.status),
        Fate::Reset(code) | Fate::Gone(code) => {
            // ENHANCE_YOUR_CALM and COMPRESSION_ERROR are for what is too large, or cannot be decoded.
            *code == PROTOCOL_ERROR || (statuses.contains(&431) && matches!(code, 9 | 11))
        }
        Fate::Ended(end) => end.is_closed(),
    };
    that(well, || format!("not refused: {}", fate.told()))
}

async fn good(node: &Node) -> Result<(), String> {
    let response = node.h2().await.get("/after").await;
    that(response.status == 200 && response.is_hit(), || format!("a good client gets {:?}", response.head))
}
