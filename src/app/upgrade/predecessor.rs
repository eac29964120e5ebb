//! The new process: what it has of the one before, and what it tells it.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

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
    channel: Channel,
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
                Some((Word::Begin { tickets }, _)) => return Ok(Some((Self { channel, tickets }, sockets))),
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
        match self.channel.receive(Some(CLOSED_WITHIN)) {
            Ok(Some((Word::TakeOver, _))) => Ok(()),
            Ok(Some((word, _))) => Err(StartError::Upgrade(format!("the old process says {word:?}"))),
            Ok(None) => Err(gone()),
            Err(error) => Err(StartError::Upgrade(error.to_string())),
        }
    }

    /// Says why this process ends; the old one goes on.
    pub fn fail(&self, error: &StartError) {
        // Whoever is gone knows.
        let _ = self.channel.send(&Word::failed(&error.summary()), None);
    }

    /// Says that this process serves, and from then on hears what requests of the old one invalidate.
    pub fn serve(self, ledger: Arc<Ledger>) {
        if self.channel.send(&Word::Serving, None).is_err() {
            tracing::warn!("the process before this one is gone");
            return;
        }
        let hear = move || {
            // Its end is the end of the old process.
            while let Ok(Some((word, _))) = self.channel.receive(None) {
                if let Word::Invalidated(number) = word {
                    ledger.invalidate_bucket(number);
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("predecessor".into()).spawn(hear) {
            tracing::error!(%error, "what the last requests of the old process invalidate is not known");
        }
    }
}

fn gone() -> StartError {
    StartError::Upgrade("the old process is gone".to_owned())
}
