//! The nodes that follow a log, as they say of themselves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::streams::NODE_FORGOTTEN;
use super::{LEASE_MS, MARGIN_MS, PRESENT_MS};

/// What a node says of itself, every second and when it has applied something somebody waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub v: u8,
    pub id: String,
    pub name: String,
    /// The log it follows, by when that was made.
    pub log: u64,
    /// The last record it has applied.
    pub seq: u64,
    pub current: bool,
    pub draining: bool,
    pub version: String,
    /// The last version of a document of the hub that it runs with; 0: none.
    pub config: u64,
    /// What it has the same of as a node that runs with the same documents.
    #[serde(default)]
    pub documents: String,
    /// The sites it goes on serving when it cannot know what was purged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<String>,
    /// The point of presence it stands in, if it says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pop: String,
    /// The URL by which other nodes reach it, if they do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// It was taken out of the list by the operator.
    #[serde(default)]
    pub gone: bool,
}

/// What was heard of a node. Times are milliseconds since this machine was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub said: Announcement,
    /// When it said so, by the clocks of two machines.
    pub at: u64,
    /// When that came here.
    pub came: u64,
}

/// Every node that was heard of.
#[derive(Clone, Debug, Default)]
pub struct Members {
    all: BTreeMap<String, Heard>,
    /// All that the hub knows of have been heard.
    pub complete: bool,
}

impl Members {
    /// Hears now what a node said of itself at a time.
    pub fn hear(&mut self, said: Announcement, at: u64, now: u64) {
        if said.gone {
            self.all.remove(&said.id);
            return;
        }
        match self.all.get_mut(&said.id) {
            // A node's words can overtake one another; what it has applied stays applied.
            Some(known) if known.said.log == said.log && known.said.seq > said.seq => {
                known.said = Announcement { seq: known.said.seq, ..said };
                (known.at, known.came) = (at, now);
            }
            _ => {
                self.all.insert(said.id.clone(), Heard { said, at, came: now });
            }
        }
    }

    /// Those that count now.
    pub fn iter(&self, now: u64) -> impl Iterator<Item = &Heard> {
        let forgotten = u64::try_from(NODE_FORGOTTEN.as_millis()).unwrap_or(u64::MAX);
        self.all.values().filter(move |heard| now.saturating_sub(heard.at) < forgotten)
    }

    /// The ids of those that count now.
    pub fn ids(&self, now: u64) -> BTreeSet<String> {
        self.iter(now).map(|heard| heard.said.id.clone()).collect()
    }

    pub fn named(&self, name: &str) -> impl Iterator<Item = &Announcement> {
        self.all.values().map(|heard| &heard.said).filter(move |said| said.name == name || said.id == name)
    }
}

impl Heard {
    /// `current`, `isolated`, `draining`, or `silent`: it has said nothing for longer than it may take itself for current.
    pub fn state(&self, now: u64) -> &'static str {
        match &self.said {
            _ if now.saturating_sub(self.at) > LEASE_MS => "silent",
            said if said.draining => "draining",
            said if said.current => "current",
            _ => "isolated",
        }
    }

    /// Whether it has been silent for so long that its lease is out: nobody takes itself for current who has not said what it
    /// is for `PRESENT_MS`. Nothing it said may be on its way here.
    pub fn is_out(&self, now: u64) -> bool {
        now > self.came + PRESENT_MS + LEASE_MS + MARGIN_MS
    }

    /// Whether it goes on serving one of these sites when it is isolated.
    pub fn serves_any(&self, sites: &[&str]) -> bool {
        let any = sites.contains(&"*") && !self.said.serves.is_empty();
        any || self.said.serves.iter().any(|site| sites.contains(&site.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: &str, seq: u64) -> Announcement {
        Announcement {
            id: id.into(),
            name: format!("node {id}"),
            log: 1,
            seq,
            current: true,
            ..Announcement::default()
        }
    }

    #[test]
    fn what_a_node_has_applied_stays_applied() {
        let mut members = Members::default();
        members.hear(said("a", 7), 0, 0);
        members.hear(said("a", 5), 10, 10);
        let seqs = |members: &Members| members.iter(10).map(|heard| heard.said.seq).collect::<Vec<_>>();
        assert_eq!(seqs(&members), [7]);
        members.hear(Announcement { log: 2, ..said("a", 1) }, 20, 20);
        assert_eq!(seqs(&members), [1], "of another log");
        members.hear(Announcement { gone: true, ..said("a", 0) }, 30, 30);
        assert_eq!(seqs(&members), [0; 0]);
    }

    #[test]
    fn nodes_of_other_versions_understand_one_another() {
        let alone = serde_json::to_string(&said("a", 1)).expect("it can be said");
        assert!(!alone.contains("pop") && !alone.contains("address"), "{alone}");
        assert_eq!(serde_json::from_str::<Announcement>(&alone).ok(), Some(said("a", 1)));
        let placed =
            Announcement { pop: "fra".into(), address: "https://fra-1.example.net:8443".into(), ..said("a", 1) };
        let text = serde_json::to_string(&placed).expect("it can be said");
        assert_eq!(serde_json::from_str::<Announcement>(&text).ok(), Some(placed));
    }

    #[test]
    fn states() {
        let heard = |said: Announcement| Heard { said, at: 1_000, came: 1_000 };
        let rows = [
            ("current", heard(said("a", 1)), 1_500, "current"),
            ("draining", heard(Announcement { draining: true, ..said("a", 1) }), 1_500, "draining"),
            ("isolated", heard(Announcement { current: false, ..said("a", 1) }), 1_500, "isolated"),
            ("silent", heard(said("a", 1)), 1_001 + LEASE_MS, "silent"),
        ];
        for (name, heard, now, expected) in rows {
            assert_eq!(heard.state(now), expected, "{name}");
        }
        let silent = Heard { said: said("a", 1), at: 0, came: 1_000 };
        let until = 1_000 + PRESENT_MS + LEASE_MS + MARGIN_MS;
        assert!(!silent.is_out(until) && silent.is_out(until + 1), "it counts from when it was heard");
        let mut members = Members::default();
        members.hear(said("a", 1), 0, 0);
        assert_eq!(members.iter(24 * 3600 * 1000 - 1).count(), 1);
        assert_eq!(members.iter(24 * 3600 * 1000).count(), 0, "after a day it does not count");
    }

    #[test]
    fn sites_that_are_served_all_the_same() {
        let heard = Heard { said: Announcement { serves: vec!["shop".into()], ..said("a", 1) }, at: 0, came: 0 };
        assert!(heard.serves_any(&["shop"]) && heard.serves_any(&["*"]) && !heard.serves_any(&["other"]));
        assert!(!Heard { said: said("a", 1), at: 0, came: 0 }.serves_any(&["*"]));
    }
}
