//! Answers from a record whose body stands apart.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::run::Broken;
use super::source::{Begun, Source};
use crate::clock;
use crate::exchange::Exchange;
use crate::pipeline::Pipeline;
use crate::pipeline::decide::range_of;
use crate::pipeline::deliver::deliver_from;
use crate::pipeline::failure;
use crate::pipeline::request::{Method, Outcome, Request};
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::semantics::range::RangePlan;
use crate::semantics::validation::{Precondition, precondition};
use crate::store::body::Sparse;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::CacheOutcome;

/// Chunks that are looked for before it is said that all of an answer is there: 64 MiB. What turns out to be missing behind
/// them is fetched as well.
const LOOKED_MAX: usize = 256;

/// The bytes of a stored response that answer a request, in the order they are sent; none at all for HEAD, 304 and 416.
pub fn bytes_for(request: &Request<'_>, stored: &StoredResponse) -> Vec<Range<u64>> {
    if request.method == Method::Head {
        return Vec::new();
    }
    if request.conditional {
        let response_time = stored.freshness().response_time();
        let verdict = precondition(request.fields, stored.status(), stored.fields(), response_time);
        if verdict == Precondition::NotModified {
            return Vec::new();
        }
    }
    match range_of(request, stored) {
        RangePlan::Whole => std::iter::once(0..stored.body_len()).collect(),
        RangePlan::One(range) => std::iter::once(range).collect(),
        RangePlan::Many(ranges) => ranges,
        RangePlan::Unsatisfiable => Vec::new(),
    }
}

/// Whether something of what answers a request is missing.
pub fn lacks(request: &Request<'_>, stored: &StoredResponse) -> bool {
    let Some(body) = stored.sparse() else { return false };
    bytes_for(request, stored).into_iter().any(|range| body.gap_in(range, LOOKED_MAX).is_some())
}

impl Pipeline {
    /// Whether what is missing of an answer can be had beside what is there: it can be asked for, or is on its way.
    pub(crate) fn can_complete(&self, request: &Request<'_>, stored: &StoredResponse) -> bool {
        let is_coming = |body: &Sparse| {
            let gap = |range| body.gap_in(range, LOOKED_MAX);
            bytes_for(request, stored).into_iter().filter_map(gap).all(|gap| self.runs.is_under_way(body, gap))
        };
        stored.can_be_completed() || stored.sparse().is_some_and(is_coming)
    }

    /// Answers from a record whose body stands apart, and fetches what is missing.
    ///
    /// # Errors
    /// The client could not be written to.
    pub(crate) async fn serve_sparse<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        (stored, body): (&Arc<StoredResponse>, &Sparse),
        mut status: CacheStatus,
        mut cache: CacheOutcome,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let mut source = Source::new(self, request, stored, body);
        let begun = match bytes_for(request, stored).first() {
            Some(first) => source.begin(first, exchange).await?,
            None => Ok(Begun::There),
        };
        match begun {
            // Who has begun a fill is the first to read what it began with.
            Ok(Begun::Joined) if status.forward == Some(Forward::Partial) => {
                status.collapsed = true;
                cache = CacheOutcome::Collapsed;
            }
            Ok(_) => {}
            Err(broken @ (Broken::Changed | Broken::NoRanges)) => {
                return Box::pin(self.look_again(request, broken, exchange)).await;
            }
            Err(broken) => {
                let (code, reason) = told(broken);
                let status = CacheStatus { hit: false, ttl: None, stored: false, detail: Some(reason), ..status };
                let outcome = failure::answer(Some(request.site), code, request.method, status, exchange).await?;
                return Ok(Outcome { origin: request.site.only_origin(request.group), ..outcome });
            }
        }
        let outcome = deliver_from(request, stored, Some(&mut source), status, cache, exchange).await?;
        if outcome.complete {
            let is_from_store = matches!(outcome.cache, CacheOutcome::Hit | CacheOutcome::Stale);
            return Ok(Outcome { from_disk: is_from_store && !self.store.disks.is_empty(), ..outcome });
        }
        // It stands no longer for what cannot be had.
        if !stored.can_be_completed() {
            self.store.outdated(body);
        }
        let reason = source.broken.map_or(Reason::FillFailed, |broken| told(broken).1);
        Ok(Outcome { reason: Some(reason), ..outcome })
    }

    /// What was to answer a request is no more, and the client has nothing yet.
    async fn look_again<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        broken: Broken,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let (rounds, in_full) = (request.rounds + 1, request.in_full || broken == Broken::NoRanges);
        let request = Request { now: clock::wall(), rounds, in_full, ..*request };
        let decision = self.decide(&request);
        self.answer(&request, decision, exchange).await
    }
}

/// The status and the reason where bytes could not be had.
fn told(broken: Broken) -> (u16, Reason) {
    match broken {
        Broken::Changed | Broken::NoRanges => (502, Reason::FillFailed),
        Broken::Refused(_) => (502, Reason::OriginError),
        Broken::Failed(failure) => (failure.status(), failure.reason()),
    }
}
