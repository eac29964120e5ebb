//! Many clients, one request to the origin: who follows, who is released, and what a failed fill does to its readers.

use std::time::Duration;

use bytes::Bytes;
use cache_tests::answer::{Answer, Framing, pattern};
use cache_tests::client::{Client, Socket, address_of};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Delivery, Origin, nobody_listens};
use cache_tests::response::{End, Response};
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";

#[tokio::test]
async fn fifty_readers_of_a_cold_object_are_one_request() {
    let origin = Origin::start();
    let whole = pattern(100_000, 1);
    let node = NodeOptions::before(&origin).start().await;
    for (target, framing) in [("/cold", Framing::Length), ("/chunked", Framing::Chunked)] {
        let gate = Gate::closed();
        let answer = Answer::ok(whole.slice(..40_000)).hold(&gate).piece(whole.slice(40_000..)).field(FRESH);
        origin.serve(target, answer.framed(framing));
        let mut clients = asking(&node, target, 50, &[]).await;
        // Everyone reads the first piece while the last is still held: nobody waits for the end of the fill.
        for client in &mut clients {
            let head = client.begin("GET").await.expect("a head while the fill arrives");
            assert_eq!(head.status, 200);
            let first = client.body_of_at_least(40_000).await.expect("the first piece");
            assert!(first == whole[..40_000], "{target}: the first piece is another one");
        }
        assert_eq!(origin.count(target), 1, "{target}");
        gate.open();
        for mut client in clients {
            let (rest, end) = client.rest().await;
            assert_eq!(end, End::Whole, "{target}");
            assert!(rest == whole[40_000..], "{target}: {} bytes, or others", rest.len());
        }
        let again = node.get(target).await;
        assert!(again.is_hit() && again.body == whole, "{target}");
        assert_eq!(origin.count(target), 1, "{target}");
    }
}

#[tokio::test]
async fn followers_say_that_they_followed() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/cold", Answer::ok("body").after(&gate).field(FRESH));
    let node = NodeOptions::before(&origin).start().await;
    let clients = asking(&node, "/cold", 10, &[]).await;
    origin.arrived("/cold", 1).await;
    waiting(&node, 10).await;
    gate.open();
    let answers = answers(clients).await;
    let starters = answers.iter().filter(|answer| answer.cache_status().is_ok_and(|status| status.stored)).count();
    for answer in &answers {
        let status = answer.cache_status().expect("a valid Cache-Status");
        // One that came late may have found the object stored.
        assert!(status.hit || status.fwd.as_deref() == Some("uri-miss"), "{status:?}");
        assert_eq!(answer.text(), "body");
    }
    assert!(starters >= 1, "nobody says that it was stored");
    assert_eq!(origin.count("/cold"), 1);
}

#[tokio::test]
async fn an_uncacheable_answer_releases_everyone_at_once() {
    let origin = Origin::start();
    let (first, others) = (Gate::closed(), Gate::closed());
    let answer = |gate: &Gate| Answer::ok("answer ").numbered().after(gate).field("Cache-Control: private");
    origin.serve_in_turn("/private", vec![answer(&first), answer(&others)]);
    let node = NodeOptions::before(&origin).start().await;
    let mut clients = asking(&node, "/private", 50, &[]).await;
    origin.arrived("/private", 1).await;
    first.open();
    // All others are at the origin at the same time, while it answers none of them: no chain.
    origin.arrived("/private", 50).await;
    // The mark holds: a second wave does not queue at all.
    clients.extend(asking(&node, "/private", 20, &[]).await);
    origin.arrived("/private", 70).await;
    others.open();
    let mut bodies: Vec<String> = answers(clients).await.iter().map(Response::text).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 70, "an answer was shared");
    assert_eq!(origin.count("/private"), 70);
}

