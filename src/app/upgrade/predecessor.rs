//! The new process: what it has of the one before, and what it tells it.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::channel::{Channel, Word};
use crate::app::StartError;
use crate::app::doorway::Inherited;
use crate::purge::ledger::Ledger;

/// Names the process that has started this one to be replaced by it: its id.
pub const FROM: &str = "LITTORAL_UPGRADE_FROM";

/// How long the old process may take to say all it has, and to close what the new one opens.
const SAID_WITHIN: Duration = Duration::from_secs(10);
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// The process before this one.
pub struct Predecessor {
    channel: Arc<Channel>,
    /// What its last requests have invalidated so far.
    early: Mutex<Vec<u32>>,
    pub tickets: [u8; 32],
}

impl Predecessor {
    /// Whether there is one, and its sockets.
    ///
    /// # Errors
    /// It does not say what it has.
    pub fn find() -> Result<Option<(Self, Inherited)>, StartError> {
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().to_string());
        // The variable may have come down from a process long gone.
        if std::env::var(FROM).ok().is_none_or(|from| Some(from) != parent) {
            return Ok(None);
        }
        let own = |error: std::io::Error| StartError::Upgrade(error.to_string());
        let channel = Channel::new(std::io::stdin().as_fd().try_clone_to_owned().map_err(own)?);
        let nothing = std::fs::File::open("/dev/null").map_err(own)?;
        rustix::stdio::dup2_stdin(nothing).map_err(|error| own(error.into()))?;
        let mut sockets = Inherited::new();
        loop {
            match channel.receive(Some(SAID_WITHIN)).map_err(own)? {
                Some((Word::Listener(address), Some(socket))) => drop(sockets.insert(address, socket)),
                Some((Word::Begin { tickets }, _)) => {
                    let old = Self { channel: Arc::new(channel), early: Mutex::default(), tickets };
                    return Ok(Some((old, sockets)));
                }
                Some((word, _)) => return Err(StartError::Upgrade(format!("the old process says {word:?}"))),
                None => return Err(gone()),
            }
        }
    }

    /// Says that everything that could be looked at is good, and waits for what the old process has.
    ///
    /// # Errors
    /// The old process keeps it, or is gone.
    pub fn take_over(&self, unused: &[SocketAddr]) -> Result<(), StartError> {
        if !unused.is_empty() {
            tracing::info!(?unused, "the new configuration does not listen there any more");
        }
        self.channel.send(&Word::Ready, None).map_err(|_| gone())?;
        loop {
            match self.channel.receive(Some(CLOSED_WITHIN)) {
                Ok(Some((Word::TakeOver, _))) => return Ok(()),
                Ok(Some((Word::Invalidated(number), _))) => self.early.lock().push(number),
                Ok(Some((word, _))) => return Err(StartError::Upgrade(format!("the old process says {word:?}"))),
                Ok(None) => return Err(gone()),
                Err(error) => return Err(StartError::Upgrade(error.to_string())),
            }
        }
    }

    /// Hears what requests of the old process invalidate, from the beginning.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn hear(&self, ledger: Arc<Ledger>) -> Result<(), StartError> {
        for number in self.early.lock().drain(..) {
            ledger.invalidate_bucket(number);
        }
        let channel = self.channel.clone();
        let hear = move || {
            // Its end is the end of the old process.
            while let Ok(Some((word, _))) = channel.receive(None) {
                if let Word::Invalidated(number) = word {
                    ledger.invalidate_bucket(number);
                }
            }
        };
        thread::Builder::new().name("predecessor".into()).spawn(hear).map_err(StartError::Runtime)?;
        Ok(())
    }

    /// Says why this process ends; the old one goes on.
    pub fn fail(&self, error: &StartError) {
        // Whoever is gone knows.
        let _ = self.channel.send(&Word::failed(&error.summary()), None);
    }

    /// Says that this process serves.
    pub fn serve(&self) {
        if self.channel.send(&Word::Serving, None).is_err() {
            tracing::warn!("the process before this one is gone");
        }
    }
}

fn gone() -> StartError {
    StartError::Upgrade("the old process is gone".to_owned())
}
