//! Streams of HTTP/2: many at once, each by itself; what breaks off is never taken for whole, and ends are announced.

use std::time::Duration;

use cache_tests::answer::{Answer, Framing, pattern};
use cache_tests::client::{Client, Socket};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::h2::block::literal;
use cache_tests::h2::frame::{ACK, CANCEL, Frame, GOAWAY, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, NO_ERROR, PING};
use cache_tests::h2::raw::{Fate, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use tokio::task::JoinSet;

const FRESH: &str = "Cache-Control: max-age=60";
const NO_STORE: &str = "Cache-Control: no-store";

async fn site(text: &str) -> (Origin, Node) {
    let origin = Origin::start();
    let node = NodeOptions::configured(&origin, text).start().await;
    (origin, node)
}

#[tokio::test]
async fn a_hundred_streams_for_one_cold_object_are_one_request() {
    let (origin, node) = site("").await;
    let (gate, body) = (Gate::closed(), pattern(100_000, 1));
    origin.serve("/cold", Answer::ok(body.clone()).field(FRESH).after(&gate));
    let client = node.h2().await;
    let mut answers = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        answers.spawn(async move { client.get("/cold").await });
    }
    origin.arrived("/cold", 1).await;
    gate.open();
    while let Some(answer) = answers.join_next().await {
        let answer = answer.expect("a client does not panic");
        assert!(answer.status == 200 && answer.body == body && answer.end == End::Whole, "{:?}", answer.head);
    }
    assert_eq!(origin.count("/cold"), 1);
}

#[tokio::test]
async fn many_different_streams_all_get_their_own() {
    let (origin, node) = site("").await;
    let seed = |number: usize| pattern(1_000 + number * 300, number as u64);
    for number in 0..200 {
        let control = if number % 2 == 0 { FRESH } else { NO_STORE };
        origin.serve(&format!("/{number}"), Answer::ok(seed(number)).field(control));
    }
    let client = node.h2().await;
    for _ in 0..2 {
        let mut answers = JoinSet::new();
        for number in 0..200 {
            let client = client.clone();
            answers.spawn(async move { (number, client.get(&format!("/{number}")).await) });
        }
        while let Some(answer) = answers.join_next().await {
            let (number, answer) = answer.expect("a client does not panic");
            assert!(answer.body == seed(number) && answer.end == End::Whole, "{number}: {:?}", answer.head);
        }
    }
    let more: Vec<_> = (0..200)
        .map(|number| (number, origin.count(&format!("/{number}")), if number % 2 == 0 { 1 } else { 2 }))
        .filter(|(_, found, expected)| found != expected)
        .collect();
    assert!(more.is_empty(), "number, requests at the origin, and what they should be: {more:?}");
}

#[tokio::test]
async fn what_the_node_allows_is_what_its_configuration_says() {
    for (text, expected) in [("", 100), ("[limits]\nstreams_per_connection = 7\n", 7)] {
        let (origin, node) = site(text).await;
        origin.serve("/page", Answer::ok("page"));
        let mut raw = node.raw_h2(&[]).await;
        let stream = raw.ask(&get("/page", &[])).await;
        assert_eq!(raw.fate(stream).await.status(), Some(200));
        assert_eq!(raw.settings.get(&MAX_CONCURRENT_STREAMS), Some(&expected));
    }
}

#[tokio::test]
async fn one_stream_that_is_reset_leaves_the_others_alone() {
    let (origin, node) = site("").await;
    let gate = Gate::closed();
    for (target, control) in [("/stored", FRESH), ("/passed", NO_STORE)] {
        origin.serve(target, Answer::ok("first, ").hold(&gate).piece("last").field(control));
    }
    let mut table = Table::new("after a reset");
    for target in ["/stored", "/passed"] {
        let mut raw = node.raw_h2(&[]).await;
        let streams = [raw.ask(&get(target, &[])).await, raw.ask(&get(target, &[])).await];
        let [given_up, kept] = streams;
        raw.head(given_up).await.expect("a head");
        raw.send_frames(&[Frame::reset(given_up, CANCEL)]).await.expect("the node reads");
        // The answer to a ping shows that the node has seen the reset.
        raw.send_frames(&[Frame::ping(*b"anybody?")]).await.expect("the node reads");
        while !raw.frame_of(PING).await.expect("an answer").has(ACK) {}
        gate.open();
        let body = match raw.fate(kept).await {
            Fate::Answered(response) => Ok(response.text()),
            other => Err(other.told()),
        };
        table.row(target, same("the other stream", body, Ok("first, last".to_owned())));
        let stream = raw.ask(&get("/stored", &[])).await;
        table.row(target, same("a new stream", raw.fate(stream).await.status(), Some(200)));
    }
    table.finish();
}

