//! Random frames and spoilt conversations: whatever comes, the node lives, serves others and invents no request.

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::h2::block::{indexed, kept, literal};
use cache_tests::h2::frame::{Frame, PREFACE, wire};
use cache_tests::h2::raw::{Raw, get, request};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::tls::{H2, Tls};

/// Connections of each test. Each has a seed of its own, so that a failure can be had again.
const CONNECTIONS: u64 = 400;

/// Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn number(&mut self) -> u32 {
        let interesting = [0, 1, 2, 3, 5, 255, 16_384, 65_535, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
        match usize::try_from(self.below(20)).ok().and_then(|at| interesting.get(at).copied()) {
            Some(number) => number,
            None => self.next() as u32,
        }
    }
}

async fn site() -> (Origin, Node) {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=600"));
    origin.serve("/asked", Answer::ok("asked").field("Cache-Control: no-store"));
    let text = "[limits]\nhead_timeout = \"1s\"\nidle_timeout = \"1s\"\nwrite_timeout = \"1s\"\n";
    let node = NodeOptions::configured(&origin, text).start().await;
    assert_eq!(node.h2().await.get("/page").await.status, 200);
    (origin, node)
}

/// A frame that may or may not make sense.
fn frame(random: &mut Random) -> Vec<u8> {
    let stream = u32::try_from(random.below(8)).unwrap_or(0);
    match random.below(12) {
        0 => Frame::headers(stream, literal(&get("/asked", &[])), random.below(2) == 0).encode(),
        1 => Frame::headers(stream, literal(&request("POST", "/asked", &[])), false).encode(),
        2 => {
            let length = random.below(300);
            Frame::data(stream, random.bytes(length), random.below(3) == 0).encode()
        }
        3 => Frame::reset(stream, random.number()).encode(),
        4 => Frame::settings(&[(random.byte().into(), random.number()), (4, random.number())]).encode(),
        5 => Frame::window_update(stream, random.number()).encode(),
        6 => Frame::priority(stream, random.number()).encode(),
        7 => Frame::headers(stream, [kept(b"x", b"y"), indexed(random.below(80))].concat(), true).encode(),
        8 => Frame::ping([random.byte(); 8]).encode(),
        9 => {
            let length = random.below(40);
            Frame::new(random.byte() % 12, random.byte(), stream, random.bytes(length)).encode()
        }
        10 => Frame::data(stream, "x", false).encode_as_if(random.number() & 0xff_ffff),
        _ => {
            let length = random.below(200);
            Frame::headers(stream, random.bytes(length), true).encode()
        }
    }
}

#[tokio::test]
async fn random_frames_are_survived() {
    let (origin, mut node) = site().await;
    for seed in 0..CONNECTIONS {
        let mut random = Random::seeded(seed);
        let mut raw = node.raw_h2(&[]).await;
        for _ in 0..1 + random.below(30) {
            if raw.send(frame(&mut random)).await.is_err() || raw.drain().await.is_err() {
                break;
            }
        }
        drop(raw);
        good(&mut node, seed).await;
    }
    // Whatever came of them, no request was made up.
    let known = |target: &str| target == "/asked" || target == "/page";
    let others: Vec<String> =
        origin.requests().into_iter().map(|seen| seen.target).filter(|target| !known(target)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn conversations_with_a_few_wrong_bytes_are_survived() {
    let (_origin, mut node) = site().await;
    let frames = [
        Frame::settings(&[(4, 100_000)]),
        Frame::headers(1, literal(&get("/page", &["accept: */*", "cookie: a=b"])), true),
        Frame::headers(3, literal(&request("POST", "/asked", &["content-length: 4"])), false),
        Frame::data(3, "body", true),
        Frame::window_update(0, 1_000),
        Frame::ping([1; 8]),
    ];
    let well = [PREFACE, &wire(&frames)].concat();
    for seed in 0..CONNECTIONS {
        let mut random = Random::seeded(seed);
        let mut bytes = well.clone();
        for _ in 0..1 + random.below(4) {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap_or(0);
            match random.below(3) {
                0 => bytes[at] = random.byte(),
                1 => bytes.insert(at, random.byte()),
                _ => drop(bytes.remove(at)),
            }
        }
        let stream = Tls::offering(&[H2]).connect(node.tls_address()).await.expect("a handshake");
        let mut raw = Raw::silent(stream);
        let _ = raw.send(&bytes).await;
        let _ = raw.drain().await;
        drop(raw);
        good(&mut node, seed).await;
    }
}

#[tokio::test]
async fn client_hellos_with_a_few_wrong_bytes_are_survived() {
    let (_origin, mut node) = site().await;
    let hello = client_hello().await;
    for seed in 0..CONNECTIONS {
        let mut random = Random::seeded(seed);
        let mut bytes = hello.clone();
        for _ in 0..1 + random.below(6) {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap_or(0);
            bytes[at] = random.byte();
        }
        bytes.truncate(bytes.len() - usize::try_from(random.below(50)).unwrap_or(0));
        let mut client = Client::connect(node.tls_address()).await;
        let _ = client.send(&bytes).await;
        drop(client);
        good(&mut node, seed).await;
    }
}

/// What a good client begins with, caught by a listener that never answers.
async fn client_hello() -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
    let address = listener.local_addr().expect("a listener has an address");
    let caught = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut hello = vec![0; 4_096];
        stream.readable().await.expect("a ClientHello");
        let length = stream.try_read(&mut hello).expect("a ClientHello");
        hello.truncate(length);
        hello
    };
    let tls = Tls::offering(&[H2]);
    let (hello, _) = tokio::join!(caught, tls.connect(address));
    hello
}

async fn good(node: &mut Node, seed: u64) {
    node.assert_alive();
    let response = node.get("/page").await;
    assert_eq!(response.status, 200, "after seed {seed}");
    if seed.is_multiple_of(20) {
        assert!(node.h2().await.get("/page").await.is_hit(), "after seed {seed}");
    }
}
