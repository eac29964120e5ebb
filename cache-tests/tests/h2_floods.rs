//! Floods over HTTP/2: whoever sends them is bounded, and nobody else notices.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_tests::answer::{Answer, pattern};
use cache_tests::h2::block::{FIRST_DYNAMIC, indexed, kept, literal};
use cache_tests::h2::frame::{
    ACK, CANCEL, DATA, END_STREAM, Frame, HEADERS, INITIAL_WINDOW_SIZE, PING, SETTINGS, continuation,
};
use cache_tests::h2::raw::{Raw, get, request};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, that};
use cache_tests::tls::{H2, Tls};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

const MIB: u64 = 1_024 * 1_024;

/// What one flood may cost the node.
const MEMORY: u64 = 64 * MIB;
/// To the origin: what the streams of one connection may have open, those that were given up a moment ago, and the good
/// client's.
const CONNECTIONS: usize = 250;
/// What a good client must never see.
const SLOWEST_ANSWER: Duration = Duration::from_secs(1);
/// A flood that is neither ended nor slowed down goes on for so long, and no longer.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a node may not read before a flood counts as slowed down.
const SLOWED: Duration = Duration::from_secs(1);

/// The bytes of one round.
type Round = Box<dyn FnMut(&mut Raw, u32) -> Vec<u8> + Send>;

/// One flood: what it opens with, and what it then sends, round by round.
struct Flood {
    name: &'static str,
    settings: &'static [(u16, u32)],
    /// Whether it reads what the node says.
    reads: bool,
    rounds: u32,
    round: Round,
}

fn flood(name: &'static str, rounds: u32, round: impl FnMut(&mut Raw, u32) -> Vec<u8> + Send + 'static) -> Flood {
    Flood { name, settings: &[], reads: true, rounds, round: Box::new(round) }
}

impl Flood {
    fn without_reading(mut self) -> Self {
        self.reads = false;
        self
    }

    fn with_settings(mut self, settings: &'static [(u16, u32)]) -> Self {
        self.settings = settings;
        self
    }

    /// Floods the node, and tells how it went: whether it was ended, slowed down or simply taken.
    async fn run(mut self, node: &Node) -> String {
        let mut raw = node.raw_h2(self.settings).await.patient(SLOWED);
        let began = Instant::now();
        for round in 0..self.rounds {
            if began.elapsed() > LONGEST {
                return format!("all taken, {round} rounds");
            }
            let bytes = (self.round)(&mut raw, round);
            match raw.send(bytes).await {
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return format!("slowed down in round {round}");
                }
                Err(_) => return format!("ended in round {round}"),
                Ok(()) if self.reads && raw.drain().await.is_err() => {
                    return format!("ended in round {round}: GOAWAY {:?}", raw.goaway);
                }
                Ok(()) => {}
            }
        }
        format!("all taken, {} rounds", self.rounds)
    }
}

/// Resets of every kind: requests that are given up at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets() {
    let head = |stream: u32, path: &str| Frame::headers(stream, literal(&get(path, &[])), true);
    let reset = move |path: &'static str| {
        move |raw: &mut Raw, _: u32| {
            let streams: Vec<u32> = (0..100).map(|_| raw.new_stream()).collect();
            let pair = |stream: &u32| [head(*stream, path).encode(), Frame::reset(*stream, CANCEL).encode()].concat();
            streams.iter().flat_map(pair).collect::<Vec<u8>>()
        }
    };
    // RST_STREAM comes from the node instead: CVE-2025-8671.
    let provoked = move |wrong: fn(u32) -> Frame| {
        move |raw: &mut Raw, _: u32| {
            let streams: Vec<u32> = (0..100).map(|_| raw.new_stream()).collect();
            let pair = |stream: &u32| [head(*stream, "/passed").encode(), wrong(*stream).encode()].concat();
            streams.iter().flat_map(pair).collect::<Vec<u8>>()
        }
    };
    overrun(vec![
        flood("HEADERS and RST_STREAM, stored", 100, reset("/page")),
        flood("HEADERS and RST_STREAM, passed", 100, reset("/passed")),
        flood("HEADERS and RST_STREAM, never answered", 100, reset("/silent")),
        flood("HEADERS and RST_STREAM, unread", 100, reset("/passed")).without_reading(),
        flood("WINDOW_UPDATE of nothing", 100, provoked(|stream| Frame::window_update(stream, 0))),
        flood("WINDOW_UPDATE too large", 100, provoked(|stream| Frame::window_update(stream, 0x7fff_ffff))),
        flood("DATA after the end", 100, provoked(|stream| Frame::data(stream, "x", true))),
        flood("HEADERS after the end", 100, provoked(|stream| Frame::headers(stream, literal(&[]), true))),
        flood("malformed requests", 100, |raw, _| {
            let mut fields = get("/passed", &[]);
            fields.push((b"X-Upper".to_vec(), b"x".to_vec()));
            let block = literal(&fields);
            (0..100).flat_map(|_| Frame::headers(raw.new_stream(), block.clone(), true).encode()).collect()
        }),
    ])
    .await;
}

