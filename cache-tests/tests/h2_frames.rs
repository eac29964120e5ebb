//! Frames that break the protocol: they cost the connection, or the stream they are on, and nobody else anything.

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::h2::block::{FIRST_DYNAMIC, indexed, literal, table_size};
use cache_tests::h2::frame::{
    ACK, CANCEL, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    WITH_PRIORITY, continuation, wire,
};
use cache_tests::h2::raw::{Fate, Raw, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{H2, Tls};

async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    origin.serve("/refused", Answer::ok("from the origin"));
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=600"));
    let node = NodeOptions::configured(&origin, "").start().await;
    assert_eq!(node.h2().await.get("/page").await.status, 200);
    (origin, node)
}

/// The header block of a request that must not be executed.
fn block() -> Vec<u8> {
    literal(&get("/refused", &[]))
}

fn upload() -> Vec<u8> {
    literal(&request("POST", "/refused", &[]))
}

#[tokio::test]
async fn frames_that_cost_the_connection() {
    let frame = |kind, flags, stream, payload: &[u8]| Frame::new(kind, flags, stream, payload.to_vec()).encode();
    let open = Frame::headers(1, upload(), false).encode();
    let unfinished = Frame::new(HEADERS, END_STREAM, 1, block()).encode();
    let after = |first: &[u8], then: Vec<u8>| [first, &then].concat();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on a stream nobody opened", frame(DATA, 0, 1, b"x")),
        ("DATA longer than its limit", after(&open, frame(DATA, 0, 1, &[0; 16_385]))),
        ("DATA with too much padding", after(&open, frame(DATA, PADDED, 1, &[9, b'x']))),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &block())),
        ("HEADERS on a server's stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &block())),
        ("HEADERS with too much padding", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[200, b'x'])),
        ("HEADERS longer than their limit", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82; 20_000])),
        ("HEADERS with half a priority", frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[0, 0])),
        ("a frame within HEADERS", after(&unfinished, frame(PING, 0, 0, &[0; 8]))),
        ("DATA within HEADERS", after(&unfinished, frame(DATA, END_STREAM, 1, b"x"))),
        ("CONTINUATION of another stream", after(&unfinished, continuation(3, &[]).encode())),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &block())),
        ("CONTINUATION after the end", after(&open, frame(CONTINUATION, END_HEADERS, 1, &block()))),
        ("CONTINUATION on stream 0", frame(CONTINUATION, END_HEADERS, 0, &block())),
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5])),
        ("RST_STREAM on stream 0", Frame::reset(0, CANCEL).encode()),
        ("RST_STREAM of nothing", Frame::reset(1, CANCEL).encode()),
        ("RST_STREAM of 3 bytes", after(&open, frame(RST_STREAM, 0, 1, &[0; 3]))),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS that acknowledge and set", frame(SETTINGS, ACK, 0, &[0, 4, 0, 0, 0, 1])),
        ("ENABLE_PUSH=2", Frame::settings(&[(ENABLE_PUSH, 2)]).encode()),
        ("a window too large", Frame::settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]).encode()),
        ("frames too small", Frame::settings(&[(MAX_FRAME_SIZE, 16_383)]).encode()),
        ("frames too large", Frame::settings(&[(MAX_FRAME_SIZE, 1 << 24)]).encode()),
        ("PUSH_PROMISE from a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("WINDOW_UPDATE of nothing", Frame::window_update(0, 0).encode()),
        ("WINDOW_UPDATE beyond the limit", Frame::window_update(0, 0x7fff_ffff).encode()),
        ("WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("WINDOW_UPDATE of a stream nobody opened", Frame::window_update(1, 1).encode()),
        ("index 0", Frame::headers(1, indexed(0), true).encode()),
        ("an index of nothing", Frame::headers(1, indexed(FIRST_DYNAMIC), true).encode()),
        ("an endless index", Frame::headers(1, vec![0xff; 50], true).encode()),
        ("half a string", Frame::headers(1, vec![0x10, 0x05, b'x'], true).encode()),
        ("Huffman code that is none", Frame::headers(1, vec![0x10, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00], true).encode()),
        ("Huffman padding of zeros", Frame::headers(1, vec![0x10, 0x81, 0x18, 0x00], true).encode()),
        ("a table of 1 MiB", Frame::headers(1, [table_size(1 << 20), block()].concat(), true).encode()),
        ("a size of the table at the end", Frame::headers(1, [block(), table_size(0)].concat(), true).encode()),
        ("a frame that says 16 MiB", Frame::data(1, "x", false).encode_as_if(0xff_ffff)),
    ];
    let (origin, node) = site().await;
    let mut table = Table::new("frames");
    for (name, bytes) in rows {
        let before = origin.count("/refused");
        let mut raw = node.raw_h2(&[]).await;
        let _ = raw.send(bytes).await;
        // Whatever is left of the connection is no longer any good.
        let end = raw.closed().await;
        table.row(name, that(end.is_closed(), || format!("the connection goes on: {end:?}; {raw:?}")));
        // RFC 9113 section 5.4.1: the peer is told what was wrong.
        let told = matches!(raw.goaway, Some((code, _)) if code != NO_ERROR);
        table.row(name, that(told, || format!("GOAWAY {:?}", raw.goaway)));
        table.row(name, same("requests at the origin", origin.count("/refused"), before));
        table.row(name, good(&node).await);
    }
    table.finish();
}

