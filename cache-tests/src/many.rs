//! Many nodes that follow one hub, and what is asked of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::client::Client;
use crate::deadline::{PATIENCE, until, within};
use crate::hub::Hub;
use crate::machine::Machine;
use crate::node::{Node, NodeOptions};
use crate::origin::Origin;

/// How long a node may take itself for current, as the reference says.
pub const LEASE: Duration = Duration::from_secs(3);

/// What the origin says, another number each time.
pub fn page() -> Answer {
    Answer::ok("version ").field("Cache-Control: max-age=6000").field("Surrogate-Key: page").numbered()
}

/// A node that follows a hub.
pub fn following(origin: &Origin, url: &str, name: &str, more: &str) -> NodeOptions {
    let site = format!("[site.shop]\nhosts = \"*\"\norigins = \"{{origin}}\"\n{more}\n");
    let text = format!("[node]\nname = \"{name}\"\n[purge]\nlog = {{ nats = \"{url}\" }}\nrate = 100000\n{site}");
    NodeOptions::configured(origin, &text).with("--data", "data")
}

/// Waits until a node knows every purge there is.
pub async fn current(node: &Node) {
    until(Duration::from_secs(10), "a current node", || async {
        match node.admin_get("/currentz").await {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error),
        }
    })
    .await;
}

pub async fn isolated(node: &Node) {
    until(LEASE + Duration::from_secs(2), "an isolated node", || async {
        match node.admin_get("/currentz").await {
            Ok(response) if response.status == 503 => Ok(()),
            Ok(response) => Err(response.text()),
            Err(error) => Err(error),
        }
    })
    .await;
}

/// The number of the origin's answer that a node answers with.
pub async fn version(node: &Node, target: &str) -> u64 {
    let response = node.get(target).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let text = response.text();
    text.rsplit(' ').next().and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

/// What a node says of a GET: `hit`, or why not.
pub async fn told(node: &Node, target: &str) -> String {
    let response = node.get(target).await;
    let status = response.cache_status().expect("a valid Cache-Status");
    match (status.hit, &status.detail) {
        (true, None) => "hit".into(),
        (_, Some(detail)) => detail.clone(),
        (_, None) => status.fwd.clone().unwrap_or_default(),
    }
}

/// Purges a tag; it is durable then, and on its way.
pub async fn purge(node: &Node, tag: &str) {
    let response = node.admin_json("POST", "/v1/purge", &json!({ "tags": [tag] }), None).await;
    assert!(matches!(response.status, 200 | 202), "{} {}", response.status, response.text());
}

/// Purges the tag `page` and waits for every node.
pub async fn purge_everywhere(node: &Node, timeout: &str) -> (u16, Value) {
    let target = format!("/v1/purge?wait=all&timeout={timeout}");
    let response = node.admin_json("POST", &target, &json!({ "tags": ["page"] }), None).await;
    (response.status, response.json())
}

/// Waits until a node says that a purge is applied everywhere.
pub async fn applied(node: &Node, id: &str) {
    until(PATIENCE, "a receipt of a purge that is applied everywhere", || async {
        let found = node.admin_get(&format!("/v1/purges/{id}")).await?;
        if found.status == 200 && found.json()["applied"] == json!(true) { Ok(()) } else { Err(found.text()) }
    })
    .await;
}

pub struct Nodes {
    _machine: Machine,
    pub nodes: Vec<Node>,
}

impl Nodes {
    /// Starts some, and waits until they know every purge and one another.
    ///
    /// # Panics
    /// When they do not.
    pub async fn start(origin: &Origin, hub: &Hub, count: usize) -> Self {
        let machine = Machine::shared();
        let mut nodes = Vec::new();
        for number in 0..count {
            let options = following(origin, &hub.url(), &format!("edge-{number}"), "");
            nodes.push(options.within(&machine).start().await);
        }
        for node in &nodes {
            current(node).await;
        }
        let all = Self { _machine: machine, nodes };
        all.know_one_another().await;
        all
    }

    async fn know_one_another(&self) {
        for node in &self.nodes {
            until(PATIENCE, "nodes that know one another", || async {
                let nodes = node.admin_get("/v1/nodes").await?.json();
                let count = nodes["nodes"].as_array().map_or(0, Vec::len);
                if count == self.nodes.len() { Ok(()) } else { Err(format!("{nodes}")) }
            })
            .await;
        }
    }
}

/// A load on all nodes, and what it found.
#[derive(Debug, Default)]
pub struct Seen {
    pub answers: AtomicU64,
    pub busy: AtomicU64,
}

/// Clients that ask for `/object/0` to `/object/999` in turn, `rate` a second together, until told to stop. Every answer is one, or
/// 503 with `Retry-After`, and comes in time.
///
/// # Panics
/// When one is not.
pub async fn load(nodes: &[&Node], rate: u64, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    const CLIENTS: u64 = 32;
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = nodes[client as usize % nodes.len()].address();
        let (stop, seen) = (stop.clone(), seen.clone());
        clients.spawn(async move {
            let mut connection = Client::connect(address).await;
            let mut number = client;
            while !stop.load(Ordering::Relaxed) {
                let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
                let target = format!("/object/{}", number % 1_000);
                let response = within(Duration::from_secs(5), &target, connection.get(&target)).await;
                match response.status {
                    200 => _ = seen.answers.fetch_add(1, Ordering::Relaxed),
                    503 if response.field("retry-after").is_some() => _ = seen.busy.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{target}: {other} {}", response.text()),
                }
                number += CLIENTS;
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client that found nothing wrong");
    }
}

/// An origin of 1,000 objects that do not change.
pub fn objects(origin: &Origin) {
    for number in 0..1_000 {
        let answer = Answer::ok(format!("object {number}"))
            .field("Cache-Control: max-age=6000")
            .field("ETag: \"one\"")
            .when_matched("\"one\"", Answer::status(304).field("ETag: \"one\""));
        origin.serve(&format!("/object/{number}"), answer);
    }
}
