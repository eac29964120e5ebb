//! The node says why: Cache-Status on every response, of RFC 9211's form and from one closed list of reasons.

use cache_tests::answer::Answer;
use cache_tests::cache_status::is_documented;
use cache_tests::client::{HOST, request};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};

#[tokio::test]
async fn every_response_says_what_the_cache_did() {
    let origin = Origin::start();
    let body = |cache_control: &str| Answer::ok("body").field(&format!("Cache-Control: {cache_control}"));
    origin.serve("/fresh", body("max-age=60").field("ETag: \"e\""));
    origin.serve("/private", body("private"));
    origin.serve("/cookie", body("max-age=60").field("Set-Cookie: a=b"));
    origin.serve("/stale", body("max-age=0, stale-while-revalidate=60"));
    origin.serve("/failing", Answer::status(500).piece("failed"));
    origin.serve("/gone", Answer::hang_up());
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("Cache-Status");
    for (method, target, fields) in [
        ("GET", "/fresh", &[][..]),
        ("GET", "/fresh", &[]),
        ("HEAD", "/fresh", &[]),
        ("GET", "/fresh", &["If-None-Match: \"e\""]),
        ("GET", "/fresh", &["Range: bytes=0-1"]),
        ("GET", "/fresh", &["Range: bytes=9-"]),
        ("GET", "/fresh", &["Cache-Control: no-cache"]),
        ("GET", "/fresh", &["Cache-Control: no-store"]),
        ("GET", "/fresh", &["Authorization: Basic YTpi"]),
        ("POST", "/fresh", &["Content-Length: 0"]),
        ("DELETE", "/fresh", &[]),
        ("OPTIONS", "/fresh", &[]),
        ("GET", "/private", &[]),
        ("GET", "/private", &[]),
        ("GET", "/cookie", &[]),
        ("GET", "/stale", &[]),
        ("GET", "/stale", &[]),
        ("GET", "/failing", &[]),
        ("POST", "/failing", &["Content-Length: 0"]),
        ("GET", "/gone", &[]),
        ("POST", "/gone", &["Content-Length: 0"]),
        ("GET", "/no-such-page", &[]),
        ("GET", "/cold", &["Range: bytes=0-1"]),
        ("GET", "/cold", &["Cache-Control: only-if-cached"]),
    ] {
        let response = node.client().await.exchange(method, target, fields).await;
        table.row(&format!("{method} {target} {fields:?}"), explained(&response));
    }
    for (name, wire) in [
        ("refused", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nA : b\r\n\r\n")),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("CONNECT", format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n")),
        ("too long", request("GET", &format!("/{}", "a".repeat(10_000)), &[])),
    ] {
        let mut client = node.client().await;
        let _ = client.send(wire).await;
        let response = client.response("GET").await;
        table.row(name, response.map_err(|end| format!("{end:?}")).and_then(|response| explained(&response)));
    }
    table.finish();
}

#[tokio::test]
async fn followers_are_explained_too() {
    let origin = Origin::start();
    let gate = Gate::closed();
    origin.serve("/cold", Answer::ok("body").field("Cache-Control: max-age=60").after(&gate));
    let node = NodeOptions::before(&origin).start().await;
    let mut clients = vec![node.client().await, node.client().await];
    for client in &mut clients {
        client.ask("GET", "/cold", &[]).await;
    }
    origin.arrived("/cold", 1).await;
    gate.open();
    for mut client in clients {
        explained(&client.response("GET").await.expect("an answer")).expect("a valid Cache-Status");
    }
}

#[tokio::test]
async fn an_origins_own_cache_status_is_kept_before_ours() {
    let origin = Origin::start();
    let answer = Answer::ok("body").field("Cache-Control: max-age=60").field("Cache-Status: Shield; hit; ttl=9");
    origin.serve("/page", answer);
    let node = NodeOptions::before(&origin).start().await;
    for expected_hit in [false, true] {
        let response = node.get("/page").await;
        let value = response.field("cache-status").unwrap_or_default();
        assert!(value.starts_with("Shield; hit; ttl=9"), "{value}");
        assert_eq!(response.cache_status().map(|status| status.hit), Ok(expected_hit), "{value}");
    }
}

