//! A response that is arriving: one writer, any number of readers.
//!
//! A fill belongs to no client. Readers wait for its head, then take the body at their own pace; each keeps only an
//! offset. While the response is stored in full the writer runs ahead of everybody; otherwise it stays within
//! [`READ_AHEAD_MAX`] of the fastest reader and keeps at most [`RETAINED_MAX`] for the others. A fill that fails says so
//! to every reader: there is no way to read a clean end from it.

pub mod reader;
pub mod readers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use edge_config::section::limits::{ABANDONED_REMAINDER_MAX, READ_AHEAD_MAX, RETAINED_MAX};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::reader::Reader;
use self::readers::Readers;
use crate::origin::Failure;
use crate::purge::position::{LogPosition, Position};
use crate::purge::selector::OwnedSelectors;
use crate::semantics::cache_status::Reason;
use crate::semantics::content_range::ContentRange;
use crate::semantics::reuse::Freshness;
use crate::semantics::time::DeltaSeconds;
use crate::store::body::Sparse;
use crate::store::budget::Reservation;
use crate::store::key::CacheKey;
use crate::store::record::StoredResponse;

/// What is known once the response head is there.
pub struct FillHead {
    pub status: u16,
    /// End-to-end field lines, without `content-length`; without `age` if the response is stored.
    pub fields: Box<[u8]>,
    /// The `Cache-Status` of caches behind us.
    pub upstream_status: Option<Box<[u8]>>,
    /// The length of the body, if the origin said it.
    pub length: Option<u64>,
    /// Whether it is being stored, and so whether followers may share it.
    pub sharing: Sharing,
    /// The status of the origin's own answer: 304 where a stored response was revalidated.
    pub origin_status: u16,
    /// Connections that failed before the one that answered.
    pub retries: u32,
    /// The index of the origin that answered.
    pub origin: usize,
    /// The lifetime that is left for browsers, where a rule says so.
    pub browser_ttl: Option<DeltaSeconds>,
    /// Field lines that other nodes get: what it is purged by, and what a rule keeps from browsers.
    pub for_nodes: Box<[u8]>,
    /// Which part of the representation the body is, where it is not all of it.
    pub part: Option<ContentRange>,
    /// The finished response, where it was complete when the head was published; or one that stands apart from its body.
    pub record: Option<Arc<StoredResponse>>,
}

/// Whether a response may be given to anybody but the request it answers.
pub enum Sharing {
    /// It is being stored: others may share it if these values select it for them too.
    Stored { freshness: Freshness, selecting: Option<Selecting>, selectors: Arc<OwnedSelectors> },
    /// It answers the request that started the fill and no other.
    NotStored(Reason),
}

/// The request fields a response varies on, and the values that selected it.
pub struct Selecting {
    pub names: Vec<Box<str>>,
    pub values: Vec<u8>,
}

/// The memory a body may take while it arrives.
pub enum Room {
    /// All of it, as it is reserved.
    Keep(Reservation),
    /// What is not on a disk yet.
    Spill(Sparse),
    /// Only what is read ahead.
    Pass(Reservation),
    /// None: it is there already.
    Nothing,
}

/// How a fill ended.
#[derive(Clone)]
enum End {
    Complete,
    Failed(Failure),
}

/// A response that is arriving.
pub struct Fill {
    /// What a look-up for it would use: the primary key, or a variant's.
    pub key: CacheKey,
    /// The ledger position before anybody was asked.
    began: Position,
    /// Where another node answered: the position in the log at which it judged that, if earlier.
    judged: AtomicU64,
    state: Mutex<State>,
    /// Wakes readers: a head, a piece or the end is there.
    changed: Notify,
    /// Wakes the writer: a reader took something, came or went.
    room: Notify,
    /// The origin is being asked, or has been.
    asked: AtomicBool,
}

/// An interim response of the origin: 103, mostly.
#[derive(Debug, PartialEq, Eq)]
pub struct Interim {
    pub status: u16,
    /// End-to-end field lines.
    pub fields: Vec<u8>,
}

/// Interim responses that are passed on; an origin that sends more is not believed.
const INTERIMS_MAX: usize = 8;

#[derive(Default)]
struct State {
    interims: Vec<Arc<Interim>>,
    head: Option<Arc<FillHead>>,
    /// Whole chunks, the first of which starts at `retained_from`.
    sealed: VecDeque<Bytes>,
    retained_from: u64,
    /// What came after the last whole chunk, as it came.
    tail: Vec<Bytes>,
    tail_from: u64,
    received: u64,
    end: Option<End>,
    readers: Readers,
    /// Kept in full until it is stored; otherwise only as far as readers need it.
    keeping: bool,
    /// Started for nobody: goes on without readers.
    background: bool,
    abandoned_at: Option<u64>,
    /// Where readers find what is not in memory any more, and how far.
    spill: Option<(Sparse, u64)>,
    /// How far the writer may run ahead of the fastest reader of a body that is not kept.
    read_ahead: u64,
    reservation: Option<Reservation>,
}

