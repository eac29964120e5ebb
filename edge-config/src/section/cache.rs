//! `[cache]`: how much the node may keep, and where.

use std::path::PathBuf;

use crate::read::key::{Kind, section};
use crate::read::{At, Reader, Table, Value};
use crate::units::ByteSize;

/// Less than this cannot hold the node's own buffers and a useful number of objects.
pub const MEMORY_MIN: ByteSize = ByteSize::mib(16);
/// What a smaller disk holds is written over before it is asked for again.
pub const DISK_SIZE_MIN: ByteSize = ByteSize::mib(64);
/// One for each device: few machines have more.
pub const DISKS_MAX: usize = 16;

/// What the node may keep, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The whole memory budget: stored objects, fills in progress and buffers. Default 512MiB.
    pub memory: ByteSize,
    /// The disk cache, at most [`DISKS_MAX`], each with a directory of its own. Default: none.
    pub disks: Vec<Disk>,
}

/// One disk of the disk cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The directory its file is in.
    pub path: PathBuf,
    /// Of the file, at least [`DISK_SIZE_MIN`].
    pub size: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { memory: ByteSize::mib(512), disks: Vec::new() }
    }
}

section! {
    /// What the node may keep.
    CACHE = "[cache]" {
        /// The whole memory budget: stored objects, responses on their way and buffers. At least 16MiB.
        MEMORY = "memory": Kind::Size, "512MiB";
        /// The disk cache: what survives a restart. At most 16 disks; one that fails is taken out, and the others serve.
        /// Absent: none.
        DISKS = "disk": Kind::Many(&Kind::Table(&DISK));
    }
}

section! {
    /// A disk of the disk cache.
    DISK = "a disk" {
        /// The directory its file, littoral.cache, is in. Each disk, of this node or another, needs one of its own.
        PATH = "path": Kind::Text("a directory");
        /// The size of the file, which is made and preallocated. At least 64MiB.
        SIZE = "size": Kind::Size;
    }
}

impl Cache {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
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
        let disks = disks(&table, reader);
        table.finish(reader);
        Self { memory: memory.map_or(default.memory, |memory| memory.value), disks }
    }
}

fn disks(table: &Table<'_>, reader: &mut Reader) -> Vec<Disk> {
    let Some(value) = table.value(&DISKS) else { return Vec::new() };
    let count = value.members().len();
    if count > DISKS_MAX {
        let message = format!("`disk` has {count} disks, expected at most {DISKS_MAX}");
        reader.wrong(&value.span(), message, "too many", "one disk for each device is enough");
    }
    let mut paths = Vec::new();
    table.many(reader, &DISKS, |reader, value| Disk::read(reader, value, &mut paths))
}

impl Disk {
    /// `paths` has those of the disks before.
    fn read(reader: &mut Reader, value: Value<'_>, paths: &mut Vec<At<PathBuf>>) -> Option<Self> {
        let table = reader.as_table(&DISKS, &DISK, "a disk".into(), value)?;
        let path = table.parsed::<PathBuf>(reader, &PATH);
        table.required(reader, &PATH, path.is_none());
        let size = table.parsed::<ByteSize>(reader, &SIZE);
        table.required(reader, &SIZE, size.is_none());
        table.finish(reader);
        if let Some(size) = size.as_ref().filter(|size| size.value < DISK_SIZE_MIN) {
            let message = format!("`size` is {}, expected at least {DISK_SIZE_MIN}", size.value);
            let help = "what a smaller disk holds is written over before it is asked for again";
            reader.wrong(&size.span, message, "too small", help);
        }
        let path = path?;
        if path.value.as_os_str().is_empty() {
            reader.wrong(&path.span, "`path` is empty", "expected a directory", PATH.summary());
            return None;
        }
        let path = path.map(|path| reader.beside(&path));
        if let Some(before) = paths.iter().find(|before| before.value == path.value) {
            let message = format!("two disks are in {}", path.value.display());
            let problem = reader.wrong(&path.span, message, "again", "each disk needs a directory of its own");
            problem.also = Some((before.span.clone(), "the first".into()));
        }
        paths.push(path.clone());
        Some(Self { path: path.value, size: size?.value })
    }
}
