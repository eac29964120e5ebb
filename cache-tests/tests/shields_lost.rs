//! Nodes that are killed, stand still, drain or are isolated while others ask them: these go on without.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until, within};
use cache_tests::gate::Gate;
use cache_tests::hub::{Cut, Hub, Wire};
use cache_tests::many::{current, isolated, purge_everywhere, version};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::ranged::{Content, Hold, RangedOrigin, Wanted};
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use cache_tests::tiers::{Cdn, Plan, go_on, hops, stop};
use serde_json::json;

/// How long a node that says nothing is waited for, and a little more.
const PASSED_BY: Duration = Duration::from_millis(2_200);
/// Nobody is waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

fn any(origin: &Origin, path: &str) {
    origin.serve(
        path,
        Answer::ok("version ").field("Cache-Control: max-age=6000").field("Surrogate-Key: page").numbered(),
    );
}

/// Asks for what nobody has. Gives how many caches were asked, and how long it took.
async fn asked(node: &Node, target: &str) -> (usize, Duration) {
    let began = Instant::now();
    let response = within(Duration::from_secs(8), target, node.get(target)).await;
    assert_eq!(response.status, 200, "{target}: {:?} {}", response.head, response.text());
    (hops(&response.head).unwrap_or_else(|error| panic!("{error}")).len(), began.elapsed())
}

#[tokio::test]
async fn owner_and_shield_are_killed_in_the_middle() {
    const CLIENTS: usize = 300;
    const LENGTH: u64 = 1 << 20;
    let content = Content::default();
    let origin = RangedOrigin::start(&content);
    let gate = Gate::closed();
    let object = content.add_with(LENGTH, |object| object.hold = Some(Hold::After(LENGTH / 2, gate.clone())));
    let mut cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 3), ("shield", 2)], ..Plan::default() }).await;
    let mut readings = Vec::new();
    for number in 0..CLIENTS {
        let edge = cdn.pop("edge")[number % 3];
        let mut client = edge.client().await;
        client.ask("GET", &object.target(), &[]).await;
        readings.push(client);
    }
    let mut begun = Vec::new();
    for mut client in readings {
        let head = client.begin("GET").await.expect("a head");
        let mut reading = cache_tests::ranged::Reading::begin(&object, &Wanted::Whole, head).expect("a good head");
        assert_eq!(reading.read_to(&mut client, LENGTH / 4).await, Ok(None));
        begun.push((client, reading));
    }
    assert_eq!(object.asked().len(), 1, "{:?}", object.questions());
    let asking = cdn.asking().await;
    let (owner, shield) =
        asking.iter().find(|(_, asked)| asked.starts_with("shield")).cloned().expect("a shield is asked");
    assert_eq!(asking.iter().filter(|(_, asked)| *asked == owner).count(), 2, "{asking:?}");
    let at_owner: usize = owner.trim_start_matches("edge-").parse().expect("a number");
    cdn.take(&owner).kill().await;
    cdn.take(&shield).kill().await;
    gate.open();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (number, (mut client, reading)) in begun.into_iter().enumerate() {
        // A body that is not whole and ends well is an error here.
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("client {number}: {error}"));
        let at = if number % 3 == at_owner { "at the owner" } else { "elsewhere" };
        *ends.entry(format!("{at}: {:?}", got.end)).or_default() += 1;
        assert!(
            number % 3 == at_owner || got.end == End::Whole,
            "client {number}: {:?} after {}",
            got.end,
            got.received
        );
    }
    println!("FIG: {ends:?}, the origin was asked {:?}", object.questions());
    assert!(object.asked().len() <= 2, "{:?}", object.questions());
}

