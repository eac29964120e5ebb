//! The fill machine: fetches one response from an origin, judges it, keeps it or passes it on.
//!
//! A fill belongs to no client. It notes its position before it asks, publishes the head as soon as it is judged, and
//! commits the record before it ends, so that whoever looks next finds it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use crate::clock;
use crate::origin::{Failure, OriginBody, OriginRequest, OriginResponse};
use crate::pipeline::Pipeline;
use crate::pipeline::edits::{remove, take, with_date, without_length, without_withheld};
use crate::pipeline::ruled::Ruled;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::purge::ledger::Position;
use crate::routing::Site;
use crate::routing::rule::Matched;
use crate::semantics::cache_status::Reason;
use crate::semantics::directives::{RequestDirectives, ResponseDirectives};
use crate::semantics::fields::Fields;
use crate::semantics::reuse::{self, Freshness, may_serve_on_error};
use crate::semantics::storable::{NotStored, RequestFacts, storable};
use crate::semantics::time::UnixMs;
use crate::semantics::validation::{freshen, write_conditionals};
use crate::semantics::vary::{Vary, selecting_key};
use crate::store::budget::Reservation;
use crate::store::collector::Collector;
use crate::store::fill::{Fill, FillHead, Room, Selecting, Sharing};
use crate::store::key::CacheKey;
use crate::store::record::{Browser, Parts, StoredResponse, has_content_length};

/// One fill and everything it needs, so that it depends on no client.
pub struct Job {
    pub fill: Arc<Fill>,
    pub primary: CacheKey,
    pub site: Arc<Site>,
    /// The field lines of the request that started it: what a `Vary` selects by.
    pub selecting: Box<[u8]>,
    pub authorization: bool,
    pub no_store: bool,
    /// The rules of the site that match the request.
    pub matched: Option<Matched>,
    /// The stored response to renew, whose validators are sent.
    pub stale: Option<Arc<StoredResponse>>,
    /// Others may join.
    pub shared: bool,
    pub origin_request: OriginRequest,
}

impl Job {
    /// Runs the fill to its end, whatever becomes of the clients.
    pub async fn run(mut self, pipeline: Arc<Pipeline>) {
        if let Some(stale) = &self.stale {
            write_conditionals(stale.fields(), &mut self.origin_request.fields);
        }
        let result = self.fetch(&pipeline).await;
        // Out of the map before the end is told: whoever comes now starts anew instead of joining a failure.
        pipeline.coalesce.leave(&self.fill);
        #[cfg(test)]
        if planted(Planted::EndNotTold) {
            return;
        }
        match result {
            Ok(()) => self.fill.complete(),
            #[cfg(test)]
            Err(_) if planted(Planted::FailedFillEndsCleanly) => self.fill.complete(),
            Err(failure) => self.fill.fail(failure),
        }
    }

    /// A rule keeps the request from the store: its answer is neither stored nor says anything about what is.
    fn bypasses(&self) -> bool {
        self.matched.as_ref().is_some_and(|matched| matched.bypass)
    }

    async fn fetch(&self, pipeline: &Pipeline) -> Result<(), Failure> {
        let request_time = clock::wall();
        let interim = |status, fields| self.fill.push_interim(status, fields);
        let response = self.site.upstream.open(&self.origin_request, &interim).await?;
        let response_time = clock::wall();
        let facts = RequestFacts {
            method_is_get: self.origin_request.method == "GET",
            has_authorization: self.authorization,
            no_store: self.no_store,
            request_time,
            response_time,
        };
        match &self.stale {
            Some(stale) if response.status == 304 => {
                self.renew(pipeline, stale, &response, &facts);
                Ok(())
            }
            _ => self.receive(pipeline, response, &facts).await,
        }
    }

