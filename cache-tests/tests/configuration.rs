//! The configuration file: checked before it is used, told about precisely, and read again without a restart.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::configuration::{CERTIFICATE, FILE, KEY};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions, run_to_the_end};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use cache_tests::tls::Identity;
use serde_json::Value;

const FRESH: &str = "Cache-Control: max-age=60";

/// The least there can be.
const SITE: &str = "[site.main]\nhosts = [\"*\"]\norigins = [\"http://127.0.0.1:1\"]\n";
const LISTEN: &str = "[listen]\nhttp = \"127.0.0.1:8080\"\n";

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH));
    origin.serve("/private", Answer::ok("private").field("Cache-Control: no-store"));
    origin
}

/// A site with this in its table, and these rules.
fn site(more: &str) -> String {
    format!("[site.main]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n{more}\n")
}

/// A site that says which configuration it is of, in what it answers with.
fn marked(mark: &str) -> String {
    site(&format!("[[site.main.rule]]\nthen = {{ set_response = {{ \"x-mark\" = \"{mark}\" }} }}"))
}

async fn mark(node: &Node, target: &str) -> Option<String> {
    node.get(target).await.field("x-mark")
}

#[tokio::test]
async fn a_configured_node_serves_every_protocol() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, "").start().await;
    let mut table = Table::new("a configured node");
    for (name, response) in [
        ("HTTP", node.get("/page").await),
        ("HTTP/1 over TLS", node.tls_client().await.get("/page").await),
        ("HTTP/2", node.h2().await.get("/page").await),
    ] {
        table.row(name, same("the answer", (response.status, response.text().as_str()), (200, "page")));
    }
    let records = node.log_lines(3).await;
    table.row("site", that(records.iter().all(|record| record["site"] == "main"), || format!("{records:?}")));
    table.finish();
}

#[test]
fn a_good_file_is_said_to_be_good() {
    let scratch = Scratch::new("check");
    let identity = Identity::of(&[HOST]);
    scratch.write(CERTIFICATE, identity.certificate_pem.as_bytes());
    scratch.write(KEY, identity.key_pem.as_bytes());
    let tls = format!("[tls]\ncertificates = [{{ certificate = \"{CERTIFICATE}\", key = \"{KEY}\" }}]\n");
    let https = "[listen]\nhttp = [\"127.0.0.1:8080\", \"[::1]:8080\"]\nhttps = \":8443\"\n";
    let mut table = Table::new("good files");
    for (name, text) in [("the least", format!("{LISTEN}{SITE}")), ("TLS", format!("{https}{tls}{SITE}"))] {
        scratch.write(FILE, text.as_bytes());
        let path = scratch.path().join(FILE).display().to_string();
        let (code, said) = run_to_the_end(&["check", &path]);
        table.row(name, same("the exit code", code, Some(0)).map_err(|problem| format!("{problem}: {said}")));
        table.row(name, that(said.contains(&format!("{path}: ok")), || said.clone()));
    }
    // Sites may be in files of their own.
    scratch.write(FILE, LISTEN.as_bytes());
    scratch.write("sites.d/one.toml", SITE.as_bytes());
    let (code, said) = run_to_the_end(&["check", &scratch.path().join(FILE).display().to_string()]);
    table.row("sites.d", same("the exit code", code, Some(0)).map_err(|problem| format!("{problem}: {said}")));
    table.finish();
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let scratch = Scratch::new("check");
    let site = |line: &str| format!("{LISTEN}{SITE}{line}\n");
    let rule = |then: &str| format!("{LISTEN}{SITE}[[site.main.rule]]\nthen = {then}\n");
    let mut table = Table::new("mistakes in files");
    // The file, where the mistake is, and a word the message has.
    for (name, text, place, word) in [
        ("an unknown key", site("healthz = true"), "6:1", "health"),
        ("an unknown table", format!("[lisen]\n{LISTEN}{SITE}"), "1:2", "listen"),
        ("a wrong type", format!("workers = \"two\"\n{LISTEN}{SITE}"), "1:11", "workers"),
        ("no unit", format!("{LISTEN}{SITE}[limits]\nhead_timeout = 10\n"), "7:16", "10s"),
        ("an unknown unit", format!("{LISTEN}{SITE}[limits]\nhead_timeout = \"10 parsecs\"\n"), "7:16", "10 parsecs"),
        ("no address", format!("[listen]\nhttp = \"nowhere\"\n{SITE}"), "2:8", "nowhere"),
        ("a port out of range", format!("[listen]\nhttp = \"127.0.0.1:99999\"\n{SITE}"), "2:8", "99999"),
        (
            "no URL",
            format!("{LISTEN}[site.main]\nhosts = [\"*\"]\norigins = [\"example.test\"]\n"),
            "5:12",
            "example.test",
        ),
        ("an unfinished string", format!("{LISTEN}[site.main]\nhosts = [\"*]\n"), "4:", "string"),
        ("a key twice", site("https_only = true\nhttps_only = true"), "7:1", "https_only"),
        ("a rule that does nothing", rule("{}"), "7:8", "then"),
        ("an unknown action", rule("{ tll = \"1h\" }"), "7:10", "ttl"),
        ("no such file", site("error_pages = { \"502\" = \"missing.html\" }"), "6:25", "missing.html"),
        ("https without a certificate", format!("[listen]\nhttps = \":8443\"\n{SITE}"), "2:", "certificates"),
    ] {
        scratch.write(FILE, text.as_bytes());
        let path = scratch.path().join(FILE).display().to_string();
        let (code, said) = run_to_the_end(&["check", &path]);
        table.row(name, same("the exit code", code, Some(78)).map_err(|problem| format!("{problem}: {said}")));
        table.row(name, that(said.contains(&format!("{FILE}:{place}")), || format!("not at {place}: {said}")));
        table.row(name, that(said.contains(word), || format!("no {word:?} in: {said}")));
        // A node does not start with it either.
        let (code, again) = run_to_the_end(&["run", "--config", &path]);
        table.row(name, same("the exit code of run", code, Some(78)).map_err(|problem| format!("{problem}: {again}")));
        table.row(name, that(!said.contains("panicked") && !again.contains("panicked"), || again.clone()));
    }
    scratch.write(FILE, format!("workers = 0\n{LISTEN}{SITE}nothing = 1\n").as_bytes());
    let (_, said) = run_to_the_end(&["check", &scratch.path().join(FILE).display().to_string()]);
    let both = said.contains(&format!("{FILE}:1:")) && said.contains(&format!("{FILE}:7:"));
    table.row("two at once", that(both, || said.clone()));
    let (code, said) = run_to_the_end(&["check", "/no/such/file.toml"]);
    table.row("no file", that(code == Some(78) && said.contains("/no/such/file.toml"), || format!("{code:?}: {said}")));
    scratch.write(FILE, LISTEN.as_bytes());
    scratch.write("sites.d/one.toml", b"[site.main]\nhosts = []\norigins = [\"http://127.0.0.1:1\"]\n");
    let (code, said) = run_to_the_end(&["check", &scratch.path().join(FILE).display().to_string()]);
    table.row("sites.d", that(code == Some(78) && said.contains("one.toml:2:9"), || format!("{code:?}: {said}")));
    table.finish();
}

