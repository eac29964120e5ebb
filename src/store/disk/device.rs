//! One disk of the cache: opened in the background, used while it is sound.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use foyer::{HybridCache, HybridCacheBuilder, HybridCachePolicy, Load, PsyncIoEngineConfig, RecoverMode, Spawner};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, FlockOperation};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::clearing::Keep;
use super::engine::SegmentEngineConfig;
use super::frame::{FrameKey, HEAD, Kind, PAYLOAD_MAX};
use super::health::Health;
use super::index::{SEGMENT_BYTES_MAX, SEGMENTS_MAX};
use super::log::{Geometry, Log, Writer};
use super::manifest::{DATA, DiskError, Manifest};
use super::recovery;
use super::value::{Payload, Value};
use crate::clock;
use crate::semantics::time::UnixMs;
use crate::store::budget::Reservation;
use crate::store::key::KeyHasher;
use crate::telemetry::metrics::Metrics;

/// Segments a disk has at least: what is cleared at a time is then no large part of it.
const SEGMENTS_WANTED: u64 = 32;
/// A segment at least, so that a frame of any size and its row of the table fit many times.
const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Segments are multiples of it.
const SEGMENT_STEP: u64 = 64 << 10;
/// What the other files of the directory take at most.
const OTHER_FILES: u64 = 1 << 20;
/// How long a disk may take to write what is queued when the node stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Threads of one disk that may wait for it.
const READERS: usize = 16;

const _: () = assert!(PAYLOAD_MAX as u64 * 4 < SEGMENT_BYTES_MIN);

/// What a disk is opened with.
#[derive(Clone)]
pub struct Settings {
    pub path: PathBuf,
    pub bytes: u64,
    /// Frames its index may know.
    pub entries_max: u64,
    /// Counts the starts of the node.
    pub run: u64,
    /// It was taken out while the node ran: it may hold what was replaced elsewhere.
    pub distrusted: bool,
}

/// One disk.
pub struct Disk {
    pub path: PathBuf,
    /// What it is chosen by, the same in every run.
    pub seed: u64,
    pub bytes: u64,
    pub health: Arc<Health>,
    /// What it could not be opened for.
    refused: Mutex<Option<String>>,
    open: ArcSwapOption<Open>,
    recovered: AtomicBool,
    /// Another process is to have it.
    released: AtomicBool,
    settings: Settings,
    keep: Arc<dyn Keep>,
    opening: Mutex<Option<thread::JoinHandle<()>>>,
    runtime: Mutex<Option<Runtime>>,
    metrics: Arc<Metrics>,
}

struct Open {
    cache: HybridCache<FrameKey, Value, KeyHasher>,
    log: Arc<Log<File>>,
    /// When it was opened: what is distrusted is stale since then.
    at: UnixMs,
    manifest: Mutex<Manifest>,
    /// Holds the lock that keeps other processes out. None: another one has it.
    lock: Mutex<Option<File>>,
}

/// What was read from a disk.
pub struct Loaded {
    pub kind: Kind,
    pub payload: Payload,
    /// Since when it has to be validated before it is used, if it has.
    pub distrusted_since: Option<UnixMs>,
}

impl Disk {
    /// Opens a disk on a thread of its own. What is on it is found little by little.
    pub fn open(settings: Settings, keep: Arc<dyn Keep>, metrics: Arc<Metrics>) -> Arc<Self> {
        let disk = Arc::new(Self {
            seed: twox_hash::XxHash3_64::oneshot(settings.path.as_os_str().as_encoded_bytes()),
            path: settings.path.clone(),
            bytes: settings.bytes,
            health: Arc::default(),
            refused: Mutex::default(),
            open: ArcSwapOption::empty(),
            recovered: AtomicBool::new(false),
            released: AtomicBool::new(false),
            settings,
            keep,
            opening: Mutex::default(),
            runtime: Mutex::default(),
            metrics,
        });
        disk.start_opening(disk.settings.clone());
        disk
    }

    /// Opens it anew, after another process was to have it and did not keep it. `run`: later than of that one.
    pub fn reopen(self: &Arc<Self>, run: u64) {
        self.released.store(false, Ordering::Release);
        self.recovered.store(false, Ordering::Release);
        self.start_opening(Settings { run, ..self.settings.clone() });
    }

