//! Keys whose last answer could not be shared (hit-for-miss): the next requests do not queue behind one another.

use std::time::Duration;

use moka::sync::Cache;

use crate::purge::ledger::{Ledger, Position, Verdict};
use crate::store::key::CacheKey;

/// Marks kept at most: about 8 MiB. One too few costs one queue, nothing else.
const MARKS_MAX: u64 = 1 << 16;
/// How long a mark holds. As long as Varnish's default; a stored answer lifts it at once.
const MARK_FOR: Duration = Duration::from_secs(120);

/// Bounded, expiring marks. Each carries the position its answer was asked at, so that an invalidation lifts it.
pub struct Marks(Cache<CacheKey, Position>);

impl Default for Marks {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MARKS_MAX).time_to_live(MARK_FOR).build())
    }
}

impl Marks {
    pub fn set(&self, key: CacheKey, fill_pos: Position) {
        self.0.insert(key, fill_pos);
    }

    pub fn lift(&self, key: &CacheKey) {
        if self.0.contains_key(key) {
            self.0.invalidate(key);
        }
    }

    pub fn holds(&self, key: &CacheKey, ledger: &Ledger) -> bool {
        self.0.get(key).is_some_and(|fill_pos| ledger.judge(key, fill_pos) != Verdict::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_until_lifted_or_invalidated() {
        let (marks, ledger) = (Marks::default(), Ledger::default());
        let key = CacheKey::from_bytes([3; 16]);
        assert!(!marks.holds(&key, &ledger));
        marks.set(key, ledger.applied());
        assert!(marks.holds(&key, &ledger));
        ledger.invalidate(&key);
        assert!(!marks.holds(&key, &ledger));
        marks.set(key, ledger.applied());
        marks.lift(&key);
        assert!(!marks.holds(&key, &ledger));
    }
}
