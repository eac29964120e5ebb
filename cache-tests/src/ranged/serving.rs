//! An origin with all objects of a [`Content`], fast enough that a node waits for nothing but the network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reply::Reply;
use super::{Asked, Behaviour, Content, Hold, Ranged};
use crate::derived::Derived;
use crate::http_date;
use crate::origin::read_head;
use crate::recorded::Recorded;

/// Bytes handed to a socket at once, and where the rate is limited.
const PIECE: u64 = 1 << 20;
const SLOW_PIECE: u64 = 16 << 10;

/// A running origin with threads of its own.
#[derive(Debug)]
pub struct RangedOrigin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RangedOrigin {
    /// # Panics
    /// When there is no port or no thread for it.
    pub fn start(content: &Content) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = oneshot::channel();
        let content = content.clone();
        let thread = std::thread::Builder::new()
            .name("ranged origin".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.expect("a runtime for the origin").block_on(async move {
                    tokio::select! {
                        () = accept(listener, content) => {}
                        _ = stopped => {}
                    }
                });
            })
            .expect("a thread for the origin");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes everything: from now on connections are refused.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for RangedOrigin {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: std::net::TcpListener, content: Content) {
    let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let content = content.clone();
        // Ends with its connection, at the latest with the origin's runtime.
        tokio::spawn(async move {
            // A failure is for the test to see at the other end.
            let _ = converse(stream, &content).await;
        });
    }
}

async fn converse(mut stream: TcpStream, content: &Content) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await? {
        let request = Recorded::parse(&head, 0);
        let Some(object) = content.object_of(&request.target) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
            continue;
        };
        let under_way = UnderWay::begin(&object);
        let now = http_date::unix_seconds() + content.0.ahead_seconds.load(Ordering::Relaxed);
        if let Some(gate) = object.held_before_head() {
            gate.passed().await;
        }
        let delivery = object.answer(&request, port, now);
        deliver(&mut stream, &object, &delivery).await?;
        if delivery.breaks_after.is_some() {
            return stream.shutdown().await;
        }
        drop(under_way);
    }
    Ok(())
}

/// Counts an answer until it has left, or cannot.
struct UnderWay<'a>(&'a Ranged);

impl<'a> UnderWay<'a> {
    fn begin(object: &'a Ranged) -> Self {
        object.0.arrived.fetch_add(1, Ordering::Relaxed);
        object.0.under_way.fetch_add(1, Ordering::Relaxed);
        Self(object)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer, and what becomes of it on its way.
struct Delivery {
    reply: Reply,
    of: Derived,
    /// Bytes of the body after which the connection ends.
    breaks_after: Option<u64>,
    hold: Option<Hold>,
    bytes_per_second: Option<u64>,
}

impl Ranged {
    fn held_before_head(&self) -> Option<crate::gate::Gate> {
        match &self.behaviour().hold {
            Some(Hold::BeforeHead(gate)) => Some(gate.clone()),
            _ => None,
        }
    }

    /// Decides and remembers, as one.
    fn answer(&self, request: &Recorded, port: u16, now: i64) -> Delivery {
        let mut behaviour = self.behaviour();
        let reply = behaviour.reply(request, now);
        let asked = Asked {
            port,
            method: request.method.clone(),
            range: request.field("range"),
            if_range: request.field("if-range"),
            if_none_match: request.field("if-none-match"),
            status: reply.status,
            part: reply.part.clone(),
        };
        self.0.asked.lock().expect("nobody panics with the requests in hand").push(asked);
        let breaks_after = behaviour.breaks.as_mut().and_then(|breaks| {
            let counts = breaks.times > 0 && reply.part.end - reply.part.start > breaks.after;
            if counts && breaks.times != u32::MAX {
                breaks.times -= 1;
            }
            counts.then_some(breaks.after)
        });
        let Behaviour { hold, bytes_per_second, version, .. } = behaviour.clone();
        // The lengths have a lock of their own.
        drop(behaviour);
        let of = self.at(version).expect("a version is known before it is answered with");
        Delivery { reply, of, breaks_after, hold, bytes_per_second }
    }
}

async fn deliver(stream: &mut TcpStream, object: &Ranged, delivery: &Delivery) -> io::Result<()> {
    let Delivery { reply, of, breaks_after, hold, bytes_per_second } = delivery;
    stream.write_all(reply.head.as_bytes()).await?;
    if reply.part.is_empty() {
        return Ok(());
    }
    stream.write_all(reply.before.as_bytes()).await?;
    let end = breaks_after.map_or(reply.part.end, |after| reply.part.start + after);
    let (started, mut at) = (Instant::now(), reply.part.start);
    while at < end {
        let sent = at - reply.part.start;
        let mut most = (end - at).min(if bytes_per_second.is_some() { SLOW_PIECE } else { PIECE });
        if let Some(Hold::After(after, gate)) = hold {
            match after.checked_sub(sent) {
                Some(0) => gate.passed().await,
                Some(left) => most = most.min(left),
                None => {}
            }
        }
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_secs_f64(sent as f64 / *rate as f64);
            tokio::time::sleep_until(started + due).await;
        }
        let bytes = of.bytes_at(at);
        let count = stream.write(&bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))]).await?;
        object.0.written.fetch_add(count as u64, Ordering::Relaxed);
        at += count as u64;
    }
    if breaks_after.is_none() {
        stream.write_all(reply.after.as_bytes()).await?;
    }
    Ok(())
}
