//! Sessions that stay with one origin, and origins that are being taken out.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::{Client, Socket, post};
use cache_tests::deadline::until;
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions, run_to_the_end};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

const BY_COOKIE: &str = "sticky = { by = \"cookie lb\" }";

/// Origins that answer by their number: at `/own` everybody for themselves, at `/all` for everybody.
fn some(count: usize) -> Vec<Origin> {
    let origins: Vec<Origin> = (0..count).map(|_| Origin::start()).collect();
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/own", Answer::ok(number.to_string()).field("Cache-Control: private, max-age=60"));
        origin.serve("/all", Answer::ok(number.to_string()).field("Cache-Control: max-age=600").field("Vary: Cookie"));
    }
    origins
}

/// A site with these origins, each with more keys.
fn site(origins: &[(&Origin, &str)], more: &str) -> String {
    let member = |(origin, more): &(&Origin, &str)| format!("{{ url = \"{}\"{more} }}", origin.url());
    let list = origins.iter().map(member).collect::<Vec<_>>().join(", ");
    format!("[site.main]\nhosts = [\"*\"]\norigins = [{list}]\n{more}\n")
}

async fn before(text: &str) -> Node {
    NodeOptions::configured_before(&nobody_listens(), text).test_clock().start().await
}

/// What a client sends of the cookie it was given.
fn cookie_of(response: &Response) -> Option<String> {
    let set = response.field("set-cookie")?;
    Some(format!("Cookie: {}", set.split(';').next().unwrap_or_default()))
}

async fn ask(node: &Node, target: &str, fields: &[&str]) -> Response {
    node.client().await.exchange("GET", target, fields).await
}

async fn ask_by_post(node: &Node, target: &str, fields: &[&str]) -> Response {
    let mut client = node.client().await;
    client.send(post(target, fields, "body")).await.expect("the node reads");
    client.response("POST").await.expect("an answer")
}

/// A session with the origin that has this number.
async fn session_with(node: &Node, number: usize) -> String {
    for _ in 0..100 {
        let answer = ask(node, "/own", &[]).await;
        if answer.text() == number.to_string() {
            return cookie_of(&answer).expect("a cookie");
        }
    }
    panic!("origin {number} is never asked");
}

fn label(origin: &Origin) -> String {
    origin.url().trim_start_matches("http://").to_owned()
}

#[tokio::test]
async fn a_session_stays_where_it_began() {
    let origins = some(3);
    let node = before(&site(&[(&origins[0], ""), (&origins[1], ""), (&origins[2], "")], BY_COOKIE)).await;
    let mut table = Table::new("by cookie");
    for (number, origin) in origins.iter().enumerate() {
        let cookie = session_with(&node, number).await;
        let sent = cookie.replace("Cookie: ", "Cookie: a=b; ");
        for (name, answer) in [
            ("not stored", ask(&node, "/own", &[&sent]).await),
            ("passed", ask_by_post(&node, "/own", &[&sent]).await),
            ("again", ask(&node, "/own", &[&sent]).await),
        ] {
            table.row(name, same("the origin", answer.text(), number.to_string()));
            table.row(name, same("set anew", answer.field("set-cookie"), None));
        }
        let seen: Vec<_> = origin.requests_for("/own").iter().filter_map(|seen| seen.field("cookie")).collect();
        table.row(
            "at the origin",
            that(!seen.is_empty() && seen.iter().all(|seen| seen == "a=b"), || format!("{seen:?}")),
        );
    }
    let passed = ask_by_post(&node, "/own", &[]).await;
    let set = passed.field("set-cookie").unwrap_or_default();
    let ends = set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    table.row("a first request that is passed", that(set.starts_with("lb=") && ends, || set.clone()));
    let h2 = node.h2().await;
    let first = h2.get("/own").await;
    let cookie = cookie_of(&first).unwrap_or_default().replace("Cookie", "cookie");
    for (method, body) in [("GET", None), ("POST", Some("body".into()))] {
        let answer = h2.exchange(method, "/own", &[&cookie], body).await;
        table.row("over HTTP/2", same(method, (answer.text(), answer.field("set-cookie")), (first.text(), None)));
    }
    let mut client = node.tls_client().await;
    let set = client.get("/own").await.field("set-cookie").unwrap_or_default();
    table.row("under TLS", that(set.ends_with("; Secure"), || set.clone()));
    table.finish();
}

