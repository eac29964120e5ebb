//! Parts x versions x failure x eviction x purge under a schedule of our own (test only).
//!
//! One seed is one run of clients that want ranges of two URLs, as [`crate::pipeline::simulation`] has runs; its mood says
//! what can go wrong in it, and so what must not. What a client gets is judged by itself: validator and length name one
//! version, and each byte has to be of that. Bugs planted by [`Planted`] show that the judges see.

mod client;
mod judge;
mod origin;
mod truth;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use self::client::client;
use self::judge::stored_is_right;
use self::origin::RangedOrigin;
use self::truth::BEGINNING;
use crate::clock;
use crate::pipeline::Pipeline;
use crate::pipeline::simulation::node::{nothing_is_left_over, pipeline, site};
use crate::pipeline::simulation::schedule::{Task, give_way, run, task};
use crate::pipeline::simulation::{
    Planted, Shared, URLS, World, assert_caught, assert_kept, pause, purge, seeds, url_key,
};
use crate::purge::ledger::Mode;
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::store::body::{Sparse, chunks_of};
use crate::store::record::StoredResponse;
use crate::store::tiers::Lookup;

const CLIENTS: usize = 12;
const UPHEAVALS: usize = 8;
/// What goes wrong in a calm run: as often as one request for a rest, or one reader, gets over it.
const MISHAPS_MAX: usize = 3;
/// Answers of an orderly run that are shorter than asked for: too few for a run of bytes to be given up.
const SHORT_MAX: usize = 7;
/// So much memory that nothing is evicted but by us.
const MEMORY: u64 = 512 << 20;

/// What can go wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// A few answers break off or are shorter than asked for, a few chunks leave: every answer is complete all the same.
    Calm,
    /// Versions change, and the origin tells: no answer is an error, and none breaks off before its first byte.
    Orderly,
    /// Anything: whatever looks complete is right.
    Wild,
}

/// What everybody in a run shares.
struct Scene {
    world: Shared,
    mood: Mood,
    /// Dates are the validators.
    dated: bool,
    /// Versions that differ in their length alone, for who does not look at their bytes.
    has_twins: bool,
    /// Responses depend on the language.
    varies: bool,
    /// There is room for a few fills at once, or for none.
    is_tight: bool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    mishaps: usize,
    /// Bodies that somebody was sent to, replaced ones too.
    known: Vec<(usize, Sparse, Arc<StoredResponse>)>,
    /// Chunks that left: URL, version, index.
    evicted: Vec<(usize, u64, u32)>,
}

