//! `[cache]`: how much the node may keep.

use crate::units::ByteSize;

/// Less than this cannot hold the node's own buffers and a useful number of objects.
pub const MEMORY_MIN: ByteSize = ByteSize::mib(16);

/// What the node may keep, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The whole memory budget: stored objects, fills in progress and buffers. Default 512MiB.
    pub memory: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { memory: ByteSize::mib(512) }
    }
}