    /// RFC 9111 section 4.3.4: the stored body under the fields of the 304.
    fn renew(&self, pipeline: &Pipeline, stale: &Arc<StoredResponse>, response: &OriginResponse, facts: &RequestFacts) {
        let mut fields = Vec::with_capacity(stale.fields().as_bytes().len() + 128);
        // What a rule took out for the sake of browsers is still the origin's word.
        let known = match stale.browser() {
            Some(browser) => Cow::Owned([stale.fields().as_bytes(), &browser.replaced].concat()),
            None => Cow::Borrowed(stale.fields().as_bytes()),
        };
        freshen(Fields::new(&known), Fields::new(&response.fields), facts.response_time, &mut fields);
        let mut fields = without_length(Fields::new(&fields));
        let upstream_status = take(&mut fields, "cache-status");
        let ruled = Ruled::apply(&self.site, self.matched.as_ref(), stale.status(), &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        let verdict = storable(facts, stale.status(), Fields::new(&fields), &directives, self.site.set_cookie)
            .map_err(NotStored::reason)
            .and_then(|freshness| if ruled.forbids() { Err(Reason::Rule) } else { Ok(freshness) });
        remove(&mut fields, "age");
        if directives.no_cache_fields {
            // What a 304 brings of these is for one client, and the record is for all.
            fields = without_withheld(&fields, &directives);
        }
        let browser = ruled.browser(&directives, &mut fields);
        let fill_pos = self.fill.fill_pos;
        let (freshness, reason) = match verdict {
            Ok(freshness) => (freshness, None),
            Err(reason) => (*stale.freshness(), Some(reason)),
        };
        let upstream_status = upstream_status.as_deref();
        let parts = Parts {
            status: stale.status(),
            fields: &fields,
            freshness,
            fill_pos,
            upstream_status,
            browser: browser.as_ref(),
        };
        let record = Arc::new(stale.freshened(&parts));
        let sharing = match reason {
            None => {
                let selecting = self.selecting(Fields::new(&fields));
                pipeline.store.commit(&self.primary, selecting.as_ref(), &record);
                Sharing::Stored { freshness, selecting }
            }
            Some(reason) => {
                if !is_the_requests(reason) {
                    pipeline.store.supersede(&self.primary);
                }
                Sharing::NotStored(reason)
            }
        };
        let head = FillHead {
            status: record.status(),
            fields: fields.into_boxed_slice(),
            upstream_status: None,
            length: Some(record.body_len()),
            sharing,
            origin_status: 304,
            retries: response.retries,
            origin: response.origin,
            browser_ttl: browser.map(|browser| browser.ttl),
            record: Some(record),
        };
        self.fill.publish_head(head, Room::Nothing);
    }

    async fn receive(
        &self,
        pipeline: &Pipeline,
        response: OriginResponse,
        facts: &RequestFacts,
    ) -> Result<(), Failure> {
        let OriginResponse { status, mut fields, length, mut body, retries, origin } = response;
        with_date(&mut fields, facts.response_time);
        let upstream_status = take(&mut fields, "cache-status");
        let head = Head { upstream_status, ..self.judge(pipeline, status, fields, length, facts) };
        let fill_pos = self.fill.fill_pos;
        #[cfg(test)]
        let fill_pos = if planted(Planted::FillPosAfterHead) { pipeline.store.ledger.applied() } else { fill_pos };
        let unpublished = Some(head);
        let mut receiving = Receiving {
            job: self,
            pipeline,
            unpublished,
            held: Vec::new(),
            body: None,
            length,
            fill_pos,
            retries,
            origin,
        };
        loop {
            if receiving.unpublished.is_none() && !self.fill.may_go_on().await {
                return Err(Failure::Abandoned);
            }
            let Some(piece) = next_or_else(body.as_mut(), || receiving.publish(None)).await? else { break };
            receiving.accept(piece);
        }
        receiving.finish();
        Ok(())
    }

    /// Whether this answer is an error that the response to renew may stand in for. A rule's lifetime is for all answers,
    /// but one bad moment of an origin must not take the place of what `stale-if-error` keeps for it.
    fn has_better_than(&self, status: u16, now: UnixMs) -> bool {
        let stale = self.stale.as_ref().zip(reuse::Failure::of_status(status));
        stale.is_some_and(|(stale, error)| may_serve_on_error(&RequestDirectives::NONE, stale.freshness(), now, error))
    }

    /// Judges a head: may it be stored, and is there room.
    fn judge(
        &self,
        pipeline: &Pipeline,
        status: u16,
        mut fields: Vec<u8>,
        length: Option<u64>,
        facts: &RequestFacts,
    ) -> Head {
        let ruled = Ruled::apply(&self.site, self.matched.as_ref(), status, &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        let mut reservation = pipeline.store.budget.fills.reservation();
        let storable = match self.bypasses() {
            true => Err(Reason::Rule),
            false => storable(facts, status, Fields::new(&fields), &directives, self.site.set_cookie)
                .map_err(NotStored::reason),
        };
        let verdict = storable.and_then(|freshness| match length {
            _ if ruled.forbids() => Err(Reason::Rule),
            _ if ruled.gives_lifetime() && self.has_better_than(status, facts.response_time) => {
                Err(Reason::OriginError)
            }
            Some(length) if length > pipeline.store.memory.object_bytes_max() => {
                pipeline.metrics.admission("too-large");
                Err(Reason::TooLarge)
            }
            Some(length) if !reservation.grow(length) => {
                pipeline.metrics.admission("memory-full");
                Err(Reason::MemoryFull)
            }
            _ => Ok(freshness),
        });
        // Before what names these fields may be taken out.
        let mut withheld = directives.no_cache_fields.then(|| without_withheld(&fields, &directives));
        if let Some(withheld) = &mut withheld {
            ruled.browser(&directives, withheld);
        }
        let browser = ruled.browser(&directives, &mut fields);
        match verdict {
            Ok(freshness) => {
                let selecting = self.selecting(Fields::new(&fields));
                remove(&mut fields, "age");
                let sharing = Sharing::Stored { freshness, selecting };
                let reservation = Some(reservation);
                Head { status, fields, withheld, sharing, reservation, upstream_status: None, browser }
            }
            Err(reason) => {
                let sharing = Sharing::NotStored(reason);
                Head { status, fields, withheld: None, sharing, reservation: None, upstream_status: None, browser }
            }
        }
    }

    fn selecting(&self, response: Fields<'_>) -> Option<Selecting> {
        let Vary::On(names) = Vary::of(response) else { return None };
        let mut values = Vec::with_capacity(128);
        selecting_key(names.iter().map(AsRef::as_ref), Fields::new(&self.selecting), &mut values);
        Some(Selecting { names, values })
    }
}

/// A head that has been judged.
struct Head {
    status: u16,
    fields: Vec<u8>,
    /// What is stored where `no-cache="field"` withholds fields from everybody but this request's client.
    withheld: Option<Vec<u8>>,
    sharing: Sharing,
    /// Room for the body while it arrives; none: it is not kept.
    reservation: Option<Reservation>,
    /// What caches behind us said.
    upstream_status: Option<Box<[u8]>>,
    browser: Option<Browser>,
}

/// A response between its head and its end.
struct Receiving<'a> {
    job: &'a Job,
    pipeline: &'a Pipeline,
    /// The head, until it is published: a body that is there at once is published together with it.
    unpublished: Option<Head>,
    held: Vec<Bytes>,
    /// The body that is being kept, and what it takes to store it.
    body: Option<Keeping>,
    length: Option<u64>,
    /// The fill's position, and so the record's.
    fill_pos: Position,
    /// Connections that failed before this answer.
    retries: u32,
    origin: usize,
}

struct Keeping {
    collector: Collector,
    status: u16,
    fields: Vec<u8>,
    freshness: Freshness,
    selecting: Option<Selecting>,
    upstream_status: Option<Box<[u8]>>,
    browser: Option<Browser>,
}

impl Receiving<'_> {
    /// Publishes the head, and what has been held back; with the record if that is finished already.
    fn publish(&mut self, record: Option<Arc<StoredResponse>>) {
        let Some(head) = self.unpublished.take() else { return };
        let Head { status, fields, withheld, sharing, reservation, upstream_status, browser } = head;
        if let Sharing::NotStored(reason) = &sharing {
            self.not_shared(status, *reason);
        }
        if let Sharing::Stored { freshness, selecting } = &sharing {
            let selecting = selecting.as_ref().map(|s| Selecting { names: s.names.clone(), values: s.values.clone() });
            if let Some(selecting) = &selecting {
                self.pipeline.store.note_variants(&self.job.primary, &selecting.names);
            }
            if record.is_none() {
                let stored_fields = withheld.unwrap_or_else(|| fields.clone());
                self.body = Some(Keeping {
                    collector: Collector::default(),
                    status,
                    fields: stored_fields,
                    freshness: *freshness,
                    selecting,
                    upstream_status: upstream_status.clone(),
                    browser: browser.clone(),
                });
            }
        }
        let head = FillHead {
            status,
            fields: fields.into_boxed_slice(),
            upstream_status,
            length: self.length,
            sharing,
            origin_status: status,
            retries: self.retries,
            origin: self.origin,
            browser_ttl: browser.map(|browser| browser.ttl),
            record,
        };
        let room = match (reservation, head.record.is_some()) {
            (_, true) => Room::Nothing,
            (Some(reservation), false) => Room::Keep(reservation),
            (None, false) => Room::Pass(self.pipeline.store.budget.fills.reservation()),
        };
        self.job.fill.publish_head(head, room);
        for piece in std::mem::take(&mut self.held) {
            self.accept(piece);
        }
    }

