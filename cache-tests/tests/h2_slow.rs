//! Slow clients of TLS and HTTP/2: each wait has an end, and nobody waits for them.

use std::time::{Duration, Instant};

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::{Client, Socket, address_of};
use cache_tests::gate::Gate;
use cache_tests::h2::block::literal;
use cache_tests::h2::frame::{END_STREAM, Frame, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, REFUSED_STREAM, continuation};
use cache_tests::h2::polite::Polite;
use cache_tests::h2::raw::{Fate, Raw, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::raise_open_files_limit;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{H2, HTTP_1_1, Tls};
use tokio::time::interval;

const MIB: u64 = 1_024 * 1_024;
const FRESH: &str = "Cache-Control: max-age=600";
const NO_STORE: &str = "Cache-Control: no-store";

/// Every timeout of these nodes is a second; this much is for a busy machine.
const LONGEST: Duration = Duration::from_secs(5);
/// Between two bytes of a client that drips.
const DRIP: Duration = Duration::from_millis(200);

const IMPATIENT: &str = "[limits]\nhead_timeout = \"1s\"\nidle_timeout = \"1s\"\nwrite_timeout = \"1s\"\n";

async fn site(text: &str) -> (Origin, Node) {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH));
    origin.serve("/upload", Answer::ok("thank you").field(NO_STORE));
    for (target, control) in [("/large", FRESH), ("/large-passed", NO_STORE)] {
        origin.serve(target, Answer::ok(pattern(8_000_000, 1)).field(control));
    }
    let node = NodeOptions::configured(&origin, text).start().await;
    assert_eq!(node.h2().await.get("/page").await.status, 200);
    (origin, node)
}

#[tokio::test]
async fn a_window_that_never_opens_is_not_waited_for() {
    let (_origin, node) = site(IMPATIENT).await;
    let mut table = Table::new("windows that do not open");
    for target in ["/large", "/large", "/large-passed"] {
        for window in [0, 10] {
            let mut raw = node.raw_h2(&[(INITIAL_WINDOW_SIZE, window)]).await.stingy().patient(LONGEST);
            let stream = raw.ask(&get(target, &[])).await;
            let fate = raw.fate(stream).await;
            let cut = match &fate {
                Fate::Reset(_) | Fate::Gone(_) => true,
                Fate::Ended(end) => end.is_closed(),
                Fate::Answered(_) => false,
            };
            table.row(&format!("{target}, window {window}"), that(cut, || fate.told()));
        }
    }
    table.finish();
}

#[tokio::test]
async fn a_window_that_opens_byte_by_byte_is_not_waited_for() {
    // Below SEND_RATE_MIN, 1 KiB a second, a client is cut too.
    let (_origin, node) = site(IMPATIENT).await;
    let mut raw = node.raw_h2(&[(INITIAL_WINDOW_SIZE, 1)]).await.stingy().patient(DRIP);
    let stream = raw.ask(&get("/large", &[])).await;
    let began = Instant::now();
    let mut beat = interval(DRIP);
    let fate = loop {
        beat.tick().await;
        let _ = raw.send_frames(&[Frame::window_update(stream, 1)]).await;
        match raw.fate(stream).await {
            Fate::Ended(end) if !end.is_closed() => {}
            fate => break Some(fate),
        }
        if began.elapsed() > 3 * LONGEST {
            break None;
        }
    };
    assert!(fate.is_some(), "still served after {:?}", began.elapsed());
}

