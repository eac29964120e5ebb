//! What was purged and what was invalidated, and in which order.
//!
//! - [`position`]: points in that order.
//! - [`selector`]: what a purge names, and what a stored response is found by.
//! - [`ledger`]: judges stored responses. Pure.
//! - [`prefixes`]: the path prefixes of a site that were ever purged. Pure.
//! - [`record`]: one purge, as it is kept and told.
//! - [`invalidations`]: what this node alone has invalidated, kept beyond the process.
//! - [`limit`]: how fast a site may purge. Pure.
//! - [`log`]: what a log is to the node, whoever keeps it.
//! - [`kept`]: what a node keeps of a log on its own disk.
//! - [`local`]: the log of one node, on its own disk.
//! - [`nats`]: the log that many nodes share.
//! - [`replaceable`]: a log that is opened anew while others have it in hand.

pub mod invalidations;
pub mod kept;
pub mod ledger;
pub mod limit;
pub mod local;
pub mod log;
pub mod nats;
pub mod position;
pub mod prefixes;
pub mod record;
pub mod replaceable;
pub mod selector;
