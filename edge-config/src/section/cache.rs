//! `[cache]`: how much the node may keep.

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
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

section! {
    /// What the node may keep.
    CACHE = "[cache]" {
        /// The whole memory budget: stored objects, responses on their way and buffers. At least 16MiB.
        MEMORY = "memory": Kind::Size, "512MiB";
    }
}

impl Cache {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let Some(table) = table else { return Self::default() };
        let memory = table.parsed::<ByteSize>(reader, &MEMORY);
        if let Some(memory) = memory.as_ref().filter(|memory| memory.value < MEMORY_MIN) {
            let message = format!("`memory` is {}, expected at least {MEMORY_MIN}", memory.value);
            reader.wrong(
                &memory.span,
                message,
                "too little",
                "the node's own buffers and a useful number of objects need that",
            );
        }
        table.finish(reader);
        memory.map_or_else(Self::default, |memory| Self { memory: memory.value })
    }
}