#[tokio::test]
async fn some_options_go_with_a_file_and_some_do_not() {
    let origin = origin();
    let node =
        NodeOptions::configured(&origin, "").with("--workers", "1").with("--access-log", "other.log").start().await;
    assert_eq!(node.get("/page").await.status, 200);
    until(PATIENCE, "a record in the other log", || async {
        let log = std::fs::read_to_string(node.path("other.log")).unwrap_or_default();
        if log.contains("/page") { Ok(()) } else { Err(log) }
    })
    .await;
    let path = node.path(FILE).display().to_string();
    let mut table = Table::new("options beside a file");
    for option in [
        ["--origin", "http://127.0.0.1:1"],
        ["--memory", "64MiB"],
        ["--trust", "10.0.0.0/8"],
        ["--head-timeout", "5s"],
        ["--set-cookie", "rfc9111"],
    ] {
        let [name, value] = option;
        let (code, said) = run_to_the_end(&["run", "--config", &path, name, value]);
        table.row(name, that(matches!(code, Some(2 | 78)) && said.contains(name), || format!("{code:?}: {said}")));
    }
    table.finish();
}

#[tokio::test]
async fn a_reload_is_in_force_for_the_next_request() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, &marked("one")).start().await;
    let (mut http, h2) = (node.client().await, node.h2().await);
    assert_eq!(http.get("/1").await.field("x-mark").as_deref(), Some("one"));
    let mut versions = Vec::new();
    for (number, name) in ["two", "three", "four"].into_iter().enumerate() {
        let answer = node.reload(&marked(name)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = json(&answer);
        assert_eq!(said["sites"][0], "main", "{said}");
        versions.push(said["version"].as_u64().expect("a version"));
        // On connections that were there before, too.
        let target = format!("/reload-{number}");
        origin.serve(&target, Answer::ok("page").field("Cache-Control: no-store"));
        assert_eq!(http.get(&target).await.field("x-mark").as_deref(), Some(name));
        assert_eq!(h2.get(&target).await.field("x-mark").as_deref(), Some(name));
    }
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    // What was stored stays stored.
    let stored = node.get("/page").await;
    let answer = node.reload(&marked("five")).await;
    assert_eq!((stored.status, answer.status), (200, 200));
    assert!(node.get("/page").await.is_hit());
}

