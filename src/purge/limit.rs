//! How fast a site may purge: a bucket of tokens for each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Sites whose buckets are kept; one that is not has a full bucket, as has one that was idle for a second.
const BUCKETS_MAX: usize = 10_000;

/// Buckets that fill at `rate` tokens a second up to as many.
pub struct Limits {
    rate: f64,
    buckets: HashMap<String, Bucket>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limits {
    pub fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate.max(1)), buckets: HashMap::new() }
    }

    pub fn set_rate(&mut self, rate: u32) {
        self.rate = f64::from(rate.max(1));
    }

    /// Takes `cost` tokens of a site.
    ///
    /// # Errors
    /// There are not as many; how long to wait for them.
    pub fn take(&mut self, site: &str, cost: u32, now: Instant) -> Result<(), Duration> {
        if self.buckets.len() >= BUCKETS_MAX {
            self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(1));
        }
        let full = Bucket { tokens: self.rate, at: now };
        let bucket = self.buckets.entry(site.to_owned()).or_insert(full);
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate;
        bucket.tokens = (bucket.tokens + gained).min(self.rate);
        bucket.at = now;
        // What is more than a bucket holds is paid for with a full one.
        let cost = f64::from(cost).min(self.rate);
        if bucket.tokens >= cost {
            bucket.tokens -= cost;
            return Ok(());
        }
        Err(Duration::from_secs_f64((cost - bucket.tokens) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let start = crate::clock::monotonic();
        let at = |ms| start + Duration::from_millis(ms);
        let mut limits = Limits::new(10);
        for _ in 0..10 {
            assert_eq!(limits.take("a", 1, at(0)), Ok(()));
        }
        let wait = limits.take("a", 1, at(0)).expect_err("it is empty");
        assert!((95..=105).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(limits.take("b", 10, at(0)), Ok(()), "another site has its own");
        assert_eq!(limits.take("a", 1, at(150)), Ok(()));
        assert!(limits.take("a", 1, at(150)).is_err());
        assert_eq!(limits.take("a", 500, at(5_000)), Ok(()), "a full bucket pays for a large batch");
        assert!(limits.take("a", 1, at(5_000)).is_err());
    }
}
