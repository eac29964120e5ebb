//! One HTTP/1 connection: its requests, one after the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::clock;
use crate::fleet::asking::Asking;
use crate::front::answer::Answer;
use crate::front::connection::{ReadEnd, Timer, read_some, reset};
use crate::front::gate::{Framing, Head, Refusal, Verdict, Version, gate};
use crate::front::log::{Seen, Times};
use crate::front::nodes::{self, From, ToNode};
use crate::front::registry::Lease;
use crate::front::request::{
    LazyId, Own, Routed, answer_refusal, answered_method, is_cached, name_of, pipeline_request, refusal,
};
use crate::front::{Front, Peer};
use crate::pipeline::failure;
use crate::pipeline::request::{Forwarded, Outcome, Request};
use crate::routing::{Site, Snapshot};
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::store::key::CacheKey;
use crate::telemetry::metrics::CacheOutcome;

/// A refused client's remaining bytes are read for this long and up to this many, so that it sees the refusal and not
/// a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;
/// How long an idle connection that is to end stays: the next answer says so to whoever asks once more, and a request that is
/// on its way already is answered.
const PARTING: Duration = Duration::from_secs(1);
/// A connection that waits keeps no larger buffer than this.
const BUFFER_KEPT_MAX: usize = 4 << 10;

/// One connection, beside its stream and its input.
struct Connection {
    lease: Lease,
    peer: Peer,
    /// Refreshed for every request.
    snapshot: Arc<Snapshot>,
    timer: Timer,
    /// What came while an answer was under way.
    pipelined: BytesMut,
    out: Vec<u8>,
    scratch: Vec<u8>,
    registered: bool,
}

/// What follows a request.
enum After {
    /// The next one, on this stream.
    Next(Stream),
    Close,
}

impl Front {
    /// Serves a connection until it ends.
    pub async fn serve_h1(&self, mut stream: Stream, peer: Peer, lease: Lease, shutdown: &ShutdownWatch) {
        let snapshot = self.snapshots.load();
        // The first head is due from the connection on, later ones from their first byte on.
        let mut deadline = clock::monotonic() + snapshot.limits.head_timeout.get();
        let mut connection = Connection {
            lease,
            peer,
            snapshot,
            timer: Timer::new(deadline),
            pipelined: BytesMut::new(),
            out: Vec::new(),
            scratch: Vec::new(),
            registered: false,
        };
        let mut buffer = BytesMut::new();
        let mut first = true;
        loop {
            match if buffer.is_empty() { Verdict::Incomplete } else { gate(&buffer) } {
                Verdict::Accepted(head) => {
                    let taken = taken_with(&head, buffer.len());
                    match self.request(stream, &mut connection, &head, &buffer, shutdown).await {
                        After::Next(next) => stream = next,
                        After::Close => return,
                    }
                    buffer.advance(taken);
                    buffer.extend_from_slice(&connection.pipelined.split());
                    if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT_MAX {
                        buffer = BytesMut::new();
                    }
                    first = false;
                    let limits = &connection.snapshot.limits;
                    let wait = if buffer.is_empty() { limits.idle_timeout } else { limits.head_timeout };
                    deadline = clock::monotonic() + wait.get();
                    continue;
                }
                Verdict::Refused(refusal) => return self.refuse(&mut stream, &mut connection, refusal).await,
                Verdict::Incomplete => {}
            }
            let idle = buffer.is_empty();
            match self.read(&mut stream, &mut connection, &mut buffer, deadline).await {
                Ok(()) if idle && !first => {
                    deadline = clock::monotonic() + connection.snapshot.limits.head_timeout.get();
                }
                Ok(()) => {}
                Err(ReadEnd::Late) if first || !idle => return self.log.dropped("head-timeout"),
                Err(_) => return close(&mut stream, &mut connection.timer).await,
            }
        }
    }

