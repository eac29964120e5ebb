//! The purge log on this node's own disk: what a node alone has in place of a log that many share.
//!
//! One thread writes. Purges that come while it writes are written together after that: they share one sync. A purge is
//! acknowledged when its record, what follows from it for the ledger, and the new position are on disk in one
//! transaction, and when the ledger in memory has it too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use tokio::sync::oneshot;
use ulid::Ulid;

use super::ledger::{Entry, Ledger};
use super::position::LogPosition;
use super::record::{PurgeRecord, Selector};
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// What is known of the log: `position`, and `created` in milliseconds of Unix time.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
/// Records by position, as JSON.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Positions by id.
const IDS: TableDefinition<'_, u128, u64> = TableDefinition::new("ids");
/// The compacted ledger: a selector, and the positions of its latest hard and soft purge and the time of the soft one.
const LEDGER: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("ledger");

/// Records kept to be asked about: about 100 MiB.
const RECORDS_MAX: u64 = 500_000;
/// Rows of the ledger on disk; the ledger in memory has bounds of its own.
const ROWS_MAX: u64 = 1 << 20;
/// Purges that wait for the disk. More are refused.
const WAITING_MAX: usize = 8192;
/// Purges written together at most.
const BATCH_MAX: usize = 1024;
const FIRST_GENERATION: u16 = 1;
const FILE: &str = "purge.redb";

/// Why a purge was not taken, or not found.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("too many purges wait for the disk")]
    Overloaded,
    #[error("the purge log cannot be written: {0}")]
    Storage(#[from] redb::Error),
    #[error("a record of the purge log cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("the purge log is closed")]
    Closed,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the directory {0} cannot be made: {1}")]
    Directory(PathBuf, std::io::Error),
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("{0} cannot be used: {1}")]
    Unusable(PathBuf, LogError),
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

/// Makes redb's many errors one.
fn storage(error: impl Into<redb::Error>) -> LogError {
    LogError::Storage(error.into())
}

/// A purge that waits for the disk.
struct Waiting {
    record: PurgeRecord,
    done: oneshot::Sender<Result<LogPosition, Arc<LogError>>>,
}

/// The file, as writer and readers share it. None: it could not be opened again after it failed.
type Shared = Arc<Mutex<Option<Arc<Database>>>>;

