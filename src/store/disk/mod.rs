//! The disk tier.
//!
//! - [`frame`]: what stands on a disk. Pure.
//! - [`media`]: what frames are written to.
//! - [`index`]: where each frame is.
//! - [`log`]: frames appended to segments, and read back.
//! - [`recovery`]: what a disk holds when a node starts.

pub mod frame;
pub mod index;
pub mod log;
pub mod media;
#[cfg(test)]
mod model;
pub mod recovery;
