//! The log that many nodes share: a stream of NATS JetStream, of which each node is a client.
//!
//! A purge is acknowledged when the hub has it and this node's disk has it. Without the hub it waits on the disk. Every node applies
//! the records in their order and keeps how far it is; what it may trust of what it stored is decided by a lease: it is *current*
//! while the hub's answer to its own question, what the last record is, is younger than [`LEASE`], and that much is applied.
//!
//! - [`verify`]: whether a hub's log is the one that was followed. Pure.
//! - [`members`]: the nodes, as they say of themselves. Pure.
//! - [`record`]: records as the hub has them. Pure.
//! - [`streams`]: what a hub keeps, and how it is set up.
//! - [`outbox`]: purges that were asked for here.
//! - [`writer`]: the thread that applies and writes.
//! - [`link`]: connections. [`session`]: what happens on one.
//! - [`presence`]: what a node says of itself that others decide.
//! - [`documents`]: the configuration many nodes share. Pure. [`shelf`]: its documents as this node has heard them.
//! - [`board`]: what else they know by name, such as certificates.

pub mod board;
pub mod documents;
pub mod link;
pub mod members;
pub mod outbox;
pub mod presence;
pub mod record;
pub mod session;
pub mod shelf;
pub mod streams;
pub mod verify;
pub mod writer;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot, watch};
use ulid::Ulid;

use self::link::{Hub, Link};
use self::members::{Announcement, Heard, Members};
use self::presence::Presence;
use self::session::End;
use self::shelf::Shelf;
use self::writer::{Seen, Work, Writer};
use super::kept::{self, Kept, Shared as File};
use super::ledger::Ledger;
use super::log::{LogError, Member, OpenError, PurgeLog, Purged, Standing, Wait};
use super::position::LogPosition;
use super::record::PurgeRecord;
use crate::clock;
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;
use crate::telemetry::metrics::Metrics;

/// How long a node may take itself for current after it asked for the last record.
pub const LEASE: Duration = Duration::from_secs(3);
pub const LEASE_MS: u64 = 3_000;
const _: () = assert!(LEASE.as_millis() == LEASE_MS as u128);
/// How often it asks: two answers may be late.
const ASK_EVERY: Duration = Duration::from_millis(900);
const _: () = assert!(ASK_EVERY.as_millis() * 3 < LEASE_MS as u128);
/// For how long a node may take itself for current after it said what it is: who has not been heard for longer, and its lease,
/// need not be waited for.
const PRESENT_MS: u64 = 10_000;
/// How much longer than its lease a node is believed to serve: what two clocks can differ by meanwhile, and more.
const MARGIN_MS: u64 = 100;
/// Things that wait for the thread that writes.
const WAITING_MAX: usize = 8192;
/// How long a node that ends takes to say so.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);
/// How long what nodes said may take to be heard, until it is looked again how far they are.
const HEARD_WITHIN: Duration = Duration::from_millis(200);
/// Answers of the hub that are remembered: for how long something has been in the log.
const ANSWERS_MAX: usize = 16;
const FILE: &str = "purge-nats.redb";

/// What a node is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeName {
    /// The same after every start.
    pub id: String,
    /// What operators call it.
    pub name: String,
    /// The point of presence it stands in; empty: it says none.
    pub pop: String,
    /// The URL by which other nodes reach it; empty: they do not.
    pub address: String,
}