/// The log. Dropping it closes it.
pub struct LocalLog {
    waiting: Mutex<Option<SyncSender<Waiting>>>,
    database: Shared,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the thread that writes has.
struct Writer {
    /// None: in memory.
    path: Option<PathBuf>,
    database: Shared,
    ledger: Arc<Ledger>,
    keyer: Keyer,
    position: LogPosition,
}

impl LocalLog {
    /// Opens the log in a directory and brings the ledger up to it. `directory` none: it ends with the process.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(directory: Option<&Path>, ledger: Arc<Ledger>, keyer: Keyer, now: UnixMs) -> Result<Self, OpenError> {
        let path = match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
                Some(directory.join(FILE))
            }
            None => None,
        };
        let shown = path.clone().unwrap_or_default();
        let database = open(path.as_deref()).map_err(|error| match error {
            LogError::Storage(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse(shown.clone()),
            error => OpenError::Unusable(shown.clone(), error),
        })?;
        let unusable = |error| OpenError::Unusable(shown.clone(), error);
        let position = begin(&database, now).map_err(unusable)?;
        restore(&database, &ledger, &keyer).map_err(unusable)?;
        ledger.restore(position, LogPosition::new(position.generation(), 0));

        let database = Arc::new(Mutex::new(Some(Arc::new(database))));
        let (waiting, asked) = sync_channel(WAITING_MAX);
        let writer = Writer { path, database: database.clone(), ledger, keyer, position };
        let thread = thread::Builder::new().name("purge-log".into()).spawn(move || writer.run(&asked));
        let writer = Mutex::new(Some(thread.map_err(OpenError::Thread)?));
        Ok(Self { waiting: Mutex::new(Some(waiting)), database, writer })
    }

    /// Writes a purge. When this returns it is on disk and in the ledger.
    ///
    /// # Errors
    /// It is neither.
    pub async fn append(&self, record: PurgeRecord) -> Result<LogPosition, Arc<LogError>> {
        let (done, told) = oneshot::channel();
        let sent = match &*self.waiting.lock() {
            Some(waiting) => waiting.try_send(Waiting { record, done }).map_err(|error| match error {
                TrySendError::Full(_) => LogError::Overloaded,
                TrySendError::Disconnected(_) => LogError::Closed,
            }),
            None => Err(LogError::Closed),
        };
        sent.map_err(Arc::new)?;
        told.await.unwrap_or_else(|_| Err(Arc::new(LogError::Closed)))
    }

    /// A purge and its position, if it is still known.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn find(&self, id: Ulid) -> Result<Option<(LogPosition, PurgeRecord)>, LogError> {
        let database = self.database.lock().clone().ok_or(LogError::Closed)?;
        let read = database.begin_read().map_err(storage)?;
        let ids = read.open_table(IDS).map_err(storage)?;
        let Some(position) = ids.get(id.0).map_err(storage)?.map(|position| position.value()) else { return Ok(None) };
        let records = read.open_table(RECORDS).map_err(storage)?;
        let Some(text) = records.get(position).map_err(storage)? else { return Ok(None) };
        Ok(Some((LogPosition::from_u64(position), serde_json::from_slice(text.value())?)))
    }

    /// Takes no more purges and writes those that wait.
    pub fn close(&self) {
        drop(self.waiting.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // It ends with its channel; what it could not write it has told.
            let _ = writer.join();
        }
    }
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writer {
    fn run(mut self, asked: &Receiver<Waiting>) {
        while let Ok(first) = asked.recv() {
            let batch: Vec<Waiting> = std::iter::once(first).chain(asked.try_iter().take(BATCH_MAX - 1)).collect();
            let outcome = self.write(&batch);
            if let Err(error) = &outcome {
                tracing::error!(%error, purges = batch.len(), "purges are not taken");
                // A file that failed once refuses everything until it is opened anew.
                if let Err(error) = self.reopen() {
                    tracing::error!(%error, path = ?self.path, "the purge log cannot be opened again");
                }
            }
            let outcome = outcome.map_err(Arc::new);
            for (waiting, position) in batch.into_iter().zip(self.positions_after(&outcome)) {
                // Whoever asked may be gone; the purge holds all the same.
                let _ = waiting.done.send(position);
            }
        }
    }

    /// The position of each record of a batch that begins behind `first`.
    fn positions_after(
        &self,
        first: &Result<LogPosition, Arc<LogError>>,
    ) -> impl Iterator<Item = Result<LogPosition, Arc<LogError>>> + use<> {
        let mut next = first.clone();
        std::iter::repeat_with(move || {
            next = next.clone().map(LogPosition::next);
            next.clone()
        })
    }

    /// Writes a batch in one transaction, then applies it. Gives the position before it.
    fn write(&mut self, batch: &[Waiting]) -> Result<LogPosition, LogError> {
        if self.database.lock().is_none() {
            self.reopen()?;
        }
        let database = self.database.lock().clone().ok_or(LogError::Closed)?;
        let before = self.position;
        let transaction = database.begin_write().map_err(storage)?;
        let mut position = before;
        {
            let mut records = transaction.open_table(RECORDS).map_err(storage)?;
            let mut ids = transaction.open_table(IDS).map_err(storage)?;
            for Waiting { record, .. } in batch {
                position = position.next();
                records.insert(position.as_u64(), serde_json::to_vec(record)?.as_slice()).map_err(storage)?;
                ids.insert(record.id.0, position.as_u64()).map_err(storage)?;
                enter(&transaction, position, record)?;
            }
            while records.len().map_err(storage)? > RECORDS_MAX {
                let Some((_, text)) = records.pop_first().map_err(storage)? else { break };
                let old: PurgeRecord = serde_json::from_slice(text.value())?;
                ids.remove(old.id.0).map_err(storage)?;
            }
            fold(&transaction)?;
            let mut state = transaction.open_table(STATE).map_err(storage)?;
            state.insert("position", position.as_u64()).map_err(storage)?;
        }
        transaction.commit().map_err(storage)?;
        self.position = position;
        let mut position = before;
        for Waiting { record, .. } in batch {
            position = position.next();
            record.apply(position, &self.ledger, &self.keyer);
        }
        Ok(before)
    }

    /// Opens the file anew, and applies what was written although it was said not to be.
    fn reopen(&mut self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        *self.database.lock() = None;
        let database = Arc::new(open(Some(path))?);
        *self.database.lock() = Some(database.clone());
        let read = database.begin_read().map_err(storage)?;
        let state = read.open_table(STATE).map_err(storage)?;
        let written = state.get("position").map_err(storage)?.map_or(0, |position| position.value());
        let records = read.open_table(RECORDS).map_err(storage)?;
        for row in records.range(self.position.next().as_u64()..=written).map_err(storage)? {
            let (position, text) = row.map_err(storage)?;
            let record: PurgeRecord = serde_json::from_slice(text.value())?;
            self.position = LogPosition::from_u64(position.value());
            record.apply(self.position, &self.ledger, &self.keyer);
        }
        Ok(())
    }
}

