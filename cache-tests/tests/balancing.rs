//! How one of several origins is chosen, and what happens when all have as many requests as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, post};
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";

/// A node before origins of these weights.
async fn before(origins: &[(&Origin, u32)], more: &str) -> Node {
    let member = |(origin, weight): &(&Origin, u32)| format!("{{ url = \"{}\", weight = {weight} }}", origin.url());
    let list = origins.iter().map(member).collect::<Vec<_>>().join(", ");
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{list}]\n{more}\n");
    NodeOptions::configured_before(&nobody_listens(), &text).test_clock().start().await
}

/// Origins that answer everything below `/p` by their number.
fn some(count: usize) -> Vec<Origin> {
    let origins: Vec<Origin> = (0..count).map(|_| Origin::start()).collect();
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/p", Answer::ok(number.to_string()).field(FRESH));
    }
    origins
}

async fn metric(node: &Node, name: &str, expected: f64) {
    until(Duration::from_secs(10), &format!("{name} is {expected}"), || async {
        let found = node.metrics().await.sum(name, &[]);
        if found == expected { Ok(()) } else { Err(format!("it is {found}")) }
    })
    .await;
}

#[tokio::test]
async fn shares_are_those_of_the_weights() {
    const REQUESTS: usize = 2_000;
    let mut table = Table::new("weights");
    // What is left to chance may be off by as much as is once in a million times.
    for (balance, off) in [("smooth-weighted", 0), ("random", 110), ("least-requests", 110), ("consistent", 110)] {
        let origins = some(3);
        let weighted = [(&origins[0], 5), (&origins[1], 3), (&origins[2], 2)];
        let node = before(&weighted, &format!("balance = \"{balance}\"")).await;
        let mut client = node.client().await;
        for number in 0..REQUESTS {
            assert_eq!(client.get(&format!("/p?{number}")).await.status, 200);
        }
        for (origin, weight) in weighted {
            let (found, expected) = (origin.heads(), REQUESTS * weight as usize / 10);
            let name = format!("{balance}, weight {weight}");
            table.row(&name, that(found.abs_diff(expected) <= off, || format!("{found}, expected {expected}")));
        }
    }
    table.finish();
}

/// The bar: an origin twice as slow gets at most 60 % of what a fast one gets. What a busy machine adds to both is little
/// beside what they take.
#[tokio::test]
async fn a_slow_origin_gets_less() {
    let mut table = Table::new("one is slow");
    for balance in ["least-requests", "ewma"] {
        let origins = some(2);
        for (origin, takes) in origins.iter().zip([Duration::from_millis(150), Duration::from_millis(300)]) {
            let runtime = tokio::runtime::Handle::current();
            origin.serve_with("/p", move |_| {
                let gate = Gate::closed();
                let opened = gate.clone();
                runtime.spawn(async move {
                    tokio::time::sleep(takes).await;
                    opened.open();
                });
                Answer::ok("well").field(FRESH).after(&gate)
            });
        }
        let node = before(&[(&origins[0], 1), (&origins[1], 1)], &format!("balance = \"{balance}\"")).await;
        let mut clients = Vec::new();
        for client in 0..16 {
            let address = node.address();
            clients.push(tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                for number in 0..20 {
                    assert_eq!(connection.get(&format!("/p?{client}-{number}")).await.status, 200);
                }
            }));
        }
        for client in clients {
            client.await.expect("a client ends");
        }
        let (fast, slow) = (origins[0].heads(), origins[1].heads());
        table.row(balance, that(slow * 100 <= fast * 60 && slow > 0, || format!("{slow} slow, {fast} fast")));
    }
    table.finish();
}

#[tokio::test]
async fn a_key_stays_where_it_is_when_another_origin_goes() {
    const KEYS: usize = 120;
    let mut origins = some(3);
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/p", Answer::ok(number.to_string()).field("Cache-Control: no-store"));
    }
    let weighted: Vec<(&Origin, u32)> = origins.iter().map(|origin| (origin, 1)).collect();
    let node = before(&weighted, "balance = \"consistent\"\nhash = \"cookie id\"").await;
    async fn places(node: &Node) -> Vec<String> {
        let mut client = node.client().await;
        let mut places = Vec::new();
        for number in 0..KEYS {
            let fields = [format!("Cookie: a=b; id={number}")];
            let answer = client.exchange("GET", &format!("/p?{number}"), &[&fields[0]]).await;
            assert_eq!(answer.status, 200);
            places.push(answer.text());
        }
        places
    }
    let at_first = places(&node).await;
    assert_eq!(places(&node).await, at_first);
    origins[2].stop();
    let left = places(&node).await;
    let moved = at_first.iter().zip(&left).filter(|(before, after)| before != after).count();
    assert!(at_first.iter().zip(&left).all(|(before, after)| before == after || before == "2"));
    assert_eq!(moved, at_first.iter().filter(|place| *place == "2").count());
    assert!((20..=60).contains(&moved), "{moved}");
}

#[tokio::test]
async fn one_that_comes_back_starts_slowly() {
    let origins = some(2);
    let more = "slow_start = \"1h\"\neject = { failures = 1, for = \"300ms\" }";
    let node = before(&[(&origins[0], 1), (&origins[1], 1)], more).await;
    let mut table = Table::new("slow start");
    for number in 0..20 {
        assert_eq!(node.get(&format!("/p?{number}")).await.status, 200);
    }
    table.row("at the start of the node", same("asked", origins[1].heads(), 10));
    origins[1].serve("/p", Answer::hang_up());
    node.get("/p?a").await;
    node.get("/p?b").await;
    metric(&node, "littoral_origin_up", 1.0).await;
    origins[1].serve("/p", Answer::ok("well").field(FRESH));
    let number = AtomicU32::new(0);
    until(Duration::from_secs(10), "a request is its trial", || async {
        node.get(&format!("/p?t{}", number.fetch_add(1, Ordering::Relaxed))).await;
        let up = node.metrics().await.sum("littoral_origin_up", &[]);
        if up == 2.0 { Ok(()) } else { Err(format!("{up} are up")) }
    })
    .await;
    let before = origins[1].heads();
    for number in 100..320 {
        assert_eq!(node.get(&format!("/p?{number}")).await.status, 200);
    }
    let share = origins[1].heads() - before;
    table.row("when it is back", that((18..=22).contains(&share), || format!("{share} of 220, expected 20")));
    table.finish();
}

