//! Follows the notes of certificates on every node, and does what is to be done on the one that holds the lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use tokio::sync::{Semaphore, watch};

use super::issuer::{Issuer, Job};
use super::kept::open;
use super::lease::Watch;
use super::notes::{self, CERTIFICATE, CHALLENGE, CLAIM, Claim, Held, LEASE, Lease, Shown, State, WANTED, key};
use super::plan::{Step, step};
use super::{HostView, View};
use crate::clock;
use crate::front::tls::certificates::end;
use crate::front::tls::issued::{Challenge, Issued, IssuedCertificate};
use crate::front::tls::leaf::Leaf;
use crate::origin::group::Origins;
use crate::purge::nats::board::Board;

/// How often what is to be done is looked at, when nothing happens.
const TICK: Duration = Duration::from_secs(1);
const ORDERS_AT_ONCE: usize = 4;
const LOOKS_AT_ONCE: usize = 16;
/// How old what an authority is shown may get.
const SHOWN_FOR_MS: u64 = 600_000;
/// How long a client is believed to wait.
const WANTED_FOR_MS: u64 = 60_000;
/// How long what ended is kept, of a host that no site has any more.
const KEPT_AFTER_MS: u64 = 7 * 24 * 3_600_000;

/// What a keeper is made of.
pub struct Parts {
    pub board: Arc<Board>,
    pub issued: Arc<Issued>,
    pub origins: Arc<Origins>,
    pub issuer: Arc<Issuer>,
    /// What operators call this node.
    pub node: String,
    /// Of this process alone.
    pub holder: String,
}

/// A certificate that is known here.
struct Known {
    held: Held,
    /// None: it cannot be opened here.
    opened: Option<(Leaf, Arc<CertifiedKey>)>,
}

/// A host that something is being done for, until that is over.
struct Busy {
    hosts: Arc<Mutex<HashSet<String>>>,
    host: String,
}

impl Busy {
    fn new(hosts: &Arc<Mutex<HashSet<String>>>, host: &str) -> Self {
        hosts.lock().insert(host.to_owned());
        Self { hosts: hosts.clone(), host: host.to_owned() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.hosts.lock().remove(&self.host);
    }
}

struct Keeper {
    parts: Parts,
    view: Arc<View>,
    certificates: HashMap<String, Known>,
    claims: HashMap<String, (u64, Claim)>,
    /// Hosts that clients wait for, and since when.
    wanted: HashMap<String, u64>,
    lease: Watch,
    /// Hosts that something is being done for.
    busy: Arc<Mutex<HashSet<String>>>,
    orders: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

/// Follows the notes as long as the runtime lasts. `views`: what the configuration in force says.
pub async fn keep(parts: Parts, mut views: watch::Receiver<Arc<View>>) {
    let view = views.borrow_and_update().clone();
    let mut keeper = Keeper {
        parts,
        view,
        certificates: HashMap::new(),
        claims: HashMap::new(),
        wanted: HashMap::new(),
        lease: Watch::default(),
        busy: Arc::default(),
        orders: Arc::new(Semaphore::new(ORDERS_AT_ONCE)),
        looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (board, issued) = (keeper.parts.board.clone(), keeper.parts.issued.clone());
        tokio::select! {
            () = board.changed() => {}
            () = issued.asked() => keeper.tell_wanted().await,
            changed = views.changed() => match changed {
                Ok(()) => {
                    keeper.view = views.borrow_and_update().clone();
                    keeper.apply_all();
                }
                Err(_) => return,
            },
            _ = tick.tick() => {}
        }
        keeper.hear();
        keeper.lead().await;
    }
}

impl Keeper {
    /// Takes in what was put on the board, or taken away.
    fn hear(&mut self) {
        let changed = self.parts.board.take_changed();
        let (mut has_challenges, mut demand) = (false, false);
        for name in changed {
            let note = self.parts.board.get(&name);
            if let Some(rest) = name.strip_prefix(CERTIFICATE) {
                let host = notes::host(rest);
                match note.and_then(|note| notes::read::<Held>(&note.value)) {
                    Some(held) => {
                        let opened = self.open(&host, &held);
                        self.certificates.insert(host.clone(), Known { held, opened });
                    }
                    None => _ = self.certificates.remove(&host),
                }
                self.apply(&host);
                demand = true;
            } else if let Some(rest) = name.strip_prefix(CLAIM) {
                let host = notes::host(rest);
                match note.and_then(|note| Some((note.revision, notes::read(&note.value)?))) {
                    Some(claim) => _ = self.claims.insert(host.clone(), claim),
                    None => _ = self.claims.remove(&host),
                }
                self.apply(&host);
                demand = true;
            } else if let Some(rest) = name.strip_prefix(WANTED) {
                let host = notes::host(rest);
                match note.and_then(|note| notes::read::<u64>(&note.value)) {
                    Some(at) => _ = self.wanted.insert(host, at),
                    None => _ = self.wanted.remove(&host),
                }
            } else if name.starts_with(CHALLENGE) {
                has_challenges = true;
            }
        }
        if has_challenges {
            self.apply_challenges();
        }
        if demand {
            self.apply_demand();
        }
    }

