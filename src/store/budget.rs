//! The memory budget and its shares.
//!
//! `memory` in the configuration is the whole: stored objects, fills in progress, buffers. Stored objects get a fixed
//! share, weighed with everything they cost; fills reserve from what is left before they keep a byte; the rest is for
//! connections and the node itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stored objects: 3/4 of the budget.
const OBJECTS_SHARE: (u64, u64) = (3, 4);
/// With a disk: half of it, as where everything on the disk is takes memory, and what waits to be written.
const OBJECTS_SHARE_WITH_DISK: (u64, u64) = (1, 2);
/// What is on disks, where there are any: 9/64 of the budget, just enough for maps of a power of two.
const INDEX_SHARE: (u64, u64) = (9, 64);
/// What waits to be written: 3/16 of the budget, and no more than a disk takes in a second.
const WRITES_SHARE: (u64, u64) = (3, 16);
const WRITES_MAX: u64 = 512 << 20;
/// Bodies of fills in progress: 1/8 of the budget.
const FILLS_SHARE: (u64, u64) = (1, 8);

/// The shares of one memory budget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What stored objects may weigh together.
    pub objects: u64,
    /// What fills in progress may hold together.
    pub fills: Pool,
    /// What waits to be written to disks.
    pub writes: Pool,
    /// What waits for a place among them. It stands in memory among the objects, unless it has left since.
    pub late: Pool,
    /// What the indexes of disks may take together.
    pub index: u64,
}

impl Budget {
    /// `disk`: there is one.
    pub fn new(memory: u64, disk: bool) -> Self {
        let share = |(part, whole)| memory / whole * part;
        Self {
            objects: share(if disk { OBJECTS_SHARE_WITH_DISK } else { OBJECTS_SHARE }),
            fills: Pool::new(share(FILLS_SHARE)),
            writes: Pool::new(if disk { share(WRITES_SHARE).min(WRITES_MAX) } else { 0 }),
            late: Pool::new(if disk { share(OBJECTS_SHARE_WITH_DISK) / 2 } else { 0 }),
            index: if disk { share(INDEX_SHARE) } else { 0 },
        }
    }
}

/// A number of bytes that may be reserved.
#[derive(Clone, Debug)]
pub struct Pool(Arc<PoolState>);

#[derive(Debug)]
struct PoolState {
    limit: u64,
    used: AtomicU64,
}

impl Pool {
    fn new(limit: u64) -> Self {
        Self(Arc::new(PoolState { limit, used: AtomicU64::new(0) }))
    }

    /// An empty reservation, to be grown.
    pub fn reservation(&self) -> Reservation {
        Reservation { pool: self.clone(), bytes: 0 }
    }

    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// Bytes taken from a pool; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    pool: Pool,
    bytes: u64,
}

impl Reservation {
    /// What is reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes` more, or nothing.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let state = &self.pool.0;
        let taken = state.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|total| *total <= state.limit)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_no_more_than_it_has_and_gets_it_back() {
        let pool = Pool::new(100);
        let mut one = pool.reservation();
        let mut two = pool.reservation();
        assert!(one.grow(60));
        assert!(!two.grow(41));
        assert!(two.grow(40));
        drop(one);
        assert_eq!(pool.used(), 40);
        assert!(two.grow(60));
        drop(two);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn shares_leave_room_for_connections() {
        for disk in [false, true] {
            let budget = Budget::new(256 << 20, disk);
            assert!(budget.objects + budget.fills.limit() + budget.writes.limit() + budget.index < 256 << 20);
        }
    }
}
