//! What a disk keeps over a kill, a burst and a full device: most of it, and never a wrong byte.

use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::deadline::until;
use cache_tests::derived::{Answered, Derived, DerivedOrigin, Load, Outcome, Tally, ask_for_all};
use cache_tests::disk::{is_open, objects, opened, written_bytes};
use cache_tests::gate::Gate;
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::random::Random;
use cache_tests::response::End;
use serde_json::json;

const CHUNK: u64 = 256 << 10;
/// How long what was answered may take to reach the disk.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a node that starts may take to answer, and to answer from the disk.
const FIRST: Duration = Duration::from_secs(2);
/// A fill, or reading all of it again.
const LOAD: Duration = Duration::from_secs(120);

fn node(origin: &DerivedOrigin, data: &Scratch, machine: &Machine, memory: &str, disk: &str) -> NodeOptions {
    NodeOptions::before_url(&origin.url())
        .with("--data", data.path().to_str().expect("UTF-8"))
        .with("--memory", memory)
        .with("--disk", disk)
        .with("--access-log", "off")
        .within(machine)
}

/// Objects from 200 bytes to 1.2 MB, every fifth larger than a chunk: 175 KB each on average.
fn mixed(numbers: std::ops::Range<u64>, random: &mut Random) -> Vec<Derived> {
    numbers
        .map(|number| {
            let length = match random.below(5) {
                0 => random.within(CHUNK + 1..1_200_000),
                // As many between 200 and 400 bytes as between 100 and 200 KB.
                _ => {
                    let most = 200 << random.below(11);
                    random.within(most / 2 + 100..most + 100)
                }
            };
            Derived { number, length }
        })
        .collect()
}

async fn metric(node: &Node, name: &str) -> f64 {
    node.metrics().await.sum(name, &[])
}

/// Waits until the disk has so many objects, or as long as they may take. Gives how many it has.
async fn settle(node: &Node, count: usize) -> f64 {
    let started = Instant::now();
    until(SETTLED * 2, "the disk has everything, or had the time for it", || async {
        let now = objects(node).await;
        if now >= count as f64 || started.elapsed() > SETTLED { Ok(now) } else { Err(format!("{now}")) }
    })
    .await
}

/// What one kill left.
#[derive(Debug)]
struct Kept {
    first_hit: Duration,
    /// Misses before it.
    early: usize,
    settled: Tally,
    /// What was answered shortly before the kill.
    late: Tally,
}

/// A fill that a kill ends at a random moment, and all of it read again.
async fn kill_while_it_fills(count: u64, random: &mut Random) -> Kept {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let options = || node(&origin, &data, &machine, "256MiB", "1GiB");
    let before = opened(options()).await;
    let all = mixed(0..count, random);
    let (first, rest) = all.split_at(all.len() * 2 / 3);
    let settled = ask_for_all(before.address(), first.to_vec()).await;
    Tally::of(&settled).assert_right("the fill");
    let written = settle(&before, first.len()).await;
    let lost = metric(&before, "littoral_store_lost_writes_total").await;
    before.purge(&json!({ "tags": ["tag-3"] })).await;
    let late = Load::start(before.address(), rest.to_vec());
    late.reached(random.below(rest.len() as u64 * 9 / 10) as usize, LOAD).await;
    let purged: Vec<Derived> = (0..10).map(|_| *random.one_of(first)).collect();
    let urls: Vec<String> = purged.iter().map(|object| format!("http://{HOST}{}", object.target())).collect();
    before.purge(&json!({ "urls": urls })).await;
    before.kill().await;
    let late = late.finish().await;
    assert_eq!(Tally::of(&late).wrong, Vec::<String>::new());
    let late: Vec<Derived> =
        late.iter().filter(|answer| !matches!(answer.outcome, Outcome::Broken(_))).map(|answer| answer.of).collect();

    let is_purged = |object: &Derived| object.tag() == "tag-3" || purged.contains(object);
    let (gone, kept): (Vec<Derived>, Vec<Derived>) = first.iter().copied().partition(is_purged);
    let started = Instant::now();
    let after = options().start().await;
    let (first_hit, early) = first_hit(&after, &kept, started).await;
    // Until all of it is found, what is not is a miss.
    is_open(&after).await;
    let kept = &kept[early..];
    let parts = parts(&after, kept, random).await;
    let asked = origin.requests();
    let tally_of = async |objects: Vec<Derived>| Tally::of(&ask_for_all(after.address(), objects).await);
    let (settled, late, gone) = (tally_of(kept.to_vec()).await, tally_of(late).await, tally_of(gone).await);
    for (tally, what) in [(&settled, "settled"), (&late, "answered late"), (&gone, "purged")] {
        tally.assert_right(what);
    }
    assert_eq!(gone.hits, 0, "what was purged is a hit");
    assert_eq!(origin.requests() - asked, settled.misses + late.misses + gone.misses, "hits are from the store");
    assert!(settled.hit_share() >= 0.99, "of {} written {written}, {lost} frames lost: {settled:?}", first.len());
    // What the disk was too busy for is in neither.
    assert!(parts >= 0.97 || lost > 0.0, "{parts} of the parts are hits");
    assert!(first_hit <= FIRST, "the first hit came after {first_hit:?}");
    Kept { first_hit, early, settled, late }
}

