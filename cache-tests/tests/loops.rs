//! `CDN-Loop` (RFC 8586): nodes that have one another as origin end a request after one round.

use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};

/// Far more than two nodes need, and far less than any deadline they would otherwise run into.
const QUICKLY: Duration = Duration::from_secs(2);

fn site_before(origin: &str) -> String {
    format!("[site.around]\nhosts = \"*\"\norigins = \"{origin}\"\n")
}

/// Requests that a node has answered, and those of them that it refused because they came back.
async fn answered(node: &Node) -> (f64, f64) {
    let metrics = node.metrics().await;
    let refused = metrics.sum("littoral_refusals_total", &[("reason", "loop")]);
    (metrics.sum("littoral_requests_total", &[]), refused)
}

#[tokio::test]
async fn nodes_that_have_one_another_as_origin_end_it_in_one_round() {
    let first = NodeOptions::configured_before("", &site_before("http://127.0.0.1:1")).start().await;
    let second = NodeOptions::before_url(&format!("http://{}", first.address())).start().await;
    let reloaded = first.reload(&site_before(&format!("http://{}", second.address()))).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let rows: [(&str, &str, &[&str]); 4] = [
        ("a GET", "GET", &[]),
        ("a HEAD", "HEAD", &[]),
        ("a POST", "POST", &["Content-Length: 0"]),
        ("a range", "GET", &["Range: bytes=300000-300009"]),
    ];
    let mut table = Table::new("requests that go round");
    for (index, (name, method, fields)) in rows.into_iter().enumerate() {
        let began = Instant::now();
        let response = first.client().await.exchange(method, &format!("/{index}"), fields).await;
        let took = began.elapsed();
        table.row(name, same("the status", response.status, 508));
        table.row(name, that(took <= QUICKLY, || format!("it took {took:?}")));
        // The client's own and the one that came back; at the other node there is one.
        let rounds = (index + 1) as f64;
        // A request is counted when it has been answered, which its client may see first.
        until(PATIENCE, "as many as make one round each", || async {
            let found = (answered(&first).await, answered(&second).await);
            let expected = ((2.0 * rounds, rounds), (rounds, 0.0));
            if found == expected { Ok(()) } else { Err(format!("{name}: {found:?}, not {expected:?}")) }
        })
        .await;
    }
    table.finish();
}

#[tokio::test]
async fn what_came_is_kept_and_this_node_appended() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("CDN-Loop at the origin");
    for (name, method, more) in [("cached", "GET", None), ("passed", "POST", Some("Content-Length: 0"))] {
        let target = format!("/{name}");
        origin.serve(&target, Answer::ok("seen").field("Cache-Control: no-store"));
        let fields = ["CDN-Loop: a.example; b=\"c, d\"", "cdn-loop: e"];
        let fields: Vec<&str> = fields.into_iter().chain(more).collect();
        let mut client = node.client().await;
        table.row(name, same("the status", client.exchange(method, &target, &fields).await.status, 200));
        let seen = origin.requests_for(&target).pop().unwrap_or_else(|| panic!("{target} never reached the origin"));
        let loops = seen.field("CDN-Loop").unwrap_or_default();
        let own = loops.strip_prefix("a.example; b=\"c, d\", e, littoral-").unwrap_or_default().to_owned();
        table.row(name, that(own.len() == 16, || format!("CDN-Loop: {loops}")));
        // As if it had come back; upper case is the same.
        let back = format!("CDN-Loop: f, LITTORAL-{}", own.to_uppercase());
        let fields: Vec<&str> = [back.as_str()].into_iter().chain(more).collect();
        let response = node.client().await.exchange(method, &target, &fields).await;
        table.row(name, same("when it comes back", response.status, 508));
        let status = response.field("Cache-Status").unwrap_or_default();
        table.row(name, that(status.contains("detail=loop"), || format!("Cache-Status: {status}")));
        table.row(name, same("requests at the origin", origin.count(&target), 1));
    }
    let many = format!("CDN-Loop: {}", vec!["a.example"; 33].join(", "));
    let response = node.client().await.exchange("GET", "/cached", &[&many]).await;
    table.row("more than make sense", same("the status", response.status, 508));
    let refused = node.metrics().await.sum("littoral_refusals_total", &[("reason", "loop")]);
    table.row("all", same("refused", refused, 3.0));
    table.finish();
}

#[tokio::test]
async fn what_is_stored_is_not_for_a_request_that_came_back() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("stored").field("Cache-Control: max-age=60"));
    let node = NodeOptions::before(&origin).start().await;
    assert_eq!(node.get("/page").await.status, 200);
    let own = origin.requests_for("/page").pop().and_then(|request| request.field("CDN-Loop")).expect("the field");
    let mut client = node.client().await;
    let hit = client.exchange("GET", "/page", &["CDN-Loop: a.example"]).await;
    assert_eq!((hit.status, hit.text()), (200, "stored".to_owned()), "of another CDN it is a hit");
    let refused = node.client().await.exchange("GET", "/page", &[&format!("CDN-Loop: {own}")]).await;
    assert_eq!((refused.status, origin.count("/page")), (508, 1));
}