#[tokio::test]
async fn the_time_to_live_is_what_is_left() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("body").field("Cache-Control: max-age=100"));
    let node = NodeOptions::before(&origin).test_clock().start().await;
    node.get("/page").await;
    let left = |response: Response| response.cache_status().ok().and_then(|status| status.ttl);
    assert!(matches!(left(node.get("/page").await), Some(98..=100)));
    advance(&node, &origin, 40).await;
    assert!(matches!(left(node.get("/page").await), Some(58..=60)));
}

async fn advance(node: &Node, origin: &Origin, seconds: u64) {
    let by = std::time::Duration::from_secs(seconds);
    node.advance_clock(by).await;
    origin.advance(by);
}

/// What `littoral explain` says of what is stored, of what is not, and of what is no request.
#[tokio::test]
async fn a_node_explains_what_would_become_of_a_request() {
    let origin = Origin::start();
    origin.serve(
        "/page",
        Answer::ok("body").field("Cache-Control: max-age=600").field("ETag: \"e\"").field("Surrogate-Key: a b"),
    );
    origin.serve("/private", Answer::ok("body").field("Cache-Control: private"));
    let text = format!(
        "[site.main]\nhosts = \"{HOST}\"\norigins = \"{}\"\n[[site.main.rule]]\nwhen = {{ path = \"/page\" }}\n\
         then = {{ stale_if_error = \"1h\" }}\n",
        origin.url()
    );
    let node = NodeOptions::configured(&origin, &text).start().await;
    let url = |target: &str| format!("url=http://{HOST}{target}");
    let mut table = Table::new("explanations");
    let before = origin.heads();
    for (name, warm, query, outcome, said) in [
        ("cold", None, url("/page"), "fetch", "Nothing is stored"),
        ("a hit", Some("/page"), url("/page"), "hit", "Its lifetime is 600 s, from max-age of the origin"),
        ("where the rule is", None, url("/page"), "hit", "edge.toml:"),
        ("what the rule does", None, url("/page"), "hit", "may be served stale when no origin answers well"),
        ("no-cache", None, url("/page") + "&header=Cache-Control:%20no-cache", "revalidate", "wants the origin asked"),
        (
            "not stored",
            Some("/private"),
            url("/private"),
            "fetch",
            "The last answer was not stored. The response carries private.",
        ),
        ("POST", None, url("/page") + "&method=POST", "pass", "The cache has nothing to do with it"),
        (
            "another host",
            None,
            "url=http://elsewhere.test/".into(),
            "refused",
            "No site of this node answers for the host.",
        ),
    ] {
        if let Some(target) = warm {
            node.get(target).await;
        }
        let response = node.admin_get(&format!("/v1/explain?{query}")).await.expect("an answer");
        table.row(name, same("the status", response.status, 200));
        let answer = response.json();
        table.row(name, same("the outcome", answer["outcome"].as_str(), Some(outcome)));
        let sentences = answer["sentences"].to_string();
        table.row(name, that(sentences.contains(said), || sentences.clone()));
    }
    table.row("nobody is asked for an explanation", same("requests", origin.heads() - before, 2));
    for query in ["", "url=nonsense", &(url("/") + "&method=G%20T"), &(url("/") + "&header=nonsense")] {
        let response = node.admin_get(&format!("/v1/explain?{query}")).await.expect("an answer");
        table.row(query, same("the status", response.status, 400));
    }
    table.finish();
}

fn explained(response: &Response) -> Result<(), String> {
    let status = response.cache_status().map_err(|error| format!("{} {error}", response.status))?;
    same("the end", response.end.is_clean(), true)?;
    match &status.detail {
        Some(detail) => that(is_documented(detail), || format!("detail={detail} is not promised")),
        None => that(status.hit || status.fwd.is_some(), || "no reason".to_owned()),
    }
}
