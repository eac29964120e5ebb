//! Fill x read x failure x eviction x invalidation under a schedule of our own (test only).
//!
//! One seed is one run: it chooses which ready task moves next, what the origin answers and when it decides on it, who
//! vanishes and when. Nothing waits for I/O or real time. Every body names its version, variant and audience in every
//! piece, so that whatever a client or the store ends up with can be judged by itself. Bugs planted by [`Planted`] show
//! that the judges see.

pub(in crate::pipeline) mod node;
mod origin;
pub(in crate::pipeline) mod schedule;
mod tiers;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use self::node::{nothing_is_left_over, pipeline, site};
use self::origin::{Mark, SimulatedOrigin};
use self::schedule::{Rng, Task, give_way, run, task};
use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::pipeline::{Pipeline, request::Method, request::Request};
use crate::purge::ledger::{HARD_HIDDEN_BY_SOFT, Mode, Target};
use crate::purge::selector::{Named, SiteId, url_of};
use crate::routing::{GroupIndex, Site};
use crate::semantics::{directives::RequestDirectives, fields::Fields};
use crate::store::record::StoredResponse;
use crate::store::{key::CacheKey, tiers::Lookup};
use crate::telemetry::metrics::CacheOutcome;

pub(in crate::pipeline) const URLS: usize = 2;
const CLIENTS: usize = 20;

/// A bug that hooks in the real code bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Planted {
    /// A record's position is read once its head is there.
    FillPosAfterHead,
    /// A follower takes whatever the fill it joined brings.
    FollowerNotJudged,
    /// A fill that failed ends as one that is complete.
    FailedFillEndsCleanly,
    /// A fill that is over tells nobody.
    EndNotTold,
    /// What was invalidated since the decision is validated as if it had not been.
    GoneValidated,
    /// A purge is said to be applied before its entries are written.
    AppliedPublishedFirst,
    /// A soft purge makes the ledger forget an earlier hard one.
    HardHiddenBySoft,
    /// Bytes of whatever the origin has now are put beside those that are there.
    RunValidatorNotCompared,
    /// How long the whole is by now does not matter.
    RunTotalNotCompared,
    /// A part is taken for the one that was asked for, wherever it begins.
    RunBeginsAnywhere,
    /// Another representation goes on under the generation of the one before.
    GenerationKept,
    /// What begins in the middle of a chunk is kept as its beginning.
    PartMisplaced,
    /// An answer whose rest cannot be had ends as if it were complete.
    ShortEndsCleanly,
    /// A run forgets what its readers have taken before it is in the store.
    RunForgetsTooEarly,
    /// A run that broke ends as one that is complete.
    BrokenRunEndsCleanly,
    /// What is served stale is told another node, and so stored there, as live and fresh.
    StaleStoredAsFresh,
    /// A node says that it judged its answer at the position it has applied, whatever it is.
    CurrentPositionSent,
    /// A run says that it has begun before what its reader begins with is answered.
    RunBegunTooEarly,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether this thread's runs have that bug.
pub(in crate::pipeline) fn planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

#[test]
fn every_schedule_keeps_the_promises() {
    let wanted = ["Collapsed", "Error", "Hit", "Miss", "Revalidated", "Stale", "cut off"];
    assert_kept(seeds(1000), simulate, &wanted);
}

