//! Passive ejection: an origin whose requests fail one after the other is left alone for a while.
//!
//! When the while is over it gets requests again, and the next failure ejects it anew at once; a success forgets
//! everything (a circuit breaker, half open).

use std::time::{Duration, Instant};

use edge_config::section::group::Eject;

/// What the requests to one origin have shown.
#[derive(Clone, Copy, Debug)]
pub struct Ejection {
    settings: Option<Eject>,
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    until: Option<Instant>,
}

impl Ejection {
    /// `None`: never ejects.
    pub fn new(settings: Option<Eject>) -> Self {
        Self { settings, failures: 0, since: None, until: None }
    }

    pub fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.since = None;
        self.until = None;
    }

    /// Takes a failure. True: this one ejects.
    pub fn failed(&mut self, now: Instant) -> bool {
        let Some(settings) = self.settings else { return false };
        if self.is_ejected(now) {
            // Requests that were under way; they say nothing new.
            return false;
        }
        let half_open = self.until.is_some();
        let too_old = |since: Instant| now.saturating_duration_since(since) > settings.window.get();
        if self.since.is_none_or(too_old) {
            self.since = Some(now);
            self.failures = 0;
        }
        self.failures += 1;
        if half_open || self.failures >= settings.failures {
            self.until = now.checked_add(settings.period.get());
            self.failures = 0;
            self.since = None;
            return true;
        }
        false
    }

    /// How long it is still left alone.
    pub fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_config::Duration as Span;

    /// Events as `(milliseconds, '+' or '-')`, and whether each ejects.
    fn check(name: &str, events: &[(u64, char, bool)]) {
        let settings = Eject { failures: 3, window: Span::from_secs(10), period: Span::from_secs(5) };
        let mut ejection = Ejection::new(Some(settings));
        let start = crate::clock::monotonic();
        for (ms, event, ejects) in events {
            let now = start + Duration::from_millis(*ms);
            let ejected = match event {
                '+' => {
                    ejection.succeeded();
                    false
                }
                _ => ejection.failed(now),
            };
            assert_eq!(ejected, *ejects, "{name}: at {ms} ms");
            assert!(!ejected || ejection.is_ejected(now), "{name}: at {ms} ms");
        }
    }

    #[test]
    fn failures_in_a_row_eject() {
        check("three", &[(0, '-', false), (1, '-', false), (2, '-', true)]);
        check("a success between", &[(0, '-', false), (1, '-', false), (2, '+', false), (3, '-', false)]);
        check("too far apart", &[(0, '-', false), (1, '-', false), (10_002, '-', false), (10_003, '-', false)]);
        check("under way", &[(0, '-', false), (0, '-', false), (0, '-', true), (4_999, '-', false)]);
        check(
            "half open",
            &[(0, '-', false), (0, '-', false), (0, '-', true), (5_001, '-', true), (9_000, '-', false)],
        );
        check(
            "half open, then well",
            &[(0, '-', false), (0, '-', false), (0, '-', true), (5_001, '+', false), (5_002, '-', false)],
        );
    }

    #[test]
    fn it_is_over_in_time_and_can_be_off() {
        let now = crate::clock::monotonic();
        let mut off = Ejection::new(None);
        assert!((0..100).all(|_| !off.failed(now)) && !off.is_ejected(now));
        let mut on = Ejection::new(Some(Eject { failures: 1, ..Eject::default() }));
        assert!(on.failed(now) && on.is_ejected(now + Duration::from_secs(9)));
        assert!(!on.is_ejected(now + Duration::from_secs(10)));
        assert_eq!(on.left(now + Duration::from_secs(4)), Duration::from_secs(6));
    }
}
