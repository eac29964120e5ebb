//! Follows the notes of certificates on every node, and does what is to be done on the one that holds the lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, Semaphore, watch};

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
const ENTRIES_AT_ONCE: usize = 32;
/// How old what an authority is shown may get.
const SHOWN_FOR_MS: u64 = 600_000;
/// How long a client is believed to wait.
const WANTED_FOR_MS: u64 = 60_000;
/// For how long others are not told again that clients wait for a host, and for how many hosts in that time.
const TOLD_FOR_MS: u64 = 10_000;
const TOLD_MAX: usize = 200;
/// How often it is looked at what is to be done, at most.
const WORK_EVERY_MS: u64 = 100;
const CLEAN_EVERY_MS: u64 = 10_000;
const AT_ONCE_FOR_A_SITE: usize = 4;
const CLEANED_AT_ONCE: usize = 16;
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
    lease: Arc<Mutex<Watch>>,
    /// The lease is being written.
    writing: Arc<AtomicBool>,
    /// Hosts for which others were told that clients wait, and when on the clock of leases.
    told: HashMap<String, u64>,
    /// When it was looked at what is to be done, on that clock.
    worked: u64,
    cleaned: u64,
    /// Hosts that are to be looked at again at a time, because their last order failed.
    later: Vec<(u64, String)>,
    /// There is room for something else to be done.
    room: Arc<Notify>,
    /// Hosts that something is being done for.
    busy: Arc<Mutex<HashSet<String>>>,
    orders: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    entries: Arc<Semaphore>,
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
        lease: Arc::default(),
        writing: Arc::default(),
        told: HashMap::new(),
        worked: 0,
        cleaned: 0,
        later: Vec::new(),
        room: Arc::default(),
        busy: Arc::default(),
        orders: Arc::new(Semaphore::new(ORDERS_AT_ONCE)),
        looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
        entries: Arc::new(Semaphore::new(ENTRIES_AT_ONCE)),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (board, issued, room) = (keeper.parts.board.clone(), keeper.parts.issued.clone(), keeper.room.clone());
        tokio::select! {
            () = board.changed() => {}
            () = room.notified() => {}
            () = issued.asked() => keeper.tell_wanted(),
            changed = views.changed() => match changed {
                Ok(()) => {
                    keeper.view = views.borrow_and_update().clone();
                    keeper.apply_all();
                }
                Err(_) => return,
            },
            _ = tick.tick() => keeper.apply_later(),
        }
        keeper.hear();
        keeper.lead();
    }
}

impl Keeper {
    /// Takes in what was put on the board, or taken away.
    fn hear(&mut self) {
        let changed = self.parts.board.take_changed();
        let mut has_challenges = false;
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
            } else if let Some(rest) = name.strip_prefix(CLAIM) {
                let host = notes::host(rest);
                match note.and_then(|note| Some((note.revision, notes::read(&note.value)?))) {
                    Some(claim) => self.hear_claim(&host, claim),
                    None => _ = self.claims.remove(&host),
                }
                self.apply(&host);
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
    }

    /// What another node says of a host. A hub that lost its store may have it from one that had not heard of a revocation.
    fn hear_claim(&mut self, host: &str, (revision, claim): (u64, Claim)) {
        let before = self.claims.insert(host.to_owned(), (revision, claim.clone()));
        let revoked = before.map(|(_, before)| before).filter(|before| before.state == State::Revoked);
        let Some(revoked) = revoked.filter(|before| claim.state != State::Revoked && claim.since < before.since) else {
            return;
        };
        self.claims.insert(host.to_owned(), (revision, revoked.clone()));
        let (board, name) = (self.parts.board.clone(), key(CLAIM, host));
        // If another node is faster, it says the same.
        tokio::spawn(async move { board.put(&name, notes::write(&revoked), Some(revision)).await });
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
        self.parts.issued.keep_owners(|name| self.view.hosts.contains_key(name));
        self.later.clear();
        let hosts = self.certificates.keys().chain(self.claims.keys()).chain(self.view.hosts.keys());
        let hosts: HashSet<String> = hosts.cloned().collect();
        hosts.iter().for_each(|host| self.apply(host));
    }

