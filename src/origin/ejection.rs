//! Passive ejection: an origin whose requests fail one after the other is left alone for a while.
//!
//! When the while is over, one request is its trial (a circuit breaker, half open): an answer brings it back, a failure
//! ejects it anew, for twice as long. What went well since it came back takes the doublings back, one for each first
//! period.
//!
//! Never are more out than a part of the group: when most of them fail it is rarely they who are to blame, and those that
//! are left would get all there is to ask.

use std::time::{Duration, Instant};

use edge_config::section::health::Eject;

/// A trial of which nobody has heard for so long is over, and another one begins: its client has left, or its origin takes
/// its time.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// What the requests to one origin have shown.
#[derive(Clone, Copy, Debug)]
pub struct Ejection {
    settings: Option<Eject>,
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    out: Option<Out>,
    /// How often the next ejection doubles the first period.
    doublings: u32,
    /// When it last came back.
    returned: Option<Instant>,
}

/// An ejection, until a success ends it.
#[derive(Clone, Copy, Debug)]
struct Out {
    at: Instant,
    until: Instant,
    /// When its trial began.
    trial: Option<Instant>,
}

/// The rest of a group, as far as it matters to one that is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Company {
    /// All members, this one too.
    pub members: usize,
    /// Members other than this one that are ejected, or down by their checks.
    pub others_out: usize,
}

/// What a failure has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough of them yet, or nothing new.
    Counted,
    /// The origin is left alone for so long.
    Ejected(Duration),
    /// It would be ejected, but too many are out already.
    Withheld,
}

impl Company {
    /// Whether one more may be out, where `percent` of them may. The last one never is.
    pub fn has_room(self, percent: u32) -> bool {
        let part = self.members.saturating_mul(percent as usize) / 100;
        self.others_out < part.min(self.members.saturating_sub(1))
    }
}

impl Ejection {
    /// `None`: never ejects.
    pub fn new(settings: Option<Eject>) -> Self {
        Self { settings, failures: 0, since: None, out: None, doublings: 0, returned: None }
    }

    /// Whether it is ejected, and no trial has brought it back yet.
    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether a request may go to it: it is not out, or it is time for a trial.
    pub fn may_be_asked(&self, now: Instant) -> bool {
        self.out.is_none_or(|out| {
            let no_trial = out.trial.is_none_or(|began| now.saturating_duration_since(began) >= TRIAL_MAX);
            now >= out.until && no_trial
        })
    }

    /// A request is about to go to it. False: another one is its trial.
    pub fn admit(&mut self, now: Instant) -> bool {
        let may = self.may_be_asked(now);
        if let Some(out) = self.out.as_mut().filter(|_| may) {
            out.trial = Some(now);
        }
        may
    }

    /// The request that was admitted then is not sent after all.
    pub fn withdraw(&mut self, admitted: Instant) {
        if let Some(out) = self.out.as_mut().filter(|out| out.trial == Some(admitted)) {
            out.trial = None;
        }
    }

    /// Takes the success of a request that began then. True: it is back.
    pub fn succeeded(&mut self, began: Instant, now: Instant) -> bool {
        self.failures = 0;
        self.since = None;
        // What it answered to before says nothing about what has failed since.
        let back = self.out.is_some_and(|out| began >= out.at);
        if back {
            self.out = None;
            self.returned = Some(now);
        }
        back
    }

    /// Takes the failure of a request that began then.
    pub fn failed(&mut self, began: Instant, now: Instant, company: Company) -> Verdict {
        let Some(settings) = self.settings else { return Verdict::Counted };
        if let Some(out) = self.out {
            if out.trial.is_none() || began < out.until {
                // Requests that were under way; they say nothing new.
                return Verdict::Counted;
            }
            self.failures = settings.failures;
            self.since = Some(now);
        } else {
            let too_old = |since: Instant| now.saturating_duration_since(since) > settings.window.get();
            if self.since.is_none_or(too_old) {
                self.since = Some(now);
                self.failures = 0;
            }
            self.failures = self.failures.saturating_add(1);
        }
        if self.failures < settings.failures {
            return Verdict::Counted;
        }
        if !company.has_room(settings.out_percent_max) {
            self.returned = self.out.take().map(|_| now).or(self.returned);
            return Verdict::Withheld;
        }
        self.eject(now, settings)
    }

    fn eject(&mut self, now: Instant, settings: Eject) -> Verdict {
        let (period, longest) = (settings.period.get(), settings.period_max.get());
        if self.out.is_none() {
            let good = self.returned.map_or(Duration::ZERO, |returned| now.saturating_duration_since(returned));
            let taken_back = good.as_millis().checked_div(period.as_millis()).unwrap_or(u128::MAX);
            self.doublings = self.doublings.saturating_sub(u32::try_from(taken_back).unwrap_or(u32::MAX));
        }
        let factor = 1u32.checked_shl(self.doublings).unwrap_or(u32::MAX);
        let length = period.saturating_mul(factor).min(longest);
        if length < longest {
            self.doublings = self.doublings.saturating_add(1);
        }
        // Nobody waits for a time that no clock reaches.
        let until = now.checked_add(length).unwrap_or(now);
        self.out = Some(Out { at: now, until, trial: None });
        self.failures = 0;
        self.since = None;
        Verdict::Ejected(length)
    }
}

#[cfg(test)]
mod tests;
