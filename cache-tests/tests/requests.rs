//! What a request does to the cache: directives of its own (RFC 9111 section 5.2.1), and methods that change things.

use cache_tests::answer::Answer;
use cache_tests::node::NodeOptions;
use cache_tests::origin::Origin;
use cache_tests::scenario::{Scenario, Step, advance, get, method, play, row, saw, serve, serve_in_turn};

fn numbered(cache_control: &str) -> Answer {
    Answer::ok("v").numbered().field(&format!("Cache-Control: {cache_control}"))
}

async fn play_all(name: &'static str, scenarios: Vec<Scenario>) {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).test_clock().start().await;
    play(name, &node, &origin, scenarios).await;
}

#[tokio::test]
async fn what_requests_ask_of_the_cache() {
    let scenarios = vec![
        row(
            "no-cache asks the origin",
            "9111 5.2.1.4",
            [
                serve(numbered("max-age=60").field("ETag: \"e\"")),
                get().body("v1").into(),
                get().with("Cache-Control: no-cache").body("v2").because("request").into(),
                get().hit().body("v2").into(),
            ],
        ),
        row(
            "Pragma: no-cache alone",
            "9111 5.4",
            [serve(numbered("max-age=60")), get().body("v1").into(), get().with("Pragma: no-cache").status(200).into()],
        ),
        row(
            "only-if-cached, not cached",
            "9111 5.2.1.7",
            [
                serve(numbered("max-age=60")),
                get().with("Cache-Control: only-if-cached").status(504).detail("only-if-cached").into(),
                saw(0),
            ],
        ),
        row(
            "only-if-cached, cached",
            "9111 5.2.1.7",
            [
                serve(numbered("max-age=60")),
                get().into(),
                get().with("Cache-Control: only-if-cached").status(200).hit().into(),
            ],
        ),
        row(
            "max-age of a request",
            "9111 5.2.1.1",
            [
                serve(numbered("max-age=100")),
                get().body("v1").into(),
                advance(50),
                get().with("Cache-Control: max-age=80").hit().body("v1").into(),
                get().with("Cache-Control: max-age=10").body("v2").forwarded().into(),
            ],
        ),
        row(
            "no-store of a request removes nothing that others share",
            "9111 5.2.1.5",
            [
                serve(numbered("max-age=100")),
                get().body("v1").into(),
                get().with("Cache-Control: no-store").body("v2").forwarded().into(),
                get().hit().body("v1").into(),
            ],
        ),
        row(
            "an authorised answer removes nothing that others share",
            "9111 3.5",
            [
                serve(numbered("max-age=100")),
                get().body("v1").into(),
                get().with("Authorization: Basic YTpi").with("Cache-Control: no-cache").body("v2").forwarded().into(),
                get().hit().body("v1").into(),
            ],
        ),
        row(
            "min-fresh of a request",
            "9111 5.2.1.3",
            [
                serve(numbered("max-age=100")),
                get().body("v1").into(),
                advance(50),
                get().with("Cache-Control: min-fresh=20").hit().body("v1").into(),
                get().with("Cache-Control: min-fresh=90").body("v2").forwarded().into(),
            ],
        ),
    ];
    play_all("requests", scenarios).await;
}

#[tokio::test]
async fn unsafe_methods_invalidate() {
    let post = || method("POST");
    let other = |answer: Answer| Step::Serve("/other", vec![answer]);
    let turn = |second: Answer| serve_in_turn([numbered("max-age=60"), second, numbered("max-age=60")]);
    let mut scenarios = vec![
        row(
            "an error changes nothing",
            "9111 4.4",
            [
                turn(Answer::status(500)),
                get().body("v1").into(),
                post().status(500).into(),
                get().hit().body("v1").into(),
            ],
        ),
        row(
            "Location on the same host",
            "9111 4.4",
            [
                turn(Answer::status(201).field("Location: {url}/other")),
                other(numbered("max-age=60")),
                get().at("/other").body("v1").into(),
                get().body("v1").into(),
                post().status(201).into(),
                get().at("/other").body("v2").forwarded().into(),
            ],
        ),
        row(
            "Location as a path",
            "9111 4.4",
            [
                turn(Answer::status(201).field("Location: {path}/other")),
                other(numbered("max-age=60")),
                get().at("/other").body("v1").into(),
                get().body("v1").into(),
                post().status(201).into(),
                get().at("/other").body("v2").forwarded().into(),
            ],
        ),
        row(
            "a safe method changes nothing",
            "9111 4.4",
            [
                turn(Answer::status(200)),
                get().body("v1").into(),
                method("OPTIONS").status(200).into(),
                get().hit().body("v1").into(),
            ],
        ),
    ];
    for name in ["POST", "PUT", "DELETE", "PATCH", "UNKNOWN"] {
        scenarios.push(row(
            name,
            "9111 4.4",
            [
                turn(Answer::status(200)),
                get().body("v1").into(),
                method(name).status(200).because("method").into(),
                get().body("v3").forwarded().into(),
            ],
        ));
    }
    play_all("invalidation", scenarios).await;
}
