//! One HTTP/2 connection: the `h2` crate keeps the protocol, this serves its requests.
//!
//! A hit is answered where it is accepted, and if the client's windows have room for it, it is done. Everything else is
//! a future of the connection's own: it ends with the connection at the latest. One loop does it all: accept and answer
//! what there is, go on with what waits, send everything in one go, look at the deadlines.
//!
//! - [`watch`]: floods and frames that never end. Pure.
//! - [`io`]: the connection under the crate, flushed by the loop.
//! - [`answer`]: an answer on a stream.
//! - [`heads`]: heads of stored responses, kept by each worker.
//! - [`session`]: a stream as Pingora's proxy knows sessions, for the pass path.

pub mod answer;
pub mod heads;
pub mod io;
pub mod session;
pub mod watch;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_config::section::limits::HEAD_BYTES_MAX;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, Stream};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason as H2Reason, RecvStream};
use pingora::server::ShutdownWatch;

use self::answer::Answer;
use self::io::Shared;
use crate::clock;
use crate::front::connection::{Patience, Timer};
use crate::front::gate::Refusal;
use crate::front::gate::h2::OwnedHead;
use crate::front::log::{Seen, Times};
use crate::front::nodes::From;
use crate::front::registry::Lease;
use crate::front::request::{
    LazyId, Own, Routed, answer_refusal, answered_method, is_cached, name_of, pipeline_request, refusal,
};
use crate::front::tls::records::Records;
use crate::front::{Front, Peer};
use crate::pipeline::decide::Decision;
use crate::pipeline::failure;
use crate::pipeline::request::{Forwarded, Outcome};
use crate::routing::{Site, Snapshot};
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::store::key::CacheKey;

const PROTO: &str = "HTTP/2";
/// What a client may send of one body before somebody reads it, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What is kept for a client beyond what it has given room for.
const SEND_BUFFER_MAX: usize = 1 << 20;
/// What small DATA frames that nobody has read yet may cost beyond their bytes. The crate counts up to 256 for each: a
/// stream's window in messages of 50 bytes costs 1 MiB.
const SMALL_FRAMES_MAX: usize = 4 << 20;
/// Streams the client has reset and the crate remembers, and those reset before they were looked at.
const RESET_STREAMS_MAX: usize = 50;
const PENDING_RESETS_MAX: usize = 50;
/// Streams the crate had to reset because of what the client did on them.
const LOCAL_RESETS_MAX: usize = 100;
/// How long a connection that is to end may take to say so.
const GOODBYE: Duration = Duration::from_secs(1);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One connection.
struct Client<'a> {
    front: &'a Arc<Front>,
    peer: Peer,
    lease: Lease,
    shutdown: &'a ShutdownWatch,
    /// Refreshed for every request.
    snapshot: Arc<Snapshot>,
    work: FuturesUnordered<Work>,
    /// Used again by the next request when this one is done at once.
    head: OwnedHead,
    scratch: Vec<u8>,
}

