//! One HTTP/1 connection: its requests, one after the other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use edge_config::section::limits::Limits;
use edge_config::section::site::GetBody;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::clock;
use crate::exchange::{BodyLength, Exchange};
use crate::front::answer::Answer;
use crate::front::connection::{ReadEnd, Timer, read_some, reset};
use crate::front::gate::{Forwarding, Framing, Head, Interest, Keep, Verdict, Version, gate, write_forward_fields};
use crate::front::gate::{Method as GateMethod, Refusal};
use crate::front::log::{Log, RequestId, Seen};
use crate::front::pass::Pass;
use crate::front::registry::{Lease, Registry};
use crate::pipeline::Pipeline;
use crate::pipeline::deliver::write_dynamic;
use crate::pipeline::request::{Forwarded, Method, Outcome, Request};
use crate::routing::{Site, Snapshot};
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::semantics::directives::RequestDirectives;
use crate::telemetry::metrics::CacheOutcome;

/// A refused client's remaining bytes are read for this long and up to this many, so that it sees the refusal and not
/// a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;
/// A connection that waits keeps no larger buffer than this.
const BUFFER_KEPT_MAX: usize = 4 << 10;

/// The HTTP/1 front: what every connection shares.
pub struct Front {
    pub pipeline: Arc<Pipeline>,
    pub snapshot: Arc<Snapshot>,
    pub registry: Arc<Registry>,
    pub pass: Pass,
    pub log: Log,
    pub limits: Limits,
}

/// One connection, beside its stream and its input.
struct Connection {
    lease: Lease,
    client: IpAddr,
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

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = stream.get_socket_digest();
        let address = digest.as_ref().and_then(|digest| digest.peer_addr()).and_then(|peer| peer.as_inet());
        let client = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |inet| inet.ip());
        let lease = self.registry.admit(client)?;
        self.serve(stream, client, lease, shutdown).await;
        None
    }
}