    fn open(&self, host: &str, held: &Held) -> Option<(Leaf, Arc<CertifiedKey>)> {
        let store_key = self.view.key.as_ref()?;
        let opened = open(host, held, store_key);
        opened.inspect_err(|why| tracing::error!(host, why, "a certificate that was issued cannot be used")).ok()
    }

    /// What the configuration has changed may concern every host.
    fn apply_all(&mut self) {
        let unopened = self.certificates.iter().filter(|(_, known)| known.opened.is_none());
        let unopened: Vec<(String, Held)> = unopened.map(|(host, known)| (host.clone(), known.held.clone())).collect();
        for (host, held) in unopened {
            let opened = self.open(&host, &held);
            self.certificates.insert(host, Known { held, opened });
        }
        let hosts: Vec<String> = self.certificates.keys().cloned().collect();
        hosts.iter().for_each(|host| self.apply(host));
        self.apply_demand();
    }

    /// Handshakes for a host are done with what is known now.
    fn apply(&self, host: &str) {
        let is_revoked = self.claims.get(host).is_some_and(|(_, claim)| claim.state == State::Revoked);
        let view = self.view.hosts.get(host).filter(|_| !is_revoked);
        let known = self.certificates.get(host).and_then(|known| known.opened.as_ref());
        match view.zip(known) {
            Some((view, (leaf, key))) => {
                let (leaf, key) = (leaf.clone(), key.clone());
                end(&leaf, &view.site).iter().for_each(|end| self.parts.origins.metrics.certificate(end));
                self.parts.issued.put(host, IssuedCertificate { site: view.site.clone(), leaf, key });
            }
            None => self.parts.issued.remove(host),
        }
    }

    /// Clients may wait for the certificates of these.
    fn apply_demand(&self) {
        let proven = self.claims.iter().filter(|(host, (_, claim))| {
            claim.state == State::Proven
                && !self.certificates.contains_key(*host)
                && self.view.hosts.get(*host).is_some_and(|view| view.site == claim.site)
        });
        let hosts = match &self.view.acme {
            Some(_) => proven.map(|(host, _)| host.clone()).collect(),
            None => HashSet::default(),
        };
        self.parts.issued.may_be_wanted(hosts);
    }

    fn apply_challenges(&self) {
        let now = clock::wall().0;
        let shown = self.parts.board.below(CHALLENGE).into_iter().filter_map(|(rest, note)| {
            let Shown { token, key_authorization, at } = notes::read(&note.value)?;
            let is_fresh = now.saturating_sub(at) < SHOWN_FOR_MS;
            is_fresh.then(|| (notes::host(&rest), Challenge { token, key_authorization }))
        });
        self.parts.issued.answer_with(shown);
    }

    /// Tells the node that orders what clients wait for here.
    async fn tell_wanted(&self) {
        for host in self.parts.issued.take_wanted() {
            let at = notes::write(&clock::wall().0);
            if let Err(error) = self.parts.board.put(&key(WANTED, &host), at, None).await {
                tracing::warn!(host, %error, "nobody is told that a client waits for a certificate");
            }
        }
    }

