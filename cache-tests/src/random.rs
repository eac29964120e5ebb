//! Random numbers that can be had again: every test that uses them prints its seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Marsaglia, "Xorshift RNGs", 2003: 13, 7, 17.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Another one in each run, or the one `LITTORAL_SEED` says. The seed is printed.
    ///
    /// # Panics
    /// When the variable is no number.
    pub fn of_run(test: &str) -> Self {
        let seed = match std::env::var("LITTORAL_SEED") {
            Ok(seed) => seed.parse().expect("LITTORAL_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64 % 1_000_000),
        };
        eprintln!("{test}: LITTORAL_SEED={seed}");
        Self::seeded(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.number() >> 11) % limit.max(1)
    }

    /// From `range.start` to below `range.end`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(items.len() as u64)).unwrap_or(0);
        items.get(at).expect("one to choose from")
    }
}
