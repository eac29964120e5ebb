//! An answer that is a part of a representation: kept as what it is, beside the parts that are there (RFC 9111 sections 3.3
//! and 3.4).

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use super::judge::Head;
use super::{Job, Judge};
use crate::origin::resume::Resuming;
use crate::origin::{Failure, OriginBody, OriginResponse};
use crate::pipeline::Pipeline;
use crate::pipeline::edits::{remove, take, with_date};
use crate::pipeline::nodes::for_nodes;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::pipeline::sparse::asked::Asked;
use crate::pipeline::sparse::fetching::Fetching;
use crate::pipeline::sparse::run::Run;
use crate::semantics::cache_status::Reason;
use crate::semantics::content_range::{ContentRange, content_range};
use crate::semantics::fields::Fields;
use crate::semantics::storable::RequestFacts;
use crate::semantics::validation::{same_strongly, strong_validator};
use crate::store::body::{Sparse, spans};
use crate::store::commit::new_generation;
use crate::store::fill::{FillHead, Room, Sharing};
use crate::store::key::CacheKey;
use crate::store::record::{Parts, StoredResponse};

/// The longest representation that is kept in chunks: their numbers have 32 bits.
const LENGTH_MAX: u64 = (u32::MAX as u64 - 1) * CHUNK_BYTES as u64;

/// A body that is as long as its `Content-Range` says. Without a `Content-Length` nothing else tells the end of a part from
/// where its origin stopped, and what looks complete is stored.
struct Exactly {
    body: Box<dyn OriginBody>,
    left: u64,
}

#[async_trait]
impl OriginBody for Exactly {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(piece) = self.body.next().await? else {
            return if self.left == 0 { Ok(None) } else { Err(Failure::Closed) };
        };
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(Failure::Malformed)?;
        Ok(Some(piece))
    }

    fn due(&self) -> Option<Instant> {
        self.body.due()
    }
}

impl Job {
    /// Receives a 206.
    pub(super) async fn receive_part(
        &self,
        pipeline: &Arc<Pipeline>,
        mut response: OriginResponse,
        asked: &Asked,
        facts: &RequestFacts,
    ) -> Result<(), Failure> {
        let said = content_range(Fields::new(&response.fields));
        if let (Some(said), None) = (said, response.length) {
            response.body = Box::new(Exactly { body: response.body, left: said.len() });
        }
        let answered = said.filter(|said| asked.is_answered_by(said, response.length));
        let Some((said, total)) = answered.and_then(|said| Some((said, said.total?))) else {
            // Its client asked for this, in these words; whether it is what was meant is for the client to see.
            if self.as_is || (self.part.is_some() && said.is_some()) {
                return self.receive(pipeline, response, facts).await;
            }
            // Nothing can be made of what does not say where it belongs.
            drop(response);
            let interim = |status, fields| self.fill.push_interim(status, fields);
            let response = self.open(&self.origin_request, &interim).await?;
            return self.receive(pipeline, response, facts).await;
        };
        if !self.as_is && said.range() == (0..total) {
            // All of it is no part.
            response.status = 200;
            response.length = Some(total);
            remove(&mut response.fields, "content-range");
            return self.receive(pipeline, response, facts).await;
        }
        self.keep_part(pipeline, response, (said, total), facts).await
    }

