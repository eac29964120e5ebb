//! The purge log on this node's own disk: what a node alone has in place of a log that many share.
//!
//! One thread writes. Purges that come while it writes, or shortly after, are written together: they share one transaction
//! and one sync. A purge is acknowledged when its record is on disk and the ledger in memory has it.

mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use ulid::Ulid;

use self::told::{Asker, tell};
use super::kept::{self, Kept, Shared, Written};
use super::ledger::Ledger;
use super::log::{LogError, OpenError, PurgeLog, Purged, Standing, Wait};
use super::position::LogPosition;
use super::record::PurgeRecord;
use crate::clock;
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// Purges that wait for the disk. More are refused.
const WAITING_MAX: usize = 8192;
/// Purges written together at most.
const BATCH_MAX: usize = 1024;
/// How long a purge waits for others to be written with it, when the one before was written no longer ago than
/// [`BUSY_FOR`]: a purge now and then waits for nothing, and many cost a fraction of a transaction each.
const GATHER: Duration = Duration::from_millis(10);
const BUSY_FOR: Duration = Duration::from_millis(16);
/// The generation of a node's first log.
pub const FIRST_GENERATION: u16 = 1;
const FILE: &str = "purge.redb";

/// A purge that waits for the disk.
struct Waiting {
    record: PurgeRecord,
    asker: Asker,
}

/// The log. Dropping it closes it.
pub struct LocalLog {
    /// What the node is called in receipts.
    node: String,
    ledger: Arc<Ledger>,
    waiting: Mutex<Option<SyncSender<Waiting>>>,
    kept: Shared,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    created: UnixMs,
}

/// What the thread that writes has.
struct Writer {
    kept: Kept,
}

impl LocalLog {
    /// Opens the log in a directory and brings the ledger up to it. `directory` none: it ends with the process.
    /// `generation`: of a log that is made now; later than any before it.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(
        directory: Option<&Path>,
        node: &str,
        ledger: Arc<Ledger>,
        keyer: Keyer,
        now: UnixMs,
        generation: u16,
    ) -> Result<Self, OpenError> {
        let kept = Kept::open(directory, FILE, ledger.clone(), keyer, now, generation)?;
        let (shared, created) = (kept.shared.clone(), kept.created());
        let writer = Writer { kept };
        let (waiting, asked) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new().name("purge-log".into()).spawn(move || writer.run(&asked));
        let writer = Mutex::new(Some(thread.map_err(OpenError::Thread)?));
        let waiting = Mutex::new(Some(waiting));
        Ok(Self { node: node.to_owned(), ledger, waiting, kept: shared, writer, created })
    }

    /// When it was made: another one has another time.
    pub fn created(&self) -> UnixMs {
        self.created
    }

    /// Puts the file of a log that cannot be used out of the way, and says where it is now. The ledger of the node knows
    /// nothing of it: the next log has to be of a later generation.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn set_aside(directory: &Path, now: UnixMs) -> std::io::Result<PathBuf> {
        kept::set_aside(directory, FILE, now)
    }

    /// Writes a purge, and gives it its id. When this returns it is on disk and in the ledger.
    ///
    /// # Errors
    /// It is neither.
    pub async fn write(&self, record: PurgeRecord) -> Result<Written, Arc<LogError>> {
        let (asker, told) = oneshot::channel();
        let sent = match &*self.waiting.lock() {
            Some(waiting) => waiting.try_send(Waiting { record, asker }).map_err(|error| match error {
                TrySendError::Full(_) => LogError::Overloaded,
                TrySendError::Disconnected(_) => LogError::Closed,
            }),
            None => Err(LogError::Closed),
        };
        sent.map_err(Arc::new)?;
        told.await.map_err(|_| Arc::new(LogError::Closed))?.take()
    }

    fn purged(&self, (position, record): Written) -> Purged {
        let applied = self.ledger.applied().log;
        let (node, is_applied) = (self.node.clone(), applied >= position);
        let here = Standing { node, position: Some(applied), applied: is_applied, isolated: false };
        Purged { record, position: Some(position), nodes: vec![here] }
    }
}

#[async_trait]
impl PurgeLog for LocalLog {
    async fn append(&self, record: PurgeRecord, _: Wait) -> Result<Purged, Arc<LogError>> {
        Ok(self.purged(self.write(record).await?))
    }

    fn find(&self, id: Ulid) -> Result<Option<Purged>, LogError> {
        let position = position_in(id);
        let record = self.kept.record_at(position)?.filter(|record| record.id == id);
        Ok(record.map(|record| self.purged((position, record))))
    }

    fn close(&self) {
        drop(self.waiting.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // It ends with its channel; what it could not write it has told.
            let _ = writer.join();
        }
        self.kept.close();
    }
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writer {
    fn run(mut self, asked: &Receiver<Waiting>) {
        let mut written = None::<Instant>;
        while let Ok(first) = asked.recv() {
            let mut batch = vec![first];
            if written.is_some_and(|written| clock::monotonic().duration_since(written) < BUSY_FOR) {
                // Asleep, not at the channel: each purge that comes would wake the thread for itself.
                thread::park_timeout(GATHER);
            }
            batch.extend(asked.try_iter().take(BATCH_MAX - batch.len()));
            self.take(batch);
            written = Some(clock::monotonic());
        }
        if let Err(error) = self.kept.compact() {
            tracing::warn!(%error, "the next start replays what was purged");
        }
    }

    fn take(&mut self, batch: Vec<Waiting>) {
        let mut records = Vec::with_capacity(batch.len());
        let mut askers = Vec::with_capacity(batch.len());
        let mut position = self.kept.position;
        for Waiting { mut record, asker } in batch {
            position = position.next();
            record.id = id_at(record.at, position);
            records.push((position, record));
            askers.push(asker);
        }
        match self.write(&records) {
            Ok(()) => {
                tell(askers.into_iter().zip(records.into_iter().map(Ok)).collect());
                self.kept.keep_up();
            }
            Err(error) => {
                tracing::error!(%error, purges = askers.len(), "purges are not taken");
                let error = Arc::new(error);
                tell(askers.into_iter().map(|asker| (asker, Err(error.clone()))).collect());
                if let Err(error) = self.kept.reopen() {
                    tracing::error!(%error, path = ?self.kept.path(), "the purge log cannot be opened again");
                }
            }
        }
    }

    /// Writes records in one transaction, then applies them.
    fn write(&mut self, batch: &[Written]) -> Result<(), LogError> {
        self.kept.write(batch, |_| Ok(()))?;
        for (position, record) in batch {
            self.kept.apply(*position, record);
        }
        Ok(())
    }
}

/// The id of a record: its time and, in the low half, its position, so that it is found without an index.
fn id_at(at: u64, position: LogPosition) -> Ulid {
    Ulid::from_parts(at, u128::from(position.as_u64()))
}

fn position_in(id: Ulid) -> LogPosition {
    LogPosition::from_u64(id.random() as u64)
}

#[cfg(test)]
mod tests;