    /// Handshakes for a host are done with what is known now.
    fn apply(&mut self, host: &str) {
        let issued = self.parts.issued.clone();
        let claim = self.claims.get(host).map(|(_, claim)| claim);
        let is_revoked = claim.is_some_and(|claim| claim.state == State::Revoked);
        let view = self.view.hosts.get(host);
        if let Some(view) = view.filter(|_| !host.starts_with("*.")) {
            issued.own(host, Some(view.site.as_str()).filter(|_| !is_revoked));
        }
        let known = self.certificates.get(host);
        // What was issued for a host of another site is nothing to this one, which may not have the name.
        let is_its = |view: &&HostView| known.is_some_and(|known| known.held.site == view.site);
        let used = view.filter(is_its).filter(|_| !is_revoked);
        match used.zip(known.and_then(|known| known.opened.as_ref())) {
            Some((view, (leaf, key))) => {
                let (leaf, key) = (leaf.clone(), key.clone());
                end(&leaf, &view.site).iter().for_each(|end| self.parts.origins.metrics.certificate(end));
                issued.put(host, IssuedCertificate { site: view.site.clone(), leaf, key });
                // Should there be none again, others are told at once.
                self.told.remove(host);
            }
            None => issued.remove(host),
        }
        // Clients may wait for it, unless the last order has failed.
        let now = clock::wall().0;
        let is_proven = |claim: &&Claim| claim.state == State::Proven && claim.not_before <= now;
        let is_of = |claim: &Claim| view.is_some_and(|view| view.site == claim.site && !view.is_covered);
        let may = self.view.acme.is_some() && used.is_none() && claim.filter(is_proven).is_some_and(is_of);
        issued.may_be_wanted(host, may);
        if let Some(claim) = claim.filter(|claim| claim.not_before > now) {
            self.later.push((claim.not_before, host.to_owned()));
        }
    }