    async fn read(
        &self,
        stream: &mut Stream,
        connection: &mut Connection,
        buffer: &mut BytesMut,
        deadline: Instant,
    ) -> Result<(), ReadEnd> {
        let idle = buffer.is_empty();
        let Connection { lease, timer, registered, .. } = connection;
        let stop = |context: &mut Context<'_>| {
            if !*registered {
                lease.wake_to_part(context.waker());
                *registered = true;
            }
            idle && lease.is_parting()
        };
        match read_some(stream, buffer, timer, deadline, stop).await {
            Err(ReadEnd::Stopped) => {
                let deadline = deadline.min(clock::monotonic() + PARTING);
                let last = read_some(stream, buffer, timer, deadline, |_| false).await;
                last.map_err(|end| if end == ReadEnd::Late { ReadEnd::Stopped } else { end })
            }
            read => read,
        }
    }

    async fn request(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        head: &Head<'_>,
        buffer: &BytesMut,
        shutdown: &ShutdownWatch,
    ) -> After {
        self.snapshots.refresh(&mut connection.snapshot);
        // A site of its own, so that the connection can be used beside it.
        let site = connection.snapshot.site(head.host).cloned();
        let from = self.from(head);
        let peer = match &from {
            From::Node(asking) => {
                connection.lease.is_a_nodes();
                connection.peer.of(asking)
            }
            From::Client | From::Forged => connection.peer,
        };
        let seen = Seen {
            peer,
            site: site.as_ref(),
            head,
            started: clock::monotonic(),
            proto: if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" },
        };
        let refused = match &site {
            _ if matches!(from, From::Forged) => Some((403, Reason::NodeRequest)),
            None => Some((421, Reason::UnknownHost)),
            Some(site) => refusal(head, site, &self.cdn),
        };
        if let Some((status, reason)) = refused {
            let outcome = self.refuse_with(&mut stream, connection, &seen, status, reason).await;
            self.log.write(&seen, &outcome, Times::ended(None), None, None);
            linger(&mut stream, &mut connection.timer).await;
            return After::Close;
        }
        let Some(site) = &site else { return After::Close };
        let routed = Routed::new(&seen, site);
        if let Some(own) = Own::of(self, &seen, site, &routed) {
            return Box::pin(self.answer_own(stream, connection, &seen, site, own)).await;
        }
        if let From::Node(asking) = &from {
            return Box::pin(self.asked_by_node(stream, connection, &seen, (site, &routed), asking)).await;
        }
        if !is_cached(head) {
            return Box::pin(self.pass_on(stream, connection, &seen, (site, &routed), buffer, shutdown)).await;
        }
        self.cached(stream, connection, &seen, (site, &routed)).await
    }

    /// Answers what needs nobody else.
    async fn answer_own(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        site: &Arc<Site>,
        own: Own<'_>,
    ) -> After {
        let head = seen.head;
        // A body that is not read ends the connection.
        let keep_alive = head.keep_alive && !head.framing.has_body();
        let mut answer = self.answer_on(&mut stream, connection, head.version, keep_alive);
        let answered = own.answer(seen, site, &mut answer).await;
        let keep_alive = answer.keep_alive;
        let outcome = answered.unwrap_or_else(|_| Outcome::client_gone());
        self.log.write(seen, &outcome, Times::ended(None), None, None);
        if keep_alive && outcome.complete {
            return After::Next(stream);
        }
        linger(&mut stream, &mut connection.timer).await;
        After::Close
    }

    /// The way of a request the cache may answer.
    async fn cached(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        (site, routed): (&Arc<Site>, &Routed),
    ) -> After {
        let key = self.key(seen, site, routed, &mut connection.scratch);
        let id = LazyId::default();
        self.mirror(seen, site, routed, &id);
        let forward = |forwarded: Forwarded, out: &mut Vec<u8>| self.forward(seen, routed, &id, forwarded, out);
        let request = pipeline_request(seen, site, routed, key, clock::wall(), &forward);
        let decision = self.pipeline.decide(&request);
        let mut answer = self.answer_on(&mut stream, connection, seen.head.version, seen.head.keep_alive);
        let answered = self.pipeline.answer(&request, decision, &mut answer).await;
        let (keep_alive, first_byte) = (answer.keep_alive, answer.first_byte);
        self.answered(stream, connection, seen, answered, (keep_alive, first_byte), key, id.trace(seen)).await
    }

    /// What follows an answer.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own, and there are two callers")]
    async fn answered(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        answered: io::Result<Outcome>,
        (keep_alive, first_byte): (bool, Option<Instant>),
        key: CacheKey,
        trace: Option<String>,
    ) -> After {
        let outcome = answered.unwrap_or_else(|_| Outcome::client_gone());
        self.log.write(seen, &outcome, Times::ended(first_byte), Some(key), trace.as_deref());
        if !outcome.complete {
            reset(&stream);
            return After::Close;
        }
        if keep_alive {
            return After::Next(stream);
        }
        close(&mut stream, &mut connection.timer).await;
        After::Close
    }

    /// The way of another node's request.
    async fn asked_by_node(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        (site, routed): (&Arc<Site>, &Routed),
        asking: &Asking,
    ) -> After {
        let key = self.key(seen, site, routed, &mut connection.scratch);
        let id = LazyId::default();
        let forward = |forwarded: Forwarded, out: &mut Vec<u8>| self.forward(seen, routed, &id, forwarded, out);
        let by_node = match &self.fleet {
            Some(fleet) if is_cached(seen.head) => nodes::standing(fleet, asking, &self.pipeline.store.ledger).await,
            _ => None,
        };
        let answer = self.answer_on(&mut stream, connection, seen.head.version, seen.head.keep_alive);
        let mut answer = ToNode(answer);
        let answered = match by_node {
            _ if !is_cached(seen.head) => self.invalidated(seen, site, &mut answer.0).await,
            None => nodes::say_isolated(site, &mut answer.0).await,
            Some(_) => {
                let request = pipeline_request(seen, site, routed, key, clock::wall(), &forward);
                let request = Request { by_node, ..request };
                let decision = self.pipeline.decide(&request);
                self.pipeline.answer(&request, decision, &mut answer).await
            }
        };
        let (keep_alive, first_byte) = (answer.0.keep_alive, answer.0.first_byte);
        self.answered(stream, connection, seen, answered, (keep_alive, first_byte), key, id.trace(seen)).await
    }

    /// The way of a request only the origin can answer.
    async fn pass_on(
        &self,
        stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        (site, routed): (&Arc<Site>, &Routed),
        buffer: &BytesMut,
        shutdown: &ShutdownWatch,
    ) -> After {
        let id = self.log.next_id();
        let (request_id, trace) = (id.text(), name_of(seen, id));
        let forwarding = self.forwarding(seen, &request_id);
        let body = buffer.get(seen.head.length..taken_with(seen.head, buffer.len())).unwrap_or_default();
        let limits = connection.snapshot.limits;
        let (next, outcome) = self.pass.run_h1(stream, seen, site, routed, limits, body, &forwarding, shutdown).await;
        self.log.write(seen, &outcome, Times::ended(None), None, Some(&trace));
        match next {
            Some(stream) if seen.head.keep_alive && !connection.lease.is_parting() => After::Next(stream),
            _ => After::Close,
        }
    }

    fn answer_on<'c>(
        &self,
        stream: &'c mut Stream,
        connection: &'c mut Connection,
        version: Version,
        keep_alive: bool,
    ) -> Answer<'c> {
        Answer {
            stream,
            keep_alive: keep_alive && !connection.lease.is_parting(),
            timer: &mut connection.timer,
            out: &mut connection.out,
            pipelined: &mut connection.pipelined,
            write_timeout: connection.snapshot.limits.write_timeout.get(),
            chunks_allowed: version == Version::Http11,
            says_keep_alive: version == Version::Http10,
            chunked: false,
            first_byte: None,
        }
    }

    /// Answers bytes that are no request, and closes.
    async fn refuse(&self, stream: &mut Stream, connection: &mut Connection, refusal: Refusal) {
        let started = clock::monotonic();
        let mut answer = self.answer_on(stream, connection, Version::Http11, false);
        // A client that sent nonsense may not listen either.
        let bytes = answer_refusal(refusal, &mut answer).await.unwrap_or(0);
        self.log.refused(connection.peer, "HTTP/1.1", refusal, bytes, started);
        linger(stream, &mut connection.timer).await;
    }

    async fn refuse_with(
        &self,
        stream: &mut Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        status: u16,
        reason: Reason,
    ) -> Outcome {
        self.log.count_refusal(reason.as_str());
        let mut answer = self.answer_on(stream, connection, Version::Http11, false);
        let forward = Some(Forward::Method).filter(|_| reason == Reason::Method);
        let cache_status = CacheStatus { forward, detail: Some(reason), ..CacheStatus::default() };
        let answered = failure::answer(
            seen.site.map(AsRef::as_ref),
            status,
            answered_method(seen.head),
            cache_status,
            &mut answer,
        )
        .await;
        answered.unwrap_or_else(|_| Outcome::new(status, CacheOutcome::Error, Some(reason)))
    }
}