/// The log.
pub struct NatsLog {
    shared: Arc<Shared>,
    file: File,
    created: UnixMs,
    runtime: Mutex<Option<Runtime>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the log, its sessions and whoever waits share.
struct Shared {
    node: NodeName,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    presence: Arc<Presence>,
    shelf: Arc<Shelf>,
    seen: Arc<Seen>,
    work: Mutex<Option<SyncSender<Work>>>,
    /// The connection, while its log is followed.
    link: ArcSwapOption<Link>,
    /// The last record there is, as far as is known.
    last: AtomicU64,
    members: Mutex<Members>,
    /// Purges somebody waits for, and the nodes that have said that they have applied them.
    waited: Mutex<HashMap<Ulid, HashSet<String>>>,
    /// Until when the thread of the sessions lets records gather, on the clock of leases.
    naps: Arc<AtomicU64>,
    /// Something was heard of a node.
    heard: Notify,
    /// The last message about a node that was heard on this connection.
    nodes_heard: watch::Sender<u64>,
    /// When all that nodes had said until then had been heard, on the clock of leases.
    nodes_known: AtomicU64,
    /// When this node last said what it is and the hub has it, on the same clock; 0: not on this connection.
    announced: watch::Sender<u64>,
    /// There is something to say of this one.
    announce_soon: Notify,
    /// Purges that are on their way to the hub for the first time.
    sending: Mutex<HashSet<Ulid>>,
    /// What the last record was, and when that was asked: the earliest first.
    answers: Mutex<VecDeque<(u64, u64)>>,
}

impl NatsLog {
    /// Opens what is kept in a directory, brings the ledger up to it, and begins to look for the hub. `generation`: of a log that
    /// is followed for the first time; later than any before it. Until the hub has been heard the node is isolated.
    ///
    /// # Errors
    /// The directory or the file cannot be used.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own, and there is one caller")]
    pub fn open(
        directory: Option<&Path>,
        node: NodeName,
        hub: Hub,
        ledger: Arc<Ledger>,
        keyer: Keyer,
        now: UnixMs,
        generation: u16,
        presence: Arc<Presence>,
        shelf: Arc<Shelf>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let kept = Kept::open(directory, FILE, ledger.clone(), keyer, now, generation)?;
        let (file, created) = (kept.shared.clone(), kept.created());
        let path = kept.path().map(Path::to_owned).unwrap_or_default();
        let writer = Writer::new(kept).map_err(|error| OpenError::Unusable(path, error))?;
        let seen = writer.seen.clone();
        ledger.vouch(clock::boot_ms());
        let (work, asked) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new().name("purge-log".into()).spawn(move || writer.run(&asked));
        let writer = Mutex::new(Some(thread.map_err(OpenError::Thread)?));
        let naps = Arc::new(AtomicU64::new(0));
        let runtime = session::runtime(naps.clone()).map_err(OpenError::Thread)?;
        let shared = Arc::new(Shared {
            node,
            ledger,
            metrics,
            presence,
            shelf,
            seen,
            work: Mutex::new(Some(work)),
            link: ArcSwapOption::empty(),
            last: AtomicU64::new(0),
            members: Mutex::default(),
            waited: Mutex::default(),
            naps,
            heard: Notify::new(),
            nodes_heard: watch::Sender::new(0),
            nodes_known: AtomicU64::new(0),
            announced: watch::Sender::new(0),
            announce_soon: Notify::new(),
            sending: Mutex::default(),
            answers: Mutex::default(),
        });
        runtime.spawn(follow(shared.clone(), Arc::new(hub)));
        Ok(Self { shared, file, created, runtime: Mutex::new(Some(runtime)), writer })
    }

    /// When what is kept was made: another one has another time.
    pub fn created(&self) -> UnixMs {
        self.created
    }

    /// Puts the file out of the way; see the local log.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn set_aside(directory: &Path, now: UnixMs) -> std::io::Result<PathBuf> {
        kept::set_aside(directory, FILE, now)
    }
}

