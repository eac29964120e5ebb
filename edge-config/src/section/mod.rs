//! One file for each table of the configuration.

pub mod cache;
pub mod limits;
pub mod origin;
pub mod site;
pub mod telemetry;
