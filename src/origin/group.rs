//! The origins of a site together: who is up, who is asked next, and how often one may try again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_config::section::balance::{Balance, HashBy};
use edge_config::section::group as config;
use parking_lot::Mutex;
use pingora::connectors::http::Connector;

use super::Failure;
use super::balance::consistent::hash;
use super::balance::smooth_weighted::SmoothWeighted;
use super::balance::{Candidate, consistent, ewma, least_requests, random};
use super::company::Companions;
use super::member::Settings;
pub use super::member::{Lease, Member, Standing};
use super::peer::{AuthorityError, OriginPeer};
use super::probe;
use super::queue::Queue;
use super::retry::Budget;
use crate::clock;
use crate::semantics::fields::Fields;
use crate::telemetry::metrics::Metrics;

/// When nobody is up, somebody is asked all the same; that one gets this long to accept a connection, so that the client
/// has its answer within a second.
const DESPERATE_CONNECT: Duration = Duration::from_millis(300);

/// What all groups of a node share.
pub struct Origins {
    /// One pool of connections: a new configuration finds those of the old.
    pub connector: Arc<Connector>,
    /// Where active checks run.
    pub checks: tokio::runtime::Handle,
    pub metrics: Arc<Metrics>,
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

/// What a choice depends on.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Who has failed already.
    pub tried: &'a [usize],
    /// Who is asked only when no other stands as well.
    pub avoid: Option<usize>,
    /// Requests with the same key are for the same member, where the rule is to hash; see [`Group::key`].
    pub key: u64,
}

/// Why nobody is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoChoice {
    /// Everybody that could be is at its cap.
    Full,
    /// Nobody is left.
    Nobody,
}

impl From<NoChoice> for Failure {
    fn from(why: NoChoice) -> Self {
        match why {
            NoChoice::Full => Self::Busy,
            NoChoice::Nobody => Self::Unreachable,
        }
    }
}

/// The origins of a site.
pub struct Group {
    members: Vec<Arc<Member>>,
    balance: Balance,
    turns: Mutex<SmoothWeighted>,
    /// Counts up; mixed, it is what the rules that draw draw from.
    draws: AtomicU64,
    slow_start: Option<Duration>,
    most: Option<u32>,
    queue: Arc<Queue>,
    queue_max: usize,
    queue_wait: Duration,
    budget: Mutex<Budget>,
    retries_max: u32,
    site: usize,
    pub origins: Arc<Origins>,
}

impl Group {
    /// The origins of a site that is counted by `index`. What is known of those that `previous` has too is kept.
    ///
    /// # Errors
    /// The file of an origin's authorities cannot be used.
    pub fn new(
        site: &edge_config::section::site::Site,
        index: usize,
        previous: Option<&Self>,
        origins: &Arc<Origins>,
    ) -> Result<Arc<Self>, AuthorityError> {
        let config = &site.origins;
        let settings = Settings {
            site: site.name.clone(),
            index,
            health: config.health.clone(),
            eject: config.eject,
            check_host: config
                .health
                .as_ref()
                .and_then(|health| health.host().map(str::to_owned))
                .or_else(|| first_host(site)),
        };
        let mut members = Vec::with_capacity(config.members.len());
        for member in &config.members {
            let same = |old: &&Arc<Member>| old.config == *member && old.settings == settings;
            members.push(match previous.and_then(|group| group.members.iter().find(same)) {
                // Its file of authorities may hold others now.
                Some(known) if known.peer.is_like(&OriginPeer::new(member.origin.clone(), &site.name)?) => {
                    known.clone()
                }
                _ => Self::member(member, &settings, previous, origins)?,
            });
        }
        let companions = Arc::new(Companions::new(members.iter().map(Arc::downgrade).collect()));
        members.iter().for_each(|member| *member.companions.lock() = companions.clone());
        Ok(Arc::new(Self {
            balance: config.balance.clone(),
            turns: Mutex::new(SmoothWeighted::new(members.len())),
            draws: AtomicU64::new(ahash::RandomState::new().hash_one(index)),
            slow_start: config.slow_start.map(edge_config::Duration::get),
            most: config.crowd.max_requests,
            queue: previous.map(|group| group.queue.clone()).unwrap_or_default(),
            queue_max: config.crowd.queue as usize,
            queue_wait: config.crowd.queue_wait.get(),
            site: index,
            budget: Mutex::new(Budget::new(config.retry, clock::monotonic())),
            retries_max: config.retry.attempts,
            members,
            origins: origins.clone(),
        }))
    }

