//! The nodes of each PoP, as they say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::choosing::{self, Standing};
use crate::clock;
use crate::origin::Upstream;
use crate::purge::log::Member;

/// How long a node that did not answer is not asked, in milliseconds.
const RESTS_FOR_MS: u64 = 2_000;

/// A node.
pub struct Node {
    pub id: String,
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// A number it has for the life of the process, larger than those of any origin.
    pub number: usize,
    hash: u64,
    /// How it is asked. None: it is this node, or its address is none.
    pub asking: Option<Arc<dyn Upstream>>,
    in_flight: AtomicU32,
    rests_until: AtomicU64,
}

/// A request that is under way there, until this is dropped.
pub struct UnderWay(Arc<Node>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Node {
    pub fn new(id: &str, name: &str, address: &str, number: usize, asking: Option<Arc<dyn Upstream>>) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            number,
            hash: choosing::id(id),
            asking,
            in_flight: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
        }
    }

    /// A request goes there.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.clone())
    }

    /// It did not answer: others are asked for a while.
    pub fn failed(&self) {
        self.rests_until.store(clock::boot_ms() + RESTS_FOR_MS, Ordering::Release);
    }

    /// It did.
    pub fn answered(&self) {
        self.rests_until.store(0, Ordering::Release);
    }

    fn rests(&self, now: u64) -> bool {
        now < self.rests_until.load(Ordering::Acquire)
    }
}

/// A node of a PoP, and whether it may be asked.
#[derive(Clone)]
pub struct Placed {
    pub node: Arc<Node>,
    pub usable: bool,
}

/// All nodes that there are.
#[derive(Clone, Default)]
pub struct Roster {
    pops: BTreeMap<String, Vec<Placed>>,
}

impl Roster {
    /// `own`: the id of this node, which is never asked over the network. `made`: makes one that was not there before.
    pub fn new(members: &[Member], own: &str, before: &Self, made: &mut dyn FnMut(&Member) -> Node) -> Self {
        let mut pops: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
        for member in members.iter().filter(|member| !member.pop.is_empty() && !member.address.is_empty()) {
            let is_known = |placed: &&Placed| placed.node.id == member.id && placed.node.address == member.address;
            let known = before.of(&member.pop).iter().find(is_known).map(|placed| placed.node.clone());
            let node = known.unwrap_or_else(|| Arc::new(made(member)));
            let usable = member.state == "current" && (node.asking.is_some() || member.id == own);
            pops.entry(member.pop.clone()).or_default().push(Placed { node, usable });
        }
        pops.values_mut().for_each(|nodes| nodes.sort_by(|one, other| one.node.id.cmp(&other.node.id)));
        Self { pops }
    }

    /// The nodes of a PoP.
    pub fn of(&self, pop: &str) -> &[Placed] {
        self.pops.get(pop).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whom to ask for an object in a PoP: the first of these that was not tried.
    pub fn choose(&self, pop: &str, key: u64, tried: &[usize]) -> Option<&Arc<Node>> {
        let (nodes, now) = (self.of(pop), clock::boot_ms());
        let standings: Vec<Standing> = nodes
            .iter()
            .map(|Placed { node, usable }| Standing {
                id: node.hash,
                usable: *usable && !node.rests(now) && !tried.contains(&node.number),
                in_flight: node.in_flight.load(Ordering::Acquire),
            })
            .collect();
        choosing::choose(&standings, key, &[]).and_then(|index| nodes.get(index)).map(|placed| &placed.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Nobody;

    fn member(id: &str, pop: &str, address: &str, state: &'static str) -> Member {
        Member {
            id: id.into(),
            name: format!("node {id}"),
            position: None,
            state,
            version: String::new(),
            config: 0,
            documents: String::new(),
            heard_ms: 0,
            pop: pop.into(),
            address: address.into(),
        }
    }

    #[test]
    fn nodes_stay_what_they_are() {
        let mut numbers = 0;
        let mut made = |member: &Member| {
            numbers += 1;
            let asking = (member.id != "own").then(|| Arc::new(Nobody) as Arc<dyn Upstream>);
            Node::new(&member.id, &member.name, &member.address, numbers, asking)
        };
        let before = Roster::new(
            &[
                member("own", "fra", "http://10.0.0.1", "current"),
                member("b", "fra", "http://10.0.0.2", "current"),
                member("c", "fra", "", "current"),
                member("d", "", "http://10.0.0.4", "current"),
                member("e", "sin", "http://10.0.0.5", "draining"),
            ],
            "own",
            &Roster::default(),
            &mut made,
        );
        assert_eq!((before.of("fra").len(), before.of("sin").len(), before.of("").len()), (2, 1, 0));
        assert!(before.choose("sin", 1, &[]).is_none(), "it drains");
        let both: std::collections::BTreeSet<_> =
            (0..64).filter_map(|key| before.choose("fra", key, &[])).map(|node| node.id.clone()).collect();
        assert_eq!(both.len(), 2, "each has some");
        let b = before.of("fra")[0].node.clone();
        assert_eq!(b.id, "b");
        b.failed();
        assert!((0..64).all(|key| before.choose("fra", key, &[]).is_some_and(|node| node.id == "own")), "it rests");
        let after = Roster::new(
            &[member("b", "fra", "http://10.0.0.2", "current"), member("own", "fra", "http://10.0.0.9", "current")],
            "own",
            &before,
            &mut made,
        );
        assert!(Arc::ptr_eq(&after.of("fra")[0].node, &b), "what is known of it stays");
        assert_eq!(after.of("fra")[1].node.number, 4, "at another address it is another one");
        assert!(after.choose("fra", 1, &[4]).is_none(), "one rests, one was tried");
        b.answered();
        let under_way = b.begin();
        assert_eq!(after.choose("fra", 1, &[4]).map(|node| node.id.as_str()), Some("b"));
        drop(under_way);
        assert_eq!(b.in_flight.load(Ordering::Acquire), 0);
    }
}
