//! Bodies on their way to an origin: large ones, slow ones, and gRPC, whose bodies go both ways at once.

use std::time::Duration;

use bytes::Bytes;
use cache_tests::answer::pattern;
use cache_tests::client::HOST;
use cache_tests::deadline::within;
use cache_tests::h2::polite::{Begun, Polite};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::nobody_listens;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use cache_tests::talker::{Manner, Said, Talker};
use cache_tests::tls::{TLS12, TLS13, authority_pem};
use tokio::net::TcpListener;
use tokio::time::interval;

async fn before(url: &str, more: &str) -> Node {
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{url}\", {more} }}]\n");
    NodeOptions::configured_before(&nobody_listens(), &text).file("authority.pem", authority_pem()).start().await
}

fn manner(http2: bool) -> Manner {
    let manner = Manner::answering(|asked| Said::ok(asked.body.to_string()).field("cache-control", "no-store"));
    if http2 { manner.http2() } else { manner }
}

/// How a client sends a body.
#[derive(Clone, Copy, Debug)]
enum How {
    /// HTTP/1.1, with its length.
    Length,
    /// HTTP/1.1, in chunks.
    Chunks,
    Http2,
}

/// Uploads pieces, with a pause before each. What the answer says.
async fn upload(node: &Node, how: How, pieces: usize, piece: &Bytes, pause: Option<Duration>) -> String {
    let mut ticks = pause.map(interval);
    let length = format!("Content-Length: {}", pieces * piece.len());
    if let How::Http2 = how {
        let client = node.h2().await;
        let mut sent = client.send("POST", "/upload", &[&length], false).await.expect("it is sent");
        for number in 1..=pieces {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            sent.send_all(piece.clone(), number == pieces).await.expect("it is sent");
        }
        return match sent.begun().await {
            Ok(mut begun) => {
                let body = begun.rest().await.0;
                format!("{} {}", begun.head.status, String::from_utf8_lossy(&body))
            }
            Err(end) => format!("{end:?}"),
        };
    }
    let mut client = node.client().await;
    let (framing, prefix, suffix) = match how {
        How::Chunks => ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n", piece.len()), "\r\n"),
        _ => (length, String::new(), ""),
    };
    client.ask("POST", "/upload", &[&framing]).await;
    for _ in 0..pieces {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        client.send([prefix.as_bytes(), piece, suffix.as_bytes()].concat()).await.expect("it is sent");
    }
    if let How::Chunks = how {
        client.send("0\r\n\r\n").await.expect("it is sent");
    }
    match client.response("POST").await {
        Ok(response) => format!("{} {}", response.status, response.text()),
        Err(end) => format!("{end:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_in_constant_memory() {
    const PIECES: usize = 256;
    let piece = pattern(1 << 20, 1);
    let mut table = Table::new("large bodies");
    for http2 in [false, true] {
        let talker = Talker::start(manner(http2)).await;
        let text =
            format!("[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{}\", http2 = {http2} }}]\n", talker.url());
        let node = NodeOptions::configured_before(&nobody_listens(), &text).alone().start().await;
        for how in [How::Length, How::Chunks, How::Http2] {
            let name = format!("{how:?}, http2 = {http2}");
            let before = node.rss_bytes();
            let said = upload(&node, how, PIECES, &piece, None).await;
            table.row(&name, same("answer", said, format!("200 {}", PIECES << 20)));
            let grown = node.peak_rss_bytes().saturating_sub(before);
            table.row(&name, that(grown < 32 << 20, || format!("memory grew by {grown} bytes")));
            println!("{name}: {grown} bytes more at most");
        }
    }
    table.finish();
}

/// An upload may take longer than an origin may take to answer, as long as it goes on.
#[tokio::test]
async fn slow_bodies_pass() {
    let piece = pattern(16 << 10, 1);
    let timeouts = "timeouts = { first_byte = \"1s\", between_bytes = \"1s\" }";
    let mut table = Table::new("slow bodies");
    for http2 in [false, true] {
        let talker = Talker::start(manner(http2)).await;
        let node = before(&talker.url(), &format!("http2 = {http2}, {timeouts}")).await;
        for how in [How::Length, How::Chunks, How::Http2] {
            let said = upload(&node, how, 15, &piece, Some(Duration::from_millis(120))).await;
            let name = format!("{how:?}, http2 = {http2}");
            table.row(&name, same("answer", said, format!("200 {}", 15 * piece.len())));
        }
    }
    table.finish();
}

/// An origin that takes everything and answers nothing is not waited for.
#[tokio::test]
async fn an_origin_that_does_not_answer_is_given_up() {
    let mut table = Table::new("no answer");
    let timeouts = "timeouts = { first_byte = \"300ms\", between_bytes = \"300ms\" }";
    for http2 in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if !http2 {
                        let (mut read, _write) = tokio::io::split(stream);
                        return drop(tokio::io::copy(&mut read, &mut tokio::io::sink()).await);
                    }
                    let mut held = Vec::new();
                    let Ok(mut connection) = ::h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        held.push(respond);
                        let mut body = request.into_body();
                        tokio::spawn(async move {
                            while let Some(Ok(piece)) = body.data().await {
                                let _ = body.flow_control().release_capacity(piece.len());
                            }
                        });
                    }
                });
            }
        });
        let node = before(&url, &format!("http2 = {http2}, {timeouts}")).await;
        for how in [How::Length, How::Chunks, How::Http2] {
            for (pieces, length) in [(1, 1_000), (4, 100_000)] {
                let name = format!("{how:?}, http2 = {http2}, {pieces} of {length}");
                let piece = pattern(length, 1);
                let said = upload(&node, how, pieces, &piece, None);
                let said = within(Duration::from_secs(5), &name, said).await;
                // A long body to HTTP/2 is broken off without an answer.
                let given_up = said.starts_with("504") || (http2 && !said.starts_with(char::is_numeric));
                let short = pieces == 1 && !matches!(how, How::Chunks);
                table.row(&name, that(given_up && (said.starts_with("504") || !short), || said.clone()));
            }
        }
    }
    table.finish();
}