/// What the writer may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Take the next piece from the origin.
    Go,
    /// Readers have to catch up first.
    Wait,
    /// Nobody needs it any more.
    Stop,
}

impl State {
    fn pace(&self) -> Pace {
        if self.readers.count() > 0 {
            let ahead = self.received.saturating_sub(self.readers.fastest().unwrap_or(0));
            return if self.keeping || ahead == 0 || ahead < self.read_ahead { Pace::Go } else { Pace::Wait };
        }
        let length = self.head.as_ref().and_then(|head| head.length);
        let remaining = match (length, self.abandoned_at) {
            (Some(length), _) => length.saturating_sub(self.received),
            (None, Some(abandoned_at)) => self.received.saturating_sub(abandoned_at),
            (None, None) => 0,
        };
        let goes_on =
            self.head.is_none() || (self.keeping && (self.background || remaining <= ABANDONED_REMAINDER_MAX));
        if goes_on { Pace::Go } else { Pace::Stop }
    }

    /// Forgets what no reader needs, or what slow readers have lost their claim to.
    fn forget(&mut self) {
        if self.keeping {
            return;
        }
        let needed_from = self.readers.slowest().unwrap_or(self.received);
        let lagging = needed_from.max(self.received.saturating_sub(RETAINED_MAX));
        // The fastest loses nothing, however far behind it is: while all was kept the writer did not wait for it.
        let keep_from =
            if self.readers.count() > 0 { lagging.min(self.readers.fastest().unwrap_or(0)) } else { lagging };
        while let Some(chunk) = self.sealed.front() {
            let end = self.retained_from + chunk.len() as u64;
            if end > keep_from {
                return;
            }
            self.retained_from = end;
            self.sealed.pop_front();
        }
        let mut dropped = 0;
        for piece in &self.tail {
            let end = self.tail_from + piece.len() as u64;
            if end > keep_from {
                break;
            }
            self.tail_from = end;
            dropped += 1;
        }
        self.tail.drain(..dropped);
        if self.sealed.is_empty() {
            self.retained_from = self.tail_from;
        }
    }

    /// The bytes from `offset` on, up to the end of the piece they lie in.
    fn read(&self, offset: u64) -> Read {
        if offset < self.retained_from {
            return match &self.spill {
                Some((on_disk, to)) if offset < *to => Read::OnDisk(on_disk.clone()),
                _ => Read::Lost,
            };
        }
        if offset < self.tail_from {
            let mut from = self.retained_from;
            for chunk in &self.sealed {
                let end = from + chunk.len() as u64;
                if offset < end {
                    return Read::piece(chunk, offset - from);
                }
                from = end;
            }
        }
        let mut from = self.tail_from;
        for piece in &self.tail {
            let end = from + piece.len() as u64;
            if offset < end {
                return Read::piece(piece, offset - from);
            }
            from = end;
        }
        match &self.end {
            Some(End::Complete) => Read::End,
            Some(End::Failed(failure)) => Read::Failed(*failure),
            None => Read::NotYet,
        }
    }
}

enum Read {
    Piece(Bytes),
    OnDisk(Sparse),
    NotYet,
    End,
    Lost,
    Failed(Failure),
}

impl Read {
    fn piece(bytes: &Bytes, skip: u64) -> Self {
        Self::Piece(bytes.slice(usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len())..))
    }
}

impl Fill {
    /// A fill that begins now; `fill_pos` was read from the ledger before anything was asked.
    pub fn new(key: CacheKey, fill_pos: Position) -> Arc<Self> {
        let state = Mutex::new(State::default());
        let (changed, room, asked) = (Notify::new(), Notify::new(), AtomicBool::new(false));
        let judged = AtomicU64::new(fill_pos.log.as_u64());
        Arc::new(Self { key, began: fill_pos, judged, state, changed, room, asked })
    }

    /// Up to where purges are known not to concern what it brings.
    pub fn fill_pos(&self) -> Position {
        Position { log: LogPosition::from_u64(self.judged.load(Ordering::Acquire)), ..self.began }
    }

    /// The node that answered judged that at this position in the log. Before the head is published.
    pub fn judged_at(&self, position: LogPosition) {
        self.judged.fetch_min(position.as_u64(), Ordering::AcqRel);
    }

    /// The origin is asked from now on: the answer may be older than who comes later.
    pub fn asks(&self) {
        self.asked.store(true, Ordering::Release);
    }

