//! The fill machine: fetches one response from an origin, judges it, keeps it or passes it on.
//!
//! A fill belongs to no client. It notes its position before it asks, publishes the head as soon as it is judged, and
//! commits the record before it ends, so that whoever looks next finds it.

mod judge;
mod part;
mod receive;
mod spool;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use edge_config::section::limits::CHUNK_BYTES;
use parking_lot::Mutex;

pub use self::judge::{Head, Judge, group_number};
use self::receive::{Receiving, next_or_else};
use crate::clock;
use crate::origin::resume::{Rest, Resuming};
use crate::origin::{Failure, Interims, Judged, OriginRequest, OriginResponse, Role};
use crate::pipeline::Pipeline;
use crate::pipeline::edits::{remove, take, with_date, without_length, without_withheld};
use crate::pipeline::nodes::for_nodes;
use crate::pipeline::ruled::Ruled;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::pipeline::sparse::asked::Asked;
use crate::purge::selector::OwnedSelectors;
use crate::routing::rule::Matched;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_status::Reason;
use crate::semantics::directives::ResponseDirectives;
use crate::semantics::fields::Fields;
use crate::semantics::no_vary_search::NoVarySearch;
use crate::semantics::storable::{NotStored, RequestFacts, storable};
use crate::semantics::surrogate;
use crate::semantics::time::DeltaSeconds;
use crate::semantics::validation::{freshen, same_representation, write_conditionals};
use crate::store::commit::Commit;
use crate::store::fill::{Fill, FillHead, Room, Selecting, Sharing};
use crate::store::key::CacheKey;
use crate::store::persist::Label;
use crate::store::record::{Parts, StoredResponse};
use crate::store::tiers::Lookup;

/// One fill and everything it needs, so that it depends on no client.
pub struct Job {
    pub fill: Arc<Fill>,
    pub primary: CacheKey,
    /// What the answer will be purged by, its surrogate keys apart.
    pub selectors: OwnedSelectors,
    /// The key of its URL without the query, where a site wants `No-Vary-Search` honoured.
    pub path: Option<CacheKey>,
    pub site: Arc<Site>,
    /// Who of it is asked.
    pub group: GroupIndex,
    /// The field lines of the request that started it: what a `Vary` selects by.
    pub selecting: Box<[u8]>,
    /// What it is called where disks are looked at.
    pub label: Label,
    pub authorization: bool,
    pub no_store: bool,
    /// The rules of the site that match the request.
    pub matched: Option<Matched>,
    /// The stored response to renew, whose validators are sent.
    pub stale: Option<Arc<StoredResponse>>,
    /// What a part is stored under that answers exactly this request.
    pub part: Option<CacheKey>,
    /// What another node said about its answer, if one answered.
    pub judged: Mutex<Option<Judged>>,
    /// What a disk was too busy for while somebody waited: the key, and the response.
    pub late: Mutex<Option<(CacheKey, Arc<StoredResponse>)>>,
    /// What it is known by as well: as the whole, which one that asks for a part may bring; or as a part, where the origin
    /// gives none and the whole stands in for it.
    pub also: Option<CacheKey>,
    /// The part of the representation that is asked for.
    pub asked: Option<Asked>,
    /// The request goes to the origin as its client sent it, range and conditions included.
    pub as_is: bool,
    /// Others may join.
    pub shared: bool,
    pub origin_request: OriginRequest,
}

impl Job {
    /// Runs the fill to its end, whatever becomes of the clients.
    pub async fn run(self, pipeline: Arc<Pipeline>) {
        let result = self.fetch(&pipeline).await;
        // Out of the map before the end is told: whoever comes now starts anew instead of joining a failure.
        self.leave(&pipeline);
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
        let late = self.late.lock().take();
        if let Some((key, stored)) = late {
            pipeline.store.put_late(&key, stored, &self.label).await;
        }
    }

    /// Nobody joins it any more.
    fn leave(&self, pipeline: &Pipeline) {
        pipeline.coalesce.leave(&self.fill, &self.fill.key);
        if let Some(also) = &self.also {
            pipeline.coalesce.leave(&self.fill, also);
        }
    }

