//! Whether a disk can still be used: one that keeps failing is taken out, and the rest of the node goes on without it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

/// Failures in a row after which a disk is taken out.
const FAILURES_MAX: u32 = 8;

/// What is known of a disk's condition.
#[derive(Debug, Default)]
pub struct Health {
    out: AtomicBool,
    reads_failed: AtomicU32,
    writes_failed: AtomicU32,
    why: Mutex<Option<String>>,
}

impl Health {
    /// It is not used any more.
    pub fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// Why it is out, or what it last failed with.
    pub fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }

    pub fn read_succeeded(&self) {
        self.reads_failed.store(0, Ordering::Relaxed);
    }

    pub fn write_succeeded(&self) {
        self.writes_failed.store(0, Ordering::Relaxed);
    }

    /// Counts a failure. A full disk is not a broken one: what cannot be written is lost, what is there is still read.
    pub fn failed(&self, error: &io::Error, what: &str) {
        if self.is_out() {
            return;
        }
        *self.why.lock() = Some(format!("{what}: {error}"));
        let failures = if what == "read" { &self.reads_failed } else { &self.writes_failed };
        let count = failures.fetch_add(1, Ordering::Relaxed) + 1;
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        tracing::warn!(%error, what, "a disk of the cache failed");
        if count >= FAILURES_MAX && !full {
            self.take_out(&format!("{count} failures in a row, the last: {what}: {error}"));
        }
    }

    pub fn take_out(&self, why: &str) {
        *self.why.lock() = Some(why.to_owned());
        if !self.out.swap(true, Ordering::AcqRel) {
            tracing::error!(why, "a disk of the cache is taken out; the node goes on without it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_keeps_failing_is_taken_out_and_one_that_is_full_is_not() {
        let broken = || io::Error::from_raw_os_error(5);
        let health = Health::default();
        for _ in 0..3 {
            (0..FAILURES_MAX - 1).for_each(|_| health.failed(&broken(), "read"));
            health.read_succeeded();
        }
        assert!(!health.is_out());
        (0..FAILURES_MAX * 2).for_each(|_| health.failed(&io::ErrorKind::StorageFull.into(), "write"));
        assert!(!health.is_out());
        health.write_succeeded();
        (0..FAILURES_MAX).for_each(|_| health.failed(&broken(), "write"));
        assert!(health.is_out() && health.why().is_some_and(|why| why.contains("os error 5")));
    }
}
