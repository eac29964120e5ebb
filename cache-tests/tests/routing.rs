//! Where requests go: groups of origins, shares of clients, other paths, countries.

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, Socket, address_of};
use cache_tests::countries::database;
use cache_tests::deadline::until;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};
use std::time::Duration;

const FRESH: &str = "Cache-Control: max-age=60";
const STALE: &str = "Cache-Control: max-age=1, stale-while-revalidate=600";
const BETA: [&str; 1] = ["X-Beta: 1"];

/// A site with its own origin and two groups, and these rules: what is between the braces of `when` and of `then`.
fn site(origins: [&Origin; 3], more: &str, rules: &[(&str, &str)]) -> String {
    let [own, canary, next] = origins.map(Origin::url);
    let mut text = format!("[site.main]\nhosts = [\"*\"]\norigins = [\"{own}\"]\n{more}\n");
    text +=
        &format!("[site.main.group.canary]\norigins = \"{canary}\"\n[site.main.group.next]\norigins = \"{next}\"\n");
    for (when, then) in rules {
        text += &format!("[[site.main.rule]]\nwhen = {{ {when} }}\nthen = {{ {then} }}\n");
    }
    text
}

/// Answers everything below `/p` by its name.
fn named(name: &'static str) -> Origin {
    let origin = Origin::start();
    origin.serve("/p", Answer::ok(name).field(FRESH).field("Surrogate-Key: page"));
    origin
}

async fn ask(node: &Node, method: &str, target: &str, fields: &[&str]) -> Response {
    node.client().await.exchange(method, target, fields).await
}

fn said(response: &Response) -> (String, bool, Option<String>) {
    let status = response.cache_status().unwrap_or_else(|error| panic!("{error}"));
    (response.text(), status.hit, status.group)
}

#[tokio::test]
async fn a_group_answers_its_own_clients_alone() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [("header = { x-beta = true }", "group = \"canary\"")];
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).start().await;
    let mut table = Table::new("groups");
    let in_canary = Some("canary".to_owned());
    for (name, fields, expected) in [
        ("first", &[][..], ("own".to_owned(), false, None)),
        ("of the canary", &BETA, ("canary".to_owned(), false, in_canary.clone())),
        ("again", &[], ("own".to_owned(), true, None)),
        ("of the canary again", &BETA, ("canary".to_owned(), true, in_canary.clone())),
    ] {
        let answer = ask(&node, "GET", "/p", fields).await;
        table.row(name, same("the answer", said(&answer), expected.clone()));
        // Under https it is another URL.
        let h2 = node.h2().await;
        let again = h2.exchange("GET", "/p", fields, None).await;
        table.row(&format!("{name}, HTTP/2"), same("the answer", said(&again), expected));
    }
    // What the cache has nothing to do with.
    let passed = ask(&node, "OPTIONS", "/p", &BETA).await;
    table.row("passed", same("the group", said(&passed).2, in_canary));
    let asked = (own.heads(), canary.heads(), next.heads());
    table.row("in the end", same("requests to each", asked, (2, 3, 0)));
    let records = node.log_lines(9).await;
    let of_canary: Vec<&Value> = records.iter().filter(|record| record["group"] == "canary").collect();
    table.row("log", same("records of the canary", of_canary.len(), 5));
    let origins: Vec<&str> = of_canary.iter().filter_map(|record| record["origin"].as_str()).collect();
    let label = format!("canary/{}", canary.address());
    table.row("log", same("its origin", origins, vec![label.as_str(); 3]));
    let count = node.metrics().await.sum("littoral_origin_requests_total", &[("origin", &label)]);
    table.row("metrics", same("requests", count, 3.0));
    let explained = explain(&node, "/p", "x-beta: 1").await;
    table.row(
        "explain",
        same("the group", (&explained["group"], &explained["key"]["group"]), (&json!("canary"), &json!("canary"))),
    );
    table.row("explain", same("the outcome", &explained["outcome"], &json!("hit")));
    table.row("explain", same("the origin", &explained["origins"][0]["origin"], &json!(label)));
    table.finish();
}

async fn explain(node: &Node, target: &str, field: &str) -> Value {
    let field = field.replace(": ", "%3A%20");
    let path = format!("/v1/explain?url=http%3A%2F%2F{HOST}{target}&header={field}");
    node.admin_get(&path).await.expect("an answer").json()
}

