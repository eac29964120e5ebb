//! The disk tier: foyer's `HybridCache`, one for each disk, over an engine of our own.
//!
//! - [`frame`]: what stands on a disk. Pure.
//! - [`media`]: what frames are written to.
//! - [`index`]: where each frame is.
//! - [`log`]: frames appended to segments, and read back.
//! - [`clearing`]: which frames go when their segment is needed.
//! - [`recovery`]: what a disk holds when a node starts.
//! - [`manifest`]: whether a disk is ours, how it is divided, and how it was left.
//! - [`value`]: a frame on its way through foyer.
//! - [`engine`]: the engine under foyer: the queue, the writer, reads with a deadline.
//! - [`health`]: whether a disk can still be used.
//! - [`device`]: one disk, opened in the background.
//! - [`disks`]: all of them: which a frame belongs to.
//! - [`stat`]: what one holds and has done.

pub mod clearing;
pub mod device;
pub mod disks;
pub mod engine;
pub mod frame;
pub mod health;
pub mod index;
pub mod log;
pub mod manifest;
pub mod media;
#[cfg(test)]
mod model;
pub mod recovery;
pub mod stat;
pub mod value;

pub use disks::Disks;