    fn start_opening(self: &Arc<Self>, settings: Settings) {
        let (disk, opened) = (self, self.clone());
        let thread = thread::Builder::new().name("disk-open".into()).spawn(move || {
            if let Err(error) = opened.start(&settings, opened.keep.clone()) {
                tracing::error!(%error, "a disk of the cache is not used");
                *opened.refused.lock() = Some(error.to_string());
                opened.health.take_out(&error.to_string());
            }
        });
        match thread {
            Ok(thread) => *disk.opening.lock() = Some(thread),
            Err(error) => disk.health.take_out(&error.to_string()),
        }
    }

    fn start(&self, settings: &Settings, keep: Arc<dyn Keep>) -> Result<(), DiskError> {
        let started = clock::monotonic();
        let directory = &settings.path;
        fs::create_dir_all(directory).map_err(|error| DiskError::Directory(directory.clone(), error))?;
        let lock = lock(directory)?;
        let known = Manifest::read(directory)?;
        let segment_bytes = known.as_ref().map_or_else(|| segment_bytes(settings.bytes), |known| known.segment_bytes);
        let geometry = geometry(settings.bytes, segment_bytes)
            .ok_or_else(|| DiskError::Foreign(directory.clone(), format!("segments of {segment_bytes} bytes")))?;
        let mut manifest = Manifest::new(geometry, settings.run);
        manifest.distrusted = known.as_ref().map_or(0, |known| known.distrusted);
        let read = |error| DiskError::Read(directory.join(DATA), error);
        let data = open_data(directory)?;
        let found = data.metadata().map_err(read)?.len();
        let wanted = known.as_ref().map_or(0, Manifest::data_bytes);
        if found < wanted {
            tracing::warn!(file = %directory.join(DATA).display(), bytes = found, "the file was cut off: what is left is used");
        }
        let loses = found < wanted || is_used_beyond(&data, geometry, wanted).map_err(read)?;
        let certain =
            known.as_ref().is_none_or(|known| known.is_certain(settings.run)) && !settings.distrusted && !loses;
        take_space(&data, directory, geometry.bytes())?;
        let log = Arc::new(Log::new(data, geometry));
        log.distrust(manifest.distrusted);
        let used = recovery::segments(&log).map_err(read)?;
        if let Some((_, newest)) = used.first().filter(|_| !certain) {
            tracing::warn!(disk = %directory.display(), "what is on the disk is validated before it is used: what replaced it may be lost");
            // What was lost may have had later epochs: none of them is given again.
            log.distrust((*newest).max(clock::wall().0));
        }
        recovery::claim(&log, &used);
        manifest.distrusted = log.distrusted();
        // On the disk before anything else is: from here on it is not known how it will be left.
        manifest.write(directory).map_err(|error| DiskError::Space(directory.clone(), geometry.bytes(), error))?;
        let resume = recovery::resume(&log, used.first().copied(), !certain).map_err(read)?;
        let writer = Writer::new(log.clone(), Box::new(keep), resume, settings.entries_max);
        let cache = self.build(&log, writer)?;
        let (at, manifest, lock) = (clock::wall(), Mutex::new(manifest), Mutex::new(Some(lock)));
        self.open.store(Some(Arc::new(Open { cache, log: log.clone(), at, manifest, lock })));
        for (segment, epoch) in used.iter().skip(1) {
            if self.health.is_out() || self.released.load(Ordering::Acquire) {
                return Ok(());
            }
            // What cannot be read is doubt about what is older, and no more.
            if let Err(error) = recovery::recover(&log, *segment, *epoch) {
                self.health.failed(&error, "read");
            }
        }
        self.recovered.store(true, Ordering::Release);
        self.note_distrust();
        let seconds = clock::monotonic().duration_since(started).as_secs_f64();
        tracing::info!(disk = %directory.display(), responses = log.index.records(), seconds, "a disk of the cache is open");
        Ok(())
    }

