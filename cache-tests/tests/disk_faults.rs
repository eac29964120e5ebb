//! A disk that lies, is full, is somebody else's or goes away: it is said so, and the node goes on without a wrong byte.

use std::path::Path;
use std::time::Duration;

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::derived::{Derived, DerivedOrigin, Load, Outcome, Tally, ask_for_all};
use cache_tests::disk::{DiskFile, file_of, has_objects, is_open, opened};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::process::Scratch;
use cache_tests::random::Random;
use cache_tests::table::{Table, same, that};

const MIB: u64 = 1 << 20;

fn node(origin: &DerivedOrigin, data: &Scratch, machine: &Machine) -> NodeOptions {
    NodeOptions::before_url(&origin.url())
        .with("--data", data.path().to_str().expect("UTF-8"))
        .with("--memory", "16MiB")
        .with("--disk", "64MiB")
        .within(machine)
}

/// Objects of 300 bytes to 90 KB, and every tenth of some chunks.
fn objects(count: u64) -> Vec<Derived> {
    let length = |number: u64| if number % 10 == 9 { 300_000 + number * 1_000 } else { 300 + number * 977 % 90_000 };
    (0..count).map(|number| Derived { number, length: length(number) }).collect()
}

/// Everything is asked for, a few at a time, so that nothing is lost because the disk is busy.
async fn fill(node: &Node, objects: &[Derived]) {
    for (number, some) in objects.chunks(10).enumerate() {
        Tally::of(&ask_for_all(node.address(), some.to_vec()).await).assert_right("the fill");
        has_objects(node, (number + 1) * 10 * 9 / 10).await;
    }
}

/// No answer was wrong. One whose chunks are lost after its head was sent breaks off, and says so; whoever asks again gets
/// it. Gives how many there were.
async fn right_or_broken_off(node: &Node, tally: &Tally) -> usize {
    assert_eq!(tally.wrong, Vec::<String>::new());
    for (object, end) in &tally.broken {
        assert!(object.length > 256 << 10, "{object:?} is one frame, and broke off: {end:?}");
        let mut left = object.length.div_ceil(256 << 10);
        loop {
            let again = object.read(&mut node.client().await).await;
            assert!(!matches!(again.outcome, Outcome::Wrong(_)), "{again:?}");
            left -= 1;
            if !matches!(again.outcome, Outcome::Broken(_)) {
                break;
            }
            assert!(left > 0, "{object:?} breaks off again and again");
        }
    }
    tally.broken.len()
}

async fn damaged(node: &Node) -> f64 {
    node.metrics().await.sum("littoral_disk_damaged_total", &[])
}

