//! A run of bytes of one body, from the origin's answer into the store: one writer, any number of readers.
//!
//! The writer stays within what was set of the fastest reader, so that no more is fetched than clients read. Without
//! readers, once there were some, it ends soon: what has come is kept.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use edge_config::section::limits::{CHUNK_BYTES, READ_AHEAD_MAX};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::origin::Failure;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::store::fill::readers::Readers;

/// Why a run brings nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The origin has another representation by now.
    Changed,
    /// The origin does not give the ranges it is asked for.
    NoRanges,
    /// The origin answered with an error.
    Refused(u16),
    Failed(Failure),
}

/// A run.
pub struct Run {
    pub range: Range<u64>,
    state: Mutex<State>,
    /// Wakes readers: a piece or the end is there.
    changed: Notify,
    /// Wakes the writer: a reader came, went on or went away.
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// How far the answers reach that were what was asked for.
    answered_to: u64,
    /// Chunks that are in the store, for readers that are not far behind: from `from` to `tail_from`.
    sealed: VecDeque<Bytes>,
    from: u64,
    /// What came after them, as it came.
    tail: VecDeque<Bytes>,
    tail_from: u64,
    received: u64,
    end: Option<Result<(), Broken>>,
    readers: Readers,
    had_readers: bool,
    /// How far the writer may be ahead of the fastest reader; none: one piece at a time.
    ahead: u64,
    /// Nothing goes into the store: what readers have taken is forgotten.
    passes: bool,
}

/// What a reader finds.
#[derive(Debug)]
pub enum Next {
    Piece(Bytes),
    /// Not here: if anywhere, it is in the store.
    Elsewhere,
    NotYet,
    Broken(Broken),
}

impl Run {
    pub fn new(range: Range<u64>) -> Arc<Self> {
        let (from, tail_from, received) = (range.start, range.start, range.start);
        let state = State { from, tail_from, received, ..State::default() };
        Arc::new(Self { range, state: Mutex::new(state), changed: Notify::new(), moved: Notify::new() })
    }

    /// What it still has or will bring: what came before is in the store, or lost.
    pub fn brings(&self) -> Range<u64> {
        self.state.lock().from..self.range.end
    }

    /// Joins as a reader of what begins at `at`.
    pub fn join(self: &Arc<Self>, at: u64) -> RunReader {
        let mut state = self.state.lock();
        state.had_readers = true;
        let slot = state.readers.add(at);
        RunReader { run: self.clone(), slot, at }
    }

