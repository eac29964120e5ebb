//! What a node keeps of a purge log on its own disk: the records, the ledger that follows from them, and how far it is.
//!
//! Records are written in the order of the log, with their positions. What follows from them for the ledger is written every few
//! thousand of them; a node that starts reads that and replays the rest.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use super::ledger::{Entry, Ledger};
use super::log::{LogError, OpenError};
use super::position::LogPosition;
use super::record::{Kind, PurgeRecord, Selector};
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// What is known of the log: `compacted`, up to where [`LEDGER`] has everything, and `created`, in milliseconds of Unix
/// time.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
/// Records by position, as JSON. The last is where the log is.
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// The compacted ledger: a selector, and the positions of its latest hard and soft purge and the time of the soft one.
const LEDGER: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("ledger");

/// Pages of the file in memory at most. What is looked up often, the ledger, is in memory anyway.
const CACHE_BYTES: usize = 8 << 20;
/// Records kept to be asked about: about 100 MiB.
const RECORDS_MAX: u64 = 500_000;
/// Rows of the ledger on disk; the ledger in memory has bounds of its own.
const ROWS_MAX: u64 = 1 << 20;
/// Records after which the ledger on disk follows: a node that starts replays at most so many.
pub const COMPACT_EVERY: u64 = 4096;

/// Room for most records: of one selector.
const RECORD_BYTES: usize = 512;

/// A purge that is in force, and where it is in the log.
pub type Written = (LogPosition, PurgeRecord);

/// The file, as the writer and readers share it. None: it could not be opened again after it failed.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Option<Arc<Database>>>>);

/// The file, as its one writer has it.
pub struct Kept {
    /// None: in memory.
    path: Option<PathBuf>,
    pub shared: Shared,
    ledger: Arc<Ledger>,
    keyer: Keyer,
    /// Up to here everything is in the ledger in memory.
    pub position: LogPosition,
    /// What the ledger on disk does not have yet.
    dirty: HashMap<String, Entry>,
    compacted: LogPosition,
    created: UnixMs,
}

/// Makes redb's many errors one.
pub fn storage(error: impl Into<redb::Error>) -> LogError {
    LogError::Storage(error.into())
}

