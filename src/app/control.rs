//! What the operator can do with a running node.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use async_trait::async_trait;
use edge_config::change::{SiteChanges, needs_restart, site_changes};
use edge_config::section::site::Isolated;
use edge_config::shared::Document;
use edge_config::{Config, Problem, Problems};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::StartError;
use super::certificates::Loaded;
use super::issuing::view;
use super::node::{TicketKeys, snapshot, tls_settings};
use super::source::{Read, Source, Start};
use super::upgrade::Upgrades;
use crate::acme::View;
use crate::acme::issuer::Issuer;
use crate::admin::access::{Access, Detail};
use crate::admin::certificates::{Change, Held, NotChanged};
use crate::admin::origins::states_of;
use crate::admin::sites::{HostChange, HostState, SiteState};
use crate::admin::{NotUpgraded, Operate};
use crate::clock;
use crate::front::Front;
use crate::front::registry::Registry;
use crate::front::tls::Tls;
use crate::front::tls::certificates::{CertificateError, end};
use crate::front::tls::issued::Issued;
use crate::front::tls::own::Changed;
use crate::origin::dns::resolver::Resolver;
use crate::origin::group::Origins;
use crate::pipeline::explain::{Named, Question};
use crate::purge::nats::documents::{Texts, Which};
use crate::purge::nats::presence::Presence;
use crate::purge::nats::shelf::Shelf;
use crate::routing::{Snapshot, Snapshots};

/// The running node, as its operator has it in hand.
pub struct Control {
    pub(super) source: Source,
    /// What is in force. Held while something else is put in its place: reloads come one after the other.
    pub(super) current: Mutex<InForce>,
    snapshots: Arc<Snapshots>,
    front: Arc<Front>,
    registry: Arc<Registry>,
    pub(super) tls: Option<Arc<Tls>>,
    tickets: TicketKeys,
    pub(super) issuer: Arc<Issuer>,
    pub(super) origins: Arc<Origins>,
    pub(super) shares: Shares,
    /// Who may do what on the admin API.
    access: Mutex<Arc<Access>>,
    purge_rate: AtomicU32,
    started: Instant,
    /// Not ready any more: clients are to go elsewhere.
    draining: AtomicBool,
    drain: Notify,
    /// What the configuration in force says of certificates.
    pub(super) views: watch::Sender<Arc<View>>,
    /// Its time to drain is over: routers are to lead nobody here.
    withdrawn: AtomicBool,
    /// Another process is about to take over: what is changed would be lost.
    frozen: AtomicBool,
    upgrades: OnceLock<Weak<Upgrades>>,
}

/// The configuration in force, and what it was made of.
pub struct InForce {
    pub config: Config,
    /// The files as they were read: what stands in them since then comes with a reload.
    pub read: Read,
    pub documents: Texts,
    pub certificates: Loaded,
}

/// What handshakes with clients are done with.
pub struct Handshakes {
    /// None: the node listens to nobody who speaks TLS.
    pub tls: Option<Arc<Tls>>,
    pub tickets: TicketKeys,
    pub certificates: Loaded,
    /// What certificates are had from an authority with.
    pub issuer: Arc<Issuer>,
}

/// What a node has in common with others.
pub struct Shares {
    /// What the node says of itself to others.
    pub presence: Arc<Presence>,
    /// What the hub has of the configuration, if there is a hub.
    pub shelf: Option<Arc<Shelf>>,
}