#[tokio::test]
async fn sighup_is_a_reload() {
    let origin = origin();
    let mut node = NodeOptions::configured(&origin, &marked("one")).start().await;
    node.write_configuration(&marked("two"));
    assert_eq!(mark(&node, "/private").await.as_deref(), Some("one"), "before anybody said so");
    node.hang_up();
    until(PATIENCE, "the new configuration", || async {
        let mark = mark(&node, "/private").await;
        if mark.as_deref() == Some("two") { Ok(()) } else { Err(format!("{mark:?}")) }
    })
    .await;
    node.write_configuration("[site.main]\nhosts = 7\n");
    node.hang_up();
    until(PATIENCE, "a word about the mistake", || async {
        let said = node.said();
        if said.contains("edge.toml") && said.contains("hosts") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(mark(&node, "/private").await.as_deref(), Some("two"));
    node.assert_alive();
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, &marked("one")).start().await;
    let mut table = Table::new("bad reloads");
    for (name, text, word) in [
        ("no TOML", "[site.main\n".to_owned(), ""),
        ("an unknown key", site("no_such_key = 1"), "no_such_key"),
        ("two mistakes", site("no_such_key = 1\nnor_this = 2"), "nor_this"),
        ("a file that is not there", site("error_pages = { \"502\" = \"missing.html\" }"), "missing.html"),
        (
            "two sites of one host",
            format!("{}[site.other]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n", site("")),
            "other",
        ),
    ] {
        let answer = node.reload(&text).await;
        table.row(name, same("the status", answer.status, 422));
        let said = json(&answer);
        let errors = said["errors"].as_array().cloned().unwrap_or_default();
        table.row(name, that(!errors.is_empty(), || format!("no errors: {said}")));
        for error in &errors {
            let complete = error["file"].as_str().is_some_and(|file| file.ends_with(FILE))
                && error["line"].as_u64() > Some(0)
                && error["column"].as_u64() > Some(0)
                && error["message"].as_str().is_some_and(|message| !message.is_empty());
            table.row(name, that(complete, || error.to_string()));
        }
        table.row(name, that(said.to_string().contains(word), || format!("no {word:?} in {said}")));
        table.row(name, same("the mark", mark(&node, "/private").await.as_deref(), Some("one")));
    }
    table.row("two mistakes", {
        let said = json(&node.reload(&site("no_such_key = 1\nnor_this = 2")).await);
        same("errors", said["errors"].as_array().map(Vec::len), Some(2))
    });
    // And the next good one is taken.
    table.row("a good one", same("the status", node.reload(&marked("two")).await.status, 200));
    table.row("a good one", same("the mark", mark(&node, "/private").await.as_deref(), Some("two")));
    table.finish();
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_its_name() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, &marked("one")).start().await;
    let whole = std::fs::read_to_string(node.path(FILE)).expect("the node's configuration");
    let mut table = Table::new("what needs a restart");
    for (name, from, to) in [
        ("workers", "workers = 2".to_owned(), "workers = 1"),
        ("memory", "256MiB".to_owned(), "512MiB"),
        ("admin", node.admin().to_string(), "127.0.0.1:9901"),
        ("http", node.address().to_string(), "127.0.0.1:8081"),
        ("https", node.tls_address().to_string(), "127.0.0.1:8444"),
        ("access_log", "access.log".to_owned(), "other.log"),
    ] {
        let changed = whole.replace(&from, to).replace("\"one\"", "\"two\"");
        node.write_file(FILE, changed);
        let answer = node.admin_post("/v1/config/reload").await.expect("an answer");
        table.row(name, same("the status", answer.status, 422));
        let said = json(&answer)["errors"].to_string();
        table.row(name, that(said.contains(name), || format!("{name} is not named: {said}")));
        // Not even the half of it that could have been.
        table.row(name, same("the mark", mark(&node, "/private").await.as_deref(), Some("one")));
    }
    table.finish();
}

#[tokio::test]
async fn requests_in_flight_finish_as_they_began() {
    let origin = origin();
    let gate = Gate::closed();
    let held = Answer::ok("first, ").hold(&gate).piece("last").field("Cache-Control: no-store");
    origin.serve("/held", held);
    let node = NodeOptions::configured(&origin, &marked("one")).start().await;
    let mut busy = node.client().await;
    busy.ask("GET", "/held", &[]).await;
    busy.begin("GET").await.expect("a head");
    let h2 = node.h2().await;
    let mut begun = h2.begin("GET", "/held", &[], None).await.expect("a head");
    // The site they came for is gone.
    let other = "[site.other]\nhosts = [\"other.example.test\"]\norigins = [\"http://127.0.0.1:1\"]\n";
    assert_eq!(node.reload(other).await.status, 200);
    assert_eq!(node.get("/page").await.status, 421);
    gate.open();
    let (body, end) = busy.rest().await;
    assert!(body == "first, last" && end.is_clean(), "{body:?} {end:?}");
    let (body, end) = begun.rest().await;
    assert!(body == "first, last" && end.is_clean(), "{body:?} {end:?}");
    assert_eq!(h2.get("/page").await.status, 421);
}

#[tokio::test]
async fn timeouts_change_with_a_reload() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, &site("")).start().await;
    let limits = format!("[limits]\nidle_timeout = \"300ms\"\n{}", site(""));
    assert_eq!(node.reload(&limits).await.status, 200);
    let mut client = node.client().await.patient(Duration::from_secs(3));
    client.get("/page").await;
    let (_, end) = client.closed().await;
    assert!(end.is_closed(), "{end:?}");
}

fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}
