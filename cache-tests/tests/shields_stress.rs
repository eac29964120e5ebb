//! Purges while fills run at all tiers: once a receipt says that one is applied everywhere, nobody is served what it purged.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::{Client, HOST};
use cache_tests::deadline::within;
use cache_tests::gate::Gate;
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::many::current;
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::random::Random;
use cache_tests::response::End;
use cache_tests::tiers::{Cdn, Plan};
use serde_json::json;

const OBJECTS: usize = 24;
const CLIENTS: usize = 18;
const PURGERS: usize = 3;
/// How long the origin takes for a body: fills are under way at all tiers meanwhile.
const TAKES: Duration = Duration::from_millis(20);

#[tokio::test]
async fn what_was_purged_is_not_served() {
    stress(Duration::from_secs(3), false).await;
}

#[tokio::test]
#[ignore = "twenty seconds of load; cache-tests/run --soak"]
async fn what_was_purged_is_not_served_for_twenty_seconds() {
    stress(Duration::from_secs(20), false).await;
}

#[tokio::test]
#[ignore = "twenty seconds of load; cache-tests/run --soak"]
async fn what_was_purged_is_not_served_while_shields_are_cut_off() {
    stress(Duration::from_secs(20), true).await;
}

/// What everybody knows.
struct Shared {
    origin: Origin,
    /// Answers up to this number must not be served any more, of each object.
    oldest: [AtomicU64; OBJECTS],
    stop: AtomicBool,
    answers: AtomicU64,
    hits: AtomicU64,
    purges: AtomicU64,
}

fn target(object: usize) -> String {
    format!("/object/{object}")
}

/// Each answer begins with its number, and its body waits a while after that.
fn serve(shared: &Arc<Shared>, held: &Arc<Mutex<VecDeque<(Instant, Gate)>>>) {
    let rest = pattern(100_000, 3);
    for object in 0..OBJECTS {
        let (held, rest) = (held.clone(), rest.clone());
        shared.origin.serve_with(&target(object), move |request| {
            let gate = Gate::closed();
            held.lock()
                .expect("nobody panics with the gates in hand")
                .push_back((Instant::now() + TAKES, gate.clone()));
            let answer = Answer::ok(format!("{} ", request.number)).field("Cache-Control: max-age=6000");
            let answer = answer.field(&format!("Surrogate-Key: all object-{object}"));
            // Some can be validated, and are not what they were.
            let answer = if object % 2 == 0 { answer.field(&format!("ETag: \"{}\"", request.number)) } else { answer };
            answer.hold(&gate).piece(rest.clone())
        });
    }
}

async fn purge(shared: Arc<Shared>, admins: Vec<std::net::SocketAddr>, number: usize) {
    let mut random = Random::seeded(number as u64 + 1);
    while !shared.stop.load(Ordering::SeqCst) {
        let object = random.below(OBJECTS as u64) as usize;
        let mode = if random.below(2) == 0 { "delete" } else { "invalidate" };
        let body = match random.below(2) {
            0 => json!({ "urls": [format!("http://{HOST}{}", target(object))], "mode": mode }),
            _ => json!({ "tags": [format!("object-{object}")], "mode": mode }),
        };
        let said = shared.origin.count(&target(object)) as u64;
        let admin = admins[random.below(admins.len() as u64) as usize];
        let mut client = Client::connect(admin).await.patient(Duration::from_secs(20));
        let body = body.to_string();
        let head = format!(
            "POST /v1/purge?wait=all&timeout=15s HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head + &body).await.expect("it is sent");
        let receipt = client.response("POST").await.expect("a receipt");
        // One that is cut off from the hub cannot give one.
        if receipt.status == 200 && receipt.json()["applied"] == json!(true) {
            shared.oldest[object].fetch_max(said, Ordering::SeqCst);
            shared.purges.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn look(shared: Arc<Shared>, address: std::net::SocketAddr, number: usize) {
    let mut random = Random::seeded(number as u64 + 100);
    let mut client = Client::connect(address).await;
    while !shared.stop.load(Ordering::SeqCst) {
        let object = random.below(OBJECTS as u64) as usize;
        let oldest = shared.oldest[object].load(Ordering::SeqCst);
        let response = within(Duration::from_secs(8), &target(object), client.get(&target(object))).await;
        let text = response.text();
        assert_eq!((response.status, &response.end), (200, &End::Whole), "{:?} {text}", response.head);
        let found: u64 = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(
            found > oldest,
            "object {object}: {found} is served, all up to {oldest} was purged: {:?}",
            response.head
        );
        shared.answers.fetch_add(1, Ordering::Relaxed);
        shared.hits.fetch_add(u64::from(response.is_hit()), Ordering::Relaxed);
    }
}

async fn stress(time: Duration, cuts: bool) {
    let counts = || AtomicU64::new(0);
    let shared = Arc::new(Shared {
        origin: Origin::start(),
        oldest: std::array::from_fn(|_| counts()),
        stop: AtomicBool::new(false),
        answers: counts(),
        hits: counts(),
        purges: counts(),
    });
    let held = Arc::new(Mutex::new(VecDeque::new()));
    serve(&shared, &held);
    let hub = Hub::start().await;
    let wire = Wire::to(hub.address()).await;
    let plan = Plan { pops: &[("edge", 3), ("shield", 2)], wire: Some(("shield", &wire)), ..Plan::default() };
    let cdn = Cdn::following(hub, &shared.origin.url(), plan).await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        all.spawn(look(shared.clone(), cdn.pop("edge")[number % 3].address(), number));
    }
    let who = if cuts { cdn.pop("edge") } else { cdn.nodes.iter().map(|placed| &placed.node).collect() };
    let admins: Vec<_> = who.into_iter().map(Node::admin).collect();
    for number in 0..PURGERS {
        all.spawn(purge(shared.clone(), admins.clone(), number));
    }
    let begun = Instant::now();
    let mut turn = tokio::time::interval(Duration::from_millis(5));
    while begun.elapsed() < time {
        turn.tick().await;
        let mut held = held.lock().expect("nobody panics with the gates in hand");
        while held.front().is_some_and(|(due, _): &(Instant, Gate)| *due <= Instant::now()) {
            held.pop_front().into_iter().for_each(|(_, gate)| gate.open());
        }
        drop(held);
        if cuts {
            // Four seconds without, which is more than a lease, and one with.
            let without = begun.elapsed().as_secs() % 6 < 4;
            wire.cut(if without { Cut::BlackHole } else { Cut::No });
        }
        if let Some(ended) = all.try_join_next() {
            ended.expect("a client that found nothing wrong");
        }
    }
    wire.cut(Cut::No);
    shared.stop.store(true, Ordering::SeqCst);
    while !all.is_empty() {
        tokio::select! {
            Some(ended) = all.join_next() => ended.expect("a client that found nothing wrong"),
            _ = turn.tick() => held.lock().expect("nobody panics").drain(..).for_each(|(_, gate)| gate.open()),
        }
    }
    for placed in &cdn.nodes {
        current(&placed.node).await;
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (answers, hits, purges) = (of(&shared.answers), of(&shared.hits), of(&shared.purges));
    let (hops, asked) = (cdn.hops().await, shared.origin.requests().len());
    println!(
        "FIG: {answers} answers, {hits} hits, {purges} purges, {hops} requests between nodes, {asked} at the origin"
    );
    assert!(answers > 100 && hits > 0 && purges > 5 && hops > 10.0, "too little happened");
}