/// Why a new configuration is not in force. The one before it still is.
#[derive(Debug)]
pub enum Refused {
    Start(StartError),
    /// These keys cannot change while the node runs.
    NeedsRestart(Vec<&'static str>),
}

impl Control {
    pub fn new(
        source: Source,
        start: Start,
        front: Arc<Front>,
        handshakes: Handshakes,
        origins: Arc<Origins>,
        shares: Shares,
    ) -> Self {
        let Start { read, config, documents } = start;
        let Handshakes { tls, tickets, certificates, issuer } = handshakes;
        let access = Mutex::new(Arc::new(Access::new(config.tokens.clone())));
        let views = watch::Sender::new(Arc::new(view(&config, &certificates)));
        let control = Self {
            views,
            access,
            purge_rate: AtomicU32::new(config.purge.rate),
            source,
            current: Mutex::new(InForce { config, read, documents, certificates }),
            snapshots: front.snapshots.clone(),
            registry: front.registry.clone(),
            front,
            tls,
            tickets,
            issuer,
            origins,
            shares,
            started: clock::monotonic(),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            withdrawn: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            upgrades: OnceLock::new(),
        };
        control.report();
        control
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.current.lock().config.clone()
    }

    /// Reads the configuration again and puts it in force, all of it or nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn reload(&self) -> Result<u64, Refused> {
        let mut current = self.current.lock();
        let before = current.config.clone();
        let read = self.source.read();
        let config = self.source.config(&read, &current.documents).map_err(Refused::Start);
        let documents = current.documents.clone();
        let outcome = config.and_then(|config| self.replace(&mut current, config, &documents));
        match &outcome {
            Ok(version) => {
                current.read = read;
                let SiteChanges { added, removed, changed } = site_changes(&before, &current.config);
                tracing::info!(version, ?added, ?removed, ?changed, "configuration reloaded");
            }
            Err(refused) => {
                self.origins.metrics.config_refused();
                tracing::error!("configuration not reloaded, the one before it stays: {}", refused.text());
            }
        }
        drop(current);
        self.report();
        // What did not go with the files before may go with these.
        self.adopt();
        outcome
    }

    /// Puts a configuration in the place of the one in force, with the certificates of these documents.
    pub(super) fn replace(&self, current: &mut InForce, config: Config, documents: &Texts) -> Result<u64, Refused> {
        let keys = needs_restart(&current.config, &config);
        if !keys.is_empty() {
            return Err(Refused::NeedsRestart(keys));
        }
        // Everything that can fail comes before anything is changed.
        let refused = |error: CertificateError| Refused::Start(error.into());
        let certificates = current.certificates.again(&config, documents, &current.documents).map_err(refused)?;
        let settings = match &self.tls {
            Some(_) => Some(tls_settings(&config, &self.tickets, &certificates).map_err(refused)?),
            None => None,
        };
        let previous = self.snapshots.load();
        let version = previous.version + 1;
        // Names of the new configuration are asked for from now on; one that is refused leaves everything as it was.
        let resolver = self.origins.resolver.swap(Arc::new(Resolver::new(&config.resolver)));
        let snapshot =
            snapshot(&config, version, Some(&previous), &self.origins, self.front.fleet.as_ref()).map_err(|error| {
                self.origins.resolver.store(resolver);
                Refused::Start(error.into())
            })?;
        self.snapshots.replace(snapshot);
        self.forget_drains();
        self.front.pipeline.store.shares.set(config.sites.iter().map(|site| (site.name.as_str(), site.disk_share)));
        if let (Some(tls), Some(settings)) = (&self.tls, settings) {
            tls.replace(settings);
        }
        self.front.proxies.store(Arc::new(config.listen.proxies.clone()));
        self.registry.allow(config.limits.connections_per_client);
        self.purge_rate.store(config.purge.rate, Ordering::Relaxed);
        *self.access.lock() = Arc::new(Access::new(config.tokens.clone()));
        current.config = config;
        current.certificates = certificates;
        Ok(version)
    }

    /// Origins that are in no configuration any more do not drain: should they come back, that would be forgotten by then.
    fn forget_drains(&self) {
        let snapshot = self.snapshots.load();
        self.origins.drains.keep(|site, is| {
            let sites = snapshot.sites().iter().filter(|known| known.name == site);
            sites.flat_map(|site| site.backings.all()).any(|backing| {
                let roster = backing.group.roster();
                roster.iter().any(|placed| is(placed.member.peer.label(), placed.member.target().address))
                    // A name that nobody has answered for yet has no members.
                    || backing.group.without_address().any(|label| is(label, ([0, 0, 0, 0], 0).into()))
            })
        });
    }