#[tokio::test]
async fn those_who_never_read_are_cut_off() {
    let origin = Origin::start();
    for (target, control) in [("/stored", FRESH), ("/passed", NO_STORE)] {
        origin.serve(target, Answer::ok(pattern(32_000_000, 2)).field(control));
    }
    origin.serve("/page", Answer::ok("page").field(FRESH));
    let node = NodeOptions::configured(&origin, IMPATIENT).alone().start().await;
    assert_eq!(node.h2().await.get("/stored").await.body.len(), 32_000_000);
    let before = node.rss_bytes();
    let tls = Tls::offering(&[H2]);
    let mut clients = Vec::new();
    for number in 0..40 {
        let socket = Socket { from: Some(address_of(number)), receive_buffer: Some(4_096) };
        let stream = tls.connect_with(node.tls_address(), socket).await.expect("a handshake");
        let mut raw = Raw::open(stream, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await.expect("the node reads");
        let _ = raw.send_frames(&[Frame::window_update(0, 0x7fff_0000)]).await;
        let target = if number % 2 == 0 { "/stored" } else { "/passed" };
        let stream = raw.ask(&get(target, &[])).await;
        clients.push((raw, stream));
    }
    // The records say when the node has given up: the first one is of the request before.
    node.log_lines(41).await;
    let grown = node.peak_rss_bytes().saturating_sub(before);
    assert!(grown <= 64 * MIB, "memory grew by {} MiB for clients that never read", grown / MIB);
    for (mut raw, stream) in clients {
        let fate = raw.fate(stream).await;
        assert_eq!(fate.status(), None, "somebody got it all: {}", fate.told());
    }
    assert_eq!(node.h2().await.get("/page").await.status, 200);
}

#[tokio::test]
async fn heads_that_drip_have_an_end() {
    let (origin, node) = site(IMPATIENT).await;
    let block = literal(&get("/refused", &[&format!("x-drip: {}", "x".repeat(2_000))]));
    let whole = Frame::headers(1, block.clone(), true).encode();
    let parts: Vec<Vec<u8>> = whole.iter().map(|byte| vec![*byte]).collect();
    let unfinished = Frame::new(HEADERS, END_STREAM, 1, block[..20].to_vec()).encode();
    let mut fragments = vec![unfinished];
    fragments.extend(block[20..].iter().map(|byte| continuation(1, &[*byte]).encode()));
    let mut table = Table::new("heads that drip");
    for (name, parts) in [("byte by byte", parts), ("in fragments", fragments)] {
        let raw = node.raw_h2(&[]).await;
        table.row(name, drip(raw, parts).await);
    }
    // A stream that is served already gives no more time for the next head.
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("held").field(NO_STORE).after(&gate));
    let mut raw = node.raw_h2(&[]).await;
    raw.ask(&get("/held", &[])).await;
    let parts = Frame::headers(3, block, true).encode().iter().map(|byte| vec![*byte]).collect();
    table.row("beside a stream", drip(raw, parts).await);
    table.row("origin", same("requests", origin.count("/refused"), 0));
    table.finish();
}

#[tokio::test]
async fn silence_after_the_handshake_has_an_end() {
    let (_origin, node) = site(IMPATIENT).await;
    let mut table = Table::new("silence");
    for (name, alpn, bytes) in [
        ("no preface", H2, &b""[..]),
        ("half a preface", H2, &PREFACE[..10]),
        ("a preface without SETTINGS", H2, PREFACE),
        ("no request", HTTP_1_1, b""),
        ("half a request", HTTP_1_1, b"GET /page HT"),
    ] {
        let stream = Tls::offering(&[alpn]).connect(node.tls_address()).await.expect("a handshake");
        let mut raw = Raw::silent(stream).patient(LONGEST);
        let _ = raw.send(bytes).await;
        let end = raw.closed().await;
        // An HTTP/1 answer, 408, is no frame.
        table.row(name, that(end.is_closed() || matches!(end, End::Malformed(_)), || format!("{end:?}")));
    }
    let mut raw = node.raw_h2(&[]).await.patient(LONGEST);
    let end = raw.closed().await;
    table.row("SETTINGS and nothing more", that(end.is_closed(), || format!("{end:?}")));
    table.finish();
}

