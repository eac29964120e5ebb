//! Requests of other nodes: who may make them, and how they are answered.
//!
//! They come over HTTP/1.1 with a signed field. What is not signed by a node of this CDN, about this request and just now, is
//! refused and counted. A node that is isolated says so instead of answering; one that has applied less of the log than whoever
//! asks waits a moment for it, and validates what it has stored otherwise.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart, Waits};
use crate::fleet::Fleet;
use crate::fleet::answered::Answer;
use crate::fleet::asking::{Asking, FIELD};
use crate::fleet::through::INVALIDATE;
use crate::front::gate::{Head, Interest, Method};
use crate::front::log::Seen;
use crate::front::{Front, Peer};
use crate::pipeline::fetch::PROCESSING;
use crate::pipeline::fill::group_number;
use crate::pipeline::nodes::{ByNode, line};
use crate::pipeline::request::Outcome;
use crate::pipeline::{failure, request};
use crate::purge::ledger::Ledger;
use crate::purge::record::host_number;
use crate::routing::Site;
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::semantics::surrogate::invalidated_groups;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::CacheOutcome;

/// How long a node waits for records that the one that asks has applied already.
const CATCHES_UP_WITHIN: Duration = Duration::from_millis(50);
const LOOKS_EVERY: Duration = Duration::from_millis(1);
/// How often a node that waits is told that this one still does: more often than it believes that without hearing it.
const TELLS_EVERY: Duration = Duration::from_millis(500);

/// Where a request comes from.
pub(super) enum From {
    Client,
    Node(Asking),
    /// It says that it comes from a node, and that is not so.
    Forged,
}

impl Front {
    /// Where a request comes from. Where there are no other nodes, the field is any.
    pub(super) fn from(&self, head: &Head<'_>) -> From {
        if !head.interest.has(Interest::NODE) {
            return From::Client;
        }
        let Some(fleet) = &self.fleet else { return From::Client };
        let is_asked = matches!(head.method, Method::Get | Method::Other(INVALIDATE)) && !head.framing.has_body();
        let read = head.fields.only(FIELD).map(|value| fleet.read(value, head.method.as_str(), head.host, head.target));
        match read {
            Some(Ok(asking)) if is_asked => From::Node(asking),
            Some(Err(why)) => {
                // Counted; a line for each would be for an attacker to fill disks with.
                tracing::debug!(%why, host = %String::from_utf8_lossy(head.host), "a request that was to come from a node");
                From::Forged
            }
            Some(Ok(_)) | None => From::Forged,
        }
    }
}

impl Peer {
    /// The peer of whoever asked the node that asks now.
    pub fn of(self, asking: &Asking) -> Self {
        Self {
            client: asking.client.unwrap_or(self.client),
            tls: asking.secure.then(|| self.tls.unwrap_or("relayed")),
            relayed: true,
        }
    }
}

/// What this node is to the one that asks, once it has applied as much of the log as that has, or cannot soon. None: this node
/// cannot know what was purged.
pub(super) async fn standing(fleet: &Fleet, asking: &Asking, ledger: &Ledger) -> Option<ByNode> {
    let until = clock::monotonic() + CATCHES_UP_WITHIN;
    loop {
        if !ledger.is_current(clock::boot_ms) {
            return None;
        }
        let before = fleet.log();
        let applied = ledger.applied().log;
        let log = Some(before).filter(|before| fleet.log() == *before).unwrap_or(0);
        let behind = log == asking.log && applied.seq() < asking.seq;
        if !behind || clock::monotonic() >= until {
            return Some(ByNode { role: asking.role, log, applied, behind });
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}

/// Says that this node cannot know what was purged, and answers nothing.
///
/// # Errors
/// The node that asks could not be written to.
pub(super) async fn say_isolated<E: Exchange>(site: &Site, exchange: &mut E) -> io::Result<Outcome> {
    let mut said = Vec::with_capacity(64);
    line(&Answer::Isolated, &mut said);
    let status = CacheStatus { detail: Some(Reason::Isolated), ..CacheStatus::default() };
    failure::answer_with(&said, Some(site), 503, request::Method::Get, status, exchange).await
}

impl Front {
    /// Something was changed by way of another node: what is stored of it is gone.
    ///
    /// # Errors
    /// That node could not be written to.
    pub(super) async fn invalidated<E: Exchange>(
        &self,
        seen: &Seen<'_>,
        site: &Site,
        to: &mut E,
    ) -> io::Result<Outcome> {
        let (head, store) = (seen.head, &self.pipeline.store);
        let host = canonical_host(head.host, seen.peer.scheme());
        let parts = KeyParts::of_url(&site.name, seen.peer.scheme(), &host, head.target);
        store.invalidate(&store.keyer.primary(&parts, &mut Vec::new()));
        let number = host_number(&store.ledger, head.host);
        for group in invalidated_groups(head.fields) {
            store.ledger.invalidate_group(group_number(&store.ledger, number, &group));
        }
        to.head(204, &[], BodyLength::None);
        to.finish().await?;
        Ok(Outcome::new(204, CacheOutcome::Pass, Some(Reason::Method)))
    }
}

/// An answer to another node: one that does not say what it is is none of an origin's and none that was stored.
pub(super) struct ToNode<E>(pub(super) E);

impl<E: Exchange> Exchange for ToNode<E> {
    async fn stored(&mut self, response: &Arc<StoredResponse>, part: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        self.0.stored(response, part, dynamic).await
    }

    async fn interim(&mut self, status: u16, fields: &[u8]) -> io::Result<()> {
        self.0.interim(status, fields).await?;
        if status == PROCESSING { self.0.flush().await } else { Ok(()) }
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength) {
        let says = |block: &&[u8]| crate::semantics::fields::Fields::new(block).contains(crate::fleet::answered::FIELD);
        if fields.iter().any(says) {
            return self.0.head(status, fields, length);
        }
        let mut failed = Vec::with_capacity(64);
        line(&Answer::Failed { status }, &mut failed);
        self.0.head(status, &[&[failed.as_slice()], fields].concat(), length);
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.0.body(slices).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.finish().await
    }

    async fn gone(&mut self) {
        self.0.gone().await;
    }

    async fn waits(&mut self) -> Waits {
        tokio::select! {
            () = self.0.gone() => Waits::Gone,
            () = tokio::time::sleep(TELLS_EVERY) => Waits::TellAgain,
        }
    }
}
