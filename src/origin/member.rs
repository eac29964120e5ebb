//! One origin of a group: what is known of it, and the requests to it that are under way.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edge_config::section::{group as config, health as checks};
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::Notify;

use super::balance::Candidate;
use super::balance::ewma::Latency;
use super::balance::slow_start;
use super::company::Companions;
use super::dns::Target;
use super::ejection::{Ejection, Verdict};
use super::health::Health;
use super::peer::OriginPeer;
use super::queue::Queue;
use crate::clock;
use crate::telemetry::metrics::Metrics;

/// One origin of a group, and what is known of it.
pub struct Member {
    pub peer: Arc<OriginPeer>,
    target: Target,
    pub(super) config: config::Member,
    /// For whom it is checked and counted.
    pub(super) settings: Settings,
    state: Mutex<State>,
    /// What it is known by wherever it stands in a group.
    id: u64,
    /// Requests that are under way. A new configuration goes on counting.
    pub(super) in_flight: Arc<AtomicU32>,
    /// Told when its checks have found it dead.
    fell: Notify,
    /// The group it is a member of; of those of several configurations, the newest.
    pub(super) companions: Mutex<Arc<Companions>>,
}

/// What a member that a new configuration leaves alone must not have changed.
#[derive(Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) site: String,
    pub(super) group: String,
    pub(super) index: usize,
    pub(super) health: Option<checks::Health>,
    pub(super) eject: Option<checks::Eject>,
    pub(super) check_host: Option<String>,
}

struct State {
    health: Option<Health>,
    ejection: Ejection,
    latency: Latency,
    /// Whether it was up when somebody last looked, and since when, if it has not always been.
    seen_up: bool,
    up_since: Option<Instant>,
    /// What the metrics were told.
    shown_up: Option<bool>,
}

/// Whether a member is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// That, or it was left alone long enough and whoever is admitted decides.
    Up,
    /// Left alone for a while, because requests to it failed.
    Ejected,
    /// Its checks fail.
    Down,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

impl State {
    fn standing(&self, now: Instant) -> Standing {
        match (self.health.is_none_or(|health| health.is_up()), self.ejection.may_be_asked(now)) {
            (false, _) => Standing::Down,
            (true, false) => Standing::Ejected,
            (true, true) => Standing::Up,
        }
    }

    fn is_out(&self) -> bool {
        self.health.is_some_and(|health| !health.is_up()) || self.ejection.is_out()
    }
}

