//! The origins of a site together: who they are, who is up, and how often one may try again.

mod choosing;
mod draining;
mod sticky;

pub use self::choosing::Wanted;
use self::sticky::Sticky;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use edge_config::section::balance::Balance;
use edge_config::section::group as config;
use edge_config::section::retry::Retry;
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use tokio::sync::watch;

use super::balance::smooth_weighted::SmoothWeighted;
use super::company::Companions;
use super::credentials::CredentialError;
use super::dns::resolver::Resolver;
use super::dns::{self, Target};
use super::drains::{Drain, Drains, Phase};
use super::hedge::Hedging;
use super::member::Settings;
pub use super::member::{Lease, Member};
use super::mirror::Copying;
use super::peer::OriginPeer;
use super::probe;
use super::queue::Queue;
use super::retry::Budget;
use super::roster::{self, Placed, Roster};
use crate::clock;
use crate::telemetry::metrics::Metrics;

/// What all groups of a node share.
pub struct Origins {
    /// One pool of connections: a new configuration finds those of the old.
    pub connector: Arc<Connector>,
    /// Who knows their addresses. A new configuration brings a new one.
    pub resolver: ArcSwap<Resolver>,
    /// Where active checks run.
    pub checks: tokio::runtime::Handle,
    /// Where copies of requests are sent from.
    pub copying: Copying,
    pub metrics: Arc<Metrics>,
    /// What cookies of sessions are signed with where the configuration has no key for that.
    pub session_secret: [u8; 32],
    /// Which of them the operator is taking out.
    pub drains: Drains,
}

impl Origins {
    /// `checks`: where active checks run, and names are asked for. `session_secret`: random, for as long as the process runs.
    pub fn new(
        checks: tokio::runtime::Handle,
        metrics: Arc<Metrics>,
        resolver: &edge_config::section::resolver::Resolver,
        session_secret: [u8; 32],
    ) -> Self {
        let resolver = ArcSwap::from_pointee(Resolver::new(resolver));
        let connector = Arc::new(Connector::new(None));
        let (copying, drains) = (Copying::default(), Drains::default());
        Self { connector, resolver, checks, copying, metrics, session_secret, drains }
    }
}

/// A member that is to be asked.
#[derive(Clone)]
pub struct Choice {
    pub index: usize,
    pub member: Arc<Member>,
    /// How long it may take to accept a connection.
    pub connect: Duration,
    /// Whoever reads the answer keeps it until there is no more of it.
    pub lease: Arc<Lease>,
    /// When it was chosen.
    pub began: Instant,
}

/// The origins of a site.
pub struct Group {
    entries: Vec<Entry>,
    roster: ArcSwap<Roster>,
    /// Locked while the roster changes.
    changing: Mutex<()>,
    /// How many names nobody has answered for yet.
    unresolved: watch::Sender<usize>,
    balance: Balance,
    turns: Mutex<SmoothWeighted>,
    /// Counts up; mixed, it is what the rules that draw draw from.
    draws: AtomicU64,
    slow_start: Option<Duration>,
    sticky: Option<Sticky>,
    most: Option<u32>,
    queue: Arc<Queue>,
    queue_max: usize,
    queue_wait: Duration,
    budget: Mutex<Budget>,
    retry: Retry,
    hedging: Option<Mutex<Hedging>>,
    settings: Settings,
    pub origins: Arc<Origins>,
}

/// One origin as it is configured; its addresses are members.
struct Entry {
    config: config::Member,
    peer: Arc<OriginPeer>,
    /// One that comes is as new as the node, and needs no slow start.
    is_warm: AtomicBool,
    is_resolved: AtomicBool,
    /// Its configuration has it taken out.
    drain: Option<Drain>,
}

impl Group {
    /// A site's own origins: see [`Self::named`].
    ///
    /// # Errors
    /// A file of an origin cannot be used.
    pub fn new(
        site: &edge_config::section::site::Site,
        index: usize,
        previous: Option<&Self>,
        origins: &Arc<Origins>,
    ) -> Result<Arc<Self>, CredentialError> {
        Self::named(site, "", &site.origins, index, previous, origins)
    }

