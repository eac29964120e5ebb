//! A CDN of several PoPs: a hub, nodes that ask one another, and what a test sees of who was asked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cache_status::{self, Bare};
use crate::client::HOST;
use crate::deadline::{PATIENCE, until};
use crate::hub::{Hub, Wire};
use crate::machine::Machine;
use crate::many::current;
use crate::node::{Node, NodeOptions};
use crate::response::Head;
use crate::tls::{Identity, authority_pem};

/// The key of all nodes, unless a test says another.
pub const KEY: [u8; 32] = [7; 32];

/// Nodes look who is there every 200 ms, and may be late.
const LOOK: Duration = Duration::from_millis(300);

/// What a CDN is made of. The PoP `shield` is between the others and the origins.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The PoPs, and how many nodes each has.
    pub pops: &'a [(&'a str, usize)],
    /// The sites, where there is not just one that everything is of.
    pub sites: Option<&'a str>,
    /// More lines of that one.
    pub more: &'a str,
    /// Its shield.
    pub shield: Option<&'a str>,
    pub over: Over,
    /// What nodes know one another by.
    pub key: [u8; 32],
    /// Nodes of this PoP say that they are reached there.
    pub reached: Option<(&'a str, SocketAddr)>,
    /// Nodes of this PoP reach the hub by way of this.
    pub wire: Option<(&'a str, &'a Wire)>,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        let pops = &[("edge", 3), ("shield", 1)];
        Self {
            pops,
            sites: None,
            more: "",
            shield: Some("shield"),
            over: Over::Tcp,
            key: KEY,
            reached: None,
            wire: None,
        }
    }
}

/// What nodes ask one another over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Tls,
    /// TLS, and nobody vouches for their certificates.
    UnknownTls,
}

/// A running one.
#[derive(Debug)]
pub struct Cdn {
    pub nodes: Vec<Placed>,
    pub hub: Hub,
    _machine: Machine,
}

/// A node, and where it stands.
#[derive(Debug)]
pub struct Placed {
    pub node: Node,
    pub pop: String,
    pub name: String,
    /// Where others ask it.
    address: SocketAddr,
}

/// What one cache said of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    pub hit: bool,
    pub fwd: Option<String>,
    pub detail: Option<String>,
}

impl Cdn {
    pub async fn start(origin: &str, plan: Plan<'_>) -> Self {
        Self::following(Hub::start().await, origin, plan).await
    }

    /// Starts nodes that follow this hub, and waits until they know every purge and one another.
    ///
    /// # Panics
    /// When they do not.
    pub async fn following(hub: Hub, origin: &str, plan: Plan<'_>) -> Self {
        let machine = Machine::shared();
        let mut nodes = Vec::new();
        for (pop, count) in plan.pops {
            for number in 0..*count {
                let name = format!("{pop}-{number}");
                let url = plan.wire.filter(|(at, _)| at == pop).map_or(hub.url(), |(_, wire)| wire.url());
                let node = options(&plan, origin, &url, pop, &name).within(&machine).start().await;
                let own = if plan.over == Over::Tcp { node.address() } else { node.tls_address() };
                let address = plan.reached.filter(|(at, _)| at == pop).map_or(own, |(_, address)| address);
                nodes.push(Placed { node, pop: (*pop).to_owned(), name, address });
            }
        }
        let cdn = Self { nodes, hub, _machine: machine };
        cdn.know_one_another().await;
        cdn
    }

    async fn know_one_another(&self) {
        for Placed { node, name, .. } in &self.nodes {
            current(node).await;
            until(PATIENCE, &format!("{name} knows the others"), || async {
                let metrics = node.metrics().await;
                let missing = self.nodes.iter().filter(|other| other.name != *name).find(|other| {
                    let address = other.address.to_string();
                    metrics.named("littoral_origin_up", &[("site", "_nodes"), ("address", &address)]).next().is_none()
                });
                let states = node.admin_get("/v1/nodes").await?.json();
                let all = states["nodes"].as_array().cloned().unwrap_or_default();
                let current = all.iter().filter(|node| node["state"] == json!("current")).count();
                match missing {
                    None if current == self.nodes.len() => Ok(()),
                    None => Err(format!("{states}")),
                    Some(other) => Err(format!("{} is missing", other.name)),
                }
            })
            .await;
        }
        // What they tell by now is what they ask by when they have looked once more.
        let since = Instant::now();
        until(PATIENCE, "nodes that have looked at one another", || async {
            if since.elapsed() > LOOK { Ok(()) } else { Err(format!("{:?}", since.elapsed())) }
        })
        .await;
    }