    fn build(
        &self,
        log: &Arc<Log<File>>,
        writer: Writer<File>,
    ) -> Result<HybridCache<FrameKey, Value, KeyHasher>, DiskError> {
        let failed = |error: String| DiskError::Start(self.path.clone(), error);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(READERS)
            .thread_name("disk")
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let engine = SegmentEngineConfig {
            log: log.clone(),
            writer,
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        let building = HybridCacheBuilder::new()
            .with_name("disk")
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .with_flush_on_close(false)
            // The memory tier is a cache of its own: what goes through here is for the disk alone.
            .memory(8)
            .with_shards(8)
            .with_hash_builder(KeyHasher::default())
            .storage()
            .with_io_engine_config(PsyncIoEngineConfig::new())
            .with_engine_config(engine)
            .with_recover_mode(RecoverMode::Quiet)
            .with_spawner(Spawner::from(runtime.handle().clone()))
            .build();
        let cache = runtime.block_on(building).map_err(|error| failed(error.to_string()))?;
        if let Some(before) = self.runtime.lock().replace(runtime) {
            before.shutdown_background();
        }
        Ok(cache)
    }

    fn usable(&self) -> Option<Arc<Open>> {
        self.open.load_full().filter(|_| !self.health.is_out())
    }

    /// It is not used, and will not be.
    pub fn is_out(&self) -> bool {
        self.health.is_out()
    }

    /// Everything that is on it is known.
    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// What is written takes the place of something else.
    pub fn is_full(&self) -> bool {
        self.usable().is_some_and(|open| open.log.is_full())
    }

    /// Why it is not used, or what it last failed with.
    pub fn why(&self) -> Option<String> {
        self.refused.lock().clone().or_else(|| self.health.why())
    }

    /// What is distrusted is stale since then.
    pub fn opened_at(&self) -> Option<UnixMs> {
        self.open.load().as_ref().map(|open| open.at)
    }

    pub fn log(&self) -> Option<Arc<Log<File>>> {
        self.open.load().as_ref().map(|open| open.log.clone())
    }

    /// Whether it may hold a frame. A wonder of a number that two frames share apart, it does.
    pub fn contains(&self, key: &FrameKey) -> bool {
        self.usable().is_some_and(|open| open.cache.storage().may_contains(key))
    }

    /// Reads a frame. None: it is not there, or no more, or cannot be read.
    pub async fn load(&self, key: &FrameKey) -> Option<Loaded> {
        let open = self.usable()?;
        match open.cache.storage().load(key).await.ok()? {
            Load::Entry { value, .. } => {
                let distrusted_since = value.doubtful.then_some(open.at);
                Some(Loaded { kind: value.kind, payload: value.payload, distrusted_since })
            }
            // It still waits to be written.
            Load::Piece { piece, .. } => {
                let value = piece.value();
                Some(Loaded { kind: value.kind, payload: value.payload.clone(), distrusted_since: None })
            }
            Load::Throttled | Load::Miss => None,
        }
    }

    /// Has a frame written. What is given back tells whether it was; none: it cannot be.
    pub fn put(
        &self,
        key: FrameKey,
        kind: Kind,
        site: u32,
        payload: Payload,
        room: Reservation,
    ) -> Option<oneshot::Receiver<bool>> {
        let open = self.usable()?;
        let (value, told) = Value::to_write(kind, site, payload, room);
        drop(open.cache.storage_writer(key).force().insert(value));
        Some(told)
    }

    pub fn remove(&self, key: &FrameKey) {
        if let Some(open) = &*self.open.load() {
            open.cache.storage().delete(key);
        }
    }

    fn note_distrust(&self) {
        let Some(open) = self.open.load_full() else { return };
        let mut manifest = open.manifest.lock();
        if manifest.distrusted < open.log.distrusted() {
            manifest.distrusted = open.log.distrusted();
            if let Err(error) = manifest.write(&self.path) {
                self.health.failed(&error, "write");
            }
        }
    }

    /// Lets another process have it: what is queued is written, and nothing is from then on. What is there is read still, and
    /// told by its checksum from what the other process writes over it.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
        if let Some(opening) = self.opening.lock().take() {
            // One that panicked has said so.
            let _ = opening.join();
        }
        let (runtime, open) = (self.runtime.lock(), self.open.load_full());
        let (Some(runtime), Some(open)) = (&*runtime, open) else { return };
        if self.write_the_rest(runtime, &open) {
            drop(open.lock.lock().take());
        }
    }