impl Kept {
    /// Opens the file in a directory and brings the ledger up to it. `directory` none: it ends with the process.
    /// `generation`: of a log that is made now; later than any before it.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    pub fn open(
        directory: Option<&Path>,
        file: &str,
        ledger: Arc<Ledger>,
        keyer: Keyer,
        now: UnixMs,
        generation: u16,
    ) -> Result<Self, OpenError> {
        let path = match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
                Some(directory.join(file))
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
        let shared = Shared(Arc::new(Mutex::new(Some(Arc::new(database)))));
        let dirty = HashMap::new();
        let mut kept = Self { path, shared, ledger, keyer, position: compacted, dirty, compacted, created };
        kept.restore().and_then(|()| kept.replay()).map_err(unusable)?;
        kept.ledger.restore(kept.position, LogPosition::new(compacted.generation(), 0));
        Ok(kept)
    }

    /// When it was made: another one has another time.
    pub fn created(&self) -> UnixMs {
        self.created
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes records, and what `also` writes, in one transaction; they are not in the ledger yet.
    ///
    /// # Errors
    /// Nothing is written.
    pub fn write(
        &mut self,
        records: &[Written],
        also: impl FnOnce(&WriteTransaction) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let transaction = self.database()?.begin_write().map_err(storage)?;
        enter(&transaction, records)?;
        also(&transaction)?;
        transaction.commit().map_err(storage)
    }

    /// Enters a record into the ledger.
    pub fn apply(&mut self, position: LogPosition, record: &PurgeRecord) {
        record.apply(position, &self.ledger, &self.keyer);
        self.position = position;
        for selector in &record.selectors {
            // It was made by us, of what can be written.
            let Ok(name) = serde_json::to_string(selector) else { continue };
            self.dirty.entry(name).or_default().purge(record.mode.into(), position, UnixMs(record.at));
        }
    }

    /// The log that was followed is lost: another one begins at `position`, of a later generation, and everything that was stored
    /// before is gone. On disk before it is said. `records`: of the other log, up to that position; they are not applied.
    ///
    /// # Errors
    /// It cannot be written: nothing has changed.
    pub fn begin_anew(
        &mut self,
        position: LogPosition,
        records: &[Written],
        also: impl FnOnce(&WriteTransaction) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let transaction = self.database()?.begin_write().map_err(storage)?;
        enter(&transaction, records)?;
        {
            // Whatever they say is about what is gone anyway.
            transaction.open_table(LEDGER).map_err(storage)?.retain(|_, _| false).map_err(storage)?;
            let mut state = transaction.open_table(STATE).map_err(storage)?;
            state.insert("compacted", position.as_u64()).map_err(storage)?;
        }
        also(&transaction)?;
        transaction.commit().map_err(storage)?;
        self.dirty.clear();
        (self.position, self.compacted) = (position, position);
        self.ledger.restore(position, LogPosition::new(position.generation(), 0));
        Ok(())
    }

    /// Has the ledger on disk follow when it is far behind.
    pub fn keep_up(&mut self) {
        if self.position.as_u64() - self.compacted.as_u64() >= COMPACT_EVERY
            && let Err(error) = self.compact()
        {
            tracing::warn!(%error, "the ledger on disk stays behind");
        }
    }

    /// Has the ledger on disk follow, and forgets the oldest records.
    ///
    /// # Errors
    /// It stays behind.
    pub fn compact(&mut self) -> Result<(), LogError> {
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
        if self.shared.0.lock().is_none() {
            self.reopen()?;
        }
        self.shared.0.lock().clone().ok_or(LogError::Closed)
    }

    /// Opens the file anew, and applies what was written although it was said not to be. A file that failed once refuses
    /// everything until then.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        *self.shared.0.lock() = None;
        let database = Arc::new(open(Some(path))?);
        *self.shared.0.lock() = Some(database);
        self.replay()
    }

    /// Applies the records behind the position. Those of another generation are of a log that was lost.
    fn replay(&mut self) -> Result<(), LogError> {
        let read = self.shared.read()?;
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
        let read = self.shared.read()?;
        let rows = read.open_table(LEDGER).map_err(storage)?;
        for row in rows.iter().map_err(storage)? {
            let (selector, entry) = row.map_err(storage)?;
            let selector: Selector = serde_json::from_str(selector.value())?;
            self.ledger.enter_entry(&selector.target(&self.ledger, &self.keyer), entry_of(entry.value()));
        }
        Ok(())
    }
}

impl Shared {
    /// Gives the file back, so that another process can have it.
    pub fn close(&self) {
        *self.0.lock() = None;
    }

    /// Begins to read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<ReadTransaction, LogError> {
        let database = self.0.lock().clone().ok_or(LogError::Closed)?;
        database.begin_read().map_err(storage)
    }

    /// The record at a position, if it is still known.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn record_at(&self, position: LogPosition) -> Result<Option<PurgeRecord>, LogError> {
        let read = self.read()?;
        let records = read.open_table(RECORDS).map_err(storage)?;
        let Some(text) = records.get(position.as_u64()).map_err(storage)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(text.value())?))
    }
}

/// Puts a file out of the way, and says where it is now.
///
/// # Errors
/// It stays where it is.
pub fn set_aside(directory: &Path, file: &str, now: UnixMs) -> std::io::Result<PathBuf> {
    let aside = directory.join(format!("{file}.unusable-{}", now.0));
    std::fs::rename(directory.join(file), &aside)?;
    Ok(aside)
}

fn enter(transaction: &WriteTransaction, records: &[Written]) -> Result<(), LogError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(RECORDS).map_err(storage)?;
    let mut text = Vec::with_capacity(RECORD_BYTES);
    for (position, record) in records {
        text.clear();
        serde_json::to_writer(&mut text, record)?;
        table.insert(position.as_u64(), text.as_slice()).map_err(storage)?;
    }
    Ok(())
}

fn open(path: Option<&Path>) -> Result<Database, LogError> {
    match path {
        Some(path) => Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(storage),
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
