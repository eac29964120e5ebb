//! The origins of a site together: who is up, who is asked next, and how often one may try again.

use std::sync::Arc;
use std::sync::Weak;
use std::time::{Duration, Instant};

use edge_config::section::{group as config, health as checks};
use parking_lot::Mutex;
use pingora::connectors::http::Connector;

use super::balance::SmoothWeighted;
use super::company::Companions;
use super::ejection::{Ejection, Verdict};
use super::health::Health;
use super::peer::{AuthorityError, OriginPeer};
use super::probe;
use super::retry::Budget;
use crate::clock;
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

/// One origin of a group, and what is known of it.
pub struct Member {
    pub peer: OriginPeer,
    config: config::Member,
    /// For whom it is checked and counted.
    settings: Settings,
    state: Mutex<State>,
    /// The group it is a member of; of those of several configurations, the newest.
    companions: Mutex<Arc<Companions>>,
}

/// What a member that a new configuration leaves alone must not have changed.
#[derive(Clone, PartialEq)]
struct Settings {
    site: String,
    index: usize,
    health: Option<checks::Health>,
    eject: Option<checks::Eject>,
    check_host: Option<String>,
}

struct State {
    health: Option<Health>,
    ejection: Ejection,
    /// What the metrics were told.
    shown_up: Option<bool>,
}

impl State {
    fn is_out(&self) -> bool {
        self.health.is_some_and(|health| !health.is_up()) || self.ejection.is_out()
    }
}

/// Whether a member is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// That, or it was left alone long enough and whoever is [admitted](Member::admit) decides.
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

