//! Whether copies of requests are sent to a group that has not answered lately. Pure.

use std::time::{Duration, Instant};

/// Failures in a row after which nothing is sent for a while.
const FAILURES: u32 = 3;
/// How long; then one copy tries it out, and after as long another one.
const PAUSE: Duration = Duration::from_secs(1);

/// Blows when nobody answers: what nobody waits for must not cost a connection for every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fuse {
    failures: u32,
    /// When the next copy tries it out; none before it has blown.
    next: Option<Instant>,
}

impl Fuse {
    /// Whether a copy is sent now.
    pub fn admit(&mut self, now: Instant) -> bool {
        let Some(next) = self.next else { return true };
        let admitted = next <= now;
        if admitted {
            self.next = Some(now + PAUSE);
        }
        admitted
    }

    pub fn answered(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.next = Some(self.next.unwrap_or(now).max(now + PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blows_and_is_tried_out() {
        let start = crate::clock::monotonic();
        let mut fuse = Fuse::default();
        let steps: &[(u64, &str, bool)] = &[
            (0, "admit", true),
            (0, "failed", true),
            (0, "failed", true),
            (0, "answered", true),
            (0, "failed", true),
            (0, "failed", true),
            (1, "failed", false),
            (1_000, "admit", false),
            (1_001, "admit", true),
            (1_002, "admit", false),
            (2_001, "admit", true),
            (2_002, "failed", false),
            (3_001, "admit", false),
            (3_002, "admit", true),
            (3_003, "answered", true),
            (3_003, "failed", true),
        ];
        for (number, (at, step, admits)) in steps.iter().enumerate() {
            let now = start + Duration::from_millis(*at);
            let admitted = match *step {
                "admit" => fuse.admit(now),
                "failed" => {
                    fuse.failed(now);
                    fuse.clone().admit(now)
                }
                _ => {
                    fuse.answered();
                    fuse.clone().admit(now)
                }
            };
            assert_eq!(admitted, *admits, "step {number}: {step} at {at} ms");
        }
    }
}
