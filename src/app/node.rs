//! A configuration made into the parts of a node, and a new one put in the place of an old.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edge_config::Config;
use pingora::server::configuration::ServerConf;
use rustls::server::ProducesTickets;
use tokio::runtime::Runtime;

use super::StartError;
use super::certificates::Loaded;
use super::control::{Control, Handshakes, Shares};
use super::reclaimer::Reclaimer;
use super::source::{Source, Start};
use super::stapling;
use super::storage::{Begin, LogAgain, Record, Storage};
use super::{adoption, issuing};
use crate::acme::issuer::Issuer;
use crate::admin::Admin;
use crate::fleet::asking::Key;
use crate::fleet::through::Tiered;
use crate::fleet::{Fleet, Own};
use crate::front::Front;
use crate::front::log::Log;
use crate::front::pass::Pass;
use crate::front::registry::Registry;
use crate::front::tls::certificates::{CertificateError, Certificates, server_config};
use crate::front::tls::issued::Issued;
use crate::front::tls::tickets::Tickets;
use crate::front::tls::{Settings, Tls};
use crate::origin::Upstream;
use crate::origin::credentials::CredentialError;
use crate::origin::fetch::Fetch;
use crate::origin::group::{Group, Origins};
use crate::origin::mirror::Mirror;
use crate::origin::peer::OriginPeer;
use crate::pipeline::Pipeline;
use crate::purge::log::PurgeLog;
use crate::purge::nats::NodeName;
use crate::routing::{Backing, Backings, Site, Snapshot, Snapshots};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// What a server is made of.
pub struct Node {
    pub front: Arc<Front>,
    pub tls: Option<Arc<Tls>>,
    pub admin: Arc<Admin>,
    pub control: Arc<Control>,
    pub access_log: Arc<AccessLog>,
    pub log: Arc<dyn PurgeLog>,
    pub pipeline: Arc<Pipeline>,
    pub record: Arc<Record>,
    pub again: LogAgain,
    pub reclaimer: Reclaimer,
    /// Where active checks run and the hub's configuration is waited for, as long as the node does.
    pub checks: Runtime,
}

impl Node {
    /// Makes every part.
    ///
    /// # Errors
    /// What the configuration names cannot be used.
    pub fn new(
        source: Source,
        start: Start,
        conf: &Arc<ServerConf>,
        begin: Begin,
        tickets: TicketKeys,
    ) -> Result<Self, StartError> {
        let config = start.config.clone();
        let node = getrandom::u64().map_err(StartError::Random)?;

        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let access_log = AccessLog::open(&config.access_log, metrics.clone()).map_err(StartError::AccessLog)?;
        // A start that fails is none: disks count those they missed.
        read_files(&config)?;
        let Storage { log, node: name, presence, shelf, store, record, again, cdn, board } =
            Storage::open(&config, &start.documents, &metrics, begin)?;
        store.shares.set(config.sites.iter().map(|site| (site.name.as_str(), site.disk_share)));
        let pipeline = Pipeline::new(store, metrics.clone(), |task| {
            tokio::spawn(task);
        });
        let checks = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("checks")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let origins = Arc::new(Origins::new(checks.handle().clone(), metrics.clone(), &config.resolver, random()?));
        let fleet = fleet(&config, &name, &log, &origins)?;
        let snapshots = Snapshots::new(snapshot(&config, FIRST_VERSION, None, &origins, fleet.as_ref())?);
        let registry = Registry::new(config.limits.connections_per_client, metrics.clone());
        let issued = Arc::new(Issued::default());
        let front = Arc::new(Front {
            pipeline: pipeline.clone(),
            snapshots,
            pass: Pass::new(conf, pipeline.clone(), registry.clone()),
            registry,
            log: Log::new(access_log.clone(), metrics.clone(), node),
            cdn,
            proxies: ArcSwap::from_pointee(config.listen.proxies.clone()),
            issued: issued.clone(),
            fleet,
        });
        let certificates = Loaded::at_start(&config, &start.documents, issued)?;
        for _ in 0..certificates.unusable() {
            origins.metrics.config_refused();
        }
        let tls = match config.listen.https.is_empty() {
            true => None,
            false => Some(Tls::new(tls_settings(&config, &tickets, &certificates)?)),
        };
        let shares = Shares { presence, shelf };
        let issuer = Arc::new(Issuer::new(board, origins.clone()));
        let handshakes = Handshakes { tls: tls.clone(), tickets, certificates, issuer };
        let control = Arc::new(Control::new(source, start, front.clone(), handshakes, origins, shares));
        adoption::follow(&control, checks.handle());
        issuing::follow(&control, &name.name, checks.handle());
        if let Some(tls) = &tls {
            stapling::follow(tls, &metrics, checks.handle());
        }
        let reclaimer = Reclaimer::start(pipeline.clone(), record.clone()).map_err(StartError::Runtime)?;
        let listen = config.listen.addresses().copied().collect();
        let admin = Admin::new(pipeline.clone(), control.clone(), log.clone(), listen, config.test_clock);
        let admin = Arc::new(admin);
        Ok(Self { front, tls, admin, control, access_log, log, pipeline, record, again, reclaimer, checks })
    }
}