/// Why a connection ends.
enum End {
    /// The client closed it, or it broke.
    Closed,
    /// It was idle for long enough, or the node drains.
    Idle,
    /// A head that never ended, or an answer that was not taken.
    Late(&'static str),
    Flood,
}

/// What the socket takes.
struct Sending {
    patience: Patience,
    /// Bytes it had taken when it was last looked at.
    sent: u64,
}

impl Sending {
    /// When a client that takes nothing is given up, if the socket is full.
    fn due(&mut self, sent: u64, full: bool, write_timeout: Duration) -> Option<Instant> {
        if full {
            self.patience.progress(usize::try_from(sent - self.sent).unwrap_or(usize::MAX));
        } else {
            self.patience = Patience::new(write_timeout);
        }
        self.sent = sent;
        full.then(|| self.patience.deadline())
    }
}

/// Serves a connection until it ends.
pub async fn serve(
    front: &Arc<Front>,
    records: Records,
    peer: Peer,
    lease: Lease,
    timer: Timer,
    shutdown: &ShutdownWatch,
) {
    let snapshot = front.snapshots.load();
    let shared = Shared::new(records);
    let mut timer = timer;
    let deadline = clock::monotonic() + snapshot.limits.head_timeout.get();
    let mut connection = match shake_hands(&shared, &snapshot, &mut timer, deadline).await {
        Some(Ok(connection)) => connection,
        Some(Err(_)) => return,
        None => return front.log.dropped("head-timeout"),
    };
    let mut client = Client {
        front,
        peer,
        lease,
        shutdown,
        snapshot,
        work: FuturesUnordered::new(),
        head: OwnedHead::default(),
        scratch: Vec::new(),
    };
    let end = client.run(&mut connection, &shared, &mut timer).await;
    let say = match end {
        End::Closed => None,
        End::Idle => Some(H2Reason::NO_ERROR),
        End::Late(reason) => {
            front.log.dropped(reason);
            Some(H2Reason::ENHANCE_YOUR_CALM)
        }
        End::Flood => {
            front.log.dropped("http2-flood");
            Some(H2Reason::ENHANCE_YOUR_CALM)
        }
    };
    if let Some(reason) = say {
        connection.abrupt_shutdown(reason);
    }
    let deadline = clock::monotonic() + GOODBYE;
    poll_fn(|context| {
        // What is still queued goes out, GOAWAY last; then the end is announced.
        let closed = connection.poll_closed(context).is_ready();
        match shared.poll_drain(context) {
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) if closed && shared.poll_close(context).is_ready() => return Poll::Ready(()),
            _ => {}
        }
        timer.poll(context, deadline)
    })
    .await;
    // With the connection its streams end, and what still works on one notices, and says so in the log.
    drop(connection);
    let deadline = clock::monotonic() + GOODBYE;
    poll_fn(|context| match Pin::new(&mut client.work).poll_next(context) {
        Poll::Ready(Some(())) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Ready(None) => Poll::Ready(()),
        Poll::Pending => timer.poll(context, deadline),
    })
    .await;
}

/// Agrees on settings; none: the client took too long.
async fn shake_hands(
    shared: &Shared,
    snapshot: &Snapshot,
    timer: &mut Timer,
    deadline: Instant,
) -> Option<Result<Connection<Shared, Bytes>, h2::Error>> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(snapshot.limits.streams_per_connection)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .data_frame_budget(SMALL_FRAMES_MAX)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX));
    let mut handshake = pin!(builder.handshake(shared.clone()));
    poll_fn(|context| {
        let done = handshake.as_mut().poll(context);
        // A client may wait for our settings before it says anything.
        let _ = shared.poll_drain(context);
        match done {
            Poll::Ready(connection) => Poll::Ready(Some(connection)),
            Poll::Pending => timer.poll(context, deadline).map(|()| None),
        }
    })
    .await
}

