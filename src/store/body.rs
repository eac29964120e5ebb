//! A body whose chunks stand apart from its record, each by itself: in memory, on a disk, or still with the origin only.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};

use crate::store::disk::frame::FrameKey;
use crate::store::key::CacheKey;

/// Chunks that are read while an earlier one is sent.
const READ_AHEAD: usize = 3;
/// The grid all bodies are cut by.
const CHUNK: u64 = CHUNK_BYTES as u64;

/// Where chunks are. A trait, as a record must not be made of the types of what it is written to.
pub trait Chunks: Send + Sync {
    /// How far some of a chunk seems to be there without a gap: the beginning of `within` if its first byte is not.
    fn covered_to(&self, frame: &FrameKey, within: Range<u32>) -> u32;

    /// Where, in a part of a chunk that begins with a gap, that ends.
    fn gap_to(&self, frame: &FrameKey, within: Range<u32>) -> u32;

    /// Some bytes of a chunk. None: not all of them are there any more.
    fn load(&self, frame: FrameKey, within: Range<u32>) -> BoxFuture<'_, Option<Bytes>>;
}

/// What finds the chunks of a body. Any of them may be missing.
#[derive(Clone)]
pub struct Sparse {
    pub chunks: Arc<dyn Chunks>,
    /// What the record stands under.
    pub key: CacheKey,
    /// Another for every representation that was ever stored: bytes of two can never mix.
    pub generation: u64,
}

impl Sparse {
    pub fn frame(&self, index: u32) -> FrameKey {
        FrameKey::chunk(self.key, self.generation, index)
    }

    /// What is there of one chunk from its beginning on, at most so many bytes. None: less than that is there.
    pub async fn load(&self, index: u32, bytes: u32) -> Option<Bytes> {
        self.chunks.load(self.frame(index), 0..bytes).await
    }

    /// Whether all of a body so long seems to be there.
    pub fn is_whole(&self, length: u64) -> bool {
        self.has(0..length)
    }

    /// Whether all of these bytes seem to be there.
    pub fn has(&self, range: Range<u64>) -> bool {
        spans(range).all(|(index, within)| self.chunks.covered_to(&self.frame(index), within.clone()) == within.end)
    }

    /// How many chunks of a body so long seem to be there, from their first byte to their last.
    pub fn count(&self, length: u64) -> u32 {
        let is_there = |(index, within): &(u32, Range<u32>)| {
            self.chunks.covered_to(&self.frame(*index), within.clone()) == within.end
        };
        u32::try_from(spans(0..length).filter(is_there).count()).unwrap_or(u32::MAX)
    }

    /// Where the first byte is that is not there, of at most so many chunks.
    pub fn gap_in(&self, range: Range<u64>, chunks_max: usize) -> Option<u64> {
        spans(range).take(chunks_max).find_map(|(index, within)| {
            let to = self.chunks.covered_to(&self.frame(index), within.clone());
            (to < within.end).then(|| byte(index, to))
        })
    }

    /// Where the gap that has this byte begins; no further before it than its chunk does.
    pub fn gap_from(&self, at: u64) -> u64 {
        let (index, target) = (index_of(at), within(at % CHUNK));
        let (frame, mut from) = (self.frame(index), 0);
        loop {
            let covered = self.chunks.covered_to(&frame, from..target);
            let next = self.chunks.gap_to(&frame, covered..target);
            if next >= target {
                return byte(index, covered);
            }
            from = next;
        }
    }

    /// How far a gap that begins with `range` goes.
    pub fn gap_to(&self, range: Range<u64>) -> u64 {
        let mut at = range.start;
        for (index, within) in spans(range) {
            let (frame, end) = (self.frame(index), within.end);
            if self.chunks.covered_to(&frame, within.clone()) > within.start {
                break;
            }
            let to = self.chunks.gap_to(&frame, within);
            at = byte(index, to);
            if to < end {
                break;
            }
        }
        at
    }

    /// The bytes of a range, piece by piece, some of them read ahead. None in it: something is missing.
    pub fn pieces(&self, range: Range<u64>) -> impl Stream<Item = Option<Bytes>> + '_ {
        let pieces = stream::iter(spans(range)).map(move |(index, within)| {
            let (frame, within) = (self.frame(index), within);
            async move {
                // What is there of a chunk that is not whole is good for the beginning of it.
                let to = self.chunks.covered_to(&frame, within.clone());
                if to == within.start {
                    return None;
                }
                self.chunks.load(frame, within.start..to).await.map(|piece| (piece, to == within.end))
            }
        });
        // Behind a gap nothing is in its place.
        pieces.buffered(READ_AHEAD).scan(true, |goes_on, piece| {
            let item = match (*goes_on, piece) {
                (true, Some((piece, whole))) => {
                    *goes_on = whole;
                    Some(piece)
                }
                _ => {
                    *goes_on = false;
                    None
                }
            };
            std::future::ready(Some(item))
        })
    }
}

/// The chunks a range goes through, and which of their bytes.
pub fn spans(range: Range<u64>) -> impl Iterator<Item = (u32, Range<u32>)> {
    let indices = if range.is_empty() { 0..0 } else { index_of(range.start)..index_of(range.end - 1) + 1 };
    indices.map(move |index| {
        let begin = u64::from(index) * CHUNK;
        (index, within(range.start.saturating_sub(begin))..within(range.end.saturating_sub(begin)))
    })
}

/// An offset from the beginning of a chunk, no further than its end.
fn within(offset: u64) -> u32 {
    offset.min(CHUNK) as u32
}

fn byte(index: u32, within: u32) -> u64 {
    u64::from(index) * CHUNK + u64::from(within)
}

/// The number of the chunk that has this byte.
fn index_of(byte: u64) -> u32 {
    u32::try_from(byte / CHUNK).unwrap_or(u32::MAX - 1)
}

/// The chunks of a body of so many bytes.
pub fn chunks_of(length: u64) -> u32 {
    u32::try_from(length.div_ceil(CHUNK)).unwrap_or(u32::MAX)
}