    /// Remembers what a response that was stored says about queries.
    fn note_search(&self, pipeline: &Pipeline, record: &StoredResponse) {
        if let Some(path) = &self.path {
            let rule = NoVarySearch::of(record.fields());
            if rule != NoVarySearch::default() {
                pipeline.store.note_search(path, &self.origin_request.target, &self.primary, rule);
            }
        }
    }

    async fn commit(&self, pipeline: &Pipeline, selecting: Option<&Selecting>, record: &Arc<StoredResponse>) {
        let label = Some(&self.label).filter(|_| !is_anothers(*self.judged.lock()));
        let commit = pipeline.store.commit(&self.primary, selecting, record, label).await;
        if let Commit::InMemory { key } = commit {
            *self.late.lock() = Some((key, record.clone()));
        }
    }

    fn judge(&self) -> Judge<'_> {
        let judged = *self.judged.lock();
        Judge {
            site: &self.site,
            matched: self.matched.as_ref(),
            selecting: &self.selecting,
            selectors: &self.selectors,
            stale: self.stale.as_ref(),
            part: self.part.is_some(),
            stands_apart: false,
            judged,
            spills: Some(&self.primary)
                .filter(|_| self.part.is_none() && self.origin_request.method == "GET" && !is_anothers(judged)),
        }
    }

    async fn fetch(&self, pipeline: &Arc<Pipeline>) -> Result<(), Failure> {
        let request_time = clock::wall();
        let interim = |status, fields| self.fill.push_interim(status, fields);
        let mut request = Cow::Borrowed(&self.origin_request);
        if let Some(stale) = &self.stale {
            write_conditionals(stale.fields(), &mut request.to_mut().fields);
        }
        if let Some(asked) = self.asked.as_ref().filter(|_| !self.as_is) {
            asked.write(&mut request.to_mut().fields);
        }
        let response = self.open(&request, &interim).await?;
        let response_time = clock::wall();
        let facts = RequestFacts {
            method_is_get: self.origin_request.method == "GET",
            has_authorization: self.authorization,
            no_store: self.no_store,
            request_time,
            response_time,
        };
        match (&self.stale, &self.asked) {
            (_, Some(asked)) if response.status == 206 => self.receive_part(pipeline, response, asked, &facts).await,
            (Some(stale), _) if response.status == 304 => {
                let OriginResponse { fields, retries, origin, .. } = response;
                self.renew(pipeline, stale, &fields, (retries, origin), &facts).await;
                Ok(())
            }
            _ => {
                if self.origin_request.method == "HEAD" && response.status == 200 && !self.judge().bypasses() {
                    self.update_by_head(pipeline, &response.fields, response.length, &facts).await;
                }
                self.receive(pipeline, response, &facts).await
            }
        }
    }

    /// Asks whoever is to be asked, and notes what a node says about its answer.
    async fn open(&self, request: &OriginRequest, interim: Interims<'_>) -> Result<OriginResponse, Failure> {
        let response = self.site.upstream(self.group).open(request, interim).await?;
        *self.judged.lock() = response.judged;
        if let Some(Judged { at: Some(at), .. }) = response.judged {
            self.fill.judged_at(at);
        }
        Ok(response)
    }

    /// RFC 9111 section 4.3.4: the stored body under the fields of the 304.
    async fn renew(
        &self,
        pipeline: &Pipeline,
        stale: &Arc<StoredResponse>,
        newer: &[u8],
        (retries, origin): (u32, usize),
        facts: &RequestFacts,
    ) {
        let Freshened { record, sharing, fields, browser_ttl, for_nodes } = self.freshen(pipeline, stale, newer, facts);
        match &sharing {
            Sharing::Stored { selecting, .. } => {
                self.commit(pipeline, selecting.as_ref(), &record).await;
                self.note_search(pipeline, &record);
            }
            Sharing::NotStored(reason) if !is_the_requests(*reason) => pipeline.store.supersede(&self.primary),
            Sharing::NotStored(_) => {}
        }
        let head = FillHead {
            status: record.status(),
            fields: fields.into_boxed_slice(),
            upstream_status: None,
            length: Some(record.body_len()),
            sharing,
            origin_status: 304,
            retries,
            origin,
            browser_ttl,
            for_nodes,
            part: None,
            record: Some(record),
        };
        self.fill.publish_head(head, Room::Nothing);
    }

    /// RFC 9111 section 4.3.5: what an answer to HEAD says about the stored answer to GET. The same representation is
    /// freshened; another one means that what is stored has been replaced.
    async fn update_by_head(&self, pipeline: &Pipeline, newer: &[u8], length: Option<u64>, facts: &RequestFacts) {
        let found = pipeline.store.find(&self.primary, Fields::new(&self.selecting)).await;
        let Lookup::Found { stored, .. } = found else { return };
        let same_length = length.is_none_or(|length| length == stored.body_len());
        if stored.status() != 200 || !same_length || !same_representation(stored.fields(), Fields::new(newer)) {
            pipeline.store.invalidate(&self.primary);
            return;
        }
        let facts = RequestFacts { method_is_get: true, ..*facts };
        let freshened = self.freshen(pipeline, &stored, newer, &facts);
        match &freshened.sharing {
            Sharing::Stored { selecting, .. } => {
                self.commit(pipeline, selecting.as_ref(), &freshened.record).await;
            }
            Sharing::NotStored(reason) if !is_the_requests(*reason) => pipeline.store.supersede(&self.primary),
            Sharing::NotStored(_) => {}
        }
    }

    /// A stored response under the fields of a newer one without its body.
    fn freshen(&self, pipeline: &Pipeline, stale: &StoredResponse, newer: &[u8], facts: &RequestFacts) -> Freshened {
        let mut fields = Vec::with_capacity(stale.fields().as_bytes().len() + 128);
        // What a rule took out for the sake of browsers is still the origin's word.
        let known = match stale.browser() {
            Some(browser) => Cow::Owned([stale.fields().as_bytes(), &browser.replaced].concat()),
            None => Cow::Borrowed(stale.fields().as_bytes()),
        };
        freshen(Fields::new(&known), Fields::new(newer), facts.response_time, &mut fields);
        let mut fields = without_length(Fields::new(&fields));
        let upstream_status = take(&mut fields, "cache-status");
        let ruled = Ruled::apply(&self.site, self.matched.as_ref(), stale.status(), &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        let judge = self.judge();
        // What is purged by was taken out when the response was stored; it stands until the origin says something else.
        let says_keys = surrogate::FIELDS.iter().any(|name| Fields::new(&fields).contains(name));
        let tags = match says_keys {
            true => judge.tags(&ruled, Fields::new(&fields)),
            false => stale.tags().map(Into::into),
        };
        let selectors = match says_keys {
            true => judge.with_keys(&pipeline.store.ledger, &ruled, &mut fields),
            false => Ok(OwnedSelectors::of(&stale.selectors())),
        };
        let verdict = storable(facts, stale.status(), Fields::new(&fields), &directives, self.site.set_cookie)
            .map_err(NotStored::reason)
            .and_then(|freshness| judge.placed(freshness))
            .and_then(|freshness| if ruled.forbids() { Err(Reason::Rule) } else { Ok((freshness, selectors?)) });
        remove(&mut fields, "age");
        if directives.no_cache_fields {
            // What a 304 brings of these is for one client, and the record is for all.
            fields = without_withheld(&fields, &directives);
        }
        let browser = ruled.browser(&directives, &mut fields);
        let selecting = judge.selecting(Fields::new(&fields));
        let (freshness, sharing) = match verdict {
            Ok((freshness, selectors)) => {
                (freshness, Sharing::Stored { freshness, selecting, selectors: Arc::new(selectors) })
            }
            Err(reason) => (stale.freshness(), Sharing::NotStored(reason)),
        };
        let parts = Parts {
            status: stale.status(),
            fields: &fields,
            freshness,
            fill_pos: self.fill.fill_pos(),
            upstream_status: upstream_status.as_deref(),
            browser: browser.as_ref(),
            tags: tags.as_deref(),
            selectors: match &sharing {
                Sharing::Stored { selectors, .. } => selectors.get(),
                Sharing::NotStored(_) => stale.selectors(),
            },
        };
        let record = Arc::new(stale.freshened(&parts));
        let for_nodes = for_nodes(tags.as_deref(), browser.as_ref());
        Freshened { record, sharing, fields, browser_ttl: browser.map(|browser| browser.ttl), for_nodes }
    }

    async fn receive(
        &self,
        pipeline: &Pipeline,
        response: OriginResponse,
        facts: &RequestFacts,
    ) -> Result<(), Failure> {
        let mut fields = response.fields.clone();
        with_date(&mut fields, facts.response_time);
        let upstream_status = take(&mut fields, "cache-status");
        let judged = self.judge().head(pipeline, response.status, fields, response.length, facts);
        self.receive_judged(pipeline, Head { upstream_status, ..judged }, response).await
    }

    /// What it takes to go on with a body that breaks off. `fields`: those of its response as they came.
    fn rest(&self, pipeline: &Pipeline, fields: Vec<u8>, origin: usize, range: Range<u64>, total: Option<u64>) -> Rest {
        Rest {
            upstream: self.site.upstream(self.group).clone(),
            request: self.origin_request.clone(),
            fields,
            origin,
            at: range.start,
            end: Some(range.end).filter(|end| *end != u64::MAX),
            total,
            site: self.site.index,
            metrics: pipeline.metrics.clone(),
        }
    }

    /// Receives the body of a response whose head has been judged.
    async fn receive_judged(&self, pipeline: &Pipeline, head: Head, response: OriginResponse) -> Result<(), Failure> {
        let OriginResponse { status, fields, length, mut body, retries, origin, .. } = response;
        // Whether it may go on should it break off. Nothing is made for that before it does: hardly any body breaks off.
        let mut resumes = (status == 200 && (!self.as_is || self.asked.is_none())).then_some(fields);
        let mut received = 0;
        // Who wants a part of what is small has all of it stored before there is another request.
        let waits = self.asked.is_some()
            && !self.as_is
            && matches!(head.sharing, Sharing::Stored { .. })
            && length.is_some_and(|length| length <= CHUNK_BYTES as u64);
        let fill_pos = self.fill.fill_pos();
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
            held_up: Duration::ZERO,
        };
        let ended = loop {
            if receiving.unpublished.is_none() && !self.fill.may_go_on().await {
                break Err(Failure::Abandoned);
            }
            let publish = |receiving: &mut Receiving<'_>| {
                if !waits {
                    receiving.publish(None);
                }
            };
            match next_or_else(body.as_mut(), || publish(&mut receiving)).await {
                Ok(Some(piece)) => {
                    received += piece.len() as u64;
                    receiving.accept(piece);
                }
                Ok(None) => break Ok(()),
                Err(failure) => {
                    let rest = |fields| self.rest(pipeline, fields, origin, received..u64::MAX, length);
                    let rest = resumes.take().map(rest);
                    match rest.and_then(|rest| Resuming::broken(failure, body.due(), rest)) {
                        Some(rest) => body = rest,
                        None => break Err(failure),
                    }
                }
            }
            receiving.settle().await;
        };
        match ended {
            Ok(()) => receiving.finish().await,
            Err(Failure::Malformed) => {}
            Err(_) => receiving.keep_what_came().await,
        }
        ended
    }
}

/// A stored response under newer fields.
struct Freshened {
    record: Arc<StoredResponse>,
    sharing: Sharing,
    fields: Vec<u8>,
    browser_ttl: Option<DeltaSeconds>,
    for_nodes: Box<[u8]>,
}

/// Whether another node of this PoP owns the object, and has it on its disk: here it is kept as long as it is hot.
fn is_anothers(judged: Option<Judged>) -> bool {
    matches!(judged, Some(Judged { by: Role::Owner, .. }))
}

/// Whether an answer is not shared because of what its client put into the request. That says nothing about what others
/// may share, and must not let one client remove it.
fn is_the_requests(reason: Reason) -> bool {
    matches!(reason, Reason::RequestNoStore | Reason::Authorization)
}