impl Member {
    pub fn standing(&self, now: Instant) -> Standing {
        let state = self.state.lock();
        match (state.health.is_none_or(|health| health.is_up()), state.ejection.may_be_asked(now)) {
            (false, _) => Standing::Down,
            (true, false) => Standing::Ejected,
            (true, true) => Standing::Up,
        }
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
    pub fn admit(&self, now: Instant) -> bool {
        self.state.lock().ejection.admit(now)
    }

    /// A request that began then was answered.
    pub fn succeeded(&self, began: Instant, metrics: &Metrics) {
        let mut state = self.state.lock();
        if state.ejection.succeeded(began, clock::monotonic()) {
            tracing::info!(
                site = self.settings.site,
                origin = self.peer.label(),
                "origin back: a request was answered"
            );
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

    /// A check has a result.
    pub fn checked(&self, result: Result<(), String>, metrics: &Metrics) {
        let mut state = self.state.lock();
        let passed = result.is_ok();
        if let Some(health) = &mut state.health
            && health.checked(passed)
        {
            let (site, origin) = (&self.settings.site, self.peer.label());
            match result {
                Ok(()) => tracing::info!(site, origin, "origin is up"),
                Err(why) => tracing::warn!(site, origin, why, "origin is down"),
            }
        }
        self.show(&mut state, metrics);
    }

    fn show(&self, state: &mut State, metrics: &Metrics) {
        let up = !state.is_out();
        if state.shown_up != Some(up) {
            state.shown_up = Some(up);
            metrics.origin_up(self.settings.index, self.peer.label(), up);
        }
    }

    /// Tells the metrics how it stands, whatever they were told before.
    pub fn tell(&self, metrics: &Metrics) {
        let mut state = self.state.lock();
        state.shown_up = None;
        self.show(&mut state, metrics);
    }

    /// The checks, and the host they ask for.
    pub fn check_settings(&self) -> Option<(&checks::Health, Option<&str>)> {
        self.settings.health.as_ref().map(|health| (health, self.settings.check_host.as_deref()))
    }
}

/// A member that is to be asked.
pub struct Choice {
    pub index: usize,
    pub member: Arc<Member>,
    /// How long it may take to accept a connection.
    pub connect: Duration,
    /// When it was chosen.
    pub began: Instant,
}

/// The origins of a site.
pub struct Group {
    members: Vec<Arc<Member>>,
    balance: Mutex<SmoothWeighted>,
    budget: Mutex<Budget>,
    retries_max: u32,
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
                _ => Self::member(member, &settings, origins)?,
            });
        }
        let companions = Arc::new(Companions::new(members.iter().map(Arc::downgrade).collect()));
        members.iter().for_each(|member| *member.companions.lock() = companions.clone());
        Ok(Arc::new(Self {
            balance: Mutex::new(SmoothWeighted::new(members.len())),
            budget: Mutex::new(Budget::new(config.retry, clock::monotonic())),
            retries_max: config.retry.attempts,
            members,
            origins: origins.clone(),
        }))
    }

    fn member(
        config: &config::Member,
        settings: &Settings,
        origins: &Arc<Origins>,
    ) -> Result<Arc<Member>, AuthorityError> {
        let health = settings.health.as_ref().map(|health| Health::new(health.fall, health.rise));
        let member = Arc::new(Member {
            peer: OriginPeer::new(config.origin.clone(), &settings.site)?,
            config: config.clone(),
            settings: settings.clone(),
            state: Mutex::new(State { health, ejection: Ejection::new(settings.eject), shown_up: None }),
            companions: Mutex::default(),
        });
        member.show(&mut member.state.lock(), &origins.metrics);
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

    /// Chooses who is asked, or asked next when the `tried` have failed.
    ///
    /// Of those that are up, the lowest tier that has one; when nobody is, somebody all the same: one that is only ejected,
    /// and at last, if none has been tried, one whose checks fail. One to `avoid` is asked when no other stands as well.
    pub fn choose(&self, tried: &[usize], avoid: Option<usize>) -> Option<Choice> {
        let now = clock::monotonic();
        let standings: Vec<(usize, u8, u32, Standing)> = self
            .members
            .iter()
            .enumerate()
            .filter(|(index, _)| !tried.contains(index))
            .map(|(index, member)| (index, member.config.tier, member.config.weight, member.standing(now)))
            .collect();
        for standing in [Standing::Up, Standing::Ejected, Standing::Down] {
            if standing == Standing::Down && !tried.is_empty() {
                return None;
            }
            let all = || standings.iter().filter(|(_, _, _, theirs)| *theirs == standing);
            let is_no_other = all().all(|(index, ..)| Some(*index) == avoid);
            let of_standing = || all().filter(|(index, ..)| is_no_other || Some(*index) != avoid);
            let Some(tier) = of_standing().map(|(_, tier, ..)| *tier).min() else { continue };
            let candidates = of_standing().filter(|(_, theirs, ..)| *theirs == tier);
            let index = self.balance.lock().choose(candidates.map(|(index, _, weight, _)| (*index, *weight)))?;
            let member = self.members.get(index)?.clone();
            if standing == Standing::Up && !member.admit(now) {
                // Somebody else was faster, and it is ejected as far as we are concerned.
                return self.choose(tried, avoid);
            }
            let connect = member.peer.origin().timeouts.connect.get();
            let connect = if standing == Standing::Down { connect.min(DESPERATE_CONNECT) } else { connect };
            return Some(Choice { index, member, connect, began: now });
        }
        None
    }

    /// Chooses who is asked when the `tried` have failed, if the request may try once more.
    pub fn choose_again(&self, tried: &[usize], avoid: Option<usize>) -> Option<Choice> {
        if tried.len() > self.retries_max as usize {
            return None;
        }
        let choice = self.choose(tried, avoid)?;
        let may = self.may_repeat();
        if !may {
            choice.member.state.lock().ejection.withdraw(choice.began);
        }
        may.then_some(choice)
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
mod tests {
    use super::*;
    use edge_config::section::site::Site;

    pub(super) fn origins() -> Origins {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Origins {
            connector: Arc::new(Connector::new(None)),
            checks: runtime.handle().clone(),
            metrics: Metrics::new("test"),
        }
    }

    fn site(urls: &[&str]) -> Site {
        let origin = |url: &&str| url.parse().expect("an origin");
        let mut site = Site::of_one("s", origin(&urls[0]));
        let member = |url| config::Member { origin: origin(url), weight: 1, tier: 1 };
        site.origins.members = urls.iter().map(member).collect();
        site.origins.eject = Some(checks::Eject { failures: 1, out_percent_max: 100, ..checks::Eject::default() });
        site
    }

    #[test]
    fn a_new_configuration_keeps_what_is_known_of_origins_it_leaves_alone() {
        let origins = Arc::new(origins());
        let group = |site: &Site, previous| Group::new(site, 0, previous, &origins).expect("no file to read");
        let old = group(&site(&["http://a", "http://b"]), None);
        old.members()[0].failed(clock::monotonic(), &origins.metrics);
        let now = clock::monotonic();
        assert_eq!(old.members()[0].standing(now), Standing::Ejected);
        let same = group(&site(&["http://c", "http://a"]), Some(&old));
        assert_eq!(same.members()[1].standing(now), Standing::Ejected);
        assert!(Arc::ptr_eq(&same.members()[1], &old.members()[0]));
        let mut heavier = site(&["http://a"]);
        heavier.origins.members[0].weight = 2;
        let changed = group(&heavier, Some(&old));
        assert_eq!(changed.members()[0].standing(now), Standing::Up);
    }

    #[test]
    fn who_is_asked_when_nobody_is_up() {
        let origins = Arc::new(origins());
        let group = Group::new(&site(&["http://a", "http://b"]), 0, None, &origins).expect("no file to read");
        let index = |tried: &[usize]| group.choose(tried, None).map(|choice| choice.index);
        group.members()[0].failed(clock::monotonic(), &origins.metrics);
        assert_eq!([index(&[]), index(&[]), index(&[1])], [Some(1), Some(1), Some(0)], "the ejected one at last");
        group.members()[1].failed(clock::monotonic(), &origins.metrics);
        assert_eq!([index(&[]), index(&[])], [Some(1), Some(1)], "the last one is not ejected");
        assert_eq!(index(&[0, 1]), None);
    }

    #[test]
    fn who_is_asked_instead_of_one_that_broke_off() {
        let origins = Arc::new(origins());
        let mut site = site(&["http://a", "http://b", "http://c"]);
        site.origins.members[2].tier = 2;
        let group = Group::new(&site, 0, None, &origins).expect("no file to read");
        let index = |tried: &[usize], avoid| group.choose(tried, Some(avoid)).map(|choice| choice.index);
        assert_eq!([index(&[], 0), index(&[], 0), index(&[], 1)], [Some(1), Some(1), Some(0)], "another of its tier");
        assert_eq!(index(&[1], 0), Some(2), "another of a lower tier, also when one was tried");
        group.members()[1].failed(clock::monotonic(), &origins.metrics);
        assert_eq!([index(&[], 0), index(&[], 2)], [Some(2), Some(0)], "not one that is ejected");
        group.members()[2].failed(clock::monotonic(), &origins.metrics);
        assert_eq!(index(&[], 0), Some(0), "the same one, when no other is up");
        group.members()[0].failed(clock::monotonic(), &origins.metrics);
        assert_eq!([index(&[], 0), index(&[1, 2], 0)], [Some(0), Some(0)], "the last one is never ejected");
        assert!(index(&[], 9).is_some(), "one that is not there");
    }
}
