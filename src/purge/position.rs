//! Points in the order of purges and invalidations.

use std::fmt;

/// Bits of a log position that count records; the rest is the generation.
const SEQ_BITS: u32 = 48;

/// A point in the purge log: a generation of the log and the number of a record in it. Larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition(u64);

impl LogPosition {
    /// `generation` grows by one whenever the log before it was lost.
    pub const fn new(generation: u16, seq: u64) -> Self {
        Self((generation as u64) << SEQ_BITS | (seq & ((1 << SEQ_BITS) - 1)))
    }

    pub const fn from_u64(packed: u64) -> Self {
        Self(packed)
    }

    /// Compares as the position does.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub const fn generation(self) -> u16 {
        (self.0 >> SEQ_BITS) as u16
    }

    /// Records before and including this one.
    pub const fn seq(self) -> u64 {
        self.0 & ((1 << SEQ_BITS) - 1)
    }

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation(), self.seq())
    }
}

/// How much a fill knew when it began: of the log, and of what this node alone has invalidated. The two grow apart from
/// each other, and each is compared with its like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub log: LogPosition,
    /// Invalidations by unsafe requests and by answers that took the place of stored ones.
    pub local: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_is_later_than_everything_before_it() {
        let last = LogPosition::new(1, (1 << SEQ_BITS) - 1);
        let first = LogPosition::new(2, 0);
        assert!(first > last);
        assert_eq!((first.generation(), first.seq()), (2, 0));
        assert_eq!(first.next().to_string(), "2-1");
        assert_eq!(LogPosition::from_u64(last.as_u64()), last);
    }
}