/// How long it takes from `started` until one of these is a hit, and how many were none before it.
async fn first_hit(node: &Node, kept: &[Derived], started: Instant) -> (Duration, usize) {
    let mut client = node.client().await;
    for (number, object) in kept.iter().enumerate() {
        let answer = object.read(&mut client).await;
        Tally::of([&answer]).assert_right("the first answers");
        if answer.outcome == Outcome::Hit {
            return (started.elapsed(), number);
        }
    }
    panic!("none of {} is a hit", kept.len())
}

/// What share of parts of what was kept are hits, within a chunk and across chunks.
async fn parts(node: &Node, kept: &[Derived], random: &mut Random) -> f64 {
    let mut client = node.client().await;
    let (mut hits, mut asked) = (0, 0);
    for object in kept.iter().step_by(kept.len() / 60 + 1) {
        let length = object.length;
        let begin = random.below(length);
        let mut wanted = Vec::from_iter(std::iter::once(begin..random.within(begin + 1..length + 1)));
        if length > CHUNK {
            wanted.extend([CHUNK - 1..CHUNK + 1, 10..20, CHUNK..length]);
        }
        for part in wanted {
            let answer = object.read_part(&mut client, part.clone()).await;
            Tally::of([&answer]).assert_right(&format!("{part:?}"));
            hits += u32::from(answer.outcome == Outcome::Hit);
            asked += 1;
        }
    }
    f64::from(hits) / f64::from(asked)
}

