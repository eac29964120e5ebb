//! From the first listener to the last answer: signals, systemd, and the drain.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::Control;
use crate::clock;
use crate::pipeline::Pipeline;
use crate::purge::log::PurgeLog;
use crate::telemetry::access_log::AccessLog;

/// How often a draining node looks whether it is empty, and a starting one whether it listens.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Watches over the process until it ends.
pub struct Life {
    pub control: Arc<Control>,
    pub access_log: Arc<AccessLog>,
    pub log: Arc<dyn PurgeLog>,
    pub pipeline: Arc<Pipeline>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

#[async_trait]
impl ShutdownSignalWatch for Life {
    async fn recv(&self) -> ShutdownSignal {
        let Ok(mut signals) = Signals::new() else {
            tracing::error!("signals cannot be watched; the node stops only when it is killed");
            return std::future::pending().await;
        };
        self.serve(&mut signals).await;
        self.drain(&mut signals).await;
        self.end()
    }
}

impl Life {
    /// Serves until the node is to stop.
    async fn serve(&self, signals: &mut Signals) {
        let mut listening = false;
        let watchdog = sd_notify::watchdog_enabled().map(|every| every / 2);
        let mut tick = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY), if !listening => {
                    listening = self.listens().await;
                    if listening {
                        tell_systemd(&[NotifyState::Ready]);
                    }
                }
                _ = tick.tick() => if watchdog.is_some() {
                    tell_systemd(&[NotifyState::Watchdog]);
                },
                _ = signals.hang_up.recv() => self.reload().await,
                _ = signals.terminate.recv() => return,
                () = self.control.asked_to_drain() => return,
                _ = signals.interrupt.recv() => self.end(),
            }
        }
    }

    /// Whether every listener takes connections.
    async fn listens(&self) -> bool {
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

    /// Lets everybody finish: first the node says that it is not ready and takes new connections all the same, then it
    /// takes none and waits for those there are.
    async fn drain(&self, signals: &mut Signals) {
        tell_systemd(&[NotifyState::Stopping]);
        let limits = self.control.config().limits;
        self.control.announce_drain();
        let grace = tokio::time::sleep(limits.drain_grace.get());
        tokio::select! {
            () = grace => {}
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => return,
        }
        self.control.close_doors();
        let until = clock::monotonic() + limits.drain_timeout.get();
        while self.control.connections() > 0 && clock::monotonic() < until {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = signals.interrupt.recv() => return,
                _ = signals.terminate.recv() => return,
            }
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

fn tell_systemd(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