    fn member(
        config: &config::Member,
        settings: &Settings,
        previous: Option<&Self>,
        origins: &Arc<Origins>,
    ) -> Result<Arc<Member>, AuthorityError> {
        let peer = OriginPeer::new(config.origin.clone(), &settings.site)?;
        let before = previous.and_then(|group| group.members.iter().find(|old| old.peer.label() == peer.label()));
        let in_flight = before.map(|old| old.in_flight.clone()).unwrap_or_default();
        let warm = previous.is_none() || before.is_some();
        let member = Arc::new(Member::new(peer, config.clone(), settings.clone(), in_flight, warm));
        member.tell(&origins.metrics);
        if settings.health.is_some() {
            let watched: Weak<Member> = Arc::downgrade(&member);
            origins.checks.spawn(probe::watch(watched, origins.clone()));
        }
        Ok(member)
    }

    /// A group that nobody asks, for tests.
    #[cfg(test)]
    pub fn idle(site: &str, origin: edge_config::section::origin::Origin) -> Arc<Self> {
        let origins = Arc::new(tests::origins());
        let site = edge_config::section::site::Site::of_one(site, origin);
        Self::new(&site, 0, None, &origins).expect("there is no file to read")
    }

    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The member with this index.
    pub fn member_at(&self, index: usize) -> Option<&Arc<Member>> {
        self.members.get(index)
    }

    /// A request begins.
    pub fn begin(&self) {
        self.budget.lock().request();
    }

    /// How a member is chosen.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Whether members are told how long answers took. Only fetches tell: what passes may wait for its client's body.
    pub fn learns_latency(&self) -> bool {
        self.balance == Balance::Ewma
    }

    /// What a request is hashed to; 0 where nobody needs it. A request without the field or cookie is hashed by its URL:
    /// all of those together would be too much for one origin. A response that is fetched for many is hashed by what the
    /// first of them sent.
    pub fn key(&self, host: &[u8], target: &[u8], fields: Fields<'_>, client: Option<IpAddr>) -> u64 {
        let Balance::Consistent(by) = &self.balance else { return 0 };
        let found = match by {
            HashBy::Url => None,
            HashBy::Header(name) => fields.first(name).map(|value| hash([value])),
            HashBy::Cookie(name) => cookie(fields, name.as_bytes()).map(|value| hash([value])),
            HashBy::Address => client.map(|client| hash([client.to_canonical().to_string().as_bytes()])),
        };
        found.unwrap_or_else(|| hash([host, target]))
    }

    /// Chooses who is asked. Where everybody is at its cap, waits until somebody is not, behind those that wait already.
    ///
    /// # Errors
    /// [`Failure::Busy`] when too many wait, or for too long; [`Failure::Unreachable`] when nobody is left.
    ///
    /// Dropping it gives up the place in the queue.
    pub async fn choose(&self, wanted: Wanted<'_>) -> Result<Choice, Failure> {
        if self.most.is_none() || self.queue.is_empty() {
            match self.choose_now(wanted) {
                Err(NoChoice::Full) => {}
                chosen => return chosen.map_err(Failure::from),
            }
        }
        let busy = || {
            self.origins.metrics.origin_rejected(self.site);
            Failure::Busy
        };
        let place = self.queue.join(self.queue_max).ok_or_else(busy)?;
        let waiting = async {
            loop {
                if place.is_first() {
                    match self.choose_now(wanted) {
                        Err(NoChoice::Full) => {}
                        chosen => return chosen.map_err(Failure::from),
                    }
                }
                place.woken().await;
            }
        };
        tokio::time::timeout(self.queue_wait, waiting).await.unwrap_or_else(|_| Err(busy()))
    }