#[tokio::test]
async fn a_failed_fill_fails_every_reader_and_is_never_stored() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("failing fills");
    for (name, framing) in [
        ("length, then FIN", Framing::ShortLength),
        ("chunks, then FIN", Framing::ShortChunks),
        ("length, then RST", Framing::ResetInLength),
        ("chunks, then RST", Framing::ResetInChunks),
        ("close-delimited, then RST", Framing::ResetInClose),
        ("a malformed chunk", Framing::MalformedChunk),
    ] {
        for (size, length) in [("small", 1_000), ("large", 700_000)] {
            let target = format!("/{framing:?}/{size}");
            let (gate, whole) = (Gate::closed(), pattern(length, 2));
            let failing = Answer::ok(whole.clone()).hold(&gate).framed(framing).field(FRESH);
            origin.serve_in_turn(&target, vec![failing, Answer::ok("good").field(FRESH)]);
            table.row(&format!("{name}, {size}"), fails_loudly(&origin, &node, &target, &gate, &whole).await);
        }
    }
    table.finish();
}

async fn fails_loudly(o: &Origin, node: &Node, target: &str, gate: &Gate, whole: &Bytes) -> Result<(), String> {
    let mut readers = asking(node, target, 5, &[]).await;
    // HTTP/1.0 has no chunks: without a length, only a reset tells its reader that something is missing.
    let mut old = node.client().await;
    old.send(format!("GET {target} HTTP/1.0\r\nHost: www.example.test\r\n\r\n")).await.map_err(|e| e.to_string())?;
    readers.push(old);
    for reader in &mut readers {
        reader.begin("GET").await.map_err(|end| format!("no head: {end:?}"))?;
        let begun = reader.body_of_at_least(whole.len()).await.map_err(|end| format!("no first piece: {end:?}"))?;
        that(begun == whole, || "the first piece is another one".to_owned())?;
    }
    same("requests of six readers", o.count(target), 1)?;
    gate.open();
    for mut reader in readers {
        let (_, end) = reader.rest().await;
        that(matches!(end, End::Cut | End::Reset), || format!("a reader's end is {end:?}"))?;
    }
    let next = node.get(target).await;
    same("the next answer", next.text().as_str(), "good")?;
    that(!next.is_hit(), || "the next request is a hit".to_owned())?;
    same("requests in all", o.count(target), 2)
}

