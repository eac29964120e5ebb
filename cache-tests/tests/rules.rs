//! Rules: what one does to requests, responses and browsers, and when it applies.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";
const NO_STORE: &str = "Cache-Control: no-store";

/// One site for everyone, with these rules: what is between the braces of `when` and of `then`.
async fn ruled(origin: &Origin, rules: &[(&str, &str)]) -> Node {
    let mut text = "[site.main]\nhosts = [\"*\"]\norigins = [\"{origin}\"]\n".to_owned();
    for (when, then) in rules {
        text += &format!("[[site.main.rule]]\nwhen = {{ {when} }}\nthen = {{ {then} }}\n");
    }
    NodeOptions::configured(origin, &text).test_clock().start().await
}

#[tokio::test]
async fn a_rule_says_how_long_the_edge_keeps_a_response() {
    let origin = Origin::start();
    for (target, control) in [("/a/short", "max-age=5"), ("/a/none", "no-cache"), ("/b/short", "max-age=5")] {
        origin.serve(target, Answer::ok("page").field(&format!("Cache-Control: {control}")));
    }
    // What no rule may override.
    origin.serve("/a/no-store", Answer::ok("page").field(NO_STORE));
    origin.serve("/a/private", Answer::ok("page").field("Cache-Control: private"));
    origin.serve("/a/cookie", Answer::ok("page").field(FRESH).field("Set-Cookie: a=b"));
    origin.serve("/a/long", Answer::ok("page").field("Cache-Control: max-age=9999999"));
    let node = ruled(&origin, &[("path = \"/a/*\"", "ttl = \"1h\"")]).await;
    let mut table = Table::new("ttl");
    let targets = ["/a/short", "/a/none", "/b/short", "/a/no-store", "/a/private", "/a/cookie", "/a/long"];
    for target in targets {
        node.get(target).await;
    }
    for (seconds, hits) in [(60, [true, true, false, false, false, false, true]), (3_600, [false; 7])] {
        node.advance_clock(Duration::from_secs(seconds)).await;
        origin.advance(Duration::from_secs(seconds));
        for (target, expected) in targets.into_iter().zip(hits) {
            let response = node.get(target).await;
            table.row(&format!("{target} after {seconds} s"), same("a hit", response.is_hit(), expected));
        }
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_says_how_large_a_stored_response_may_be() {
    let origin = Origin::start();
    let (fits, exceeds) = ("x".repeat(1000), "x".repeat(1001));
    origin.serve("/a/fits", Answer::ok(fits.clone()).field(FRESH));
    origin.serve("/a/exceeds", Answer::ok(exceeds.clone()).field(FRESH));
    origin.serve("/b/exceeds", Answer::ok(exceeds.clone()).field(FRESH));
    let node = ruled(&origin, &[("path = \"/a/*\"", "max_size = \"1000B\"")]).await;
    let mut table = Table::new("max_size");
    for (target, hit) in [("/a/fits", true), ("/a/exceeds", false), ("/b/exceeds", true)] {
        let first = node.get(target).await;
        let second = node.get(target).await;
        let detail = first.cache_status().ok().and_then(|status| status.detail);
        let expected = (!hit).then(|| "too-large".to_owned());
        table.row(target, same("a hit", second.is_hit(), hit).and(same("the reason", detail, expected)));
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_says_how_long_a_browser_keeps_a_response() {
    let origin = Origin::start();
    for target in ["/page", "/never"] {
        origin.serve(target, Answer::ok("page").field("Cache-Control: public, s-maxage=3600, max-age=10"));
    }
    let rules = [("path = \"/page\"", "browser_ttl = \"5m\""), ("path = \"/never\"", "browser_ttl = \"0s\"")];
    let node = ruled(&origin, &rules).await;
    let mut table = Table::new("browser_ttl");
    for (advance, hit) in [(0, false), (0, true), (100, true), (1_000, true)] {
        node.advance_clock(Duration::from_secs(advance)).await;
        let response = node.get("/page").await;
        table.row("a hit", same("a hit", response.is_hit(), hit));
        // A browser subtracts Age from max-age: what is left is the browser's time.
        let age: u64 = response.field("age").map_or(Ok(0), |age| age.parse()).expect("Age is a number");
        let control = response.field("cache-control").unwrap_or_default();
        let max_age = control.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="));
        let max_age: u64 = max_age.and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        let left = max_age.saturating_sub(age);
        table.row(&format!("age {age}"), that((299..=301).contains(&left), || format!("{control:?} leaves {left}")));
        table.row(&format!("age {age}"), that(!control.contains("s-maxage"), || control.clone()));
        let never = node.get("/never").await.field("cache-control").unwrap_or_default();
        table.row("0s", that(never.contains("no-cache") || never.contains("max-age=0"), || never.clone()));
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_leaves_parameters_out() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH));
    let node = ruled(&origin, &[("path = \"/page\"", "ignore_query = [\"utm_*\", \"fbclid\"]")]).await;
    let mut table = Table::new("ignore_query");
    for (query, hit) in [
        ("?x=1", false),
        ("?x=1&utm_source=a", true),
        ("?utm_source=b&x=1", true),
        ("?utm_a=1&x=1&utm_b=2&fbclid=3", true),
        ("?x=1&utm_source", true),
        ("?x=2&utm_source=a", false),
        ("?y=1&x=1", false),
        ("?x=1&fbclid2=a", false),
        ("?x=1&UTM_source=a", false),
        ("?x=1&utm=a", false),
    ] {
        let response = node.get(&format!("/page{query}")).await;
        table.row(query, same("a hit", response.is_hit(), hit));
    }
    for seen in origin.requests() {
        let left = ["utm_", "fbclid="].iter().all(|name| !seen.target.contains(name));
        table.row("origin", that(left, || seen.target.clone()));
    }
    // Nothing is left of them: the bare page.
    node.get("/page?utm_source=a").await;
    table.row("nothing left", same("a hit", node.get("/page").await.is_hit(), true));
    // Uploads are passed on without them too, and what they change is no longer stored (RFC 9111 section 4.4).
    node.client().await.exchange("POST", "/page?x=3&utm_source=a", &["Content-Length: 0"]).await;
    let last = origin.requests().pop().map(|request| request.target);
    table.row("POST", same("the target", last.as_deref(), Some("/page?x=3")));
    node.get("/page?x=4").await;
    node.client().await.exchange("POST", "/page?x=4&utm_source=a", &["Content-Length: 0"]).await;
    table.row("POST", same("a hit after it", node.get("/page?x=4").await.is_hit(), false));
    table.finish();
}

#[tokio::test]
async fn a_rule_takes_fields_away_and_sets_others() {
    let origin = Origin::start();
    let answer = Answer::ok("page")
        .field(FRESH)
        .field("Set-Cookie: a=b")
        .field("X-Frame-Options: ALLOW")
        .field("X-Powered-By: x");
    origin.serve("/page", answer.clone());
    origin.serve("/other", answer);
    let then = "strip_response = [\"set-cookie\", \"X-Powered-By\"], set_response = { \"x-frame-options\" = \"DENY\", \"x-new\" = \"1\" }";
    let node = ruled(&origin, &[("path = \"/page\"", then)]).await;
    let mut table = Table::new("fields of responses");
    for _ in 0..2 {
        for (method, hit) in [("GET", false), ("HEAD", true), ("GET", true)] {
            let response = node.client().await.exchange(method, "/page", &[]).await;
            // The POST of the round before has made what was stored invalid.
            table.row(method, same("a hit", response.is_hit(), hit));
            for (name, expected) in
                [("set-cookie", None), ("x-powered-by", None), ("x-frame-options", Some("DENY")), ("x-new", Some("1"))]
            {
                table.row(method, same(name, response.field(name).as_deref(), expected));
            }
        }
        // A security field belongs on every answer of the site, cached or not.
        let passed = node.client().await.exchange("POST", "/page", &["Content-Length: 0"]).await;
        table.row("POST", same("x-frame-options", passed.field("x-frame-options").as_deref(), Some("DENY")));
        table.row("POST", same("x-powered-by", passed.field("x-powered-by"), None));
        let other = node.get("/other").await;
        table.row("/other", same("a hit", other.is_hit(), false));
        table.row("/other", same("set-cookie", other.field("set-cookie").as_deref(), Some("a=b")));
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_says_that_nothing_is_stored() {
    let origin = Origin::start();
    for target in ["/a", "/a/but", "/b", "/c"] {
        origin.serve(target, Answer::ok("page").field(FRESH));
    }
    let rules = [
        ("path = \"/a*\"", "cache = false"),
        ("path = \"/a/but\"", "cache = true"),
        ("response = { status = 200 }, path = \"/b\"", "cache = false"),
    ];
    let node = ruled(&origin, &rules).await;
    let mut table = Table::new("cache");
    for (target, stored) in [("/a", false), ("/a/but", true), ("/b", false), ("/c", true)] {
        for round in 0..2 {
            let response = node.get(target).await;
            table.row(target, same("a hit", response.is_hit(), stored && round == 1));
            if target == "/a" {
                let detail = response.cache_status().ok().and_then(|status| status.detail);
                table.row(target, same("detail", detail.as_deref(), Some("rule")));
            }
        }
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_may_look_at_the_request() {
    let origin = Origin::start();
    origin.serve_with("/page", |_| Answer::ok("page").field(FRESH));
    let conditions = [
        ("path = [\"/none\", \"/p*e\"]", true),
        ("path = \"/Page\"", false),
        ("path = \"/page?*\"", false),
        ("host = \"WWW.*.test\"", true),
        ("host = \"other.*\"", false),
        ("method = \"GET\"", true),
        ("method = [\"POST\", \"PUT\"]", false),
        ("header = { accept = \"text/*\" }", true),
        ("header = { accept = [\"image/*\", \"*html\"] }", true),
        ("header = { accept = \"TEXT/*\" }", false),
        ("header = { \"x-none\" = false }", true),
        ("header = { \"x-none\" = true }", false),
        ("header = { Accept = true }", true),
        ("cookie = { session = \"abc*\" }", true),
        ("cookie = { session = true, other = true }", false),
        ("cookie = { other = false }", true),
        ("query = { x = \"1\" }", true),
        ("query = { x = \"2\" }", false),
        ("query = { y = true }", false),
        ("client = \"127.0.0.0/8\"", true),
        ("client = [\"10.0.0.0/8\", \"127.0.0.1/32\"]", true),
        ("client = \"10.0.0.0/8\"", false),
        ("path = \"/page\", method = \"POST\"", false),
        ("", true),
    ];
    let rules: Vec<(&str, String)> = conditions
        .iter()
        .enumerate()
        .map(|(number, (when, _))| (*when, format!("set_response = {{ \"x-rule-{number}\" = \"1\" }}")))
        .collect();
    let rules: Vec<(&str, &str)> = rules.iter().map(|(when, then)| (*when, then.as_str())).collect();
    let node = ruled(&origin, &rules).await;
    let fields = ["Accept: text/html", "Cookie: first=1; session=abcdef"];
    let response = node.client().await.exchange("GET", "/page?x=1", &fields).await;
    let mut table = Table::new("conditions");
    for (number, (when, expected)) in conditions.into_iter().enumerate() {
        table.row(when, same("applies", response.field(&format!("x-rule-{number}")).is_some(), expected));
    }
    table.finish();
}

#[tokio::test]
async fn a_rule_may_look_at_the_response() {
    let origin = Origin::start();
    let answer = |status: u16, kind: &str| {
        Answer::status(status).piece("page").field("Cache-Control: max-age=5").field(&format!("Content-Type: {kind}"))
    };
    for (target, status, kind) in [
        ("/html", 200, "Text/HTML; charset=utf-8"),
        ("/image", 200, "image/png"),
        ("/missing", 404, "text/html"),
        ("/teapot", 418, "text/plain"),
    ] {
        origin.serve(target, answer(status, kind).field("X-Kind: product"));
    }
    let set = |number: u32| format!("set_response = {{ \"x-rule-{number}\" = \"1\" }}");
    let conditions = [
        "response = { content_type = \"text/html\" }",
        "response = { content_type = [\"image/*\", \"video/*\"] }",
        "response = { status = 404 }",
        "response = { status = \"4xx\" }",
        "response = { status = \"200-299\", content_type = \"text/*\" }",
        "response = { status = [200, 418] }",
        "response = { header = { \"x-kind\" = \"prod*\" } }",
        "response = { header = { \"x-other\" = true } }",
        "path = \"/html\", response = { status = 200 }",
    ];
    let rules: Vec<(&str, String)> = conditions.iter().zip(0..).map(|(when, number)| (*when, set(number))).collect();
    let mut rules: Vec<(&str, &str)> = rules.iter().map(|(when, then)| (*when, then.as_str())).collect();
    rules.push(("response = { status = 404 }", "ttl = \"1h\""));
    let node = ruled(&origin, &rules).await;
    let mut table = Table::new("conditions on responses");
    for (target, expected) in [
        ("/html", vec![0, 4, 5, 6, 8]),
        ("/image", vec![1, 5, 6]),
        ("/missing", vec![0, 2, 3, 6]),
        ("/teapot", vec![3, 5, 6]),
    ] {
        let response = node.get(target).await;
        let found: Vec<usize> =
            (0..conditions.len()).filter(|number| response.field(&format!("x-rule-{number}")).is_some()).collect();
        table.row(target, same("rules that apply", found, expected));
    }
    node.advance_clock(Duration::from_secs(60)).await;
    table.row("ttl of a 404", same("a hit", node.get("/missing").await.is_hit(), true));
    table.row("ttl of a page", same("a hit", node.get("/html").await.is_hit(), false));
    table.finish();
}

#[tokio::test]
async fn of_one_setting_the_last_rule_wins() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=5"));
    let rules = [
        ("", "ttl = \"10s\", set_response = { a = \"1\", b = \"1\" }"),
        ("path = \"/page\"", "ttl = \"1h\", set_response = { b = \"2\" }"),
        ("path = \"/other\"", "ttl = \"1s\", set_response = { b = \"3\" }"),
    ];
    let node = ruled(&origin, &rules).await;
    let response = node.get("/page").await;
    assert_eq!([response.field("a").as_deref(), response.field("b").as_deref()], [Some("1"), Some("2")]);
    node.advance_clock(Duration::from_secs(600)).await;
    assert!(node.get("/page").await.is_hit());
}

#[tokio::test]
async fn a_rule_allows_stale_responses() {
    let origin = Origin::start();
    let page = Answer::ok("page").numbered().field("Cache-Control: max-age=10");
    origin.serve("/swr", page.clone());
    for target in ["/sie", "/none"] {
        origin.serve_in_turn(target, vec![page.clone(), Answer::status(500).piece("trouble")]);
    }
    let rules =
        [("path = \"/swr\"", "stale_while_revalidate = \"100s\""), ("path = \"/sie\"", "stale_if_error = \"100s\"")];
    let node = ruled(&origin, &rules).await;
    for target in ["/swr", "/sie", "/none"] {
        node.get(target).await;
    }
    let later = Duration::from_secs(50);
    node.advance_clock(later).await;
    origin.advance(later);
    let stale = node.get("/swr").await;
    assert_eq!((stale.status, stale.text().as_str(), stale.is_hit()), (200, "page1", true));
    origin.arrived("/swr", 2).await;
    let saved = node.get("/sie").await;
    assert_eq!((saved.status, saved.text().as_str()), (200, "page1"));
    assert_eq!(node.get("/none").await.status, 500);
    node.advance_clock(Duration::from_secs(200)).await;
    assert_eq!(node.get("/sie").await.status, 500);
}

#[tokio::test]
async fn a_rule_answers_itself() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH));
    let node = ruled(
        &origin,
        &[
            ("path = \"/old/*\"", "redirect = \"https://new.example.test{path}{query}\", redirect_status = 301"),
            ("path = \"/old/but/*\"", "redirect = \"/here\""),
            ("path = \"/gone\"", "respond = 410"),
            ("path = \"/empty\"", "respond = 204"),
            ("path = \"/page\", share = \"0%\"", "respond = 403"),
            ("path = \"/page\", method = \"POST\", share = \"100%\"", "respond = 403"),
        ],
    )
    .await;
    let mut table = Table::new("answers of rules");
    for (method, target, status, location) in [
        ("GET", "/old/a?b=c", 301, Some("https://new.example.test/old/a?b=c")),
        ("HEAD", "/old/a", 301, Some("https://new.example.test/old/a")),
        ("POST", "/old/a", 301, Some("https://new.example.test/old/a")),
        ("GET", "/old/but/not", 302, Some("/here")),
        ("GET", "/gone", 410, None),
        ("GET", "/empty", 204, None),
        ("POST", "/page", 403, None),
        ("GET", "/page", 200, None),
    ] {
        let response = node.client().await.exchange(method, target, &[]).await;
        let name = format!("{method} {target}");
        table.row(&name, same("the status", response.status, status));
        table.row(&name, same("the place", response.field("location"), location.map(str::to_owned)));
        table.row(&name, same("the end", response.end.is_clean(), true));
        if status != 200 {
            let said = response.field("cache-status").unwrap_or_default().to_owned();
            table.row(&name, that(said.ends_with("detail=rule"), || said));
        }
    }
    table.row("the origin", same("what it was asked", origin.requests().len(), 1));
    let answer = node.admin_get(&format!("/v1/explain?url=http://{HOST}/gone")).await.expect("an answer").json();
    table.row("explain", same("the status", answer["status"].as_u64(), Some(410)));
    table.finish();
}
