//! The nodes that are asked before an origin is, in words.

use serde::Serialize;

use crate::fleet::Hop;
use crate::origin::Role;

/// A node on the way to an origin.
#[derive(Clone, Debug, Serialize)]
pub struct HopAt {
    /// `owner` of the object in its PoP, or `shield` between edges and origins.
    pub role: &'static str,
    pub pop: String,
    /// The node's name; none: no node of the PoP can be asked now.
    pub node: Option<String>,
    pub address: Option<String>,
    /// It is this node.
    pub here: bool,
}

impl From<Hop> for HopAt {
    fn from(hop: Hop) -> Self {
        let node = hop.node.as_ref();
        Self {
            role: hop.role.as_str(),
            pop: hop.pop,
            node: node.map(|node| node.name.clone()),
            address: node.map(|node| node.address.clone()),
            here: node.is_some_and(|node| node.asking.is_none()),
        }
    }
}

impl HopAt {
    pub fn sentence(&self) -> String {
        let Self { pop, node, .. } = self;
        let name = node.as_deref().unwrap_or_default();
        match (node.is_some(), self.here, self.role == Role::Owner.as_str()) {
            (false, _, true) => format!("No node of the PoP {pop} can be asked now."),
            (false, _, false) => format!("No node of the shield {pop} can be asked now: it is passed by."),
            (true, true, true) => format!("Of the PoP {pop} this node owns it."),
            (true, true, false) => format!("This node is the shield {pop}."),
            (true, false, true) => format!("Of the PoP {pop} the node {name} owns it, and is asked first."),
            (true, false, false) => format!("The node {name} of the shield {pop} is asked before an origin is."),
        }
    }
}
