//! Missing bytes that are on their way: one fetch for all who want them.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::origin::Failure;
use crate::store::body::Sparse;
use crate::store::key::CacheKey;

/// Maps that are locked apart.
const SHARDS: usize = 64;

/// Why a run brings nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The origin has another representation by now, or gives no ranges of it any more.
    Changed,
    /// The origin does not give the ranges it is asked for.
    NoRanges,
    /// The origin answered with an error.
    Refused(u16),
    /// There is no room for it in memory.
    NoRoom,
    Failed(Failure),
}

/// A run of bytes of one body, from the origin's answer into the store. Readers take what is not there yet.
pub struct Run {
    pub range: Range<u64>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The answer is what was asked for.
    begun: bool,
    /// What came and is not in the store yet: from `stored` on.
    pieces: VecDeque<Bytes>,
    stored: u64,
    end: Option<Result<(), Broken>>,
}

/// What a reader finds.
#[derive(Debug)]
pub enum Next {
    Piece(Bytes),
    /// It went into the store.
    Stored,
    NotYet,
    Broken(Broken),
}

impl Run {
    pub fn new(range: Range<u64>) -> Arc<Self> {
        let state = State { stored: range.start, ..State::default() };
        Arc::new(Self { range, state: Mutex::new(state), changed: Notify::new() })
    }

    /// The origin has begun to send what was asked for.
    pub fn begin(&self) {
        self.state.lock().begun = true;
        self.changed.notify_waiters();
    }

    pub fn push(&self, piece: Bytes) {
        self.state.lock().pieces.push_back(piece);
        self.changed.notify_waiters();
    }

    /// Everything before this byte is in the store.
    pub fn stored(&self, to: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while let Some(first) = state.pieces.front_mut() {
            let fits = usize::try_from(to - state.stored).unwrap_or(usize::MAX).min(first.len());
            first.advance(fits);
            state.stored += fits as u64;
            if !first.is_empty() {
                return;
            }
            state.pieces.pop_front();
        }
    }

    pub fn end(&self, end: Result<(), Broken>) {
        self.state.lock().end.get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// The bytes at an offset, up to the end of the piece they lie in.
    pub fn next(&self, at: u64) -> Next {
        let state = self.state.lock();
        if at < state.stored {
            return Next::Stored;
        }
        let mut from = state.stored;
        for piece in &state.pieces {
            let end = from + piece.len() as u64;
            if at < end {
                return Next::Piece(piece.slice((at - from) as usize..));
            }
            from = end;
        }
        match state.end {
            // It ended before: whoever wants more asks again.
            Some(Ok(())) => Next::Stored,
            Some(Err(broken)) => Next::Broken(broken),
            None => Next::NotYet,
        }
    }

    /// Waits until the origin has begun to answer.
    ///
    /// # Errors
    /// It does not, or not with what was asked for.
    pub async fn begun(&self) -> Result<(), Broken> {
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.state.lock();
                match (state.begun, state.end) {
                    (true, _) | (_, Some(Ok(()))) => return Ok(()),
                    (false, Some(Err(broken))) => return Err(broken),
                    (false, None) => {}
                }
            }
            notified.await;
        }
    }

    /// Waits until [`Self::next`] has something to say.
    pub async fn ready(&self, at: u64) {
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !matches!(self.next(at), Next::NotYet) {
                return;
            }
            notified.await;
        }
    }
}

type BodyId = (CacheKey, u64);
type Shard = Mutex<HashMap<BodyId, Vec<Arc<Run>>>>;

/// The runs under way.
pub struct Runs(Box<[Shard]>);

/// What somebody who misses bytes gets.
pub enum Joined {
    /// A run that others have begun.
    UnderWay(Arc<Run>),
    /// A run to be fetched.
    New(Arc<Run>),
    /// They have come meanwhile.
    There,
}

impl Default for Runs {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Runs {
    /// The run that brings the byte at `at`: one that is under way, or a new one over the gap that `gap` begins with, which
    /// ends no later than that does and where another one begins.
    pub fn join_or_start(&self, body: &Sparse, at: u64, gap: Range<u64>) -> Joined {
        let mut runs = self.shard(body).lock();
        let others = runs.entry(id(body)).or_default();
        if let Some(run) = others.iter().find(|run| run.range.contains(&at)) {
            return Joined::UnderWay(run.clone());
        }
        // What one before it brings is not asked for twice.
        let before = others.iter().map(|run| run.range.end).filter(|end| *end <= at).max().unwrap_or(0);
        let (from, to) = (gap.start.max(before), gap.end);
        let next = others.iter().map(|run| run.range.start).filter(|start| *start > from).min();
        let end = body.gap_to(from..to.min(next.unwrap_or(u64::MAX)));
        if end == from {
            if others.is_empty() {
                runs.remove(&id(body));
            }
            return Joined::There;
        }
        let run = Run::new(from..end);
        others.push(run.clone());
        Joined::New(run)
    }

    /// Whether a run brings this byte.
    pub fn is_under_way(&self, body: &Sparse, at: u64) -> bool {
        let runs = self.shard(body).lock();
        runs.get(&id(body)).is_some_and(|runs| runs.iter().any(|run| run.range.contains(&at)))
    }

    /// Enters a run that has begun already.
    pub fn enter(&self, body: &Sparse, run: &Arc<Run>) {
        self.shard(body).lock().entry(id(body)).or_default().push(run.clone());
    }

    /// Nobody joins this run any more.
    pub fn leave(&self, body: &Sparse, run: &Arc<Run>) {
        let mut runs = self.shard(body).lock();
        if let Some(others) = runs.get_mut(&id(body)) {
            others.retain(|other| !Arc::ptr_eq(other, run));
            if others.is_empty() {
                runs.remove(&id(body));
            }
        }
    }

    /// Runs under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().values().map(Vec::len).sum::<usize>()).sum()
    }

    fn shard(&self, body: &Sparse) -> &Shard {
        &self.0[body.generation as usize % SHARDS]
    }
}

fn id(body: &Sparse) -> BodyId {
    (body.key, body.generation)
}