#[tokio::test]
async fn a_purge_reaches_what_every_group_has_answered() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [
        ("header = { x-beta = true }", "group = \"canary\""),
        ("header = { x-moved = true }", "rewrite = { from = \"/p\", to = \"/elsewhere\" }"),
        ("header = { x-next = true }", "group = \"next\", rewrite = \"/other\""),
    ];
    own.serve("/elsewhere", Answer::ok("own").field(FRESH).field("Surrogate-Key: page"));
    next.serve("/other", Answer::ok("next").field(FRESH).field("Surrogate-Key: page"));
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).start().await;
    let mut table = Table::new("purges");
    let ways: [&[&str]; 4] = [&[], &BETA, &["X-Moved: 1"], &["X-Next: 1"]];
    for (name, purge) in [
        ("url", json!({ "urls": [format!("http://{HOST}/p")] })),
        ("tag", json!({ "tags": ["page"], "site": "main" })),
        ("prefix", json!({ "prefixes": [format!("{HOST}/p")] })),
        ("host", json!({ "hosts": [HOST] })),
        ("site", json!({ "sites": ["main"] })),
        ("soft", json!({ "urls": [format!("http://{HOST}/p")], "mode": "invalidate" })),
        ("POST", Value::Null),
        ("POST to the canary", Value::Null),
    ] {
        for fields in ways {
            ask(&node, "GET", "/p", fields).await;
            let again = ask(&node, "GET", "/p", fields).await;
            table.row(name, same(&format!("before it, a hit with {fields:?}"), again.is_hit(), true));
        }
        match name {
            "POST" => _ = ask(&node, "POST", "/p", &["Content-Length: 0"]).await,
            "POST to the canary" => _ = ask(&node, "POST", "/p", &["Content-Length: 0", BETA[0]]).await,
            _ => _ = node.purge(&purge).await,
        }
        for fields in ways {
            let after = ask(&node, "GET", "/p", fields).await;
            table.row(name, same(&format!("a hit with {fields:?}"), after.is_hit(), false));
        }
    }
    table.finish();
}

/// What one group says about a URL that must not be stored any more is about what it has answered itself.
#[tokio::test]
async fn what_a_group_takes_back_stays_with_the_others() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    canary.serve_in_turn(
        "/p",
        vec![
            Answer::ok("once").field("Cache-Control: max-age=1"),
            Answer::ok("never").field("Cache-Control: no-store"),
        ],
    );
    let rules = [("header = { x-beta = true }", "group = \"canary\"")];
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).test_clock().start().await;
    assert_eq!(ask(&node, "GET", "/p", &[]).await.text(), "own");
    assert_eq!(ask(&node, "GET", "/p", &BETA).await.text(), "once");
    node.advance_clock(Duration::from_secs(5)).await;
    assert_eq!(ask(&node, "GET", "/p", &BETA).await.text(), "never");
    let kept = ask(&node, "GET", "/p", &[]).await;
    assert_eq!((kept.text(), kept.is_hit()), ("own".to_owned(), true));
}

#[tokio::test]
async fn renewals_and_ranges_ask_the_same_group() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    canary.serve("/stale", Answer::ok("canary").field(STALE));
    let rules = [
        ("header = { x-beta = true }", "group = \"canary\""),
        ("header = { x-beta = true }, path = \"/moved/*\"", "rewrite = { from = \"/moved\", to = \"/\" }"),
    ];
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).test_clock().start().await;
    let mut table = Table::new("the same group");
    for (target, count) in [("/stale", 2), ("/moved/stale", 4)] {
        ask(&node, "GET", target, &BETA).await;
        node.advance_clock(Duration::from_secs(10)).await;
        let stale = ask(&node, "GET", target, &BETA).await;
        table.row(target, same("the answer", stale.text(), "canary".to_owned()));
        canary.arrived("/stale", count).await;
    }
    let body: Vec<u8> = (0..600u32 << 10).map(|n| (n % 251) as u8).collect();
    let whole = body.clone();
    canary.serve_with("/large", move |request| {
        let asked = request.field("range").expect("a part is asked for");
        let (first, last) = asked.trim_start_matches("bytes=").split_once('-').expect("a range");
        let first: usize = first.parse().expect("a number");
        let last = last.parse().map_or(whole.len() - 1, |last: usize| last.min(whole.len() - 1));
        Answer::status(206)
            .piece(whole[first..=last].to_vec())
            .field(FRESH)
            .field("ETag: \"v\"")
            .field(&format!("Content-Range: bytes {first}-{last}/{}", whole.len()))
    });
    for (range, bytes) in [("0-9", 0..10), ("500000-500009", 500_000..500_010), ("599000-600009", 599_000..600_010)] {
        for target in ["/large", "/moved/large"] {
            let part = ask(&node, "GET", target, &[BETA[0], &format!("Range: bytes={range}")]).await;
            let name = format!("{target} {range}");
            table.row(&name, same("the status", part.status, 206));
            table.row(&name, that(part.body[..] == body[bytes.clone()], || "other bytes".to_owned()));
        }
    }
    table.row("in the end", same("requests to the others", own.heads() + next.heads(), 0));
    table.finish();
}

