//! The purge log on this node's own disk: what a node alone has in place of a log that many share.
//!
//! One thread writes. Purges that come while it writes, or shortly after, are written together: they share one transaction
//! and one sync. A purge is acknowledged when its record is on disk and the ledger in memory has it. What follows from the
//! records for the ledger is written every few thousand of them; a node that starts reads that and replays the rest.

mod told;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use tokio::sync::oneshot;
use ulid::Ulid;

use self::told::{Asker, tell};
use super::ledger::{Entry, Ledger};
use super::position::LogPosition;
use super::record::{Kind, PurgeRecord, Selector};
use crate::clock;
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// What is known of the log: `compacted`, up to where [`LEDGER`] has everything, and `created`, in milliseconds of Unix
/// time.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
/// Records by position, as JSON. The last is where the log is.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// The compacted ledger: a selector, and the positions of its latest hard and soft purge and the time of the soft one.
const LEDGER: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("ledger");

/// Records kept to be asked about: about 100 MiB.
const RECORDS_MAX: u64 = 500_000;
/// Rows of the ledger on disk; the ledger in memory has bounds of its own.
const ROWS_MAX: u64 = 1 << 20;
/// Records after which the ledger on disk follows: a node that starts replays at most so many.
const COMPACT_EVERY: u64 = 4096;
/// Purges that wait for the disk. More are refused.
const WAITING_MAX: usize = 8192;
/// Room for most records: of one selector.
const RECORD_BYTES: usize = 512;
/// Purges written together at most.
const BATCH_MAX: usize = 1024;
/// How long a purge waits for others to be written with it, when the one before was written no longer ago than
/// [`BUSY_FOR`]: a purge now and then waits for nothing, and many cost a fraction of a transaction each.
const GATHER: Duration = Duration::from_millis(10);
const BUSY_FOR: Duration = Duration::from_millis(16);
/// The generation of a node's first log.
pub const FIRST_GENERATION: u16 = 1;
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
    asker: Asker,
}

/// A purge that is in force, and where it is in the log.
pub type Written = (LogPosition, PurgeRecord);

/// The file, as writer and readers share it. None: it could not be opened again after it failed.
type Shared = Arc<Mutex<Option<Arc<Database>>>>;

/// The log. Dropping it closes it.
pub struct LocalLog {
    waiting: Mutex<Option<SyncSender<Waiting>>>,
    database: Shared,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    created: UnixMs,
}

/// What the thread that writes has.
struct Writer {
    /// None: in memory.
    path: Option<PathBuf>,
    database: Shared,
    ledger: Arc<Ledger>,
    keyer: Keyer,
    position: LogPosition,
    /// What the ledger on disk does not have yet.
    dirty: HashMap<String, Entry>,
    compacted: LogPosition,
}

