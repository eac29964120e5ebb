//! Purges and fills over several nodes: two edges of a PoP, of which one owns what is asked for, and a shield.
//!
//! Every node has a pipeline, a ledger and a generation of its own, and applies the records of one log at its own pace. They ask
//! one another as real ones do ([`Tiered`]), over a wire that is moved by the schedule.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::node::{nothing_is_left_over, pipeline, site};
use super::origin::SimulatedOrigin;
use super::schedule::{Task, give_way, run, spawn, task};
use super::{Planted, Shared, URLS, World, assert_caught, assert_kept, client, pause, seeds, stored_is_right, url_key};
use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::fleet::asking::{Asking, FIELD, Key};
use crate::fleet::roster::Node;
use crate::fleet::through::{FIRST_NUMBER, Tiered, Tiers};
use crate::origin::{Failure, Interims, OriginBody, OriginRequest, OriginResponse, Role, Through, Upstream};
use crate::pipeline::Pipeline;
use crate::pipeline::nodes::ByNode;
use crate::pipeline::request::{Forwarded, Method, Request};
use crate::purge::ledger::{Mode, Target};
use crate::purge::position::LogPosition;
use crate::purge::selector::{Named, SiteId, url_of};
use crate::routing::{GroupIndex, Site};
use crate::semantics::directives::RequestDirectives;
use crate::semantics::fields::Fields;
use crate::store::record::StoredResponse;

const EDGE: usize = 0;
const OWNER: usize = 1;
const SHIELD: usize = 2;
const NODES: usize = 3;
const CLIENTS: usize = 24;
const RECORDS: usize = 8;
const LOG: u64 = 77;

#[test]
fn no_order_of_purges_and_fills_brings_anything_back() {
    assert_kept(seeds(1000), simulate, &["Collapsed", "Hit", "Miss", "Revalidated", "Stale", "behind", "passed by"]);
}

#[test]
fn a_current_position_instead_of_the_judged_one_is_caught() {
    assert_caught(Planted::CurrentPositionSent, simulate);
}

#[test]
fn what_is_stale_and_stored_as_fresh_is_caught() {
    assert_caught(Planted::StaleStoredAsFresh, simulate);
}

/// A purge, as the log has it.
#[derive(Clone, Copy)]
struct Record {
    url: usize,
    version: u64,
    mode: Mode,
    by_tag: bool,
}

/// The log, and how far each node is.
#[derive(Default)]
struct Log {
    records: Mutex<Vec<Record>>,
    applied: Mutex<[usize; NODES]>,
}

/// One node.
struct SimulatedNode {
    number: usize,
    pipeline: Arc<Pipeline>,
    site: Arc<Site>,
    world: Shared,
    key: Key,
}

/// Who is asked by a node.
struct SimulatedTiers {
    /// Where the owner and the shield are found.
    nodes: Arc<Mutex<Vec<Arc<Node>>>>,
    own: usize,
    key: Key,
    world: Shared,
}

#[async_trait]
impl Tiers for SimulatedTiers {
    fn next(&self, asked_as: Option<Role>) -> Option<(&str, Role)> {
        match asked_as {
            None if self.own != SHIELD => Some(("edges", Role::Owner)),
            Some(Role::Owner) => Some(("shields", Role::Shield)),
            _ => None,
        }
    }

    fn choose(&self, pop: &str, _: u64, tried: &[usize]) -> Option<Arc<Node>> {
        let number = if pop == "edges" { OWNER } else { SHIELD };
        let node = self.nodes.lock().get(number).cloned()?;
        // Itself it does not ask.
        let is_own = number == self.own;
        let own = || Arc::new(Node::new("own", "own", "", FIRST_NUMBER + number, None));
        (!tried.contains(&node.number)).then(|| if is_own { own() } else { node })
    }

    fn asking(&self, role: Role, through: &Through, _: &OriginRequest) -> Asking {
        let (node, at, seq) = (format!("node-{}", self.own), clock::wall(), through.began.seq());
        Asking { node, role, at, log: LOG, seq, secure: through.secure, client: None }
    }

