//! `littoral announce`: has BIRD announce a node's prefix while the node is to be announced, and withdraw it otherwise.
//!
//! It runs beside the node, not in it: a node that is gone cannot withdraw anything. What is wanted is said to BIRD every time, so
//! that one that was restarted is told as well.
//!
//! - [`decide`]: what is wanted after what was seen. Pure.
//! - [`bird`]: BIRD's control socket.

pub mod bird;
pub mod decide;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::bird::{Bird, BirdError};
use self::decide::{Patience, Seen, Wanted, Watch};
use super::agent;
use crate::cli::announce::Announce;

/// Why it does not run, or has not done what it was to do once.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AnnounceError {
    #[error("it cannot run: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    #[diagnostic(help(
        "is BIRD running, and may this user write to its control socket? do the protocols stand in its configuration?"
    ))]
    Bird(#[from] BirdError),
}

/// Runs until it is told to stop, or once.
///
/// # Errors
/// It cannot run; with `--once` and `--withdraw`, BIRD does not do as it is told.
pub fn run(options: &Announce) -> Result<(), AnnounceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(AnnounceError::Runtime)?.block_on(async {
        let mut told = Told { bird: Bird::new(&options.bird), protocols: &options.protocols, problem: None };
        if options.withdraw {
            return Ok(told.set(false).await?);
        }
        if options.once {
            let seen = look(options).await;
            let is_good = seen == Seen::Good;
            tracing::info!("{}", in_words(&seen));
            return Ok(told.set(is_good).await?);
        }
        watch(options, &mut told).await
    })
}

async fn watch(options: &Announce, told: &mut Told<'_>) -> Result<(), AnnounceError> {
    let stop = |kind| signal(kind).map_err(AnnounceError::Runtime);
    let (mut terminate, mut interrupt): (Signal, Signal) =
        (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let mut watch = Watch::new(Patience { fall: options.fall, rise: options.rise });
    let mut beat = interval(options.interval.get());
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let seen = tokio::select! {
            seen = look(options) => seen,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        if watch.see(&seen) {
            match watch.wanted {
                Wanted::Announced => tracing::info!(protocols = ?options.protocols, "announced: {}", in_words(&seen)),
                _ => tracing::warn!(protocols = ?options.protocols, "withdrawn: {}", in_words(&seen)),
            }
        }
        let wanted = match watch.wanted {
            Wanted::AsItIs => continue,
            wanted => wanted == Wanted::Announced,
        };
        // What is wrong is said when it begins; it is tried again with the next beat.
        let _ = told.set(wanted).await;
    }
    tracing::info!(protocols = ?options.protocols, "withdrawn: this is to stop");
    Ok(told.set(false).await?)
}

/// What BIRD was told, and what was wrong with that.
struct Told<'a> {
    bird: Bird,
    protocols: &'a [String],
    problem: Option<String>,
}

impl Told<'_> {
    async fn set(&mut self, announced: bool) -> Result<(), BirdError> {
        let mut done = Ok(());
        for protocol in self.protocols {
            // Each of them, whatever becomes of the others.
            done = done.and(self.bird.set(protocol, announced).await);
        }
        let problem = done.as_ref().err().map(ToString::to_string);
        if problem != self.problem {
            match &problem {
                Some(problem) => tracing::error!("BIRD is not told: {problem}"),
                None => tracing::info!("BIRD is told again"),
            }
            self.problem = problem;
        }
        done
    }
}

/// Asks the node.
async fn look(options: &Announce) -> Seen {
    let (admin, within) = (options.admin.admin, options.timeout.get());
    // A thread that panicked has nothing to say.
    tokio::task::spawn_blocking(move || ask(admin, within))
        .await
        .unwrap_or_else(|error| Seen::Silent(error.to_string()))
}

fn ask(admin: SocketAddr, within: Duration) -> Seen {
    match agent(within).get(format!("http://{admin}/announcez")).call() {
        Ok(response) if response.status() == 200 => Seen::Good,
        Ok(mut response) => {
            let status = response.status();
            let said = response.body_mut().read_to_string().unwrap_or_default();
            Seen::Refused(format!("{status} {}", said.lines().next().unwrap_or_default()))
        }
        Err(error) => Seen::Silent(error.to_string()),
    }
}

fn in_words(seen: &Seen) -> String {
    match seen {
        Seen::Good => "the node serves".to_owned(),
        Seen::Refused(why) => format!("the node says {why}"),
        Seen::Silent(why) => format!("the node does not answer ({why})"),
    }
}