#[tokio::test]
async fn sessions_stay_through_a_reload() {
    let origins = some(4);
    let [first, second, third, spare] = [&origins[0], &origins[1], &origins[2], &origins[3]];
    let mut table = Table::new("a reload");
    let node = before(&site(&[(first, ""), (second, ""), (third, "")], BY_COOKIE)).await;
    let cookie = session_with(&node, 1).await;
    for (name, text) in [
        ("the same", site(&[(first, ""), (second, ""), (third, "")], BY_COOKIE)),
        ("another order", site(&[(third, ""), (second, ""), (first, "")], BY_COOKIE)),
        ("other weights", site(&[(first, ", weight = 9"), (second, ""), (third, "")], BY_COOKIE)),
        ("another origin", site(&[(spare, ", weight = 9"), (first, ""), (third, ""), (second, "")], BY_COOKIE)),
        ("a lower tier", site(&[(first, ""), (second, ", tier = 2")], BY_COOKIE)),
    ] {
        let reloaded = node.reload(&text).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        for _ in 0..10 {
            table.row(name, same("the origin", ask(&node, "/own", &[&cookie]).await.text(), "1".to_owned()));
        }
    }
    // Where nothing is set: what a value or an address is hashed to.
    for by in ["header X-User", "address"] {
        let sticky = format!("sticky = {{ by = \"{by}\" }}");
        node.reload(&site(&[(first, ""), (second, ""), (third, "")], &sticky)).await;
        let at_first = places(&node).await;
        for number in ["0", "1", "2"] {
            table.row(by, that(at_first.iter().any(|place| place == number), || format!("{at_first:?}")));
        }
        node.reload(&site(&[(third, ""), (first, ""), (spare, ", tier = 2"), (second, "")], &sticky)).await;
        table.row(by, same("after a reload", places(&node).await, at_first.clone()));
        node.reload(&site(&[(third, ""), (second, "")], &sticky)).await;
        let left = places(&node).await;
        let stay = at_first.iter().zip(&left).all(|(before, after)| before == after || before == "0");
        table.row(by, that(stay, || format!("{at_first:?}, then {left:?}")));
    }
    table.finish();
}

/// Where forty users are sent, each from an address of its own.
async fn places(node: &Node) -> Vec<String> {
    let mut places = Vec::new();
    for user in 1..=40 {
        let from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 2, user)));
        let socket = Socket { from, ..Socket::default() };
        let mut client = Client::connect_with(node.address(), socket).await.expect("the node accepts");
        let answer = client.exchange("GET", "/own", &[&format!("X-User: {user}")]).await;
        assert_eq!((answer.status, answer.field("set-cookie")), (200, None));
        places.push(answer.text());
    }
    places
}

