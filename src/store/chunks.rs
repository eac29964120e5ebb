//! Chunks of bodies that stand apart from their records: the one place that puts and finds them, in memory and on disks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;
use futures_util::future::BoxFuture;

use crate::clock;
use crate::store::Store;
use crate::store::admission::{CROWDING, is_drawn};
use crate::store::body::{Chunks, Sparse};
use crate::store::commit::{LATE_WITHIN, Put};
use crate::store::disk::Disks;
use crate::store::disk::disks::site_number;
use crate::store::disk::frame::{FrameKey, Kind};
use crate::store::disk::value::Payload;
use crate::store::memory::{KeptChunk, MemoryTier};
use crate::store::parts::Parts;

/// Where chunks are looked for.
pub struct ChunkTiers {
    pub memory: MemoryTier,
    pub disks: Arc<Disks>,
}

impl Chunks for ChunkTiers {
    fn covered_to(&self, frame: &FrameKey, within: Range<u32>) -> u32 {
        let in_memory = self.memory.chunk(frame).map_or(within.start, |kept| kept.parts.covered_to(within.start));
        if in_memory >= within.end || self.disks.contains(frame) {
            return within.end;
        }
        in_memory
    }

    fn gap_to(&self, frame: &FrameKey, within: Range<u32>) -> u32 {
        let next = self.memory.chunk(frame).and_then(|kept| kept.parts.next_after(within.start));
        next.map_or(within.end, |next| next.min(within.end))
    }

    fn load(&self, frame: FrameKey, within: Range<u32>) -> BoxFuture<'_, Option<Bytes>> {
        if let Some(bytes) = self.memory.chunk(&frame).and_then(|kept| kept.parts.get(within.clone())) {
            return Box::pin(std::future::ready(Some(bytes)));
        }
        Box::pin(async move {
            let loaded = self.disks.load(&frame).await?;
            let (Kind::Chunk, Payload::Bytes(chunk)) = (loaded.kind, loaded.payload) else { return None };
            let (from, to) = (within.start as usize, within.end as usize);
            (from <= to && to <= chunk.len()).then(|| chunk.slice(from..to))
        })
    }
}

/// A chunk that is there from its first byte to its last.
pub struct WholeChunk {
    frame: FrameKey,
    bytes: Bytes,
    /// Of the body.
    length: u64,
}

impl Store {
    /// Keeps some bytes of a body that lie in one chunk in memory. Gives the chunk if that is whole now.
    pub fn keep_part(&self, body: &Sparse, at: u64, bytes: Bytes, length: u64) -> Option<WholeChunk> {
        let chunk = CHUNK_BYTES as u64;
        let (index, within) = (u32::try_from(at / chunk).ok()?, (at % chunk) as u32);
        let whole = length.checked_sub(at - u64::from(within))?.min(chunk) as u32;
        let frame = body.frame(index);
        let _step = self.commit_lock(&body.key);
        let parts = match self.memory.chunk(&frame) {
            Some(kept) => kept.parts.with(within, &bytes),
            None if within == 0 && bytes.len() as u32 == whole => Parts::of(bytes),
            None => Parts::default().with(within, &bytes),
        };
        let whole = parts.whole(whole);
        self.memory.keep_chunk(KeptChunk { frame, parts });
        whole.map(|bytes| WholeChunk { frame, bytes, length })
    }

    /// Has a chunk written, if a disk is to have it. What is given back waits for the disk: [`Self::put_chunk_late`].
    pub fn put_whole_chunk(&self, chunk: WholeChunk, site: &str) -> Option<WholeChunk> {
        let WholeChunk { frame, bytes, length } = &chunk;
        let is_large = self.disks.disk_of(frame).is_some_and(|disk| *length > disk.bytes / CROWDING);
        let crowds = is_large && !is_drawn(self.lots.fetch_add(1, Ordering::Relaxed));
        if !self.disks.takes(frame) || !self.admits(frame, bytes.len() as u64, crowds) {
            return None;
        }
        match self.put(*frame, Kind::Chunk, site_number(site), Payload::Bytes(bytes.clone())) {
            Put::Busy => Some(chunk),
            Put::Queued(_) | Put::Not => None,
        }
    }

    /// Has a chunk written that a disk was too busy for, as soon as there is room, within a second.
    pub async fn put_chunk_late(&self, late: WholeChunk, site: &str) {
        let until = clock::monotonic() + LATE_WITHIN;
        let put = || self.put(late.frame, Kind::Chunk, site_number(site), Payload::Bytes(late.bytes.clone()));
        if !self.put_until(until, put).await {
            self.metrics.disk_lost("busy", 1);
        }
    }
}