    pub(super) fn report(&self) {
        let current = self.current.lock();
        let documents = current.documents.clone();
        self.views.send_replace(Arc::new(view(&current.config, &current.certificates)));
        drop(current);
        let snapshot = self.snapshots.load();
        let serves = snapshot.sites().iter().filter(|site| site.isolated == Isolated::Serve);
        self.shares.presence.configured(&documents, serves.map(|site| site.name.clone()).collect());
        self.origins.metrics.configured(self.snapshots.load().version);
        self.report_certificates();
    }

    /// Says when the certificates end that handshakes are done with.
    pub(super) fn report_certificates(&self) {
        let Some(tls) = &self.tls else { return };
        let certificates = tls.certificates();
        let issued = certificates.issued().all();
        let issued = issued.iter().filter_map(|issued| end(&issued.leaf, &issued.site));
        let ends: Vec<_> = certificates.ends().iter().cloned().chain(issued).collect();
        self.origins.metrics.certificates(&ends);
    }

    pub(super) fn issued(&self) -> &Arc<Issued> {
        &self.front.issued
    }

    /// Resolves when the operator asks for a drain.
    pub async fn asked_to_drain(&self) {
        self.drain.notified().await;
    }

    /// From now on the node says that it is not ready; it serves as before.
    pub fn announce_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.shares.presence.drain();
    }

    pub fn drains(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on connections end with what they do, and new ones with their first request.
    pub fn part(&self) {
        self.registry.part();
    }

    /// From now on there are no new connections.
    pub fn admit_nobody(&self) {
        self.registry.close();
    }

    /// Connections stay again.
    pub fn stay(&self) {
        self.registry.stay();
    }

    /// From now on routers are to lead nobody here.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
    }

    /// Whether what operators change is refused for a while.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
        self.issuer.board.freeze(frozen);
    }

    /// Who has another process take over.
    pub fn replaced_by(&self, upgrades: &Arc<Upgrades>) {
        // It is said once.
        let _ = self.upgrades.set(Arc::downgrade(upgrades));
    }

    pub fn connections(&self) -> usize {
        self.registry.connections()
    }
}

impl Refused {
    /// What is wrong, for a log.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Start(error) => error.summary(),
            Self::NeedsRestart(keys) => format!("{} cannot change without a restart", keys.join(", ")),
        }
    }

    /// What is wrong with a document of this site, for its owner, who may not know of other sites.
    fn json_of(&self, site: &str) -> Value {
        let elsewhere =
            json!({ "message": "it does not go with the rest of this node's configuration: ask its operator" });
        let Self::Start(StartError::File(problems)) = self else { return json!({ "errors": [elsewhere] }) };
        let own = Document { site: Some(site), text: "" }.file(Path::new(""));
        let is_own = |problem: &&Problem| problem.file.file_name() == own.file_name();
        let mut errors: Vec<Value> = problems.iter().filter(is_own).map(own_problem_json).collect();
        if errors.is_empty() {
            errors.push(elsewhere);
        }
        json!({ "errors": errors })
    }

    /// What is wrong, for a program.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Start(StartError::File(problems)) => problems_json(problems),
            Self::Start(error) => json!({ "errors": [{ "message": error.to_string() }] }),
            Self::NeedsRestart(keys) => {
                let errors = keys.iter().map(|key| {
                    json!({
                        "key": key,
                        "message": format!("{key} cannot change while the node runs"),
                        "help": "restart the node, or leave it as it was",
                    })
                });
                json!({ "errors": errors.collect::<Vec<_>>() })
            }
        }
    }
}

fn problems_json(problems: &Problems) -> Value {
    json!({ "errors": problems.iter().map(problem_json).collect::<Vec<_>>() })
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file.display().to_string(),
        "line": problem.line,
        "column": problem.column,
        "span": [problem.span.start, problem.span.end],
        "label": problem.label,
        "message": problem.message,
        "help": problem.help,
    })
}

