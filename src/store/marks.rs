//! Keys whose last answer could not be shared (hit-for-miss): the next requests do not queue behind one another.

use std::time::Duration;

use moka::sync::Cache;

use crate::purge::position::Position;
use crate::semantics::cache_status::Reason;
use crate::store::key::CacheKey;

/// Marks kept at most: about 8 MiB. One too few costs one queue, nothing else.
const MARKS_MAX: u64 = 1 << 16;
/// How long a mark holds. As long as Varnish's default; a stored answer lifts it at once.
const MARK_FOR: Duration = Duration::from_secs(120);

/// What is known of an answer that was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The position it was asked at: a purge since then lifts it.
    pub fill_pos: Position,
    /// Why it was not stored.
    pub reason: Reason,
}

/// Bounded, expiring marks.
pub struct Marks(Cache<CacheKey, Mark>);

impl Default for Marks {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MARKS_MAX).time_to_live(MARK_FOR).build())
    }
}

impl Marks {
    pub fn set(&self, key: CacheKey, mark: Mark) {
        self.0.insert(key, mark);
    }

    pub fn lift(&self, key: &CacheKey) {
        if self.0.contains_key(key) {
            self.0.invalidate(key);
        }
    }

    pub fn get(&self, key: &CacheKey) -> Option<Mark> {
        self.0.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_until_it_is_lifted() {
        let marks = Marks::default();
        let key = CacheKey::from_bytes([3; 16]);
        assert_eq!(marks.get(&key), None);
        let mark = Mark { fill_pos: Position::default(), reason: Reason::Private };
        marks.set(key, mark);
        assert_eq!(marks.get(&key), Some(mark));
        marks.lift(&key);
        assert_eq!(marks.get(&key), None);
    }
}