impl Front {
    async fn serve(&self, mut stream: Stream, client: IpAddr, lease: Lease, shutdown: &ShutdownWatch) {
        // The first head is due from the connection on, later ones from their first byte on.
        let mut deadline = clock::monotonic() + self.limits.head_timeout.get();
        let mut connection = Connection {
            lease,
            client,
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
                    let wait = if buffer.is_empty() { self.limits.idle_timeout } else { self.limits.head_timeout };
                    deadline = clock::monotonic() + wait.get();
                    continue;
                }
                Verdict::Refused(refusal) => return self.refuse(&mut stream, &mut connection, refusal).await,
                Verdict::Incomplete => {}
            }
            let idle = buffer.is_empty();
            match self.read(&mut stream, &mut connection, &mut buffer, deadline).await {
                Ok(()) if idle && !first => deadline = clock::monotonic() + self.limits.head_timeout.get(),
                Ok(()) => {}
                Err(ReadEnd::Late) if first || !idle => return self.log.dropped("head-timeout"),
                Err(_) => return,
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
                lease.wake_on_drain(context.waker());
                *registered = true;
            }
            idle && lease.is_draining()
        };
        read_some(stream, buffer, timer, deadline, stop).await
    }

    async fn request(
        &self,
        mut stream: Stream,
        connection: &mut Connection,
        head: &Head<'_>,
        buffer: &BytesMut,
        shutdown: &ShutdownWatch,
    ) -> After {
        let site = self.snapshot.site(head.host);
        let seen = Seen { client: connection.client, site, head, started: clock::monotonic() };
        if let Some((status, reason)) = refusal(head, site) {
            let method = if head.method == GateMethod::Head { Method::Head } else { Method::Get };
            let outcome = self.refuse_with(&mut stream, connection, method, status, reason).await;
            self.log.write(&seen, &outcome, None, None, None);
            linger(&mut stream, &mut connection.timer).await;
            return After::Close;
        }
        if !is_cached(head) {
            return Box::pin(self.pass_on(stream, connection, &seen, buffer, shutdown)).await;
        }
        self.cached(stream, connection, &seen).await
    }

    /// The way of a request the cache may answer.
    async fn cached(&self, mut stream: Stream, connection: &mut Connection, seen: &Seen<'_>) -> After {
        let (head, site) = (seen.head, seen.site);
        let host = canonical_host(head.host, "http");
        let parts = KeyParts { site: &site.name, scheme: "http", host: &host, path_and_query: head.target };
        let key = self.pipeline.store.keyer.primary(&parts, &mut connection.scratch);
        // Made when somebody needs it: a hit does not.
        let id = OnceLock::new();
        let client = connection.client;
        let forward = |forwarded: Forwarded, out: &mut Vec<u8>| {
            let trusted = site.trusts(client);
            let forwarding = Forwarding {
                client,
                trusted,
                secure: false,
                request_id: &id.get_or_init(|| self.log.next_id()).text(),
            };
            let keep = match forwarded {
                Forwarded::Shared => Keep::Nothing,
                Forwarded::Own => Keep::RangeAndConditionals,
            };
            write_forward_fields(head, &forwarding, keep, out);
        };
        let directives = match head.interest.has(Interest::CACHE_CONTROL) {
            true => RequestDirectives::parse(head.fields),
            false => RequestDirectives::NONE,
        };
        let request = Request {
            site,
            method: if head.method == GateMethod::Head { Method::Head } else { Method::Get },
            target: head.target,
            host: head.host,
            fields: head.fields,
            key,
            directives,
            conditional: head.interest.has(Interest::CONDITIONAL),
            range: head.interest.has(Interest::RANGE),
            authorization: head.interest.has(Interest::AUTHORIZATION),
            now: clock::wall(),
            forward: &forward,
        };
        let decision = self.pipeline.decide(&request);
        let mut answer = self.answer_on(&mut stream, connection, head.version, head.keep_alive);
        let answered = self.pipeline.answer(&request, decision, &mut answer).await;
        let (keep_alive, first_byte) = (answer.keep_alive, answer.first_byte);
        let outcome = answered.unwrap_or_else(|_| Outcome {
            complete: false,
            // What nginx calls "client closed request": in the log only, nobody is there to receive it.
            ..Outcome::new(499, CacheOutcome::Error, None)
        });
        let trace = id.get().map(|id: &RequestId| name_of(seen, *id));
        self.log.write(seen, &outcome, first_byte, Some(key), trace.as_deref());
        if !outcome.complete {
            reset(&stream);
            return After::Close;
        }
        if keep_alive { After::Next(stream) } else { After::Close }
    }

    /// The way of a request only the origin can answer.
    async fn pass_on(
        &self,
        stream: Stream,
        connection: &mut Connection,
        seen: &Seen<'_>,
        buffer: &BytesMut,
        shutdown: &ShutdownWatch,
    ) -> After {
        let id = self.log.next_id();
        let (request_id, trace) = (id.text(), name_of(seen, id));
        let forwarding = Forwarding {
            client: connection.client,
            trusted: seen.site.trusts(connection.client),
            secure: false,
            request_id: &request_id,
        };
        let body = buffer.get(seen.head.length..taken_with(seen.head, buffer.len())).unwrap_or_default();
        let (next, outcome) = self.pass.run(stream, seen, body, &forwarding, shutdown).await;
        self.log.write(seen, &outcome, None, None, Some(&trace));
        match next {
            Some(stream) if seen.head.keep_alive && !connection.lease.is_draining() => After::Next(stream),
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
            keep_alive: keep_alive && !connection.lease.is_draining(),
            timer: &mut connection.timer,
            out: &mut connection.out,
            pipelined: &mut connection.pipelined,
            write_timeout: self.limits.write_timeout.get(),
            chunks_allowed: version == Version::Http11,
            says_keep_alive: version == Version::Http10,
            chunked: false,
            first_byte: None,
        }
    }

    /// Answers bytes that are no request, and closes.
    async fn refuse(&self, stream: &mut Stream, connection: &mut Connection, refusal: Refusal) {
        let started = clock::monotonic();
        let body = format!("{}\n", refusal.sentence());
        let mut answer = self.answer_on(stream, connection, Version::Http11, false);
        let mut fields = Vec::with_capacity(128);
        let detail = Some(Reason::MalformedRequest);
        write_dynamic(None, None, &CacheStatus { detail, ..CacheStatus::default() }, &mut fields);
        fields.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\n");
        answer.head(refusal.status(), &[&fields], BodyLength::Known(body.len() as u64));
        // A client that sent nonsense may not listen either.
        let _ = answer.body(&[body.as_bytes()]).await;
        self.log.refused(connection.client, refusal.as_str(), refusal.status(), body.len() as u64, started);
        linger(stream, &mut connection.timer).await;
    }

    async fn refuse_with(
        &self,
        stream: &mut Stream,
        connection: &mut Connection,
        method: Method,
        status: u16,
        reason: Reason,
    ) -> Outcome {
        self.log.count_refusal(reason.as_str());
        let mut answer = self.answer_on(stream, connection, Version::Http11, false);
        let forward = Some(Forward::Method).filter(|_| reason == Reason::Method);
        let cache_status = CacheStatus { forward, detail: Some(reason), ..CacheStatus::default() };
        let answered = crate::pipeline::failure::answer(status, method, cache_status, &mut answer).await;
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

/// Whether the cache has to do with a request: GET or HEAD, without a body, on this protocol.
fn is_cached(head: &Head<'_>) -> bool {
    let method = matches!(head.method, GateMethod::Get | GateMethod::Head);
    method && !head.framing.has_body() && !head.asks_for_websocket()
}

/// What is well-formed but not served.
fn refusal(head: &Head<'_>, site: &Site) -> Option<(u16, Reason)> {
    match head.method {
        // No tunnels; and TRACE would show a client what others added to its request.
        GateMethod::Other("CONNECT" | "TRACE") => Some((405, Reason::Method)),
        GateMethod::Get | GateMethod::Head if head.framing.has_body() && site.get_body == GetBody::Refuse => {
            Some((400, Reason::RequestBody))
        }
        _ => None,
    }
}

/// What a request is called in the log: what its origin was told, so a trusted proxy's own name for it comes first.
fn name_of(seen: &Seen<'_>, id: RequestId) -> String {
    let given = seen.head.fields.first("x-request-id").filter(|_| seen.site.trusts(seen.client));
    given.map_or_else(|| id.text(), |given| String::from_utf8_lossy(given).into_owned())
}

/// Closes the sending side and reads a bounded rest.
async fn linger(stream: &mut Stream, timer: &mut Timer) {
    use tokio::io::AsyncWriteExt;
    let _ = AsyncWriteExt::shutdown(stream).await;
    let deadline = clock::monotonic() + LINGER;
    let mut rest = BytesMut::new();
    while rest.len() < LINGER_BYTES_MAX && read_some(stream, &mut rest, timer, deadline, |_| false).await.is_ok() {}
}
