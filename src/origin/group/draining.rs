//! Members of a group that are being taken out, and how a member stands in one word.

use std::time::Instant;

use edge_config::section::group as config;

use super::{Group, Phase};
use crate::clock;
use crate::origin::drains::{self, Drain};
use crate::origin::roster::Placed;

impl Group {
    /// How far a member is that is being taken out.
    pub fn phase(&self, placed: &Placed, now: Instant) -> Phase {
        drains::phase(self.drains(placed), now)
    }

    /// What the configuration and the operator have said about taking a member out.
    pub fn drains(&self, placed: &Placed) -> [Option<Drain>; 2] {
        let by_configuration = self.entries.get(placed.entry).and_then(|entry| entry.drain);
        let (label, address) = (placed.member.peer.label(), placed.member.target().address);
        [by_configuration, self.origins.drains.of(&self.settings.site, label, address)]
    }

    /// How a member stands: `draining` while it may get requests of its sessions or has some under way, `drained` when nothing
    /// is left of them; otherwise whether it is up.
    pub fn state(&self, placed: &Placed, now: Instant) -> &'static str {
        let is_busy = placed.member.in_flight() > 0;
        match self.phase(placed, now) {
            Phase::Open => placed.member.standing(now).as_str(),
            // Without cookies nobody can say what is a session of its own.
            Phase::Leaving if is_busy || self.cookie_name().is_some() => "draining",
            Phase::Left if is_busy => "draining",
            Phase::Leaving | Phase::Left => "drained",
        }
    }
}

/// Whether its configuration has an origin taken out. What was begun goes on: a reload that leaves it alone does not begin
/// anew.
pub(super) fn begun(config: &config::Member, previous: Option<&Group>) -> Option<Drain> {
    let same = |entry: &&super::Entry| {
        entry.config.drain == config.drain && entry.config.origin.is_at_the_same(&config.origin)
    };
    match previous.into_iter().flat_map(|group| &group.entries).find(same) {
        Some(before) => before.drain,
        None => config.drain.map(|drain| Drain::lasting(drain.time(), clock::monotonic())),
    }
}
