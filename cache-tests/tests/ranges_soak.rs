//! Ranges in numbers: what a large object costs that is read here and there, by one client or by hundreds, and what is left
//! of it when the node is killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_tests::disk::opened;
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::process::Scratch;
use cache_tests::random::Random;
use cache_tests::ranged::load::{Load, Tally};
use cache_tests::ranged::{CHUNK, Content, Ranged, RangedOrigin, Site, Wanted};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a player reads at each place.
const SEEK: u64 = 2 * MIB;
const SEEKS: u64 = 64;

/// What is on the disk that long survives a kill.
const SETTLED: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_byte_at_the_end_of_ten_gibibytes() {
    let site = Site::start().await;
    let mut times = Vec::new();
    for wanted in [Wanted::part(10 * GIB - 1, 1), Wanted::Last(1)].iter().cycle().take(6) {
        let object = site.content.add(10 * GIB);
        // Whoever is first to need a byte makes all bytes there are; the node is not to be blamed for it.
        assert!(object.at(1).is_ok_and(|of| !of.bytes_at(0).is_empty()));
        let started = Instant::now();
        let got = object.get(&site.node, wanted.clone()).await;
        times.push(started.elapsed());
        assert_eq!((got.status, got.told().as_str()), (206, "uri-miss; stored"));
        let bytes = object.settled().await;
        assert!(bytes <= CHUNK, "{bytes} bytes for {wanted:?}");
    }
    eprintln!("a byte at the end of 10 GiB: {times:?}");
    // A time is judged where nothing else is at work.
    let is_alone = std::env::var_os("LITTORAL_SOAK").is_some();
    assert!(!is_alone || times.iter().min() < Some(&Duration::from_millis(100)), "{times:?}");
}

