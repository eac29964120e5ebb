//! What is counted for every request, kept apart for each thread until somebody reads it.
//!
//! Workers that count into the same words would take turns for a cache line on every request. Each has a tally of its
//! own; reading the metrics adds them up.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Histogram, IntCounter};

use super::thread_index;

/// Tallies kept apart. With more threads than these some share one, which costs time and nothing else.
const TALLIES: usize = 32;

/// Counters and histograms by a small number that the caller makes of their labels.
#[derive(Default)]
pub struct Tallies {
    tallies: [Tally; TALLIES],
}

/// One thread's, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    counters: HashMap<u32, LocalIntCounter, ahash::RandomState>,
    histograms: HashMap<u32, LocalHistogram, ahash::RandomState>,
}

impl Tallies {
    /// Adds to the counter known by `number`; `counter` is asked for it once for each thread.
    pub fn add(&self, number: u32, by: u64, counter: impl FnOnce() -> IntCounter) {
        let mut counts = self.mine().lock();
        counts.counters.entry(number).or_insert_with(|| counter().local()).inc_by(by);
    }

    /// Observes a value in the histogram known by `number`.
    pub fn observe(&self, number: u32, value: f64, histogram: impl FnOnce() -> Histogram) {
        let mut counts = self.mine().lock();
        counts.histograms.entry(number).or_insert_with(|| histogram().local()).observe(value);
    }

    /// Adds everything to the shared counters.
    pub fn flush(&self) {
        for Tally(counts) in &self.tallies {
            let mut counts = counts.lock();
            counts.counters.values_mut().for_each(|counter| counter.flush());
            counts.histograms.values_mut().for_each(|histogram| histogram.flush());
        }
    }

    fn mine(&self) -> &Mutex<Counts> {
        &self.tallies[thread_index() % TALLIES].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_apart_adds_up() {
        let counter = IntCounter::new("n", "n").expect("a counter");
        let tallies = Tallies::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| tallies.add(7, 2, || counter.clone())));
            }
        });
        tallies.flush();
        tallies.flush();
        assert_eq!(counter.get(), 800);
    }
}
