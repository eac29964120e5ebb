//! The old process: the one that is to take over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::UpgradeError;
use super::channel::{Channel, Word};
use super::predecessor::FROM;
use crate::clock;
use crate::purge::ledger;

/// How long the new process may take to look at everything, and to open what the old one has closed.
const READY_WITHIN: Duration = Duration::from_secs(60);
const SERVING_WITHIN: Duration = Duration::from_secs(30);
/// How long one that has closed its end may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a process is started with.
pub struct Program {
    pub path: std::path::PathBuf,
    pub arguments: Vec<std::ffi::OsString>,
}

impl Program {
    /// This one, as it was started: whatever is at its path when it is started again is what runs then.
    ///
    /// # Errors
    /// The system does not say.
    pub fn own() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }
}

/// The new process.
pub struct Successor {
    child: Child,
    channel: Arc<Channel>,
}

impl Successor {
    /// Starts it, and gives it copies of the sockets.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &Program,
        sockets: &[(SocketAddr, OwnedFd)],
        tickets: [u8; 32],
    ) -> Result<Self, UpgradeError> {
        let failed = |error| UpgradeError::NotStarted(program.path.clone(), error);
        let (channel, other) = Channel::pair().map_err(failed)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(FROM, std::process::id().to_string()).stdin(Stdio::from(other));
        // The watchdog of systemd is for whoever is the main process.
        command.env_remove("WATCHDOG_PID");
        let child = command.spawn().map_err(failed)?;
        // The other end is the child's alone, so that its end is noticed.
        drop(command);
        let mut new = Self { child, channel: Arc::new(channel) };
        let told = sockets
            .iter()
            .try_for_each(|(address, socket)| new.channel.send(&Word::Listener(*address), Some(socket.as_fd())))
            .and_then(|()| new.channel.send(&Word::Begin { tickets }, None));
        match told {
            Ok(()) => Ok(new),
            Err(_) => Err(new.gone()),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has looked at everything that it can without what the old process has.
    ///
    /// # Errors
    /// It does not like it, or is gone.
    pub fn ready(&mut self) -> Result<(), UpgradeError> {
        self.hear(&Word::Ready, READY_WITHIN)
    }

    /// Gives it everything, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn take_over(&mut self) -> Result<(), UpgradeError> {
        if self.channel.send(&Word::TakeOver, None).is_err() {
            return Err(self.gone());
        }
        self.hear(&Word::Serving, SERVING_WITHIN)
    }

    /// Who tells it what is invalidated here.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn told(&self) -> io::Result<Arc<Told>> {
        let (words, tell) = channel::<u32>();
        let to = self.channel.clone();
        thread::Builder::new().name("successor".into()).spawn(move || {
            // One that is gone has nothing stored either.
            while tell.recv().is_ok_and(|number| to.send(&Word::Invalidated(number), None).is_ok()) {}
        })?;
        Ok(Arc::new(Told { words, all: Mutex::default() }))
    }

    /// Ends it for sure: what it had can be opened again.
    pub fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn hear(&mut self, wanted: &Word, within: Duration) -> Result<(), UpgradeError> {
        match self.channel.receive(Some(within)) {
            Ok(Some((word, _))) if word == *wanted => Ok(()),
            Ok(Some((Word::Failed(why), _))) => Err(UpgradeError::Refused(why)),
            Ok(None) => Err(self.gone()),
            Ok(Some((word, _))) => Err(UpgradeError::Refused(format!("it says {word:?}"))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(UpgradeError::Silent(within)),
            Err(error) => Err(UpgradeError::Refused(error.to_string())),
        }
    }

    /// How it ended.
    fn gone(&mut self) -> UpgradeError {
        let until = clock::monotonic() + GONE_WITHIN;
        while clock::monotonic() < until {
            match self.child.try_wait() {
                Ok(None) => thread::park_timeout(LOOK_EVERY),
                Ok(Some(status)) => return UpgradeError::Ended(status.to_string()),
                Err(error) => return UpgradeError::Ended(error.to_string()),
            }
        }
        UpgradeError::Ended("it closed its end of the connection to this one".to_owned())
    }
}

/// Tells the new process what requests of the old one invalidate.
pub struct Told {
    words: Sender<u32>,
    /// Everything, until it is certain that somebody has heard it.
    all: Mutex<Option<Vec<u32>>>,
}

impl Told {
    /// Keeps what is told from now on.
    pub fn keep(&self) {
        *self.all.lock() = Some(Vec::new());
    }

    /// What was told.
    pub fn take(&self) -> Vec<u32> {
        self.all.lock().take().unwrap_or_default()
    }
}

impl ledger::Successor for Told {
    fn invalidated(&self, number: u32) {
        if let Some(all) = &mut *self.all.lock() {
            all.push(number);
        }
        // One that is gone has nothing stored either.
        let _ = self.words.send(number);
    }
}
