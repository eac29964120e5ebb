//! `memory` is the whole budget, and a small object costs little more than itself.

use cache_tests::bulk::{CheapOrigin, ask_for_all};
use cache_tests::node::{Node, NodeOptions};

const KIB: u64 = 1_024;
const MIB: u64 = 1_024 * KIB;
const BODY: usize = 1_024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_small_objects_cost_little_over_their_bodies() {
    const FIRST: u64 = 10_000;
    const OBJECTS: u64 = 100_000;
    let (origin, node) = site("1GiB", "off").await;
    // Buffers, connections and threads are there before the measure begins.
    ask_for_all(node.address(), 0..FIRST, BODY).await;
    let before = node.rss_bytes();
    ask_for_all(node.address(), FIRST..FIRST + OBJECTS, BODY).await;
    let each = node.rss_bytes().saturating_sub(before) / OBJECTS;
    eprintln!("an object of {BODY} bytes costs {each} bytes");
    assert!(each >= BODY as u64, "{each} bytes each: they were not stored");
    assert!(each <= BODY as u64 + 600, "{each} bytes each, {} over the body", each - BODY as u64);
    // They are all there.
    let asked = origin.requests();
    ask_for_all(node.address(), FIRST..FIRST + 1_000, BODY).await;
    ask_for_all(node.address(), FIRST + OBJECTS - 1_000..FIRST + OBJECTS, BODY).await;
    assert_eq!(origin.requests(), asked, "some were lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_urls_than_fit_stay_within_the_budget() {
    let (origin, node) = site("64MiB", "off").await;
    more_than_fit(&origin, &node).await;
    let stored = node.metrics().await.sum("littoral_store_bytes", &[]);
    assert!(stored <= (64 * MIB) as f64, "{stored} bytes are said to be stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_urls_than_a_disk_takes_stay_within_both_budgets() {
    let (origin, node) = site("64MiB", "128MiB").await;
    more_than_fit(&origin, &node).await;
    let on_disk = node.metrics().await.sum("littoral_store_bytes", &[("tier", "disk")]);
    assert!((64 * MIB..=128 * MIB).contains(&(on_disk as u64)), "{on_disk} bytes are on the disk");
}

async fn more_than_fit(origin: &CheapOrigin, node: &Node) {
    ask_for_all(node.address(), 0..300_000, BODY).await;
    assert_eq!(origin.requests(), 300_000);
    within(node, 64 * MIB * 5 / 4 + 20 * MIB);
    // The budget is used, not only kept.
    assert!(node.rss_bytes() > 40 * MIB, "only {} MiB are in use", node.rss_bytes() / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn millions_of_urls_stay_within_the_budget() {
    millions("off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn millions_of_urls_stay_within_the_budget_with_a_disk() {
    let node = millions("2GiB").await;
    let on_disk = node.metrics().await.sum("littoral_store_bytes", &[("tier", "disk")]);
    assert!(((1 << 30)..=(2 << 30)).contains(&(on_disk as u64)), "{on_disk} bytes are on the disk");
}

async fn millions(disk: &str) -> Node {
    let urls = if std::env::var_os("LITTORAL_SOAK_LONG").is_some() { 10_000_000 } else { 2_000_000 };
    let (origin, node) = site("256MiB", disk).await;
    let step = 100_000;
    for start in (0..urls).step_by(step as usize) {
        ask_for_all(node.address(), start..start + step, BODY).await;
        within(&node, 320 * MIB);
    }
    assert_eq!(origin.requests(), urls);
    node
}

async fn site(memory: &str, disk: &str) -> (CheapOrigin, Node) {
    let origin = CheapOrigin::start(BODY).await;
    let options = NodeOptions::before_url(&origin.url()).with("--memory", memory).with("--disk", disk);
    (origin, options.with("--access-log", "/dev/null").alone().start().await)
}

fn within(node: &Node, limit: u64) {
    let peak = node.peak_rss_bytes();
    eprintln!("{} MiB were resident at most", peak / MIB);
    assert!(peak <= limit, "{} MiB were resident, {} MiB are allowed", peak / MIB, limit / MIB);
}
