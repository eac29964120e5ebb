//! Upgrading in place: another process of the node takes over, and no connection is refused, no purge lost.
//!
//! 1. The old process starts the new one, by the path and with the arguments it was started with itself, and gives it copies of
//!    its listening sockets.
//! 2. The new process looks at everything that it can look at: its configuration, certificates, addresses. It says that it is
//!    ready, or why not, and then nothing has happened.
//! 3. The old one accepts nobody any more: whoever connects waits in the system's queue. It ceases to trust what it has stored,
//!    closes log and disks, and gives them away.
//! 4. The new one opens them and accepts. It says that it serves.
//! 5. The old one finishes what it has: with `Connection: close` and GOAWAY, and downloads and WebSockets to their end. What its
//!    requests invalidate it tells the new one.
//!
//! A new process that fails before it serves is ended, and the old one opens log and disks again: what the other has written of
//! purges is in the log.
//!
//! - [`channel`]: what the two tell each other.
//! - [`successor`]: the new one, as the old one has it.
//! - [`predecessor`]: the old one, as the new one has it.

pub mod channel;
pub mod predecessor;
pub mod successor;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use self::successor::{Program, Successor, Told};
use super::control::Control;
use super::doorway::Doorway;
use super::storage::{LogAgain, Record};
use crate::clock;
use crate::pipeline::Pipeline;
use crate::purge::log::PurgeLog;

/// How long those who accept may take to notice that they are not to.
const SHUT_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How often it is looked whether an upgrade has come to its end.
const SETTLED_EVERY: Duration = Duration::from_millis(5);

/// Why the old process goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("an upgrade is under way")]
    UnderWay,
    #[error("the node drains")]
    Draining,
    #[error("another process serves already")]
    Done,
    #[error("process 1 cannot be replaced: a container ends with it, so start another one")]
    FirstProcess,
    #[error("{0} cannot be started: {1}")]
    NotStarted(PathBuf, std::io::Error),
    #[error("the new process does not start: {0}")]
    Refused(String),
    #[error("the new process ended before it served: {0}")]
    Ended(String),
    #[error("the new process said nothing for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("the old process cannot let go: {0}")]
    NotShut(String),
}

impl UpgradeError {
    /// Whether it was not even tried.
    pub fn is_not_tried(&self) -> bool {
        matches!(self, Self::UnderWay | Self::Draining | Self::Done | Self::FirstProcess)
    }
}

/// What it takes to be replaced.
pub struct Upgrades {
    pub program: Program,
    pub doorways: Vec<Arc<Doorway>>,
    pub control: Arc<Control>,
    pub log: Arc<dyn PurgeLog>,
    pub pipeline: Arc<Pipeline>,
    pub record: Arc<Record>,
    pub again: LogAgain,
    pub tickets: [u8; 32],
    pub state: State,
}

/// How far it is.
#[derive(Default)]
pub struct State {
    under_way: AtomicBool,
    /// The process that serves now; 0: this one.
    successor: AtomicU32,
    left: Notify,
}

impl Upgrades {
    /// Has another process take over, and gives its id when that serves.
    ///
    /// # Errors
    /// Why it does not, and this one goes on.
    pub async fn upgrade(self: Arc<Self>) -> Result<u32, UpgradeError> {
        self.may_begin()?;
        if self.state.under_way.swap(true, Ordering::AcqRel) {
            return Err(UpgradeError::UnderWay);
        }
        let (done, told) = oneshot::channel();
        let upgrades = self.clone();
        // It waits for the disks, which have runtimes of theirs.
        let spawned = thread::Builder::new().name("upgrade".into()).spawn(move || {
            let outcome = upgrades.run();
            if let Ok(id) = &outcome {
                upgrades.state.successor.store(*id, Ordering::Release);
                upgrades.state.left.notify_one();
            }
            upgrades.state.under_way.store(false, Ordering::Release);
            // Whoever asked may be gone.
            let _ = done.send(outcome);
        });
        if let Err(error) = spawned {
            self.state.under_way.store(false, Ordering::Release);
            return Err(UpgradeError::NotShut(error.to_string()));
        }
        told.await.unwrap_or_else(|_| Err(UpgradeError::NotShut("the thread broke".to_owned())))
    }

