//! A node that cannot know what was purged, and what that means for its requests.
//!
//! It has lost the hub for longer than it may trust what it stored. Whatever answers a request then has to be newer than the
//! request: what is stored is validated, and a fill is joined only by those who came before it asked. Such validations are few at a
//! time for each origin.

use edge_config::section::site::Isolated;

use crate::clock;
use crate::origin::validations::Validation;
use crate::pipeline::Pipeline;
use crate::pipeline::decide::Plan;
use crate::pipeline::request::Request;
use crate::routing::Site;
use crate::semantics::cache_status::Reason;
use crate::semantics::time::UnixMs;

/// How a site's requests are answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolation {
    pub mode: Isolated,
    /// Since when.
    pub since: UnixMs,
}

impl Pipeline {
    /// How requests of a site are answered, if the node is isolated now.
    pub fn isolation(&self, site: &Site) -> Option<Isolation> {
        let ms = self.store.ledger.isolated_for(clock::boot_ms)?;
        // Whoever has ended may not serve what another process has purged meanwhile, nor may it fail for that.
        let mode = if self.store.ledger.has_ended() { Isolated::Revalidate } else { site.isolated };
        Some(Isolation { mode, since: UnixMs(clock::wall().0.saturating_sub(ms)) })
    }

    /// How this one is answered, if what is stored here may have been purged: the node is isolated, or the node that asks has
    /// applied more than this one.
    pub(super) fn doubts(&self, request: &Request<'_>) -> Option<Isolation> {
        let behind = || Isolation { mode: Isolated::Revalidate, since: request.now };
        let is_behind = request.by_node.is_some_and(|node| node.behind);
        self.isolation(request.site).or_else(|| is_behind.then(behind))
    }

    /// Whether an answer has to be newer than the request.
    pub(super) fn wants_newer(&self, request: &Request<'_>) -> bool {
        self.doubts(request).is_some_and(|isolation| isolation.mode != Isolated::Serve)
    }

    /// Room for a validation that would not be, were the node not isolated; nothing is needed for others. None: there is no room.
    pub(super) fn room_for(&self, request: &Request<'_>, plan: &Plan) -> Option<Option<Validation>> {
        // A process that has handed over has few requests left, and none of them may fail.
        if plan.detail != Some(Reason::Isolated) || self.store.ledger.has_ended() {
            return Some(None);
        }
        let backing = request.site.backing(request.group);
        let most = request.site.isolated_requests as usize * backing.group.roster().iter().count().max(1);
        backing.validations.begin(most).map(Some)
    }
}
