//! When another origin is asked for what one has failed to answer, or has not answered yet.

use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";

async fn before(origins: &[&Origin], more: &str) -> Node {
    let list: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [{}]\neject = false\n{more}\n", list.join(", "));
    NodeOptions::configured_before(&nobody_listens(), &text).start().await
}

/// A request on the way the cache has nothing to do with: a GET with a body would be refused, a PUT is idempotent.
async fn put(node: &Node, target: &str) -> u16 {
    let mut client = node.client().await;
    let request = format!("PUT {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    client.send(request).await.expect("the node reads");
    client.response("PUT").await.expect("an answer").status
}

#[tokio::test]
async fn listed_statuses_are_bettered_by_another_origin() {
    let mut table = Table::new("retry.on");
    // Of the first origin, and of the second; what the client gets, and how often each is asked.
    for (name, on, first, second, expected, asked) in [
        ("not listed", "[\"timeout\"]", 503, 200, 503, [1, 0]),
        ("listed", "[503]", 503, 200, 200, [1, 1]),
        ("a class", "[\"5xx\"]", 500, 200, 200, [1, 1]),
        ("another one", "[\"500-502\"]", 503, 200, 503, [1, 0]),
        ("both", "[503]", 503, 503, 503, [1, 1]),
        ("and a better one that is none", "[503]", 503, 404, 404, [1, 1]),
    ] {
        for way in ["cached", "passed"] {
            let origins = [Origin::start(), Origin::start()];
            for (origin, status) in origins.iter().zip([first, second]) {
                origin.serve("/p", Answer::status(status));
            }
            let node = before(&[&origins[0], &origins[1]], &format!("retry = {{ on = {on} }}")).await;
            let status = if way == "cached" { node.get("/p").await.status } else { put(&node, "/p").await };
            let counts = [&origins[0], &origins[1]].map(|origin| origin.count("/p"));
            table.row(name, same(way, (status, counts), (expected, asked)));
        }
    }
    table.finish();
}

#[tokio::test]
async fn a_status_is_better_than_no_answer() {
    let mut gone = Origin::start();
    let origin = Origin::start();
    origin.serve("/p", Answer::status(503).field("X-From: the origin"));
    let node = before(&[&origin, &gone], "retry = { on = [503] }").await;
    gone.stop();
    let answer = node.get("/p").await;
    assert_eq!((answer.status, answer.field("x-from").as_deref()), (503, Some("the origin")));
}

#[tokio::test]
async fn one_that_does_not_answer_in_time_is_not_the_last_word() {
    let mut table = Table::new("timeouts");
    for (name, retry, expected, asked) in
        [("not listed", "", 504, 0), ("listed", "retry = { on = [\"timeout\"] }", 200, 1)]
    {
        for way in ["cached", "passed"] {
            let never = Gate::closed();
            let origins = [Origin::start(), Origin::start()];
            origins[0].serve("/p", Answer::ok("late").after(&never));
            origins[1].serve("/p", Answer::ok("well").field(FRESH));
            let timeouts = "timeouts = { first_byte = \"1s\", between_bytes = \"1s\" }";
            let node = before(&[&origins[0], &origins[1]], &format!("{timeouts}\n{retry}")).await;
            let status = if way == "cached" { node.get("/p").await.status } else { put(&node, "/p").await };
            table.row(name, same(way, (status, origins[1].count("/p")), (expected, asked)));
        }
    }
    table.finish();
}

/// The second origin is asked when the first one takes long, and whoever answers first counts.
#[tokio::test]
async fn a_second_request_is_sent_for_what_is_slow() {
    let slow = Gate::closed();
    let origins = [Origin::start(), Origin::start()];
    for origin in &origins {
        origin.serve("/fast", Answer::ok("fast").field(FRESH));
    }
    // In turn the first is asked first.
    origins[0].serve("/slow", Answer::ok("slow").field(FRESH).after(&slow));
    origins[1].serve("/slow", Answer::ok("second").field(FRESH));
    let with = async |hedge| before(&[&origins[0], &origins[1]], &format!("retry = {{ hedge = \"{hedge}\" }}")).await;
    let node = with("100ms").await;
    let mut table = Table::new("hedge");
    let began = Instant::now();
    let answer = node.get("/slow").await;
    table.row("slow", same("the answer", (answer.status, answer.text()), (200, "second".to_owned())));
    table.row("slow", that(began.elapsed() < Duration::from_secs(5), || format!("{:?}", began.elapsed())));
    table.row("slow", same("asked", [&origins[0], &origins[1]].map(|origin| origin.count("/slow")), [1, 1]));
    let won = node.metrics().await.sum("littoral_origin_hedges_total", &[("outcome", "won")]);
    table.row("slow", same("won", won, 1.0));
    let hit = node.get("/slow").await;
    table.row("slow", same("stored", (hit.status, hit.text()), (200, "second".to_owned())));
    // Fast even where a busy machine takes its time.
    let node = with("10s").await;
    for number in 0..10 {
        node.get(&format!("/fast?{number}")).await;
    }
    let all = node.metrics().await.sum("littoral_origin_hedges_total", &[]);
    table.row("fast", same("second requests", all, 0.0));
    table.finish();
    slow.open();
}

#[tokio::test]
async fn who_waits_for_an_origin_that_is_found_dead_is_answered_by_another() {
    let (never, checks) = (Gate::closed(), Gate::closed());
    let origins = [Origin::start(), Origin::start()];
    for origin in &origins {
        origin.serve("/p", Answer::ok("well").field(FRESH));
        origin.serve("/check", Answer::ok("well"));
    }
    origins[0].serve("/p", Answer::ok("never").after(&never));
    let health = "health = { path = \"/check\", interval = \"400ms\", timeout = \"400ms\" }";
    let node = before(&[&origins[0], &origins[1]], health).await;
    let address = node.address();
    let waits = tokio::spawn(async move { cache_tests::client::Client::connect(address).await.get("/p").await });
    origins[0].arrived("/p", 1).await;
    // From now on it is as if it had been stopped.
    origins[0].serve("/check", Answer::ok("never").after(&checks));
    let answer = tokio::time::timeout(Duration::from_secs(10), waits).await.expect("long before its timeout of 30s");
    let answer = answer.expect("no panic");
    assert_eq!((answer.status, answer.text()), (200, "well".to_owned()));
    until(Duration::from_secs(10), "it is down", || async {
        let up = node.metrics().await.sum("littoral_origin_up", &[]);
        if up == 1.0 { Ok(()) } else { Err(format!("{up} up")) }
    })
    .await;
}
