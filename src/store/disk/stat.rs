//! What one disk of the cache holds and has done, for who asks now.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::device::Disk;

/// One disk, as `littoral stat` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct DiskStat {
    pub path: PathBuf,
    /// What it may take.
    pub bytes: u64,
    /// What frames take of it, those that have been superseded among them.
    pub used_bytes: u64,
    pub responses: u64,
    /// Responses, chunks of bodies, and what leads from one key to another.
    pub frames: u64,
    /// Everything that was on it when the node started is known.
    pub recovered: bool,
    pub up: bool,
    /// Why it is not used, or what it last failed with.
    pub why: Option<String>,
    /// Every part of it has been used: what is written takes the place of something.
    pub full: bool,
    pub written_bytes: u64,
    /// Frames written again because they were wanted when their place was needed.
    pub kept: u64,
    /// Frames forgotten because their place was needed.
    pub evicted: u64,
    /// Frames that were not what had been written.
    pub damaged: u64,
    /// What waits to be written.
    pub queued_bytes: u64,
}

impl DiskStat {
    pub fn of(disk: &Disk) -> Self {
        let log = disk.log();
        let log = log.as_ref();
        let count =
            |of: fn(&super::log::Counts) -> &AtomicU64| log.map_or(0, |log| of(&log.counts).load(Ordering::Relaxed));
        Self {
            path: disk.path.clone(),
            bytes: disk.bytes,
            used_bytes: log.map_or(0, |log| log.used_bytes()),
            responses: log.map_or(0, |log| log.index.records()),
            frames: log.map_or(0, |log| log.index.len()),
            recovered: disk.is_recovered(),
            // Until it is open it is neither used nor out.
            up: log.is_some() && !disk.is_out(),
            why: disk.why(),
            full: disk.is_full(),
            written_bytes: count(|counts| &counts.written_bytes),
            kept: count(|counts| &counts.kept),
            evicted: count(|counts| &counts.evicted),
            damaged: count(|counts| &counts.damaged),
            queued_bytes: count(|counts| &counts.queued_bytes),
        }
    }
}
