//! The engine under foyer's `HybridCache`: its queue is written to the [`Log`] by one thread, and reads come from it.
//!
//! foyer keeps what waits to be written readable and gives each write a place in its queue; where a frame stands, what is
//! evicted and what a disk holds after a crash is the log's business. A read that finds its pages in the system's memory
//! is done on the thread that asks; any other on a thread of the disk's own runtime, with a deadline: a disk that stalls
//! stalls no connection.

use std::fmt;
use std::fs::File;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use foyer::{
    Age, Device, DeviceBuilder, Engine, EngineBuildContext, EngineConfig, HybridCacheProperties, Load,
    NoopDeviceBuilder, PieceRef, Result, Spawner, StorageFilterResult,
};
use foyer_storage::Populated;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::frame::FrameKey;
use super::health::Health;
use super::log::{Frame, Item, Log, Writer};
use super::value::Value;
use crate::clock;
use crate::telemetry::metrics::Metrics;

type Piece = PieceRef<FrameKey, Value, HybridCacheProperties>;
type Loaded = Load<FrameKey, Value, HybridCacheProperties>;

/// Frames written in one call, and their bytes, at most.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// Reads that wait for a disk. More are misses: the origin is faster then.
const READS_MAX: usize = 64;
/// How long a read may take. Longer, and the disk counts as stalled.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// What the thread that writes is given.
enum Work {
    Write(Piece),
    /// Tell when everything before it is written.
    Reach(oneshot::Sender<()>),
}

/// The engine of one disk.
pub struct SegmentEngine {
    log: Arc<Log<File>>,
    /// None once it is closed.
    queue: Mutex<Option<Sender<Work>>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    device: Arc<dyn Device>,
    spawner: Spawner,
    reads: Arc<Semaphore>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// What an engine is made of, until foyer asks for it.
pub struct SegmentEngineConfig {
    pub log: Arc<Log<File>>,
    pub writer: Writer<File>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for SegmentEngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentEngineConfig").finish_non_exhaustive()
    }
}

impl fmt::Debug for SegmentEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentEngine").finish_non_exhaustive()
    }
}

impl From<SegmentEngineConfig> for Box<dyn EngineConfig<FrameKey, Value, HybridCacheProperties>> {
    fn from(config: SegmentEngineConfig) -> Self {
        Box::new(config)
    }
}

type Built = Result<Arc<dyn Engine<FrameKey, Value, HybridCacheProperties>>>;

impl EngineConfig<FrameKey, Value, HybridCacheProperties> for SegmentEngineConfig {
    fn build(self: Box<Self>, context: EngineBuildContext) -> BoxFuture<'static, Built> {
        let Self { log, writer, health, metrics } = *self;
        let (queue, work) = channel();
        let (told, counted) = (health.clone(), metrics.clone());
        let spawned = thread::Builder::new().name("disk-writer".into()).spawn(move || {
            write_all(writer, &work, &told, &counted);
        });
        // foyer does the reading and writing of its own engines through a device; ours does its own.
        let engine = spawned.map_err(foyer::Error::io_error).and_then(|thread| {
            let device: Arc<dyn Device> = NoopDeviceBuilder::default().build()?;
            Ok(Arc::new(SegmentEngine {
                log,
                queue: Mutex::new(Some(queue)),
                writer: Mutex::new(Some(thread)),
                device,
                spawner: context.spawner,
                reads: Arc::new(Semaphore::new(READS_MAX)),
                health,
                metrics,
            }) as Arc<dyn Engine<FrameKey, Value, HybridCacheProperties>>)
        });
        Box::pin(ready(engine))
    }
}

impl SegmentEngine {
    /// A read that has to wait for the disk.
    async fn wait_for(
        hash: u64,
        log: Arc<Log<File>>,
        spawner: Spawner,
        reads: Arc<Semaphore>,
        health: Arc<Health>,
    ) -> Result<Loaded> {
        // More than the disk can do: whoever comes now is better served by the origin.
        let Ok(permit) = reads.try_acquire_owned() else { return Ok(Load::Throttled) };
        let read = spawner.spawn_blocking(move || {
            let _permit = permit;
            log.read(hash)
        });
        match tokio::time::timeout(READ_WITHIN, read).await {
            Ok(Ok(Ok(frame))) => {
                health.read_succeeded();
                Ok(loaded(frame))
            }
            Ok(Ok(Err(error))) => {
                health.failed(&error, "read");
                Err(foyer::Error::io_error(error))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time");
                health.failed(&error, "read");
                Err(foyer::Error::io_error(error))
            }
        }
    }
}