/// Follows the log of a hub, one connection after the other.
async fn follow(shared: Arc<Shared>, hub: Arc<Hub>) {
    let mut hole = false;
    loop {
        let link = Link::dial(&hub).await;
        let end = shared.session(&link, hole).await;
        tracing::warn!(why = %end, "the purge log is not followed any more; it is tried again");
        hole = matches!(end, End::Hole);
        if matches!(end, End::Closed) {
            return;
        }
        if !matches!(end, End::Gone) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Shared {
    fn send(&self, work: Work) -> Result<(), End> {
        let sender = self.work.lock().clone().ok_or(End::Closed)?;
        // It may wait for the disk: sessions run on a thread that has nothing else to do.
        sender.send(work).map_err(|_| End::Closed)
    }

    /// Says that this node is no more, so that nobody waits for it. Until its process has ended it may be asked for something still:
    /// so it first ceases to trust what it has stored. One that serves sites all the same says nothing.
    async fn say_goodbye(&self) {
        let link = self.link.swap(None);
        self.ledger.end();
        self.presence.end();
        let Some(link) = link.filter(|_| self.presence.serves().is_empty()) else { return };
        let (id, name) = (self.node.id.clone(), self.node.name.clone());
        let said = Announcement { v: 1, id, name, gone: true, ..Announcement::default() };
        let Ok(text) = serde_json::to_vec(&said) else { return };
        if let Ok(sent) = link.context.publish(streams::node_subject(&self.node.id), text.into()).await {
            // Without it receipts wait for the lease to run out.
            let _ = sent.await;
        }
    }

    /// Notes that the last record was this one when that was asked.
    fn known_at(&self, asked: u64, last: u64) {
        let mut answers = self.answers.lock();
        // Of several questions with one answer the first says most.
        if answers.back().is_none_or(|(_, known)| *known != last) {
            answers.push_back((asked, last));
        }
        while answers.len() > ANSWERS_MAX {
            answers.pop_front();
        }
    }

    /// Since when at the latest a record has been in the log, on the clock of leases.
    fn in_log_since(&self, seq: u64) -> Option<u64> {
        // An answer may have been on its way for as long as a question may take.
        self.answers.lock().iter().find(|(_, last)| *last >= seq).map(|(asked, _)| asked + 1_000)
    }

    /// A purge and how far each node is with it. `since`: when it surely was in the log.
    fn purged(&self, record: PurgeRecord, seq: Option<u64>, since: Option<u64>) -> Purged {
        let now = clock::boot_ms();
        let applied = *self.seen.applied.borrow();
        let log = self.seen.followed.lock().created;
        let sites = record.sites();
        let told = self.waited.lock().get(&record.id).cloned().unwrap_or_default();
        let known = self.nodes_known.load(Ordering::Acquire);
        let members = self.members.lock();
        let standing = |heard: &Heard| {
            let said = &heard.said;
            let knows = said.log == log;
            let is_applied = seq.is_some_and(|seq| knows && said.seq >= seq) || told.contains(&said.id);
            let is_out = |since| now >= since + LEASE_MS + MARGIN_MS || (heard.is_out(now) && known >= since);
            let lease_is_out = since.is_some_and(is_out);
            Standing {
                node: said.name.clone(),
                position: knows.then(|| LogPosition::new(applied.generation(), said.seq)),
                applied: is_applied || (seq.is_some() && lease_is_out && !heard.serves_any(&sites)),
                isolated: heard.state(now) != "current" && heard.state(now) != "draining",
            }
        };
        let mut nodes: Vec<Standing> =
            members.iter(now).filter(|heard| heard.said.id != self.node.id).map(standing).collect();
        // Who has not heard of all nodes yet cannot say that all have applied it.
        let is_complete = members.complete;
        drop(members);
        nodes.insert(
            0,
            Standing {
                node: self.node.name.clone(),
                position: Some(applied),
                applied: is_complete && seq.is_some_and(|seq| applied.seq() >= seq),
                isolated: !self.ledger.is_current(|| now),
            },
        );
        let position = seq.map(|seq| LogPosition::new(applied.generation(), seq));
        Purged { record, position, nodes }
    }
}

/// Somebody waits for a purge, until this is dropped.
struct Waited<'a>(&'a Shared, Ulid);

impl<'a> Waited<'a> {
    fn new(shared: &'a Shared, id: Ulid) -> Self {
        shared.waited.lock().insert(id, HashSet::new());
        Self(shared, id)
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.0.waited.lock().remove(&self.1);
    }
}

/// A purge is on its way to the hub, until this is dropped.
struct Sending<'a>(&'a Shared, Ulid);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.lock().remove(&self.1);
    }
}