/// Nothing is wrong in any of so many runs, and all together saw what is wanted.
pub(in crate::pipeline) fn assert_kept(
    seeds: u64,
    simulate: fn(u64) -> Result<BTreeSet<String>, String>,
    wanted: &[&str],
) {
    let mut seen = BTreeSet::new();
    for seed in 0..seeds {
        seen.extend(simulate(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")));
    }
    let missing: Vec<_> = wanted.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(missing.is_empty() || seeds < 100, "no schedule led to {missing:?}: {seen:?}");
}

macro_rules! caught {
    ($($test:ident: $bug:ident,)*) => { $(#[test] fn $test() { assert_caught(Planted::$bug, simulate); })* };
}

caught! {
    a_position_read_too_late_is_caught: FillPosAfterHead,
    a_follower_that_is_not_judged_is_caught: FollowerNotJudged,
    a_failure_that_looks_complete_is_caught: FailedFillEndsCleanly,
    an_end_that_nobody_hears_of_is_caught: EndNotTold,
    validators_of_what_is_gone_are_caught: GoneValidated,
    a_purge_published_before_it_is_written_is_caught: AppliedPublishedFirst,
    a_hard_purge_hidden_by_a_soft_one_is_caught: HardHiddenBySoft,
}

/// A thousand runs with a bug show it.
pub(in crate::pipeline) fn assert_caught(bug: Planted, simulate: fn(u64) -> Result<BTreeSet<String>, String>) {
    PLANTED.set(Some(bug));
    HARD_HIDDEN_BY_SOFT.set(bug == Planted::HardHiddenBySoft);
    let caught = (0..1000).find_map(|seed| Some((seed, simulate(seed).err()?)));
    PLANTED.set(None);
    HARD_HIDDEN_BY_SOFT.set(false);
    let (seed, wrong) = caught.unwrap_or_else(|| panic!("no schedule shows {bug:?}"));
    println!("{bug:?}: seed {seed}: {wrong}");
}

/// How many runs there are, if nobody says otherwise.
pub(in crate::pipeline) fn seeds(usual: u64) -> u64 {
    std::env::var("LITTORAL_SEEDS").map_or(usual, |n| n.parse().expect("LITTORAL_SEEDS is a number"))
}

/// What all tasks of one run share.
pub(in crate::pipeline) struct World {
    pub(in crate::pipeline) rng: Rng,
    /// What the origin has now.
    pub(in crate::pipeline) versions: [u64; URLS],
    /// What the origin had when the last acknowledged invalidation began: older must not be served any more.
    pub(in crate::pipeline) promised: [u64; URLS],
    /// What the origin had when the last acknowledged soft purge began: older must be neither a hit nor called fresh.
    pub(in crate::pipeline) softly: [u64; URLS],
    /// What the origin says is mostly fresh, for a while longer, and for all.
    pub(in crate::pipeline) is_lasting: bool,
    /// The log has a purge in hand: it applies one after the other.
    pub(in crate::pipeline) log_is_busy: bool,
    pub(in crate::pipeline) seen: BTreeSet<String>,
    pub(in crate::pipeline) wrong: Option<String>,
}

pub(in crate::pipeline) type Shared = Arc<Mutex<World>>;

/// Lets others move, as often as the schedule wants.
pub(in crate::pipeline) async fn pause(world: &Shared) {
    let times = world.lock().rng.below(4);
    give_way(times).await;
}

pub(in crate::pipeline) fn url_key(url: usize) -> CacheKey {
    CacheKey::from_bytes([url as u8 + 1; 16])
}

/// What a client has of its answer.
struct Recorder {
    world: Shared,
    status: u16,
    length: BodyLength,
    body: Vec<u8>,
    clean: bool,
    /// A node further on says that what it answered with is stale.
    told_stale: bool,
}

impl Recorder {
    /// The last member of `Cache-Status` is this node's.
    fn hear(&mut self, dynamic: &[u8]) {
        let said = Fields::new(dynamic).first("cache-status").unwrap_or_default();
        let others = String::from_utf8_lossy(said).rsplit_once(", ").map(|(others, _)| others.to_owned());
        self.told_stale = others.is_some_and(|others| others.contains("; ttl=-") || others.contains("; ttl=0"));
    }
}

impl Exchange for Recorder {
    async fn stored(&mut self, response: &Arc<StoredResponse>, _: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        self.hear(dynamic);
        self.status = response.status();
        let slices: Vec<&[u8]> = response.slices(0..response.body_len()).collect();
        self.body(&slices).await?;
        self.finish().await
    }

    async fn interim(&mut self, _: u16, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength) {
        self.hear(fields.first().copied().unwrap_or_default());
        (self.status, self.length) = (status, length);
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.body.extend(slices.concat());
        pause(&self.world).await;
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.body(&[]).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        pause(&self.world).await;
        self.clean = true;
        Ok(())
    }

    async fn gone(&mut self) {
        pending::<()>().await;
    }
}

/// One request, from its arrival to the judgement of its answer.
async fn client(id: usize, pipeline: Arc<Pipeline>, site: Arc<Site>, world: Shared) {
    let (url, language, fields) = {
        let World { rng, is_lasting, .. } = &mut *world.lock();
        let language = if rng.one_in(3) { "de" } else { "en" };
        let mut fields = format!("accept-language: {language}\r\n");
        let is_plain = *is_lasting && !rng.one_in(4);
        fields += if !is_plain && rng.one_in(5) { "authorization: Basic eDp5\r\n" } else { "" };
        let some = ["cache-control: no-cache\r\n", "cache-control: no-store\r\n", "", "", "", ""];
        fields += if is_plain { "" } else { some[rng.below(6)] };
        fields += &format!("x-client: {id}\r\n");
        (rng.below(URLS), language, fields)
    };
    for _ in 0..id {
        pause(&world).await;
    }
    let (target, id) = (format!("/{url}"), id.to_string());
    let forward = |_, out: &mut Vec<u8>| out.extend_from_slice(fields.as_bytes());
    let asked = Fields::new(fields.as_bytes());
    let request = Request {
        client: None,
        disk: true,
        session: crate::origin::session::Session::default(),
        rounds: 0,
        in_full: false,
        by_node: None,
        told: b"",
        matched: None,
        site: &site,
        method: Method::Get,
        scheme: "http",
        target: target.as_bytes(),
        asked: target.as_bytes(),
        group: GroupIndex::OWN,
        host: b"simulated",
        fields: asked,
        key: url_key(url),
        directives: RequestDirectives::parse(asked),
        conditional: false,
        range: false,
        authorization: asked.contains("authorization"),
        now: clock::wall(),
        forward: &forward,
    };
    let mut got = Recorder {
        world: world.clone(),
        status: 0,
        length: BodyLength::None,
        body: vec![],
        clean: false,
        told_stale: false,
    };
    let (promised, softly) = {
        let world = world.lock();
        (world.promised[url], world.softly[url])
    };
    let decision = pipeline.decide(&request);
    // On a node with many threads anything may happen here.
    pause(&world).await;
    let answered = pipeline.answer(&request, decision, &mut got).await;
    let verdict = match &answered {
        Err(error) => Err(format!("nothing was wrong with the client: {error}")),
        Ok(outcome) if outcome.complete != got.clean => Err(format!("ended cleanly: {}, but {outcome:?}", got.clean)),
        Ok(_) if !got.clean || matches!(got.status, 502 | 504) => Ok(()),
        Ok(_) if matches!(got.length, BodyLength::Known(length) if length != got.body.len() as u64) => {
            Err(format!("{} bytes where {:?} were announced", got.body.len(), got.length))
        }
        // Stale answers may be older than a soft purge; hits, and what was fetched for this request, may not.
        Ok(outcome) => {
            // So may what another node says is stale, once: stored, it is no hit.
            let old = match outcome.cache {
                CacheOutcome::Stale => true,
                CacheOutcome::Hit => false,
                _ => got.told_stale,
            };
            Mark::check(&got.body, url, language, &id, if old { promised } else { promised.max(softly) })
        }
    };
    let mut world = world.lock();
    if let Ok(outcome) = answered {
        world.seen.insert(if got.clean { format!("{:?}", outcome.cache) } else { "cut off".into() });
    }
    if let Err(wrong) = verdict {
        world.wrong.get_or_insert(format!("client {id} of /{url} ({fields:?}): {wrong}"));
    }
}

/// Changes a URL and has what is stored of it invalidated, most of the time, or evicts some of it.
async fn upheaval(pipeline: Arc<Pipeline>, world: Shared) {
    for _ in 0..10 {
        pause(&world).await;
        let url = world.lock().rng.below(URLS);
        let key = url_key(url);
        if world.lock().rng.one_in(5) {
            // The response itself, or the way to all variants of it.
            match pipeline.store.lookup(&key, Fields::new(b"accept-language: en\r\n"), true) {
                Lookup::Found { key, .. } if world.lock().rng.one_in(2) => pipeline.store.memory.remove(&key),
                _ => pipeline.store.memory.remove(&key),
            }
            continue;
        }
        let how = world.lock().rng.below(8);
        // After a soft purge nothing old may be validated by what a careless origin calls the same.
        let step = |version: u64| if how < 3 { (version / 8 + 1) * 8 } else { version + 1 };
        let version = {
            let mut world = world.lock();
            world.versions[url] = step(world.versions[url]);
            world.versions[url]
        };
        pause(&world).await;
        match how {
            0..3 => purge(&pipeline, &world, (url, version), Mode::Invalidate).await,
            3..6 => purge(&pipeline, &world, (url, version), Mode::Delete).await,
            6 => {
                pipeline.store.invalidate(&key);
                let mut world = world.lock();
                world.promised[url] = world.versions[url];
            }
            _ => {}
        }
    }
}

/// Purges a URL by one of the things it can be purged by, as a log does: entries first, then the position, with whatever
/// others do in between.
pub(in crate::pipeline) async fn purge(pipeline: &Pipeline, world: &Shared, (url, version): (usize, u64), mode: Mode) {
    while std::mem::replace(&mut world.lock().log_is_busy, true) {
        give_way(1).await;
    }
    let ledger = &pipeline.store.ledger;
    let site = SiteId::of("simulated");
    let target = match world.lock().rng.below(4) {
        0 => Target::Url(site, url_of(&url_key(url))),
        1 => Target::Prefix { site, host: None, path: format!("/{url}").into_bytes().into() },
        _ => Target::Key(site, ledger.name(Named::Key, format!("u{url}").as_bytes())),
    };
    let position = ledger.applied().log.next();
    if planted(Planted::AppliedPublishedFirst) {
        ledger.publish(position);
        pause(world).await;
        ledger.enter(position, clock::wall(), mode, &[target]);
    } else {
        ledger.enter(position, clock::wall(), mode, &[target]);
        pause(world).await;
        ledger.publish(position);
    }
    let mut world = world.lock();
    world.log_is_busy = false;
    match mode {
        Mode::Delete => world.promised[url] = world.promised[url].max(version),
        Mode::Invalidate => world.softly[url] = world.softly[url].max(version),
    }
}

/// Whatever the store would give a client now is whole, for that client, and kept since the last promise.
fn stored_is_right(pipeline: &Pipeline, world: &Shared) -> Result<(), String> {
    for (url, language) in (0..URLS).flat_map(|url| ["en", "de"].map(|language| (url, language))) {
        let fields = format!("accept-language: {language}\r\n");
        if let Lookup::Found { stored, .. } = pipeline.store.lookup(&url_key(url), Fields::new(fields.as_bytes()), true)
        {
            // What is not whole is judged where ranges are simulated.
            if stored.sparse().is_some() {
                continue;
            }
            let body: Vec<&[u8]> = stored.slices(0..stored.body_len()).collect();
            let promised = world.lock().promised[url];
            Mark::check(&body.concat(), url, language, "", promised).map_err(|wrong| format!("stored: {wrong}"))?;
        }
    }
    Ok(())
}

/// One run: what was seen, or what is wrong.
fn simulate(seed: u64) -> Result<BTreeSet<String>, String> {
    let world = World::of(seed, 8);
    let pipeline = pipeline(64 << 20);
    let site = site(Arc::new(SimulatedOrigin(world.clone())));
    let clients = (0..CLIENTS).map(|id| (id, client(id, pipeline.clone(), site.clone(), world.clone())));
    let mut tasks: Vec<Task> = clients.map(|(id, client)| task(client, id % 5 == 4)).collect();
    tasks.extend([0, 1].map(|_| task(upheaval(pipeline.clone(), world.clone()), false)));
    let ended = run(tasks, |n| world.lock().rng.below(n), || stored_is_right(&pipeline, &world));
    world.lock().wrong.take().map_or(ended, Err)?;
    stored_is_right(&pipeline, &world)?;
    nothing_is_left_over(&pipeline)?;
    Ok(std::mem::take(&mut world.lock().seen))
}

impl World {
    /// The world of a run, in which all there is has this version.
    pub(in crate::pipeline) fn of(seed: u64, version: u64) -> Shared {
        Arc::new(Mutex::new(Self {
            rng: Rng::of(seed),
            versions: [version; URLS],
            promised: [0; URLS],
            softly: [0; URLS],
            is_lasting: false,
            log_is_busy: false,
            seen: BTreeSet::new(),
            wrong: None,
        }))
    }
}