#[tokio::test]
async fn cookies_that_are_not_ours_count_for_nothing() {
    let origins = some(2);
    let with_key = "sticky = { by = \"cookie lb\", key_file = \"sticky.key\" }";
    let text = site(&[(&origins[0], ""), (&origins[1], "")], with_key);
    let start = || NodeOptions::configured_before(&nobody_listens(), &text).file("sticky.key", [7; 32]).test_clock();
    let (node, other) = (start().start().await, start().start().await);
    let cookie = session_with(&node, 1).await;
    let mut table = Table::new("cookies");
    for _ in 0..4 {
        table.row(
            "another node with the key",
            same("the origin", ask(&other, "/own", &[&cookie]).await.text(), "1".into()),
        );
    }
    let last = if cookie.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{last}", &cookie[..cookie.len() - 1]);
    let answers = [ask(&node, "/own", &[&forged]).await, ask(&node, "/own", &[&forged]).await];
    table.row("forged", that(answers[0].text() != answers[1].text(), || "it is followed".into()));
    table.row("forged", that(answers.iter().all(|answer| cookie_of(answer).is_some()), || "none is set".into()));
    node.advance_clock(Duration::from_secs(2_000)).await;
    let renewed = ask(&node, "/own", &[&cookie]).await;
    table.row("in its second half", same("the origin", renewed.text(), "1".into()));
    let anew = cookie_of(&renewed).unwrap_or_default();
    table.row("in its second half", that(!anew.is_empty() && anew != cookie, || anew.clone()));
    node.advance_clock(Duration::from_secs(1_700)).await;
    let expired = ask(&node, "/own", &[&cookie]).await;
    table.row("expired", that(cookie_of(&expired).is_some(), || "none is set".into()));
    table.row("set anew", same("the origin", ask(&node, "/own", &[&anew]).await.text(), "1".into()));
    table.finish();
}

#[tokio::test]
async fn a_session_whose_origin_is_gone() {
    let mut origins = some(2);
    let eject = "eject = { failures = 1, for = \"1h\", max = \"1h\" }";
    let text = |fallback: &str, count: usize| {
        let sticky = format!("sticky = {{ by = \"cookie lb\", fallback = \"{fallback}\" }}\n{eject}");
        let members: Vec<_> = origins.iter().take(count).map(|origin| (origin, "")).collect();
        site(&members, &sticky)
    };
    let (another, refuse, without) = (text("another", 2), text("refuse", 2), text("refuse", 1));
    let node = before(&another).await;
    let mut table = Table::new("fallback");
    let cookie = session_with(&node, 1).await;
    origins[1].stop();
    let moved = ask(&node, "/own", &[&cookie]).await;
    table.row("another", same("the answer", (moved.status, moved.text()), (200, "0".to_owned())));
    let anew = cookie_of(&moved).unwrap_or_default();
    table.row("another", that(!anew.is_empty() && anew != cookie, || anew.clone()));
    let settled = ask(&node, "/own", &[&anew]).await;
    table.row("another", same("then", (settled.text(), settled.field("set-cookie")), ("0".into(), None)));

    node.reload(&refuse).await;
    for (name, answer) in
        [("refused", ask(&node, "/own", &[&cookie]).await), ("passed", ask_by_post(&node, "/own", &[&cookie]).await)]
    {
        let said = (answer.status, answer.field("retry-after"), answer.field("set-cookie"));
        table.row(name, same("the answer", said, (503, Some("1".to_owned()), None)));
        let reason = answer.field("cache-status").unwrap_or_default();
        table.row(name, that(reason.contains("detail=session-refused"), || reason.clone()));
    }
    table.row("refused", same("others", ask(&node, "/own", &[]).await.status, 200));
    // It does not come back: the client is told to begin anew.
    node.reload(&without).await;
    for answer in [ask(&node, "/own", &[&cookie]).await, ask_by_post(&node, "/own", &[&cookie]).await] {
        let set = answer.field("set-cookie").unwrap_or_default();
        table.row("gone", same("the status", answer.status, 503));
        table.row("gone", that(set.starts_with("lb=;") && set.contains("Max-Age=0"), || set.clone()));
    }
    table.finish();
}

