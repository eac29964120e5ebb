//! What is known of a name, and when it is asked for again. Pure.

use std::time::Duration;

use super::Target;

/// How long to wait after a first failure, and at most after many, while something is known; and while nothing is.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const PAUSE_MAX_UNKNOWN: Duration = Duration::from_secs(2);

/// What bounds the time for which an answer holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub shortest: Duration,
    pub longest: Duration,
}

/// What one question about a name brought. A name has several, as for IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// This, maybe nothing, for so long.
    Found(Vec<Target>, Duration),
    Failed(String),
}

/// What is known of a name.
#[derive(Debug)]
pub struct Known {
    /// By question, in the order they are asked in.
    parts: Vec<Vec<Target>>,
    /// What was known before anything was asked.
    before: Vec<Target>,
    failures: u32,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    pub targets: Vec<Target>,
    pub again_in: Duration,
    /// Why it is not, or not all, new.
    pub error: Option<String>,
}

impl Known {
    pub fn new(before: Vec<Target>) -> Self {
        Self { parts: Vec::new(), before, failures: 0 }
    }

    /// Takes the answers to all questions. A question that failed leaves what it brought last; so does an answer after
    /// which there would be nothing at all.
    pub fn take(&mut self, answer: Vec<Part>, limits: Limits) -> Next {
        self.parts.resize(answer.len(), Vec::new());
        let is_something = answer.iter().any(|part| matches!(part, Part::Found(targets, _) if !targets.is_empty()));
        let mut error = None;
        let mut holds = limits.longest;
        for (known, part) in self.parts.iter_mut().zip(answer) {
            match part {
                Part::Found(targets, ttl) if is_something => {
                    if !targets.is_empty() {
                        holds = holds.min(ttl);
                    }
                    *known = targets;
                }
                Part::Found(..) => {}
                Part::Failed(why) => error = Some(why),
            }
        }
        if is_something {
            self.before.clear();
        } else {
            error = error.or_else(|| Some("the name has no addresses".into()));
        }
        let mut targets = self.parts.concat();
        if targets.is_empty() {
            targets.clone_from(&self.before);
        }
        let again_in = match &error {
            None => {
                self.failures = 0;
                holds.max(limits.shortest)
            }
            Some(_) => {
                let most = if targets.is_empty() { PAUSE_MAX_UNKNOWN } else { PAUSE_MAX };
                let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
                self.failures = self.failures.saturating_add(1);
                PAUSE_FIRST.saturating_mul(factor).min(most)
            }
        };
        Next { targets, again_in, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { shortest: Duration::from_secs(2), longest: Duration::from_secs(100) };

    fn targets(last: &[u8]) -> Vec<Target> {
        last.iter().map(|last| Target::new(([192, 0, 2, *last], 80).into())).collect()
    }

    fn found(last: &[u8], seconds: u64) -> Part {
        Part::Found(targets(last), Duration::from_secs(seconds))
    }

    fn failed() -> Part {
        Part::Failed("why".into())
    }

    #[test]
    fn answers_in_turn() {
        let none = || found(&[], 7);
        // What is known before, and for each answer: what is known then, in how many seconds it is asked for, and whether
        // something is wrong.
        type Step<'s> = (Vec<Part>, &'s [u8], u64, bool);
        let table: Vec<(&str, &[u8], Vec<Step<'_>>)> = vec![
            ("holds as long as it says", &[], vec![(vec![found(&[1, 2], 30)], &[1, 2], 30, false)]),
            (
                "and is replaced",
                &[],
                vec![(vec![found(&[1, 2], 30)], &[1, 2], 30, false), (vec![found(&[2, 3], 30)], &[2, 3], 30, false)],
            ),
            (
                "within limits",
                &[],
                vec![(vec![found(&[1], 0)], &[1], 2, false), (vec![found(&[1], 9_999)], &[1], 100, false)],
            ),
            ("the shorter of both", &[], vec![(vec![found(&[1], 30), found(&[9], 20)], &[1, 9], 20, false)]),
            ("one of both is enough", &[], vec![(vec![found(&[1], 30), none()], &[1], 30, false)]),
            (
                "one of both fails",
                &[],
                vec![
                    (vec![found(&[1], 30), found(&[9], 30)], &[1, 9], 30, false),
                    (vec![found(&[2], 30), failed()], &[2, 9], 1, true),
                    (vec![found(&[2], 30), none()], &[2], 30, false),
                ],
            ),
            (
                "nothing known, less and less often",
                &[],
                vec![
                    (vec![failed()], &[], 1, true),
                    (vec![none()], &[], 2, true),
                    (vec![failed()], &[], 2, true),
                    (vec![found(&[1], 30)], &[1], 30, false),
                    (vec![failed()], &[1], 1, true),
                ],
            ),
            (
                "what was known stays",
                &[],
                vec![
                    (vec![found(&[1], 30)], &[1], 30, false),
                    (vec![failed()], &[1], 1, true),
                    (vec![none()], &[1], 2, true),
                    (vec![failed()], &[1], 4, true),
                    (vec![failed()], &[1], 8, true),
                    (vec![failed()], &[1], 16, true),
                    (vec![failed()], &[1], 30, true),
                    (vec![failed()], &[1], 30, true),
                ],
            ),
            (
                "also from before",
                &[5],
                vec![
                    (vec![failed(), failed()], &[5], 1, true),
                    (vec![found(&[1], 30), failed()], &[1], 2, true),
                    (vec![none(), none()], &[1], 4, true),
                ],
            ),
        ];
        for (name, before, steps) in table {
            let mut known = Known::new(targets(before));
            for (number, (answer, expected, seconds, is_wrong)) in steps.into_iter().enumerate() {
                let next = known.take(answer, LIMITS);
                let got = (next.targets, next.again_in.as_secs(), next.error.is_some());
                assert_eq!(got, (targets(expected), seconds, is_wrong), "{name}, answer {number}");
            }
        }
    }
}
