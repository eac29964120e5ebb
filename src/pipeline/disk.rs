//! What is on a disk: read for the request that wants it, and moved to where it is cheaper to use.

use std::io;
use std::sync::Arc;

use crate::clock;
use crate::exchange::Exchange;
use crate::pipeline::Pipeline;
use crate::pipeline::decide::Decision;
use crate::pipeline::request::{Outcome, Request};
use crate::store::key::CacheKey;
use crate::store::record::StoredResponse;
use crate::store::tiers::{Lookup, READS_MAX};

impl Pipeline {
    /// Reads what a look-up needs from a disk, and answers then.
    pub(super) async fn read<E: Exchange>(
        self: &Arc<Self>,
        request: &Request<'_>,
        mut key: CacheKey,
        exchange: &mut E,
    ) -> io::Result<Outcome> {
        for _ in 0..READS_MAX {
            let read = tokio::select! {
                biased;
                read = self.store.read(&key) => read,
                () = exchange.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            // What cannot be read is not there.
            let request = Request { now: clock::wall(), disk: read, ..*request };
            match self.decide(&request) {
                Decision::Read(next) => key = next,
                decision => {
                    let outcome = self.answer(&request, decision, exchange).await?;
                    return Ok(Outcome { from_disk: outcome.from_disk || read, ..outcome });
                }
            }
        }
        let request = Request { disk: false, ..*request };
        let decision = self.decide(&request);
        self.answer(&request, decision, exchange).await
    }

    /// A stored response was used. With the second time it goes where it is cheaper to use: to a disk if it is in memory
    /// alone, into memory if its body is on a disk alone.
    pub(super) fn used(self: &Arc<Self>, request: &Request<'_>, stored: &Arc<StoredResponse>) {
        if self.store.disks.is_empty() || !stored.is_used_again() {
            return;
        }
        if let Some(body) = stored.sparse() {
            if stored.body_len() <= self.store.memory.object_bytes_max() / 4 {
                let (pipeline, stored, body) = (self.clone(), stored.clone(), body.clone());
                (self.spawn)(Box::pin(async move { pipeline.store.read_body(&stored, &body).await }));
            }
        } else if let Lookup::Found { stored: found, key, .. } = self.look_up(request)
            && Arc::ptr_eq(&found, stored)
            && self.store.is_in_memory_alone(&key)
        {
            let (pipeline, stored, label) = (self.clone(), stored.clone(), request.label());
            (self.spawn)(Box::pin(async move { pipeline.store.put_late(&key, stored, &label).await }));
        }
    }
}