    /// Origins of a site that is counted by `index`; `name`: of the group, empty for the site's own. What is known of those
    /// that `previous` has too is kept.
    ///
    /// # Errors
    /// A file of an origin cannot be used.
    pub fn named(
        site: &edge_config::section::site::Site,
        name: &str,
        config: &config::Group,
        index: usize,
        previous: Option<&Self>,
        origins: &Arc<Origins>,
    ) -> Result<Arc<Self>, CredentialError> {
        let settings = Settings {
            site: site.name.clone(),
            group: name.to_owned(),
            index,
            health: config.health.clone(),
            eject: config.eject,
            check_host: config
                .health
                .as_ref()
                .and_then(|health| health.host().map(str::to_owned))
                .or_else(|| first_host(site)),
        };
        let entry = |config: &config::Member| {
            Ok(Entry {
                config: config.clone(),
                peer: Arc::new(OriginPeer::new(config.origin.clone(), &site.name)?.of_group(name)),
                is_warm: AtomicBool::new(previous.is_none()),
                is_resolved: AtomicBool::new(false),
                drain: draining::begun(config, previous),
            })
        };
        let group = Arc::new(Self {
            entries: config.members.iter().map(entry).collect::<Result<_, _>>()?,
            roster: ArcSwap::default(),
            changing: Mutex::default(),
            unresolved: watch::Sender::new(0),
            balance: config.balance.clone(),
            turns: Mutex::default(),
            draws: AtomicU64::new(ahash::RandomState::new().hash_one(index)),
            slow_start: config.slow_start.map(edge_config::Duration::get),
            sticky: config
                .sticky
                .as_ref()
                .map(|sticky| Sticky::new(sticky, &origins.session_secret, [&site.name, name])),
            most: config.crowd.max_requests,
            queue: previous.map(|group| group.queue.clone()).unwrap_or_default(),
            queue_max: config.crowd.queue as usize,
            queue_wait: config.crowd.queue_wait.get(),
            budget: Mutex::new(Budget::new(&config.retry, clock::monotonic())),
            hedging: config.retry.hedge.map(|hedge| Mutex::new(Hedging::new(hedge))),
            retry: config.retry.clone(),
            settings,
            origins: origins.clone(),
        });
        for (number, entry) in group.entries.iter().enumerate() {
            let known = group.place_at_first(number, entry, previous);
            let Some(name) = entry.peer.name() else { continue };
            if known.is_empty() {
                group.unresolved.send_modify(|count| *count += 1);
            } else {
                entry.is_resolved.store(true, Ordering::Relaxed);
            }
            origins.checks.spawn(dns::follow(Arc::downgrade(&group), number, name, known));
        }
        Ok(group)
    }

    /// The members of a configured origin, as far as they are known already: it is an address, or `previous` knows.
    fn place_at_first(&self, number: usize, entry: &Entry, previous: Option<&Self>) -> Vec<Target> {
        let is_same = |old: &&Placed| old.member.peer.origin().is_at_the_same(entry.peer.origin());
        let before = previous.map(|group| group.roster.load_full()).unwrap_or_default();
        let before: Vec<&Placed> = before.iter().filter(is_same).collect();
        let targets = match entry.peer.origin().address() {
            Some(address) => vec![Target::new(address)],
            None => before.iter().map(|old| old.member.target().clone()).collect(),
        };
        let before: Vec<Arc<Member>> = before.iter().map(|old| old.member.clone()).collect();
        if !targets.is_empty() {
            self.place(number, entry, targets.clone(), &before);
        }
        targets
    }

    /// What a name resolves to, for the first time or anew.
    pub fn resolved(&self, entry: usize, targets: Vec<Target>) {
        let Some(configured) = self.entries.get(entry) else { return };
        let before = self.roster.load_full();
        let before: Vec<Arc<Member>> = before.of(entry).map(|old| old.member.clone()).collect();
        let is_known = |target: &Target| before.iter().any(|member| member.target() == target);
        let is_new = before.len() != targets.len() || !targets.iter().all(is_known);
        if is_new && !targets.is_empty() {
            let addresses: Vec<String> = targets.iter().map(|target| target.address.to_string()).collect();
            let (site, origin) = (&self.settings.site, configured.peer.label());
            tracing::info!(site, origin, addresses = addresses.join(" "), "origin resolved");
            self.place(entry, configured, targets, &before);
        }
        configured.is_warm.store(false, Ordering::Relaxed);
        if !configured.is_resolved.swap(true, Ordering::Relaxed) {
            self.unresolved.send_modify(|count| *count = count.saturating_sub(1));
        }
    }

