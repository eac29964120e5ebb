//! The nodes of a CDN among themselves: who is asked for what, and what they say to one another.
//!
//! - [`asking`]: what a node says when it asks, signed. [`answered`]: what the other one says of its answer. Both pure.
//! - [`choosing`]: which node has an object. Pure. [`roster`]: the nodes there are.
//! - [`through`]: asking another node in the place of an origin.

pub mod answered;
pub mod asking;
pub mod choosing;
mod parameters;
pub mod roster;
pub mod through;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use edge_config::section::origin::{HostHeader, Origin};
use edge_config::section::site::Site;
use parking_lot::Mutex;

use self::asking::{Asking, Forged, Key};
use self::roster::{Node, Roster};
use self::through::{FIRST_NUMBER, SAYS_AGAIN_WITHIN, SAYS_WITHIN, Tiers};
use crate::clock;
use crate::origin::fetch::Fetch;
use crate::origin::group::{Group, Origins};
use crate::origin::{OriginRequest, Role, Through, Upstream};
use crate::purge::log::PurgeLog;

/// How often it is looked who is there.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a node may take to accept a connection.
const CONNECT_WITHIN: edge_config::Duration = edge_config::Duration::from_secs(1);
/// How long one that has said that it waits for an origin may take.
const ANSWERS_WITHIN: edge_config::Duration = edge_config::Duration::from_secs(60);
/// How long it may pause in the middle of a body: as long as an origin may.
const PAUSES_WITHIN: edge_config::Duration = edge_config::Duration::from_secs(30);
/// How long unused connections are kept: shorter than the other node keeps them.
const IDLE: edge_config::Duration = edge_config::Duration::from_secs(30);
/// What requests to other nodes are counted under.
const SITE: &str = "_nodes";

/// What this node is among the others.
#[derive(Clone, Debug)]
pub struct Own {
    pub id: String,
    pub pop: String,
    /// The authorities of other nodes' certificates; none: the system's.
    pub authority: Option<PathBuf>,
}

/// The nodes of a CDN, as this one knows them.
pub struct Fleet {
    own: Own,
    key: Key,
    log: Arc<dyn PurgeLog>,
    roster: ArcSwap<Roster>,
    /// Nodes have been seen so far.
    seen: AtomicUsize,
    origins: Arc<Origins>,
    /// The connections to each.
    groups: Mutex<Vec<Weak<Group>>>,
}

