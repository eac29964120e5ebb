//! The typed configuration of a Littoral node.
//!
//! Everything outside this crate sees only validated values: a [`Config`] that exists is one a node can run with.
//! There is no tokio and no pingora here, so the crate can be used by tools that only check a configuration.
//!
//! - [`units`]: sizes and durations as people write them (`"512MiB"`, `"10s"`).
//! - [`section`]: one file for each table of the configuration: its values, their defaults and the reasons for them.
//! - [`config`]: the whole, and what must hold between the sections.
//! - [`read`]: tables, keys and what is wrong with them.
//! - [`load`](mod@load): from files to a configuration.
//! - [`shared`]: what many nodes have of a hub, beside their own files.
//! - [`change`]: what a new configuration changes.
//! - [`edit`]: texts of sites, made and changed.
//! - [`reference`](mod@reference): the reference page and the JSON Schema.

pub mod change;
pub mod config;
pub mod edit;
pub mod load;
pub mod read;
pub mod reference;
pub mod section;
pub mod shared;
pub mod units;

pub use config::{Config, ConfigError};
pub use load::{Files, load};
pub use read::problem::{Problem, Problems};
pub use units::{ByteSize, Duration};