/// The bar is 5 % within 0.3 % of 100,000 clients, which a test beside the code has; here are fewer, through the node.
#[tokio::test]
async fn clients_stay_with_their_group() {
    const CLIENTS: usize = 2_000;
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [("path = \"/p\"", "cache = false, group = { origins = 95, canary = 5 }, group_by = \"cookie id\"")];
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).start().await;
    let mut client = node.client().await;
    let mut first = Vec::new();
    for number in 0..2 * CLIENTS {
        let id = number % CLIENTS;
        let answer = client.exchange("GET", "/p", &[&format!("Cookie: a=b; id=client-{id}")]).await.text();
        if number < CLIENTS {
            first.push(answer);
        } else {
            assert_eq!(answer, first[id], "client {id} the second time");
        }
    }
    let share = first.iter().filter(|answer| *answer == "canary").count();
    // 100 are expected; the digest has no chance in it, so that this is the same number each time.
    assert!((75..=125).contains(&share), "{share} of {CLIENTS} clients");
    // Without the cookie it is the address that stays.
    for number in [0, 100, 200, 300, 400, 500] {
        let from = address_of(number);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let options = Socket { from: Some(from), ..Socket::default() };
            let mut client = Client::connect_with(node.address(), options).await.expect("a connection");
            answers.push(client.get("/p").await.text());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{from}: {answers:?}");
    }
}

#[tokio::test]
async fn origins_are_asked_for_other_paths() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [
        ("path = \"/static/*\"", "rewrite = { from = \"/static\", to = \"/public\" }, ignore_query = \"utm_*\""),
        ("path = \"/app/*\"", "rewrite = \"/app/index.html\""),
        ("path = \"/tenant/*\"", "rewrite = \"/t1{path}\", group = \"canary\""),
    ];
    for origin in [&own, &canary] {
        for path in ["/public/a", "/app/index.html", "/t1/tenant/a"] {
            origin.serve(path, Answer::ok(path).field(FRESH));
        }
    }
    let node = NodeOptions::configured(&own, &site([&own, &canary, &next], "", &rules)).start().await;
    let mut table = Table::new("rewrite");
    for (target, asked, hit) in [
        ("/static/a?b&utm_x=1", "/public/a?b", false),
        ("/static/a?b", "/public/a?b", true),
        // The same at the origin, but known by another URL, so that it is purged by that.
        ("/public/a?b", "/public/a?b", false),
        ("/app/page/1", "/app/index.html", false),
        ("/app/page/2", "/app/index.html", false),
        ("/app/page/2", "/app/index.html", true),
        ("/tenant/a", "/t1/tenant/a", false),
    ] {
        let before = own.heads() + canary.heads();
        let answer = node.get(target).await;
        table.row(target, same("a hit", answer.is_hit(), hit));
        table.row(target, same("the answer", answer.text().as_str(), asked.split('?').next().unwrap_or_default()));
        let requests: Vec<String> =
            [own.requests(), canary.requests()].concat().into_iter().map(|request| request.target).collect();
        table.row(target, same("requests", requests.len(), before + usize::from(!hit)));
        table.row(target, that(requests.iter().any(|found| found == asked), || format!("{requests:?}")));
    }
    let posted = ask(&node, "POST", "/static/a?b", &["Content-Length: 0"]).await;
    table.row("POST", same("the answer", posted.text().as_str(), "/public/a"));
    table.row("POST", same("what clients know is gone", node.get("/static/a?b").await.is_hit(), false));
    let explained = explain(&node, "/static/a", "x: 1").await;
    let key = &explained["key"];
    table.row(
        "explain",
        same("key", (&key["path_and_query"], &key["asked"]), (&json!("/static/a"), &json!("/public/a"))),
    );
    table.finish();
}