#[tokio::test]
async fn a_stream_without_a_window_does_not_hold_up_the_others() {
    let (origin, node) = site("").await;
    for (target, control) in [("/stored", FRESH), ("/passed", NO_STORE)] {
        origin.serve(target, Answer::ok(pattern(3_000_000, 2)).field(control));
    }
    origin.serve("/small", Answer::ok("page").field(FRESH));
    let mut raw = node.raw_h2(&[(INITIAL_WINDOW_SIZE, 0)]).await.stingy();
    for target in ["/stored", "/passed"] {
        let stuck = raw.ask(&get(target, &[])).await;
        raw.head(stuck).await.expect("a head");
        let stream = raw.ask(&get("/small", &[])).await;
        raw.send_frames(&[Frame::window_update(stream, 100)]).await.expect("the node reads");
        assert_eq!(raw.fate(stream).await.status(), Some(200), "{target}");
        assert!(raw.answered(stuck).body.is_empty(), "{target}");
    }
    // The HTTP/1 client that waits for the same fill gets all of it.
    assert_eq!(node.tls_client().await.get("/stored").await.body.len(), 3_000_000);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_whole() {
    let (origin, node) = site("").await;
    let mut table = Table::new("broken answers over HTTP/2");
    for (name, framing) in [
        ("short length", Framing::ShortLength),
        ("short chunks", Framing::ShortChunks),
        ("malformed chunk", Framing::MalformedChunk),
        ("reset in length", Framing::ResetInLength),
        ("reset in chunks", Framing::ResetInChunks),
        ("reset in close", Framing::ResetInClose),
    ] {
        for (method, control) in [("GET", FRESH), ("GET", NO_STORE), ("POST", NO_STORE)] {
            let target = format!("/{}-{}", name.replace(' ', "-"), control.len());
            origin.serve(&target, Answer::ok(pattern(50_000, 3)).field(control).framed(framing));
            let mut raw = node.raw_h2(&[]).await;
            let stream = raw.ask(&request(method, &target, &[])).await;
            let row = format!("{name} {method} {control}");
            match raw.fate(stream).await {
                // A failure before the head has left is an answer of its own.
                Fate::Answered(response) => {
                    table.row(
                        &row,
                        that(matches!(response.status, 502 | 504), || format!("whole: {:?}", response.head)),
                    );
                }
                Fate::Reset(code) => table.row(&row, that(code != NO_ERROR, || "RST_STREAM(NO_ERROR)".to_owned())),
                other => table.row(&row, Err(other.told())),
            }
            // The connection itself is fine.
            origin.serve("/page", Answer::ok("page").field(FRESH));
            let stream = raw.ask(&get("/page", &[])).await;
            table.row(&row, same("the next stream", raw.fate(stream).await.status(), Some(200)));
            let again = node.h2().await.begin(method, &target, &[], None).await;
            let hit = again.is_ok_and(|again| again.head.cache_status().is_ok_and(|status| status.hit));
            table.row(&row, that(!hit, || "a hit for what broke off".to_owned()));
        }
    }
    table.finish();
}

#[tokio::test]
async fn no_origin_is_an_answer_over_http_2_too() {
    let (origin, node) = site("").await;
    origin.serve("/gone", Answer::hang_up());
    let client = node.h2().await;
    for method in ["GET", "HEAD", "POST"] {
        let body = (method == "POST").then(|| "body".into());
        let response = client.exchange(method, "/gone", &[], body).await;
        assert_eq!((response.status, response.end), (502, End::Whole), "{method}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let (origin, node) = site("[limits]\nidle_timeout = \"500ms\"\n").await;
    origin.serve("/page", Answer::ok("page"));
    let mut raw = node.raw_h2(&[]).await;
    let stream = raw.ask(&get("/page", &[])).await;
    assert_eq!(raw.fate(stream).await.status(), Some(200));
    let end = raw.closed().await;
    assert!(end.is_closed(), "{end:?}");
    assert!(matches!(raw.goaway, Some((NO_ERROR, _))), "{:?}", raw.goaway);
}

#[tokio::test]
async fn an_open_stream_is_not_idle() {
    let (origin, node) = site("[limits]\nidle_timeout = \"300ms\"\n").await;
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("held").field(NO_STORE).after(&gate));
    let mut raw = node.raw_h2(&[]).await;
    let stream = raw.ask(&get("/held", &[])).await;
    origin.arrived("/held", 1).await;
    let mut idle = node.tls_client().await;
    idle.get("/page").await;
    // A connection that does nothing is closed first, which shows that the time has passed.
    assert!(idle.closed().await.1.is_closed());
    gate.open();
    let fate = raw.fate(stream).await;
    assert_eq!(fate.status(), Some(200), "{fate:?}");
}

#[tokio::test]
async fn a_node_that_ends_lets_streams_finish() {
    let (origin, mut node) = site("").await;
    let gate = Gate::closed();
    for (target, control) in [("/stored", FRESH), ("/passed", NO_STORE)] {
        origin.serve(target, Answer::ok("first, ").hold(&gate).piece("last").field(control));
    }
    let mut raw = node.raw_h2(&[]).await;
    let streams = [raw.ask(&get("/stored", &[])).await, raw.ask(&get("/passed", &[])).await];
    let upload = raw.new_stream();
    origin.serve("/upload", Answer::ok("thank you").field(NO_STORE));
    let head = literal(&request("POST", "/upload", &["content-length: 4"]));
    raw.send_frames(&[Frame::headers(upload, head, false)]).await.expect("the node reads");
    for stream in streams {
        raw.head(stream).await.expect("a head");
    }
    node.terminate();
    raw.frame_of(GOAWAY).await.expect("GOAWAY");
    assert!(matches!(raw.goaway, Some((NO_ERROR, last)) if last >= upload), "{:?}", raw.goaway);
    until(PATIENCE, "new connections are refused", || async {
        match Client::connect_with(node.tls_address(), Socket::default()).await {
            Err(_) => Ok(()),
            Ok(mut client) => match client.closed().await {
                (_, end) if end.is_closed() => Ok(()),
                (_, end) => Err(format!("{end:?}")),
            },
        }
    })
    .await;
    raw.send_frames(&[Frame::data(upload, "body", true)]).await.expect("the node reads");
    gate.open();
    for stream in streams {
        let fate = raw.fate(stream).await;
        assert_eq!(fate.told(), "200 \"first, last\"", "{raw:?}");
    }
    let fate = raw.fate(upload).await;
    assert_eq!(fate.status(), Some(200), "{fate:?}");
    let end = raw.closed().await;
    assert!(end.is_closed(), "{end:?}");
    assert_eq!(node.end_within(PATIENCE).await.code(), Some(0), "{}", node.said());
}

#[tokio::test]
async fn a_node_that_ends_does_not_wait_for_ever() {
    let (origin, mut node) = site("[limits]\ndrain_timeout = \"500ms\"\n").await;
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("first, ").hold(&gate).piece("last"));
    let mut raw = node.raw_h2(&[]).await;
    let stream = raw.ask(&get("/held", &[])).await;
    raw.head(stream).await.expect("a head");
    node.terminate();
    assert_eq!(node.end_within(Duration::from_secs(5)).await.code(), Some(0), "{}", node.said());
    let fate = raw.fate(stream).await;
    assert_eq!(fate.status(), None, "a cut answer was whole: {fate:?}");
}

#[tokio::test]
async fn an_upload_in_many_small_pieces_is_no_flood() {
    let (origin, node) = site("").await;
    origin.serve("/upload", Answer::ok("thank you").field(NO_STORE));
    let body = pattern(20_000 * 50, 4);
    let client = node.h2().await;
    let mut sent = client.send("POST", "/upload", &[], false).await.expect("a stream");
    for (number, piece) in body.chunks(50).enumerate() {
        sent.send_body(body.slice_ref(piece), false).unwrap_or_else(|end| panic!("piece {number}: {end:?}"));
        tokio::task::yield_now().await;
    }
    sent.send_body("".into(), true).expect("the end");
    let begun = sent.begun().await.unwrap_or_else(|end| panic!("no answer: {end:?}"));
    assert_eq!(begun.head.status, 200);
    assert!(origin.requests_for("/upload")[0].body == body);
}
