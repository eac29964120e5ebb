//! The request machine's way through a miss: join or start a fill, judge its head, pass its body on.

use std::io;
use std::sync::Arc;

use edge_config::section::limits::REJOINS_MAX;
use parking_lot::Mutex;

use crate::clock;
use crate::exchange::{Exchange, Waits};
use crate::origin::validations::Validation;
use crate::origin::{Failure, OriginRequest, Through};
use crate::pipeline::Pipeline;
use crate::pipeline::coalesce::Joined;
use crate::pipeline::decide::{Decision, FillSharing, Plan, wanted_of};
use crate::pipeline::deliver::deliver;
use crate::pipeline::failure;
use crate::pipeline::fill::Job;
use crate::pipeline::request::{Forwarded, Method, Outcome, Request};
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::pipeline::sparse::asked::Asked;
use crate::pipeline::stream::{first_byte, must_ask_alone, stream};
use crate::purge::ledger::Verdict;
use crate::purge::position::LogPosition;
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::semantics::reuse::{self, Reuse, reuse};
use crate::semantics::vary::selecting_key;
use crate::store::fill::reader::{Begun, Reader};
use crate::store::fill::{Fill, FillHead, Sharing};
use crate::store::key::CacheKey;
use crate::store::persist::Label;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::{CacheOutcome, Metrics};

/// 102 (RFC 2518 section 10.1): a node that asks is told that its answer takes as long as an origin does.
pub const PROCESSING: u16 = 102;

/// What a follower does with the head of a fill it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suits {
    Yes,
    /// The answer is not for sharing, or not fresh enough: ask alone.
    AskAlone,
    /// It is for other requests than this one: look again.
    LookAgain,
}

/// A request's place at a fill.
struct Seat {
    reader: Reader,
    follower: bool,
}

/// What a fill waits for, and what it takes up as long as it runs.
#[derive(Default)]
struct After {
    before: Option<Arc<Fill>>,
    room: Option<Validation>,
}

/// A waiter that is counted, also when its request is dropped while it waits.
struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.fill_waiters.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fill_waiters.dec();
    }
}

impl Pipeline {
    /// Answers a request from the origin, or from what may stand in for it.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn fetch<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        mut plan: Plan,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let mut rejoins = 0;
        // Decided before anybody is asked: others may wait for the same answer, and are not refused with it.
        if let Some(refused) = request.site.backing(request.group).group.refuses(request.session) {
            return self.failed(request, &plan, refused, exchange).await;
        }
        loop {
            let seat = match self.take_seat(request, &plan) {
                Ok(seat) => seat,
                Err(failure) => return self.failed(request, &plan, failure, exchange).await,
            };
            let Some(seat) = seat else {
                match self.decide(request) {
                    Decision::Fetch(again) => plan = alone_after(again, &mut rejoins),
                    other => return self.answer(request, other, exchange).await,
                }
                continue;
            };
            if request.by_node.is_some() {
                // Whoever asks waits for an origin from here on, and not for this node.
                exchange.interim(PROCESSING, b"").await?;
            }
            let head = match self.wait_for_head(&seat, exchange).await {
                Some(Ok(head)) => head,
                Some(Err(failure)) => return self.failed(request, &plan, failure, exchange).await,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if seat.follower {
                match self.suits(request, &head, seat.reader.fill()) {
                    Suits::Yes => {}
                    Suits::AskAlone => {
                        plan = Plan { sharing: FillSharing::Alone, ..plan };
                        continue;
                    }
                    Suits::LookAgain => {
                        drop(seat);
                        match self.decide(request) {
                            Decision::Fetch(again) => plan = alone_after(again, &mut rejoins),
                            other => return self.answer(request, other, exchange).await,
                        }
                        continue;
                    }
                }
            }
            if must_ask_alone(request, &head) {
                // What came is not what it wants, and nobody else may have it.
                plan = Plan { sharing: FillSharing::AsIs, asked: None, stale: None, ..plan };
                continue;
            }
            if let Some(failure) = reuse::Failure::of_status(head.status)
                && self.may_stand_in(request, &plan, failure)
            {
                return self.stand_in(request, &plan, Reason::OriginError, exchange).await;
            }
            return self.pass_on(request, &plan, seat, &head, exchange).await;
        }
    }