impl LocalLog {
    /// Opens the log in a directory and brings the ledger up to it. `directory` none: it ends with the process.
    /// `generation`: of a log that is made now; later than any before it.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(
        directory: Option<&Path>,
        ledger: Arc<Ledger>,
        keyer: Keyer,
        now: UnixMs,
        generation: u16,
    ) -> Result<Self, OpenError> {
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
        let (compacted, created) = begin(&database, now, generation).map_err(unusable)?;
        let database = Arc::new(Mutex::new(Some(Arc::new(database))));
        let dirty = HashMap::new();
        let mut writer =
            Writer { path, database: database.clone(), ledger, keyer, position: compacted, dirty, compacted };
        writer.restore().and_then(|()| writer.replay()).map_err(unusable)?;
        writer.ledger.restore(writer.position, LogPosition::new(compacted.generation(), 0));

        let (waiting, asked) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new().name("purge-log".into()).spawn(move || writer.run(&asked));
        let writer = Mutex::new(Some(thread.map_err(OpenError::Thread)?));
        Ok(Self { waiting: Mutex::new(Some(waiting)), database, writer, created })
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
        let aside = directory.join(format!("{FILE}.unusable-{}", now.0));
        std::fs::rename(directory.join(FILE), &aside)?;
        Ok(aside)
    }

    /// Writes a purge, and gives it its id. When this returns it is on disk and in the ledger.
    ///
    /// # Errors
    /// It is neither.
    pub async fn append(&self, record: PurgeRecord) -> Result<Written, Arc<LogError>> {
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

    /// A purge and its position, if it is still known.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn find(&self, id: Ulid) -> Result<Option<Written>, LogError> {
        let database = self.database.lock().clone().ok_or(LogError::Closed)?;
        let read = database.begin_read().map_err(storage)?;
        let records = read.open_table(RECORDS).map_err(storage)?;
        let position = position_in(id);
        let Some(text) = records.get(position.as_u64()).map_err(storage)? else { return Ok(None) };
        let record: PurgeRecord = serde_json::from_slice(text.value())?;
        Ok((record.id == id).then_some((position, record)))
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
        if let Err(error) = self.compact() {
            tracing::warn!(%error, "the next start replays what was purged");
        }
    }

    fn take(&mut self, batch: Vec<Waiting>) {
        let mut records = Vec::with_capacity(batch.len());
        let mut askers = Vec::with_capacity(batch.len());
        let mut position = self.position;
        for Waiting { mut record, asker } in batch {
            position = position.next();
            record.id = id_at(record.at, position);
            records.push((position, record));
            askers.push(asker);
        }
        match self.write(&records) {
            Ok(()) => {
                tell(askers.into_iter().zip(records.into_iter().map(Ok)).collect());
                if self.position.as_u64() - self.compacted.as_u64() >= COMPACT_EVERY
                    && let Err(error) = self.compact()
                {
                    tracing::warn!(%error, "the ledger on disk stays behind");
                }
            }
            Err(error) => {
                tracing::error!(%error, purges = askers.len(), "purges are not taken");
                let error = Arc::new(error);
                tell(askers.into_iter().map(|asker| (asker, Err(error.clone()))).collect());
                // A file that failed once refuses everything until it is opened anew.
                if let Err(error) = self.reopen() {
                    tracing::error!(%error, path = ?self.path, "the purge log cannot be opened again");
                }
            }
        }
    }

    /// Writes records in one transaction, then applies them.
    fn write(&mut self, batch: &[Written]) -> Result<(), LogError> {
        let transaction = self.database()?.begin_write().map_err(storage)?;
        {
            let mut records = transaction.open_table(RECORDS).map_err(storage)?;
            let mut text = Vec::with_capacity(RECORD_BYTES);
            for (position, record) in batch {
                text.clear();
                serde_json::to_writer(&mut text, record)?;
                records.insert(position.as_u64(), text.as_slice()).map_err(storage)?;
            }
        }
        transaction.commit().map_err(storage)?;
        for (position, record) in batch {
            self.apply(*position, record);
        }
        Ok(())
    }

    fn apply(&mut self, position: LogPosition, record: &PurgeRecord) {
        record.apply(position, &self.ledger, &self.keyer);
        self.position = position;
        for selector in &record.selectors {
            // It was made by us, of what can be written.
            let Ok(name) = serde_json::to_string(selector) else { continue };
            self.dirty.entry(name).or_default().purge(record.mode.into(), position, UnixMs(record.at));
        }
    }

    /// Has the ledger on disk follow, and forgets the oldest records.
    fn compact(&mut self) -> Result<(), LogError> {
        let transaction = self.database()?.begin_write().map_err(storage)?;
        {
            let mut rows = transaction.open_table(LEDGER).map_err(storage)?;
            // Most of them are new: what was there comes back from the one look there is.
            for (name, entry) in &self.dirty {
                let known = rows.insert(name.as_str(), row_of(*entry)).map_err(storage)?;
                if let Some(known) = known.map(|row| entry_of(row.value())) {
                    rows.insert(name.as_str(), row_of(known.and(*entry))).map_err(storage)?;
                }
            }
            fold(&mut rows)?;
            let mut records = transaction.open_table(RECORDS).map_err(storage)?;
            while records.len().map_err(storage)? > RECORDS_MAX {
                records.pop_first().map_err(storage)?;
            }
            let mut state = transaction.open_table(STATE).map_err(storage)?;
            state.insert("compacted", self.position.as_u64()).map_err(storage)?;
        }
        transaction.commit().map_err(storage)?;
        self.compacted = self.position;
        self.dirty.clear();
        Ok(())
    }

    fn database(&mut self) -> Result<Arc<Database>, LogError> {
        if self.database.lock().is_none() {
            self.reopen()?;
        }
        self.database.lock().clone().ok_or(LogError::Closed)
    }

    /// Opens the file anew, and applies what was written although it was said not to be.
    fn reopen(&mut self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        *self.database.lock() = None;
        let database = Arc::new(open(Some(path))?);
        *self.database.lock() = Some(database);
        self.replay()
    }

    /// Applies the records behind the position.
    fn replay(&mut self) -> Result<(), LogError> {
        let database = self.database.lock().clone().ok_or(LogError::Closed)?;
        let read = database.begin_read().map_err(storage)?;
        let records = read.open_table(RECORDS).map_err(storage)?;
        for row in records.range(self.position.next().as_u64()..).map_err(storage)? {
            let (position, text) = row.map_err(storage)?;
            let record: PurgeRecord = serde_json::from_slice(text.value())?;
            self.apply(LogPosition::from_u64(position.value()), &record);
        }
        Ok(())
    }

    /// Fills the ledger with the rows on disk.
    fn restore(&mut self) -> Result<(), LogError> {
        let database = self.database.lock().clone().ok_or(LogError::Closed)?;
        let read = database.begin_read().map_err(storage)?;
        let rows = read.open_table(LEDGER).map_err(storage)?;
        for row in rows.iter().map_err(storage)? {
            let (selector, entry) = row.map_err(storage)?;
            let selector: Selector = serde_json::from_str(selector.value())?;
            self.ledger.enter_entry(&selector.target(&self.ledger, &self.keyer), entry_of(entry.value()));
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

fn open(path: Option<&Path>) -> Result<Database, LogError> {
    match path {
        Some(path) => Database::create(path).map_err(storage),
        None => Database::builder().create_with_backend(InMemoryBackend::new()).map_err(storage),
    }
}

/// Makes the tables, if they are not there. Gives the position up to which the ledger on disk is complete, and when the log
/// was made.
fn begin(database: &Database, now: UnixMs, generation: u16) -> Result<(LogPosition, UnixMs), LogError> {
    let transaction = database.begin_write().map_err(storage)?;
    let begun;
    {
        transaction.open_table(RECORDS).map_err(storage)?;
        transaction.open_table(LEDGER).map_err(storage)?;
        let mut state = transaction.open_table(STATE).map_err(storage)?;
        let number = |state: &Table<'_, &str, u64>, name| {
            state.get(name).map(|found| found.map(|number| number.value())).map_err(storage)
        };
        begun = match (number(&state, "compacted")?, number(&state, "created")?) {
            (Some(position), created) => (LogPosition::from_u64(position), UnixMs(created.unwrap_or(0))),
            (None, _) => {
                let first = LogPosition::new(generation, 0);
                state.insert("compacted", first.as_u64()).map_err(storage)?;
                state.insert("created", now.0).map_err(storage)?;
                (first, now)
            }
        };
    }
    transaction.commit().map_err(storage)?;
    Ok(begun)
}

fn entry_of((hard, soft, soft_at): (u64, u64, u64)) -> Entry {
    Entry { hard: LogPosition::from_u64(hard), soft: LogPosition::from_u64(soft), soft_at: UnixMs(soft_at) }
}

fn row_of(entry: Entry) -> (u64, u64, u64) {
    (entry.hard.as_u64(), entry.soft.as_u64(), entry.soft_at.0)
}

/// Keeps the bound of rows: the oldest quarter goes into the rows of their sites.
fn fold(rows: &mut Table<'_, &str, (u64, u64, u64)>) -> Result<(), LogError> {
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
        if matches!(selector.kind, Kind::Site | Kind::Everything) {
            continue;
        }
        rows.remove(name.as_str()).map_err(storage)?;
        let site = serde_json::to_string(&Selector::new(&selector.site, Kind::Site, ""))?;
        let known = rows.get(site.as_str()).map_err(storage)?.map(|row| entry_of(row.value())).unwrap_or_default();
        let whole = Entry { hard: known.hard.max(latest), ..known };
        rows.insert(site.as_str(), row_of(whole)).map_err(storage)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