fn own_problem_json(problem: &Problem) -> Value {
    let mut told = problem.clone();
    if let Some(discreet) = &problem.discreet {
        (told.message, told.label, told.help) = (discreet.clone(), "here".to_owned(), String::new());
    }
    problem_json(&told)
}

#[async_trait]
impl Operate for Control {
    fn reload(&self) -> Result<Value, Value> {
        let version = Self::reload(self).map_err(|refused| refused.json())?;
        let sites: Vec<String> = self.current.lock().config.sites.iter().map(|site| site.name.clone()).collect();
        Ok(json!({ "version": version, "sites": sites }))
    }

    fn shelf(&self) -> Option<Arc<Shelf>> {
        self.shares.shelf.clone()
    }

    fn try_document(&self, which: &Which, text: &str, detail: Detail) -> Result<(), Value> {
        Self::try_document(self, which, text).map_err(|refused| match (detail, which) {
            (Detail::OwnSite, Which::Site(site)) => {
                tracing::info!(site, why = refused.text(), "a version of a site is refused");
                refused.json_of(site)
            }
            _ => refused.json(),
        })
    }

    fn certificates(&self) -> Held {
        self.held()
    }

    fn change_certificates(&self, site: &str, latest: &str, change: &Change) -> Result<(String, String), NotChanged> {
        self.changed(site, latest, change).map(|Changed { text, fingerprint }| (text, fingerprint))
    }

    fn change_certificates_here(&self, site: &str, change: &Change) -> Result<String, NotChanged> {
        self.change_here(site, change)
    }

    async fn forget_account(&self) -> Result<(), String> {
        self.issuer.forget_account().await.map_err(|error| error.to_string())
    }

    fn site_states(&self) -> Vec<SiteState> {
        self.states_of_sites()
    }

    async fn judge_host(&self, site: &str, host: &str, change: HostChange) -> Result<HostState, String> {
        self.judge(site, host, change).await
    }

    fn drain(&self) {
        self.drain.notify_one();
    }

    fn is_draining(&self) -> bool {
        self.drains()
    }

    fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    async fn upgrade(&self) -> Result<u32, NotUpgraded> {
        let upgrades =
            self.upgrades.get().and_then(Weak::upgrade).ok_or(NotUpgraded::NotTried("it ends".to_owned()))?;
        upgrades.upgrade().await.map_err(|error| match error.is_not_tried() {
            true => NotUpgraded::NotTried(error.to_string()),
            false => NotUpgraded::Failed(error.to_string()),
        })
    }

    fn access(&self) -> Arc<Access> {
        self.access.lock().clone()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.load()
    }

    fn purge_rate(&self) -> u32 {
        self.purge_rate.load(Ordering::Relaxed)
    }

    async fn explain(&self, question: &Question) -> Result<Value, String> {
        let answer = self.front.explain(question).await.map_err(|refusal| refusal.sentence().to_owned())?;
        serde_json::to_value(answer).map_err(|error| error.to_string())
    }

    fn named(&self, question: &Question) -> Result<Option<Named>, String> {
        self.front.named(question).map_err(|refusal| refusal.sentence().to_owned())
    }

    fn tell(&self) {
        // An origin that a new configuration does not have is not down.
        self.origins.metrics.forget_origins();
        for site in self.snapshots.load().sites() {
            site.backings.all().for_each(|backing| backing.group.tell());
        }
        if let Some(fleet) = &self.front.fleet {
            fleet.tell();
        }
    }

    fn describe(&self) -> Value {
        let snapshot = self.snapshots.load();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": clock::monotonic().duration_since(self.started).as_secs(),
            "config_version": snapshot.version,
            "pid": std::process::id(),
            "draining": self.is_draining(),
            "connections": self.connections(),
            "origins": snapshot.sites().iter().flat_map(|site| states_of(site)).collect::<Vec<_>>(),
        })
    }
}
