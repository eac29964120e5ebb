//! An answer to POST that is kept for GET: one that says it is what a GET of the same URL would get, and for how long
//! (RFC 9110 section 9.3.3).

use std::sync::Arc;

use bytes::Bytes;

use super::passed::Passed;
use crate::clock;
use crate::pipeline::Pipeline;
use crate::pipeline::edits::{remove, take, with_date};
use crate::pipeline::fill::{Head, Judge};
use crate::purge::ledger::Invalidated;
use crate::purge::position::Position;
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::directives::ResponseDirectives;
use crate::semantics::fields::Fields;
use crate::semantics::freshness;
use crate::semantics::invalidation::is_content_of_target;
use crate::semantics::storable::RequestFacts;
use crate::store::collector::Collector;
use crate::store::fill::Sharing;
use crate::store::key::CacheKey;
use crate::store::persist::Label;
use crate::store::record::{Parts, StoredResponse};

/// An answer on its way into the store.
pub(super) struct Kept {
    primary: CacheKey,
    label: Label,
    head: Head,
    fill_pos: Position,
    collector: Collector,
}

impl Kept {
    /// Judges the head of an answer. `invalidated`: what the request itself did to its target.
    pub(super) fn new(
        pipeline: &Pipeline,
        passed: &Passed,
        invalidated: Invalidated,
        status: u16,
        mut fields: Vec<u8>,
        length: Option<u64>,
    ) -> Option<Self> {
        let now = clock::wall();
        // Somebody else has changed it since this request began: who knows which answer is the later one.
        if status != 200 || passed.method != "POST" || invalidated.before > passed.began.local {
            return None;
        }
        if !is_content_of_target(&passed.target, passed.scheme, &passed.host, Fields::new(&fields)) {
            return None;
        }
        let directives = ResponseDirectives::parse(Fields::new(&fields));
        if !freshness::lifetime(status, Fields::new(&fields), &directives, now).1.is_explicit() {
            return None;
        }
        // What a GET of it would be stored under, were that routed in the same way.
        let host = canonical_host(&passed.host, passed.scheme);
        let of_url = KeyParts::of_url(&passed.site.name, passed.scheme, &host, &passed.target);
        let asked = Some(passed.asked_for.as_slice()).filter(|asked| *asked != passed.target);
        let parts = KeyParts { group: &passed.site.backing(passed.group).name, asked, ..of_url };
        let key = |parts| pipeline.store.keyer.primary(&parts, &mut Vec::new());
        let (url, primary) = (key(of_url), key(parts));
        let selectors = pipeline.selectors_of(&passed.site, &passed.host, &passed.target, &url, &primary);
        let judge = Judge {
            site: &passed.site,
            matched: passed.matched.as_ref(),
            selecting: &passed.fields,
            selectors: &selectors,
            stale: None,
            part: false,
            stands_apart: false,
            judged: None,
            spills: None,
        };
        let facts = RequestFacts {
            method_is_get: true,
            has_authorization: Fields::new(&passed.fields).contains("authorization"),
            no_store: false,
            request_time: passed.request_time,
            response_time: now,
        };
        with_date(&mut fields, now);
        let upstream_status = take(&mut fields, "cache-status");
        let mut head = judge.head(pipeline, status, fields, length, &facts);
        if !matches!(head.sharing, Sharing::Stored { .. }) {
            return None;
        }
        remove(&mut head.fields, "age");
        head.upstream_status = upstream_status;
        let fill_pos = Position { log: passed.began.log, local: invalidated.at };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let label = Label {
            site: passed.site.name.clone(),
            scheme: passed.scheme.to_owned(),
            host: text(&host),
            target: text(&passed.target),
        };
        Some(Self { primary, label, head, fill_pos, collector: Collector::default() })
    }

    /// Takes a piece of the body. False: it is too large to be kept.
    pub(super) fn push(&mut self, pipeline: &Pipeline, piece: &Bytes) -> bool {
        let total = self.collector.length() + piece.len() as u64;
        let Some(reservation) = &mut self.head.reservation else { return false };
        let reserved = reservation.bytes();
        if total > pipeline.store.memory.object_bytes_max() || (total > reserved && !reservation.grow(total - reserved))
        {
            return false;
        }
        self.collector.push(piece.clone());
        true
    }

    /// The body is complete.
    pub(super) fn commit(self, pipeline: &Pipeline) {
        let Sharing::Stored { freshness, selecting, selectors } = &self.head.sharing else { return };
        let parts = Parts {
            status: self.head.status,
            fields: self.head.withheld.as_deref().unwrap_or(&self.head.fields),
            freshness: *freshness,
            fill_pos: self.fill_pos,
            upstream_status: self.head.upstream_status.as_deref(),
            browser: self.head.browser.as_ref(),
            tags: self.head.tags.as_deref(),
            selectors: selectors.get(),
        };
        let record = Arc::new(StoredResponse::new(&parts, &self.collector.finish()));
        pipeline.store.commit_over_nothing(&self.primary, selecting.as_ref(), &record, &self.label);
    }
}