    /// The origin has begun to send what was asked for, up to `to`. `ahead`: how far it may be read ahead of readers;
    /// `passes`: what readers have taken is not kept.
    pub fn begin(&self, to: u64, ahead: u64, passes: bool) {
        let mut state = self.state.lock();
        (state.answered_to, state.ahead, state.passes) = (to, ahead, passes);
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn push(&self, piece: Bytes) {
        let mut state = self.state.lock();
        state.received += piece.len() as u64;
        state.tail.push_back(piece);
        state.forget();
        drop(state);
        self.changed.notify_waiters();
    }

    /// These bytes, which came first of those that are not in the store yet, are there now.
    pub fn stored(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        let mut left = bytes.len();
        while let Some(mut piece) = state.tail.pop_front() {
            let fits = left.min(piece.len());
            left -= fits;
            if fits < piece.len() {
                state.tail.push_front(piece.split_off(fits));
                break;
            }
        }
        state.tail_from += bytes.len() as u64;
        state.sealed.push_back(bytes);
        state.forget();
    }

    pub fn end(&self, end: Result<(), Broken>) {
        self.state.lock().end.get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// Waits until the writer may take the next piece. False: nobody wants it any more.
    pub async fn may_go_on(&self) -> bool {
        loop {
            let notified = self.moved.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(goes_on) = self.state.lock().pace(self.range.end) {
                return goes_on;
            }
            notified.await;
        }
    }
}

impl State {
    /// Whether the writer may go on; none: readers have to come nearer first.
    fn pace(&self, end: u64) -> Option<bool> {
        let left = end.saturating_sub(self.received);
        match self.readers.fastest() {
            Some(fastest) => {
                let ahead = self.received.saturating_sub(fastest);
                (ahead == 0 || ahead < self.ahead).then_some(true)
            }
            None if self.had_readers => Some(!self.passes && left <= READ_AHEAD_MAX),
            None => Some(true),
        }
    }

    /// Forgets what is in the store and no reader needs soon; of what is not in the store, what all have taken.
    fn forget(&mut self) {
        let lagging = self.received.saturating_sub(self.ahead + CHUNK_BYTES as u64);
        let needed_from = self.readers.slowest().unwrap_or(self.received).max(lagging);
        // The fastest loses nothing.
        let keep_from = self.readers.fastest().map_or(needed_from, |fastest| needed_from.min(fastest));
        while let Some(chunk) = self.sealed.front().filter(|chunk| self.from + chunk.len() as u64 <= keep_from) {
            self.from += chunk.len() as u64;
            self.sealed.pop_front();
        }
        let forgets_all = self.passes;
        #[cfg(test)]
        let forgets_all = forgets_all || planted(Planted::RunForgetsTooEarly);
        if !forgets_all {
            return;
        }
        while let Some(piece) = self.tail.front().filter(|piece| self.tail_from + piece.len() as u64 <= keep_from) {
            self.tail_from += piece.len() as u64;
            self.from = self.tail_from;
            self.tail.pop_front();
        }
    }

    /// The bytes at an offset, up to the end of the piece they lie in.
    fn next(&self, at: u64) -> Next {
        if at < self.from {
            return Next::Elsewhere;
        }
        let mut from = self.from;
        for piece in self.sealed.iter().chain(&self.tail) {
            let end = from + piece.len() as u64;
            if at < end {
                return Next::Piece(piece.slice((at - from) as usize..));
            }
            from = end;
        }
        match self.end {
            // It ended before: whoever wants more asks again.
            Some(Ok(())) => Next::Elsewhere,
            Some(Err(broken)) => Next::Broken(broken),
            None => Next::NotYet,
        }
    }
}

/// One reader of a run. Dropping it leaves the run.
pub struct RunReader {
    run: Arc<Run>,
    slot: usize,
    at: u64,
}

impl RunReader {
    pub fn range(&self) -> &Range<u64> {
        &self.run.range
    }

    /// Waits until the origin has begun to send what the reader begins with: it may give less than it was asked for, and
    /// have another representation when it is asked for the rest.
    ///
    /// # Errors
    /// It does not, or not what was asked for.
    pub async fn begun(&self) -> Result<(), Broken> {
        loop {
            let notified = self.run.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.run.state.lock();
                let is_answered = state.answered_to > self.at;
                #[cfg(test)]
                let is_answered = is_answered || state.answered_to > 0 && planted(Planted::RunBegunTooEarly);
                match (is_answered, state.end) {
                    (true, _) | (_, Some(Ok(()))) => return Ok(()),
                    (false, Some(Err(broken))) => return Err(broken),
                    (false, None) => {}
                }
            }
            notified.await;
        }
    }

    /// The bytes at an offset, which all before it have been taken of.
    pub fn next(&mut self, at: u64) -> Next {
        let mut state = self.run.state.lock();
        if at != self.at {
            self.at = at;
            state.readers.move_to(self.slot, at);
            state.forget();
            self.run.moved.notify_one();
        }
        state.next(at)
    }

    /// Waits until [`Self::next`] has something to say.
    pub async fn ready(&self) {
        loop {
            let notified = self.run.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !matches!(self.run.state.lock().next(self.at), Next::NotYet) {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for RunReader {
    fn drop(&mut self) {
        let mut state = self.run.state.lock();
        state.readers.remove(self.slot);
        state.forget();
        drop(state);
        self.run.moved.notify_one();
    }
}