    fn sign(&self, asking: &Asking, request: &OriginRequest, out: &mut Vec<u8>) {
        asking.write(&self.key, request.method, &request.host, &request.target, out);
    }

    async fn patience(&self, waits: bool) {
        let times = {
            let mut world = self.world.lock();
            // Who says that it waits is believed.
            if !waits && world.rng.one_in(8) { Some(world.rng.below(30)) } else { None }
        };
        match times {
            Some(times) => give_way(times).await,
            None => std::future::pending().await,
        }
    }

    fn told(&self, _: Role, outcome: &'static str) {
        let what = if matches!(outcome, "ok" | "failed") { outcome } else { "passed by" };
        self.world.lock().seen.insert(what.into());
    }
}

/// What is on its way between two nodes.
#[derive(Default)]
struct Wire {
    state: Mutex<WireState>,
    changed: Notify,
}

#[derive(Default)]
struct WireState {
    interims: VecDeque<u16>,
    head: Option<(u16, Vec<u8>, Option<u64>)>,
    pieces: VecDeque<Bytes>,
    /// Cleanly, or broken off.
    ended: Option<bool>,
}

impl Wire {
    fn change(&self, change: impl FnOnce(&mut WireState)) {
        change(&mut self.state.lock());
        self.changed.notify_waiters();
    }

    /// What there is, once there is something.
    async fn wait<T>(&self, look: impl Fn(&mut WireState) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

/// The end of it at the node that answers.
struct Answering(Arc<Wire>);

impl Exchange for Answering {
    async fn stored(&mut self, response: &Arc<StoredResponse>, _: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        let length = BodyLength::Known(response.body_len());
        self.head(response.status(), &[dynamic, response.fields().as_bytes()], length);
        let slices: Vec<&[u8]> = response.slices(0..response.body_len()).collect();
        self.body(&slices).await?;
        self.finish().await
    }

    async fn interim(&mut self, status: u16, _: &[u8]) -> io::Result<()> {
        self.0.change(|state| state.interims.push_back(status));
        Ok(())
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength) {
        let length = match length {
            BodyLength::Known(length) => Some(length),
            BodyLength::None | BodyLength::Unknown => None,
        };
        let all = fields.concat();
        let mut fields = Vec::new();
        Fields::new(&all).lines().filter(|line| !line.is("content-length")).for_each(|line| line.write(&mut fields));
        self.0.change(|state| state.head = Some((status, fields, length)));
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.0.change(|state| state.pieces.push_back(slices.concat().into()));
        give_way(1).await;
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        give_way(1).await;
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.change(|state| state.ended = Some(true));
        Ok(())
    }

    async fn gone(&mut self) {
        std::future::pending::<()>().await;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.change(|state| _ = state.ended.get_or_insert(false));
    }
}

/// The body, at the node that asks.
struct WireBody(Arc<Wire>);

#[async_trait]
impl OriginBody for WireBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = |state: &mut WireState| match (state.pieces.pop_front(), state.ended) {
            (Some(piece), _) => Some(Ok(Some(piece))),
            (None, Some(true)) => Some(Ok(None)),
            (None, Some(false)) => Some(Err(Failure::Closed)),
            (None, None) => None,
        };
        self.0.wait(next).await
    }
}

/// A node, as others ask it.
struct Asked(Arc<Mutex<Option<Arc<SimulatedNode>>>>);

#[async_trait]
impl Upstream for Asked {
    async fn open(&self, request: &OriginRequest, interim: Interims<'_>) -> Result<OriginResponse, Failure> {
        let node = self.0.lock().clone().ok_or(Failure::Unreachable)?;
        pause(&node.world).await;
        if node.world.lock().rng.one_in(20) {
            return Err(Failure::Unreachable);
        }
        let wire = Arc::<Wire>::default();
        let (asked, answering) = (request.clone(), Answering(wire.clone()));
        spawn(Box::pin(async move { node.answer(asked, answering).await }));
        enum Next {
            Interim(u16),
            Head((u16, Vec<u8>, Option<u64>)),
            Gone,
        }
        loop {
            let next = |state: &mut WireState| {
                let interim = state.interims.pop_front().map(Next::Interim);
                let head = |state: &mut WireState| state.head.take().map(Next::Head);
                interim.or_else(|| head(state)).or_else(|| state.ended.map(|_| Next::Gone))
            };
            match wire.wait(next).await {
                Next::Interim(status) => interim(status, Vec::new()),
                Next::Gone => return Err(Failure::Closed),
                Next::Head((status, fields, length)) => {
                    let body = Box::new(WireBody(wire));
                    return Ok(OriginResponse { status, fields, length, body, retries: 0, origin: 0, judged: None });
                }
            }
        }
    }
}

