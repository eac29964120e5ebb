//! What outlives the process, put together: the node's identity, its purge log and ledger, its disks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edge_config::Config;
use edge_config::section::purge::Log;
use parking_lot::Mutex;

use super::StartError;
use super::identity::{Identity, IdentityError};
use super::node::data_directory;
use crate::clock;
use crate::purge::invalidations::{Invalidations, buckets_for};
use crate::purge::ledger::Ledger;
use crate::purge::local::{FIRST_GENERATION, LocalLog};
use crate::purge::log::{OpenError, PurgeLog};
use crate::purge::nats::board::Board;
use crate::purge::nats::documents::Texts;
use crate::purge::nats::link::Hub;
use crate::purge::nats::presence::Presence;
use crate::purge::nats::shelf::Shelf;
use crate::purge::nats::{NatsLog, NodeName};
use crate::purge::replaceable::Replaceable;
use crate::purge::selector::Naming;
use crate::semantics::cdn_loop::CdnId;
use crate::store::Store;
use crate::store::budget::Budget;
use crate::store::disk::Disks;
use crate::store::disk::index::entries_within;
use crate::store::key::Keyer;
use crate::store::tiers::{DiskPlan, PlannedDisk};
use crate::telemetry::metrics::Metrics;

/// The part of the memory budget that entries of purges may take at most: 32 MiB of the default.
const LEDGER_SHARE: u64 = 16;
/// How long the log may be in use still by the process before: whoever looked something up in it.
const IN_USE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How a process begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Alone,
    /// In the place of another one, which has just given it everything.
    AfterAnother,
}

/// Where what nodes share of certificates is kept.
const BOARD_DIRECTORY: &str = "certificates";

/// What was put together.
pub struct Storage {
    pub log: Arc<dyn PurgeLog>,
    pub node: NodeName,
    /// What it says of itself to others.
    pub presence: Arc<Presence>,
    /// What the hub has of the configuration, if there is a hub.
    pub shelf: Option<Arc<Shelf>>,
    /// What nodes share of certificates that are issued.
    pub board: Arc<Board>,
    pub store: Store,
    pub record: Arc<Record>,
    /// Opens the log again, after another process was to have it.
    pub again: LogAgain,
    /// What the node calls itself in `CDN-Loop`.
    pub cdn: CdnId,
}

/// Writes down what the next start has to know.
pub struct Record {
    directory: PathBuf,
    identity: Mutex<Identity>,
    /// Another process writes it down.
    released: AtomicBool,
}

/// What it takes to open the log once more.
pub struct LogAgain {
    log: Arc<Replaceable>,
    ledger: Arc<Ledger>,
    config: Config,
    directory: PathBuf,
    node: NodeName,
    presence: Arc<Presence>,
    shelf: Arc<Shelf>,
    keyer: Keyer,
    next: u16,
    created: u64,
    metrics: Arc<Metrics>,
}

impl Storage {
    /// Opens everything. Disks go on opening in the background. `documents`: what is in force of the hub's configuration.
    ///
    /// # Errors
    /// What must not be lost cannot be read or written.
    pub fn open(config: &Config, documents: &Texts, metrics: &Arc<Metrics>, begin: Begin) -> Result<Self, StartError> {
        let directory = data_directory(config);
        std::fs::create_dir_all(&directory).map_err(|error| OpenError::Directory(directory.clone(), error))?;
        let mut identity = Identity::load(&directory)?;
        let (keyer, cdn) = (Keyer::new(identity.secret()), CdnId::new(&identity.secret()));
        let memory = config.cache.memory.bytes();
        let has_disks = !config.cache.disks.is_empty();
        let node = node_name(config, &identity);
        let presence = Arc::<Presence>::default();
        let is_shared = matches!(config.purge.log, Log::Nats(_));
        let board = directory.join(BOARD_DIRECTORY);
        let opened = Board::open(Some(&board), is_shared);
        let board = Arc::new(opened.map_err(|error| OpenError::Directory(board, error))?);
        let shelf = Arc::new(Shelf::new(&node.id, documents.clone(), board.clone()));
        let opening = Opening {
            directory: &directory,
            config,
            node: &node,
            presence: &presence,
            shelf: &shelf,
            identity: &identity,
            keyer: &keyer,
            memory,
            has_disks,
            metrics,
        };
        let (Opened { log, ledger, created, .. }, forgotten) = opening.purge_log(begin)?;
        let applied = ledger.applied().log;
        identity.run += 1;
        identity.log_generation = identity.log_generation.max(applied.generation());
        identity.log_created = created;
        let distrusted = forgotten && identity.has_invalidations;
        identity.has_invalidations |= has_disks;
        let disks = config.cache.disks.iter().map(|disk| PlannedDisk {
            path: disk.path.clone(),
            bytes: disk.size.bytes(),
            distrusted: distrusted || identity.taken_out.contains(&disk.path),
        });
        let plan = DiskPlan { disks: disks.collect(), run: identity.run };
        identity.save(&directory)?;
        let log = Arc::new(Replaceable::new(log));
        let again = LogAgain {
            log: log.clone(),
            ledger: ledger.clone(),
            config: config.clone(),
            directory: directory.clone(),
            node: node.clone(),
            presence: presence.clone(),
            shelf: shelf.clone(),
            keyer: keyer.clone(),
            next: identity.log_generation.saturating_add(1).max(FIRST_GENERATION),
            created,
            metrics: metrics.clone(),
        };
        let store = Store::new(memory, ledger, keyer, metrics.clone(), &plan);
        let shelf = is_shared.then_some(shelf);
        Ok(Self {
            log,
            node,
            presence,
            shelf,
            board,
            store,
            record: Arc::new(Record { directory, identity: Mutex::new(identity), released: AtomicBool::new(false) }),
            again,
            cdn,
        })
    }
}

