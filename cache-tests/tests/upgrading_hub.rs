//! Upgrading a node in place that follows a hub, beside one that stays.

use std::time::Duration;

use cache_tests::deadline::{PATIENCE, until, within};
use cache_tests::hub::Hub;
use cache_tests::machine::Machine;
use cache_tests::many::{current, following, page, purge_everywhere, told, version};
use cache_tests::node::Node;
use cache_tests::origin::Origin;
use cache_tests::succession::Succession;
use serde_json::json;

/// Receipts for all nodes, one after the other, while something goes on: none of what was purged is served by either node.
async fn receipts(upgraded: &Node, other: &Node, count: usize) {
    for _ in 0..count {
        let before = version(upgraded, "/page").await.max(version(other, "/page").await);
        let (status, receipt) = purge_everywhere(other, "5s").await;
        assert_eq!((status, &receipt["applied"]), (200, &json!(true)), "{receipt}");
        for node in [upgraded, other] {
            let now = version(node, "/page").await;
            assert!(now > before, "version {now} after a receipt, and {before} was purged");
        }
    }
}

#[tokio::test]
async fn receipts_hold_while_a_node_that_follows_a_hub_is_upgraded() {
    let (origin, hub, machine) = (Origin::start(), Hub::start().await, Machine::shared());
    origin.serve("/page", page());
    origin.serve("/other", page());
    let start =
        async |name: &str| following(&origin, &hub.url(), name, "isolated = \"fail\"").within(&machine).start().await;
    let (first, other) = (Succession::of(start("edge-0").await), start("edge-1").await);
    current(&first.node).await;
    current(&other).await;
    receipts(&first.node, &other, 2).await;
    let (upgraded, ()) = tokio::join!(first.upgrade(), receipts(&first.node, &other, 20));
    let id = upgraded.unwrap_or_else(|refused| panic!("{refused:?}\n{}", first.node.said()));
    // An isolated node would fail.
    version(&first.node, "/other").await;
    assert_eq!(told(&first.node, "/other").await, "hit");
    receipts(&first.node, &other, 3).await;
    // A process that cannot take over: the one before follows the hub again.
    let file = first.node.path("data/node.json");
    let good = std::fs::read(&file).expect("a file");
    std::fs::write(&file, "{").expect("written");
    let (status, why) = first.upgrade().await.expect_err("refused");
    assert!(status == 422 && why.contains("node.json"), "{status} {why}");
    assert_eq!(first.serving().await, id);
    within(PATIENCE, "a node that is current again", current(&first.node)).await;
    until(PATIENCE, "the node serves again", || async {
        let response = first.node.get("/page").await;
        if response.status == 200 { Ok(()) } else { Err(format!("{}", response.status)) }
    })
    .await;
    receipts(&first.node, &other, 3).await;
    drop(good);
    first.upgrade().await.unwrap_or_else(|refused| panic!("{refused:?}\n{}", first.node.said()));
    receipts(&first.node, &other, 3).await;
    // Both are known, once each.
    until(Duration::from_secs(9), "two nodes", || async {
        let nodes = other.admin_get("/v1/nodes").await?.json();
        let states: Vec<_> =
            nodes["nodes"].as_array().into_iter().flatten().map(|node| node["state"].clone()).collect();
        if states == [json!("current"), json!("current")] { Ok(()) } else { Err(format!("{nodes}")) }
    })
    .await;
}