/// How much of the buffer belongs to a request: its head, and on the pass path what is there of its body. Where a
/// chunked body ends only its reader knows, so it gets everything.
fn taken_with(head: &Head<'_>, buffered: usize) -> usize {
    let body = match head.framing {
        Framing::None => 0,
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Framing::Chunked => usize::MAX,
    };
    head.length.saturating_add(body).min(buffered)
}

/// Ends a connection after a complete answer: under TLS the client can tell that nothing was cut off.
async fn close(stream: &mut Stream, timer: &mut Timer) {
    use tokio::io::AsyncWrite;
    let deadline = clock::monotonic() + LINGER;
    poll_fn(|context| match Pin::new(&mut *stream).poll_shutdown(context) {
        Poll::Pending => timer.poll(context, deadline),
        Poll::Ready(_) => Poll::Ready(()),
    })
    .await;
}

/// Closes the sending side and reads a bounded rest.
async fn linger(stream: &mut Stream, timer: &mut Timer) {
    use tokio::io::AsyncWriteExt;
    let _ = AsyncWriteExt::shutdown(stream).await;
    let deadline = clock::monotonic() + LINGER;
    let mut rest = BytesMut::new();
    while rest.len() < LINGER_BYTES_MAX && read_some(stream, &mut rest, timer, deadline, |_| false).await.is_ok() {}
}
