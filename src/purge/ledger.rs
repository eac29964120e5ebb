//! The ledger of invalidations: pure bookkeeping on atomics, no I/O and no clock.
//!
//! Selectors so far: one key. Keys share buckets, so the ledger has a fixed size however many keys are invalidated; two
//! keys in one bucket can only cause a miss too many, never a stale answer.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::key::CacheKey;

/// Buckets of the per-key selectors: 512 KiB. One invalidation makes 1 in 65,536 unrelated keys a miss.
const BUCKETS: usize = 1 << 16;

/// A point in the order of invalidations. Larger is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(u64);

impl Position {
    /// For storing beside a record in an atomic; compares as the position does.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// What the ledger says about a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No invalidation concerns it up to this position.
    Live(Position),
    /// Invalidated: a miss. Never served, its validators never used.
    Gone,
}

/// What was invalidated, and when in the order of invalidations.
pub struct Ledger {
    /// Every entry up to here is in its bucket. Published last, loaded first.
    applied: AtomicU64,
    buckets: Box<[AtomicU64]>,
    /// Writers take turns, so that `applied` never runs ahead of an entry still being written.
    writer: Mutex<()>,
}

impl Default for Ledger {
    fn default() -> Self {
        // Position 0 is "before everything": a fresh node starts at 1 so that a zeroed record can never look live.
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { applied: AtomicU64::new(1), buckets, writer: Mutex::new(()) }
    }
}

impl Ledger {
    /// The last position whose entries are all visible. A fill notes it before it asks its origin.
    pub fn applied(&self) -> Position {
        Position(self.applied.load(Ordering::Acquire))
    }

    /// Everything stored under `key` by fills that began until now is gone.
    pub fn invalidate(&self, key: &CacheKey) -> Position {
        let _turn = self.writer.lock();
        let position = self.applied.load(Ordering::Relaxed) + 1;
        self.bucket(key).store(position, Ordering::Relaxed);
        self.applied.store(position, Ordering::Release);
        Position(position)
    }

    /// Judges a response stored under `key` by a fill that began at `fill_pos`.
    pub fn judge(&self, key: &CacheKey, fill_pos: Position) -> Verdict {
        let applied = self.applied();
        let invalidated = Position(self.bucket(key).load(Ordering::Relaxed));
        if invalidated > fill_pos || fill_pos > applied { Verdict::Gone } else { Verdict::Live(applied) }
    }

    fn bucket(&self, key: &CacheKey) -> &AtomicU64 {
        &self.buckets[key.low_u64() as usize % BUCKETS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> CacheKey {
        CacheKey::from_bytes([n; 16])
    }

    #[test]
    fn what_began_before_an_invalidation_is_gone_and_what_began_after_is_live() {
        let ledger = Ledger::default();
        let before = ledger.applied();
        assert_eq!(ledger.judge(&key(1), before), Verdict::Live(before));
        let at = ledger.invalidate(&key(1));
        assert_eq!(ledger.judge(&key(1), before), Verdict::Gone);
        assert_eq!(ledger.judge(&key(2), before), Verdict::Live(at), "another key is untouched");
        assert_eq!(ledger.judge(&key(1), at), Verdict::Live(at));
        assert!(ledger.invalidate(&key(1)) > at);
        assert_eq!(ledger.judge(&key(1), at), Verdict::Gone);
    }

    #[test]
    fn a_position_from_the_future_is_gone() {
        let ledger = Ledger::default();
        assert_eq!(ledger.judge(&key(1), Position(99)), Verdict::Gone);
    }

    #[test]
    fn keys_that_share_a_bucket_only_miss_more() {
        let ledger = Ledger::default();
        let mut other = [7; 16];
        other[15] = 8;
        let before = ledger.applied();
        ledger.invalidate(&key(7));
        assert_eq!(ledger.judge(&CacheKey::from_bytes(other), before), Verdict::Gone);
    }
}
