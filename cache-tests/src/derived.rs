//! Bodies that follow from their URLs: whoever reads one knows every byte of it, so that none is wrong unnoticed. With an
//! origin that has them all, and a load that asks for many of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::answer::pattern;
use crate::client::{Client, Socket};
use crate::deadline::until;
use crate::response::{End, Head};

/// What all bodies are cut from. A prime (2^24 - 3): no two chunks of a body are alike, nor two bodies anywhere.
const POOL: u64 = 16_777_213;
/// Where bodies of neighbouring numbers begin.
const STRIDE: u64 = 9_999_991;
/// Objects of one tag, see [`Derived::tag`].
const TAGS: u64 = 20;
/// Connections of a [`Load`].
const CONNECTIONS: usize = 4;

/// An object of [`DerivedOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Derived {
    pub number: u64,
    /// Of the body.
    pub length: u64,
}

impl Derived {
    pub fn target(&self) -> String {
        format!("/derived/{}/{}", self.number, self.length)
    }

    fn of_target(target: &str) -> Option<Self> {
        let (number, length) = target.strip_prefix("/derived/")?.split_once('/')?;
        Some(Self { number: number.parse().ok()?, length: length.parse().ok()? })
    }

    /// The surrogate key of this object and one in twenty others; all have `all`.
    pub fn tag(&self) -> String {
        format!("tag-{}", self.number % TAGS)
    }

    /// Some of the body from `offset` on; nothing at its end.
    pub fn bytes_at(&self, offset: u64) -> &'static [u8] {
        static BYTES: OnceLock<Bytes> = OnceLock::new();
        let pool = BYTES.get_or_init(|| pattern(POOL as usize, 1));
        let from = (self.number.wrapping_mul(STRIDE) % POOL + offset) % POOL;
        let to = (from + self.length.saturating_sub(offset)).min(POOL);
        &pool[from as usize..to as usize]
    }

    /// The whole body, in pieces.
    pub fn pieces(&self) -> Vec<Bytes> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < self.length {
            let piece = Bytes::from_static(self.bytes_at(at));
            at += piece.len() as u64;
            pieces.push(piece);
        }
        pieces
    }

    /// # Errors
    /// The first place where `found` is not what stands from `offset` on.
    pub fn check(&self, offset: u64, found: &[u8]) -> Result<(), String> {
        let (mut at, mut left) = (offset, found);
        while !left.is_empty() {
            let expected = self.bytes_at(at);
            let count = expected.len().min(left.len());
            if count == 0 {
                return Err(format!("{}: {} bytes too many", self.target(), left.len()));
            }
            if left[..count] != expected[..count] {
                let wrong = left.iter().zip(expected).position(|(found, expected)| found != expected).unwrap_or(0);
                return Err(format!("{}: wrong from byte {} on", self.target(), at + wrong as u64));
            }
            at += count as u64;
            left = &left[count..];
        }
        Ok(())
    }

    /// Asks for it, and looks at every byte of the answer.
    pub async fn read(&self, client: &mut Client) -> Answered {
        self.ask(client, None).await
    }

    /// The same for a part of it.
    pub async fn read_part(&self, client: &mut Client, part: Range<u64>) -> Answered {
        self.ask(client, Some(part)).await
    }

    async fn ask(&self, client: &mut Client, part: Option<Range<u64>>) -> Answered {
        let started = Instant::now();
        let (outcome, first_byte) = match self.outcome(client, part, started).await {
            Ok((hit, first_byte)) => (if hit { Outcome::Hit } else { Outcome::Miss }, first_byte),
            Err(outcome) => (outcome, started.elapsed()),
        };
        Answered { of: *self, outcome, first_byte, ended: Instant::now() }
    }

    async fn outcome(
        &self,
        client: &mut Client,
        part: Option<Range<u64>>,
        started: Instant,
    ) -> Result<(bool, Duration), Outcome> {
        let field = part.as_ref().map(|part| format!("Range: bytes={}-{}", part.start, part.end - 1));
        let fields: Vec<&str> = field.iter().map(String::as_str).collect();
        let request = crate::client::request("GET", &self.target(), &fields);
        client.send(request).await.map_err(|_| Outcome::Broken(End::Reset))?;
        let head = client.begin("GET").await.map_err(Outcome::Broken)?;
        let first_byte = started.elapsed();
        let part = self.said(&head, part).map_err(Outcome::Wrong)?;
        let mut at = part.start;
        loop {
            match client.some_body().await {
                Ok(bytes) => {
                    self.check(at, &bytes).map_err(Outcome::Wrong)?;
                    at += bytes.len() as u64;
                }
                Err(end) if !end.is_clean() => return Err(Outcome::Broken(end)),
                Err(_) if at == part.end => break,
                Err(_) => {
                    let (target, found, expected) = (self.target(), at - part.start, part.end - part.start);
                    return Err(Outcome::Wrong(format!("{target}: {found} bytes, not {expected}")));
                }
            }
        }
        let status = head.cache_status().map_err(Outcome::Wrong)?;
        Ok((status.hit, first_byte))
    }

    /// Which part of the body follows a head: what was asked for, or all of it.
    fn said(&self, head: &Head, part: Option<Range<u64>>) -> Result<Range<u64>, String> {
        match (head.status, part) {
            (200, _) => Ok(0..self.length),
            (206, Some(part)) => {
                let range = format!("bytes {}-{}/{}", part.start, part.end - 1, self.length);
                match head.field("content-range") {
                    Some(said) if said == range => Ok(part),
                    said => Err(format!("{}: Content-Range {said:?}, not {range}", self.target())),
                }
            }
            (status, _) => Err(format!("{}: status {status}", self.target())),
        }
    }
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Answered {
    pub of: Derived,
    pub outcome: Outcome,
    /// Until the head was there.
    pub first_byte: Duration,
    pub ended: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All right, and from the store.
    Hit,
    /// All right, and the origin was asked.
    Miss,
    /// Something else than what was asked for, as if it were that.
    Wrong(String),
    /// It broke off, and said so.
    Broken(End),
}

