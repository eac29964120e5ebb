//! From a host name to everything one request needs.

pub mod rule;
pub mod site;
pub mod snapshot;

pub use site::Site;
pub use snapshot::{Snapshot, Snapshots};
