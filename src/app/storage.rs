//! What outlives the process, put together: the node's identity, its purge log and ledger, its disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_config::Config;
use parking_lot::Mutex;

use super::StartError;
use super::identity::Identity;
use super::node::data_directory;
use crate::clock;
use crate::purge::invalidations::{Invalidations, buckets_for};
use crate::purge::ledger::Ledger;
use crate::purge::local::{FIRST_GENERATION, LocalLog, OpenError};
use crate::purge::selector::Naming;
use crate::store::Store;
use crate::store::budget::Budget;
use crate::store::disk::Disks;
use crate::store::disk::index::entries_within;
use crate::store::key::Keyer;
use crate::store::tiers::{DiskPlan, PlannedDisk};
use crate::telemetry::metrics::Metrics;

/// The part of the memory budget that entries of purges may take at most: 32 MiB of the default.
const LEDGER_SHARE: u64 = 16;

/// What was put together.
pub struct Storage {
    pub log: Arc<LocalLog>,
    pub store: Store,
    pub record: Record,
}

/// Writes down what the next start has to know.
pub struct Record {
    directory: PathBuf,
    identity: Mutex<Identity>,
}

impl Storage {
    /// Opens everything. Disks go on opening in the background.
    ///
    /// # Errors
    /// What must not be lost cannot be read or written.
    pub fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let directory = data_directory(config);
        std::fs::create_dir_all(&directory).map_err(|error| OpenError::Directory(directory.clone(), error))?;
        let mut identity = Identity::load(&directory)?;
        let keyer = Keyer::new(identity.secret());
        let memory = config.cache.memory.bytes();
        let has_disks = !config.cache.disks.is_empty();
        let (log, ledger, forgotten) = purge_log(&directory, &identity, &keyer, memory, has_disks, metrics)?;
        let applied = ledger.applied().log;
        identity.run += 1;
        identity.log_generation = identity.log_generation.max(applied.generation());
        identity.log_created = log.created().0;
        let distrusted = forgotten && identity.has_invalidations;
        identity.has_invalidations |= has_disks;
        let disks = config.cache.disks.iter().map(|disk| PlannedDisk {
            path: disk.path.clone(),
            bytes: disk.size.bytes(),
            distrusted: distrusted || identity.taken_out.contains(&disk.path),
        });
        let plan = DiskPlan { disks: disks.collect(), run: identity.run };
        identity.save(&directory)?;
        let store = Store::new(memory, ledger, keyer, metrics.clone(), &plan);
        Ok(Self { log, store, record: Record { directory, identity: Mutex::new(identity) } })
    }
}

impl Record {
    /// Remembers which disks are not used: what is replaced meanwhile may be found there again.
    pub fn note_disks(&self, disks: &Disks) {
        let out: Vec<PathBuf> = disks.all().iter().filter(|disk| disk.is_out()).map(|disk| disk.path.clone()).collect();
        let mut identity = self.identity.lock();
        if identity.taken_out != out {
            identity.taken_out = out;
            if let Err(error) = identity.save(&self.directory) {
                tracing::error!(%error, "the next start does not know which disks were taken out");
            }
        }
    }
}

/// Opens the log and brings a ledger up to it. One that cannot be read is set aside: what was purged is not known any more, so
/// everything that was stored is gone. Tells too whether invalidations were lost.
fn purge_log(
    directory: &Path,
    identity: &Identity,
    keyer: &Keyer,
    memory: u64,
    has_disks: bool,
    metrics: &Metrics,
) -> Result<(Arc<LocalLog>, Arc<Ledger>, bool), StartError> {
    let share = usize::try_from(memory / LEDGER_SHARE).unwrap_or(usize::MAX);
    let next = identity.log_generation.saturating_add(1).max(FIRST_GENERATION);
    let open = || {
        let naming = Naming::new(identity.secret());
        let (ledger, is_new) = match has_disks {
            true => {
                let buckets = buckets_for(entries_within(Budget::new(memory, true).index) / 4);
                let opened = Invalidations::open(directory, buckets)
                    .map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
                (Ledger::restored(share, naming, opened.buckets, Box::new(opened.file)), opened.is_new)
            }
            false => (Ledger::named(share, naming), false),
        };
        let ledger = Arc::new(ledger);
        let log = LocalLog::open(Some(directory), ledger.clone(), keyer.clone(), clock::wall(), next)?;
        Ok::<_, OpenError>((Arc::new(log), ledger, is_new))
    };
    let is_known = |log: &LocalLog| identity.log_created == 0 || log.created().0 == identity.log_created;
    let why = match open() {
        Ok((log, ledger, is_new)) => {
            let is_made_now = ledger.applied().log.generation() == next && ledger.applied().log.seq() == 0;
            if is_known(&log) || is_made_now {
                if is_made_now && identity.log_created != 0 {
                    tracing::error!("the purge log was lost: everything that was stored is gone");
                    metrics.floor_reset();
                }
                return Ok((log, ledger, is_new));
            }
            log.close();
            "it is of another node".to_owned()
        }
        Err(OpenError::Unusable(_, error)) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let aside = LocalLog::set_aside(directory, clock::wall())
        .map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
    tracing::error!(why, aside = %aside.display(), "the purge log cannot be used: everything that was stored is gone");
    metrics.floor_reset();
    Ok(open()?)
}