#[async_trait]
impl PurgeLog for NatsLog {
    async fn append(&self, mut record: PurgeRecord, wait: Wait) -> Result<Purged, Arc<LogError>> {
        let shared = &*self.shared;
        let random = (u128::from(random()) << 64) | u128::from(random());
        record.id = Ulid::from_parts(record.at, random);
        if shared.seen.pending.lock().len() >= outbox::PENDING_MAX {
            return Err(Arc::new(LogError::Overloaded));
        }
        let _waited = matches!(wait, Wait::All(_)).then(|| Waited::new(shared, record.id));
        shared.sending.lock().insert(record.id);
        shared.naps.store(0, Ordering::Relaxed);
        let sending = Sending(shared, record.id);
        shared.seen.pending.lock().insert(record.id, record.clone());
        let (done, kept) = oneshot::channel();
        let work = shared.work.lock().clone().ok_or_else(|| Arc::new(LogError::Closed))?;
        let sent = work.try_send(Work::Take { record: record.clone(), done }).map_err(|error| match error {
            TrySendError::Full(_) => LogError::Overloaded,
            TrySendError::Disconnected(_) => LogError::Closed,
        });
        if let Err(error) = sent {
            shared.seen.pending.lock().remove(&record.id);
            return Err(Arc::new(error));
        }
        let (kept, seq) = tokio::join!(kept, shared.publish(&record, wait != Wait::No));
        kept.unwrap_or_else(|_| Err(Arc::new(LogError::Closed)))?;
        let since = seq.map(|_| clock::boot_ms());
        if let Some(seq) = seq {
            shared.seen.pending.lock().remove(&record.id);
            // A full channel: it is sent again then, and known by its id.
            let _ = work.try_send(Work::Acknowledged(record.id, seq));
        }
        drop(sending);
        let Wait::All(until) = wait else { return Ok(shared.purged(record, seq, since)) };
        let mut applied = shared.seen.applied.subscribe();
        loop {
            let heard = shared.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            applied.borrow_and_update();
            let purged = shared.purged(record.clone(), seq, since);
            let left = until.saturating_duration_since(clock::monotonic());
            if purged.is_applied() || seq.is_none() || left.is_zero() {
                return Ok(purged);
            }
            if since.is_some_and(|since| shared.waits_for_the_silent(since)) {
                // Leases run out meanwhile.
                tokio::time::timeout(left.min(HEARD_WITHIN), shared.hear_all_nodes()).await.ok();
                continue;
            }
            // Also when nobody says anything: leases run out by themselves.
            let lease = since.map_or(0, |since| (since + LEASE_MS + MARGIN_MS).saturating_sub(clock::boot_ms()));
            let nap = left.min(Duration::from_millis(lease.max(10)));
            tokio::select! {
                () = &mut heard => {}
                changed = applied.changed() => if changed.is_err() { return Ok(purged) },
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn find(&self, id: Ulid) -> Result<Option<Purged>, LogError> {
        let shared = &*self.shared;
        let generation = shared.seen.applied.borrow().generation();
        let recent = shared.seen.recent.lock().get(&id).cloned();
        let found = match recent {
            Some((position, record)) => Some((record, Some(position))),
            None => {
                let read = self.file.read()?;
                let place = outbox::find_place(&read, id)?.map(LogPosition::from_u64);
                match place.map(|place| self.file.record_at(place)).transpose()?.flatten() {
                    Some(record) => Some((record, place)),
                    None => outbox::find(&read, id)?
                        .map(|(record, seq)| (record, seq.map(|seq| LogPosition::new(generation, seq)))),
                }
            }
        };
        Ok(found.map(|(record, position)| match position {
            // What was in a log before this one concerns nothing that is stored now: everybody has begun anew.
            Some(position) if position.generation() < generation => shared.purged(record, Some(0), Some(0)),
            position => {
                let seq = position.map(LogPosition::seq);
                let since = seq.and_then(|seq| shared.in_log_since(seq));
                shared.purged(record, seq, since)
            }
        }))
    }

    fn members(&self) -> Vec<Member> {
        let now = clock::boot_ms();
        let log = self.shared.seen.followed.lock().created;
        let generation = self.shared.seen.applied.borrow().generation();
        let members = self.shared.members.lock();
        let member = |heard: &Heard| Member {
            id: heard.said.id.clone(),
            name: heard.said.name.clone(),
            pop: heard.said.pop.clone(),
            address: heard.said.address.clone(),
            position: (heard.said.log == log).then(|| LogPosition::new(generation, heard.said.seq)),
            state: heard.state(now),
            version: heard.said.version.clone(),
            config: heard.said.config,
            documents: heard.said.documents.clone(),
            heard_ms: now.saturating_sub(heard.at),
        };
        members.iter(now).map(member).collect()
    }

    fn made(&self) -> u64 {
        self.shared.seen.made.load(Ordering::Acquire)
    }

    async fn forget_member(&self, name: &str) -> Result<bool, String> {
        let gone: Vec<Announcement> = self.shared.members.lock().named(name).cloned().collect();
        let link = self.shared.link.load_full().ok_or("the hub cannot be reached")?;
        for said in &gone {
            if said.id == self.shared.node.id {
                return Err("that is this node".to_owned());
            }
            let said = Announcement { gone: true, ..said.clone() };
            let text = serde_json::to_vec(&said).map_err(|error| error.to_string())?;
            let sent = link.context.publish(streams::node_subject(&said.id), text.into()).await;
            sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
            let now = clock::boot_ms();
            self.shared.members.lock().hear(said, now, now);
        }
        Ok(!gone.is_empty())
    }

    fn lag(&self) -> u64 {
        self.shared.last.load(Ordering::Acquire).saturating_sub(self.shared.seen.applied.borrow().seq())
    }

    fn pending(&self) -> u64 {
        self.shared.seen.pending.lock().len() as u64
    }

    fn close(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            // Whoever waits for every node does not have to wait for this one any more. Not waited for when the hub is away.
            runtime.block_on(async { tokio::time::timeout(GOODBYE_WITHIN, self.shared.say_goodbye()).await }).ok();
            runtime.shutdown_background();
        }
        drop(self.shared.work.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // It ends with its channel; what it could not write it has told.
            let _ = writer.join();
        }
        self.file.close();
    }
}

impl Drop for NatsLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn random() -> u64 {
    // Without randomness two purges of one millisecond could share an id; the time differs on every machine.
    getrandom::u64().unwrap_or_else(|_| clock::boot_ms())
}
