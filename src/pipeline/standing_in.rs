//! What is answered when an origin has failed: what is stored, where it may stand in, else an error.

use std::io;
use std::sync::Arc;

use edge_config::section::site::Isolated;

use crate::clock;
use crate::exchange::Exchange;
use crate::origin::Failure;
use crate::pipeline::Pipeline;
use crate::pipeline::decide::Plan;
use crate::pipeline::failure;
use crate::pipeline::request::{Outcome, Request};
use crate::pipeline::session::write_last_cookie;
use crate::pipeline::sparse::serve::lacks;
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::semantics::reuse::{self, may_serve_on_error};
use crate::telemetry::metrics::CacheOutcome;

impl Pipeline {
    /// Whether what is stored may stand in for an answer that failed.
    pub(super) fn may_stand_in(&self, request: &Request<'_>, plan: &Plan, failure: reuse::Failure) -> bool {
        // What it lacks cannot be had now.
        if plan.stale.as_ref().is_some_and(|stale| lacks(request, stale)) {
            return false;
        }
        let left = plan.stale.as_ref().and_then(|stale| stale.judge(&self.store.ledger).ok());
        let left = left.map(|freshness| match self.doubts(request) {
            Some(isolation) if isolation.mode != Isolated::Serve => freshness.doubtful(isolation.since),
            _ => freshness,
        });
        left.is_some_and(|freshness| may_serve_on_error(&request.directives, &freshness, clock::wall(), failure))
    }

    /// Answers with it.
    ///
    /// # Errors
    /// The client could not be written to.
    pub(super) async fn stand_in<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        plan: &Plan,
        reason: Reason,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let Some(stale) = &plan.stale else { return Err(io::ErrorKind::NotFound.into()) };
        let request = Request { now: clock::wall(), ..*request };
        let freshness = stale.judge(&self.store.ledger).unwrap_or(stale.freshness());
        let ttl = Some(freshness.ttl_seconds(request.now));
        let status = CacheStatus { hit: true, ttl, detail: Some(reason), ..CacheStatus::default() };
        let mut outcome = self.serve(&request, stale, status, CacheOutcome::Stale, exchange).await?;
        outcome.origin = request.site.only_origin(request.group);
        Ok(outcome)
    }

    /// Answers a request whose origin did not: with what may stand in, else with an error.
    ///
    /// # Errors
    /// The client could not be written to.
    pub(super) async fn failed<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        plan: &Plan,
        failure: Failure,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        if self.may_stand_in(request, plan, reuse::Failure::Unreachable) {
            return self.stand_in(request, plan, failure.reason(), exchange).await;
        }
        let forward = Some(plan.forward);
        let status = CacheStatus { forward, detail: Some(failure.reason()), ..CacheStatus::default() };
        let mut more = Vec::new();
        write_last_cookie(request, failure, &mut more);
        let mut outcome =
            failure::answer_with(&more, Some(request.site), failure.status(), request.method, status, exchange).await?;
        outcome.origin = request.site.only_origin(request.group);
        Ok(outcome)
    }
}