#[tokio::test]
async fn a_body_that_does_not_come_has_an_end() {
    let (origin, node) = site(IMPATIENT).await;
    let mut table = Table::new("bodies that do not come");
    for (name, lines, first) in [
        ("nothing", &[][..], None),
        ("nothing of a length", &["content-length: 1000"], None),
        ("half of it", &["content-length: 1000"], Some("half")),
        ("no end", &[], Some("half")),
    ] {
        let mut raw = node.raw_h2(&[]).await.patient(LONGEST);
        let stream = raw.new_stream();
        let mut frames = vec![Frame::headers(stream, literal(&request("POST", "/upload", lines)), false)];
        frames.extend(first.map(|bytes| Frame::data(stream, bytes, false)));
        let _ = raw.send_frames(&frames).await;
        let fate = raw.fate(stream).await;
        let ended = match &fate {
            Fate::Answered(response) => matches!(response.status, 408 | 400 | 502 | 504),
            Fate::Reset(_) | Fate::Gone(_) => true,
            Fate::Ended(end) => end.is_closed(),
        };
        table.row(name, that(ended, || fate.told()));
        table.row(name, same("complete requests at the origin", origin.count("/upload"), 0));
    }
    table.finish();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (origin, node) = site("").await;
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("held").field(NO_STORE).after(&gate));
    let mut raw = node.raw_h2(&[]).await;
    let block = literal(&get("/held", &[]));
    let streams: Vec<u32> = (0..150).map(|_| raw.new_stream()).collect();
    let frames: Vec<Frame> = streams.iter().map(|stream| Frame::headers(*stream, block.clone(), true)).collect();
    let _ = raw.send_frames(&frames).await;
    let fate = raw.fate(streams[149]).await;
    let refused = match &fate {
        Fate::Reset(code) => *code == REFUSED_STREAM,
        Fate::Gone(_) => true,
        Fate::Ended(end) => end.is_closed(),
        Fate::Answered(_) => false,
    };
    assert!(refused, "{}", fate.told());
    gate.open();
    if matches!(fate, Fate::Reset(_)) {
        let fate = raw.fate(streams[0]).await;
        assert_eq!(fate.status(), Some(200), "{}", fate.told());
    }
    assert!(origin.heads() <= 101 + 1, "{} requests at the origin", origin.heads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_clients_of_tls_disturb_nobody() {
    let limit = raise_open_files_limit();
    assert!(limit >= 8_192, "this test needs 8,192 open files, the hard limit is {limit}");
    let origin = Origin::start();
    origin.serve("/page", Answer::ok(pattern(10_000, 1)).field(FRESH));
    let node = NodeOptions::configured(&origin, "").alone().start().await;
    let good = node.h2().await;
    good.get("/page").await;
    let before = node.rss_bytes();
    let (h2, http_1) = (Tls::offering(&[H2]), Tls::offering(&[HTTP_1_1]));
    let (mut idle, mut old, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
    for number in 0..2_000 {
        let socket = Socket { from: Some(address_of(number)), ..Socket::default() };
        let tls = if number % 2 == 0 { &h2 } else { &http_1 };
        let stream = tls.connect_with(node.tls_address(), socket).await;
        let stream = stream.unwrap_or_else(|error| panic!("client {number}: {error}"));
        if number % 2 == 0 {
            let client = Polite::open(stream).await.expect("HTTP/2");
            assert_eq!(client.get("/page").await.status, 200);
            idle.push(client);
        } else {
            old.push(Client::on(stream));
        }
        let began = Instant::now();
        assert!(good.get("/page").await.is_hit(), "beside {number} clients");
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest <= Duration::from_secs(1), "the slowest answer took {slowest:?}");
    let each = node.rss_bytes().saturating_sub(before) / 2_000;
    assert!(each <= 64 * 1_024, "an idle client costs {each} bytes");
    // They are still there, and served.
    assert!(idle[0].get("/page").await.is_hit() && old[0].get("/page").await.is_hit());
}

#[tokio::test]
async fn handshakes_have_an_end() {
    let text = "[tls]\nhandshake_timeout = \"1s\"\n\
                certificates = [{ certificate = \"www.pem\", key = \"www.key\" }]\n";
    let (_origin, node) = site(text).await;
    // A record of 512 bytes, of which the beginning is here.
    let half = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut table = Table::new("handshakes that do not end");
    for (name, first, drips) in
        [("silence", &b""[..], false), ("half a ClientHello", half, false), ("a ClientHello that drips", half, true)]
    {
        let mut client =
            Client::connect_with(node.tls_address(), Socket::default()).await.expect("the node accepts").patient(DRIP);
        let began = Instant::now();
        let _ = client.send(first).await;
        let end = loop {
            let (_, end) = client.closed().await;
            if end.is_closed() || began.elapsed() > LONGEST {
                break end;
            }
            if drips && client.send([0]).await.is_err() {
                break End::Reset;
            }
        };
        table.row(name, that(end.is_closed(), || format!("{end:?} after {:?}", began.elapsed())));
    }
    assert_eq!(node.h2().await.get("/page").await.status, 200);
    table.finish();
}

/// Sends the parts one at a time; the node has to give up long before the last.
async fn drip(mut raw: Raw, parts: Vec<Vec<u8>>) -> Result<(), String> {
    let began = Instant::now();
    let mut beat = interval(DRIP);
    for part in parts {
        beat.tick().await;
        if raw.send(part).await.is_err() || raw.drain().await.is_err() {
            return Ok(());
        }
        that(began.elapsed() <= LONGEST, || "the node still waits".to_owned())?;
    }
    Err("the node waited to the end".to_owned())
}