impl SimulatedNode {
    /// Answers another node, as the front does.
    async fn answer(self: Arc<Self>, asked: OriginRequest, mut answering: Answering) {
        let fields = Fields::new(&asked.fields);
        let said = fields.only(FIELD).expect("nodes say who they are");
        let read = Asking::read(said, &self.key, asked.method, &asked.host, &asked.target, clock::wall());
        let asking = read.unwrap_or_else(|why| panic!("{why}"));
        let mut left = self.world.lock().rng.below(6);
        let by_node = loop {
            let applied = self.pipeline.store.ledger.applied().log;
            let behind = applied.seq() < asking.seq;
            if !behind || left == 0 {
                break ByNode { role: asking.role, log: LOG, applied, behind };
            }
            left -= 1;
            give_way(1).await;
        };
        if by_node.behind {
            self.world.lock().seen.insert("behind".into());
        }
        let url = usize::from(asked.target[1] - b'0');
        let kept = |forwarded, out: &mut Vec<u8>| {
            let dropped: &[&str] = if forwarded == Forwarded::Shared { &["if-none-match", FIELD] } else { &[FIELD] };
            fields.lines().filter(|line| !dropped.iter().any(|name| line.is(name))).for_each(|line| line.write(out));
        };
        let request = Request {
            client: None,
            disk: true,
            session: crate::origin::session::Session::default(),
            rounds: 0,
            in_full: false,
            by_node: Some(by_node),
            told: b"",
            matched: None,
            site: &self.site,
            method: Method::Get,
            scheme: "http",
            target: &asked.target,
            asked: &asked.target,
            group: GroupIndex::OWN,
            host: b"simulated",
            fields,
            key: url_key(url),
            directives: RequestDirectives::parse(fields),
            conditional: fields.contains("if-none-match"),
            range: false,
            authorization: fields.contains("authorization"),
            now: clock::wall(),
            forward: &kept,
        };
        let decision = self.pipeline.decide(&request);
        pause(&self.world).await;
        // Whoever asks sees a failure where there is no end.
        let _ = self.pipeline.answer(&request, decision, &mut answering).await;
    }

    /// Applies the records of the log, one after the other.
    async fn follow(self: Arc<Self>, log: Arc<Log>, slow: usize) {
        let ledger = &self.pipeline.store.ledger;
        let generation = ledger.applied().log.generation();
        for at in 0..RECORDS {
            let record = loop {
                let next = log.records.lock().get(at).copied();
                match next {
                    Some(record) => break record,
                    None => give_way(1).await,
                }
            };
            // One of them is slower than the others, so that it is asked by nodes that know more, or asks such.
            for _ in 0..if self.number == slow { 10 } else { 2 } {
                pause(&self.world).await;
            }
            let Record { url, version, mode, by_tag } = record;
            let site = SiteId::of("simulated");
            let target = match by_tag {
                true => Target::Key(site, ledger.name(Named::Key, format!("u{url}").as_bytes())),
                false => Target::Url(site, url_of(&url_key(url))),
            };
            let position = LogPosition::new(generation, at as u64 + 1);
            ledger.enter(position, clock::wall(), mode, &[target]);
            pause(&self.world).await;
            ledger.publish(position);
            let mut applied = log.applied.lock();
            applied[self.number] = at + 1;
            if applied.iter().all(|applied| *applied > at) {
                // The receipt.
                let mut world = self.world.lock();
                let promised = match mode {
                    Mode::Delete => &mut world.promised[url],
                    Mode::Invalidate => &mut world.softly[url],
                };
                *promised = version.max(*promised);
            }
        }
    }
}