#[tokio::test]
async fn a_fill_that_fails_before_its_head_is_502_for_all() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("no head");
    for (name, answer) in [
        ("hang-up", Answer::hang_up()),
        ("garbage", Answer::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        ("half a head", Answer::raw("HTTP/1.1 200 OK\r\nContent-Le")),
        ("a bad status", Answer::raw("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n")),
        ("two lengths", Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("a bad length", Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na")),
        ("a bad coding", Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na")),
        ("nothing but 1xx", Answer::raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(3))),
    ] {
        let target = format!("/{}", name.replace(' ', "-"));
        let gate = Gate::closed();
        origin.serve(&target, answer.after(&gate));
        let clients = asking(&node, &target, 5, &[]).await;
        origin.arrived(&target, 1).await;
        waiting(&node, 5).await;
        gate.open();
        for response in answers(clients).await {
            table.row(name, same("the status", response.status, 502));
            let detail = response.cache_status().map(|status| status.detail);
            table.row(name, that(matches!(detail, Ok(Some(_))), || format!("detail: {detail:?}")));
        }
    }
    table.finish();
}

#[tokio::test]
async fn an_origin_that_refuses_is_502_and_says_why() {
    let node = NodeOptions::before_url(&nobody_listens()).start().await;
    for method in ["GET", "HEAD", "POST"] {
        let fields: &[&str] = if method == "POST" { &["Content-Length: 0"] } else { &[] };
        let response = node.client().await.exchange(method, "/any", fields).await;
        assert_eq!(response.status, 502, "{method}");
        let status = response.cache_status().unwrap_or_else(|error| panic!("{method}: {error}"));
        assert!(!status.hit && status.detail.is_some(), "{method}: {status:?}");
    }
}

#[tokio::test]
async fn an_origin_that_says_nothing_is_504() {
    let origin = Origin::start();
    origin.serve("/silent", Answer::silent());
    let node = NodeOptions::before(&origin).with("--first-byte-timeout", "500ms").start().await;
    let clients = asking(&node, "/silent", 5, &[]).await;
    for response in answers(clients).await {
        assert_eq!(response.status, 504);
        assert!(response.cache_status().expect("a valid Cache-Status").detail.is_some());
    }
}

#[tokio::test]
async fn followers_with_another_variant_get_their_own() {
    let origin = Origin::start();
    let gate = Gate::closed();
    let answer = Answer::ok("language ").echoing("Accept-Language").field(FRESH).field("Vary: Accept-Language");
    origin.serve("/varied", answer.after(&gate));
    let node = NodeOptions::before(&origin).start().await;
    let mut clients = asking(&node, "/varied", 1, &["Accept-Language: en"]).await;
    origin.arrived("/varied", 1).await;
    for language in ["de", "fr", "en", "de", "en"] {
        clients.extend(asking(&node, "/varied", 1, &[&format!("Accept-Language: {language}")]).await);
    }
    waiting(&node, 6).await;
    gate.open();
    let bodies: Vec<String> = answers(clients).await.iter().map(Response::text).collect();
    let expected = ["en", "de", "fr", "en", "de", "en"].map(|language| format!("language {language}"));
    assert_eq!(bodies, expected);
    let asked = |language: &str| {
        let fields = origin.requests_for("/varied");
        fields.iter().filter(|request| request.field("Accept-Language").as_deref() == Some(language)).count()
    };
    assert_eq!((asked("en"), asked("fr")), (1, 1));
    assert!(asked("de") <= 2, "{} requests for two readers", asked("de"));
}

#[tokio::test]
async fn followers_of_an_authorised_starter_get_their_own() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    for (target, cache_control, shared) in [("/personal", "max-age=60", false), ("/public", "public, max-age=60", true)]
    {
        let gate = Gate::closed();
        let line = format!("Cache-Control: {cache_control}");
        origin.serve(target, Answer::ok("for ").echoing("Authorization").field(&line).after(&gate));
        let mut clients = asking(&node, target, 1, &["Authorization: Basic YTpi"]).await;
        origin.arrived(target, 1).await;
        clients.extend(asking(&node, target, 3, &[]).await);
        clients.extend(asking(&node, target, 1, &["Authorization: Basic Yzpk"]).await);
        // One that came late would find what an unauthorised one had stored meanwhile, and rightly get that.
        waiting(&node, 5).await;
        gate.open();
        let bodies: Vec<String> = answers(clients).await.iter().map(Response::text).collect();
        let expected = if shared {
            ["for Basic YTpi"; 5]
        } else {
            ["for Basic YTpi", "for none", "for none", "for none", "for Basic Yzpk"]
        };
        assert_eq!(bodies, expected, "{target}");
        assert_eq!(shared, origin.count(target) == 1, "{target}");
    }
}

#[tokio::test]
async fn a_slow_reader_slows_nobody() {
    let origin = Origin::start();
    let whole = pattern(8 * 1_024 * 1_024, 3);
    origin.serve("/large", Answer::ok(whole.clone()).field(FRESH));
    let node = NodeOptions::before(&origin).start().await;
    let socket = Socket { receive_buffer: Some(4_096), ..Socket::default() };
    let mut slow = Client::connect_with(node.address(), socket).await.expect("the node accepts");
    // The slow one is the starter, and reads nothing until all others are done.
    slow.ask("GET", "/large", &[]).await;
    origin.arrived("/large", 1).await;
    for response in answers(asking(&node, "/large", 4, &[]).await).await {
        assert!(response.body == whole, "{} bytes, or others", response.body.len());
    }
    assert_eq!(origin.count("/large"), 1);
    let late = slow.response("GET").await.expect("an answer for the slow one");
    assert!(late.body == whole && late.end == End::Whole, "{} bytes, {:?}", late.body.len(), late.end);
}

#[tokio::test]
async fn a_fill_outlives_its_starter() {
    let origin = Origin::start();
    let (whole, gate) = (pattern(200_000, 4), Gate::closed());
    origin.serve("/left", Answer::ok(whole.slice(..50_000)).hold(&gate).piece(whole.slice(50_000..)).field(FRESH));
    let node = NodeOptions::before(&origin).start().await;
    let mut starter = asking(&node, "/left", 1, &[]).await.pop().expect("one client");
    origin.arrived("/left", 1).await;
    let mut follower = asking(&node, "/left", 1, &[]).await.pop().expect("one client");
    for client in [&mut starter, &mut follower] {
        client.begin("GET").await.expect("a head");
    }
    starter.vanish();
    gate.open();
    let (body, end) = follower.rest().await;
    assert!(body == whole && end == End::Whole, "{} bytes, {end:?}", body.len());
    assert_eq!(origin.count("/left"), 1);
}

#[tokio::test]
async fn a_small_fill_abandoned_by_all_is_stored_anyway() {
    let origin = Origin::start();
    let (whole, first, second) = (pattern(300_000, 5), Gate::closed(), Gate::closed());
    let answer = Answer::ok(whole.slice(..100_000)).hold(&first).piece(whole.slice(100_000..200_000));
    origin.serve("/left", answer.hold(&second).piece(whole.slice(200_000..)).field(FRESH));
    let node = NodeOptions::before(&origin).start().await;
    let mut readers = asking(&node, "/left", 3, &[]).await;
    for reader in &mut readers {
        reader.begin("GET").await.expect("a head");
    }
    readers.into_iter().for_each(Client::vanish);
    // The middle piece finds nobody there.
    first.open();
    second.open();
    assert_eq!(origin.delivered("/left", 1).await, [Delivery::Whole]);
    let response = node.get("/left").await;
    assert!(response.body == whole, "{} bytes, or others", response.body.len());
    assert_eq!(origin.count("/left"), 1);
}

#[tokio::test]
async fn readers_of_two_objects_do_not_wait_for_each_other() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("held").after(&gate).field(FRESH));
    origin.serve("/free", Answer::ok("free").field(FRESH));
    let node = NodeOptions::before(&origin).with("--workers", "1").start().await;
    let held = asking(&node, "/held", 20, &[]).await;
    origin.arrived("/held", 1).await;
    assert_eq!(node.get("/free").await.text(), "free");
    gate.open();
    assert!(answers(held).await.iter().all(|answer| answer.text() == "held"));
}

/// So many clients that have sent a GET for `target`, and read nothing.
async fn asking(node: &Node, target: &str, count: usize, fields: &[&str]) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        let socket = Socket { from: Some(address_of(number)), ..Socket::default() };
        let client = Client::connect_with(node.address(), socket).await.expect("the node accepts");
        let mut client = client.patient(Duration::from_secs(10));
        client.ask("GET", target, fields).await;
        clients.push(client);
    }
    clients
}

/// Waits until so many requests wait for a head.
async fn waiting(node: &Node, count: usize) {
    until(PATIENCE, "requests that wait for a head", || async {
        let waiting = node.metrics().await.sum("littoral_fill_waiters", &[]);
        if waiting >= count as f64 { Ok(()) } else { Err(format!("{waiting}")) }
    })
    .await;
}

/// What each of them gets, whole.
async fn answers(clients: Vec<Client>) -> Vec<Response> {
    let mut answers = Vec::with_capacity(clients.len());
    for mut client in clients {
        let answer = client.response("GET").await.unwrap_or_else(|end| panic!("no answer: {end:?}"));
        assert_eq!(answer.end, End::Whole);
        answers.push(answer);
    }
    answers
}
