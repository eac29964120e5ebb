//! What a node tells its operator about itself: counts, and one record for each request.
//!
//! - [`metrics`]: every metric is one row of one table.
//! - [`access_log`]: one JSON object a line, written by a thread of its own.

pub mod access_log;
pub mod metrics;