/// So many bits are flipped while the node is down, and as many while it runs, in each round.
async fn bits_are_flipped(rounds: u64, flips: u64) {
    let mut random = Random::of_run("flipped_bits");
    let machine = Machine::shared();
    let all = objects(200);
    for round in 1..=rounds {
        let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
        let options = || node(&origin, &data, &machine);
        let mut before = opened(options()).await;
        fill(&before, &all).await;
        if round % 2 == 0 {
            before.terminate();
            before.end_within(Duration::from_secs(15)).await;
        } else {
            before.kill().await;
        }
        let file = DiskFile::open(data.path());
        assert!(file.frames() >= all.len() && file.segments() > 0, "{} frames", file.frames());
        file.flip(flips, &mut random);
        let after = opened(options()).await;
        let first = Tally::of(&ask_for_all(after.address(), all.clone()).await);
        let mut broken = right_or_broken_off(&after, &first).await;
        // Twice, and most of it from the disk, as it does not fit into memory.
        let file = DiskFile::open(data.path());
        let load = Load::start(after.address(), [all.clone(), all.clone()].concat());
        let mut left = flips;
        for answers in (1..=8).map(|eighth| eighth * 40) {
            file.flip((flips / 8).min(left), &mut random);
            left -= (flips / 8).min(left);
            load.reached(answers, Duration::from_secs(60)).await;
        }
        let live = Tally::of(&load.finish().await);
        broken += right_or_broken_off(&after, &live).await;
        let found = damaged(&after).await;
        eprintln!(
            "round {round}: {} frames, after {flips} flips {} of {} are hits, while {flips} more {} of {}, {found} damaged, {broken} broken off",
            file.frames(),
            first.hits,
            all.len(),
            live.hits,
            all.len() * 2
        );
        assert!(found > 0.0, "no damage is noticed");
        assert!(first.misses > 0 && live.hits > 0, "{} misses, {} hits", first.misses, live.hits);
        let last = Tally::of(&ask_for_all(after.address(), all.clone()).await);
        right_or_broken_off(&after, &last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits() {
    bits_are_flipped(2, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn thousands_of_flipped_bits() {
    bits_are_flipped(10, 400).await;
}

fn cache(data: &Path) -> std::path::PathBuf {
    data.join("cache")
}

/// Changes one value of the manifest.
fn edit_manifest(data: &Path, from: &str, to: &str) {
    let path = cache(data).join("littoral.manifest");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    assert!(text.contains(from), "no {from} in {text}");
    std::fs::write(&path, text.replace(from, to)).expect("writable");
}

async fn is_up(node: &Node) {
    until(PATIENCE, "the disk is up", || async {
        let up = node.metrics().await.sum("littoral_disk_up", &[]);
        if up == 1.0 { Ok(()) } else { Err(format!("littoral_disk_up {up}")) }
    })
    .await;
}

/// The node serves without the disk, and says why not in a line that names what is wrong.
async fn serves_without(node: &mut Node, name: &str, names: &Path, says: &str, table: &mut Table) {
    let up = until(PATIENCE, "the disk is taken out", || async {
        let metrics = node.metrics().await;
        match metrics.named("littoral_disk_up", &[]).next() {
            Some(sample) if sample.value == 0.0 => Ok(metrics.sum("littoral_disk_up", &[])),
            other => Err(format!("littoral_disk_up: {other:?}\n{}", node.said())),
        }
    })
    .await;
    table.row(name, same("littoral_disk_up", up, 0.0));
    let said = node.said();
    let names = names.to_str().expect("UTF-8");
    let line = said.lines().find(|line| line.contains("a disk of the cache is not used"));
    let line = line.unwrap_or_default();
    table.row(name, that(line.contains(names) && line.contains(says), || format!("no {names}, {says} in {said}")));
    table.row(name, that(!said.contains("panicked"), || said.clone()));
    let all = objects(40);
    Tally::of(&ask_for_all(node.address(), all.clone()).await).assert_right(name);
    let again = Tally::of(&ask_for_all(node.address(), all[..20].to_vec()).await);
    again.assert_right(name);
    table.row(name, that(again.hits > 0, || "memory is not used".into()));
    node.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_said_and_left_alone() {
    let machine = Machine::shared();
    let origin = DerivedOrigin::start().await;
    let mut table = Table::new("faults");
    type Make = fn(&Path);
    let strangers = |data: &Path| {
        std::fs::create_dir(cache(data)).expect("a directory");
        std::fs::write(file_of(data), vec![7; 70_000_000]).expect("a file");
    };
    let cases: [(&str, bool, Make, &str, &str); 5] = [
        ("no directory", false, |data| std::fs::write(cache(data), "").expect("a file"), "cache", "cannot be made"),
        ("a stranger's file", false, strangers, "cache/littoral.cache", "no littoral.manifest"),
        (
            "another format",
            true,
            |data| edit_manifest(data, "\"format\": 1", "\"format\": 2"),
            "cache/littoral.manifest",
            "format 2, this version has 1",
        ),
        (
            "wrong segments",
            true,
            |data| edit_manifest(data, "\"segment_bytes\": 4194304", "\"segment_bytes\": 5000000"),
            "cache",
            "segments of 5000000 bytes",
        ),
        (
            "a manifest that breaks off",
            true,
            |data| std::fs::write(cache(data).join("littoral.manifest"), "{\"format\"").expect("writable"),
            "cache/littoral.manifest",
            "EOF",
        ),
    ];
    for (name, used, make, names, says) in cases {
        let data = Scratch::new("data");
        let options = || node(&origin, &data, &machine);
        if used {
            opened(options()).await.kill().await;
        }
        make(data.path());
        let before = std::fs::read(file_of(data.path())).ok();
        let mut node = options().start().await;
        serves_without(&mut node, name, &data.path().join(names), says, &mut table).await;
        node.kill().await;
        let after = std::fs::read(file_of(data.path())).ok();
        table.row(name, that(before == after, || "what was there is changed".into()));
    }
    table.finish();
}

/// File systems of this node alone, where tests may have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_is_full_or_read_only_is_said() {
    let probe = std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    assert!(probe.is_ok_and(|status| status.success()), "this test needs user namespaces (unshare -rm)");
    let machine = Machine::shared();
    let origin = DerivedOrigin::start().await;
    let mut table = Table::new("file systems");
    for (name, options, says) in
        [("full", "size=40m", "No space left on device"), ("read-only", "size=1m,ro", "cannot be opened")]
    {
        let data = Scratch::new("data");
        std::fs::create_dir(cache(data.path())).expect("a directory");
        let mount = format!("mount -t tmpfs -o {options} none {}", cache(data.path()).display());
        let mut node = node(&origin, &data, &machine).behind(&mount).start().await;
        serves_without(&mut node, name, &cache(data.path()), says, &mut table).await;
    }
    // One that has room for it is used.
    let data = Scratch::new("data");
    std::fs::create_dir(cache(data.path())).expect("a directory");
    let mount = format!("mount -t tmpfs -o size=80m none {}", cache(data.path()).display());
    let node = opened(node(&origin, &data, &machine).behind(&mount)).await;
    fill(&node, &objects(20)).await;
    table.row("room", that(!file_of(data.path()).exists(), || "it is not in the file system of the test".into()));
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_in_one_directory() {
    let machine = Machine::shared();
    let (origin, shared) = (DerivedOrigin::start().await, Scratch::new("shared"));
    let text = format!(
        "[cache]\nmemory = \"64MiB\"\ndisk = [{{ path = \"{}\", size = \"64MiB\" }}]\n",
        shared.path().join("cache").display()
    );
    let all = objects(40);
    let options = || NodeOptions::configured_before(&origin.url(), &text).within(&machine);
    let first = opened(options()).await;
    let mut second = options().start().await;
    let mut table = Table::new("two nodes");
    let directory = shared.path().join("cache");
    serves_without(&mut second, "the second", &directory, "in use by another process", &mut table).await;
    fill(&first, &all).await;
    table.row("the first", same("damage", damaged(&first).await, 0.0));
    is_up(&first).await;
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_off() {
    let machine = Machine::shared();
    let all = objects(200);
    let mut table = Table::new("cut off");
    for (name, running, left) in [
        ("before a start, to nothing", false, 0),
        ("before a start, to a part", false, MIB + 77),
        ("while it runs, to nothing", true, 0),
        ("while it runs, to a part", true, MIB + 77),
    ] {
        let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
        let options = || node(&origin, &data, &machine);
        let before = opened(options()).await;
        fill(&before, &all).await;
        let cut = || {
            let file = std::fs::File::options().write(true).open(file_of(data.path())).expect("it is there");
            file.set_len(left).expect("it can be cut off");
        };
        let mut current = if running {
            cut();
            before
        } else {
            before.kill().await;
            cut();
            opened(options()).await
        };
        for _ in 0..2 {
            let tally = Tally::of(&ask_for_all(current.address(), all.clone()).await);
            right_or_broken_off(&current, &tally).await;
        }
        current.assert_alive();
        let said = current.said();
        table.row(name, that(!said.contains("panicked"), || said.clone()));
        let has_said = said.contains("WARN") || said.contains("ERROR");
        table.row(name, that(has_said || !running, || format!("nothing is said: {said}")));
        current.kill().await;
        let last = opened(options()).await;
        Tally::of(&ask_for_all(last.address(), all.clone()).await).assert_right("after the next start");
    }
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_cut_off_before_a_start_is_said() {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let before = opened(node(&origin, &data, &machine)).await;
    fill(&before, &objects(20)).await;
    before.kill().await;
    std::fs::File::options().write(true).open(file_of(data.path())).and_then(|file| file.set_len(0)).expect("cut off");
    let said = opened(node(&origin, &data, &machine)).await.said();
    let path = file_of(data.path()).display().to_string();
    assert!(said.lines().any(|line| line.contains("WARN") && line.contains(&path)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_grows_and_shrinks() {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let all = objects(200);
    let mut table = Table::new("sizes");
    let mut known = false;
    for size in ["64MiB", "200MiB", "64MiB", "100MiB", "65MiB"] {
        let node = opened(node(&origin, &data, &machine).with("--disk", size)).await;
        let file = std::fs::metadata(file_of(data.path())).expect("the file is there").len();
        let wanted: u64 = size.trim_end_matches("MiB").parse().expect("a number");
        table.row(size, that(file <= wanted * MIB && file + 12 * MIB > wanted * MIB, || format!("{file} bytes")));
        let tally = Tally::of(&ask_for_all(node.address(), all.clone()).await);
        tally.assert_right(size);
        if known {
            // All of it is in the first segments.
            table.row(size, that(tally.hit_share() > 0.9, || format!("{} of {} are hits", tally.hits, all.len())));
        } else {
            fill(&node, &all).await;
        }
        known = true;
        is_up(&node).await;
        node.kill().await;
    }
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_identity_is_for_the_operator_to_decide() {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let first = opened(node(&origin, &data, &machine)).await;
    fill(&first, &objects(20)).await;
    first.kill().await;
    std::fs::write(data.path().join("node.json"), "{}").expect("writable");
    let arguments = ["run", "--origin", &origin.url(), "--data", data.path().to_str().expect("UTF-8")];
    let (code, said) = cache_tests::node::run_to_the_end(&[&arguments[..], &["--listen", "127.0.0.1:0"]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node.json is not what this node has written"), "{said}");
    // Without it, it is another node: what is on the disk is not found, and nothing of it is served.
    std::fs::remove_file(data.path().join("node.json")).expect("it is there");
    let second = node(&origin, &data, &machine).start().await;
    is_open(&second).await;
    let tally = Tally::of(&ask_for_all(second.address(), objects(20)).await);
    tally.assert_right("another node");
    assert_eq!(tally.hits, 0);
}