    /// The nodes of a PoP.
    pub fn pop(&self, pop: &str) -> Vec<&Node> {
        self.nodes.iter().filter(|placed| placed.pop == pop).map(|placed| &placed.node).collect()
    }

    /// # Panics
    /// When there is none of that name.
    pub fn named(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|placed| placed.name == name);
        &found.unwrap_or_else(|| panic!("there is no node {name}")).node
    }

    /// Takes a node out of the list.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn take(&mut self, name: &str) -> Node {
        let at = self.nodes.iter().position(|placed| placed.name == name);
        self.nodes.remove(at.unwrap_or_else(|| panic!("there is no node {name}"))).node
    }

    /// Which nodes ask which other ones now.
    pub async fn asking(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for one in &self.nodes {
            let metrics = one.node.metrics().await;
            for other in &self.nodes {
                let labels = [("site", "_nodes"), ("address", &other.address.to_string())];
                if metrics.sum("littoral_origin_in_flight", &labels) > 0.5 {
                    found.push((one.name.clone(), other.name.clone()));
                }
            }
        }
        found
    }

    /// The sum of a metric over the nodes of a PoP.
    pub async fn sum(&self, pop: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut sum = 0.0;
        for node in self.pop(pop) {
            sum += node.metrics().await.sum(name, labels);
        }
        sum
    }

    /// Requests from node to node that were answered.
    pub async fn hops(&self) -> f64 {
        let mut sum = 0.0;
        for Placed { node, .. } in &self.nodes {
            sum += node.metrics().await.sum("littoral_node_requests_total", &[("outcome", "ok")]);
        }
        sum
    }

    /// Moves the clocks of all nodes.
    pub async fn advance_clocks(&self, by: Duration) {
        for Placed { node, .. } in &self.nodes {
            node.advance_clock(by).await;
        }
    }
}

fn options(plan: &Plan<'_>, origin: &str, hub: &str, pop: &str, name: &str) -> NodeOptions {
    let (address, authority) = match plan.over {
        Over::Tcp => ("http://{http}", ""),
        Over::Tls => ("https://{https}", "authority = \"ca.pem\"\n"),
        Over::UnknownTls => ("https://{https}", ""),
    };
    let reached = plan.reached.filter(|(at, _)| *at == pop).map(|(_, reached)| format!("http://{reached}"));
    let address = reached.as_deref().unwrap_or(address);
    let shield = plan.shield.map(|shield| format!("shield = \"{shield}\"\n")).unwrap_or_default();
    let one = format!("[site.shop]\nhosts = \"*\"\norigins = \"{{origin}}\"\n{shield}{}\n", plan.more);
    let sites = plan.sites.map_or(one, str::to_owned);
    // Nodes that are reached by an address are asked without a name.
    let text = format!(
        "[node]\nname = \"{name}\"\npop = \"{pop}\"\naddress = \"{address}\"\nkey_file = \"node.key\"\n{authority}\
         [purge]\nlog = {{ nats = \"{hub}\" }}\nrate = 100000\n\
         [tls]\nunknown_name = \"first\"\ncertificates = [{{ certificate = \"node.pem\", key = \"node-tls.key\" }}]\n{sites}"
    );
    let identity = Identity::of(&["127.0.0.1", HOST]);
    NodeOptions::configured_before(origin, &text)
        .file("node.key", plan.key)
        .file("node.pem", identity.certificate_pem)
        .file("node-tls.key", identity.key_pem)
        .file("ca.pem", authority_pem())
        .with("--data", "data")
        .test_clock()
}

/// Has a node stand still; it is ended with its test all the same.
pub fn stop(node: &Node) {
    node.process.signal("STOP");
}

/// Has it go on.
pub fn go_on(node: &Node) {
    node.process.signal("CONT");
}

/// What each cache said, in the order in which they came: the one nearest to the client is the last.
///
/// # Errors
/// When one of them said something that is not RFC 9211's.
pub fn hops(head: &Head) -> Result<Vec<Hop>, String> {
    let value = head.field("cache-status").ok_or("no Cache-Status")?;
    let members = cache_status::members(&value)?;
    let hop = |(_, parameters): &cache_status::Member| {
        parameters.iter().fold(Hop::default(), |hop, (name, value)| match (name.as_str(), value) {
            ("hit", Bare::Boolean(hit)) => Hop { hit: *hit, ..hop },
            ("fwd", Bare::Token(fwd)) => Hop { fwd: Some(fwd.clone()), ..hop },
            ("detail", Bare::Token(detail) | Bare::Text(detail)) => Hop { detail: Some(detail.clone()), ..hop },
            _ => hop,
        })
    };
    Ok(members.iter().map(hop).collect())
}
