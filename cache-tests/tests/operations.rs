//! What an operator relies on: the access log, metrics, health, the end of a process and messages about mistakes.

use std::net::TcpListener;
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, Socket, request};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions, free_port, run_to_the_end};
use cache_tests::origin::Origin;
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use serde_json::Value;

/// The names a log record may have; those in [`ALWAYS`] are never missing.
const NAMES: [&str; 30] = [
    "ts",
    "site",
    "client",
    "method",
    "host",
    "path",
    "query",
    "status",
    "bytes",
    "cache",
    "reason",
    "key",
    "ttl",
    "age",
    "variant",
    "node",
    "tier",
    "parent",
    "origin",
    "ttfb_us",
    "total_us",
    "retries",
    "tls",
    "proto",
    "trace_id",
    "request_id",
    "purge_seq",
    "config",
    "ended",
    "level",
];
const ALWAYS: [&str; 9] = ["ts", "client", "method", "host", "path", "status", "bytes", "cache", "total_us"];

const KINDS: [&str; 7] = ["hit", "stale", "revalidated", "miss", "collapsed", "pass", "error"];

/// A page for each kind of request.
fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/fresh", Answer::ok("a fresh page").field("Cache-Control: max-age=60"));
    origin.serve("/private", Answer::ok("a private page").field("Cache-Control: private"));
    origin.serve("/gone", Answer::hang_up());
    origin
}

async fn refuse_one(node: &Node) {
    let mut client = node.client().await;
    client.send(format!("GET /refused HTTP/1.1\r\nHost: {HOST}\r\nA : b\r\n\r\n")).await.expect("the node reads");
    assert_eq!(client.response("GET").await.map(|response| response.status), Ok(400));
}

#[tokio::test]
async fn the_access_log_has_a_record_for_every_request() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    for (method, target, fields) in [
        ("GET", "/fresh?q=1", &[][..]),
        ("GET", "/fresh?q=1", &[]),
        ("GET", "/private", &[]),
        ("POST", "/private", &["Content-Length: 0"]),
        ("GET", "/gone", &[]),
    ] {
        node.client().await.exchange(method, target, fields).await;
    }
    refuse_one(&node).await;
    let records = node.log_lines(6).await;
    let mut table = Table::new("the access log");
    table.row("records", same("the number", records.len(), 6));
    for (number, record) in records.iter().enumerate() {
        let names = record.as_object().expect("records are objects");
        for name in names.keys() {
            table.row(&format!("record {number}"), that(NAMES.contains(&name.as_str()), || format!("{name} is new")));
        }
        let status = &record["status"];
        // A request that was refused may not have had a host or a path.
        for name in ALWAYS.iter().filter(|name| status != 400 || matches!(**name, "ts" | "client" | "status")) {
            table.row(&format!("record {number}"), that(names.contains_key(*name), || format!("{name} is missing")));
        }
        table.row(
            &format!("record {number}"),
            that(text(record, "client").contains("127.0.0.1"), || record.to_string()),
        );
    }
    let of = |status: u64, path: &str, cache: &str| {
        let matching = |record: &&Value| {
            record["status"] == status && text(record, "path") == path && text(record, "cache") == cache
        };
        records.iter().filter(matching).count()
    };
    table.row("the miss", same("records", of(200, "/fresh", "miss"), 1));
    table.row("the hit", same("records", of(200, "/fresh", "hit"), 1));
    table.row("the uncacheable", same("records", of(200, "/private", "miss") + of(200, "/private", "pass"), 2));
    table.row("the failed", same("records", of(502, "/gone", "error"), 1));
    table.row("the refused", same("records", records.iter().filter(|record| record["status"] == 400).count(), 1));
    let hit = records.iter().find(|record| record["cache"] == "hit").expect("a record of the hit");
    table.row("the hit", same("method", text(hit, "method"), "GET"));
    table.row("the hit", same("host", text(hit, "host"), HOST));
    table.row("the hit", same("query", text(hit, "query"), "q=1"));
    table.row("the hit", that(hit["bytes"].as_u64() >= Some(12), || format!("bytes: {}", hit["bytes"])));
    table.row("the hit", that(hit["total_us"].is_u64(), || format!("total_us: {}", hit["total_us"])));
    table.finish();
}

#[tokio::test]
async fn what_clients_choose_cannot_break_the_log() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    let mut client = node.client().await;
    for target in ["/\"},{\"status\":999", "/\\u0000\\", "/%0d%0aINJECTED", "/?a=\"b\"&c={}", "/'<script>"] {
        let mut refused = node.client().await;
        let wire = request("GET", target, &["User-Agent: \"}\\", "Referer: {\"a\":\"\u{e9}\"}"]);
        refused.send(wire).await.expect("the node reads");
        // Served or refused, but recorded.
        refused.response("GET").await.expect("an answer");
    }
    let latin = [b"GET /fresh HTTP/1.1\r\nHost: www.example.test\r\nReferer: \xe9\xff\r\nX: \x80\r\n\r\n".as_slice()];
    client.send(latin.concat()).await.expect("the node reads");
    client.response("GET").await.expect("an answer");
    // `log_lines` reads every line as JSON.
    let records = node.log_lines(6).await;
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|record| record["status"] != 999));
}

