//! The one that answers sooner, of two drawn at random by weight: peak EWMA, as in Finagle and linkerd.
//!
//! The cost of an origin is its remembered time to the first byte, times the requests it would have under way, for its
//! weight. A slower answer than remembered is believed at once (the peak), a faster one little by little. What is
//! remembered fades, so that one that was slow once is tried again.

use std::time::{Duration, Instant};

use super::Candidate;
use super::random::pair;

/// After this time a memory counts for 1/e.
const FADES_IN: Duration = Duration::from_secs(10);
/// What a failure costs at least, in seconds: one that fails at once must not look fast.
const FAILURE_SECONDS_MIN: f64 = 1.0;
/// What one costs that has been asked, but has never answered yet: more than anybody who has.
const UNKNOWN_SECONDS: f64 = 3_600.0;

/// What is remembered of one origin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency(Option<(f64, Instant)>);

impl Latency {
    /// An answer began after this time.
    pub fn answered(&mut self, took: Duration, now: Instant) {
        self.observe(took.as_secs_f64(), now);
    }

    /// There was no answer, and that took this time.
    pub fn failed(&mut self, took: Duration, now: Instant) {
        self.observe(took.as_secs_f64().max(FAILURE_SECONDS_MIN), now);
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        let remembered = match self.0 {
            Some((before, at)) if seconds < before => {
                let left = fading(now.saturating_duration_since(at));
                before * left + seconds * (1.0 - left)
            }
            _ => seconds,
        };
        self.0 = Some((remembered, now));
    }

    /// Seconds, as far as they are still remembered.
    pub fn remembered(&self, now: Instant) -> Option<f64> {
        self.0.map(|(seconds, at)| seconds * fading(now.saturating_duration_since(at)))
    }
}

fn fading(time: Duration) -> f64 {
    (-time.as_secs_f64() / FADES_IN.as_secs_f64()).exp()
}

pub fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let (first, second) = pair(candidates, random)?;
    Some(second.filter(|second| cost(second) < cost(first)).unwrap_or(first).index)
}

fn cost(candidate: &Candidate) -> f64 {
    let seconds = match candidate.latency {
        Some(seconds) => seconds,
        // Somebody has to ask first, but one at a time.
        None if candidate.in_flight == 0 => 0.0,
        None => UNKNOWN_SECONDS,
    };
    seconds * (f64::from(candidate.in_flight) + 1.0) / f64::from(candidate.share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_believed_at_once_and_forgotten_in_time() {
        let start = crate::clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut latency = Latency::default();
        assert_eq!(latency.remembered(start), None);
        latency.answered(Duration::from_millis(10), at(0));
        latency.answered(Duration::from_secs(2), at(1));
        assert_eq!(latency.remembered(at(1)), Some(2.0));
        latency.answered(Duration::from_millis(10), at(1));
        assert_eq!(latency.remembered(at(1)), Some(2.0), "a fast one at the same moment says little");
        latency.answered(Duration::from_millis(10), at(11));
        let left = latency.remembered(at(11)).expect("something is remembered");
        assert!((0.7..0.8).contains(&left), "{left}");
        assert!(latency.remembered(at(71)).is_some_and(|left| left < 0.01));
        latency.failed(Duration::from_micros(5), at(71));
        assert_eq!(latency.remembered(at(71)), Some(FAILURE_SECONDS_MIN));
    }

    #[test]
    fn who_is_not_known_is_asked_once() {
        let known = Candidate { index: 0, id: 0, share: 100, in_flight: 0, latency: Some(0.1) };
        let unknown = Candidate { index: 1, id: 1, latency: None, ..known };
        for random in (0..100).map(super::super::random::mix) {
            assert_eq!(choose(&[known, unknown], random), Some(1));
            assert_eq!(choose(&[known, Candidate { in_flight: 1, ..unknown }], random), Some(0));
        }
        assert_eq!(choose(&[], 1), None);
    }
}