    /// Looks again at hosts whose time has come.
    fn apply_later(&mut self) {
        let now = clock::wall().0;
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(u64, String)> = due;
        due.iter().for_each(|(_, host)| self.apply(host));
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

    /// Tells the node that orders what clients wait for here: not again for a while, however many come.
    fn tell_wanted(&mut self) {
        let now = clock::boot_ms();
        self.told.retain(|_, at| now.saturating_sub(*at) < TOLD_FOR_MS);
        for host in self.parts.issued.take_wanted() {
            if self.told.len() >= TOLD_MAX || self.told.contains_key(&host) {
                continue;
            }
            self.told.insert(host.clone(), now);
            let at = clock::wall().0;
            self.wanted.insert(host.clone(), at);
            let board = self.parts.board.clone();
            tokio::spawn(async move {
                if let Err(error) = board.put(&key(WANTED, &host), notes::write(&at), None).await {
                    tracing::warn!(host, %error, "nobody is told that a client waits for a certificate");
                }
            });
        }
    }

    /// Takes the lease if it is nobody's, and does what is to be done if it is this node's.
    fn lead(&mut self) {
        let board = &self.parts.board;
        if !self.view.looks_after_hosts() || !board.is_complete() {
            return;
        }
        let now = clock::boot_ms();
        let current = board.get(LEASE);
        let revision = current.as_ref().map(|note| note.revision);
        let over = self.lease.lock().to_write_over(revision, now);
        if let Some(over) = over.filter(|_| !self.writing.swap(true, Ordering::AcqRel)) {
            let count = current.and_then(|note| notes::read::<Lease>(&note.value)).map_or(0, |lease| lease.count);
            let (holder, node) = (self.parts.holder.clone(), self.parts.node.clone());
            let lease = Lease { holder, node, count: count.wrapping_add(1) };
            let (board, watch, writing, room) =
                (board.clone(), self.lease.clone(), self.writing.clone(), self.room.clone());
            tokio::spawn(async move {
                if let Ok(written) = board.put(LEASE, notes::write(&lease), Some(over)).await {
                    let is_new = !watch.lock().has_written(over);
                    watch.lock().written(written, now);
                    if is_new {
                        tracing::info!("certificates are ordered by this node");
                    }
                }
                writing.store(false, Ordering::Release);
                room.notify_one();
            });
        }
        let is_time = now.saturating_sub(self.worked) >= WORK_EVERY_MS;
        let holds = self.lease.lock().holds(revision, now);
        if holds && is_time {
            self.worked = now;
            self.work();
        }
        if holds && now.saturating_sub(self.cleaned) >= CLEAN_EVERY_MS {
            self.cleaned = now;
            self.clean();
        }
    }

    fn work(&mut self) {
        let ordering = self.view.acme.as_ref().zip(self.view.key.as_ref());
        let issue = ordering.map(|(acme, _)| acme.issue).unwrap_or_default();
        let now = clock::wall().0;
        self.wanted.retain(|_, at| now.saturating_sub(*at) < WANTED_FOR_MS);
        let mut due = Vec::new();
        // What cannot be opened is ordered anew, if it is not this node that has the wrong key.
        let has_the_key = ordering.is_some_and(|(_, store_key)| self.parts.issuer.has_the_key(store_key));
        for (host, view) in &self.view.hosts {
            // Only a record can show that all names below one are ours.
            let can_order = !view.is_covered
                && ordering.is_some_and(|(acme, _)| !host.starts_with("*.") || acme.dns_hook.is_some());
            let claim = self.claims.get(host);
            let known = self.certificates.get(host);
            let held = known.filter(|known| known.opened.is_some() || !has_the_key).map(|known| &known.held);
            // What was issued by another authority, or for another site, is ordered anew.
            let is_of = |held: &&Held| {
                held.site == view.site && ordering.is_some_and(|(acme, _)| held.directory == acme.directory)
            };
            let held = held.filter(is_of);
            let wanted = self.wanted.contains_key(host);
            let to_do = step(&view.site, claim.map(|(_, claim)| claim), held, issue, wanted, now);
            if to_do == Step::Nothing || (to_do == Step::Order && !can_order) || self.busy.lock().contains(host) {
                continue;
            }
            // Whoever waits comes first, then what would end.
            due.push(((!wanted, held.is_none()), to_do, host, view, claim));
        }
        due.sort_by_key(|(first, ..)| *first);
        let mut looks: HashMap<&str, usize> = HashMap::new();
        let most = ordering.map_or(0, |(acme, _)| acme.orders_per_hour);
        let is_full = |is_new: bool| self.parts.issuer.is_full(most, is_new);
        for ((_, is_new), to_do, host, view, claim) in due {
            // One site, whose name servers may not answer, leaves room for others; what cannot be ordered now is not looked at.
            let theirs = looks.entry(&view.site).or_default();
            if *theirs >= AT_ONCE_FOR_A_SITE || (to_do == Step::Order && is_full(is_new)) {
                continue;
            }
            let room = match to_do {
                Step::Order => &self.orders,
                Step::Claim => &self.entries,
                _ => &self.looks,
            };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            *theirs += usize::from(to_do != Step::Claim);
            let job = Job {
                host: host.clone(),
                view: HostView::clone(view),
                ordering: ordering.map(|(acme, store_key)| (acme.clone(), store_key.clone())),
                addresses: self.view.addresses.clone(),
                claim: claim.cloned(),
                is_new,
            };
            let busy = Busy::new(&self.busy, host);
            let (issuer, metrics) = (self.parts.issuer.clone(), self.parts.origins.metrics.clone());
            let more = self.room.clone();
            tokio::spawn(async move {
                match to_do {
                    Step::Claim => issuer.claim(job).await,
                    Step::Prove => _ = issuer.prove(&job).await,
                    Step::Order => metrics.certificate_order(issuer.order(&job).await),
                    Step::Nothing => {}
                }
                drop((busy, permit));
                more.notify_one();
            });
        }
    }

    /// Takes away what is of no use any more.
    fn clean(&self) {
        let now = clock::wall().0;
        let board = &self.parts.board;
        let is_old = |at: u64, most: u64| now.saturating_sub(at) >= most;
        let challenges = board
            .below(CHALLENGE)
            .into_iter()
            .filter(|(_, note)| notes::read::<Shown>(&note.value).is_none_or(|shown| is_old(shown.at, SHOWN_FOR_MS)));
        let wanted = board
            .below(WANTED)
            .into_iter()
            .filter(|(_, note)| notes::read::<u64>(&note.value).is_none_or(|at| is_old(at, WANTED_FOR_MS)));
        let mut over: Vec<String> = challenges.map(|(rest, _)| format!("{CHALLENGE}{rest}")).collect();
        over.extend(wanted.map(|(rest, _)| format!("{WANTED}{rest}")));
        let is_no_host = |host: &String| !self.view.hosts.contains_key(host);
        for (host, (_, claim)) in self.claims.iter().filter(|(host, _)| is_no_host(host)) {
            let ends = self.certificates.get(host).map_or(claim.since, |known| known.held.ends);
            if claim.state != State::Revoked && is_old(ends, KEPT_AFTER_MS) {
                over.extend([key(CERTIFICATE, host), key(CLAIM, host)]);
            }
        }
        over.truncate(CLEANED_AT_ONCE);
        if !over.is_empty() {
            let board = board.clone();
            tokio::spawn(async move {
                for name in over {
                    let _ = board.remove(&name).await;
                }
            });
        }
    }
}
