//! An origin that does what a test says, on a raw socket, and remembers what it was asked.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::answer::{Answer, Framing, Part};
use crate::body::BodyFraming;
use crate::deadline::PATIENCE;
use crate::http_date;
use crate::recorded::Recorded;

type Handler = Arc<dyn Fn(&Recorded) -> Answer + Send + Sync>;

/// A running origin, with a thread of its own.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    seen: Mutex<Seen>,
    /// Goes up with every change of `seen`.
    changes: watch::Sender<u64>,
    /// How far the node's clock was moved; dates follow it.
    ahead_seconds: AtomicI64,
}

#[derive(Default)]
struct Seen {
    handlers: HashMap<String, Handler>,
    counts: HashMap<String, usize>,
    requests: Vec<Recorded>,
    heads: usize,
    connections: usize,
    deliveries: Vec<(String, Delivery)>,
}

/// How an answer left the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    /// The reader went away.
    Failed(io::ErrorKind),
}

impl Origin {
    pub fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One that listens there: an address on loopback, with a port of 0 for any.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a free port on loopback");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            changes: watch::Sender::new(0),
            ahead_seconds: AtomicI64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime for the origin").block_on(async move {
                    tokio::select! {
                        () = accept(listener, of_thread) => {}
                        _ = stopped => {}
                    }
                });
            })
            .expect("a thread for the origin");
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers every request for `target` (with or without a query) by `answer`.
    pub fn serve(&self, target: &str, answer: Answer) {
        self.serve_with(target, move |_| answer.clone());
    }

    /// Answers the first request by the first answer and so on; the last one goes on.
    ///
    /// # Panics
    /// With no answers.
    pub fn serve_in_turn(&self, target: &str, answers: Vec<Answer>) {
        assert!(!answers.is_empty(), "an origin needs something to answer");
        self.serve_with(target, move |request| answers[(request.number - 1).min(answers.len() - 1)].clone());
    }

    pub fn serve_with(&self, target: &str, handler: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) {
        self.seen().handlers.insert(target.to_owned(), Arc::new(handler));
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.seen().requests.clone()
    }

    pub fn requests_for(&self, target: &str) -> Vec<Recorded> {
        self.seen().requests.iter().filter(|request| request.target == target).cloned().collect()
    }

    pub fn count(&self, target: &str) -> usize {
        self.seen().counts.get(target).copied().unwrap_or(0)
    }

    /// Request heads of any kind, also those whose bodies never came.
    pub fn heads(&self) -> usize {
        self.seen().heads
    }

    pub fn connections(&self) -> usize {
        self.seen().connections
    }

    /// How the answers for `target` left, in order of their ends.
    pub fn deliveries(&self, target: &str) -> Vec<Delivery> {
        let seen = self.seen();
        seen.deliveries.iter().filter(|(path, _)| path == target).map(|(_, delivery)| delivery.clone()).collect()
    }

    /// Waits until `target` was asked for `count` times in all.
    pub async fn arrived(&self, target: &str, count: usize) {
        let what = || format!("{count} requests for {target} at the origin, {} arrived", self.count(target));
        self.changed_until(what, |seen| seen.counts.get(target).copied().unwrap_or(0) >= count).await;
    }

    /// Waits until `count` answers for `target` have left, well or not.
    pub async fn delivered(&self, target: &str, count: usize) -> Vec<Delivery> {
        let what = || format!("{count} answers for {target} leaving the origin, so far {:?}", self.deliveries(target));
        self.changed_until(what, |seen| seen.deliveries.iter().filter(|(path, _)| path == target).count() >= count)
            .await;
        self.deliveries(target)
    }

    /// Moves the dates the origin sends.
    pub fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).expect("a clock is moved by less than an age of the world");
        self.shared.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Closes everything: from now on connections are refused.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }

    async fn changed_until(&self, what: impl Fn() -> String, mut enough: impl FnMut(&Seen) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while !enough(&self.seen()) {
                changes.changed().await.expect("the origin lives as long as its handle");
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("waited {PATIENCE:?} in vain: {}", what());
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds the origin's memory")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let output = change(&mut self.seen());
        self.changes.send_modify(|changes| *changes += 1);
        output
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let connection = shared.change(|seen| {
            seen.connections += 1;
            seen.connections
        });
        let shared = Arc::clone(&shared);
        // Ends with its connection, at the latest with the origin's runtime.
        tokio::spawn(async move {
            // A failure is for the test to see at the other end.
            let _ = converse(stream, connection, &shared).await;
        });
    }
}

async fn converse(mut stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await? {
        shared.change(|seen| seen.heads += 1);
        let mut request = Recorded::parse(&head, connection);
        if request.field("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = read_body(&mut stream, &mut buffer, &request).await?;
        let (handler, request) = shared.change(|seen| {
            let count = seen.counts.entry(request.target.clone()).or_insert(0);
            *count += 1;
            request.number = *count;
            seen.requests.push(request.clone());
            let path = request.target.split('?').next().unwrap_or_default();
            let handler = seen.handlers.get(&request.target).or_else(|| seen.handlers.get(path)).cloned();
            (handler, request)
        });
        let answer = match handler {
            Some(handler) => handler(&request).chosen_for(&request),
            None => Answer::status(404).field("Cache-Control: no-store").piece("the origin has no such page"),
        };
        let outcome = deliver(&mut stream, &answer, &request, shared).await;
        let delivery = match &outcome {
            Ok(()) => Delivery::Whole,
            Err(error) => Delivery::Failed(error.kind()),
        };
        shared.change(|seen| seen.deliveries.push((request.target.clone(), delivery)));
        outcome?;
        let asked_to_close = request.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !matches!(answer.framing, Framing::Length | Framing::Chunked) || asked_to_close {
            if matches!(answer.framing, Framing::ResetInLength | Framing::ResetInChunks | Framing::ResetInClose) {
                stream.set_zero_linger()?;
            }
            break;
        }
    }
    Ok(())
}

async fn deliver(stream: &mut TcpStream, answer: &Answer, request: &Recorded, shared: &Shared) -> io::Result<()> {
    if let Some(gate) = &answer.held {
        gate.passed().await;
    }
    match answer.framing {
        Framing::HangUp => return Ok(()),
        Framing::Silent => return std::future::pending().await,
        _ => {}
    }
    let now = http_date::unix_seconds() + shared.ahead_seconds.load(Ordering::Relaxed);
    for part in answer.render(request, now) {
        match part {
            Part::Bytes(bytes) => stream.write_all(&bytes).await?,
            Part::Hold(gate) => gate.passed().await,
        }
    }
    stream.flush().await
}

/// The next head with its empty line; none at the end of the connection.
pub(crate) async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(buffer.split_to(end + 4).freeze()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_body(stream: &mut TcpStream, buffer: &mut BytesMut, request: &Recorded) -> io::Result<Bytes> {
    let mut framing = BodyFraming::of_request(&request.fields);
    let mut body = BytesMut::new();
    loop {
        match framing.decode(buffer) {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) if framing.is_done() => return Ok(body.freeze()),
            Ok(None) => {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(problem) => return Err(io::Error::other(problem)),
        }
    }
}

/// The URL of an origin that refuses every connection.
pub fn nobody_listens() -> String {
    // Port 1 (tcpmux) is below the ports anyone is given by chance.
    "http://127.0.0.1:1".to_owned()
}
