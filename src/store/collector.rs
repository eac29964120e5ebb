//! Gathers a body's pieces into whole chunks: what a fill that keeps its body does with what the network gives.

use bytes::{Bytes, BytesMut};
use edge_config::section::limits::CHUNK_BYTES;

/// The writer's side of keeping a body: gathers pieces into whole chunks.
#[derive(Default)]
pub struct Collector {
    chunks: Vec<Bytes>,
    /// Bytes of whole chunks that are not kept here any more.
    passed: u64,
    /// Whole chunks are kept elsewhere.
    passing: bool,
    pieces: Vec<Bytes>,
    pending: usize,
}

impl Collector {
    /// Takes a piece; gives back what to [`Fill::seal`](crate::store::fill::Fill::seal) once a chunk is whole.
    pub fn push(&mut self, piece: Bytes) -> Option<(Bytes, Option<Bytes>)> {
        self.pending += piece.len();
        self.pieces.push(piece);
        if self.pending < CHUNK_BYTES {
            return None;
        }
        let (chunk, rest) = self.gather();
        match self.passing {
            true => self.passed += chunk.len() as u64,
            false => self.chunks.push(chunk.clone()),
        }
        Some((chunk, rest))
    }

    /// From now on whole chunks are kept elsewhere, those so far included.
    pub fn pass(&mut self) {
        self.passing = true;
        self.passed += self.chunks.drain(..).map(|chunk| chunk.len() as u64).sum::<u64>();
    }

    /// The whole chunks that are kept here.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// What came after the last whole chunk.
    pub fn rest(&self) -> Option<Bytes> {
        (self.pending > 0).then(|| Bytes::from(self.pieces.concat()))
    }

    /// Bytes taken so far.
    pub fn length(&self) -> u64 {
        self.passed + self.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>() + self.pending as u64
    }

    fn gather(&mut self) -> (Bytes, Option<Bytes>) {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let mut rest = BytesMut::new();
        for piece in self.pieces.drain(..) {
            let fits = piece.len().min(CHUNK_BYTES - chunk.len());
            let (head, tail) = piece.split_at(fits);
            chunk.extend_from_slice(head);
            rest.extend_from_slice(tail);
        }
        self.pending = rest.len();
        let rest = (!rest.is_empty()).then(|| rest.freeze());
        self.pieces.extend(rest.clone());
        (chunk.freeze(), rest)
    }

    /// The whole body: full chunks and a last shorter one, or the pieces of a body smaller than a chunk.
    pub fn finish(mut self) -> Vec<Bytes> {
        if self.chunks.is_empty() {
            return self.pieces;
        }
        if self.pending > 0 {
            let last: Vec<u8> = self.pieces.concat();
            self.chunks.push(Bytes::from(last.into_boxed_slice()));
        }
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_out_as_it_went_in() {
        for (pieces, piece) in [(1, 10), (3, 100_000), (20, 65_536), (2, CHUNK_BYTES), (1, CHUNK_BYTES + 1)] {
            let mut collector = Collector::default();
            let mut whole = Vec::new();
            for n in 0..pieces {
                let bytes = Bytes::from(vec![n as u8; piece]);
                whole.extend_from_slice(&bytes);
                if let Some((chunk, rest)) = collector.push(bytes) {
                    assert_eq!(chunk.len(), CHUNK_BYTES);
                    assert!(rest.is_none_or(|rest| !rest.is_empty()));
                }
                assert_eq!(collector.length(), whole.len() as u64);
            }
            assert_eq!(collector.finish().concat(), whole, "{pieces} pieces of {piece}");
        }
    }
}