    /// Gives a configured origin these addresses. Those of `before` that are as they were stay what they are.
    fn place(&self, number: usize, entry: &Entry, targets: Vec<Target>, before: &[Arc<Member>]) {
        let weights = roster::shares(entry.config.weight, &targets);
        let member = |target: Target| {
            let same = |old: &&Arc<Member>| {
                old.target().is_like(&target)
                    && old.config.is_like(&entry.config)
                    && old.settings == self.settings
                    // Its file of authorities may hold others now.
                    && old.peer.is_like(&entry.peer)
            };
            match before.iter().find(same) {
                Some(known) => known.clone(),
                None => self.member(entry, target, before),
            }
        };
        let members = targets.into_iter().map(member).zip(weights).collect();
        let changing = self.changing.lock();
        let roster = Arc::new(self.roster.load().with(number, entry.config.tier, members));
        let companions =
            Arc::new(Companions::new(roster.iter().map(|placed| Arc::downgrade(&placed.member)).collect()));
        roster.iter().for_each(|placed| *placed.member.companions.lock() = companions.clone());
        self.roster.store(roster);
        drop(changing);
    }

    fn member(&self, entry: &Entry, target: Target, before: &[Arc<Member>]) -> Arc<Member> {
        let old = before.iter().find(|old| old.target().address == target.address);
        let in_flight = old.map(|old| old.in_flight.clone()).unwrap_or_default();
        let is_warm = old.is_some() || entry.is_warm.load(Ordering::Relaxed);
        let (config, settings) = (entry.config.clone(), self.settings.clone());
        let member = Arc::new(Member::new(entry.peer.clone(), target, config, settings, in_flight, is_warm));
        member.tell(&self.origins.metrics);
        if self.settings.health.is_some() {
            self.origins.checks.spawn(probe::watch(Arc::downgrade(&member), self.origins.clone()));
        }
        member
    }

    /// A group that nobody asks, for tests.
    #[cfg(test)]
    pub fn idle(site: &str, origin: edge_config::section::origin::Origin) -> Arc<Self> {
        let origins = Arc::new(tests::origins());
        let site = edge_config::section::site::Site::of_one(site, origin);
        Self::new(&site, 0, None, &origins).expect("there is no file to read")
    }

    /// All members as they are now.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// The label of the configured origin a member with this index is an address of.
    pub fn label_of(&self, index: usize) -> Option<String> {
        self.roster.load().at(index).map(|member| member.peer.label().to_owned())
    }

    /// The labels of names that have no address.
    pub fn without_address(&self) -> impl Iterator<Item = &str> {
        let roster = self.roster.load_full();
        let entries = self.entries.iter().enumerate();
        entries.filter(move |(number, _)| roster.of(*number).next().is_none()).map(|(_, entry)| entry.peer.label())
    }

    /// How many requests one gets at a time.
    fn most(&self, entry: &Entry) -> Option<u32> {
        entry.config.max_requests.or(self.most)
    }

    /// For whom it is counted.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn site_name(&self) -> &str {
        &self.settings.site
    }

    /// How long the most patient of them may take to accept a connection.
    fn connect_max(&self) -> Duration {
        self.entries.iter().map(|entry| entry.config.origin.timeouts.connect.get()).max().unwrap_or_default()
    }

    /// A request begins.
    pub fn begin(&self) {
        self.budget.lock().request();
    }

    /// When another member is asked for the same.
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// How long one has until a second one is asked, if one is.
    pub(super) fn hedging(&self) -> Option<&Mutex<Hedging>> {
        self.hedging.as_ref()
    }

    /// Whether somebody who waits may hear that the one it waits for is dead.
    pub(super) fn is_checked(&self) -> bool {
        self.settings.health.is_some()
    }

    /// How a member is chosen.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Whether members are told how long answers took. Only fetches tell: what passes may wait for its client's body.
    pub fn learns_latency(&self) -> bool {
        self.balance == Balance::Ewma
    }

    /// Tells the metrics how everybody stands.
    pub fn tell(&self) {
        let now = clock::monotonic();
        for placed in self.roster.load().iter() {
            placed.member.tell(&self.origins.metrics);
            let (label, address) = (placed.member.peer.label(), placed.member.target().address);
            let drains = self.phase(placed, now) != Phase::Open;
            self.origins.metrics.origin_draining(self.settings.index, label, address, drains);
        }
        if self.queue_max > 0 {
            self.origins.metrics.origin_queue(self.settings.index, &self.settings.group, self.queue.len());
        }
    }

    /// Whether the budget of retries has one left; it is taken then.
    pub fn may_repeat(&self) -> bool {
        self.budget.lock().take(clock::monotonic())
    }
}

/// What a check asks for where requests have the client's host.
fn first_host(site: &edge_config::section::site::Site) -> Option<String> {
    use edge_config::section::site::HostPattern;
    site.hosts.iter().find_map(|host| match host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Any | HostPattern::Below(_) => None,
    })
}

#[cfg(test)]
mod tests;
