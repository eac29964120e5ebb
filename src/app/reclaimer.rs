//! Gives the memory of purged responses back although nobody asks for them, and looks after the disks.
//!
//! A purge touches no stored response. When something was purged, a thread of low duty goes through what is stored, a few
//! at a time, and takes out what is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::storage::Record;
use crate::clock;
use crate::pipeline::Pipeline;

/// Looked at together: some microseconds.
const STEP: usize = 256;
/// How long one round takes, whatever is stored. What was purged while it went on is found in the next.
const ROUND: Duration = Duration::from_secs(20);
/// How often it is looked whether something was purged.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread. Dropping it ends it.
pub struct Reclaimer {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reclaimer {
    /// # Errors
    /// No thread can be started.
    pub fn start(pipeline: Arc<Pipeline>, record: Arc<Record>) -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let asked = ending.clone();
        let thread = thread::Builder::new().name("reclaimer".into()).spawn(move || run(&pipeline, &record, &asked))?;
        Ok(Self { ending, thread: Some(thread) })
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn run(pipeline: &Pipeline, record: &Record, ending: &AtomicBool) {
    let mut seen = pipeline.store.ledger.version();
    while !ending.load(Ordering::Acquire) {
        thread::park_timeout(LOOK_EVERY);
        look_at_disks(pipeline, record);
        let version = pipeline.store.ledger.version();
        if version != seen {
            seen = version;
            round(pipeline, ending);
        }
    }
}

/// Says which disks are in use, and remembers those that are not.
fn look_at_disks(pipeline: &Pipeline, record: &Record) {
    let disks = &pipeline.store.disks;
    for disk in disks.all() {
        pipeline.metrics.disk_up(&disk.path.to_string_lossy(), !disk.is_out());
    }
    record.note(disks, pipeline.store.ledger.applied().log.generation());
}

fn round(pipeline: &Pipeline, ending: &AtomicBool) {
    let steps = u32::try_from(pipeline.store.memory.objects() / STEP + 1).unwrap_or(u32::MAX);
    let pause = (ROUND / steps).min(Duration::from_millis(50));
    let (mut from, started) = ((0, 0), clock::monotonic());
    loop {
        let (taken, next) = pipeline.store.reclaim(from, STEP);
        pipeline.metrics.reclaimed(taken as u64);
        match next {
            Some(next) if !ending.load(Ordering::Acquire) => from = next,
            _ => break,
        }
        thread::park_timeout(pause);
    }
    tracing::debug!(seconds = clock::monotonic().duration_since(started).as_secs_f64(), "looked for what was purged");
}
