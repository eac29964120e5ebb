//! From a host name to everything one request needs.

pub mod backing;
pub mod rule;
pub mod site;
pub mod snapshot;

pub use backing::{Backing, Backings, GroupIndex};
pub use site::Site;
pub use snapshot::{Snapshot, Snapshots};
