//! Nodes ask one another: the owner of an object in their PoP, that the shield, and that the origin. What clients and origins see of
//! it. Nodes that are lost are in `shields_lost.rs`, forged requests and several sites in `shields_asked.rs`.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, post};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::many::{purge_everywhere, version};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::ranged::{CHUNK, Content, RangedOrigin, Wanted};
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use cache_tests::tiers::{Cdn, Hop, Plan, hops};
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3_600);

fn hops_of(response: &Response) -> Vec<Hop> {
    hops(&response.head).unwrap_or_else(|error| panic!("{error}"))
}

fn age_of(response: &Response) -> u64 {
    response.field("age").and_then(|age| age.parse().ok()).unwrap_or(0)
}

/// Asks until the answer is a hit of the node itself.
async fn becomes_hit(node: &Node, target: &str) -> Response {
    until(PATIENCE, &format!("{target} is a hit"), || async {
        let response = node.get(target).await;
        if response.is_hit() { Ok(response) } else { Err(format!("{:?}", response.field("cache-status"))) }
    })
    .await
}

#[tokio::test]
async fn three_hundred_clients_cost_the_origin_one_request() {
    const CLIENTS: usize = 300;
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/cold", Answer::ok("version ").field("Cache-Control: max-age=60").numbered().after(&gate));
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 3), ("shield", 2)], ..Plan::default() }).await;
    let edges = cdn.pop("edge");
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = edges[number % edges.len()].client().await;
        client.ask("GET", "/cold", &[]).await;
        clients.push(client);
    }
    origin.arrived("/cold", 1).await;
    until(PATIENCE, "all of them wait", || async {
        let waiting = cdn.sum("edge", "littoral_fill_waiters", &[]).await;
        // Two edges wait at the third.
        if waiting > CLIENTS as f64 + 1.5 { Ok(()) } else { Err(format!("{waiting}")) }
    })
    .await;
    gate.open();
    for mut client in clients {
        let response = client.response("GET").await.expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "version 1"));
    }
    assert_eq!(origin.requests().len(), 1);
    assert!(origin.requests()[0].field("littoral-node").is_none(), "that is between nodes: {:?}", origin.requests());
    println!("{CLIENTS} clients, {} requests between nodes, 1 at the origin", cdn.hops().await);
}

#[tokio::test]
async fn every_hop_says_what_it_did() {
    let origin = Origin::start();
    let answer = Answer::ok("text").field("Cache-Control: max-age=600").field("ETag: \"one\"").field("Age: 5");
    let answer = answer.field("Surrogate-Key: page");
    for number in 0..8 {
        origin.serve(&format!("/{number}"), answer.clone());
    }
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 2), ("shield", 1)], ..Plan::default() }).await;
    let (one, other) = (cdn.named("edge-0"), cdn.named("edge-1"));
    let mut table = Table::new("hops");
    let mut counts = Vec::new();
    for number in 0..8 {
        let target = format!("/{number}");
        let first = one.get(&target).await;
        let members = hops_of(&first);
        table.row(
            &target,
            that(members.iter().all(|hop| hop.fwd.as_deref() == Some("uri-miss")), || format!("{members:?}")),
        );
        counts.push(members.len());
        for name in ["surrogate-key", "littoral-node", "littoral-answered"] {
            table.row(&target, same(name, first.field(name), None));
        }
        table.row(&target, that(age_of(&first) >= 5, || format!("Age: {}", age_of(&first))));
        cdn.advance_clocks(Duration::from_secs(10)).await;
        origin.advance(Duration::from_secs(10));
        // It has it, or the owner or the shield have: the time there is part of the age.
        let second = other.get(&target).await;
        let members = hops_of(&second);
        table.row(&target, that(members.iter().any(|hop| hop.hit), || format!("no hit: {members:?}")));
        table.row(&target, that((15..=17).contains(&age_of(&second)), || format!("Age: {}", age_of(&second))));
        becomes_hit(one, &target).await;
        let third = one.client().await.exchange("GET", &target, &["If-None-Match: \"one\""]).await;
        table.row(&target, same("not modified", (third.status, third.body.len()), (304, 0)));
        table.row(&target, same("at the origin", origin.count(&target), 1));
    }
    // Edge and shield, where the edge owns it; else edge, owner and shield.
    table.row("all", that(counts.contains(&2) && counts.contains(&3), || format!("{counts:?} members")));
    table.row("all", that(counts.iter().all(|count| matches!(count, 2 | 3)), || format!("{counts:?} members")));
    table.finish();
}