impl Scene {
    fn below(&self, n: usize) -> usize {
        self.world.lock().rng.below(n)
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Whether something may go wrong.
    fn mishap(&self) -> bool {
        let mut notes = self.notes.lock();
        notes.mishaps += 1;
        match self.mood {
            Mood::Calm => notes.mishaps <= MISHAPS_MAX,
            Mood::Orderly => notes.mishaps <= SHORT_MAX,
            Mood::Wild => true,
        }
    }

    /// The origin has another version from now on.
    fn change(&self, url: usize) {
        let is_twin = self.has_twins && self.one_in(3);
        let mut world = self.world.lock();
        let version = world.versions[url];
        world.versions[url] = if is_twin { version | 1 } else { (version / 2 + 1) * 2 };
    }

    fn note_if(&self, is_so: bool, what: &str) {
        if is_so {
            self.world.lock().seen.insert(what.to_owned());
        }
    }
}

#[test]
fn every_part_is_of_what_it_says() {
    let wanted = [
        "hit",
        "partial",
        "collapsed run",
        "changed before the first byte",
        "changed after the first byte",
        "resumed",
        "evicted and fetched again",
        "whole after all",
        "304 kept chunks",
        "206 beside what was stale",
        "gap before what is off the grid",
        "several parts",
        "unsatisfiable",
        "cut off",
        "stale",
    ];
    assert_kept(seeds(500), simulate, &wanted);
}

macro_rules! caught {
    ($($test:ident: $bug:ident,)*) => { $(#[test] fn $test() { assert_caught(Planted::$bug, simulate); })* };
}

caught! {
    another_version_spliced_in_is_caught: RunValidatorNotCompared,
    a_length_that_changed_is_caught: RunTotalNotCompared,
    a_part_from_elsewhere_is_caught: RunBeginsAnywhere,
    a_generation_that_is_kept_is_caught: GenerationKept,
    a_part_in_the_wrong_place_is_caught: PartMisplaced,
    a_short_answer_that_looks_complete_is_caught: ShortEndsCleanly,
    bytes_forgotten_too_early_are_caught: RunForgetsTooEarly,
    a_broken_run_that_looks_complete_is_caught: BrokenRunEndsCleanly,
    a_run_that_has_begun_too_early_is_caught: RunBegunTooEarly,
}

/// Has time pass, chunks and records leave, versions change, and what is stored purged.
async fn upheaval(pipeline: Arc<Pipeline>, scene: Arc<Scene>) {
    for _ in 0..UPHEAVALS {
        give_way(scene.below(120)).await;
        let url = scene.below(URLS);
        match scene.below(10) {
            0 => pass(if scene.one_in(3) { 7_000_000 } else { 60_000 }),
            1 => drop_record(&pipeline, &scene, url),
            2 | 3 if scene.mood != Mood::Orderly => evict(&pipeline, &scene),
            4 | 5 => purge_all(&pipeline, &scene, url).await,
            6.. if scene.mood != Mood::Calm => {
                scene.change(url);
                pause(&scene.world).await;
                if scene.one_in(3) {
                    purge_all(&pipeline, &scene, url).await;
                }
            }
            _ => pass(1),
        }
    }
}

/// Has so many milliseconds pass.
fn pass(milliseconds: u64) {
    clock::set_wall(Some(UnixMs(clock::wall().0 + milliseconds)));
}

/// The response itself leaves, or the way to all variants of it.
fn drop_record(pipeline: &Pipeline, scene: &Scene, url: usize) {
    match pipeline.store.lookup(&url_key(url), Fields::new(b"accept-language: en\r\n"), true) {
        Lookup::Found { key, .. } if scene.one_in(2) => pipeline.store.memory.remove(&key),
        _ => pipeline.store.memory.remove(&url_key(url)),
    }
}

/// A chunk leaves memory, or all of one body, or of all.
fn evict(pipeline: &Pipeline, scene: &Scene) {
    let known = scene.notes.lock().known.clone();
    if known.is_empty() || !scene.mishap() {
        return;
    }
    let at = scene.below(known.len());
    let (bodies, chunk) = match scene.below(if scene.mood == Mood::Calm { 2 } else { 4 }) {
        0 | 1 => (&known[at..=at], Some(scene.below(chunks_of(known[at].2.body_len()) as usize) as u32)),
        2 => (&known[at..=at], None),
        _ => (&known[..], None),
    };
    for (url, body, stored) in bodies {
        let version = scene.world.lock().versions[*url];
        for index in (0..chunks_of(stored.body_len())).filter(|index| chunk.is_none_or(|chunk| chunk == *index)) {
            let frame = body.frame(index);
            if pipeline.store.memory.chunk(&frame).is_some() {
                pipeline.store.memory.evict_chunk(&frame);
                scene.notes.lock().evicted.push((*url, version, index));
            }
        }
    }
}

/// Purges a URL, one way or the other.
async fn purge_all(pipeline: &Pipeline, scene: &Scene, url: usize) {
    let version = scene.world.lock().versions[url];
    match scene.below(5) {
        // What shares a validator is validated.
        0 | 1 => purge(pipeline, &scene.world, (url, version & !1), Mode::Invalidate).await,
        2 | 3 => purge(pipeline, &scene.world, (url, version), Mode::Delete).await,
        _ => {
            pipeline.store.invalidate(&url_key(url));
            let mut world = scene.world.lock();
            world.promised[url] = world.versions[url];
        }
    }
}

/// The wall clock of this thread, as it was once this is gone.
struct SetClock;

impl Drop for SetClock {
    fn drop(&mut self) {
        clock::set_wall(None);
    }
}

/// One run: what was seen, or what is wrong.
fn simulate(seed: u64) -> Result<BTreeSet<String>, String> {
    clock::set_wall(Some(BEGINNING));
    let _clock = SetClock;
    let world = World::of(seed, 8);
    let draw = |n| world.lock().rng.one_in(n);
    let mood = [Mood::Calm, Mood::Orderly, Mood::Wild, Mood::Wild][world.lock().rng.below(4)];
    let (dated, has_twins, varies, is_tight) = (draw(6), draw(2), draw(4), draw(4));
    let scene =
        Arc::new(Scene { world: world.clone(), mood, dated, has_twins, varies, is_tight, notes: Mutex::default() });
    let pipeline = pipeline(MEMORY);
    let site = site(Arc::new(RangedOrigin(scene.clone())));
    let clients = (0..CLIENTS).map(|id| (id, client(id, pipeline.clone(), site.clone(), scene.clone())));
    let mut tasks: Vec<Task> = clients.map(|(id, client)| task(client, id % 5 == 4)).collect();
    tasks.extend([0, 1].map(|_| task(upheaval(pipeline.clone(), scene.clone()), false)));
    let mut taken = pipeline.store.budget.fills.reservation();
    if is_tight {
        let left = [0, 300_000, 1_700_000, 3_000_000][world.lock().rng.below(4)];
        let _ = taken.grow(pipeline.store.budget.fills.limit() - left);
    }
    let ended = run(tasks, |n| world.lock().rng.below(n), || Ok(()));
    let (wrong, mood) = (world.lock().wrong.take(), scene.mood);
    wrong.map_or(ended, Err).map_err(|wrong| format!("{mood:?}: {wrong}"))?;
    stored_is_right(&pipeline, &scene)?;
    drop(taken);
    nothing_is_left_over(&pipeline)?;
    Ok(std::mem::take(&mut world.lock().seen))
}
