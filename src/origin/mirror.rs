//! Copies of requests for a group that nobody waits for.
//!
//! A copy has a thread, a pool of connections and counts of its own: what becomes of it touches neither the workers that
//! serve clients nor what is known of origins. Of a group that does not answer, the cost for a request is a look at two
//! numbers: room is bounded, and a [`Fuse`] blows.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use pingora::BError;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use prometheus::IntCounter;
use tokio::runtime::Runtime;

use super::Failure;
use super::balance::random::mix;
use super::drains::Phase;
use super::fetch::{send_head, target_for};
use super::fuse::Fuse;
use super::group::{Group, Member};
use super::member::Standing;
use super::prepare::{Payload, prepare};
use super::roster::Placed;
use crate::clock;
use crate::semantics::fields::Fields;

/// What says that a request is a copy; one that is, is not copied again.
pub const MARK: &str = "x-littoral-mirror";
/// Of an answer so much is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A copy of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub method: String,
    /// Path and query, as the group is asked for them.
    pub target: Vec<u8>,
    /// The `Host` the client sent.
    pub host: Vec<u8>,
    /// Field lines, without `host` and those of framing.
    pub fields: Vec<u8>,
    pub body: Bytes,
    pub client: IpAddr,
}

/// Why a request that was to be copied is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCopied {
    /// As many copies are under way as may be.
    Busy,
    /// The group does not answer.
    Down,
    /// Its body is longer than is copied.
    TooLong,
    /// Its body did not come to its end.
    Incomplete,
}

impl NotCopied {
    const ALL: [Self; 4] = [Self::Busy, Self::Down, Self::TooLong, Self::Incomplete];

    /// The label in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Down => "down",
            Self::TooLong => "body-too-long",
            Self::Incomplete => "body-incomplete",
        }
    }
}

/// Where copies are sent from: a thread and a pool of connections, both from the first copy on.
#[derive(Default)]
pub struct Copying {
    started: OnceLock<Option<(Runtime, Arc<Connector>)>>,
}

impl Copying {
    fn start() -> Option<(Runtime, Arc<Connector>)> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("copies").enable_all().build();
        match runtime {
            Ok(runtime) => Some((runtime, Arc::new(Connector::new(None)))),
            Err(error) => {
                tracing::error!(%error, "no thread for copies of requests: none are sent");
                None
            }
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(Some((runtime, _))) = self.started.take() {
            // Whoever drops it must not wait.
            runtime.shutdown_background();
        }
    }
}

/// A group as a target of copies.
pub struct Mirror {
    group: Arc<Group>,
    known: Arc<Known>,
    /// Counted from the first time on that there is something to count.
    dropped: [OnceLock<IntCounter>; NotCopied::ALL.len()],
}

/// What a new configuration goes on with.
#[derive(Default)]
struct Known {
    under_way: AtomicU32,
    draws: AtomicU64,
    fuse: Mutex<Fuse>,
}

