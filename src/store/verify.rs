//! Reading what is on disks to see whether it is what was written: one response, or everything at a bounded rate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use edge_config::section::limits::CHUNK_BYTES;
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;
use crate::store::Store;
use crate::store::body::chunks_of;
use crate::store::disk::Disks;
use crate::store::disk::device::Disk;
use crate::store::disk::log::Looked;
use crate::store::inventory::DiskRecord;
use crate::store::memory::Entry;

/// Chunks of one response that are read in one call: half a GiB.
pub const CHUNKS_MAX: usize = 2_048;
/// How soon a verification of everything notices that it is to end.
const NOTICE_WITHIN: Duration = Duration::from_millis(100);

/// What was found where a chunk is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChunkState {
    Right,
    /// Not what was written; it is forgotten.
    Damaged,
    /// Not there any more.
    Missing,
    /// The disk failed.
    Unreadable,
}

impl Store {
    /// Reads the chunks of a response, the first [`CHUNKS_MAX`] of them. One that has lost a chunk is forgotten: no client
    /// begins to read it.
    pub fn verify(&self, record: &DiskRecord) -> Vec<ChunkState> {
        let (stored, log) = (&record.stored, record.disk.log());
        let (Some(body), Some(log)) = (stored.sparse(), log) else { return Vec::new() };
        let length = stored.body_len();
        let chunks: Vec<ChunkState> = (0..chunks_of(length))
            .take(CHUNKS_MAX)
            .map(|index| {
                let frame = body.frame(index);
                let bytes = (length - u64::from(index) * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64);
                match log.look(frame.hash()) {
                    Ok(Looked::Frame(found)) if found.head.key == frame && found.payload.len() as u64 == bytes => {
                        ChunkState::Right
                    }
                    Ok(Looked::Frame(_) | Looked::Nothing) => ChunkState::Missing,
                    Ok(Looked::Damaged) => ChunkState::Damaged,
                    Err(_) => ChunkState::Unreadable,
                }
            })
            .collect();
        if chunks.iter().any(|state| matches!(state, ChunkState::Damaged | ChunkState::Missing)) {
            self.forget_body(record);
        }
        chunks
    }

    /// Forgets a response whose body is not whole. Where all of it is in memory it stays there.
    fn forget_body(&self, record: &DiskRecord) {
        let _step = self.commit_lock(&record.key);
        if let Some(Entry::Response(now)) = self.memory.lookup(&record.key)
            && now.sparse().is_some_and(|body| Some(body.generation) == record.stored.generation())
        {
            self.memory.remove(&record.key);
        }
        // A later one that has taken its place meanwhile stays.
        if let Some(log) = record.disk.log() {
            log.index.remove_at(record.key.low_u64(), record.location);
        }
    }
}

/// How far a verification of everything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Progress {
    pub running: bool,
    /// When it began, in milliseconds of Unix time. Absent: there was none since the node started.
    pub started_at: Option<u64>,
    pub seconds: f64,
    /// What is read in a second at most.
    pub mib_per_second: u32,
    /// Frames there were when it began.
    pub frames_at_start: u64,
    /// Read so far.
    pub frames: u64,
    pub bytes: u64,
    pub right: u64,
    /// Not what had been written. Each is forgotten: what it was of is fetched again when it is wanted.
    pub damaged: u64,
    /// Replaced or evicted while this went on.
    pub gone: u64,
    /// The disk failed.
    pub unreadable: u64,
    /// The disk that is read now.
    #[schema(value_type = Option<String>)]
    pub disk: Option<PathBuf>,
}

/// One is under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a verification is under way already: GET /v1/cache/verify says how far it is")]
pub struct UnderWay;

/// The verification of everything: one at a time, on a thread of its own.
#[derive(Default)]
pub struct Verification {
    progress: Mutex<Progress>,
    stop: AtomicBool,
}

impl Verification {
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Begins to read everything.
    ///
    /// # Errors
    /// One is under way.
    pub fn start(self: &Arc<Self>, disks: Arc<Disks>, mib_per_second: u32) -> Result<Progress, UnderWay> {
        let mut progress = self.progress.lock();
        if progress.running {
            return Err(UnderWay);
        }
        let logs = disks.all().iter().filter_map(|disk| disk.log());
        *progress = Progress {
            running: true,
            started_at: Some(clock::wall().0),
            mib_per_second,
            frames_at_start: logs.map(|log| log.index.len()).sum(),
            ..Progress::default()
        };
        let this = self.clone();
        let spawned = thread::Builder::new().name("verify".into()).spawn(move || {
            this.read_all(&disks, u64::from(mib_per_second) << 20);
            let mut progress = this.progress.lock();
            (progress.running, progress.disk) = (false, None);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "nothing is verified: there is no thread for it");
            progress.running = false;
        }
        Ok(progress.clone())
    }

    /// Has it end soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn read_all(&self, disks: &Disks, rate: u64) {
        let started = clock::monotonic();
        let mut pace = Pace { rate, next: started };
        for disk in disks.all() {
            self.progress.lock().disk = Some(disk.path.clone());
            for shard in 0.. {
                let Some(frames) = disk.log().and_then(|log| log.index.in_shard(shard)) else { break };
                for hash in frames {
                    if disk.is_out() || self.stop.load(Ordering::Acquire) {
                        break;
                    }
                    pace.wait(self.read_one(disk, hash));
                    self.progress.lock().seconds = clock::monotonic().duration_since(started).as_secs_f64();
                }
            }
        }
    }

    /// Reads one frame. Gives the bytes that took.
    fn read_one(&self, disk: &Disk, hash: u64) -> u64 {
        let Some((log, location)) = disk.log().and_then(|log| log.index.get(hash).map(|location| (log, location)))
        else {
            self.progress.lock().gone += 1;
            return 0;
        };
        let bytes = location.bytes() as u64;
        let looked = log.look(hash);
        let mut progress = self.progress.lock();
        progress.frames += 1;
        progress.bytes += bytes;
        match looked {
            Ok(Looked::Frame(_)) => progress.right += 1,
            Ok(Looked::Damaged) => progress.damaged += 1,
            Ok(Looked::Nothing) => progress.gone += 1,
            Err(_) => progress.unreadable += 1,
        }
        bytes
    }
}

/// Bytes no faster than at a rate. What was slower is not made up for.
struct Pace {
    rate: u64,
    next: Instant,
}

impl Pace {
    /// When to go on after so many bytes at `now`.
    fn after(&mut self, bytes: u64, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64);
        self.next = self.next.max(now.checked_sub(takes).unwrap_or(now)) + takes;
        self.next
    }

    fn wait(&mut self, bytes: u64) {
        let until = self.after(bytes, clock::monotonic());
        while let Some(left) = until.checked_duration_since(clock::monotonic()).filter(|left| !left.is_zero()) {
            thread::park_timeout(left.min(NOTICE_WITHIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_and_not_made_up_for() {
        let begin = clock::monotonic();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut pace = Pace { rate: 1_000, next: begin };
        for (name, bytes, now, expected) in [
            ("read at once", 100, 0, 100),
            ("and another", 100, 100, 200),
            ("a stall", 100, 5_000, 5_000),
            ("is not made up for", 100, 5_000, 5_100),
            ("nothing takes no time", 0, 5_100, 5_100),
        ] {
            assert_eq!(pace.after(bytes, at(now)), at(expected), "{name}");
        }
    }
}
