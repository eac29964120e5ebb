//! The only reader of time.
//!
//! Decisions take `now` as an argument; the layers that do I/O ask here, once per decision. Under
//! `--unsafe-test-clock` tests move the wall clock forward instead of sleeping; deadlines on sockets stay on real time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::semantics::time::UnixMs;

/// Milliseconds that tests have added to the wall clock; zero in every other process.
static TEST_OFFSET_MS: AtomicU64 = AtomicU64::new(0);

/// The wall clock: what `Date`, `Age` and freshness are judged by.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall() -> UnixMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    UnixMs(ms.saturating_add(TEST_OFFSET_MS.load(Ordering::Relaxed)))
}

/// The monotonic clock: what durations and deadlines are measured by.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Moves the wall clock forward. Only the admin API of a node started with `--unsafe-test-clock` calls this.
pub fn advance_test_clock(by: Duration) {
    let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    TEST_OFFSET_MS.fetch_add(ms, Ordering::Relaxed);
}