    pub fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Resolves when the origin has answered, or will not.
    pub async fn answered(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                if state.head.is_some() || state.end.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// A fill that no client waits for.
    pub fn background(key: CacheKey, fill_pos: Position) -> Arc<Self> {
        let fill = Self::new(key, fill_pos);
        fill.state.lock().background = true;
        fill
    }

    /// Joins as a reader from the first byte on, if that can still be had and others may share it.
    pub fn join(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        let shareable = state.head.as_ref().is_none_or(|head| matches!(head.sharing, Sharing::Stored { .. }));
        let is_lost = matches!(state.read(0), Read::Lost);
        if !shareable || is_lost || matches!(state.end, Some(End::Failed(_))) {
            return None;
        }
        state.abandoned_at = None;
        let slot = state.readers.add(0);
        Some(Reader { fill: self.clone(), slot, offset: 0 })
    }

    /// Adds an interim response.
    pub fn push_interim(&self, status: u16, fields: Vec<u8>) {
        let mut state = self.state.lock();
        if state.interims.len() < INTERIMS_MAX {
            state.interims.push(Arc::new(Interim { status, fields }));
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Publishes the head. The body is kept until it is stored if `room` says so; otherwise the room is for reading
    /// ahead, and without any the writer takes one piece at a time.
    pub fn publish_head(&self, head: FillHead, room: Room) {
        let length = head.length;
        let mut state = self.state.lock();
        state.head = Some(Arc::new(head));
        match room {
            Room::Keep(reservation) => {
                state.keeping = true;
                state.read_ahead = READ_AHEAD_MAX;
                state.reservation = Some(reservation);
            }
            Room::Pass(mut reservation) => {
                // A short answer takes no more than it is: many of them at once must not crowd out what can be stored.
                let ahead = length.unwrap_or(READ_AHEAD_MAX).min(READ_AHEAD_MAX);
                state.read_ahead = if reservation.grow(ahead) { ahead } else { 0 };
                state.reservation = Some(reservation);
            }
            Room::Spill(on_disk) => {
                state.keeping = true;
                state.read_ahead = READ_AHEAD_MAX;
                state.spill = Some((on_disk, 0));
            }
            Room::Nothing => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The response cannot be kept in full after all: from here on only as far as readers need it.
    pub fn stop_keeping(&self) {
        let mut state = self.state.lock();
        state.keeping = false;
        state.forget();
    }

    /// What is kept does not fit into memory: it is on a disk as far as [`Self::spilled`] says, and the memory is given back.
    pub fn spill(&self, on_disk: Sparse) {
        let mut state = self.state.lock();
        state.spill = Some((on_disk, 0));
        state.reservation = None;
    }

    /// Whether a reader has read everything there is.
    pub fn somebody_waits(&self) -> bool {
        let state = self.state.lock();
        state.readers.count() > 0 && state.readers.fastest().unwrap_or(0) == state.received
    }

    /// The body is on a disk as far as this: readers that are behind find it there.
    pub fn spilled(&self, to: u64) {
        let mut state = self.state.lock();
        if let Some((_, spilled)) = &mut state.spill {
            *spilled = to;
        }
        while let Some(chunk) = state.sealed.front() {
            let end = state.retained_from + chunk.len() as u64;
            if end > to {
                return;
            }
            state.retained_from = end;
            state.sealed.pop_front();
        }
    }

    /// How far a response that is kept has come, once that is known of it; and it has a length, so that ranges of it can be
    /// served as they pass.
    pub fn received(&self) -> Option<u64> {
        let state = self.state.lock();
        let head = state.head.as_ref()?;
        (state.keeping && head.length.is_some()).then_some(state.received)
    }

    /// Grows the reservation of a fill that is kept.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> bool {
        self.state.lock().reservation.as_mut().is_some_and(|reservation| reservation.grow(bytes))
    }

    /// Adds a piece of the body.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.state.lock();
        state.received += piece.len() as u64;
        state.tail.push(piece);
        state.forget();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Replaces the pieces of a whole chunk by the chunk: readers' offsets stay, the network's buffers go.
    pub fn seal(&self, chunk: Bytes, rest: Option<Bytes>) {
        let mut state = self.state.lock();
        if !state.keeping {
            return;
        }
        state.tail_from += chunk.len() as u64;
        state.sealed.push_back(chunk);
        state.tail = rest.into_iter().collect();
    }

    /// Ends the fill: everything it promised has been pushed.
    pub fn complete(&self) {
        self.end(End::Complete);
    }

    /// Ends the fill for every reader: none of them reads a clean end.
    pub fn fail(&self, failure: Failure) {
        self.end(End::Failed(failure));
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until the writer may take the next piece. False: nobody needs it any more.
    pub async fn may_go_on(&self) -> bool {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match self.state.lock().pace() {
                Pace::Go => return true,
                Pace::Stop => return false,
                Pace::Wait => {}
            }
            notified.await;
        }
    }
}