/// The other nodes, where this one is of a PoP.
fn fleet(
    config: &Config,
    name: &NodeName,
    log: &Arc<dyn PurgeLog>,
    origins: &Arc<Origins>,
) -> Result<Option<Arc<Fleet>>, StartError> {
    let (Some(pop), Some(path)) = (&config.node.pop, &config.node.key_file) else { return Ok(None) };
    let secret = std::fs::read(path).map_err(|error| StartError::NodeKey(path.clone(), error))?;
    let own = Own { id: name.id.clone(), pop: pop.clone(), authority: config.node.authority.clone() };
    Ok(Some(Fleet::new(own, Key::new(&secret), log.clone(), origins.clone())))
}

fn random() -> Result<[u8; 32], StartError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(StartError::Random)?;
    Ok(random)
}

/// Where the node keeps what must outlive it.
pub(super) fn data_directory(config: &Config) -> PathBuf {
    config.purge.directory()
}

/// The version of the configuration a node starts with.
pub const FIRST_VERSION: u64 = 1;

/// What requests need of a configuration. What is known of the origins of `previous` is kept.
///
/// # Errors
/// A file of an origin cannot be used.
pub fn snapshot(
    config: &Config,
    version: u64,
    previous: Option<&Snapshot>,
    origins: &Arc<Origins>,
    fleet: Option<&Arc<Fleet>>,
) -> Result<Snapshot, CredentialError> {
    let mut sites = Vec::with_capacity(config.sites.len());
    for site in &config.sites {
        let index = origins.metrics.site(&site.name);
        let known = previous.and_then(|previous| previous.sites().iter().find(|known| known.name == site.name));
        let backing = |name: &str, config| {
            let mut before = known.into_iter().flat_map(|known| known.backings.all());
            let before = before.find(|before| before.name == name);
            let known = before.map(|before| before.group.as_ref());
            let group = Group::named(site, name, config, index, known, origins)?;
            let is_mirror = site.rules.iter().any(|rule| rule.mirrors_to(name));
            let mirror =
                is_mirror.then(|| Mirror::new(group.clone(), before.and_then(|before| before.mirror.as_deref())));
            let fetch = Arc::new(Fetch::new(group.clone(), index));
            let upstream: Arc<dyn Upstream> = match fleet {
                // A session is with one origin, and only this node knows which.
                Some(fleet) if !group.is_sticky() => Arc::new(Tiered {
                    site: site.name.clone(),
                    tiers: fleet.tiers(site.shield.as_deref()),
                    origins: fetch,
                }),
                _ => fetch,
            };
            let validations = before.map(|before| before.validations.clone()).unwrap_or_default();
            Ok::<_, CredentialError>(Backing { name: name.to_owned(), group, upstream, mirror, validations })
        };
        let own = backing("", &site.origins)?;
        let others = site.groups.iter().map(|named| backing(&named.name, &named.group)).collect::<Result<_, _>>()?;
        let named = site.groups.iter().map(|named| &named.group);
        let sticky = std::iter::once(&site.origins).chain(named).filter_map(|group| group.sticky.as_ref());
        if sticky.into_iter().any(|sticky| sticky.cookie().is_some() && sticky.key.is_none()) {
            let site = &site.name;
            tracing::info!(
                site,
                "cookies of sticky sessions are signed with a key of this process: a restart ends them, and other nodes do not know them; see key_file"
            );
        }
        let made = Site::new(site, index, Backings::new(own, others), config.geo.clone());
        let made = if fleet.is_some() { made.asked_by_nodes() } else { made };
        sites.push((Arc::new(made), site.hosts.clone()));
    }
    Ok(Snapshot::new(version, config.limits, sites))
}

/// The keys of session tickets: they outlive a reload, or every session would end with it.
pub struct TicketKeys {
    /// For nodes without keys of their own to share.
    random: [u8; 32],
}

impl TicketKeys {
    pub fn new() -> Result<Self, StartError> {
        Ok(Self { random: random()? })
    }

    /// Those of the process before this one.
    pub fn of(random: [u8; 32]) -> Self {
        Self { random }
    }

    pub fn random(&self) -> [u8; 32] {
        self.random
    }

    fn tickets(&self, config: &Config) -> Result<Arc<dyn ProducesTickets>, CertificateError> {
        let secret = match &config.tls.ticket_keys {
            Some(path) => std::fs::read(path).map_err(|error| CertificateError::Tickets(path.clone(), error))?,
            None => self.random.to_vec(),
        };
        Ok(Arc::new(Tickets::new(&secret)))
    }
}

/// What handshakes need of a configuration.
///
/// # Errors
/// A file cannot be used.
pub fn tls_settings(config: &Config, tickets: &TicketKeys, loaded: &Loaded) -> Result<Settings, CertificateError> {
    let certificates = loaded.certificates(config);
    let server = server_config(&config.tls, certificates.clone(), tickets.tickets(config)?)?;
    Ok(Settings { certificates, server, handshake_timeout: config.tls.handshake_timeout.get() })
}

/// Reads the certificates and the authorities a configuration names.
///
/// # Errors
/// The first that cannot be used.
pub fn read_files(config: &Config) -> Result<(), StartError> {
    Certificates::load(&config.tls)?;
    for site in &config.sites {
        let named = site.groups.iter().map(|named| &named.group);
        for member in std::iter::once(&site.origins).chain(named).flat_map(|group| &group.members) {
            OriginPeer::new(member.origin.clone(), &site.name)?;
        }
    }
    Ok(())
}