impl Record {
    /// Remembers which disks are not used, where what is replaced meanwhile may be found again, and the generation of the log, which
    /// grows while the node runs when its hub has lost one: should what is kept of it be lost, the next is to be later.
    pub fn note(&self, disks: &Disks, generation: u16) {
        let out: Vec<PathBuf> = disks.all().iter().filter(|disk| disk.is_out()).map(|disk| disk.path.clone()).collect();
        let mut identity = self.identity.lock();
        if self.released.load(Ordering::Acquire) {
            return;
        }
        if identity.taken_out != out || identity.log_generation < generation {
            identity.taken_out = out;
            identity.log_generation = identity.log_generation.max(generation);
            if let Err(error) = identity.save(&self.directory) {
                tracing::error!(%error, "the next start does not know which disks were taken out, nor of the latest log");
            }
        }
    }
}

impl Record {
    /// Another process writes it down from now on.
    pub fn release(&self) {
        let _nobody_writes = self.identity.lock();
        self.released.store(true, Ordering::Release);
    }

    /// This process goes on after all. Gives the number of its run: later than the other's.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn begin_again(&self) -> Result<u64, IdentityError> {
        let mut identity = self.identity.lock();
        // The other one may have counted itself; it has not where it could not read this.
        let counted = Identity::load(&self.directory).map_or(0, |other| other.run);
        identity.run = identity.run.max(counted) + 1;
        identity.save(&self.directory)?;
        self.released.store(false, Ordering::Release);
        Ok(identity.run)
    }
}

impl LogAgain {
    /// Opens the log again, with the ledger everybody has.
    ///
    /// # Errors
    /// It cannot be used, or is another one now.
    pub fn open(&self) -> Result<(), StartError> {
        self.presence.begin_again();
        self.ledger.begin_again(self.config.purge.log == Log::Local);
        let opened = self.open_log().inspect_err(|_| self.ledger.end())?;
        self.log.replace(opened);
        Ok(())
    }

    fn open_log(&self) -> Result<Arc<dyn PurgeLog>, StartError> {
        let opening = OpeningLog {
            directory: &self.directory,
            config: &self.config,
            node: &self.node,
            presence: &self.presence,
            shelf: &self.shelf,
            keyer: &self.keyer,
            metrics: &self.metrics,
            next: self.next,
        };
        let (log, created) = opening.open(&self.ledger)?;
        if created != self.created {
            log.close();
            return Err(StartError::Upgrade("the purge log is another one now".to_owned()));
        }
        Ok(log)
    }
}

/// What the node is called: by the configuration, or as its machine; what tells it from another of that name; and where it is.
fn node_name(config: &Config, identity: &Identity) -> NodeName {
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = config.node.name.clone().unwrap_or_else(machine);
    let digest = blake3::derive_key("littoral 2026 the id of a node", &identity.secret());
    let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let pop = config.node.pop.clone().unwrap_or_default();
    let address = config.node.address.as_ref().map(|address| address.url()).unwrap_or_default();
    NodeName { id, name, pop, address }
}

/// What it takes to open the log.
struct Opening<'a> {
    directory: &'a Path,
    config: &'a Config,
    node: &'a NodeName,
    presence: &'a Arc<Presence>,
    shelf: &'a Arc<Shelf>,
    identity: &'a Identity,
    keyer: &'a Keyer,
    memory: u64,
    has_disks: bool,
    metrics: &'a Arc<Metrics>,
}

/// A log that was opened, and its ledger.
struct Opened {
    log: Arc<dyn PurgeLog>,
    ledger: Arc<Ledger>,
    /// When what is kept of it was made.
    created: u64,
    /// Invalidations were lost.
    forgotten: bool,
}

