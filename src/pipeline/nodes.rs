//! Requests of other nodes, and what these are told beside the answer: up to where in the log purges do not concern it, and what
//! it is purged by.
//!
//! A node that asks stores what it gets under the earlier of that position and its own. So what is stored, fresh and live is told
//! with the position at which it was judged; anything else with the position its own fill began at.

use crate::fleet::answered::{Answer, Answered, FIELD};
use crate::origin::Role;
use crate::pipeline::Pipeline;
use crate::pipeline::request::Request;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::purge::position::LogPosition;
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::semantics::reuse::Freshness;
use crate::semantics::time::UnixMs;
use crate::store::fill::{FillHead, Sharing};
use crate::store::record::{Browser, StoredResponse};

/// Another node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByNode {
    /// What this node is to it.
    pub role: Role,
    /// The log this node follows, by when that was made; 0: none it could name.
    pub log: u64,
    /// What this node had applied before it looked for an answer.
    pub applied: LogPosition,
    /// The node that asks has applied more: whatever is stored here has to be validated.
    pub behind: bool,
}

impl Pipeline {
    /// The lines a node gets with a stored response; none for anybody else.
    pub(super) fn told_of_stored(
        &self,
        request: &Request<'_>,
        stored: &StoredResponse,
        status: &CacheStatus,
    ) -> Option<Vec<u8>> {
        let node = request.by_node?;
        let left = stored.judge(&self.store.ledger);
        let is_fresh = left.as_ref().is_ok_and(|freshness| freshness.is_fresh(request.now));
        // What was looked up for this request was judged after `applied` was read.
        let was_looked_up = status.hit || status.forward == Some(Forward::Partial);
        let is_as_it_was = !matches!(status.detail, Some(Reason::Stale | Reason::Purged | Reason::Isolated));
        #[cfg(test)]
        let (is_fresh, is_as_it_was) = match planted(Planted::StaleStoredAsFresh) {
            true => (true, true),
            false => (is_fresh, is_as_it_was),
        };
        let at = if was_looked_up && is_fresh && is_as_it_was { node.applied } else { stored.fill_pos().log };
        let since = left.ok().and_then(|freshness| stale_since(&freshness, request.now));
        #[cfg(test)]
        let since = since.filter(|_| !planted(Planted::StaleStoredAsFresh));
        let says_all = stored.tags().is_some() || stored.selectors().keys.is_empty();
        let mut lines = self.answered(node, Some(at), since, says_all);
        lines.extend_from_slice(stored.tags().unwrap_or_default());
        lines.extend_from_slice(stored.browser().map_or(&[][..], |browser| &browser.replaced));
        Some(lines)
    }

    /// The same for a response that is arriving.
    pub(super) fn told_of_arriving(
        &self,
        request: &Request<'_>,
        head: &FillHead,
        fill_pos: LogPosition,
    ) -> Option<Vec<u8>> {
        let node = request.by_node?;
        let (at, since) = match &head.sharing {
            Sharing::Stored { freshness, .. } => (Some(fill_pos), stale_since(freshness, request.now)),
            Sharing::NotStored(Reason::Unplaced) => (None, None),
            Sharing::NotStored(_) => (Some(fill_pos), None),
        };
        let mut lines = self.answered(node, at, since, true);
        lines.extend_from_slice(&head.for_nodes);
        Some(lines)
    }

    fn answered(&self, node: ByNode, at: Option<LogPosition>, stale_since: Option<UnixMs>, tags: bool) -> Vec<u8> {
        #[cfg(test)]
        let at = if planted(Planted::CurrentPositionSent) { Some(self.store.ledger.applied().log) } else { at };
        // A position of another generation is of a log that nobody follows any more.
        let at = at.filter(|at| at.generation() == node.applied.generation() && node.log != 0);
        let log = if at.is_some() { node.log } else { 0 };
        let answered = Answered { log, seq: at.map_or(0, LogPosition::seq), stale_since, tags };
        let mut lines = Vec::with_capacity(128);
        line(&Answer::Judged(answered), &mut lines);
        lines
    }
}

/// Appends the line in which an answer says what it is.
pub fn line(answer: &Answer, out: &mut Vec<u8>) {
    out.extend_from_slice(FIELD.as_bytes());
    out.extend_from_slice(b": ");
    answer.write(out);
    out.extend_from_slice(b"\r\n");
}

/// What nodes get of a response beyond what clients do.
pub(super) fn for_nodes(tags: Option<&[u8]>, browser: Option<&Browser>) -> Box<[u8]> {
    [tags.unwrap_or_default(), browser.map_or(&[], |browser| &browser.replaced)].concat().into_boxed_slice()
}

/// Since when it is stale, to the second; none while it is fresh.
fn stale_since(freshness: &Freshness, now: UnixMs) -> Option<UnixMs> {
    let ttl = freshness.ttl_seconds(now);
    (!freshness.is_fresh(now)).then(|| UnixMs(now.0.saturating_sub(ttl.unsigned_abs().saturating_mul(1000))))
}
