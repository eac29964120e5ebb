//! A body that is on a disk alone: read chunk by chunk, each checked.

use std::sync::Arc;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};

use crate::store::disk::Disks;
use crate::store::disk::frame::{FrameKey, Kind};
use crate::store::disk::value::Payload;
use crate::store::key::CacheKey;

/// Chunks that are read while an earlier one is sent.
const READ_AHEAD: usize = 3;

/// Where chunks are. A trait, as a record must not be made of the types of what it is written to.
pub trait Chunks: Send + Sync {
    /// Whether a chunk seems to be there.
    fn contains(&self, frame: &FrameKey) -> bool;

    /// One chunk. None: it is no more.
    fn load(&self, frame: FrameKey) -> BoxFuture<'_, Option<Bytes>>;
}

impl Chunks for Disks {
    fn contains(&self, frame: &FrameKey) -> bool {
        Self::contains(self, frame)
    }

    fn load(&self, frame: FrameKey) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let loaded = Self::load(self, &frame).await?;
            match (loaded.kind, loaded.payload) {
                (Kind::Chunk, Payload::Bytes(chunk)) => Some(chunk),
                _ => None,
            }
        })
    }
}

/// What finds the chunks of a body.
#[derive(Clone)]
pub struct OnDisk {
    pub chunks: Arc<dyn Chunks>,
    /// What the record stands under.
    pub key: CacheKey,
    pub generation: u64,
}

impl OnDisk {
    pub fn frame(&self, index: u32) -> FrameKey {
        FrameKey::chunk(self.key, self.generation, index)
    }

    /// One chunk. None: it is no more.
    pub async fn load(&self, index: u32) -> Option<Bytes> {
        self.chunks.load(self.frame(index)).await
    }

    /// Whether every chunk of a body so long seems to be there.
    pub fn is_whole(&self, length: u64) -> bool {
        (0..chunks_of(length)).all(|index| self.chunks.contains(&self.frame(index)))
    }

    /// The bytes of a range, piece by piece, some of them read ahead. None in it: something is missing.
    pub fn pieces(&self, range: std::ops::Range<u64>) -> impl Stream<Item = Option<Bytes>> + '_ {
        let chunk = CHUNK_BYTES as u64;
        let indices = index_of(range.start)..index_of(range.end.saturating_sub(1)) + 1;
        let indices = if range.is_empty() { 0..0 } else { indices };
        let pieces = stream::iter(indices).map(move |index| async move { (index, self.load(index).await) });
        pieces.buffered(READ_AHEAD).map(move |(index, piece)| {
            let begin = u64::from(index) * chunk;
            let piece = piece?;
            let from = usize::try_from(range.start.saturating_sub(begin)).ok()?;
            let to = usize::try_from(range.end.saturating_sub(begin).min(chunk)).ok()?;
            (from <= to && to <= piece.len()).then(|| piece.slice(from..to))
        })
    }
}

/// The number of the chunk that has this byte.
fn index_of(byte: u64) -> u32 {
    u32::try_from(byte / CHUNK_BYTES as u64).unwrap_or(u32::MAX - 1)
}

/// The chunks of a body of so many bytes.
pub fn chunks_of(length: u64) -> u32 {
    u32::try_from(length.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX)
}