#[tokio::test]
async fn a_shield_that_stands_still_is_passed_by() {
    let origin = Origin::start();
    let mut table = Table::new("a shield that stands still");
    for (shields, caches) in [(1, 1), (2, 2)] {
        let name = format!("{shields} shields");
        let path = format!("/{shields}");
        any(&origin, &path);
        let pops = [("edge", 1), ("shield", shields)];
        let cdn = Cdn::start(&origin.url(), Plan { pops: &pops, ..Plan::default() }).await;
        let edge = cdn.named("edge-0");
        stop(cdn.named("shield-0"));
        // Half of them are for the other one.
        let mut waited = Vec::new();
        let began = Instant::now();
        for number in 0..20 {
            let (count, took) = asked(edge, &format!("{path}?{number}")).await;
            table.row(&name, that(took < PASSED_BY, || format!("{number} took {took:?}")));
            table.row(&name, same("caches that were asked", count, caches));
            if took > AT_ONCE {
                waited.push(took);
            }
            if began.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
        println!("FIG: {name}: waited for it {waited:?}");
        table.row(&name, same("times it was waited for", waited.len(), 1));
        go_on(cdn.named("shield-0"));
        // What is not asked any more is asked again when it has rested.
        let mut number = 100;
        let shield = cdn.named("shield-0");
        until(PATIENCE, "it is asked again", || {
            number += 1;
            let target = format!("{path}?{number}");
            async move {
                let before = shield.metrics().await.sum("littoral_requests_total", &[]);
                asked(edge, &target).await;
                let after = shield.metrics().await.sum("littoral_requests_total", &[]);
                if after > before { Ok(()) } else { Err(format!("{after} requests")) }
            }
        })
        .await;
    }
    table.finish();
}

/// It has said that it waits for an origin, and then says nothing more.
#[tokio::test]
async fn a_shield_that_stands_still_while_it_waits_is_passed_by() {
    let mut table = Table::new("while it waits");
    for edges in [1, 3] {
        let origin = Origin::start();
        let gate = Gate::closed();
        let answer = |text: &str| Answer::ok(text.to_owned()).field("Cache-Control: max-age=600");
        origin.serve_in_turn("/page", vec![answer("one").after(&gate), answer("two")]);
        let pops = [("edge", edges), ("shield", 1)];
        let cdn = Cdn::start(&origin.url(), Plan { pops: &pops, ..Plan::default() }).await;
        let mut clients = Vec::new();
        for edge in cdn.pop("edge") {
            let mut client = edge.client().await;
            client.ask("GET", "/page", &[]).await;
            clients.push(client);
        }
        origin.arrived("/page", 1).await;
        stop(cdn.named("shield-0"));
        let stopped = Instant::now();
        let name = format!("{edges} edges");
        for mut client in clients {
            let response = client.response("GET").await.expect("an answer");
            table.row(&name, same("the answer", (response.status, response.text()), (200, "two".to_owned())));
        }
        println!("FIG: {name}: passed by after {:?}", stopped.elapsed());
        table.row(&name, same("requests at the origin", origin.count("/page"), 2));
    }
    table.finish();
}

/// A node that waits says so again and again: nobody else is asked, however long an origin takes.
#[tokio::test]
async fn a_slow_origin_makes_no_node_a_lost_one() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/slow", Answer::ok("slow").field("Cache-Control: max-age=600").after(&gate));
    let cdn = Cdn::start(&origin.url(), Plan::default()).await;
    let mut clients = Vec::new();
    for edge in cdn.pop("edge") {
        let mut client = edge.client().await;
        client.ask("GET", "/slow", &[]).await;
        clients.push(client);
    }
    origin.arrived("/slow", 1).await;
    // Longer than a node that waits and does not say so is believed.
    let began = Instant::now();
    until(PATIENCE, "the origin takes its time", || async {
        assert_eq!(origin.count("/slow"), 1);
        if began.elapsed() > Duration::from_secs(4) { Ok(()) } else { Err(String::new()) }
    })
    .await;
    gate.open();
    for mut client in clients {
        let head = client.any_head("GET").await.expect("a head");
        assert_eq!(head.status, 200, "what nodes say to one another is not for clients");
    }
    assert_eq!(cdn.hops().await as u64, 3);
}

#[tokio::test]
async fn an_owner_that_is_lost_is_passed_by() {
    let origin = Origin::start();
    any(&origin, "/page");
    let mut table = Table::new("owners");
    for (name, limit) in [("killed", AT_ONCE), ("stands still", PASSED_BY)] {
        let mut cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 2), ("shield", 1)], ..Plan::default() }).await;
        let killed = name == "killed";
        if killed {
            cdn.take("edge-1").kill().await;
        } else {
            stop(cdn.named("edge-1"));
        }
        let mut longest = Duration::ZERO;
        for number in 0..16 {
            let (count, took) = asked(cdn.named("edge-0"), &format!("/page?{name}{number}").replace(' ', "-")).await;
            longest = longest.max(took);
            table.row(name, that(took < limit, || format!("{number} took {took:?}")));
            table.row(name, same("the shield is asked all the same", count, 2));
        }
        println!("FIG: owner {name}: the longest took {longest:?}");
    }
    table.finish();
}

#[tokio::test]
async fn a_shield_that_drains_is_passed_by() {
    let origin = Origin::start();
    let gate = Gate::closed();
    any(&origin, "/page");
    origin.serve("/held", Answer::ok("held").after(&gate));
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 2), ("shield", 1)], ..Plan::default() }).await;
    let edge = cdn.named("edge-0");
    let mut held = edge.client().await;
    held.ask("GET", "/held", &[]).await;
    origin.arrived("/held", 1).await;
    let drained = cdn.named("shield-0").admin_post("/v1/drain").await.expect("an answer");
    assert_eq!(drained.status, 202, "{}", drained.text());
    let mut number = 0;
    until(PATIENCE, "it is not asked any more", || {
        number += 1;
        let target = format!("/page?{number}");
        async move {
            // Neither the owner nor the edge have anything to wait for.
            let before = cdn_asked(edge).await;
            let (_, took) = asked(edge, &target).await;
            assert!(took < AT_ONCE, "{target} took {took:?}");
            let draining = edge.admin_get("/v1/nodes").await?.json().to_string().contains("\"draining\"");
            let after = cdn_asked(edge).await;
            if draining && after == before { Ok(()) } else { Err(format!("{draining} {before} {after}")) }
        }
    })
    .await;
    gate.open();
    let response = held.response("GET").await.expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (200, "held"), "what it had begun it ends");
}