    /// Carries out a decision.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn answer<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        decision: Decision,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let outcome = self.carry_out(request, decision, exchange).await?;
        Ok(Outcome { group: request.group, ..outcome })
    }

    async fn carry_out<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        decision: Decision,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        match decision {
            Decision::Hit { stored, status } => {
                self.used(request, &stored);
                self.serve(request, &stored, status, CacheOutcome::Hit, exchange).await
            }
            Decision::HitThenRefresh { stored, status, refresh } => {
                self.used(request, &stored);
                self.refresh(request, &refresh);
                self.serve(request, &stored, status, CacheOutcome::Stale, exchange).await
            }
            Decision::Complete { stored, status } => {
                self.used(request, &stored);
                self.serve(request, &stored, status, CacheOutcome::Miss, exchange).await
            }
            Decision::Read(key) => Box::pin(self.read(request, key, exchange)).await,
            Decision::Fetch(plan) => Box::pin(self.fetch(request, plan, exchange)).await,
            Decision::NothingStored => {
                let status = CacheStatus { detail: Some(Reason::OnlyIfCached), ..CacheStatus::default() };
                failure::answer(Some(request.site), 504, request.method, status, exchange).await
            }
            Decision::Isolated => {
                let status = CacheStatus { detail: Some(Reason::Isolated), ..CacheStatus::default() };
                failure::answer(Some(request.site), 503, request.method, status, exchange).await
            }
        }
    }

    /// Answers from a stored response, wherever its body is.
    pub(super) async fn serve<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        stored: &Arc<StoredResponse>,
        status: CacheStatus,
        cache: CacheOutcome,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let told = self.told_of_stored(request, stored, &status);
        // A copy for other nodes alone: a client's hit does not pay for it.
        let by_node = told.as_deref().map(|told| Request { told, ..*request });
        let request = by_node.as_ref().unwrap_or(request);
        match stored.sparse() {
            None => deliver(request, stored, status, cache, exchange).await,
            // Boxed: what hits in memory do not go through must not make every answer larger.
            Some(body) => Box::pin(self.serve_sparse(request, (stored, body), status, cache, exchange)).await,
        }
    }

    /// Joins or starts a fill. None: the store has changed, look again.
    ///
    /// # Errors
    /// The node is isolated, and there is no room for one more validation.
    fn take_seat(self: &Arc<Self>, request: &Request<'_>, plan: &Plan) -> Result<Option<Seat>, Failure> {
        // The position is read before anything is asked: a purge from here on makes the answer gone.
        let fill_pos = self.store.ledger.applied();
        if !self.may_renew(plan) {
            return Ok(None);
        }
        let key = self.fill_key(plan);
        if plan.sharing != FillSharing::Shared {
            let room = self.room_for(request, plan).ok_or(Failure::Isolated)?;
            let fill = Fill::new(key, fill_pos);
            let Some(reader) = fill.join() else { return Ok(None) };
            self.start(request, plan, fill, After { room, ..After::default() });
            return Ok(Some(Seat { reader, follower: false }));
        }
        let unchanged = || match (self.decide(request), &plan.stale) {
            (Decision::Fetch(now), Some(stale)) => now.stale.is_some_and(|other| Arc::ptr_eq(&other, stale)),
            (Decision::Fetch(now), None) => now.stale.is_none() && now.sharing == FillSharing::Shared,
            _ => false,
        };
        let wants_newer = self.wants_newer(request);
        // All of it may be on its way already, and not far from what is wanted.
        if !wants_newer
            && let Some(first) = wanted_of(request).and_then(first_byte)
            && plan.asked.is_some()
            && let Some(reader) = self.coalesce.join_near(&plan.fill_key, first)
        {
            return Ok(Some(Seat { reader, follower: true }));
        }
        // Taken before a place is: one who starts and may not would leave those who join it alone.
        let room = self.room_for(request, plan);
        let is_full = room.is_none();
        let unchanged = || is_full || unchanged();
        let new = || Fill::new(key, fill_pos);
        let joined = match wants_newer {
            true => self.coalesce.join_or_start_after(&key, unchanged, new),
            false => self.coalesce.join_or_start(&key, unchanged, new),
        };
        let (reader, before) = match joined {
            Joined::Follower(reader) => return Ok(Some(Seat { reader, follower: true })),
            Joined::LookAgain => return Ok(None),
            Joined::Starter(reader) => (reader, None),
            Joined::StarterAfter(reader, before) => (reader, Some(before)),
        };
        let Some(room) = room else {
            self.coalesce.leave(reader.fill(), &key);
            reader.fill().fail(Failure::Isolated);
            return Err(Failure::Isolated);
        };
        if request.in_full {
            self.coalesce.enter(&self.store.keyer.part(&plan.fill_key, b""), reader.fill());
        }
        self.start(request, plan, reader.fill().clone(), After { before, room });
        Ok(Some(Seat { reader, follower: false }))
    }

    /// Whether what a plan is to renew is still live once the position of the fill is read. Otherwise a purge came
    /// since the decision: a 304 to the validators of what is gone would bring it back under a position after it.
    fn may_renew(&self, plan: &Plan) -> bool {
        #[cfg(test)]
        if planted(Planted::GoneValidated) {
            return true;
        }
        plan.stale.as_ref().is_none_or(|stale| stale.is_live(&self.store.ledger))
    }

    fn start(self: &Arc<Self>, request: &Request<'_>, plan: &Plan, fill: Arc<Fill>, after: After) {
        let job = self.job(request, plan, fill);
        let Some(before) = after.before else {
            job.fill.asks();
            if after.room.is_none() {
                return (self.spawn)(Box::pin(job.run(self.clone())));
            }
            let pipeline = self.clone();
            return (self.spawn)(Box::pin(async move {
                let _room = after.room;
                job.run(pipeline).await;
            }));
        };
        let pipeline = self.clone();
        (self.spawn)(Box::pin(async move {
            let _room = after.room;
            before.answered().await;
            // Whoever comes from here on may be later than the answer.
            job.fill.asks();
            job.run(pipeline).await;
        }));
    }

    /// Renews a stored response for the next request; this one does not wait.
    fn refresh(self: &Arc<Self>, request: &Request<'_>, plan: &Plan) {
        let fill_pos = self.store.ledger.applied();
        if !self.may_renew(plan) {
            return;
        }
        let key = self.fill_key(plan);
        let started = self.coalesce.start_background(&key, || Fill::background(key, fill_pos));
        if let Some(fill) = started {
            self.start(request, plan, fill, After::default());
        }
    }

    /// What a fill is known by: one that asks for a part is not one that brings all of it.
    fn fill_key(&self, plan: &Plan) -> CacheKey {
        match plan.asked {
            Some(_) => self.store.keyer.part(&plan.fill_key, b""),
            None => plan.fill_key,
        }
    }

    fn job(&self, request: &Request<'_>, plan: &Plan, fill: Arc<Fill>) -> Job {
        let as_is = plan.sharing == FillSharing::AsIs;
        let fill_pos = fill.fill_pos().log;
        let mut fields = Vec::with_capacity(request.fields.as_bytes().len() + 256);
        (request.forward)(if as_is { Forwarded::Own } else { Forwarded::Shared }, &mut fields);
        let method = match request.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
        };
        let also = match &plan.asked {
            Some(_) => Some(plan.fill_key),
            None if request.in_full => Some(self.store.keyer.part(&plan.fill_key, b"")),
            None => None,
        };
        Job {
            fill,
            primary: request.key,
            selectors: self.selectors(request),
            path: request.site.no_vary_search.then(|| self.path_key(request)),
            site: request.site.clone(),
            group: request.group,
            selecting: request.fields.as_bytes().into(),
            label: if self.store.disks.is_empty() { Label::default() } else { request.label() },
            authorization: request.authorization,
            no_store: request.directives.no_store,
            matched: request.matched.cloned(),
            part: self.part_key(request).filter(|_| as_is || matches!(plan.asked, Some(Asked::Suffix(_)))),
            asked: if as_is { wanted_of(request).map(Asked::exactly) } else { plan.asked.clone() },
            as_is,
            also,
            stale: if as_is { None } else { plan.stale.clone() },
            judged: Mutex::default(),
            late: Mutex::default(),
            shared: plan.sharing == FillSharing::Shared,
            origin_request: OriginRequest {
                method,
                target: request.asked.to_vec(),
                host: request.host.to_vec(),
                fields,
                client: request.client,
                avoid: None,
                session: if plan.sharing == FillSharing::Shared { request.session.for_all() } else { request.session },
                through: (request.site.is_asked_by_nodes && !as_is && !self.is_for_nobody_else(request))
                    .then(|| through(request, fill_pos, None)),
            },
        }
    }

    /// Whether no node between this one and the origins would store the answer either, as far as the last one says.
    fn is_for_nobody_else(&self, request: &Request<'_>) -> bool {
        let is_ours = |reason| matches!(reason, Reason::TooLarge | Reason::MemoryFull | Reason::Unplaced);
        self.mark(request).is_some_and(|mark| !is_ours(mark.reason))
    }

    async fn wait_for_head<E: Exchange>(
        &self,
        seat: &Seat,
        exchange: &mut E,
    ) -> Option<Result<Arc<FillHead>, Failure>> {
        let _waiting = Waiting::new(&self.metrics);
        // What others are told early may be for the one who asked alone.
        let mut seen = if seat.follower { usize::MAX } else { 0 };
        loop {
            let begun = tokio::select! {
                biased;
                begun = seat.reader.head(seen) => begun,
                waits = exchange.waits() => match waits {
                    Waits::Gone => return None,
                    Waits::TellAgain => {
                        exchange.interim(PROCESSING, b"").await.ok()?;
                        continue;
                    }
                },
            };
            match begun {
                Ok(Begun::Head(head)) => return Some(Ok(head)),
                Ok(Begun::Interim(interim)) => {
                    seen += 1;
                    exchange.interim(interim.status, &interim.fields).await.ok()?;
                }
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    /// Judges a follower at the head as if it had looked the response up.
    fn suits(&self, request: &Request<'_>, head: &FillHead, fill: &Fill) -> Suits {
        #[cfg(test)]
        if planted(Planted::FollowerNotJudged) {
            return Suits::Yes;
        }
        let Sharing::Stored { freshness, selecting, selectors } = &head.sharing else { return Suits::AskAlone };
        let freshness = match self.store.ledger.judge(&selectors.get(), fill.fill_pos()).verdict {
            Verdict::Live => *freshness,
            Verdict::StaleSince(at) => freshness.stale_since(at),
            Verdict::Gone(_) => return Suits::LookAgain,
        };
        if let Some(selecting) = selecting {
            let mut values = Vec::with_capacity(selecting.values.len());
            selecting_key(selecting.names.iter().map(AsRef::as_ref), request.fields, &mut values);
            if values != selecting.values {
                return Suits::LookAgain;
            }
        }
        match reuse(&request.directives, &freshness, clock::wall()) {
            Reuse::Fresh | Reuse::StaleByRequest => Suits::Yes,
            Reuse::StaleWhileRevalidate | Reuse::Revalidate(_) => Suits::AskAlone,
        }
    }

    /// Passes a fill on to its client: the finished response where there is one, else the body as it comes.
    async fn pass_on<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        plan: &Plan,
        seat: Seat,
        head: &Arc<FillHead>,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        let (stored, reason) = match &head.sharing {
            Sharing::Stored { .. } => (true, plan.detail),
            Sharing::NotStored(reason) => (false, Some(*reason)),
        };
        let status = CacheStatus {
            forward: Some(plan.forward),
            forward_status: Some(head.origin_status),
            stored,
            collapsed: seat.follower,
            detail: reason,
            ..CacheStatus::default()
        };
        let cache = match (seat.follower, head.origin_status) {
            (true, _) => CacheOutcome::Collapsed,
            (false, 304) if plan.stale.is_some() => CacheOutcome::Revalidated,
            (false, _) => CacheOutcome::Miss,
        };
        // Conditions and ranges that went to the origin have been answered there.
        let answered = plan.sharing == FillSharing::AsIs && head.record.is_none();
        let range = request.range && !answered;
        let conditional = request.conditional && !answered;
        let request = Request { now: clock::wall(), range, conditional, ..*request };
        let mut outcome = match &head.record {
            Some(record) => self.serve(&request, record, status, cache, exchange).await?,
            None => {
                let told = self.told_of_arriving(&request, head, seat.reader.fill().fill_pos().log);
                let request = Request { told: told.as_deref().unwrap_or_default(), ..request };
                stream(&request, seat.reader, head, status, cache, exchange).await?
            }
        };
        outcome.origin = Some(head.origin);
        outcome.retries = head.retries;
        Ok(outcome)
    }
}

/// What another node is told that may be asked for this.
pub(super) fn through(request: &Request<'_>, began: LogPosition, needs: Option<LogPosition>) -> Arc<Through> {
    Arc::new(Through {
        target: request.target.to_vec(),
        secure: request.scheme == "https",
        began,
        needs,
        asked_as: request.by_node.map(|node| node.role),
    })
}

/// After a bounded number of fills that were not for it, a request asks alone: nobody waits for ever.
fn alone_after(plan: Plan, rejoins: &mut u32) -> Plan {
    *rejoins += 1;
    let tired = *rejoins > REJOINS_MAX && plan.sharing == FillSharing::Shared;
    Plan { sharing: if tired { FillSharing::Alone } else { plan.sharing }, ..plan }
}