    async fn keep_part(
        &self,
        pipeline: &Arc<Pipeline>,
        response: OriginResponse,
        (said, total): (ContentRange, u64),
        facts: &RequestFacts,
    ) -> Result<(), Failure> {
        let mut fields = response.fields.clone();
        with_date(&mut fields, facts.response_time);
        let upstream_status = take(&mut fields, "cache-status");
        remove(&mut fields, "content-range");
        let judge = Judge { stands_apart: true, ..self.judge() };
        let mut head = Head { upstream_status, ..judge.head(pipeline, 200, fields, Some(total), facts) };
        if total > LENGTH_MAX {
            head.sharing = Sharing::NotStored(Reason::TooLarge);
        } else if head.withheld.is_some() {
            // What its client gets is not what others may have.
            head.sharing = Sharing::NotStored(Reason::RangeNotStored);
        }
        let Sharing::Stored { freshness, selecting, selectors } = &head.sharing else {
            if self.as_is {
                return self.receive(pipeline, response, facts).await;
            }
            head = Head { status: 206, part: Some(said), withheld: None, reservation: None, ..head };
            return self.receive_judged(pipeline, head, response).await;
        };
        let store = &pipeline.store;
        let key = selecting.as_ref().map_or(self.primary, |s| store.keyer.variant(&self.primary, &s.values));
        let (body, fill_pos) = match self.combines_with(&key, &head.fields, total) {
            // The earliest of its parts says what it can be purged by.
            Some((stale, body)) => (body.clone(), stale.fill_pos().min(self.fill.fill_pos())),
            None => (store.sparse(key, new_generation().ok_or(Failure::Abandoned)?), self.fill.fill_pos()),
        };
        let parts = Parts {
            status: 200,
            fields: &head.fields,
            freshness: *freshness,
            fill_pos,
            upstream_status: head.upstream_status.as_deref(),
            browser: head.browser.as_ref(),
            tags: head.tags.as_deref(),
            selectors: selectors.get(),
        };
        let record = Arc::new(StoredResponse::of_sparse(&parts, total, body.clone()));
        let run = Run::new(said.range());
        pipeline.runs.enter(&body, &run);
        self.commit(pipeline, selecting.as_ref(), &record).await;
        let OriginResponse { fields: said_fields, retries, origin, body: bytes, .. } = response;
        let rest = self.rest(pipeline, said_fields, origin, said.range(), Some(total));
        let bytes = Resuming::over(bytes, rest);
        let browser_ttl = head.browser.as_ref().map(|browser| browser.ttl);
        let for_nodes = for_nodes(head.tags.as_deref(), head.browser.as_ref());
        let fetching = Fetching {
            site: self.site.clone(),
            group: self.group,
            request: self.origin_request.clone(),
            stored: record.clone(),
            body,
            run,
        };
        let head = FillHead {
            status: 200,
            fields: head.fields.into_boxed_slice(),
            upstream_status: head.upstream_status,
            length: Some(total),
            sharing: head.sharing,
            origin_status: 206,
            retries,
            origin,
            browser_ttl,
            for_nodes,
            part: None,
            record: Some(record),
        };
        self.fill.publish_head(head, Room::Nothing);
        // Whoever wants these bytes reads the run.
        let begun = Some((bytes, said.range().end));
        (pipeline.spawn)(Box::pin(fetching.run(pipeline.clone(), begun)));
        Ok(())
    }

    /// The stored response whose parts this one may stand beside.
    fn combines_with(&self, key: &CacheKey, fields: &[u8], total: u64) -> Option<(&StoredResponse, &Sparse)> {
        let stale = self.stale.as_deref()?;
        let body = stale.sparse()?;
        let is_same = stale.body_len() == total && same_strongly(stale.fields(), Fields::new(fields));
        #[cfg(test)]
        let is_same = is_same || planted(Planted::GenerationKept);
        (is_same && body.key == *key).then_some((stale, body))
    }

    /// A part that its client asked for and nothing can be put beside: it serves those who want some of it.
    pub(super) async fn keep_alone(&self, pipeline: &Pipeline, part: &StoredResponse) {
        let Some(ContentRange { first, last, total: Some(total) }) = content_range(part.fields()) else { return };
        let length = part.body_len();
        if strong_validator(part.fields()).is_some() || length > last - first + 1 || total > LENGTH_MAX || length == 0 {
            return;
        }
        let Some(generation) = new_generation() else { return };
        let mut fields = part.fields().as_bytes().to_vec();
        remove(&mut fields, "content-range");
        remove(&mut fields, "content-length");
        let parts = Parts {
            status: 200,
            fields: &fields,
            freshness: part.freshness(),
            fill_pos: part.fill_pos(),
            upstream_status: part.upstream_status(),
            browser: part.browser(),
            tags: part.tags(),
            selectors: part.selectors(),
        };
        let body = pipeline.store.sparse(self.primary, generation);
        let mut at = first;
        for (_, within) in spans(first..first + length) {
            let to = at + u64::from(within.end - within.start);
            let pieces: Vec<&[u8]> = part.slices(at - first..to - first).collect();
            pipeline.store.keep_part(&body, at, Bytes::from(pieces.concat()), total);
            at = to;
        }
        self.commit(pipeline, None, &Arc::new(StoredResponse::of_sparse(&parts, total, body))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;

    use super::*;

    struct Pieces(VecDeque<&'static [u8]>);

    #[async_trait]
    impl OriginBody for Pieces {
        async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
            Ok(self.0.pop_front().map(Bytes::from_static))
        }
    }

    #[test]
    fn a_part_is_as_long_as_it_says() {
        let rows: [(&[&[u8]], _); 5] = [
            (&[b"ab", b"c"], Ok(3)),
            (&[b"ab"], Err(Failure::Closed)),
            (&[], Err(Failure::Closed)),
            (&[b"ab", b"cd"], Err(Failure::Malformed)),
            (&[b"abc", b"", b"d"], Err(Failure::Malformed)),
        ];
        for (pieces, expected) in rows {
            let body = Box::new(Pieces(pieces.iter().copied().collect()));
            let (mut body, mut received) = (Exactly { body, left: 3 }, 0);
            let ended = loop {
                match body.next().now_or_never().expect("nothing waits") {
                    Ok(Some(piece)) => received += piece.len(),
                    Ok(None) => break Ok(received),
                    Err(failure) => break Err(failure),
                }
            };
            assert_eq!(ended, expected, "{pieces:?}");
        }
    }
}
