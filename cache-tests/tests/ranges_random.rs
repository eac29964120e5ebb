//! Ranges at random while the object changes, is purged or has to be validated, and with less memory than they need: no
//! wrong byte, nothing out of date, and few who have to ask again.

use std::time::{Duration, Instant};

use cache_tests::client::{Client, Socket, address_of};
use cache_tests::disk::is_open;
use cache_tests::process::Scratch;
use cache_tests::random::Random;
use cache_tests::ranged::load::Load;
use cache_tests::ranged::{CHUNK, IfRange, Site, Wanted};
use serde_json::json;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All requests of a load.
const LOAD: Duration = Duration::from_secs(600);

/// How a node comes to know of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// By what it fetches. What it has may be served while it is fresh.
    Nothing,
    /// By a purge.
    Purge,
    /// It is to ask each time.
    NoCache,
}

async fn while_it_changes(clients: usize, each: usize, length: u64, memory: &str, told: Told, if_range: IfRange) {
    const CHANGES: usize = 5;
    let mut random = Random::of_run(&format!("while it changes, {told:?}, {if_range:?}"));
    let site = Site::with(|options| options.with("--memory", memory).with("--access-log", "off")).await;
    let object = site.content.add_with(length, |behaviour| {
        behaviour.if_range = if_range;
        if told == Told::NoCache {
            behaviour.fields = vec!["Cache-Control: no-cache".to_owned()];
        }
    });
    let load = Load::start(site.node.address(), clients, each, &mut random, object.anywhere());
    let mut known = Vec::new();
    for change in 1..=CHANGES {
        // The last one leaves as many requests after it as there are before the first.
        load.reached(clients * each * change / (CHANGES + 1), LOAD).await;
        object.renew();
        if told == Told::Purge {
            site.node.purge(&json!({ "tags": [object.tag()] })).await;
        }
        known.push((Instant::now(), object.version()));
    }
    let tally = load.finish().await;
    eprintln!(
        "{} ranges, {CHANGES} changes, {told:?}, {if_range:?}: of each version {:?}, {} hits, {} resets, {} lost connections, \
         {} wholes, {} MiB from the origin for {} MiB",
        tally.count(),
        tally.versions(),
        tally.hits(),
        tally.resets,
        tally.unanswered,
        tally.wholes,
        object.written() / MIB,
        tally.bytes() / MIB,
    );
    assert_eq!((tally.wrong.len(), tally.wrong.first()), (0, None));
    assert_eq!(tally.count(), clients * each);
    if told != Told::Nothing {
        assert_eq!(tally.outdated(&known), 0, "{told:?}: answers were out of date");
    }
    assert!(tally.versions().len() > 2, "the changes were hardly noticed: {:?}", tally.versions());
    let whole = object.get(&site.node, Wanted::Whole).await;
    assert!(tally.versions().keys().all(|version| *version <= whole.version), "{} is back", whole.version);
    // Rare, however many there are at work when it changes.
    let broken = tally.resets + tally.unanswered;
    assert!(broken <= (CHANGES * clients) as u64, "{broken} broke off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_changes_nobody_gets_a_mixture() {
    for told in [Told::Nothing, Told::Purge, Told::NoCache] {
        for if_range in [IfRange::Known, IfRange::Ignored] {
            while_it_changes(20, 10, 16 * MIB, "256MiB", told, if_range).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn ten_thousand_ranges_while_it_changes() {
    for told in [Told::Nothing, Told::Purge, Told::NoCache] {
        for if_range in [IfRange::Known, IfRange::Ignored] {
            while_it_changes(200, 50, GIB, "3GiB", told, if_range).await;
        }
    }
}

/// What a node may have resident, of which this is its whole budget: as with small objects, and a chunk for each of a hundred
/// clients that are sent some of one that has left memory.
fn resident_max(memory: u64) -> u64 {
    memory * 5 / 4 + 20 * MIB + 100 * CHUNK
}

/// More than memory holds, and more than the disk does.
async fn more_than_fits(clients: usize, each: usize, disk: &str) -> u64 {
    let mut random = Random::of_run("more than fits");
    let data = Scratch::new("data");
    let options = [("--memory", "64MiB"), ("--disk", disk), ("--data", data.path().to_str().expect("UTF-8"))];
    let site = Site::with(|node| options.into_iter().fold(node, |node, (name, value)| node.with(name, value))).await;
    let object = site.content.add(10 * GIB);
    let tally = Load::start(site.node.address(), clients, each, &mut random, object.anywhere()).finish().await;
    let (fetched, peak) = (object.settled().await, site.node.peak_rss_bytes());
    let needed: u64 = tally.answers.iter().map(|answer| answer.chunks().count() as u64 * CHUNK).sum();
    eprintln!(
        "{} ranges, 64 MiB of memory, disk {disk}: {} MiB fetched for chunks of {} MiB, {} resets, {} MiB resident",
        tally.count(),
        fetched / MIB,
        needed / MIB,
        tally.resets,
        peak / MIB
    );
    assert_eq!((tally.wrong.len(), tally.wrong.first()), (0, None));
    assert_eq!((tally.resets, tally.unanswered), (0, 0), "nobody is broken off for want of room");
    assert!(fetched <= needed * 5 / 4, "{fetched} bytes fetched for {needed}");
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_memory_holds() {
    more_than_fits(20, 40, "off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn more_than_memory_and_disk_hold() {
    for disk in ["off", "128MiB"] {
        let peak = more_than_fits(50, 200, disk).await;
        assert!(peak <= resident_max(64 * MIB), "disk {disk}: {} MiB were resident", peak / MIB);
    }
}

/// All of more than a disk holds, over and over in the same order: the worst there is for whoever keeps the latest. What is
/// fetched again does not take the place of what is still there.
#[tokio::test]
async fn what_a_disk_has_lost_is_fetched_without_thrashing() {
    const DISK: u64 = 64 * MIB;
    const OBJECTS: u64 = 12;
    const EACH: u64 = 8 * MIB;
    let data = Scratch::new("data");
    let options = [("--memory", "16MiB"), ("--disk", "64MiB"), ("--data", data.path().to_str().expect("UTF-8"))];
    let site = Site::with(|node| options.into_iter().fold(node, |node, (name, value)| node.with(name, value))).await;
    is_open(&site.node).await;
    let objects: Vec<_> = (0..OBJECTS).map(|_| site.content.add(EACH)).collect();
    let mut client = site.node.client().await;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let before: u64 = objects.iter().map(cache_tests::ranged::Ranged::written).sum();
        for object in &objects {
            for first in (0..EACH).step_by(MIB as usize) {
                let got = object
                    .ask(&mut client, &Wanted::part(first, MIB), &[])
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
                assert!(got.status == 206 && got.is_whole(), "{first}: {got:?}");
            }
            object.settled().await;
        }
        rounds.push(objects.iter().map(cache_tests::ranged::Ranged::written).sum::<u64>() - before);
    }
    let fetched: Vec<u64> = rounds.iter().map(|bytes| bytes / MIB).collect();
    eprintln!("{} MiB in order on a disk of {}: {fetched:?} MiB fetched", OBJECTS * EACH / MIB, DISK / MIB);
    // At least half of what the disk holds is of use each time.
    let later: u64 = rounds.iter().skip(1).sum();
    assert!(later <= 4 * (OBJECTS * EACH - DISK / 2), "{fetched:?} MiB fetched");
}

/// Clients that take their parts a megabyte at a time, one after the other; together they want far more than fits.
async fn slow_readers(count: usize, each: u64, memory_mib: u64) -> u64 {
    let site = Site::with(|options| options.with("--memory", &format!("{memory_mib}MiB"))).await;
    let object = site.content.add(10 * GIB);
    let mut readers = Vec::new();
    for number in 0..count {
        let socket = Socket { receive_buffer: Some(65_536), from: Some(address_of(number)) };
        let mut client = Client::connect_with(site.node.address(), socket).await.expect("the node accepts");
        let wanted = Wanted::part(number as u64 * 2 * each + 5, each);
        let reading = object.begin(&mut client, &wanted, &[]).await.unwrap_or_else(|error| panic!("{error}"));
        readers.push((client, reading));
    }
    let ahead = object.at_rest().await;
    for step in 1..=each / MIB {
        for (client, reading) in &mut readers {
            let to = reading.part.start + step * MIB;
            let _ = reading.read_to(client, to).await.unwrap_or_else(|error| panic!("{error}"));
        }
    }
    let whole = readers.iter().filter(|(_, reading)| reading.at == reading.part.end).count();
    let (fetched, delivered, peak) = (object.settled().await, count as u64 * each, site.node.peak_rss_bytes());
    eprintln!(
        "{count} slow readers of {} MiB each, {memory_mib} MiB of memory: {whole} have all of it, {} MiB fetched ({} before \
         anyone read on) for {} MiB, {} MiB resident",
        each / MIB,
        fetched / MIB,
        ahead / MIB,
        delivered / MIB,
        peak / MIB
    );
    assert_eq!(whole, count, "some were broken off");
    assert!(fetched <= delivered * 2, "{fetched} bytes fetched for {delivered}");
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_more_than_memory_holds_get_all_of_it() {
    slow_readers(30, 5 * MIB, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn a_hundred_slow_readers() {
    for memory_mib in [64, 256] {
        let peak = slow_readers(100, 12 * MIB, memory_mib).await;
        assert!(peak <= resident_max(memory_mib * MIB), "{} MiB were resident", peak / MIB);
    }
}