async fn killed_again_and_again(kills: u64, objects: u64) {
    let mut random = Random::of_run("killed_while_it_fills");
    for number in 1..=kills {
        let Kept { first_hit, early, settled, late } = kill_while_it_fills(objects, &mut random).await;
        let share = |tally: &Tally| format!("{} of {}", tally.hits, tally.hits + tally.misses);
        eprintln!(
            "kill {number}: kept {}, of the late {}, first hit after {first_hit:?} and {early} misses",
            share(&settled),
            share(&late)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_fills() {
    killed_again_and_again(2, 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn killed_twenty_times_while_it_fills() {
    killed_again_and_again(20, 2_000).await;
}

/// A full device under load is killed and started, again and again.
async fn killed_when_full(kills: u64) {
    let mut random = Random::of_run("full_device_kills");
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let options = || node(&origin, &data, &machine, "64MiB", "64MiB");
    let mut next = 600;
    let mut current = opened(options()).await;
    let fill = mixed(0..next, &mut random);
    Tally::of(&ask_for_all(current.address(), fill.clone()).await).assert_right("the fill");
    let mut known: Vec<Derived> = fill;
    for kill in 1..=kills {
        // On a full disk only what is asked for twice is written.
        let fresh = mixed(next..next + 200, &mut random);
        next += 200;
        let twice: Vec<Derived> = fresh.chunks(8).flat_map(|some| [some, some].concat()).collect();
        let load = Load::start(current.address(), twice);
        load.reached(random.within(60..300) as usize, LOAD).await;
        current.kill().await;
        let answers = load.finish().await;
        assert_eq!(Tally::of(&answers).wrong, Vec::<String>::new(), "kill {kill}");
        let started = Instant::now();
        current = options().start().await;
        let mut client = current.client().await;
        let answer = known[known.len() - 1].read(&mut client).await;
        Tally::of([&answer]).assert_right("the first answer");
        assert!(started.elapsed() < FIRST, "kill {kill}: the first answer after {:?}", started.elapsed());
        known.extend(fresh);
        // What is fetched before it knows all that is on the disk is not written.
        is_open(&current).await;
        let before = written_bytes(&current).await;
        let new = mixed(next..next + 40, &mut random);
        next += 40;
        let sample: Vec<Derived> = known.iter().rev().take(400).copied().collect();
        let tally = Tally::of(&ask_for_all(current.address(), [sample, new.clone(), new].concat()).await);
        tally.assert_right("after a kill");
        until(FIRST, "writes go on", || async {
            let now = written_bytes(&current).await;
            if now > before { Ok(()) } else { Err(format!("{now} bytes")) }
        })
        .await;
        eprintln!("kill {kill}: {} of {} are hits", tally.hits, tally.hits + tally.misses);
    }
    assert!(metric(&current, "littoral_store_objects").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_device_kills() {
    killed_when_full(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn full_device_kills_again_and_again() {
    killed_when_full(24).await;
}

/// A burst as fast as it goes, and what of it is on the disk after the node was started again.
async fn burst(bytes: u64, disk: &str, killed: bool) {
    let mut random = Random::of_run("a_burst_reads_back");
    // What it measures is the disk, too.
    let machine = Machine::alone();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let options = || node(&origin, &data, &machine, "256MiB", disk);
    let (mut all, mut total) = (Vec::new(), 0);
    while total < bytes {
        let some = mixed(all.len() as u64..all.len() as u64 + 50, &mut random);
        total += some.iter().map(|object| object.length).sum::<u64>();
        all.extend(some);
    }
    let mut before = opened(options()).await;
    let started = Instant::now();
    Tally::of(&ask_for_all(before.address(), all.clone()).await).assert_right("the burst");
    let seconds = started.elapsed().as_secs_f64();
    let lost = metric(&before, "littoral_store_lost_writes_total").await;
    let metrics = before.metrics().await;
    let writes = metrics.sum("littoral_disk_write_seconds_count", &[]);
    let slow = writes - metrics.sum("littoral_disk_write_seconds_bucket", &[("le", "0.1")]);
    eprintln!("{writes} writes, {slow} of them longer than 0.1 s");
    if killed {
        settle(&before, all.len()).await;
        before.kill().await;
    } else {
        before.terminate();
        before.end_within(Duration::from_secs(15)).await;
    }
    let after = opened(options()).await;
    let tally = Tally::of(&ask_for_all(after.address(), all.clone()).await);
    tally.assert_right("after the burst");
    let share = tally.hit_bytes as f64 / tally.bytes as f64;
    eprintln!(
        "a burst of {} MiB in {} objects, {:.0} MB/s, killed: {killed}: {lost} frames lost, {:.1} % of the bytes are hits",
        total >> 20,
        all.len(),
        total as f64 / seconds / 1e6,
        share * 100.0
    );
    assert!(share >= 0.95, "{share}: {} hits, {} misses", tally.hits, tally.misses);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_reads_back() {
    burst(128 << 20, "512MiB", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn a_gigabyte_at_once_reads_back() {
    for killed in [false, true] {
        burst(1 << 30, "2GiB", killed).await;
    }
}

/// A body larger than all memory, to one who reads as it comes and to one who begins when the other is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_larger_than_memory() {
    const FIRST_BYTES: usize = 1_000;
    let machine = Machine::shared();
    let (origin, data) = (Origin::start(), Scratch::new("data"));
    let large = Derived { number: 1, length: 300 << 20 };
    let gate = Gate::closed();
    let mut pieces = large.pieces();
    let first = pieces[0].split_to(FIRST_BYTES);
    let answer = Answer::ok(first).field("Cache-Control: max-age=86400").hold(&gate);
    origin.serve(&large.target(), pieces.into_iter().fold(answer, Answer::piece));
    // A body takes an eighth of a disk at most.
    let options = NodeOptions::before(&origin)
        .with("--data", data.path().to_str().expect("UTF-8"))
        .with("--disk", "3GiB")
        .within(&machine);
    let node = opened(options).await;

    let (mut fast, mut slow) = (node.client().await, node.client().await);
    for client in [&mut fast, &mut slow] {
        client.ask("GET", &large.target(), &[]).await;
        client.begin("GET").await.expect("a head, before the origin has sent the rest");
    }
    let begun = fast.body_of_at_least(FIRST_BYTES).await.expect("what the origin has sent");
    assert_eq!(large.check(0, &begun), Ok(()));
    gate.open();
    for (client, name, from) in [(&mut fast, "fast", begun.len() as u64), (&mut slow, "slow", 0)] {
        let started = Instant::now();
        let mut at = from;
        let end = loop {
            match client.some_body().await {
                Ok(bytes) => {
                    assert_eq!(large.check(at, &bytes), Ok(()), "the {name} one");
                    at += bytes.len() as u64;
                }
                Err(end) => break end,
            }
        };
        let metrics = node.metrics().await;
        let lost: Vec<_> = metrics.named("littoral_store_lost_writes_total", &[]).collect();
        let peak = node.peak_rss_bytes() >> 20;
        assert_eq!((at, end), (large.length, End::Whole), "the {name} one; lost: {lost:?}; {peak} MiB resident");
        eprintln!("the {name} one took {:?}", started.elapsed());
    }
    let again = large.read(&mut node.client().await).await;
    assert_eq!(again.outcome, Outcome::Hit);
    let part = large.read_part(&mut node.client().await, 200_000_000..200_900_000).await;
    assert_eq!(part.outcome, Outcome::Hit);
    assert_eq!(origin.count(&large.target()), 1);
    let peak = node.peak_rss_bytes() >> 20;
    eprintln!("{peak} MiB were resident at most; a second answer after {:?}", again.first_byte);
    assert!(peak < 256 + 64, "{peak} MiB were resident");
}

/// On a full disk what is asked for once takes nothing's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_hit_admission() {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let options = || node(&origin, &data, &machine, "256MiB", "64MiB");
    let mut node = opened(options()).await;
    let of = |numbers: std::ops::Range<u64>, length: u64| -> Vec<Derived> {
        numbers.map(|number| Derived { number, length }).collect()
    };
    let ask = async |wanted: Vec<Derived>| {
        let answers: Vec<Answered> = ask_for_all(node.address(), wanted).await;
        Tally::of(&answers).assert_right("an answer");
    };
    let outcome = async |outcome: &str| {
        let labels = [("tier", "disk"), ("outcome", outcome)];
        node.metrics().await.sum("littoral_store_admissions_total", &labels)
    };
    let mut next = 0;
    while outcome("first-time").await == 0.0 {
        assert!(next < 1_200, "a disk of 64 MiB is not full");
        ask(of(next..next + 40, 200_000)).await;
        next += 40;
    }
    assert!(outcome("stored").await >= 250.0, "a disk with room takes everything");
    let first = (outcome("first-time").await, outcome("small").await, outcome("stored").await);
    ask([of(11_000..11_030, 100_000), of(12_000..12_030, 1_000)].concat()).await;
    let second = (outcome("first-time").await, outcome("small").await, outcome("stored").await);
    assert_eq!((second.0 - first.0, second.1 - first.1, second.2 - first.2), (30.0, 30.0, 0.0));
    let twice = of(11_000..11_010, 100_000);
    ask(twice.clone()).await;
    // One that is stopped writes what is queued.
    node.terminate();
    node.end_within(Duration::from_secs(15)).await;
    let node = opened(options()).await;
    let hits = async |wanted: Vec<Derived>| Tally::of(&ask_for_all(node.address(), wanted).await).hits;
    let once = [of(11_010..11_030, 100_000), of(12_000..12_030, 1_000)].concat();
    assert_eq!((hits(twice).await, hits(once).await), (10, 0));
}