const GRPC: [&str; 2] = ["Content-Type: application/grpc", "TE: trailers"];

/// The trailers, once everything has come.
async fn status_of(begun: &mut Begun) -> Result<(String, String), End> {
    let trailers = begun.trailers().await?.unwrap_or_default();
    let text = |name: &str| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok((text("grpc-status").unwrap_or_default(), text("grpc-message").unwrap_or_default()))
}

#[tokio::test]
async fn grpc_passes() {
    let mut table = Table::new("gRPC");
    for tls in [false, true] {
        let mut manner = manner(true);
        if tls {
            manner = manner.in_tls(&[&TLS13, &TLS12], false, HOST);
        }
        let talker = Talker::start(manner).await;
        let to = if tls { format!("sni = \"{HOST}\", ca = \"authority.pem\", ") } else { String::new() };
        let node = before(&talker.url(), &format!("{to} http2 = true")).await;
        let client: Polite = node.h2().await;
        let name = |what: &str| format!("{what}, TLS = {tls}");

        // One message each way.
        let message = Bytes::from_static(b"\0\0\0\0\x05hello");
        let mut unary = client.begin("POST", "/a.B/Unary", &GRPC, Some(message.clone())).await.expect("an answer");
        let (body, end) = unary.rest().await;
        table.row(&name("unary"), same("body", body, message.clone()));
        table.row(&name("unary"), that(end.is_clean(), || format!("{end:?}")));
        let status = status_of(&mut unary).await;
        table.row(&name("unary"), same("status", status.expect("trailers"), ("0".into(), "10".into())));
        let asked = talker.last();
        table.row(&name("unary"), same("te", asked.field("te").as_deref(), Some("trailers")));

        // A message there, then one back, many times over one stream.
        let sent = client.send("POST", "/a.B/Talk", &GRPC, false).await.expect("it is sent");
        let (mut sending, begun) = sent.split();
        let mut begun = begun.await.expect("the head comes before the body has ended");
        for number in 0..100u8 {
            let message = pattern(usize::from(number) * 100 + 1, u64::from(number));
            sending.send_body(message.clone(), false).expect("it is sent");
            let mut back = Vec::new();
            while back.len() < message.len() {
                back.extend_from_slice(&begun.some_body().await.expect("it comes back"));
            }
            table.row(&name("both ways"), that(back == message, || format!("message {number} differs")));
        }
        sending.send_body(Bytes::new(), true).expect("it is sent");
        let (rest, end) = begun.rest().await;
        table.row(&name("both ways"), that(rest.is_empty() && end.is_clean(), || format!("{rest:?} {end:?}")));
        let (status, _) = status_of(&mut begun).await.expect("trailers");
        table.row(&name("both ways"), same("status", status, "0".into()));

        // A client that goes away is gone for the origin, too; the connection is not.
        let sent = client.send("POST", "/a.B/Gone", &GRPC, false).await.expect("it is sent");
        sent.cancel();
        let again = client.begin("POST", "/a.B/Unary", &GRPC, Some(message)).await;
        table.row(&name("after a cancelled one"), same("status", again.map_or(0, |begun| begun.head.status), 200));
    }
    table.finish();
}

/// A stream on which nobody says anything for longer than an origin may take to answer stays open while the client's side is.
#[tokio::test]
async fn a_silent_stream_stays_open() {
    let talker = Talker::start(manner(true)).await;
    let node =
        before(&talker.url(), "http2 = true, timeouts = { first_byte = \"500ms\", between_bytes = \"500ms\" }").await;
    let client: Polite = node.h2().await;
    let (mut sending, begun) = client.send("POST", "/a.B/Talk", &GRPC, false).await.expect("it is sent").split();
    let mut begun = begun.await.expect("a head");
    let mut ticks = interval(Duration::from_millis(1_200));
    for number in 0..3u64 {
        ticks.tick().await;
        let message = pattern(100, number);
        sending.send_body(message.clone(), false).expect("it is sent");
        assert_eq!(begun.some_body().await.expect("it comes back"), message);
    }
    sending.send_body(Bytes::new(), true).expect("it is sent");
    assert!(begun.rest().await.1.is_clean());
}