#[tokio::test]
async fn frames_that_cost_a_stream() {
    let (origin, node) = site().await;
    let mut table = Table::new("frames of one stream");
    type Frames = fn(u32) -> Vec<Frame>;
    let rows: [(&str, Frames); 5] = [
        // RFC 9113 section 6.9: either is allowed, and which it is depends on whose window is used up first.
        ("DATA beyond the window", |stream| vec![Frame::new(DATA, 0, stream, vec![0; 16_384]); 1_000]),
        ("WINDOW_UPDATE of nothing", |stream| vec![Frame::window_update(stream, 0)]),
        ("WINDOW_UPDATE beyond the limit", |stream| vec![Frame::window_update(stream, 0x7fff_ffff)]),
        ("PRIORITY of 4 bytes", |stream| vec![Frame::new(PRIORITY, 0, stream, vec![0; 4])]),
        ("HEADERS that depend on themselves", |stream| {
            let payload = [&stream.to_be_bytes()[..], &[0], &literal(&[])].concat();
            vec![Frame::new(HEADERS, END_HEADERS | WITH_PRIORITY, stream, payload)]
        }),
    ];
    for (name, frames) in rows {
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.new_stream();
        let _ = raw.send_frames(&[&[Frame::headers(stream, upload(), false)][..], &frames(stream)].concat()).await;
        let fate = raw.fate(stream).await;
        // RFC 9113 section 5.4.1 allows the end of the connection instead.
        let ended = match &fate {
            Fate::Answered(response) => response.status == 400,
            Fate::Reset(_) | Fate::Gone(_) => true,
            Fate::Ended(end) => end.is_closed(),
        };
        table.row(name, that(ended, || fate.told()));
        table.row(name, good(&node).await);
    }
    table.row("origin", same("complete requests", origin.count("/refused"), 0));
    table.finish();
}

#[tokio::test]
async fn what_is_new_or_old_is_ignored() {
    let (_origin, node) = site().await;
    let mut table = Table::new("frames to be ignored");
    for (name, frames) in [
        ("an unknown kind", vec![Frame::new(0x42, 0xff, 0, b"?".to_vec())]),
        ("an unknown kind on a stream", vec![Frame::new(0x42, 0, 1, b"?".to_vec())]),
        ("an unknown setting", vec![Frame::settings(&[(0x4242, 7)])]),
        ("PRIORITY", vec![Frame::priority(1, 0), Frame::priority(5, 3)]),
        ("unknown flags", vec![Frame::new(PING, 0xfe, 0, vec![0; 8])]),
        ("GREASE", vec![Frame::new(0x0b, 0, 0, vec![0; 10]), Frame::settings(&[(0x0a0a, 1)])]),
    ] {
        let mut raw = node.raw_h2(&[]).await;
        let _ = raw.send_frames(&frames).await;
        let stream = raw.ask(&get("/page", &[])).await;
        let fate = raw.fate(stream).await;
        table.row(
            name,
            same("the status", fate.status(), Some(200)).map_err(|problem| format!("{problem}: {}", fate.told())),
        );
    }
    // A head in many pieces, and padded, is still one head.
    let mut raw = node.raw_h2(&[]).await;
    let block = literal(&get("/page", &[]));
    let stream = raw.new_stream();
    let mut frames: Vec<Frame> = block.chunks(40).map(|part| continuation(stream, part)).collect();
    let last = frames.len() - 1;
    frames[last].flags = END_HEADERS;
    frames[0] = Frame::new(HEADERS, END_STREAM | PADDED, stream, [&[3], &block[..40], &[0; 3]].concat());
    let _ = raw.send_frames(&frames).await;
    let fate = raw.fate(stream).await;
    table.row("a head in pieces", same("the status", fate.status(), Some(200)));
    table.finish();
}

#[tokio::test]
async fn those_who_do_not_begin_as_they_should() {
    let (origin, node) = site().await;
    let mut table = Table::new("beginnings");
    let preface_twice = [PREFACE, PREFACE].concat();
    let http_1 = b"GET /refused HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_vec();
    for (name, bytes) in [
        ("HTTP/1 where HTTP/2 was agreed on", http_1),
        ("half a preface and garbage", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
        ("the preface twice", preface_twice),
        ("no preface", wire(&[Frame::settings(&[]), Frame::headers(1, block(), true)])),
        ("zeros", vec![0; 1_000]),
    ] {
        let stream = Tls::offering(&[H2]).connect(node.tls_address()).await.expect("a handshake");
        let mut raw = Raw::silent(stream);
        let _ = raw.send(bytes).await;
        let end = raw.closed().await;
        table.row(name, that(end.is_closed(), || format!("the connection goes on: {end:?}")));
        table.row(name, good(&node).await);
    }
    // HTTP/2 where HTTP/1 was agreed on, or nothing, or TLS was not even spoken.
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = Tls::offering(alpn).connect(node.tls_address()).await.expect("a handshake");
        table.row(&format!("the preface with {alpn:?}"), preface_is_refused(Client::on(stream)).await);
    }
    table.row("the preface in the clear", preface_is_refused(node.client().await).await);
    table.row("origin", same("requests", origin.count("/refused"), 0));
    table.finish();
}

async fn preface_is_refused(mut client: Client) -> Result<(), String> {
    let request = Frame::headers(1, block(), true).encode();
    let _ = client.send([PREFACE, &Frame::settings(&[]).encode(), &request].concat()).await;
    if let Ok(response) = client.response("PRI").await {
        that(matches!(response.status, 400 | 405 | 505), || format!("status {}", response.status))?;
    }
    let (_, end) = client.closed().await;
    that(end.is_closed(), || format!("{end:?}"))
}

async fn good(node: &Node) -> Result<(), String> {
    let response = node.h2().await.get("/page").await;
    that(response.status == 200 && response.is_hit(), || format!("a good client gets {:?}", response.head))
}