    /// Of those that are up and below their cap, the lowest tier that has one; when nobody is up, somebody all the same: one
    /// that is only ejected, and at last, if none has been tried, one whose checks fail. One to avoid is asked when no other
    /// stands as well.
    fn choose_now(&self, wanted: Wanted<'_>) -> Result<Choice, NoChoice> {
        let now = clock::monotonic();
        let Wanted { tried, avoid, key } = wanted;
        let known: Vec<(u8, Standing, Candidate)> = (self.members.iter().enumerate())
            .filter(|(index, _)| !tried.contains(index))
            .map(|(index, member)| {
                let (standing, candidate) = member.candidate(index, self.slow_start, now);
                (member.config.tier, standing, candidate)
            })
            .collect();
        for standing in [Standing::Up, Standing::Ejected, Standing::Down] {
            if standing == Standing::Down && !tried.is_empty() {
                return Err(NoChoice::Nobody);
            }
            let all = || known.iter().filter(|(_, theirs, _)| *theirs == standing);
            if all().next().is_none() {
                continue;
            }
            let is_no_other = all().all(|(_, _, one)| Some(one.index) == avoid);
            let mut free: Vec<(u8, Candidate)> = all()
                .filter(|(_, _, one)| is_no_other || Some(one.index) != avoid)
                .filter(|(_, _, one)| self.most.is_none_or(|most| one.in_flight < most))
                .map(|(tier, _, one)| (*tier, *one))
                .collect();
            // As often as another request is faster.
            while let Some(tier) = free.iter().map(|(tier, _)| *tier).min() {
                let candidates: Vec<Candidate> =
                    free.iter().filter(|(theirs, _)| *theirs == tier).map(|(_, one)| *one).collect();
                let index = self.pick(&candidates, key).ok_or(NoChoice::Nobody)?;
                let member = self.members.get(index).ok_or(NoChoice::Nobody)?.clone();
                let Some(lease) = member.lease(self.most, &self.queue) else {
                    free.retain(|(_, one)| one.index != index);
                    continue;
                };
                if standing == Standing::Up && !member.admit(now) {
                    // Its trial is another request's: as far as this one goes, it is ejected.
                    drop(lease);
                    return self.choose_now(wanted);
                }
                let connect = member.peer.origin().timeouts.connect.get();
                let connect = if standing == Standing::Down { connect.min(DESPERATE_CONNECT) } else { connect };
                return Ok(Choice { index, member, connect, lease, began: now });
            }
            return Err(NoChoice::Full);
        }
        Err(NoChoice::Nobody)
    }

    fn pick(&self, candidates: &[Candidate], key: u64) -> Option<usize> {
        if let [only] = candidates {
            return Some(only.index);
        }
        let draw = || random::mix(self.draws.fetch_add(1, Ordering::Relaxed));
        match &self.balance {
            Balance::SmoothWeighted => {
                self.turns.lock().choose(candidates.iter().map(|candidate| (candidate.index, candidate.share)))
            }
            Balance::LeastRequests => least_requests::choose(candidates, draw()),
            Balance::Ewma => ewma::choose(candidates, draw()),
            Balance::Consistent(_) => consistent::choose(candidates, key),
            Balance::Random => random::choose(candidates, draw()),
        }
    }

    /// Chooses who is asked when some have failed, if the request may try once more. It does not wait for anybody.
    pub fn choose_again(&self, wanted: Wanted<'_>) -> Option<Choice> {
        if wanted.tried.len() > self.retries_max as usize {
            return None;
        }
        let choice = self.choose_now(wanted).ok()?;
        let may = self.may_repeat();
        if !may {
            choice.member.withdraw(choice.began);
        }
        may.then_some(choice)
    }

    /// Tells the metrics how everybody stands.
    pub fn tell(&self) {
        self.members.iter().for_each(|member| member.tell(&self.origins.metrics));
        if self.queue_max > 0 {
            self.origins.metrics.origin_queue(self.site, self.queue.len());
        }
    }

    /// Whether the budget of retries has one left; it is taken then.
    pub fn may_repeat(&self) -> bool {
        self.budget.lock().take(clock::monotonic())
    }
}

/// The value of a cookie (RFC 6265 section 4.2.1).
fn cookie<'a>(fields: Fields<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let lines = fields.lines().filter(|line| line.is("cookie"));
    lines.flat_map(|line| line.value.split(|byte| *byte == b';')).find_map(|pair| {
        let mut parts = pair.trim_ascii().splitn(2, |byte| *byte == b'=');
        (parts.next() == Some(name)).then(|| parts.next()).flatten()
    })
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
