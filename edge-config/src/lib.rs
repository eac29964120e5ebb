//! The typed configuration of a Littoral node.
//!
//! Everything outside this crate sees only validated values: a [`Config`] that exists is one a node can run with.
//! There is no tokio and no pingora here, so the crate can be used by tools that only check a configuration.
//!
//! - [`units`]: sizes and durations as people write them (`"512MiB"`, `"10s"`).
//! - [`section`]: one file for each table of the configuration: its values, their defaults and the reasons for them.
//! - [`config`]: the whole, and what must hold between the sections.

pub mod config;
pub mod section;
pub mod units;

pub use config::{Config, ConfigError};
pub use units::{ByteSize, Duration};