#[tokio::test]
async fn a_validation_goes_through_all_tiers() {
    let origin = Origin::start();
    let fresh = |status| Answer::status(status).field("Cache-Control: max-age=60").field("ETag: \"one\"");
    origin.serve("/page", fresh(200).piece("text").when_matched("\"one\"", fresh(304)));
    let cdn = Cdn::start(&origin.url(), Plan::default()).await;
    for node in cdn.pop("edge") {
        node.get("/page").await;
        becomes_hit(node, "/page").await;
    }
    cdn.advance_clocks(Duration::from_secs(100)).await;
    origin.advance(Duration::from_secs(100));
    let mut table = Table::new("validations");
    for (number, node) in cdn.pop("edge").into_iter().enumerate() {
        let fields: &[&str] = if number == 1 { &["If-None-Match: \"one\""] } else { &[] };
        let response = node.client().await.exchange("GET", "/page", fields).await;
        let expected = if number == 1 { (304, String::new()) } else { (200, "text".to_owned()) };
        table.row(&format!("edge {number}"), same("the answer", (response.status, response.text()), expected));
        becomes_hit(node, "/page").await;
    }
    let asked: Vec<_> = origin.requests_for("/page").iter().map(|request| request.field("if-none-match")).collect();
    table.row("the origin", same("requests", asked, vec![None, Some("\"one\"".to_owned())]));
    table.finish();
}

#[tokio::test]
async fn a_purge_reaches_what_came_through_a_shield() {
    let origin = Origin::start();
    let page = Answer::ok("version ").field("Cache-Control: max-age=6000").field("Surrogate-Key: page other");
    origin.serve("/page", page.numbered());
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 3), ("shield", 2)], ..Plan::default() }).await;
    let edges = cdn.pop("edge");
    let mut table = Table::new("purges");
    for (name, body) in [
        ("by tag", json!({ "tags": ["page"] })),
        ("by URL", json!({ "urls": ["http://www.example.test/page"] })),
        ("by tag, soft", json!({ "tags": ["other"], "mode": "invalidate" })),
        ("by URL, soft", json!({ "urls": ["http://www.example.test/page"], "mode": "invalidate" })),
        ("by site", json!({ "sites": ["shop"] })),
    ] {
        for edge in &edges {
            version(edge, "/page").await;
            becomes_hit(edge, "/page").await;
        }
        let before = origin.count("/page") as u64;
        let receipt = cdn.named("shield-0").admin_json("POST", "/v1/purge?wait=all&timeout=9s", &body, None).await;
        table.row(name, same("the receipt", receipt.json()["applied"].clone(), json!(true)));
        for edge in &edges {
            let found = version(edge, "/page").await;
            table.row(name, that(found > before, || format!("{found} is served, {before} was purged")));
        }
        table.row(name, same("at the origin", origin.count("/page") as u64, before + 1));
    }
    let (status, receipt) = purge_everywhere(edges[0], "9s").await;
    table.row("receipt", same("nodes", (status, receipt["nodes"].as_array().map(Vec::len)), (200, Some(5))));
    table.finish();
}

#[tokio::test]
async fn a_range_has_chunks_fetched_and_no_more() {
    let content = Content::default();
    let origin = RangedOrigin::start(&content);
    let cdn = Cdn::start(&origin.url(), Plan::default()).await;
    let edges = cdn.pop("edge");
    let mut table = Table::new("ranges");
    for (name, wanted, chunks) in [
        ("one byte", Wanted::part(9 * CHUNK + 77, 1), 1),
        ("in two chunks", Wanted::part(5 * CHUNK - 10, 20), 2),
        ("the last", Wanted::Last(100), 1),
        ("the first", Wanted::part(0, 100), 1),
    ] {
        let object = content.add(16 << 20);
        for (number, edge) in edges.iter().enumerate() {
            let got = object.try_get(edge, wanted.clone()).await;
            let row = format!("{name}, edge {number}");
            table.row(&row, got.and_then(|got| same("the answer", (got.status, got.is_whole()), (206, true))));
            let bytes = object.settled().await;
            // One more for a chunk that is asked for ahead.
            table.row(&row, that(bytes <= (chunks + 1) * CHUNK, || format!("{bytes} bytes: {:?}", object.questions())));
            table.row(&row, same("requests at the origin", object.asked().len(), 1));
            let found = object.becomes_hit(edge, wanted.clone()).await;
            table.row(&row, found.map(|_| ()));
        }
    }
    // The whole, when the middle is there: the origin gives the rest.
    let object = content.add(4 << 20);
    object.get(edges[0], Wanted::part(5 * CHUNK, CHUNK)).await;
    let got = object.get(edges[1], Wanted::Whole).await;
    table.row("the rest", same("the answer", (got.status, got.received), (200, object.length())));
    let bytes = object.settled().await;
    table.row("the rest", that(bytes <= object.length() + CHUNK, || format!("{bytes}: {:?}", object.questions())));
    table.finish();
}