    /// The answer is for one request alone: the others are released, and the next ones do not queue.
    fn not_shared(&self, status: u16, reason: Reason) {
        self.pipeline.coalesce.leave(&self.job.fill);
        if status >= 500 || is_the_requests(reason) || self.job.bypasses() {
            return;
        }
        if self.job.shared {
            self.pipeline.store.marks.set(self.job.primary, self.job.fill.fill_pos);
        }
        // A whole answer that must not be stored takes the place of one that was.
        if self.job.origin_request.method == "GET" && !matches!(status, 206 | 304 | 416) {
            self.pipeline.store.supersede(&self.job.primary);
        }
    }

    fn accept(&mut self, piece: Bytes) {
        if self.unpublished.is_some() {
            self.held.push(piece);
            let held: usize = self.held.iter().map(Bytes::len).sum();
            if held > CHUNK_BYTES {
                self.publish(None);
            }
            return;
        }
        if let Some(body) = &self.body
            && self.length.is_none()
        {
            let total = body.collector.length() + piece.len() as u64;
            let fits = total <= self.pipeline.store.memory.object_bytes_max();
            if !fits || !self.job.fill.reserve(piece.len() as u64) {
                self.pipeline.metrics.admission(if fits { "memory-full" } else { "too-large" });
                self.pipeline.coalesce.leave(&self.job.fill);
                self.job.fill.stop_keeping();
                self.body = None;
            }
        }
        self.job.fill.push(piece.clone());
        if let Some((chunk, rest)) = self.body.as_mut().and_then(|body| body.collector.push(piece)) {
            self.job.fill.seal(chunk, rest);
        }
    }

