//! What is stored, and what is arriving.
//!
//! - [`key`]: what a response is stored under.
//! - [`record`]: a stored response: one block of bytes, ready to be sent, and what is needed to judge it.
//! - [`admission`]: what goes to a disk. Pure.
//! - [`body`]: a body whose chunks stand apart from its record.
//! - [`chunks`]: where chunks are put and found.
//! - [`budget`]: the memory budget and its shares.
//! - [`memory`]: the memory tier.
//! - [`disk`]: the disk tier.
//! - [`fill`]: a response that is arriving: one writer, any number of readers.
//! - [`collector`]: its pieces, gathered into chunks.
//! - [`parts`]: some bytes of one chunk. Pure.
//! - [`marks`]: keys whose last answer could not be shared.
//! - [`persist`]: what is kept in memory as bytes, and back. Pure.
//! - [`searches`]: URLs that differ in what does not matter.
//! - [`tiers`]: the one lookup.
//! - [`commit`]: the one commit.
//! - [`inventory`]: what is stored, for who only looks.
//! - [`verify`]: whether what is on disks is what was written.

pub mod admission;
pub mod body;
pub mod budget;
pub mod chunks;
pub mod collector;
pub mod commit;
pub mod disk;
pub mod fill;
pub mod inventory;
pub mod key;
pub mod marks;
pub mod memory;
pub mod parts;
pub mod persist;
pub mod record;
pub mod searches;
pub mod tiers;
pub mod verify;

pub use tiers::Store;