/// Room for one copy, given back on drop.
pub struct Room(Arc<Mirror>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.known.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mirror {
    /// What is known of `previous` is kept.
    pub fn new(group: Arc<Group>, previous: Option<&Self>) -> Arc<Self> {
        let known = previous.map(|mirror| mirror.known.clone()).unwrap_or_default();
        Arc::new(Self { group, known, dropped: Default::default() })
    }

    /// Whether the next request is among so many of a hundred.
    pub fn draws(&self, percent: u32) -> bool {
        percent >= 100 || mix(self.known.draws.fetch_add(1, Ordering::Relaxed)) % 100 < u64::from(percent)
    }

    /// Room for a copy, of `most` that may be under way. It never waits.
    pub fn room(self: &Arc<Self>, most: u32) -> Option<Room> {
        let under_way = self.known.under_way.fetch_add(1, Ordering::Relaxed);
        let room = Room(self.clone());
        if under_way >= most {
            self.dropped(NotCopied::Busy);
            return None;
        }
        if !self.known.fuse.lock().admit(clock::monotonic()) {
            self.dropped(NotCopied::Down);
            return None;
        }
        Some(room)
    }

    /// Counts a request that is not copied.
    pub fn dropped(&self, why: NotCopied) {
        let Some(count) = self.dropped.get(why as usize) else { return };
        let settings = self.group.settings();
        let metrics = &self.group.origins.metrics;
        count.get_or_init(|| metrics.mirror_dropped(settings.index, &settings.group, why.as_str())).inc();
    }

    async fn send(&self, connector: &Connector, duplicate: Duplicate) {
        let sent = self.ask(connector, duplicate).await;
        let outcome = match &sent {
            Ok(()) => "answered",
            Err(failure) => failure.outcome(),
        };
        let settings = self.group.settings();
        self.group.origins.metrics.mirrored(settings.index, &settings.group, outcome);
        let mut fuse = self.known.fuse.lock();
        match sent {
            Ok(()) => fuse.answered(),
            Err(_) => fuse.failed(clock::monotonic()),
        }
    }

    async fn ask(&self, connector: &Connector, duplicate: Duplicate) -> Result<(), Failure> {
        let member = self.member().ok_or(Failure::Unreachable)?;
        let timeouts = member.peer.origin().timeouts;
        let peer = member.to_connect(timeouts.connect.get(), Some(duplicate.client));
        let connecting = tokio::time::timeout(timeouts.connect.get(), connector.get_http_session(&peer)).await;
        let (mut session, _) = connecting.map_err(|_| Failure::Unreachable)?.map_err(|_| Failure::Unreachable)?;
        if !member.peer.accepts(session.digest()) {
            return Err(Failure::Unreachable);
        }
        let header = header(&member, &duplicate).and_then(|header| target_for(&session, &peer, header));
        let header = header.ok_or(Failure::Malformed)?;
        let exchange = async {
            exchange(&mut session, header, duplicate.body).await?;
            Ok::<_, BError>(())
        };
        match tokio::time::timeout(timeouts.first_byte.get(), exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::Closed),
            Err(_) => return Err(Failure::FirstByteTimeout),
        }
        // It has answered. What is left is for the connection's sake.
        let rest = read_to_the_end(session, connector, &peer, timeouts.idle.get());
        let _ = tokio::time::timeout(timeouts.between_bytes.get(), rest).await;
        Ok(())
    }

    /// One that is up, in turn, of the lowest tier that has one.
    fn member(&self) -> Option<Arc<Member>> {
        let (now, roster) = (clock::monotonic(), self.group.roster());
        let is_open = |placed: &&Placed| self.group.phase(placed, now) == Phase::Open;
        let up = || roster.iter().filter(|placed| placed.member.standing(now) == Standing::Up).filter(is_open);
        let rank = up().map(|placed| placed.rank).min()?;
        let first: Vec<&Arc<Member>> = up().filter(|placed| placed.rank == rank).map(|placed| &placed.member).collect();
        let turn = self.known.draws.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(turn).unwrap_or_default().checked_rem(first.len())?;
        first.get(at).map(|member| Arc::clone(member))
    }
}

impl Room {
    /// Sends the copy, some time. Nobody waits for it.
    pub fn send(self, duplicate: Duplicate) {
        let origins = self.0.group.origins.clone();
        let Some((runtime, connector)) = origins.copying.started.get_or_init(Copying::start) else { return };
        let connector = connector.clone();
        runtime.spawn(async move { self.0.send(&connector, duplicate).await });
    }

    /// Gives it back: the request is not copied.
    pub fn give_back(self, why: NotCopied) {
        self.0.dropped(why);
    }
}

fn header(member: &Member, duplicate: &Duplicate) -> Option<RequestHeader> {
    let fields = Fields::new(&duplicate.fields);
    let mut header = RequestHeader::build_no_case(duplicate.method.as_str(), &duplicate.target, None).ok()?;
    for line in fields.lines() {
        let name = http::HeaderName::from_bytes(line.name).ok()?;
        header.append_header(name, http::HeaderValue::from_bytes(line.value).ok()?).ok()?;
    }
    header.insert_header(MARK, "1").ok()?;
    if !duplicate.body.is_empty() {
        header.insert_header(http::header::CONTENT_LENGTH, duplicate.body.len()).ok()?;
    }
    let payload = if duplicate.body.is_empty() { Payload::Empty } else { Payload::Streamed };
    prepare(member, &member.host_header(&duplicate.host), payload, clock::wall(), &mut header)?;
    Some(header)
}

/// Sends a request and reads the head of its answer.
async fn exchange(session: &mut HttpSession, header: RequestHeader, body: Bytes) -> Result<(), BError> {
    if body.is_empty() {
        send_head(session, header).await?;
    } else {
        session.write_request_header(Box::new(header)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
    }
    loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(head) if head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS => {}
            _ => return Ok(()),
        }
    }
}

async fn read_to_the_end(
    mut session: HttpSession,
    connector: &Connector,
    peer: &HttpPeer,
    idle: std::time::Duration,
) -> Result<(), BError> {
    let mut read = 0;
    while !session.response_done() {
        let Some(piece) = session.read_response_body().await? else { break };
        read += piece.len();
        if read > ANSWER_BYTES_MAX {
            return Ok(());
        }
    }
    if session.response_done() {
        connector.release_http_session(session, peer, Some(idle)).await;
    }
    Ok(())
}