    /// Takes the lease if it is nobody's, and does what is to be done if it is this node's.
    async fn lead(&mut self) {
        let board = &self.parts.board;
        if !self.view.looks_after_hosts() || !board.is_complete() {
            return;
        }
        let now = clock::boot_ms();
        let held_before = self.lease.holds(board.get(LEASE).map(|note| note.revision), now);
        let current = board.get(LEASE);
        if let Some(over) = self.lease.to_write_over(current.as_ref().map(|note| note.revision), now) {
            let count = current.and_then(|note| notes::read::<Lease>(&note.value)).map_or(0, |lease| lease.count);
            let lease = Lease {
                holder: self.parts.holder.clone(),
                node: self.parts.node.clone(),
                count: count.wrapping_add(1),
            };
            if let Ok(revision) = board.put(LEASE, notes::write(&lease), Some(over)).await {
                self.lease.written(revision, now);
                if !held_before {
                    tracing::info!("certificates are ordered by this node");
                }
            }
        }
        if self.lease.holds(board.get(LEASE).map(|note| note.revision), clock::boot_ms()) {
            self.work();
            self.clean().await;
        }
    }

    fn work(&mut self) {
        let ordering = self.view.acme.as_ref().zip(self.view.key.as_ref());
        let issue = ordering.map(|(acme, _)| acme.issue).unwrap_or_default();
        let now = clock::wall().0;
        self.wanted.retain(|_, at| now.saturating_sub(*at) < WANTED_FOR_MS);
        for (host, view) in &self.view.hosts {
            // Only a record can show that all names below one are ours.
            let can_order = !view.is_covered
                && ordering.is_some_and(|(acme, _)| !host.starts_with("*.") || acme.dns_hook.is_some());
            let claim = self.claims.get(host);
            let held = self.certificates.get(host).map(|known| &known.held);
            // What was issued by another authority is ordered anew.
            let held = held.filter(|held| ordering.is_some_and(|(acme, _)| held.directory == acme.directory));
            let wanted = self.wanted.contains_key(host);
            let to_do = step(&view.site, claim.map(|(_, claim)| claim), held, issue, wanted, now);
            if to_do == Step::Nothing || (to_do == Step::Order && !can_order) || self.busy.lock().contains(host) {
                continue;
            }
            let room = if to_do == Step::Order { &self.orders } else { &self.looks };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let job = Job {
                host: host.clone(),
                view: HostView::clone(view),
                ordering: ordering.map(|(acme, store_key)| (acme.clone(), store_key.clone())),
                addresses: self.view.addresses.clone(),
                claim: claim.cloned(),
            };
            let busy = Busy::new(&self.busy, host);
            let (issuer, metrics) = (self.parts.issuer.clone(), self.parts.origins.metrics.clone());
            tokio::spawn(async move {
                match to_do {
                    Step::Claim => issuer.claim(job).await,
                    Step::Prove => _ = issuer.prove(&job).await,
                    Step::Order => metrics.certificate_order(issuer.order(&job).await),
                    Step::Nothing => {}
                }
                drop((busy, permit));
            });
        }
    }

    /// Takes away what is of no use any more.
    async fn clean(&self) {
        let now = clock::wall().0;
        for (rest, note) in self.parts.board.below(CHALLENGE) {
            let is_old = |shown: Shown| now.saturating_sub(shown.at) >= SHOWN_FOR_MS;
            if notes::read(&note.value).is_none_or(is_old) {
                let _ = self.parts.board.remove(&format!("{CHALLENGE}{rest}")).await;
            }
        }
        let is_over = |(host, known): &(&String, &Known)| {
            !self.view.hosts.contains_key(*host) && now > known.held.ends.saturating_add(KEPT_AFTER_MS)
        };
        for (host, _) in self.certificates.iter().filter(is_over) {
            for kind in [CERTIFICATE, CLAIM] {
                let _ = self.parts.board.remove(&key(kind, host)).await;
            }
        }
    }
}