/// Frames that ask for nothing, or for an acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_about_nothing() {
    let many = |frame: Frame| frame.encode().repeat(1_000);
    let always = move |frame: Frame| {
        let bytes = many(frame);
        move |_: &mut Raw, _: u32| bytes.clone()
    };
    let ping = Frame::ping([7; 8]);
    let settings = Frame::settings(&[(INITIAL_WINDOW_SIZE, 65_535)]);
    let open = |raw: &mut Raw| Frame::headers(raw.new_stream(), literal(&request("POST", "/passed", &[])), false);
    overrun(vec![
        flood("PING", 200, always(ping.clone())),
        flood("PING, unread", 2_000, always(ping)).without_reading(),
        flood("SETTINGS", 200, always(settings.clone())),
        flood("SETTINGS, unread", 2_000, always(settings)).without_reading(),
        flood("SETTINGS with nothing in them", 200, always(Frame::settings(&[]))),
        flood("acknowledgements of nothing", 200, always(Frame::new(PING, ACK, 0, vec![0; 8]))),
        flood("SETTINGS acknowledged too often", 200, always(Frame::new(SETTINGS, ACK, 0, Bytes::new()))),
        flood("PRIORITY", 200, |_, round| {
            (0..1_000).flat_map(|at| Frame::priority(1 + 2 * (round * 1_000 + at), 0).encode()).collect()
        }),
        flood("WINDOW_UPDATE of one", 200, always(Frame::window_update(0, 1))),
        flood("frames nobody knows", 200, always(Frame::new(0x42, 0, 0, vec![0; 100]))),
        flood("empty DATA", 200, move |raw, round| {
            let first = if round == 0 { open(raw).encode() } else { Vec::new() };
            [first, Frame::new(DATA, 0, 1, Bytes::new()).encode().repeat(1_000)].concat()
        }),
        flood("DATA of one byte", 200, move |raw, round| {
            let first = if round == 0 { open(raw).encode() } else { Vec::new() };
            [first, Frame::data(1, "x", false).encode().repeat(1_000)].concat()
        }),
    ])
    .await;
}

/// Heads that never end, or that are many times what they seem.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end() {
    let begin = |raw: &mut Raw| Frame::new(HEADERS, END_STREAM, raw.new_stream(), literal(&get("/passed", &[])));
    let endless = move |part: Vec<u8>| {
        move |raw: &mut Raw, round: u32| {
            let first = if round == 0 { begin(raw).encode() } else { Vec::new() };
            [first, continuation(1, &part).encode().repeat(100)].concat()
        }
    };
    let field = |value: &[u8]| literal(&[(b"x-more".to_vec(), value.to_vec())]);
    overrun(vec![
        flood("CONTINUATION", 100, endless(field(&vec![b'x'; 10_000]))),
        flood("CONTINUATION of small fields", 1_000, endless(field(b""))),
        flood("CONTINUATION of nothing", 1_000, endless(Vec::new())),
        flood("CONTINUATION of one string", 100, endless(vec![b'x'; 16_000])),
        flood("CONTINUATION that fills the table", 100, endless(kept(b"x", &[b'x'; 4_000]).repeat(4))),
        flood("bombs", 200, |raw, _| {
            let head = literal(&get("/passed", &[]));
            let bomb = [head, kept(b"x-bomb", &[b'b'; 4_000]), indexed(FIRST_DYNAMIC).repeat(10_000)].concat();
            Frame::headers(raw.new_stream(), bomb, true).encode()
        }),
    ])
    .await;
}

