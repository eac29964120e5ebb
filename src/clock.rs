//! The only reader of time.
//!
//! Decisions take `now` as an argument; the layers that do I/O ask here, once per decision. Under
//! `--unsafe-test-clock` tests move the wall clock forward instead of sleeping; deadlines on sockets stay on real time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::semantics::time::UnixMs;

/// How long [`wall_at`] trusts one reading of the wall clock.
const ANCHORED: Duration = Duration::from_millis(10);

/// Milliseconds that tests have added to the wall clock; zero in every other process.
static TEST_OFFSET_MS: AtomicU64 = AtomicU64::new(0);

/// The wall clock: what `Date`, `Age` and freshness are judged by.
pub fn wall() -> UnixMs {
    #[cfg(test)]
    if let Some(now) = SET.get() {
        return now;
    }
    unix_ms(read_wall())
}

#[cfg(test)]
thread_local!(static SET: Cell<Option<UnixMs>> = const { Cell::new(None) });

/// Sets the wall clock of this thread alone, for a test whose tasks all run on it; none: as it is.
#[cfg(test)]
pub fn set_wall(now: Option<UnixMs>) {
    SET.set(now);
}

/// Milliseconds since the machine was started, those in which it was suspended among them: what leases are judged by.
pub fn boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000).saturating_add(ms)
}

/// The wall clock at an instant that was read just now: another reading of a clock is more than a hit can spare. It
/// follows a step of the wall clock within 10 ms.
pub fn wall_at(now: Instant) -> UnixMs {
    thread_local!(static ANCHOR: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) });
    if let Some((at, wall)) = ANCHOR.get()
        && let Some(since) = now.checked_duration_since(at)
        && since < ANCHORED
    {
        return unix_ms(wall + since);
    }
    let wall = read_wall();
    ANCHOR.set(Some((now, wall)));
    unix_ms(wall)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn read_wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn unix_ms(since_epoch: Duration) -> UnixMs {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_at_an_instant_is_what_the_wall_clock_says() {
        for _ in 0..3_000 {
            let (before, at, after) = (wall(), wall_at(monotonic()), wall());
            // One for the rounding, one for a clock that is slewed meanwhile.
            assert!(before.0 <= at.0 + 2 && at.0 <= after.0 + 2, "{before:?} {at:?} {after:?}");
        }
    }
}
