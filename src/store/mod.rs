//! What is stored, and what is arriving.
//!
//! - [`key`]: what a response is stored under.
//! - [`record`]: a stored response: one block of bytes, ready to be sent, and what is needed to judge it.
//! - [`budget`]: the memory budget and its shares.
//! - [`memory`]: the memory tier.
//! - [`disk`]: the disk tier.
//! - [`fill`]: a response that is arriving: one writer, any number of readers.
//! - [`collector`]: its pieces, gathered into chunks.
//! - [`marks`]: keys whose last answer could not be shared.
//! - [`searches`]: URLs that differ in what does not matter.
//! - [`tiers`]: the one lookup and the one commit.

pub mod budget;
pub mod collector;
pub mod disk;
pub mod fill;
pub mod key;
pub mod marks;
pub mod memory;
pub mod record;
pub mod searches;
pub mod tiers;

pub use tiers::Store;