#[tokio::test]
async fn requests_that_never_finish_are_recorded_too() {
    let origin = origin();
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("first").hold(&gate).piece("last").field("Cache-Control: no-store"));
    let node = NodeOptions::before(&origin).start().await;
    let mut client = node.client().await;
    client.ask("GET", "/held", &[]).await;
    client.begin("GET").await.expect("a head");
    client.vanish();
    gate.open();
    assert_eq!(node.log_lines(1).await.len(), 1);
}

#[tokio::test]
async fn a_trusted_proxys_name_for_a_request_is_the_logs_too() {
    let origin = origin();
    for (trust, known) in [("127.0.0.0/8", true), ("192.0.2.0/24", false)] {
        let node = NodeOptions::before(&origin).with("--trust", trust).start().await;
        for (method, target) in [("GET", "/fresh"), ("POST", "/fresh")] {
            node.client().await.exchange(method, target, &["X-Request-Id: abc-123", "Content-Length: 0"]).await;
        }
        for record in node.log_lines(2).await {
            assert_eq!(record["trace_id"] == "abc-123", known, "{trust}: {record}");
        }
    }
}

#[tokio::test]
async fn metrics_explain_themselves() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    node.get("/fresh").await;
    refuse_one(&node).await;
    // A request is counted once it is over, which its client can see first.
    let metrics = until(PATIENCE, "the request and the refusal in the metrics", || async {
        let metrics = node.metrics().await;
        let counted = ["littoral_requests_total", "littoral_refusals_total"]
            .iter()
            .all(|name| metrics.named(name, &[]).any(|sample| sample.value > 0.0));
        if counted { Ok(metrics) } else { Err("not counted".to_owned()) }
    })
    .await;
    let mut table = Table::new("metrics");
    for sample in &metrics.samples {
        let family = metrics.family(&sample.name);
        table.row(family, that(family.starts_with("littoral_"), || "not one of ours".to_owned()));
        table.row(family, that(metrics.helped.contains(family), || "no HELP".to_owned()));
        table.row(family, that(metrics.types.contains_key(family), || "no TYPE".to_owned()));
        // A label never holds what a client chose.
        let chosen = |value: &String| value.contains("/fresh") || value.contains(HOST);
        table.row(family, that(!sample.labels.values().any(chosen), || format!("{:?}", sample.labels)));
    }
    for name in [
        "littoral_requests_total",
        "littoral_refusals_total",
        "littoral_response_bytes_total",
        "littoral_origin_requests_total",
        "littoral_store_bytes",
        "littoral_store_objects",
        "littoral_build_info",
    ] {
        table.row(name, that(metrics.named(name, &[]).any(|sample| sample.value > 0.0), || "no value".to_owned()));
    }
    table.finish();
}

#[tokio::test]
async fn metrics_add_up() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    for _ in 0..4 {
        node.get("/fresh").await;
    }
    for _ in 0..3 {
        node.get("/private").await;
    }
    for _ in 0..2 {
        node.client().await.exchange("POST", "/fresh", &["Content-Length: 0"]).await;
        node.get("/gone").await;
        refuse_one(&node).await;
    }
    let mut table = Table::new("counts");
    // A request is counted when it has ended, which may be just after its answer was read.
    let metrics = until(PATIENCE, "11 requests in the metrics, and 2 refusals", || async {
        let metrics = node.metrics().await;
        let all = metrics.sum("littoral_requests_total", &[]);
        // Whether a refusal is a request too is for the table of metrics to say.
        let requests = all - metrics.sum("littoral_requests_total", &[("status", "400")]);
        let refusals = metrics.sum("littoral_refusals_total", &[]);
        if requests >= 11.0 && refusals >= 2.0 { Ok(metrics) } else { Err(format!("{requests}, {refusals}")) }
    })
    .await;
    let kind = |kind: &str| metrics.sum("littoral_requests_total", &[("cache", kind)]);
    table.row("hit", same("count", kind("hit"), 3.0));
    table.row("miss and pass", same("count", kind("miss") + kind("pass"), 6.0));
    table.row("refusals", same("count", metrics.sum("littoral_refusals_total", &[]), 2.0));
    table.row("502", same("count", metrics.sum("littoral_requests_total", &[("status", "502")]), 2.0));
    for sample in metrics.named("littoral_requests_total", &[]) {
        let kind = sample.labels.get("cache").cloned().unwrap_or_default();
        table.row("kinds", that(KINDS.contains(&kind.as_str()), || format!("cache={kind:?}")));
    }
    let asked = metrics.sum("littoral_origin_requests_total", &[]);
    // A hang-up may be asked again on a new connection.
    let retried = 2.0;
    table.row("origin", that((8.0..=8.0 + retried).contains(&asked), || format!("{asked} requests")));
    table.finish();
}