#[tokio::test]
async fn a_player_seeks() {
    seeks(8, GIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn a_player_seeks_through_ten_gibibytes() {
    seeks(SEEKS, 10 * GIB).await;
    seeks_and_closes(SEEKS, 10 * GIB).await;
}

fn places(count: u64, length: u64) -> Vec<u64> {
    let mut random = Random::of_run("seeks");
    (0..count).map(|_| random.below(length - SEEK)).collect()
}

/// By ranges with both ends.
async fn seeks(count: u64, length: u64) {
    let site = Site::with(|options| options.with("--memory", "512MiB")).await;
    let object = site.content.add(length);
    let places = places(count, length);
    let mut client = site.node.client().await;
    let mut before = 0;
    for round in 1..=2 {
        let started = Instant::now();
        for place in &places {
            let got = object.ask(&mut client, &Wanted::part(*place, SEEK), &[]).await;
            let got = got.unwrap_or_else(|error| panic!("{error}"));
            assert!(got.status == 206 && got.is_whole(), "{place}: {got:?}");
        }
        let (time, bytes) = (started.elapsed(), object.settled().await - before);
        let factor = bytes as f64 / (count * SEEK) as f64;
        eprintln!("{count} seeks, round {round}: {factor:.3} of the bytes delivered from the origin, {time:?}");
        assert!(factor <= if round == 1 { 1.2 } else { 0.0 }, "round {round}: {factor}");
        before += bytes;
    }
}

/// By ranges without an end, which the player leaves.
async fn seeks_and_closes(count: u64, length: u64) {
    let site = Site::with(|options| options.with("--memory", "1GiB")).await;
    let object = site.content.add(length);
    let mut before = 0;
    for (round, place) in places(count, length).iter().cycle().take(2 * count as usize).enumerate() {
        let mut client = site.node.client().await;
        let mut reading = object.begin(&mut client, &Wanted::From(*place), &[]).await.expect("a head");
        assert_eq!(reading.read_to(&mut client, place + SEEK).await, Ok(None), "{place}");
        drop(client);
        if (round as u64 + 1).is_multiple_of(count) {
            let bytes = object.settled().await - before;
            let factor = bytes as f64 / (count * SEEK) as f64;
            eprintln!("{count} seeks that are left, round {}: {factor:.3} from the origin", (round as u64 + 1) / count);
            // What sockets take is the kernel's affair: a bound against reading to the end, and no more.
            assert!(factor <= 8.0, "{factor}");
            before += bytes;
        }
    }
}

/// All right, none broken off.
fn assert_right(tally: &Tally, when: &str) {
    let Tally { wrong, resets, unanswered, .. } = tally;
    let first = wrong.first();
    assert!(
        wrong.len() as u64 + resets + unanswered == 0,
        "{when}: {resets} resets, {unanswered} unanswered, {first:?}"
    );
}

async fn at_random(clients: usize, each: usize, length: u64, memory: &str) {
    let mut random = Random::of_run("clients_at_random_places");
    let site = Site::with(|options| options.with("--memory", memory).with("--access-log", "off")).await;
    let object = site.content.add(length);
    let started = Instant::now();
    let tally = Load::start(site.node.address(), clients, each, &mut random, object.anywhere()).finish().await;
    let time = started.elapsed();
    assert_right(&tally, "at random");
    let distinct: u64 = tally.chunks(|_| true).keys().map(|(_, chunk)| CHUNK.min(length - chunk * CHUNK)).sum();
    let (bytes, delivered) = (object.settled().await, tally.bytes());
    let factor = bytes as f64 / distinct as f64;
    eprintln!(
        "{clients} clients, {} ranges of {} MiB: {factor:.3} of the distinct chunks' {} MiB from the origin, \
         {} MiB delivered in {time:?}, {} hits, {} requests",
        tally.answers.len(),
        length / MIB,
        distinct / MIB,
        delivered / MIB,
        tally.hits(),
        object.asked().len()
    );
    assert!(factor <= 1.05, "{factor}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_at_random_places() {
    at_random(20, 15, 32 * MIB, "256MiB").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn two_hundred_clients_at_random_places() {
    at_random(200, 30, GIB, "3GiB").await;
}

/// Slow enough that fills are under way whenever one looks.
const RATE: Option<u64> = Some(4 * MIB);

/// A dozen objects behind an origin that takes its time, so that fills are under way when the node is killed.
struct Films {
    origin: RangedOrigin,
    objects: Arc<Vec<Ranged>>,
    data: Scratch,
}

impl Films {
    fn new(random: &mut Random) -> Self {
        let content = Content::default();
        let origin = RangedOrigin::start(&content);
        let film = |_| content.add_with(random.within(MIB..64 * MIB), |film| film.bytes_per_second = RATE);
        Self { origin, objects: Arc::new((0..12).map(film).collect()), data: Scratch::new("data") }
    }

    async fn node(&self, machine: &Machine) -> Node {
        let options = NodeOptions::before_url(&self.origin.url())
            .with("--data", self.data.path().to_str().expect("UTF-8"))
            .with("--memory", "256MiB")
            .with("--disk", "2GiB")
            .with("--access-log", "off")
            .within(machine);
        opened(options).await
    }

    fn written(&self) -> u64 {
        self.objects.iter().map(Ranged::written).sum()
    }

    fn hasten(&self, bytes_per_second: Option<u64>) {
        self.objects.iter().for_each(|film| film.change(|film| film.bytes_per_second = bytes_per_second));
    }

    /// Reads at random for a while, kills the node and starts it again: what was there long enough is there.
    async fn kill(&self, node: Node, machine: &Machine, random: &mut Random, versions: Versions) -> (Node, f64) {
        let objects = Arc::clone(&self.objects);
        let choose = move |random: &mut Random| random.one_of(&objects).anywhere()(random);
        let load = Load::start(node.address(), 8, 100_000, random, choose);
        let moment = Instant::now() + SETTLED + Duration::from_millis(random.within(500..2_000));
        while versions == Versions::Change && Instant::now() + CHANGES < moment {
            tokio::time::sleep(CHANGES).await;
            random.one_of(&self.objects).renew();
        }
        tokio::time::sleep_until(moment.into()).await;
        node.kill().await;
        let killed = Instant::now();
        let tally = load.finish().await;
        assert_eq!((tally.wrong.len(), tally.wrong.first()), (0, None), "before the kill");
        assert!(tally.resets + tally.unanswered > 0, "the kill was not noticed");

        let node = self.node(machine).await;
        let before = self.written();
        self.hasten(None);
        let settled = tally.chunks(|answer| answer.ended + SETTLED < killed);
        let all = tally.chunks(|_| true);
        let (mut hits, mut hits_of_all, mut resets) = (0, 0, 0);
        for ((target, chunk), object) in &all {
            let part = chunk * CHUNK..((chunk + 1) * CHUNK).min(object.length());
            let got = object.try_get(&node, Wanted::Part(part)).await;
            let got = got.unwrap_or_else(|error| panic!("after the kill: {error}"));
            resets += usize::from(!got.is_whole());
            let is_settled = settled.contains_key(&(target.clone(), *chunk));
            hits += usize::from(got.is_hit() && is_settled);
            hits_of_all += usize::from(got.is_hit());
        }
        self.hasten(RATE);
        let (share, from_origin) = (hits as f64 / settled.len().max(1) as f64, self.written() - before);
        eprintln!(
            "killed after {} answers, versions {versions:?}: {hits} of {} chunks that were settled are hits, {hits_of_all} \
             of all {}, {resets} resets; {} MiB from the origin",
            tally.answers.len(),
            settled.len(),
            all.len(),
            from_origin / MIB
        );
        if versions == Versions::Stay {
            assert_eq!(resets, 0, "parts that are there, or can be had");
            assert!(settled.len() > 5, "{} chunks were settled: that says nothing", settled.len());
            // What is said to be a hit costs nothing.
            let missed = (all.len() - hits_of_all) as u64 * CHUNK;
            assert!(from_origin <= missed + CHUNK, "{from_origin} bytes for {missed}");
        }
        (node, share)
    }
}

/// Whether objects change while they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    Stay,
    Change,
}

/// How often one of them does.
const CHANGES: Duration = Duration::from_millis(30);

async fn kills(rounds: u64, kills_each: u64, versions: Versions) {
    let mut random = Random::of_run("killed_while_parts_are_filled");
    let machine = Machine::shared();
    for round in 1..=rounds {
        let films = Films::new(&mut random);
        let mut node = films.node(&machine).await;
        for kill in 1..=kills_each {
            let (next, share) = films.kill(node, &machine, &mut random, versions).await;
            node = next;
            assert!(share > 0.9 || versions == Versions::Change, "round {round}, kill {kill}: {share}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_parts_are_filled() {
    tokio::join!(kills(1, 1, Versions::Stay), kills(1, 1, Versions::Change));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn killed_twenty_times_while_parts_are_filled() {
    kills(10, 2, Versions::Stay).await;
    kills(10, 2, Versions::Change).await;
}