/// What became of many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub hits: u64,
    pub misses: u64,
    pub hit_bytes: u64,
    pub bytes: u64,
    pub missed: Vec<Derived>,
    pub wrong: Vec<String>,
    pub broken: Vec<(Derived, End)>,
    pub first_byte_max: Duration,
}

impl Tally {
    pub fn of<'a>(answered: impl IntoIterator<Item = &'a Answered>) -> Self {
        let mut tally = Self::default();
        for Answered { of, outcome, first_byte, .. } in answered {
            tally.bytes += of.length;
            tally.first_byte_max = tally.first_byte_max.max(*first_byte);
            match outcome {
                Outcome::Hit => {
                    tally.hits += 1;
                    tally.hit_bytes += of.length;
                }
                Outcome::Miss => {
                    tally.misses += 1;
                    tally.missed.push(*of);
                }
                Outcome::Wrong(what) => tally.wrong.push(what.clone()),
                Outcome::Broken(end) => tally.broken.push((*of, end.clone())),
            }
        }
        tally
    }

    /// Every answer was right, and came whole.
    ///
    /// # Panics
    /// When one was not.
    pub fn assert_right(&self, when: &str) {
        let (wrong, broken) = (self.wrong.len(), self.broken.len());
        let first = (self.wrong.first(), self.broken.first());
        assert!(wrong + broken == 0, "{when}: {wrong} wrong, {broken} broken off, the first: {first:?}");
    }

    /// Of those that were answered, how many were hits.
    pub fn hit_share(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// An origin with every [`Derived`] there is, fresh for a day. Ends with the test's runtime.
#[derive(Debug)]
pub struct DerivedOrigin {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl DerivedOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, Arc::clone(&counter)));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn answer_all(mut stream: TcpStream, counter: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1_024);
    loop {
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.advance(end + 4);
            counter.fetch_add(1, Ordering::Relaxed);
            let Some(object) = head.split(' ').nth(1).and_then(Derived::of_target) else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
                continue;
            };
            let etag = format!("\"{}-{}\"", object.number, object.length);
            let status = if head.contains(&etag) { "304 Not Modified" } else { "200 OK" };
            let fields = format!("Cache-Control: max-age=86400\r\nETag: {etag}\r\nSurrogate-Key: all {}", object.tag());
            let length = object.length;
            let head = format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            if status.starts_with("200") {
                for piece in object.pieces() {
                    stream.write_all(&piece).await?;
                }
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Requests under way, on connections that are made again when they break, as long as the node accepts them.
#[derive(Debug)]
pub struct Load {
    tasks: JoinSet<()>,
    answered: Arc<Mutex<Vec<Answered>>>,
}

impl Load {
    /// Asks for each of `wanted`, in this order, on a few connections.
    pub fn start(node: SocketAddr, wanted: Vec<Derived>) -> Self {
        let answered = Arc::<Mutex<Vec<Answered>>>::default();
        let wanted = Arc::new(Mutex::new(wanted.into_iter()));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (wanted, answered) = (Arc::clone(&wanted), Arc::clone(&answered));
            tasks.spawn(async move {
                let next = || wanted.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Ok(mut client) = Client::connect_with(node, Socket::default()).await {
                    let mut is_open = true;
                    while is_open {
                        let Some(object) = next() else { return };
                        let answer = object.read(&mut client).await;
                        is_open = matches!(answer.outcome, Outcome::Hit | Outcome::Miss);
                        answered.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    }
                }
            });
        }
        Self { tasks, answered }
    }

    /// Answers that have come so far.
    pub fn count(&self) -> usize {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many answers have come.
    pub async fn reached(&self, count: usize, limit: Duration) {
        until(limit, &format!("{count} answers"), || async {
            let now = self.count();
            if now >= count { Ok(()) } else { Err(format!("{now} came")) }
        })
        .await;
    }

    /// Waits for the last answer, and gives them all.
    ///
    /// # Panics
    /// When a task does.
    pub async fn finish(mut self) -> Vec<Answered> {
        while let Some(outcome) = self.tasks.join_next().await {
            outcome.expect("a load does not panic");
        }
        std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks for all of them, and gives the answers.
pub async fn ask_for_all(node: SocketAddr, wanted: Vec<Derived>) -> Vec<Answered> {
    Load::start(node, wanted).finish().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_or_length_is_noticed() {
        let object = Derived { number: 7, length: POOL + 1_000 };
        assert_eq!(Derived::of_target(&object.target()), Some(object));
        let mut body: Vec<u8> = object.pieces().concat();
        assert_eq!(body.len() as u64, object.length);
        assert_eq!(object.check(0, &body), Ok(()));
        assert_eq!(object.check(4_096, &body[4_096..]), Ok(()));
        assert!(object.check(1, &body[..500]).is_err(), "elsewhere");
        assert!(Derived { number: 8, ..object }.check(0, &body).is_err(), "another object");
        body[POOL as usize + 3] ^= 4;
        assert_eq!(object.check(0, &body), Err(format!("{}: wrong from byte {} on", object.target(), POOL + 3)));
        body[POOL as usize + 3] ^= 4;
        body.push(0);
        assert!(object.check(0, &body).is_err(), "too long");
    }
}