impl Fleet {
    /// Begins to look who is there.
    pub fn new(own: Own, key: Key, log: Arc<dyn PurgeLog>, origins: Arc<Origins>) -> Arc<Self> {
        let (roster, seen) = (ArcSwap::default(), AtomicUsize::new(0));
        let fleet = Arc::new(Self { own, key, log, roster, seen, origins, groups: Mutex::default() });
        let weak = Arc::downgrade(&fleet);
        fleet.origins.checks.spawn(async move {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                let Some(fleet) = weak.upgrade() else { return };
                fleet.look();
            }
        });
        fleet
    }

    fn look(&self) {
        let members = self.log.members();
        let before = self.roster.load();
        let roster = Roster::new(&members, &self.own.id, &before, &mut |member| {
            let asking = (member.id != self.own.id).then(|| self.reach(&member.address)).flatten();
            let number = FIRST_NUMBER + self.seen.fetch_add(1, Ordering::Relaxed);
            Node::new(&member.id, &member.name, &member.address, number, asking)
        });
        self.roster.store(Arc::new(roster));
    }

    /// How a node is asked. None: its address is none, which is told.
    fn reach(&self, address: &str) -> Option<Arc<dyn Upstream>> {
        let mut origin: Origin =
            address.parse().inspect_err(|error| tracing::error!(address, %error, "a node cannot be asked")).ok()?;
        // It answers for the hosts of its sites.
        origin.host_header = HostHeader::Client;
        origin.timeouts.connect = CONNECT_WITHIN;
        origin.timeouts.first_byte = ANSWERS_WITHIN;
        origin.timeouts.between_bytes = PAUSES_WITHIN;
        origin.timeouts.idle = IDLE;
        origin.ca.clone_from(&self.own.authority);
        let index = self.origins.metrics.site(SITE);
        let group = Group::new(&Site::of_one(SITE, origin), index, None, &self.origins)
            .inspect_err(|error| tracing::error!(address, %error, "a node cannot be asked"))
            .ok()?;
        self.groups.lock().push(Arc::downgrade(&group));
        Some(Arc::new(Fetch::new(group, index)))
    }

    /// Tells the metrics how everybody stands.
    pub fn tell(&self) {
        let mut groups = self.groups.lock();
        groups.retain(|group| group.strong_count() > 0);
        groups.iter().filter_map(Weak::upgrade).for_each(|group| group.tell());
    }

    /// What a request says of the node it comes from. `value`: of its field.
    ///
    /// # Errors
    /// No node of this CDN said it.
    pub fn read(&self, value: &[u8], method: &str, host: &[u8], target: &[u8]) -> Result<Asking, Forged> {
        Asking::read(value, &self.key, method, host, target, clock::wall())
    }

    /// The log that is followed, by when it was made, as all who follow it know that; 0: none.
    pub fn log(&self) -> u64 {
        self.log.made()
    }

    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// The nodes that are asked for something before an origin is, this one among them.
    pub fn path(self: &Arc<Self>, shield: Option<&str>, key: u64) -> Vec<Hop> {
        let tiers = self.tiers(shield);
        let (mut hops, mut asked_as) = (Vec::new(), None);
        while let Some((pop, role)) = tiers.next(asked_as) {
            hops.push(Hop { role, pop: pop.to_owned(), node: tiers.choose(pop, key, &[]) });
            asked_as = Some(role);
        }
        hops
    }

    /// Who is asked for what is of one site. `shield`: the PoP between its edges and its origins.
    pub fn tiers(self: &Arc<Self>, shield: Option<&str>) -> Arc<SiteTiers> {
        Arc::new(SiteTiers { fleet: self.clone(), shield: shield.map(str::to_owned) })
    }
}

/// A node on the way to an origin.
pub struct Hop {
    pub role: Role,
    pub pop: String,
    /// None: no node of the PoP can be asked now.
    pub node: Option<Arc<Node>>,
}

/// The tiers of a site.
pub struct SiteTiers {
    fleet: Arc<Fleet>,
    shield: Option<String>,
}

#[async_trait]
impl Tiers for SiteTiers {
    fn next(&self, asked_as: Option<Role>) -> Option<(&str, Role)> {
        let shield = self.shield.as_deref().filter(|shield| *shield != self.fleet.own.pop);
        match asked_as {
            None => Some((&self.fleet.own.pop, Role::Owner)),
            Some(Role::Owner) => shield.map(|shield| (shield, Role::Shield)),
            Some(Role::Shield) => None,
        }
    }

    fn choose(&self, pop: &str, key: u64, tried: &[usize]) -> Option<Arc<Node>> {
        self.fleet.roster.load().choose(pop, key, tried).cloned()
    }

    fn asking(&self, role: Role, through: &Through, request: &OriginRequest) -> Asking {
        Asking {
            node: self.fleet.own.id.clone(),
            role,
            at: clock::wall(),
            // After the position was read: a log that is adopted meanwhile has another generation.
            log: self.fleet.log.made(),
            seq: through.began.seq(),
            secure: through.secure,
            client: request.client,
        }
    }

    fn sign(&self, asking: &Asking, request: &OriginRequest, out: &mut Vec<u8>) {
        asking.write(&self.fleet.key, request.method, &request.host, &request.target, out);
    }

    async fn patience(&self, waits: bool) {
        tokio::time::sleep(if waits { SAYS_AGAIN_WITHIN } else { SAYS_WITHIN }).await;
    }

    fn told(&self, role: Role, outcome: &'static str) {
        self.fleet.origins.metrics.node_request(role.as_str(), outcome);
    }
}
