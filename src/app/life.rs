//! From the first listener to the last answer: signals, systemd, the drain, and leaving to another process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::Control;
use super::doorway::Doorway;
use super::upgrade::Upgrades;
use super::upgrade::predecessor::Predecessor;
use crate::clock;
use crate::pipeline::Pipeline;
use crate::purge::log::PurgeLog;
use crate::telemetry::access_log::AccessLog;

/// How often a draining node looks whether it is empty, and a starting one whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same where connections wait for it.
const LOOK_SOON: Duration = Duration::from_millis(2);
/// How long clients wait for a process that has taken over to hear from the hub. A hub that does not answer by then is away.
const CURRENT_WITHIN: Duration = Duration::from_secs(1);
/// How long a process that another one has taken over from stays at least: whoever asked for that is told.
const STAY: Duration = Duration::from_secs(1);

/// Watches over the process until it ends.
pub struct Life {
    pub control: Arc<Control>,
    pub access_log: Arc<AccessLog>,
    pub log: Arc<dyn PurgeLog>,
    pub pipeline: Arc<Pipeline>,
    /// Where clients come in.
    pub front: Arc<Doorway>,
    /// Where operators do.
    pub admin: Arc<Doorway>,
    pub upgrades: Arc<Upgrades>,
    /// The process before this one, until it has been told that this one serves.
    pub predecessor: Mutex<Option<Predecessor>>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

/// Why the node does not go on as before.
enum Reason {
    /// It is to stop.
    Drain,
    /// This process serves now.
    Left(u32),
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Resolves when whoever waits is to wait no more.
    async fn hurry(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        let Ok(mut signals) = Signals::new() else {
            tracing::error!("signals cannot be watched; the node stops only when it is killed");
            return std::future::pending().await;
        };
        match self.serve(&mut signals).await {
            Reason::Drain => {
                self.control.announce_drain();
                match self.upgrades.settled().await {
                    None => self.drain(&mut signals).await,
                    // The node is to stop, and that is the other process now.
                    Some(to) => {
                        terminate(to);
                        self.leave(&mut signals, to).await;
                    }
                }
            }
            Reason::Left(to) => self.leave(&mut signals, to).await,
        }
        self.end()
    }
}

impl Life {
    /// Serves until the node is to stop.
    async fn serve(&self, signals: &mut Signals) -> Reason {
        let mut listening = false;
        let watchdog = sd_notify::watchdog_enabled().map(|every| every / 2);
        let mut tick = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        let started = clock::monotonic();
        let waited_for = self.predecessor.lock().is_some();
        let mut looks = tokio::time::interval(if waited_for { LOOK_SOON } else { LOOK_EVERY });
        loop {
            tokio::select! {
                _ = looks.tick(), if !listening => {
                    self.tell_predecessor(started);
                    listening = self.listens().await;
                    if listening {
                        tell_systemd(&[NotifyState::Ready]);
                    }
                }
                _ = tick.tick() => if watchdog.is_some() {
                    tell_systemd(&[NotifyState::Watchdog]);
                },
                _ = signals.hang_up.recv() => self.reload().await,
                _ = signals.upgrade.recv() => {
                    // What comes of it is in the log.
                    tokio::spawn(self.upgrades.clone().upgrade());
                }
                to = self.upgrades.left() => return Reason::Left(to),
                _ = signals.terminate.recv() => return Reason::Drain,
                () = self.control.asked_to_drain() => return Reason::Drain,
                _ = signals.interrupt.recv() => self.end(),
            }
        }
    }

    fn tell_predecessor(&self, since: Instant) {
        let is_current = self.pipeline.store.ledger.is_current(clock::boot_ms);
        if is_current || clock::monotonic().duration_since(since) > CURRENT_WITHIN {
            self.front.reopen();
        }
        if self.front.is_accepting()
            && self.admin.is_accepting()
            && let Some(predecessor) = self.predecessor.lock().take()
        {
            predecessor.serve();
        }
    }

    /// Whether every listener takes connections.
    async fn listens(&self) -> bool {
        if !self.front.is_accepting() || !self.admin.is_accepting() || self.predecessor.lock().is_some() {
            return false;
        }
        for address in self.control.config().listen.addresses() {
            if tokio::net::TcpStream::connect(crate::admin::reachable(*address)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn reload(&self) {
        tell_systemd(&[NotifyState::Reloading]);
        self.access_log.reopen();
        let control = self.control.clone();
        // Files are read; a slow disk must not hold up the watchdog. What is wrong is in the log.
        let _ = tokio::task::spawn_blocking(move || control.reload().is_ok()).await;
        tell_systemd(&[NotifyState::Ready]);
    }

    /// Lets everybody finish. The node says that it is not ready, and to whoever is connected that this connection ends; it takes
    /// new ones all the same, for one request each. Then it takes none and waits for those there are.
    async fn drain(&self, signals: &mut Signals) {
        tell_systemd(&[NotifyState::Stopping]);
        let config = self.control.config();
        let grace = config.limits.drain_grace.get();
        self.control.announce_drain();
        if grace.is_zero() && config.anycast.is_none() {
            // Before anybody is told to come again.
            self.close_front();
        }
        self.control.part();
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            () = signals.hurry() => return,
        }
        let Some(anycast) = &config.anycast else {
            self.close_front();
            return self.empty(signals, config.limits.drain_timeout.get()).await;
        };
        // Where routers lead clients here, they lead those connected elsewhere as soon as they lead new ones there: until
        // everybody is done, or the time is up, both come here.
        self.empty(signals, config.limits.drain_timeout.get()).await;
        self.control.withdraw();
        tokio::select! {
            () = tokio::time::sleep(anycast.withdraw_linger.get()) => {}
            () = signals.hurry() => {}
        }
        self.close_front();
    }

    fn close_front(&self) {
        self.front.close();
        self.control.admit_nobody();
    }

    /// Another process has taken over: whoever is connected to this one is served to the end.
    async fn leave(&self, signals: &mut Signals, to: u32) {
        tell_systemd(&[NotifyState::MainPid(to)]);
        self.front.close();
        self.admin.close();
        // The other one has a memory of its own.
        self.pipeline.store.memory.clear();
        let limits = self.control.config().limits;
        tokio::select! {
            () = tokio::time::sleep(STAY) => {}
            _ = signals.interrupt.recv() => return,
        }
        tokio::select! {
            () = self.empties(limits.upgrade_timeout.get()) => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => {}
        }
        // The node stops, and this process with it.
        self.empty(signals, limits.drain_timeout.get()).await;
    }

    /// Waits until nobody is connected, for so long at most, or until it is to be over.
    async fn empty(&self, signals: &mut Signals, within: Duration) {
        tokio::select! {
            () = self.empties(within) => {}
            () = signals.hurry() => {}
        }
    }

    async fn empties(&self, within: Duration) {
        let until = clock::monotonic() + within;
        while self.control.connections() > 0 && clock::monotonic() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the process: everybody has been served, or the deadline has passed. Pingora's own shutdown would drop the
    /// runtimes under their accept loops and wait for them.
    fn end(&self) -> ! {
        self.access_log.close();
        let (log, pipeline) = (self.log.clone(), self.pipeline.clone());
        // On a thread of its own: it waits for the disks, which have runtimes of theirs.
        let closing = std::thread::spawn(move || {
            log.close();
            pipeline.store.close();
        });
        // A thread that panicked has nothing more to say.
        let _ = closing.join();
        std::process::exit(0)
    }
}

fn terminate(id: u32) {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(Err(error)) = id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM)) {
        tracing::warn!(%error, "the process that serves cannot be told to stop");
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