#[tokio::test]
async fn health_is_told_on_the_admin_address_alone() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    for target in ["/livez", "/readyz"] {
        assert_eq!(node.admin_get(target).await.map(|response| response.status), Ok(200), "{target}");
    }
    assert_eq!(node.admin_get("/no-such-thing").await.map(|response| response.status), Ok(404));
    // On the site's address these belong to the site.
    for target in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(node.get(target).await.status, 404, "{target}");
        assert_eq!(origin.count(target), 1, "{target}");
    }
    // The clock moves only for those who asked for it.
    let moved = node.admin_post("/test/clock?advance_ms=1000").await.map(|response| response.status);
    assert!(matches!(moved, Ok(400..=499)), "{moved:?}");
}

#[tokio::test]
async fn sigterm_lets_requests_finish_and_takes_no_new_ones() {
    let origin = origin();
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("first, ").hold(&gate).piece("last").field("Cache-Control: max-age=60"));
    let mut node = NodeOptions::before(&origin).start().await;
    let mut idle = node.client().await;
    idle.get("/fresh").await;
    let mut busy = node.client().await;
    busy.ask("GET", "/held", &[]).await;
    busy.begin("GET").await.expect("a head");
    node.terminate();
    until(PATIENCE, "/readyz says 503", || async {
        match node.admin_get("/readyz").await {
            Ok(response) if response.status == 503 => Ok(()),
            other => Err(format!("{:?}", other.map(|response| response.status))),
        }
    })
    .await;
    assert_eq!(node.admin_get("/livez").await.map(|response| response.status), Ok(200));
    until(PATIENCE, "new connections are refused", || async {
        match Client::connect_with(node.address(), Socket::default()).await {
            Err(_) => Ok(()),
            Ok(mut client) => {
                client.ask("GET", "/fresh", &[]).await;
                match client.response("GET").await {
                    Err(End::Cut | End::Reset) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        }
    })
    .await;
    let (_, end) = idle.closed().await;
    assert!(end.is_closed(), "an idle connection stays: {end:?}");
    gate.open();
    let (body, end) = busy.rest().await;
    assert_eq!((&body[..], end), (&b"first, last"[..], End::Whole));
    let status = node.end_within(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", node.said());
    let records = node.log_lines(2).await;
    assert!(records.iter().any(|record| text(record, "path") == "/held" && record["status"] == 200), "{records:?}");
}

#[tokio::test]
async fn sigterm_does_not_wait_for_ever() {
    let origin = origin();
    let gate = Gate::closed();
    origin.serve("/held", Answer::ok("first, ").hold(&gate).piece("last"));
    let mut node = NodeOptions::before(&origin).with("--drain-timeout", "500ms").start().await;
    let mut busy = node.client().await;
    busy.ask("GET", "/held", &[]).await;
    busy.begin("GET").await.expect("a head");
    node.terminate();
    let status = node.end_within(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", node.said());
    let (_, end) = busy.rest().await;
    assert!(!end.is_clean(), "a cut answer ends as {end:?}");
}

#[tokio::test]
async fn an_idle_node_ends_at_once() {
    let mut node = NodeOptions::embedded().start().await;
    node.terminate();
    assert_eq!(node.end_within(Duration::from_secs(3)).await.code(), Some(0), "{}", node.said());
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let mut table = Table::new("mistakes");
    for (arguments, expected) in [
        (&["run", "--no-such-option"][..], "--no-such-option"),
        (&["run", "--origin", "not a url"], "not a url"),
        (&["run", "--origin", "ftp://example.test"], "ftp"),
        (&["run", "--origin"], "--origin"),
        (&["run", "--listen", "nowhere"], "nowhere"),
        (&["run", "--listen", "127.0.0.1:99999"], "99999"),
        (&["run", "--memory", "much"], "much"),
        (&["run", "--workers", "-1"], "-1"),
        (&["run", "--workers", "0"], "0"),
        (&["run", "--trust", "127.0.0.0/99"], "127.0.0.0/99"),
        (&["run", "--set-cookie", "perhaps"], "perhaps"),
        (&["run", "--head-timeout", "soon"], "soon"),
        (&["no-such-command"], "no-such-command"),
    ] {
        let (code, said) = run_to_the_end(arguments);
        let name = arguments.join(" ");
        table.row(&name, that(matches!(code, Some(2 | 78)), || format!("exit code {code:?}; {said}")));
        table.row(&name, that(said.contains(expected), || format!("{expected:?} is not in: {said}")));
        table.row(&name, that(!said.contains("panicked"), || said.clone()));
    }
    table.finish();
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let free = format!("127.0.0.1:{}", free_port(taken.local_addr().expect("an address").ip()));
    let mut table = Table::new("addresses in use");
    for (name, listen, admin) in [("--listen", &address, &free), ("--admin", &free, &address)] {
        let (code, said) = run_to_the_end(&["run", "--listen", listen, "--admin", admin]);
        // 124 is that of `timeout`: it went on without.
        table.row(name, that(!matches!(code, Some(0 | 124) | None), || format!("exit code {code:?}; {said}")));
        table.row(name, that(said.contains(&address), || format!("{address} is not in: {said}")));
        table.row(name, that(said.to_lowercase().contains("in use"), || format!("no \"in use\" in: {said}")));
        table.row(name, that(!said.contains("panicked"), || said.clone()));
    }
    table.finish();
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_default()
}