impl Client<'_> {
    async fn run(&mut self, connection: &mut Connection<Shared, Bytes>, shared: &Shared, timer: &mut Timer) -> End {
        let mut sending =
            Sending { patience: Patience::new(self.snapshot.limits.write_timeout.get()), sent: shared.standing().sent };
        let mut idle_since = clock::monotonic();
        let mut registered = false;
        let mut goodbye_since = None;
        poll_fn(move |context| {
            if !registered {
                self.lease.wake_to_part(context.waker());
                registered = true;
            }
            loop {
                match connection.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        idle_since = clock::monotonic();
                        self.accept(request, respond, idle_since);
                    }
                    Poll::Ready(_) => return Poll::Ready(End::Closed),
                    Poll::Pending => break,
                }
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut self.work).poll_next(context) {
                idle_since = clock::monotonic();
            }
            if self.lease.is_parting() && goodbye_since.is_none() {
                goodbye_since = Some(clock::monotonic());
                connection.graceful_shutdown();
                // The crate has something to say now.
                context.waker().wake_by_ref();
            }
            let drained = shared.poll_drain(context);
            let standing = shared.standing();
            if standing.excess {
                return Poll::Ready(End::Flood);
            }
            if let Poll::Ready(Err(_)) = drained {
                return Poll::Ready(End::Closed);
            }
            let limits = &self.snapshot.limits;
            let idle = self.work.is_empty() && !connection.has_streams();
            let stalled = sending.due(standing.sent, drained.is_pending(), limits.write_timeout.get());
            let dues = [
                stalled.map(|due| (due, End::Late("write-timeout"))),
                standing.unfinished_since.map(|since| (since + limits.head_timeout.get(), End::Late("head-timeout"))),
                // What is under way has deadlines of its own.
                self.work.is_empty().then_some((idle_since + limits.idle_timeout.get(), End::Idle)),
                goodbye_since.filter(|_| idle).map(|since| (since + GOODBYE, End::Idle)),
            ];
            match dues.into_iter().flatten().min_by_key(|(due, _)| *due) {
                Some((due, end)) => timer.poll(context, due).map(|()| end),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn accept(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>, started: Instant) {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.head.read(&parts, body.is_end_stream()) {
            return self.refuse(refusal, respond, started);
        }
        self.front.snapshots.refresh(&mut self.snapshot);
        let head = self.head.head();
        let site = self.snapshot.site(head.host);
        let seen = Seen { peer: self.peer, site, head: &head, started, proto: PROTO };
        let refused = match site {
            // Nodes speak HTTP/1.1 among themselves.
            _ if !matches!(self.front.from(&head), From::Client) => Some((403, Reason::NodeRequest)),
            None => Some((421, Reason::UnknownHost)),
            Some(site) => refusal(&head, site, &self.front.cdn),
        };
        let write_timeout = self.snapshot.limits.write_timeout.get();
        let mut at_once = None;
        if let Some((status, reason)) = refused {
            let mut answer = Answer::at_once(respond, write_timeout);
            self.front.log.count_refusal(reason.as_str());
            let forward = Some(Forward::Method).filter(|_| reason == Reason::Method);
            let cache_status = CacheStatus { forward, detail: Some(reason), ..CacheStatus::default() };
            let (site, method) = (site.map(AsRef::as_ref), answered_method(&head));
            let answered = failure::answer(site, status, method, cache_status, &mut answer).now_or_never();
            at_once = Some((answer, answered, None));
        } else if let Some((site, routed)) = site.map(|site| (site, Routed::new(&seen, site))) {
            if let Some(own) = Own::of(self.front, &seen, site, &routed) {
                let mut answer = Answer::at_once(respond, write_timeout);
                let answered = own.answer(&seen, site, &mut answer).now_or_never();
                at_once = Some((answer, answered, None));
            } else if !is_cached(&head) {
                let site = site.clone();
                let work = self.pass_on(body, respond, (site, routed), started);
                self.work.push(work);
                return;
            } else {
                let key = self.front.key(&seen, site, &routed, &mut self.scratch);
                let id = LazyId::default();
                self.front.mirror(&seen, site, &routed, &id);
                let front = self.front;
                let forward =
                    |forwarded: Forwarded, out: &mut Vec<u8>| front.forward(&seen, &routed, &id, forwarded, out);
                let request = pipeline_request(&seen, site, &routed, key, clock::wall_at(started), &forward);
                match self.front.pipeline.decide(&request) {
                    decision if is_at_once(&decision) => {
                        let mut answer = Answer::at_once(respond, write_timeout);
                        let answered = self.front.pipeline.answer(&request, decision, &mut answer).now_or_never();
                        at_once = Some((answer, answered, Some(key)));
                    }
                    decision => {
                        let site = site.clone();
                        let work = self.answer_later(respond, site, (routed, id), decision, key, started);
                        self.work.push(work);
                        return;
                    }
                }
            }
        }
        let Some((mut answer, answered, key)) = at_once else { return };
        // It never waits; were that wrong, the stream is broken off.
        let outcome = answered.and_then(Result::ok).unwrap_or_else(Outcome::client_gone);
        if answer.has_rest() {
            let site = site.cloned();
            let (front, peer, head) = (self.front.clone(), self.peer, std::mem::take(&mut self.head));
            self.work.push(Box::pin(async move {
                let head = head.head();
                let seen = Seen { peer, site: site.as_ref(), head: &head, started, proto: PROTO };
                let outcome = if answer.send_rest().await.is_ok() { outcome } else { Outcome::client_gone() };
                finish(&front, &seen, &mut answer, &outcome, key, None);
            }));
            return;
        }
        finish(self.front, &seen, &mut answer, &outcome, key, None);
    }

    /// The way of a request the cache may answer, but not at once.
    fn answer_later(
        &mut self,
        respond: SendResponse<Bytes>,
        site: Arc<Site>,
        (routed, id): (Routed, LazyId),
        decision: Decision,
        key: CacheKey,
        started: Instant,
    ) -> Work {
        let (front, peer, head) = (self.front.clone(), self.peer, std::mem::take(&mut self.head));
        let write_timeout = self.snapshot.limits.write_timeout.get();
        Box::pin(async move {
            let head = head.head();
            let seen = Seen { peer, site: Some(&site), head: &head, started, proto: PROTO };
            let forward = |forwarded: Forwarded, out: &mut Vec<u8>| front.forward(&seen, &routed, &id, forwarded, out);
            let request = pipeline_request(&seen, &site, &routed, key, clock::wall(), &forward);
            let mut answer = Answer::new(respond, write_timeout);
            let answered = front.pipeline.answer(&request, decision, &mut answer).await;
            let outcome = answered.unwrap_or_else(|_| Outcome::client_gone());
            finish(&front, &seen, &mut answer, &outcome, Some(key), id.trace(&seen).as_deref());
        })
    }

    /// The way of a request only the origin can answer.
    fn pass_on(
        &mut self,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        (site, routed): (Arc<Site>, Routed),
        started: Instant,
    ) -> Work {
        let (front, peer, head) = (self.front.clone(), self.peer, std::mem::take(&mut self.head));
        let (limits, shutdown) = (self.snapshot.limits, self.shutdown.clone());
        Box::pin(async move {
            let head = head.head();
            let seen = Seen { peer, site: Some(&site), head: &head, started, proto: PROTO };
            let id = front.log.next_id();
            let (request_id, trace) = (id.text(), name_of(&seen, id));
            let forwarding = front.forwarding(&seen, &request_id);
            let outcome = front.pass.run_h2(body, respond, &seen, &site, &routed, limits, &forwarding, &shutdown).await;
            front.log.write(&seen, &outcome, Times::ended(None), None, Some(&trace));
        })
    }

    /// Answers what is no request.
    fn refuse(&mut self, refusal: Refusal, respond: SendResponse<Bytes>, started: Instant) {
        let mut answer = Answer::at_once(respond, self.snapshot.limits.write_timeout.get());
        let answered = answer_refusal(refusal, &mut answer).now_or_never();
        let bytes = answered.and_then(Result::ok).filter(|_| !answer.has_rest());
        if bytes.is_none() {
            answer.reset();
        }
        self.front.log.refused(self.peer, PROTO, refusal, bytes.unwrap_or(0), started);
    }
}

fn finish(
    front: &Front,
    seen: &Seen<'_>,
    answer: &mut Answer,
    outcome: &Outcome,
    key: Option<CacheKey>,
    trace: Option<&str>,
) {
    if !outcome.complete {
        answer.reset();
    }
    front.log.write(seen, outcome, answer.times(), key, trace);
}

/// Whether an answer waits for nothing: what it is made of is in memory.
fn is_at_once(decision: &Decision) -> bool {
    match decision {
        Decision::Hit { stored, .. } | Decision::HitThenRefresh { stored, .. } => stored.sparse().is_none(),
        Decision::Read(_)
        | Decision::Complete { .. }
        | Decision::Fetch(_)
        | Decision::NothingStored
        | Decision::Isolated => false,
    }
}