    /// The body is complete: the record is committed before anybody is told.
    fn finish(mut self) {
        if let Some(head) = &self.unpublished {
            let record = match &head.sharing {
                Sharing::Stored { freshness, selecting } => {
                    let fields = head.withheld.as_deref().unwrap_or(&head.fields);
                    let parts = Parts {
                        status: head.status,
                        fields,
                        freshness: *freshness,
                        fill_pos: self.fill_pos,
                        upstream_status: head.upstream_status.as_deref(),
                        browser: head.browser.as_ref(),
                    };
                    let record = self.commit(&parts, selecting.as_ref(), &self.held);
                    // This request's own client gets the fields that are withheld from the others.
                    head.withheld.is_none().then_some(record)
                }
                Sharing::NotStored(_) => None,
            };
            let head_status = head.status;
            // A body that is there completely has a length, said or not; the answer to HEAD keeps what was said.
            if self.job.origin_request.method == "GET" && has_content_length(head_status) {
                self.length = Some(self.held.iter().map(|piece| piece.len() as u64).sum());
            }
            if record.is_some() {
                self.held.clear();
            }
            self.publish(record);
            return;
        }
        if let Some(body) = self.body.take() {
            let pieces = body.collector.finish();
            let parts = Parts {
                status: body.status,
                fields: &body.fields,
                freshness: body.freshness,
                fill_pos: self.fill_pos,
                upstream_status: body.upstream_status.as_deref(),
                browser: body.browser.as_ref(),
            };
            self.commit(&parts, body.selecting.as_ref(), &pieces);
        }
    }

    fn commit(&self, parts: &Parts<'_>, selecting: Option<&Selecting>, body: &[Bytes]) -> Arc<StoredResponse> {
        let record = Arc::new(StoredResponse::new(parts, body));
        self.pipeline.store.commit(&self.job.primary, selecting, &record);
        record
    }
}

/// Whether an answer is not shared because of what its client put into the request. That says nothing about what others
/// may share, and must not let one client remove it.
fn is_the_requests(reason: Reason) -> bool {
    matches!(reason, Reason::RequestNoStore | Reason::Authorization)
}

/// The next piece; if it is not there yet, `waiting` runs once before the wait.
async fn next_or_else(body: &mut dyn OriginBody, waiting: impl FnOnce()) -> Result<Option<Bytes>, Failure> {
    let mut next: Pin<Box<_>> = body.next();
    let at_once = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(piece) => piece,
        Poll::Pending => {
            waiting();
            next.await
        }
    }
}
