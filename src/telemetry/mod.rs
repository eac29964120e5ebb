//! What a node tells its operator about itself: counts, and one record for each request.
//!
//! - [`metrics`]: every metric is one row of one table.
//! - [`tally`]: what is counted for every request, kept apart for each thread.
//! - [`access_log`]: one JSON object a line, written by a thread of its own.

pub mod access_log;
pub mod metrics;
pub mod tally;

use std::sync::atomic::{AtomicUsize, Ordering};

/// A small number for each thread.
pub(crate) fn thread_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    INDEX.with(|index| *index)
}