#[tokio::test]
async fn what_is_stored_is_nobodys_session() {
    let origins = some(2);
    let gate = Gate::closed();
    for origin in &origins {
        origin.serve("/held", Answer::ok("held").field("Cache-Control: max-age=60").after(&gate));
    }
    let node = before(&site(&[(&origins[0], ""), (&origins[1], "")], BY_COOKIE)).await;
    let sessions = [session_with(&node, 0).await, session_with(&node, 1).await];
    let mut table = Table::new("stored");
    for (name, fields) in [
        ("who came first", vec![sessions[1].as_str()]),
        ("another session", vec![sessions[0].as_str()]),
        ("none", vec![]),
    ] {
        let answer = ask(&node, "/all", &fields).await;
        table.row(name, same("the answer", (answer.text(), answer.field("set-cookie")), ("1".into(), None)));
    }
    table.row("all", same("asked", (origins[0].count("/all"), origins[1].count("/all")), (0, 1)));
    let seen = origins[1].requests_for("/all").first().and_then(|seen| seen.field("cookie"));
    table.row("all", same("what the origin saw", seen, None));

    let mut clients = Vec::new();
    for session in &sessions {
        let mut client = node.client().await;
        client.ask("GET", "/held", &[session]).await;
        clients.push(client);
    }
    until(Duration::from_secs(10), "both wait", || async {
        let waiting = node.metrics().await.sum("littoral_fill_waiters", &[]);
        if waiting == 2.0 { Ok(()) } else { Err(format!("{waiting} do")) }
    })
    .await;
    gate.open();
    for client in &mut clients {
        let answer = client.response("GET").await.expect("an answer");
        table.row("coalesced", same("the answer", (answer.text(), answer.field("set-cookie")), ("held".into(), None)));
    }
    table.row("coalesced", same("asked", origins[0].count("/held") + origins[1].count("/held"), 1));
    table.finish();
}

/// The state of an origin, by its label.
async fn state(node: &Node, origin: &Origin) -> Value {
    let listed = node.admin_get("/v1/origins").await.expect("an answer").json();
    let origins = listed["origins"].as_array().cloned().unwrap_or_default();
    origins.into_iter().find(|one| one["origin"] == label(origin)).unwrap_or_default()
}