/// Changes URLs and purges them.
async fn purge_all(log: Arc<Log>, world: Shared) {
    for _ in 0..RECORDS {
        for _ in 0..3 {
            pause(&world).await;
        }
        let mut world = world.lock();
        let url = world.rng.below(URLS);
        let mode = if world.rng.one_in(2) { Mode::Delete } else { Mode::Invalidate };
        // After a soft purge nothing old may be validated by what a careless origin calls the same.
        let before = world.versions[url];
        let version = if mode == Mode::Invalidate { (before / 8 + 1) * 8 } else { before + 1 };
        world.versions[url] = version;
        let by_tag = world.rng.one_in(2);
        log.records.lock().push(Record { url, version, mode, by_tag });
    }
}

/// One run: what was seen, or what is wrong.
fn simulate(seed: u64) -> Result<BTreeSet<String>, String> {
    let world = World::of(seed, 8);
    world.lock().is_lasting = true;
    let key = Key::new(b"of all of them");
    let asked: Vec<_> = (0..NODES).map(|_| Arc::new(Mutex::new(None))).collect();
    let placed = asked.iter().enumerate().map(|(number, asked)| {
        let asking: Arc<dyn Upstream> = Arc::new(Asked(asked.clone()));
        Arc::new(Node::new(&format!("node-{number}"), "", "", FIRST_NUMBER + number, Some(asking)))
    });
    let placed = Arc::new(Mutex::new(placed.collect::<Vec<_>>()));
    let nodes: Vec<Arc<SimulatedNode>> = (0..NODES)
        .map(|own| {
            let pipeline = pipeline(64 << 20);
            // Each has begun anew as often as it happened to.
            let generation = u16::try_from(own + 2).unwrap_or(9);
            pipeline.store.ledger.restore(LogPosition::new(generation, 0), LogPosition::default());
            let tiers = SimulatedTiers { nodes: placed.clone(), own, key: key.clone(), world: world.clone() };
            let origins: Arc<dyn Upstream> = Arc::new(SimulatedOrigin(world.clone()));
            let upstream = Tiered { site: "simulated".into(), tiers: Arc::new(tiers), origins };
            let (world, key) = (world.clone(), key.clone());
            Arc::new(SimulatedNode { number: own, pipeline, site: site(Arc::new(upstream)), world, key })
        })
        .collect();
    for (asked, node) in asked.iter().zip(&nodes) {
        *asked.lock() = Some(node.clone());
    }
    let log = Arc::<Log>::default();
    let mut tasks: Vec<Task> = (0..CLIENTS)
        .map(|id| {
            let node = &nodes[[EDGE, EDGE, OWNER, EDGE, SHIELD][id % 5]];
            let client = client(id, node.pipeline.clone(), node.site.clone(), world.clone());
            let world = world.clone();
            // Some come when everything has been purged.
            let later = async move {
                for _ in 0..id * 4 {
                    pause(&world).await;
                }
                client.await;
            };
            task(later, id % 5 == 4)
        })
        .collect();
    tasks.push(task(purge_all(log.clone(), world.clone()), false));
    let slow = world.lock().rng.below(NODES);
    tasks.extend(nodes.iter().map(|node| task(node.clone().follow(log.clone(), slow), false)));
    let is_right = || nodes.iter().try_for_each(|node| stored_is_right(&node.pipeline, &world));
    // Looking takes longer than moving.
    let moves = Cell::new(0usize);
    let is_right_now = || {
        moves.set(moves.get() + 1);
        if moves.get().is_multiple_of(16) { is_right() } else { Ok(()) }
    };
    let ended = run(tasks, |n| world.lock().rng.below(n), is_right_now);
    asked.iter().for_each(|asked| *asked.lock() = None);
    world.lock().wrong.take().map_or(ended, Err)?;
    is_right()?;
    nodes.iter().try_for_each(|node| nothing_is_left_over(&node.pipeline))?;
    Ok(std::mem::take(&mut world.lock().seen))
}
