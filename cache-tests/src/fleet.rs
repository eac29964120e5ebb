//! Nodes that have their sites from a hub: starting them, pushing versions, and seeing what each serves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::client::Client;
use crate::deadline::{PATIENCE, until};
use crate::hub::Hub;
use crate::machine::Machine;
use crate::node::{Node, NodeOptions};
use crate::origin::Origin;
use crate::response::Response;

/// How soon a good configuration is live on all nodes: within a second, which is judged where `LITTORAL_SOAK` is set. Elsewhere other
/// tests may have the processors.
pub fn live_within() -> Duration {
    if std::env::var_os("LITTORAL_SOAK").is_some() { Duration::from_secs(1) } else { PATIENCE }
}

/// A node whose sites all come from the hub.
pub fn following(url: &str, name: &str, more: &str) -> NodeOptions {
    let text =
        format!("[node]\nname = \"{name}\"\n[purge]\nlog = {{ nats = \"{url}\" }}\n# instead of [site.*]\n{more}");
    NodeOptions::configured_before("", &text).with("--data", "data")
}

/// An origin that says what it is called.
pub fn called(name: &str) -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok(name.to_owned()).field("Cache-Control: no-store"));
    origin
}

pub fn site(name: &str, host: &str, origin: &Origin) -> String {
    format!("[site.{name}]\nhosts = \"{host}\"\norigins = \"{}\"\n", origin.url())
}

/// What a node answers for a host.
pub async fn body(node: &Node, host: &str) -> String {
    let mut client = Client::connect(node.address()).await;
    client.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.expect("it is sent");
    let response = client.response("GET").await.expect("an answer");
    if response.status == 200 { response.text() } else { response.status.to_string() }
}

pub async fn post(node: &Node, what: &str, body: Value, token: Option<&str>) -> Response {
    node.admin_json("POST", &format!("/v1/config/{what}"), &body, token).await
}

/// Pushes a version of the site `shop`, and gives its number.
pub async fn push(node: &Node, text: &str) -> u64 {
    let response = post(node, "push", json!({ "site": "shop", "text": text }), None).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["version"].as_u64().expect("a version")
}

pub async fn live(node: &Node, host: &str, expected: &str) {
    until(PATIENCE, &format!("{expected} for {host}"), || async {
        let found = body(node, host).await;
        if found == expected { Ok(()) } else { Err(format!("{found}\n{}", node.admin_get("/v1/config").await?.text())) }
    })
    .await;
}

/// Waits until every node answers so, and gives how long that took.
pub async fn live_on_all(nodes: &[Node], host: &str, expected: &str) -> Duration {
    let begun = Instant::now();
    for node in nodes {
        live(node, host, expected).await;
    }
    begun.elapsed()
}

pub async fn connected(nodes: &[Node]) {
    for node in nodes {
        until(PATIENCE, "nodes that know one another", || async {
            let known = node.admin_get("/v1/nodes").await?.json();
            let current = node.admin_get("/currentz").await?.status == 200;
            let count = known["nodes"].as_array().map_or(0, Vec::len);
            if count == nodes.len() && current { Ok(()) } else { Err(format!("{known}")) }
        })
        .await;
    }
}

pub async fn start(hub: &Hub, count: usize, more: &str) -> (Machine, Vec<Node>) {
    let machine = Machine::shared();
    let mut nodes = Vec::new();
    for number in 0..count {
        nodes.push(following(&hub.url(), &format!("edge-{number}"), more).within(&machine).start().await);
    }
    connected(&nodes).await;
    (machine, nodes)
}

pub async fn rejects(node: &Node) -> u64 {
    node.metrics().await.sum("littoral_config_rejects_total", &[]) as u64
}

/// What each node says that it runs with.
pub async fn sets(node: &Node) -> Vec<String> {
    let answer = node.admin_get("/v1/config").await.expect("an answer").json();
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node["documents"].as_str().unwrap_or_default().to_owned()).collect()
}