    /// Resolves when another process serves.
    pub async fn left(&self) -> u32 {
        self.state.left.notified().await;
        self.state.successor.load(Ordering::Acquire)
    }

    /// Waits for the end of an upgrade that is under way, and gives the process that serves if that is another one.
    pub async fn settled(&self) -> Option<u32> {
        while self.state.under_way.load(Ordering::Acquire) {
            tokio::time::sleep(SETTLED_EVERY).await;
        }
        Some(self.state.successor.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    fn may_begin(&self) -> Result<(), UpgradeError> {
        if self.state.successor.load(Ordering::Acquire) != 0 {
            return Err(UpgradeError::Done);
        }
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        if self.control.drains() { Err(UpgradeError::Draining) } else { Ok(()) }
    }

    fn run(&self) -> Result<u32, UpgradeError> {
        // What is changed from now on would not be known to the new process.
        self.control.freeze(true);
        let outcome = self.replace();
        match &outcome {
            Ok(id) => tracing::info!(process = id, "another process serves; this one finishes what it has"),
            Err(error) => {
                self.control.freeze(false);
                tracing::error!(%error, "not upgraded; this process goes on");
            }
        }
        outcome
    }

    fn replace(&self) -> Result<u32, UpgradeError> {
        let copies = self.doorways.iter().map(|doorway| doorway.copies()).collect::<Result<Vec<_>, _>>();
        let sockets: Vec<_> =
            copies.map_err(|error| UpgradeError::NotShut(error.to_string()))?.into_iter().flatten().collect();
        let mut new = Successor::start(&self.program, &sockets, self.tickets)?;
        drop(sockets);
        if let Err(error) = new.ready().and_then(|()| self.may_begin()) {
            new.end();
            return Err(error);
        }
        let told = match new.told() {
            Ok(told) => told,
            Err(error) => {
                new.end();
                return Err(UpgradeError::NotShut(error.to_string()));
            }
        };
        let began = clock::monotonic();
        let taken = self.let_go(&told).and_then(|()| new.take_over());
        if let Err(error) = taken {
            new.end();
            self.take_back(&told);
            return Err(error);
        }
        told.take();
        tracing::info!(seconds = clock::monotonic().duration_since(began).as_secs_f64(), "connections waited");
        Ok(new.id())
    }

    /// From here on nobody is accepted, nothing is purged, and nothing stored is trusted.
    fn let_go(&self, told: &Arc<Told>) -> Result<(), UpgradeError> {
        self.doorways.iter().for_each(|doorway| doorway.shut());
        let until = clock::monotonic() + SHUT_WITHIN;
        while self.doorways.iter().any(|doorway| doorway.is_accepting()) {
            if clock::monotonic() >= until {
                return Err(UpgradeError::NotShut("it still accepts".to_owned()));
            }
            thread::park_timeout(LOOK_EVERY);
        }
        told.keep();
        self.pipeline.store.ledger.hand_over(told.clone());
        self.control.part();
        self.record.release();
        self.log.close();
        self.pipeline.store.release();
        Ok(())
    }

    /// Goes on as before. What the other process has written of purges is applied.
    fn take_back(&self, told: &Told) {
        match self.record.begin_again() {
            Ok(run) => self.pipeline.store.disks.reopen(run),
            Err(error) => tracing::error!(%error, "the disks of the cache are not used any more"),
        }
        if let Err(error) = self.again.open() {
            tracing::error!(%error, "the purge log cannot be opened again: everything is validated before it is used, and purges are refused");
        }
        for number in told.take() {
            self.pipeline.store.ledger.invalidate_bucket(number);
        }
        self.control.stay();
        self.doorways.iter().for_each(|doorway| doorway.reopen());
    }
}
