//! How long an origin has until a second one is asked for the same: a time that is set, or as long as most answers take.
//! Pure.

use std::time::{Duration, Instant};

use edge_config::section::retry::Hedge;
use hdrhistogram::Histogram;

/// What answers took is looked at anew so often, and forgotten after twice that.
const PERIOD: Duration = Duration::from_secs(5);
/// Of fewer answers nobody can say how long most take.
const ANSWERS_MIN: u64 = 100;
/// Microseconds that are told apart.
const LONGEST: u64 = 60_000_000;
/// Sooner is never: it would be a second request for nearly everything.
const SHORTEST: Duration = Duration::from_millis(1);

/// When a second origin is asked.
pub struct Hedging {
    hedge: Hedge,
    /// Of this period and the last one.
    answers: [Option<Histogram<u32>>; 2],
    began: Option<Instant>,
    delay: Option<Duration>,
}

impl Hedging {
    pub fn new(hedge: Hedge) -> Self {
        let delay = match hedge {
            Hedge::After(time) => Some(time.get()),
            Hedge::Percentile(_) => None,
        };
        Self { hedge, answers: [None, None], began: None, delay }
    }

    /// Whether one that takes longer has failed.
    pub fn is_limit(&self) -> bool {
        matches!(self.hedge, Hedge::After(_))
    }

    /// `None`: nobody knows yet how long answers take.
    pub fn delay(&self) -> Option<Duration> {
        self.delay
    }

    /// An answer began after so long; or nobody waits for it any more after so long. Leaving those out would make answers
    /// look faster and faster, and second requests more and more.
    pub fn took(&mut self, took: Duration, now: Instant) {
        let Hedge::Percentile(percent) = self.hedge else { return };
        let began = *self.began.get_or_insert(now);
        let is_over = now.saturating_duration_since(began) >= PERIOD;
        if is_over {
            self.answers.swap(0, 1);
            self.answers[0] = None;
            self.began = Some(now);
        }
        if self.answers[0].is_none() {
            // Two digits are enough.
            self.answers[0] = Histogram::new_with_max(LONGEST, 2).ok();
        }
        let Some(answers) = &mut self.answers[0] else { return };
        answers.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
        let is_first = self.delay.is_none() && answers.len() >= ANSWERS_MIN;
        if is_over || is_first {
            self.look(percent);
        }
    }

    fn look(&mut self, percent: u8) {
        let mut answers = self.answers.iter().flatten();
        let Some(mut all) = answers.next().cloned() else { return };
        // Of the same bounds they can be added.
        answers.for_each(|others| _ = all.add(others));
        let enough = all.len() >= ANSWERS_MIN;
        let micros = all.value_at_quantile(f64::from(percent) / 100.0);
        self.delay = enough.then(|| Duration::from_micros(micros).max(SHORTEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_answers_decide() {
        let start = crate::clock::monotonic();
        let mut hedging = Hedging::new(Hedge::Percentile(95));
        let mut at = start;
        let mut check = |count: u64, millis: std::ops::Range<u64>, expected: Option<u64>| {
            for number in 0..count {
                at += Duration::from_millis(10);
                // Every part of them is like the whole.
                let took = millis.start + number * 7_919 % count * (millis.end - millis.start) / count;
                hedging.took(Duration::from_millis(took), at);
            }
            let delay = hedging.delay().map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            let near = |delay: u64, expected: u64| delay.abs_diff(expected) <= expected / 50 + 1;
            let is_near = match (delay, expected) {
                (Some(delay), Some(expected)) => near(delay, expected),
                (delay, expected) => delay == expected,
            };
            assert!(is_near, "{count} of {millis:?}: {delay:?}, expected {expected:?}");
        };
        check(99, 10..11, None);
        check(1, 10..11, Some(10));
        // Over ten seconds of something else.
        check(1_200, 0..200, Some(190));
        check(1_200, 20..21, Some(20));
        // So few in ten seconds say nothing.
        at += Duration::from_secs(60);
        let mut one = |at: Instant| hedging.took(Duration::from_millis(1), at);
        one(at);
        one(at + PERIOD);
        one(at + 3 * PERIOD);
        assert_eq!(hedging.delay(), None);
    }

    #[test]
    fn a_time_is_a_time() {
        let mut hedging = Hedging::new(Hedge::After(edge_config::Duration::from_millis(5)));
        hedging.took(Duration::from_secs(9), crate::clock::monotonic());
        assert_eq!((hedging.delay(), hedging.is_limit()), (Some(Duration::from_millis(5)), true));
    }
}