#[tokio::test]
async fn nobody_gets_more_than_its_cap_and_those_that_wait_are_served_in_order() {
    let origin = Origin::start();
    origin.serve("/stale", Answer::ok("stale").field("Cache-Control: max-age=1, stale-if-error=600"));
    let gates: Vec<Gate> = (0..4).map(|_| Gate::closed()).collect();
    for (number, gate) in gates.iter().enumerate() {
        origin.serve(&format!("/q/{number}"), Answer::ok("").field(FRESH).piece("half").hold(gate).piece("rest"));
    }
    let node = before(&[(&origin, 1)], "max_requests = 2\nqueue = 2\nqueue_wait = \"30s\"").await;
    assert_eq!(node.get("/stale").await.status, 200);
    node.advance_clock(Duration::from_secs(10)).await;
    let node = Arc::new(node);
    let mut asked = Vec::new();
    for number in 0..4 {
        let address = node.address();
        asked.push(tokio::spawn(async move { Client::connect(address).await.get(&format!("/q/{number}")).await }));
        // One after the other, so that there is an order.
        match number {
            0 | 1 => origin.arrived(&format!("/q/{number}"), 1).await,
            waiting => metric(&node, "littoral_origin_queue", f64::from(waiting - 1)).await,
        }
    }
    let mut table = Table::new("all is full");
    metric(&node, "littoral_origin_in_flight", 2.0).await;
    let refused = node.get("/q/more").await;
    let said = (refused.status, refused.field("retry-after"));
    table.row("a miss", same("the answer", said, (503, Some("1".to_owned()))));
    let reason = refused.field("cache-status").unwrap_or_default();
    table.row("a miss", that(reason.contains("detail=origin-busy"), || reason.clone()));
    let mut client = node.client().await;
    client.send(post("/q/more", &[], "body")).await.expect("the node reads");
    let passed = client.response("POST").await.expect("an answer");
    let said = (passed.status, passed.field("retry-after"));
    table.row("passed", same("the answer", said, (503, Some("1".to_owned()))));
    let stale = node.get("/stale").await;
    table.row("stored", same("the answer", (stale.status, stale.text()), (200, "stale".to_owned())));
    table.row("all", same("at the origin", origin.heads(), 3));
    metric(&node, "littoral_origin_rejected_total", 3.0).await;

    // The one that came first is asked first, and only when the body before it has ended.
    gates[1].open();
    origin.arrived("/q/2", 1).await;
    metric(&node, "littoral_origin_queue", 1.0).await;
    table.row("one is over", same("at the origin", (origin.heads(), origin.count("/q/3")), (4, 0)));
    gates[0].open();
    origin.arrived("/q/3", 1).await;
    gates.iter().for_each(Gate::open);
    for answer in asked {
        let answer = answer.await.expect("a client ends");
        table.row("in the end", same("the answer", (answer.status, answer.text()), (200, "halfrest".to_owned())));
    }
    metric(&node, "littoral_origin_in_flight", 0.0).await;
    table.finish();
}

#[tokio::test]
async fn nobody_waits_longer_than_it_may() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("held").after(&gate));
    let node = before(&[(&origin, 1)], "max_requests = 1\nqueue = 1\nqueue_wait = \"100ms\"").await;
    let mut client = node.client().await;
    client.ask("GET", "/held", &[]).await;
    origin.arrived("/held", 1).await;
    assert_eq!(node.get("/other").await.status, 503);
    metric(&node, "littoral_origin_queue", 0.0).await;
    gate.open();
    assert_eq!(client.response("GET").await.map(|answer| answer.status), Ok(200));
}

/// One of a hundred requests needs a connection of its own where nothing else wants the processors. Where much does, a
/// client has its answer and asks again before its connection is back in the pool.
#[tokio::test]
async fn connections_to_origins_are_reused() {
    const CLIENTS: usize = 20;
    const EACH: usize = 200;
    let mut table = Table::new("connections");
    for way in ["cached", "passed"] {
        let origins = some(3);
        let node = Arc::new(before(&[(&origins[0], 3), (&origins[1], 2), (&origins[2], 1)], "").await);
        let mut tasks = Vec::new();
        for client in 0..CLIENTS {
            let address = node.address();
            tasks.push(tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                for number in 0..EACH {
                    let target = format!("/p?{client}-{number}");
                    if way == "cached" {
                        assert_eq!(connection.get(&target).await.status, 200);
                    } else {
                        connection.send(post(&target, &[], "body")).await.expect("the node reads");
                        assert_eq!(connection.response("POST").await.expect("an answer").status, 200);
                    }
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let requests: usize = origins.iter().map(Origin::heads).sum();
        let connections: usize = origins.iter().map(Origin::connections).sum();
        table.row(way, same("requests", requests, CLIENTS * EACH));
        let is_reused = connections <= requests / 10;
        table.row(way, that(is_reused, || format!("{connections} connections for {requests} requests")));
        println!("{way}: {connections} connections for {requests} requests");
    }
    table.finish();
}
