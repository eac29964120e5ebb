//! Many small requests, as cheaply as can be: an origin that hardly reads, and a driver that pipelines.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::HOST;

/// Requests in flight on one connection. With [`CONNECTIONS`] 128 in all: enough to keep two workers busy, few
/// enough that their buffers do not show in a measure of memory.
const DEPTH: u64 = 16;
const CONNECTIONS: u64 = 8;

/// How long the node may take for one batch of [`DEPTH`].
const BATCH: Duration = Duration::from_secs(10);

/// An origin with one answer for everything. Ends with the test's runtime.
#[derive(Debug)]
pub struct CheapOrigin {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl CheapOrigin {
    /// Answers every request with `length` bytes, fresh for an hour.
    pub async fn start(length: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {length}\r\n\r\n");
        let answer = Bytes::from([head.as_bytes(), &vec![b'x'; length]].concat());
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, answer.clone(), Arc::clone(&counter)));
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

async fn answer_all(mut stream: TcpStream, answer: Bytes, counter: Arc<AtomicU64>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1_024);
    loop {
        while let Some(end) = head_end(&buffer) {
            buffer.advance(end);
            counter.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&answer).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Asks the node for `/object/N` for every N in `range`, and reads every answer.
///
/// # Panics
/// When an answer is not 200 with `length` bytes.
pub async fn ask_for_all(node: SocketAddr, range: std::ops::Range<u64>, length: usize) {
    let share = (range.end - range.start).div_ceil(CONNECTIONS);
    let mut workers = JoinSet::new();
    for worker in 0..CONNECTIONS {
        let start = (range.start + worker * share).min(range.end);
        workers.spawn(ask_for(node, start..(start + share).min(range.end), length));
    }
    while let Some(outcome) = workers.join_next().await {
        outcome.expect("a driver does not panic").unwrap_or_else(|problem| panic!("{problem}"));
    }
}

async fn ask_for(node: SocketAddr, range: std::ops::Range<u64>, length: usize) -> Result<(), String> {
    let broken = |error: io::Error| format!("the node broke off: {error}");
    let mut stream = TcpStream::connect(node).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    let (mut buffer, mut next) = (BytesMut::with_capacity(64 * 1_024), range.start);
    while next < range.end {
        let last = (next + DEPTH).min(range.end);
        let batch: String =
            (next..last).map(|number| format!("GET /object/{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).collect();
        let exchange = async {
            stream.write_all(batch.as_bytes()).await.map_err(broken)?;
            for number in next..last {
                read_answer(&mut stream, &mut buffer, length)
                    .await
                    .map_err(|error| format!("object {number}: {error}"))?;
            }
            Ok::<(), String>(())
        };
        tokio::time::timeout(BATCH, exchange)
            .await
            .map_err(|_| format!("no answer within {BATCH:?} from {next}"))??;
        next = last;
    }
    Ok(())
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut BytesMut, length: usize) -> Result<(), String> {
    loop {
        if let Some(end) = head_end(buffer)
            && buffer.len() >= end + length
        {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") || !head.contains(&format!("content-length: {length}\r\n")) {
                return Err(head);
            }
            buffer.advance(end + length);
            return Ok(());
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err(format!("the end instead of an answer: {}", buffer.escape_ascii())),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}