#[tokio::test]
async fn the_hottest_are_on_every_node() {
    const OBJECTS: u64 = 100;
    let origin = Origin::start();
    for number in 0..OBJECTS {
        origin.serve(&format!("/hot/{number}"), Answer::ok("hot").field("Cache-Control: max-age=6000"));
    }
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 5), ("shield", 1)], ..Plan::default() }).await;
    for _ in 0..2 {
        for edge in cdn.pop("edge") {
            let mut client = edge.client().await;
            for number in 0..OBJECTS {
                assert_eq!(client.get(&format!("/hot/{number}")).await.status, 200);
            }
        }
    }
    let before = cdn.hops().await;
    for edge in cdn.pop("edge") {
        let mut client = edge.client().await;
        for number in 0..OBJECTS {
            let response = client.get(&format!("/hot/{number}")).await;
            assert!(response.is_hit(), "{number}: {:?}", response.field("cache-status"));
        }
    }
    assert_eq!((cdn.hops().await - before) as u64, 0, "requests between nodes");
    assert_eq!(origin.requests().len() as u64, OBJECTS);
}

/// What is stale at a shield is stale at the edge too, since then.
#[tokio::test]
async fn stale_content_is_never_a_fresh_hit() {
    let mut table = Table::new("stale");
    for name in ["expired", "soft purge"] {
        let origin = Origin::start();
        let gate = Gate::closed();
        let page = |held: bool| {
            let page = Answer::ok("version ").field("Cache-Control: max-age=60, stale-while-revalidate=86400");
            let page = page.field("Surrogate-Key: page").numbered();
            if held { page.after(&gate) } else { page }
        };
        origin.serve_in_turn("/page", vec![page(false), page(true)]);
        let cdn =
            Cdn::start(&origin.url(), Plan { pops: &[("edge", 1), ("far", 1), ("shield", 1)], ..Plan::default() })
                .await;
        let (edge, far) = (cdn.named("edge-0"), cdn.named("far-0"));
        version(far, "/page").await;
        becomes_hit(far, "/page").await;
        if name == "expired" {
            cdn.advance_clocks(HOUR).await;
            origin.advance(HOUR);
        } else {
            let body = json!({ "tags": ["page"], "mode": "invalidate" });
            let receipt = far.admin_json("POST", "/v1/purge?wait=all&timeout=9s", &body, None).await.json();
            table.row(name, same("the receipt", receipt["applied"].clone(), json!(true)));
        }
        // The edge has nothing of it, and the shield what is stale; what it has is renewed while the origin takes its time.
        let mut client: Client = edge.client().await;
        client.ask("GET", "/page", &[]).await;
        origin.arrived("/page", 2).await;
        let response = client.response("GET").await.expect("an answer");
        table.row(name, same("the first", response.text().as_str(), "version 1"));
        // The shield says so.
        let why = hops_of(&response).into_iter().next().and_then(|hop| hop.detail);
        table.row(name, that(why.is_some(), || format!("nothing says that it is stale: {:?}", response.head)));
        for _ in 0..3 {
            let again = edge.get("/page").await;
            let hop = hops_of(&again).pop().unwrap_or_default();
            let is_stale = again.text() == "version 1";
            table.row(name, that(!is_stale || hop.detail.is_some(), || format!("a fresh hit: {hop:?}")));
            table.row(
                name,
                that(!is_stale || name != "expired" || age_of(&again) >= 3_600, || format!("Age: {}", age_of(&again))),
            );
        }
        gate.open();
        until(PATIENCE, "the new one", || async {
            let found = version(edge, "/page").await;
            if found >= 2 { Ok(()) } else { Err(format!("{found}")) }
        })
        .await;
    }
    table.finish();
}

#[tokio::test]
async fn what_was_changed_through_one_edge_is_new_there() {
    let origin = Origin::start();
    let cdn = Cdn::start(&origin.url(), Plan { pops: &[("edge", 3), ("shield", 2)], ..Plan::default() }).await;
    let edges = cdn.pop("edge");
    let mut table = Table::new("unsafe requests");
    for number in 0..6 {
        let target = format!("/item/{number}");
        origin.serve(&target, Answer::ok("version ").field("Cache-Control: max-age=6000").numbered());
        for edge in &edges {
            version(edge, &target).await;
            becomes_hit(edge, &target).await;
        }
        let edge = edges[number % edges.len()];
        let mut client = edge.client().await;
        client.send(post(&target, &[], "new")).await.expect("it is sent");
        table.row(&target, same("POST", client.response("POST").await.map(|response| response.status), Ok(200)));
        // The first GET and the POST came before it.
        table.row(&target, same("the next GET", version(edge, &target).await, 3));
    }
    table.finish();
}