/// How often this one asked shields.
async fn cdn_asked(node: &Node) -> u64 {
    node.metrics().await.sum("littoral_node_requests_total", &[("role", "shield")]) as u64
}

#[tokio::test]
async fn a_shield_that_is_isolated_is_passed_by() {
    let origin = Origin::start();
    any(&origin, "/page");
    let mut table = Table::new("isolated");
    for cut in [Cut::BlackHole, Cut::Reset] {
        let hub = Hub::start().await;
        let wire = Wire::to(hub.address()).await;
        let plan = Plan { pops: &[("edge", 1), ("shield", 1)], wire: Some(("shield", &wire)), ..Plan::default() };
        let cdn = Cdn::following(hub, &origin.url(), plan).await;
        let (edge, shield) = (cdn.named("edge-0"), cdn.named("shield-0"));
        let name = format!("{cut:?}");
        let first = version(edge, "/page").await;
        wire.cut(cut);
        let (status, receipt) = purge_everywhere(edge, "10s").await;
        table.row(&name, same("the receipt", (status, receipt["applied"].clone()), (200, json!(true))));
        let found = version(edge, "/page").await;
        table.row(&name, that(found > first, || format!("{found} is served, {first} was purged")));
        isolated(shield).await;
        for number in 0..8 {
            let (count, took) = asked(edge, &format!("/page?{cut:?}{number}")).await;
            table.row(&name, same("caches that were asked", count, 1));
            table.row(&name, that(took < AT_ONCE, || format!("{number} took {took:?}")));
        }
        wire.cut(Cut::No);
        current(shield).await;
        let mut number = 100;
        until(PATIENCE, "it is asked again", || {
            number += 1;
            let target = format!("/page?{cut:?}{number}");
            async move {
                let (count, _) = asked(edge, &target).await;
                if count == 2 { Ok(()) } else { Err(format!("{count} caches")) }
            }
        })
        .await;
        // What it has from before is not served.
        let found = version(edge, "/page").await;
        table.row(&name, that(found > first, || format!("{found} is served, {first} was purged")));
    }
    table.finish();
}

#[tokio::test]
async fn of_five_nodes_one_leaves() {
    one_of_five_leaves(1_000, 26).await;
}

#[tokio::test]
#[ignore = "ten thousand misses; cache-tests/run --soak"]
async fn of_five_nodes_one_leaves_and_a_fifth_moves() {
    one_of_five_leaves(5_000, 22).await;
}

/// The node that asked the origin is the last in `CDN-Loop`. `percent`: how many objects may have another one afterwards.
async fn one_of_five_leaves(objects: usize, percent: usize) {
    let origin = Origin::start();
    any(&origin, "/object");
    let mut cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 5)], shield: None, ..Plan::default() }).await;
    let all = async |nodes: &[&Node]| {
        let mut asking = tokio::task::JoinSet::new();
        for (at, node) in nodes.iter().enumerate() {
            let (address, step) = (node.address(), nodes.len());
            asking.spawn(async move {
                let mut client = Client::connect(address).await;
                for number in (at..objects).step_by(step) {
                    assert_eq!(client.get(&format!("/object?{number}")).await.status, 200);
                }
            });
        }
        while let Some(ended) = asking.join_next().await {
            ended.expect("a client that found nothing wrong");
        }
    };
    let owners = |since: usize| {
        let requests = origin.requests();
        let owner = |loops: String| loops.rsplit(", ").next().unwrap_or_default().to_owned();
        let of =
            requests[since..].iter().map(|one| (one.target.clone(), owner(one.field("cdn-loop").unwrap_or_default())));
        of.collect::<BTreeMap<_, _>>()
    };
    all(&cdn.pop("edge")).await;
    let before = owners(0);
    let mut gone = cdn.take("edge-4");
    gone.terminate();
    gone.end_within(Duration::from_secs(30)).await;
    let (status, receipt) = purge_everywhere(cdn.named("edge-0"), "9s").await;
    assert_eq!((status, receipt["applied"].clone()), (200, json!(true)));
    let since = origin.requests().len();
    all(&cdn.pop("edge")).await;
    let after = owners(since);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    before.values().for_each(|owner| *counts.entry(owner).or_default() += 1);
    let left: Vec<&String> = before.values().filter(|owner| !after.values().any(|other| other == *owner)).collect();
    let moved: Vec<_> = before.iter().filter(|(target, owner)| after.get(*target) != Some(owner)).collect();
    println!("FIG: {objects} objects, {counts:?} of each node, {} moved", moved.len());
    assert_eq!((counts.len(), before.len(), after.len()), (5, objects, objects));
    assert_eq!(moved.len(), left.len(), "only what it had moves");
    assert!(moved.len() * 100 <= objects * percent, "{} of {objects} moved", moved.len());
}