#[tokio::test]
async fn a_reload_changes_the_shares_and_keeps_what_is_stored() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let text = |rule: &str| site([&own, &canary, &next], "", &[("path = \"/p\"", rule)]);
    let node = NodeOptions::configured(&own, &text("group = \"canary\"")).start().await;
    assert_eq!(node.get("/p").await.text(), "canary");
    for (rule, expected) in [
        ("group = { origins = 1, canary = 0 }", ("own", false)),
        ("group = \"next\"", ("next", false)),
        ("group = \"canary\"", ("canary", true)),
        ("group = \"origins\"", ("own", true)),
    ] {
        let reloaded = node.reload(&text(rule)).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        let answer = node.get("/p").await;
        assert_eq!((answer.text().as_str(), answer.is_hit()), expected, "{rule}");
    }
    let refused = node.reload(&text("group = \"gone\"")).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(node.get("/p").await.text(), "own");
}

#[tokio::test]
async fn a_group_has_checks_and_a_state_of_its_own() {
    let (own, mut canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [("header = { x-beta = true }", "group = \"canary\"")];
    let text = site([&own, &canary, &next], "", &rules).replace(
        "[site.main.group.next]",
        "health = { path = \"/p\", interval = \"50ms\", timeout = \"40ms\", fall = 2, rise = 1 }\n[site.main.group.next]",
    );
    let node = NodeOptions::configured(&own, &text).start().await;
    let label = format!("canary/{}", canary.address());
    let up = async |expected: f64| {
        until(Duration::from_secs(10), &format!("{label} is up: {expected}"), || async {
            let found = node.metrics().await.sum("littoral_origin_up", &[("origin", &label)]);
            if found == expected { Ok(()) } else { Err(format!("it is {found}")) }
        })
        .await;
    };
    up(1.0).await;
    canary.stop();
    up(0.0).await;
    assert_eq!(ask(&node, "GET", "/p", &BETA).await.status, 502);
    assert_eq!(ask(&node, "GET", "/p", &[]).await.status, 200);
}

#[tokio::test]
async fn rules_know_the_country_of_a_client() {
    let (own, canary, next) = (named("own"), named("canary"), named("next"));
    let rules = [("country = \"DE\"", "group = \"canary\""), ("country = [\"AT\", \"CH\"]", "respond = 451")];
    let text = format!("[geo]\ndatabase = \"geo.mmdb\"\n{}", site([&own, &canary, &next], "", &rules));
    let countries = [("127.0.1.2/32", "DE"), ("127.0.1.3/32", "AT"), ("2001:db8::/32", "CH")];
    let node = NodeOptions::configured(&own, &text).file("geo.mmdb", database(&countries)).start().await;
    let from = async |number: usize| {
        let options = Socket { from: Some(address_of(number)), ..Socket::default() };
        let mut client = Client::connect_with(node.address(), options).await.expect("a connection");
        let answer = client.get("/p").await;
        (answer.status, answer.text())
    };
    assert_eq!(from(0).await, (200, "canary".to_owned()));
    assert_eq!(from(100).await.0, 451);
    assert_eq!(from(200).await, (200, "own".to_owned()), "an address that is not in the database");
    let records = node.log_lines(3).await;
    for (number, country) in [(0, json!("DE")), (100, json!("AT")), (200, Value::Null)] {
        let client = json!(address_of(number).to_string());
        let record = records.iter().find(|record| record["client"] == client).expect("a record");
        assert_eq!(record["country"], country);
    }
    // A reload reads it again; a broken one leaves everything as it is.
    node.write_file("geo.mmdb", database(&[("127.0.1.4/32", "DE")]));
    assert_eq!(node.reload(&text).await.status, 200);
    assert_eq!((from(0).await.1, from(200).await.1), ("own".to_owned(), "canary".to_owned()));
    let mut cut = database(&[("127.0.1.2/32", "DE")]);
    cut.drain(40..60);
    node.write_file("geo.mmdb", cut);
    let refused = node.reload(&text).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(from(200).await.1, "canary");
}
