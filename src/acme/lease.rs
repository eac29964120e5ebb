//! One node orders certificates at a time: the one that holds the lease. Pure.
//!
//! A lease is a note that its holder writes again and again. Whoever sees that it has not been written for [`GOOD_FOR_MS`] takes it
//! over; the board lets one of several do that. Clocks of two nodes are never compared: each counts from what it has seen.

/// How long a lease holds after it was written, as others see it.
pub const GOOD_FOR_MS: u64 = 10_000;
/// How often it is written.
const WRITE_EVERY_MS: u64 = 3_000;
/// How long its holder believes in it: less, since what it wrote was seen later than it began to write.
const BELIEVED_MS: u64 = 8_000;

/// What a node knows of the lease.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The revision that was seen last, and when for the first time.
    seen: Option<(u64, u64)>,
    /// The revision that this node wrote, and when it began to.
    wrote: Option<(u64, u64)>,
}

impl Watch {
    /// The revision to write over now; 0: there is none. None: nothing is to be written. `current`: the revision there is.
    pub fn to_write_over(&mut self, current: Option<u64>, now: u64) -> Option<u64> {
        let Some(current) = current else { return Some(0) };
        if self.seen.is_none_or(|(seen, _)| seen != current) {
            self.seen = Some((current, now));
        }
        let since = |at: u64| now.saturating_sub(at);
        let is_due = match (self.wrote, self.seen) {
            (Some((mine, at)), _) if mine == current => since(at) >= WRITE_EVERY_MS,
            (_, Some((_, first))) => since(first) >= GOOD_FOR_MS,
            _ => false,
        };
        is_due.then_some(current)
    }

    /// It was written; `began`: when that was begun.
    pub fn written(&mut self, revision: u64, began: u64) {
        self.wrote = Some((revision, began));
    }

    /// Whether a revision is this node's.
    pub fn has_written(&self, revision: u64) -> bool {
        self.wrote.is_some_and(|(mine, _)| mine == revision)
    }

    /// Whether this node holds it.
    pub fn holds(&self, current: Option<u64>, now: u64) -> bool {
        let Some((mine, at)) = self.wrote else { return false };
        current == Some(mine) && now.saturating_sub(at) < BELIEVED_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_it_writes_it_and_others_wait_until_nobody_does() {
        let (mut one, mut other) = (Watch::default(), Watch::default());
        assert_eq!(one.to_write_over(None, 0), Some(0));
        one.written(5, 0);
        assert!(
            one.holds(Some(5), 7_999) && !one.holds(Some(5), 8_000) && !one.holds(Some(6), 1) && !one.holds(None, 1)
        );
        // Who looks when, at which revision, and what it is to write over.
        let rows = [
            ("just written", true, 1_000, 5, None),
            ("another sees it", false, 1_000, 5, None),
            ("written again", true, 3_000, 5, Some(5)),
            ("another sees that", false, 9_000, 7, None),
            ("it is old", false, 18_999, 7, None),
            ("it is nobody's", false, 19_000, 7, Some(7)),
        ];
        for (name, is_one, now, current, expected) in rows {
            let who = if is_one { &mut one } else { &mut other };
            assert_eq!(who.to_write_over(Some(current), now), expected, "{name}");
        }
        other.written(9, 19_000);
        assert!(other.holds(Some(9), 20_000) && !one.holds(Some(9), 20_000));
        assert_eq!(one.to_write_over(Some(9), 20_000), None, "it is another's now");
    }
}