async fn becomes(node: &Node, origin: &Origin, expected: &str) {
    until(Duration::from_secs(10), &format!("it is {expected}"), || async {
        let state = state(node, origin).await;
        if state["state"] == expected { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn draining_loses_nothing_and_ends_at_its_deadline() {
    let origins = some(2);
    let gate = Gate::closed();
    for origin in &origins {
        let slow = Answer::ok("").field("Cache-Control: no-store").piece("half").hold(&gate).piece("rest");
        origin.serve("/slow", slow);
    }
    let text = site(&[(&origins[0], ""), (&origins[1], "")], BY_COOKIE);
    let node = before(&text).await;
    let cookie = session_with(&node, 0).await;
    let mut table = Table::new("draining");
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut client = node.client().await;
        client.ask("GET", &format!("/slow?{number}"), &[]).await;
        client.begin("GET").await.expect("a head");
        slow.push(client);
    }
    let drain = |time: &str| json!({ "site": "main", "origin": label(&origins[0]), "for": time });
    let answer = node.admin_json("POST", "/v1/origins/drain", &drain("1h"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let metrics = node.metrics().await;
    table.row("begun", same("in the metrics", metrics.sum("littoral_origin_draining", &[]), 1.0));
    table.row("begun", same("still up", metrics.sum("littoral_origin_up", &[]), 2.0));
    for turn in ["begun", "after a reload"] {
        for _ in 0..20 {
            let answer = ask(&node, "/own", &[]).await;
            table.row(turn, same("a new session", (answer.status, answer.text()), (200, "1".into())));
            let answer = ask(&node, "/own", &[&cookie]).await;
            table.row(turn, same("its session", (answer.status, answer.text()), (200, "0".into())));
        }
        table.row(turn, same("its state", state(&node, &origins[0]).await["state"].clone(), json!("draining")));
        let reordered = site(&[(&origins[1], ", weight = 2"), (&origins[0], ", weight = 3")], BY_COOKIE);
        assert_eq!(node.reload(&reordered).await.status, 200);
    }

    // No request of the session moves before the deadline, and none is lost when it does.
    let asked = Instant::now();
    node.admin_json("POST", "/v1/origins/drain", &drain("1s"), None).await;
    let moved = until(Duration::from_secs(10), "the session moves", || async {
        let answer = ask(&node, "/own", &[&cookie]).await;
        assert_eq!(answer.status, 200);
        if answer.text() == "1" { Ok(answer) } else { Err("it does not".into()) }
    })
    .await;
    let took = asked.elapsed();
    table.row("its deadline", that(took >= Duration::from_secs(1), || format!("{took:?}")));
    let anew = cookie_of(&moved).unwrap_or_default();
    table.row("moved", same("the session", ask(&node, "/own", &[&anew]).await.text(), "1".to_owned()));
    table.row("moved", same("its state", state(&node, &origins[0]).await["state"].clone(), json!("draining")));
    gate.open();
    for client in &mut slow {
        let (body, end) = client.rest().await;
        table.row("under way", that(body.ends_with(b"rest"), || format!("{body:?} {end:?}")));
    }
    becomes(&node, &origins[0], "drained").await;
    let undrain = json!({ "site": "main", "origin": label(&origins[0]) });
    for expected in [200, 409] {
        let answer = node.admin_json("POST", "/v1/origins/undrain", &undrain, None).await;
        table.row("undrained", same("the answer", answer.status, expected));
    }
    session_with(&node, 0).await;
    table.row("undrained", same("its state", state(&node, &origins[0]).await["state"].clone(), json!("up")));
    table.finish();
}

#[tokio::test]
async fn who_may_drain_what() {
    let origins = some(1);
    let node = before(&site(&[(&origins[0], "")], "")).await;
    let mut table = Table::new("the API");
    let known = label(&origins[0]);
    for (name, path, body, expected) in [
        ("no such site", "drain", json!({ "site": "shop", "origin": known }), 404),
        ("no such origin", "drain", json!({ "site": "main", "origin": "nobody:1" }), 404),
        ("no time", "drain", json!({ "site": "main", "origin": known, "for": "10" }), 400),
        ("an unknown key", "drain", json!({ "site": "main", "origin": known, "until": "10s" }), 400),
        ("a time to undrain", "undrain", json!({ "site": "main", "origin": known, "for": "10s" }), 400),
        ("not drained", "undrain", json!({ "site": "main", "origin": known }), 409),
        ("the only one", "drain", json!({ "site": "main", "origin": known, "for": "0s" }), 200),
    ] {
        let answer = node.admin_json("POST", &format!("/v1/origins/{path}"), &body, None).await;
        table.row(name, same("the answer", answer.status, expected));
    }
    // Nobody else is there: an answer is better than none.
    table.row("the only one", same("a request", ask(&node, "/own", &[]).await.text(), "0".to_owned()));

    let token = |name: &str, sites: &str, verb: &str| {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let names = format!("name = \"{name}\"\nhash = \"{hash}\"\nsites = \"{sites}\"");
        format!("[[admin.tokens]]\n{names}\nverbs = \"{verb}\"\n")
    };
    let tokens =
        token("main", "main", "operate") + &token("other", "other", "operate") + &token("purger", "*", "purge");
    let other = format!("[site.other]\nhosts = \"other.test\"\norigins = \"{}\"\n", nobody_listens());
    let text = tokens + &site(&[(&origins[0], "")], "") + &other;
    assert_eq!(node.reload(&text).await.status, 200);
    let body = json!({ "site": "main", "origin": known });
    for (token, expected) in [(None, 401), (Some("purger"), 403), (Some("other"), 403), (Some("main"), 200)] {
        let name = token.unwrap_or("no token");
        let answer = node.admin_json("POST", "/v1/origins/drain", &body, token).await;
        table.row(name, same("drain", answer.status, expected));
        let answer = node.admin_json("POST", "/v1/origins/undrain", &body, token).await;
        table.row(name, same("undrain", answer.status, expected));
    }
    let listed = node.admin_json("GET", "/v1/origins", &Value::Null, Some("other")).await.json();
    let sites: Vec<_> =
        listed["origins"].as_array().into_iter().flatten().map(|origin| origin["site"].clone()).collect();
    table.row("its own site", same("listed", sites, vec![json!("other")]));
    table.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_an_origin_out() {
    let origins = some(2);
    let node = before(&site(&[(&origins[0], ""), (&origins[1], "")], BY_COOKIE)).await;
    let cookie = session_with(&node, 0).await;
    let (admin, origin) = (node.admin().to_string(), label(&origins[0]));
    let mut table = Table::new("littoral origin");
    let mut run = |words: &[&str], expected: i32, says: &str| {
        let (code, said) = run_to_the_end(&[&["origin"], words, &["--admin", &admin]].concat());
        table.row(&words.join(" "), same("the code", code, Some(expected)));
        table.row(&words.join(" "), that(said.contains(says), || said.clone()));
    };
    run(&["list"], 0, &format!("main {origin}: up, 0 requests under way"));
    run(
        &["drain", "main", &origin, "--for", "1s", "--wait"],
        0,
        "drained, 0 requests under way; drained by the operator",
    );
    run(&["drain", "main", "nobody:1"], 1, "main has no origin nobody:1");
    run(&["list", "--site", "main"], 0, "drained");
    table.row("drained", same("a session", ask(&node, "/own", &[&cookie]).await.text(), "1".to_owned()));
    let run = |words: &[&str]| run_to_the_end(&[&["origin"], words, &["--admin", &admin]].concat());
    assert_eq!(run(&["undrain", "main", &origin]).0, Some(0));
    table.row("undrained", same("a session", ask(&node, "/own", &[&cookie]).await.text(), "0".to_owned()));
    table.finish();
}

#[tokio::test]
async fn the_configuration_takes_an_origin_out() {
    let origins = some(2);
    let text = |first: &str, second: &str| site(&[(&origins[0], first), (&origins[1], second)], BY_COOKIE);
    let node = before(&text("", "")).await;
    let cookie = session_with(&node, 0).await;
    let mut table = Table::new("`drain`");
    let (first, at_once) = (", drain = true", ", drain = \"0s\"");
    for (name, text, new, theirs) in [
        ("without end", text(first, ""), "1", "0"),
        ("for long", text(", drain = \"1h\"", ""), "1", "0"),
        ("at once", text(at_once, ""), "1", "1"),
        ("still over after another reload", text(at_once, ", weight = 2"), "1", "1"),
        ("the other one", text("", first), "0", "0"),
        ("all but one are over", text(at_once, first), "1", "1"),
    ] {
        assert_eq!(node.reload(&text).await.status, 200);
        for _ in 0..4 {
            table.row(name, same("a new session", ask(&node, "/own", &[]).await.text(), new.to_owned()));
            table.row(name, same("its session", ask(&node, "/own", &[&cookie]).await.text(), theirs.to_owned()));
        }
    }
    for drain in [first, at_once] {
        node.reload(&text(drain, drain)).await;
        session_with(&node, 1).await;
        table.row("all of them", same("its session", ask(&node, "/own", &[&cookie]).await.text(), "0".to_owned()));
    }
    let undrain = json!({ "site": "main", "origin": label(&origins[0]) });
    let answer = node.admin_json("POST", "/v1/origins/undrain", &undrain, None).await;
    table.row("by the API", same("undrained", answer.status, 409));
    table.finish();
}

#[tokio::test]
async fn an_origin_has_a_cap_of_its_own() {
    let origins = some(2);
    let gate = Gate::closed();
    for origin in &origins {
        origin.serve("/slow", Answer::ok("slow").field("Cache-Control: no-store").after(&gate));
    }
    let node = before(&site(&[(&origins[0], ", max_requests = 1"), (&origins[1], "")], "max_requests = 3")).await;
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = node.client().await;
        client.ask("GET", &format!("/slow?{number}"), &[]).await;
        clients.push(client);
        until(Duration::from_secs(10), "it is asked", || async {
            let asked = origins[0].heads() + origins[1].heads();
            if asked == number + 1 { Ok(()) } else { Err(format!("{asked} are")) }
        })
        .await;
    }
    assert_eq!((origins[0].heads(), origins[1].heads()), (1, 3));
    assert_eq!(ask(&node, "/own", &[]).await.status, 503);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").await.map(|answer| answer.status), Ok(200));
    }
}