impl Opening<'_> {
    /// Opens the log and brings a ledger up to it. One that cannot be read is set aside: what was purged is not known any more, so
    /// everything that was stored is gone. Tells too whether invalidations were lost.
    fn purge_log(&self, begin: Begin) -> Result<(Opened, bool), StartError> {
        let Self { directory, identity, metrics, .. } = *self;
        let is_known = |opened: &Opened| identity.log_created == 0 || opened.created == identity.log_created;
        let until = clock::monotonic() + IN_USE_WITHIN;
        let mut opened = self.open();
        while begin == Begin::AfterAnother && matches!(opened, Err(OpenError::InUse(_))) && clock::monotonic() < until {
            std::thread::park_timeout(LOOK_EVERY);
            opened = self.open();
        }
        let why = match opened {
            Ok(opened) => {
                let position = opened.ledger.applied().log;
                let is_made_now = position.generation() == self.next_generation() && position.seq() == 0;
                if is_known(&opened) || is_made_now {
                    if !is_known(&opened) {
                        tracing::error!("the purge log was lost: everything that was stored is gone");
                        metrics.floor_reset();
                    }
                    let forgotten = opened.forgotten;
                    return Ok((opened, forgotten));
                }
                opened.log.close();
                "it is of another node, or was followed by this one some time ago".to_owned()
            }
            Err(OpenError::Unusable(_, error)) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        let aside = match &self.config.purge.log {
            Log::Local => LocalLog::set_aside(directory, clock::wall()),
            Log::Nats(_) => NatsLog::set_aside(directory, clock::wall()),
        };
        let aside = aside.map_err(|error| OpenError::Directory(directory.to_owned(), error))?;
        tracing::error!(why, aside = %aside.display(), "the purge log cannot be used: everything that was stored is gone");
        metrics.floor_reset();
        let opened = self.open()?;
        let forgotten = opened.forgotten;
        Ok((opened, forgotten))
    }

    fn next_generation(&self) -> u16 {
        self.identity.log_generation.saturating_add(1).max(FIRST_GENERATION)
    }

    fn open(&self) -> Result<Opened, OpenError> {
        let share = usize::try_from(self.memory / LEDGER_SHARE).unwrap_or(usize::MAX);
        let naming = Naming::new(self.identity.secret());
        let (ledger, forgotten) = match self.has_disks {
            true => {
                let buckets = buckets_for(entries_within(Budget::new(self.memory, true).index) / 4);
                let opened = Invalidations::open(self.directory, buckets)
                    .map_err(|error| OpenError::Directory(self.directory.to_owned(), error))?;
                (Ledger::restored(share, naming, opened.buckets, Box::new(opened.file)), opened.is_new)
            }
            false => (Ledger::named(share, naming), false),
        };
        let ledger = Arc::new(ledger);
        let opening = OpeningLog {
            directory: self.directory,
            config: self.config,
            node: self.node,
            presence: self.presence,
            shelf: self.shelf,
            keyer: self.keyer,
            metrics: self.metrics,
            next: self.next_generation(),
        };
        let (log, created) = opening.open(&ledger)?;
        Ok(Opened { log, ledger, created, forgotten })
    }
}

/// What it takes to open the log for a ledger there is.
struct OpeningLog<'a> {
    directory: &'a Path,
    config: &'a Config,
    node: &'a NodeName,
    presence: &'a Arc<Presence>,
    shelf: &'a Arc<Shelf>,
    keyer: &'a Keyer,
    metrics: &'a Arc<Metrics>,
    /// The generation of a log that is made now.
    next: u16,
}

impl OpeningLog<'_> {
    /// Gives the log, and when what is kept of it was made.
    fn open(&self, ledger: &Arc<Ledger>) -> Result<(Arc<dyn PurgeLog>, u64), OpenError> {
        let (keyer, now, next) = (self.keyer.clone(), clock::wall(), self.next);
        let directory = Some(self.directory);
        let (log, created): (Arc<dyn PurgeLog>, _) = match &self.config.purge.log {
            Log::Local => {
                let log = LocalLog::open(directory, &self.node.name, ledger.clone(), keyer, now, next)?;
                let created = log.created();
                (Arc::new(log), created)
            }
            Log::Nats(hub) => {
                let log = NatsLog::open(
                    directory,
                    self.node.clone(),
                    hub_of(hub, self.node),
                    ledger.clone(),
                    keyer,
                    now,
                    next,
                    self.presence.clone(),
                    self.shelf.clone(),
                    self.metrics.clone(),
                )?;
                let created = log.created();
                (Arc::new(log), created)
            }
        };
        Ok((log, created.0))
    }
}

/// A hub as it is connected to.
pub fn hub_of(hub: &edge_config::section::purge::Hub, node: &NodeName) -> Hub {
    let password = hub.password.as_ref().map(|password| password.expose().to_owned());
    Hub {
        servers: hub.servers.clone(),
        credentials: hub.credentials.clone(),
        user: hub.user.clone().zip(password),
        ca: hub.ca.clone(),
        certificate: hub.certificate.as_ref().map(|files| (files.certificate.clone(), files.key.clone())),
        name: node.name.clone(),
    }
}