fn open(path: Option<&Path>) -> Result<Database, LogError> {
    match path {
        Some(path) => Database::create(path).map_err(storage),
        None => Database::builder().create_with_backend(InMemoryBackend::new()).map_err(storage),
    }
}

/// Makes the tables, if they are not there, and gives the last position.
fn begin(database: &Database, now: UnixMs) -> Result<LogPosition, LogError> {
    let transaction = database.begin_write().map_err(storage)?;
    let position;
    {
        transaction.open_table(RECORDS).map_err(storage)?;
        transaction.open_table(IDS).map_err(storage)?;
        transaction.open_table(LEDGER).map_err(storage)?;
        let mut state = transaction.open_table(STATE).map_err(storage)?;
        let known = state.get("position").map_err(storage)?.map(|position| position.value());
        position = match known {
            Some(position) => LogPosition::from_u64(position),
            None => {
                let first = LogPosition::new(FIRST_GENERATION, 0);
                state.insert("position", first.as_u64()).map_err(storage)?;
                state.insert("created", now.0).map_err(storage)?;
                first
            }
        };
    }
    transaction.commit().map_err(storage)?;
    Ok(position)
}

/// Fills a ledger with the rows on disk.
fn restore(database: &Database, ledger: &Ledger, keyer: &Keyer) -> Result<(), LogError> {
    let read = database.begin_read().map_err(storage)?;
    let rows = read.open_table(LEDGER).map_err(storage)?;
    for row in rows.iter().map_err(storage)? {
        let (selector, entry) = row.map_err(storage)?;
        let selector: Selector = serde_json::from_str(selector.value())?;
        let target = selector.target(ledger, keyer);
        let entry = entry_of(entry.value());
        ledger.enter_entry(&target, entry);
    }
    Ok(())
}

fn entry_of((hard, soft, soft_at): (u64, u64, u64)) -> Entry {
    Entry { hard: LogPosition::from_u64(hard), soft: LogPosition::from_u64(soft), soft_at: UnixMs(soft_at) }
}

fn row_of(entry: Entry) -> (u64, u64, u64) {
    (entry.hard.as_u64(), entry.soft.as_u64(), entry.soft_at.0)
}

/// Writes what follows from a record into the ledger on disk.
fn enter(transaction: &WriteTransaction, position: LogPosition, record: &PurgeRecord) -> Result<(), LogError> {
    let mut rows = transaction.open_table(LEDGER).map_err(storage)?;
    for selector in &record.selectors {
        let name = serde_json::to_string(selector)?;
        let mut entry =
            rows.get(name.as_str()).map_err(storage)?.map_or_else(Entry::default, |row| entry_of(row.value()));
        entry.purge(record.mode.into(), position, UnixMs(record.at));
        rows.insert(name.as_str(), row_of(entry)).map_err(storage)?;
    }
    Ok(())
}

/// Keeps the bound of rows: the oldest quarter goes into the rows of their sites.
fn fold(transaction: &WriteTransaction) -> Result<(), LogError> {
    let mut rows = transaction.open_table(LEDGER).map_err(storage)?;
    if rows.len().map_err(storage)? <= ROWS_MAX {
        return Ok(());
    }
    let mut all = Vec::new();
    for row in rows.iter().map_err(storage)? {
        let (selector, entry) = row.map_err(storage)?;
        all.push((entry_of(entry.value()).latest(), selector.value().to_owned()));
    }
    all.sort_unstable();
    all.truncate(all.len() / 4);
    for (latest, name) in all {
        let selector: Selector = serde_json::from_str(&name)?;
        if matches!(selector.kind, super::record::Kind::Site | super::record::Kind::Everything) {
            continue;
        }
        rows.remove(name.as_str()).map_err(storage)?;
        let site = serde_json::to_string(&Selector::new(&selector.site, super::record::Kind::Site, ""))?;
        let mut entry =
            rows.get(site.as_str()).map_err(storage)?.map_or_else(Entry::default, |row| entry_of(row.value()));
        entry.hard = entry.hard.max(latest);
        rows.insert(site.as_str(), row_of(entry)).map_err(storage)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
