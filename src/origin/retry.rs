//! The budget of retries: when everything fails, trying everything again would only make it worse.
//!
//! Every request pays in a part of a retry, time pays in some more, and a retry takes a whole one. What has been paid in
//! is kept up to a bound, so that a quiet hour does not pay for a storm.

use std::time::Instant;

use edge_config::section::retry::Retry;

use super::Failure;

/// Thousandths of a retry.
const ONE: u64 = 1_000;
/// The requests whose part is kept at most.
const KEPT_REQUESTS: u64 = 1_000;

/// Whether an answer, or that there is none, is a reason to ask another origin, as long as nothing of it has been used.
/// A connection that failed always is. An origin that took its time has used up the client's, too.
pub fn is_tried_again(settings: &Retry, outcome: Result<u16, Failure>) -> bool {
    match outcome {
        Ok(status) => settings.statuses.iter().any(|range| range.contains(status)),
        Err(Failure::Unreachable | Failure::Closed) => true,
        Err(Failure::FirstByteTimeout | Failure::BetweenBytesTimeout) => settings.after_timeout,
        Err(_) => false,
    }
}

/// Whether an answer says that its origin fails: statuses a gateway or a server that is going down answers with, and errors of
/// the server after which another origin is asked.
pub fn is_failure(settings: &Retry, status: u16) -> bool {
    matches!(status, 502..=504) || (status >= 500 && is_tried_again(settings, Ok(status)))
}

/// What there is to spend.
#[derive(Debug)]
pub struct Budget {
    /// What a request pays in, in thousandths, and what a second does.
    part: u64,
    reserve: u64,
    balance: u64,
    paid_at: Instant,
}

impl Budget {
    pub fn new(settings: &Retry, now: Instant) -> Self {
        let reserve = u64::from(settings.reserve);
        Self { part: u64::from(settings.budget_percent) * ONE / 100, reserve, balance: reserve * ONE, paid_at: now }
    }

    fn pay_in(&mut self, amount: u64) {
        let kept = self.reserve * ONE + KEPT_REQUESTS * self.part;
        self.balance = self.balance.saturating_add(amount).min(kept);
    }

    /// A request began.
    pub fn request(&mut self) {
        self.pay_in(self.part);
    }

    /// Takes a retry out. False: there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.paid_at).as_millis();
        let earned = u128::from(self.reserve) * elapsed;
        if earned > 0 {
            self.pay_in(u64::try_from(earned).unwrap_or(u64::MAX));
            self.paid_at = now;
        }
        match self.balance.checked_sub(ONE) {
            Some(left) => {
                self.balance = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Retries granted when each of `requests` a second, for `seconds`, wants `each`.
    fn granted(settings: &Retry, requests: u64, seconds: u64, each: u64) -> u64 {
        let start = crate::clock::monotonic();
        let mut budget = Budget::new(settings, start);
        let mut granted = 0;
        for number in 0..requests * seconds {
            let now = start + Duration::from_micros(number * 1_000_000 / requests);
            budget.request();
            granted += (0..each).filter(|_| budget.take(now)).count() as u64;
        }
        granted
    }

    #[test]
    fn a_part_of_the_requests_and_some_more() {
        let settings = Retry::default();
        // 20 % of 10,000 and 10 a second, with the reserve that was there at the start.
        let storm = granted(&settings, 1_000, 10, 2);
        assert!((2_090..=2_120).contains(&storm), "{storm}");
        let quiet = granted(&settings, 1, 10, 2);
        assert_eq!(quiet, 20, "a quiet node may always");
        assert_eq!(granted(&Retry { budget_percent: 0, reserve: 0, ..settings.clone() }, 1_000, 10, 1), 0);
        assert_eq!(granted(&Retry { budget_percent: 100, reserve: 0, ..settings }, 1_000, 1, 1), 1_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let start = crate::clock::monotonic();
        let mut budget = Budget::new(&Retry::default(), start);
        (0..1_000_000).for_each(|_| budget.request());
        let now = start + Duration::from_secs(3600);
        let burst = (0..10_000).filter(|_| budget.take(now)).count();
        assert_eq!(burst, 210);
    }

    #[test]
    fn what_is_tried_again() {
        let none = Retry::default();
        let statuses = ["503", "510-599"].map(|range| range.parse().expect("a range")).to_vec();
        let some = Retry { after_timeout: true, statuses, ..none.clone() };
        for (outcome, by_default, when_listed) in [
            (Err(Failure::Unreachable), true, true),
            (Err(Failure::Closed), true, true),
            (Err(Failure::FirstByteTimeout), false, true),
            (Err(Failure::BetweenBytesTimeout), false, true),
            (Err(Failure::Malformed), false, false),
            (Err(Failure::Busy), false, false),
            (Ok(200), false, false),
            (Ok(502), false, false),
            (Ok(503), false, true),
            (Ok(509), false, false),
            (Ok(510), false, true),
        ] {
            let got = [is_tried_again(&none, outcome), is_tried_again(&some, outcome)];
            assert_eq!(got, [by_default, when_listed], "{outcome:?}");
        }
        let listed = Retry { statuses: vec!["404-500".parse().expect("a range")], ..none.clone() };
        for (status, by_default, when_listed) in
            [(200, false, false), (404, false, false), (500, false, true), (502, true, true), (505, false, false)]
        {
            let got = [is_failure(&none, status), is_failure(&listed, status)];
            assert_eq!(got, [by_default, when_listed], "{status}");
        }
    }
}