impl Member {
    /// One that has just been heard of. `warm`: it has been up all the time.
    pub(super) fn new(
        peer: Arc<OriginPeer>,
        target: Target,
        config: config::Member,
        settings: Settings,
        in_flight: Arc<AtomicU32>,
        warm: bool,
    ) -> Self {
        let health = settings.health.as_ref().map(|health| Health::new(health.fall, health.rise));
        let state = State {
            health,
            ejection: Ejection::new(settings.eject),
            latency: Latency::default(),
            seen_up: true,
            up_since: (!warm).then(clock::monotonic),
            shown_up: None,
        };
        let address = peer.name().map(|_| target.address.to_string()).unwrap_or_default();
        let id = super::balance::consistent::hash([peer.label().as_bytes(), address.as_bytes()]);
        Self {
            peer,
            target,
            config,
            settings,
            state: Mutex::new(state),
            id,
            in_flight,
            fell: Notify::new(),
            companions: Mutex::default(),
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How to connect to it, in so much time, in the name of a client or the node's own.
    pub fn to_connect(&self, limit: Duration, client: Option<IpAddr>) -> HttpPeer {
        self.peer.at(&self.target, limit, client)
    }

    /// The `Host` of a request to it.
    pub fn host_header(&self, client_host: &[u8]) -> Vec<u8> {
        self.peer.host_header(&self.target, client_host)
    }

    pub fn standing(&self, now: Instant) -> Standing {
        self.state.lock().standing(now)
    }

    /// How it stands, and what choosing has to know of it.
    pub(super) fn candidate(
        &self,
        index: usize,
        weight: u32,
        slow: Option<Duration>,
        now: Instant,
    ) -> (Standing, Candidate) {
        let mut state = self.state.lock();
        let standing = state.standing(now);
        // The time of a trial comes without anything happening: who looks next sees it.
        let is_up = standing == Standing::Up;
        if is_up && !state.seen_up {
            state.up_since = Some(now);
        }
        state.seen_up = is_up;
        let up = state.up_since.map(|since| now.saturating_duration_since(since));
        let candidate = Candidate {
            index,
            id: self.id,
            share: slow_start::share(weight, up, slow),
            in_flight: self.in_flight(),
            latency: state.latency.remembered(now),
        };
        (standing, candidate)
    }

    /// Returns when its checks find it dead; never where there are none.
    pub(super) async fn fallen(&self) {
        let fell = self.fell.notified();
        // One that is asked while it is down is asked because there is nobody else.
        fell.await;
    }

    /// Requests that are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one more request, if there is room below `most`.
    pub(super) fn lease(&self, most: Option<u32>, queue: &Arc<Queue>) -> Option<Arc<Lease>> {
        let most = most.unwrap_or(u32::MAX);
        let more = |count: u32| (count < most).then(|| count + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Arc::new(Lease { in_flight: self.in_flight.clone(), queue: queue.clone() }))
    }

    /// The head of an answer came, or failed to, after this time.
    pub fn timed(&self, took: Duration, answered: bool) {
        let now = clock::monotonic();
        let latency = &mut self.state.lock().latency;
        if answered { latency.answered(took, now) } else { latency.failed(took, now) }
    }

    /// A lower tier is asked when none of a higher one is up; 1 is the highest.
    pub fn tier(&self) -> u8 {
        self.config.tier
    }

    pub fn weight(&self) -> u32 {
        self.config.weight
    }

    /// Whether it is ejected or down, and nothing has brought it back yet.
    pub fn is_out(&self) -> bool {
        self.state.lock().is_out()
    }

    /// A request is about to go to one that is up. False: one that was ejected has its trial already.
    pub(super) fn admit(&self, now: Instant) -> bool {
        self.state.lock().ejection.admit(now)
    }

    /// The request that was admitted then is not sent after all.
    pub(super) fn withdraw(&self, admitted: Instant) {
        self.state.lock().ejection.withdraw(admitted);
    }

    /// A request that began then was answered.
    pub fn succeeded(&self, began: Instant, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.ejection.succeeded(began, clock::monotonic()) {
            let (site, origin) = (&self.settings.site, self.peer.label());
            tracing::info!(site, origin, "origin back: a request was answered");
        }
        self.show(&mut state, metrics);
    }

    /// A request that began then was not answered, or with a status that says nobody is there.
    pub fn failed(&self, began: Instant, metrics: &Metrics) {
        let now = clock::monotonic();
        let companions = self.companions.lock().clone();
        let verdict = companions.judge(self, |company| {
            let mut state = self.state.lock();
            let verdict = state.ejection.failed(began, now, company);
            if state.ejection.is_out() {
                state.seen_up = false;
            }
            self.show(&mut state, metrics);
            verdict
        });
        let (site, origin) = (&self.settings.site, self.peer.label());
        match verdict {
            Verdict::Counted => {}
            Verdict::Ejected(length) => {
                metrics.origin_ejection(self.settings.index, origin, "ejected");
                tracing::warn!(site, origin, milliseconds = length.as_millis(), "origin ejected: requests fail");
            }
            Verdict::Withheld => metrics.origin_ejection(self.settings.index, origin, "withheld"),
        }
    }

    /// A check has a result. Gives the time from its start to that of the next.
    pub fn checked(&self, result: Result<(), String>, interval: Duration, metrics: &Metrics) -> Duration {
        let mut state = self.state.lock();
        let passed = result.is_ok();
        if let Some(health) = &mut state.health
            && health.checked(passed)
        {
            let (site, origin) = (&self.settings.site, self.peer.label());
            match result {
                Ok(()) => tracing::info!(site, origin, "origin is up"),
                Err(why) => {
                    tracing::warn!(site, origin, why, "origin is down");
                    self.fell.notify_waiters();
                }
            }
        }
        if !state.health.is_none_or(|health| health.is_up()) {
            state.seen_up = false;
        }
        self.show(&mut state, metrics);
        state.health.map_or(interval, |health| health.pause(interval))
    }

    fn show(&self, state: &mut State, metrics: &Metrics) {
        let up = !state.is_out();
        if state.shown_up != Some(up) {
            state.shown_up = Some(up);
            metrics.origin_up(self.settings.index, self.peer.label(), self.target.address, up);
        }
    }

    /// Tells the metrics how it stands, whatever they were told before.
    pub fn tell(&self, metrics: &Metrics) {
        let mut state = self.state.lock();
        state.shown_up = None;
        self.show(&mut state, metrics);
        drop(state);
        metrics.origin_in_flight(self.settings.index, self.peer.label(), self.target.address, self.in_flight());
    }

    /// The checks, and the host they ask for.
    pub fn check_settings(&self) -> Option<(&checks::Health, Option<&str>)> {
        self.settings.health.as_ref().map(|health| (health, self.settings.check_host.as_deref()))
    }
}

/// A request to a member that is under way, body included. It is over when this is dropped.
pub struct Lease {
    in_flight: Arc<AtomicU32>,
    queue: Arc<Queue>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.queue.wake();
    }
}