/// Streams that stay open, and answers nobody takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stay() {
    let ask = |path: &'static str, count: u32| {
        move |raw: &mut Raw, _: u32| {
            let block = literal(&get(path, &[]));
            (0..count).flat_map(|_| Frame::headers(raw.new_stream(), block.clone(), true).encode()).collect::<Vec<u8>>()
        }
    };
    overrun(vec![
        flood("requests without answers", 50, ask("/silent", 100)),
        flood("stored answers without a window", 50, ask("/large", 100)).with_settings(&[(INITIAL_WINDOW_SIZE, 0)]),
        flood("passed answers without a window", 20, ask("/large-passed", 20))
            .with_settings(&[(INITIAL_WINDOW_SIZE, 0)]),
        flood("answers nobody reads", 2_000, ask("/page", 100)).without_reading(),
        flood("large answers nobody reads", 50, ask("/large", 20)).without_reading(),
        flood("errors nobody reads", 2_000, ask("/gone", 10)).without_reading(),
        flood("uploads that do not go on", 50, |raw, _| {
            let block = literal(&request("POST", "/passed", &["content-length: 1000000"]));
            let open = |stream: u32| [Frame::headers(stream, block.clone(), false), Frame::data(stream, "x", false)];
            (0..100).flat_map(|_| open(raw.new_stream())).flat_map(|frame| frame.encode()).collect()
        }),
    ])
    .await;
}

/// Runs each flood against a node of its own, with a good client beside it.
async fn overrun(floods: Vec<Flood>) {
    let mut table = Table::new("floods");
    // Nothing else uses the machine: answers are timed.
    let machine = Machine::alone();
    for flood in floods {
        let origin = Origin::start();
        origin.serve("/page", Answer::ok(pattern(1_000, 1)).field("Cache-Control: max-age=600"));
        origin.serve("/passed", Answer::ok("passed").field("Cache-Control: no-store"));
        origin.serve("/silent", Answer::silent());
        origin.serve("/gone", Answer::hang_up());
        let large = pattern(4_000_000, 2);
        origin.serve("/large", Answer::ok(large.clone()).field("Cache-Control: max-age=600"));
        origin.serve("/large-passed", Answer::ok(large).field("Cache-Control: no-store"));
        let node = NodeOptions::configured(&origin, "").within(&machine).start().await;
        node.get("/page").await;
        node.h2().await.get("/page").await;
        node.h2().await.get("/large").await;
        let before = node.rss_bytes();
        let good = GoodClient::start(&node);
        let name = flood.name;
        let course = flood.run(&node).await;
        let judged = good.stop().await;
        let asked = origin.connections();
        let row = format!("{name} [{course}; {asked} connections to the origin]");
        eprintln!("{row}");
        table.row(&row, judged);
        let grown = node.peak_rss_bytes().saturating_sub(before);
        table.row(&row, that(grown <= MEMORY, || format!("memory grew by {} MiB", grown / MIB)));
        table.row(&row, that(asked <= CONNECTIONS, || "too much for the origin".to_owned()));
        let page = node.h2().await.get("/page").await;
        table.row(&row, that(page.is_hit(), || format!("afterwards: {:?}", page.head)));
    }
    table.finish();
}

/// Asks 50 times a second, over connections that stay and new ones, HTTP/2 and HTTP/1.
struct GoodClient {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), String>>,
}

impl GoodClient {
    fn start(node: &Node) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (https, http) = (node.tls_address(), node.address());
        let task = tokio::spawn(async move {
            let tls = Tls::offering(&[H2]);
            let open = async || {
                let stream = tls.connect(https).await.map_err(|error| format!("no handshake: {error}"))?;
                cache_tests::h2::polite::Polite::open(stream).await.map_err(|error| format!("no HTTP/2: {error}"))
            };
            let kept = open().await?;
            let mut old = cache_tests::client::Client::connect(http).await;
            let (mut beat, mut slowest, mut rounds) = (interval(Duration::from_millis(20)), Duration::ZERO, 0_u32);
            // At least some, however short the flood was.
            while !*stopped.borrow() || rounds < 10 {
                beat.tick().await;
                let began = Instant::now();
                let response = match rounds % 4 {
                    0 => kept.get("/page").await,
                    1 => open().await?.get("/page").await,
                    2 => kept.get("/passed").await,
                    _ => old.get("/page").await,
                };
                let took = began.elapsed();
                if response.status != 200 || !response.end.is_clean() {
                    return Err(format!("round {rounds} after {took:?}: {} {:?}", response.status, response.end));
                }
                slowest = slowest.max(took);
                rounds += 1;
            }
            that(slowest <= SLOWEST_ANSWER, || format!("the slowest of {rounds} answers took {slowest:?}"))
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<(), String> {
        self.stop.send_replace(true);
        self.task.await.unwrap_or_else(|error| Err(format!("a good client gave up: {error}")))
    }
}