fn loaded(frame: Option<Frame>) -> Loaded {
    match frame {
        Some(Frame { head, payload, doubtful }) => Load::Entry {
            key: head.key,
            value: Value::read(head.kind, head.site, payload, doubtful),
            populated: Populated { age: Age::Young },
        },
        None => Load::Miss,
    }
}

impl Engine<FrameKey, Value, HybridCacheProperties> for SegmentEngine {
    fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What is given to it has been admitted.
    fn filter(&self, _: u64, _: usize) -> StorageFilterResult {
        StorageFilterResult::Admit
    }

    fn enqueue(&self, piece: Piece, _: usize) {
        let bytes = piece.value().payload.bytes() as u64;
        // Before it is queued: it may be written before this returns.
        self.log.counts.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refused = match &*self.queue.lock() {
            Some(queue) => match queue.send(Work::Write(piece)) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => Work::Write(piece),
        };
        self.log.counts.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Work::Write(piece) = refused {
            piece.value().tell(false);
        }
    }

    fn load(&self, hash: u64) -> BoxFuture<'static, Result<Loaded>> {
        let started = clock::monotonic();
        match self.log.read_at_once(hash) {
            Ok(frame) => {
                if frame.is_some() {
                    self.metrics.disk_read(clock::monotonic().duration_since(started).as_secs_f64());
                }
                Box::pin(ready(Ok(loaded(frame))))
            }
            Err(()) => {
                let (log, spawner) = (self.log.clone(), self.spawner.clone());
                let read = Self::wait_for(hash, log, spawner, self.reads.clone(), self.health.clone());
                let metrics = self.metrics.clone();
                Box::pin(async move {
                    let result = read.await;
                    metrics.disk_read(clock::monotonic().duration_since(started).as_secs_f64());
                    result
                })
            }
        }
    }

    fn delete(&self, hash: u64) {
        self.log.index.remove(hash);
    }

    fn may_contains(&self, hash: u64) -> bool {
        self.log.is_known(hash)
    }

    fn destroy(&self) -> BoxFuture<'static, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn wait(&self) -> BoxFuture<'static, ()> {
        let (reached, told) = oneshot::channel();
        if let Some(queue) = &*self.queue.lock() {
            let _ = queue.send(Work::Reach(reached));
        }
        Box::pin(async move { _ = told.await })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        drop(self.queue.lock().take());
        let thread = self.writer.lock().take();
        let spawner = self.spawner.clone();
        Box::pin(async move {
            if let Some(thread) = thread {
                // It ends with its queue; if the disk hangs, whoever closes stops waiting.
                let _ = spawner.spawn_blocking(move || thread.join()).await;
            }
            Ok(())
        })
    }
}

/// Writes what is queued, as much at a time as is there.
fn write_all(mut writer: Writer<File>, work: &Receiver<Work>, health: &Health, metrics: &Metrics) {
    let mut next = None;
    loop {
        let Some(first) = next.take().or_else(|| work.recv().ok()) else { return };
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        let mut current = Some(first);
        while let Some(item) = current.take() {
            match item {
                Work::Write(piece) => {
                    bytes += piece.value().payload.bytes();
                    pieces.push(piece);
                }
                Work::Reach(reached) => {
                    write_batch(&mut writer, &mut pieces, health, metrics);
                    let _ = reached.send(());
                }
            }
            if pieces.len() < BATCH && bytes < BATCH_BYTES {
                current = work.try_recv().ok();
            }
        }
        write_batch(&mut writer, &mut pieces, health, metrics);
    }
}

fn write_batch(writer: &mut Writer<File>, pieces: &mut Vec<Piece>, health: &Health, metrics: &Metrics) {
    if pieces.is_empty() {
        return;
    }
    let started = clock::monotonic();
    let items: Vec<Item<'_>> = pieces
        .iter()
        .map(|piece| {
            let value = piece.value();
            Item { key: *piece.key(), kind: value.kind, site: value.site, pieces: value.payload.pieces() }
        })
        .collect();
    let before = writer.appended();
    let result = if health.is_out() { Err(io::ErrorKind::NotConnected.into()) } else { writer.append(&items) };
    let seconds = clock::monotonic().duration_since(started).as_secs_f64();
    let written = usize::try_from(writer.appended() - before).unwrap_or(usize::MAX);
    match result {
        Ok(()) => health.write_succeeded(),
        Err(error) => {
            metrics.disk_lost("failed", pieces.len().saturating_sub(written) as u64);
            health.failed(&error, "write");
        }
    }
    metrics.disk_write(seconds);
    let bytes = items.iter().map(|item| item.payload_bytes() as u64).sum();
    writer.counts().queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    for (number, piece) in pieces.drain(..).enumerate() {
        piece.value().tell(number < written);
    }
}