    /// Writes what is queued and says that everything is there.
    pub fn close(&self) {
        let (runtime, open) = (self.runtime.lock().take(), self.open.load_full());
        let (Some(runtime), Some(open)) = (runtime, open) else { return };
        if open.lock.lock().is_some() {
            self.write_the_rest(&runtime, &open);
        }
        runtime.shutdown_background();
    }

    /// False: the disk does not answer in time, and may yet write something.
    fn write_the_rest(&self, runtime: &Runtime, open: &Open) -> bool {
        let closed = runtime.block_on(async { tokio::time::timeout(CLOSE_WITHIN, open.cache.close()).await });
        let is_closed = closed.is_ok_and(|closed| closed.is_ok());
        if is_closed && !self.is_out() {
            let mut manifest = open.manifest.lock();
            manifest.clean = self.is_recovered();
            manifest.distrusted = open.log.distrusted();
            if let Err(error) = manifest.write(&self.path) {
                tracing::warn!(%error, disk = %self.path.display(), "the disk is not marked as closed");
            }
        }
        is_closed
    }
}

fn lock(directory: &Path) -> Result<File, DiskError> {
    let path = directory.join("littoral.lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| DiskError::Open(path.clone(), error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::InUse(directory.to_owned())),
        Err(error) => Err(DiskError::Open(path, error.into())),
    }
}

fn open_data(directory: &Path) -> Result<File, DiskError> {
    let path = directory.join(DATA);
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    opened.map_err(|error| DiskError::Open(path, error))
}

/// Whether something was written to the segments that a smaller disk will not have: it may have replaced what stays.
fn is_used_beyond(data: &File, geometry: Geometry, wanted: u64) -> io::Result<bool> {
    let mut at = geometry.bytes();
    while at < wanted {
        let mut head = [0; HEAD];
        data.read_exact_at(&mut head, at)?;
        if head != [0; HEAD] {
            return Ok(true);
        }
        at += geometry.segment_bytes;
    }
    Ok(false)
}

/// Has the file have exactly so many bytes, all of them on the disk.
fn take_space(data: &File, directory: &Path, bytes: u64) -> Result<(), DiskError> {
    let path = directory.join(DATA);
    let space = |error: io::Error| DiskError::Space(path.clone(), bytes, error);
    let size = data.metadata().map_err(space)?.len();
    if size > bytes {
        data.set_len(bytes).map_err(space)?;
    }
    match rustix::fs::fallocate(data, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => {
            tracing::warn!(file = %path.display(), "its file system cannot set space aside: a full disk will lose writes");
            data.set_len(bytes).map_err(space)
        }
        Err(error) => {
            // What could be had of it is given back, so that nothing else runs out.
            if size < bytes {
                let _ = data.set_len(size);
            }
            Err(space(error.into()))
        }
    }
}

/// How large the segments of a new disk are.
fn segment_bytes(bytes: u64) -> u64 {
    let wanted = bytes.saturating_sub(OTHER_FILES) / SEGMENTS_WANTED;
    wanted.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) / SEGMENT_STEP * SEGMENT_STEP
}

fn geometry(bytes: u64, segment_bytes: u64) -> Option<Geometry> {
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) || !segment_bytes.is_multiple_of(SEGMENT_STEP)
    {
        return None;
    }
    let segments =
        u32::try_from(bytes.saturating_sub(OTHER_FILES) / segment_bytes).unwrap_or(SEGMENTS_MAX).min(SEGMENTS_MAX);
    (segments >= 4).then_some(Geometry { segment_bytes, segments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_any_size_are_divided_into_segments_that_fit_them() {
        for (bytes, want) in [
            (64 << 20, Some((4 << 20, 15))),
            (2 << 30, Some((1023 << 16, 32))),
            (1 << 40, Some((64 << 20, 16383))),
            (8 << 20, None),
        ] {
            let geometry = geometry(bytes, segment_bytes(bytes));
            assert_eq!(geometry.map(|geometry| (geometry.segment_bytes, geometry.segments)), want, "{bytes}");
            assert!(geometry.is_none_or(|geometry| geometry.bytes() + OTHER_FILES <= bytes));
        }
        assert_eq!(geometry(2 << 30, 12345), None);
    }
}
