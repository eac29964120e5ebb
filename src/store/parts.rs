//! Some bytes of one chunk: what is there of it while it is not whole.
//!
//! A value, changed by making another one: who reads from it goes on with what it was. Bytes that are there are never
//! replaced by others; a representation that has changed begins with nothing.

use std::ops::Range;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use super::record::{BYTES_SHARED, allocation};

/// How many pieces with gaps between them are kept. A player that jumps within one chunk leaves a few; who asks for every
/// other byte is not to be given the memory for it.
pub const PIECES_MAX: usize = 16;

const CHUNK: u32 = CHUNK_BYTES as u32;
const _: () = assert!(CHUNK as usize == CHUNK_BYTES);

/// Pieces of a chunk, by where they begin; between two of them at least one byte is missing.
///
/// Each is an allocation of its own: none keeps alive what it was cut from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pieces: Vec<(u32, Bytes)>,
}

impl Parts {
    /// A chunk's bytes from its beginning on, in an allocation of their own.
    pub fn of(bytes: Bytes) -> Self {
        Self { pieces: vec![(0, bytes)] }
    }

    /// These and `bytes`, which stand at `at` in the chunk; what is beyond the chunk's end is left out.
    ///
    /// Bytes that are there already stay. Pieces that touch become one, which copies them. Where that makes more than
    /// [`PIECES_MAX`], the smallest goes, the first of those that are equally small.
    pub fn with(&self, at: u32, bytes: &[u8]) -> Self {
        let bytes = bytes.get(..CHUNK.saturating_sub(at) as usize).unwrap_or(bytes);
        let end = at.saturating_add(bytes.len() as u32);
        if bytes.is_empty() || self.covered_to(at) >= end {
            return self.clone();
        }
        let first = self.pieces.partition_point(|piece| end_of(piece) < at);
        let behind = self.pieces.partition_point(|(start, _)| *start <= end);
        let touching = self.pieces.get(first..behind).unwrap_or_default();
        let mut pieces = Vec::with_capacity(self.pieces.len() - touching.len() + 1);
        pieces.extend_from_slice(self.pieces.get(..first).unwrap_or_default());
        pieces.push(joined(touching, at, bytes));
        pieces.extend_from_slice(self.pieces.get(behind..).unwrap_or_default());
        if pieces.len() > PIECES_MAX
            && let Some((smallest, _)) = pieces.iter().enumerate().min_by_key(|(_, (_, piece))| piece.len())
        {
            pieces.remove(smallest);
        }
        Self { pieces }
    }

    /// The bytes of this range, not copied; none if one of them is missing, or for an empty range.
    pub fn get(&self, within: Range<u32>) -> Option<Bytes> {
        let (start, piece) = self.at(within.start)?;
        let (from, to) = ((within.start - start) as usize, within.end.checked_sub(*start)? as usize);
        (from < to && to <= piece.len()).then(|| piece.slice(from..to))
    }

    /// How far it goes from `from` on without a gap: the first byte that is missing, `from` itself if that is.
    pub fn covered_to(&self, from: u32) -> u32 {
        self.at(from).map_or(from, end_of)
    }

    /// Where the first piece begins that does not begin before `from`.
    pub fn next_after(&self, from: u32) -> Option<u32> {
        let next = self.pieces.partition_point(|(start, _)| *start < from);
        self.pieces.get(next).map(|(start, _)| *start)
    }

    /// A chunk of this length, if every byte of it is there.
    pub fn whole(&self, length: u32) -> Option<Bytes> {
        self.get(0..length)
    }

    /// How many bytes are there.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum()
    }

    /// What it costs in memory, itself and allocator rounding included.
    pub fn weight(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|(_, piece)| allocation(piece.len()) + BYTES_SHARED).sum();
        size_of::<Self>() + allocation(self.pieces.capacity() * size_of::<(u32, Bytes)>()) + pieces
    }

    /// The piece that has the byte at `at`.
    fn at(&self, at: u32) -> Option<&(u32, Bytes)> {
        let behind = self.pieces.partition_point(|(start, _)| *start <= at);
        self.pieces.get(behind.checked_sub(1)?).filter(|piece| at < end_of(piece))
    }
}

/// The first byte behind a piece.
fn end_of((start, piece): &(u32, Bytes)) -> u32 {
    // A piece is within a chunk: `with` sees to it.
    start.saturating_add(piece.len() as u32)
}

/// One piece of those that `bytes` at `at` touch, and of what of `bytes` is not in them.
fn joined(touching: &[(u32, Bytes)], at: u32, bytes: &[u8]) -> (u32, Bytes) {
    let end = at.saturating_add(bytes.len() as u32);
    let start = touching.first().map_or(at, |(start, _)| at.min(*start));
    let behind = touching.last().map_or(end, |piece| end.max(end_of(piece)));
    let new = |from: u32, to: u32| bytes.get(from.saturating_sub(at) as usize..to.saturating_sub(at) as usize);
    let mut joined = Vec::with_capacity(behind.saturating_sub(start) as usize);
    let mut reached = start;
    for piece in touching {
        joined.extend_from_slice(new(reached, piece.0).unwrap_or_default());
        joined.extend_from_slice(&piece.1);
        reached = end_of(piece);
    }
    joined.extend_from_slice(new(reached, end).unwrap_or_default());
    (start, Bytes::from(joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is put in, in turn: where, and which bytes.
    fn made(puts: &[(u32, &[u8])]) -> Parts {
        puts.iter().fold(Parts::default(), |parts, (at, bytes)| parts.with(*at, bytes))
    }

    #[track_caller]
    fn check(name: &str, puts: &[(u32, &[u8])], expected: &[(u32, &[u8])]) {
        let found = made(puts);
        let found: Vec<(u32, &[u8])> = found.pieces.iter().map(|(at, piece)| (*at, &piece[..])).collect();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn pieces() {
        check("one", &[(3, b"abc")], &[(3, b"abc")]);
        check("none", &[(3, b"")], &[]);
        check("a gap stays", &[(0, b"ab"), (3, b"c")], &[(0, b"ab"), (3, b"c")]);
        check("in any order", &[(3, b"c"), (0, b"ab")], &[(0, b"ab"), (3, b"c")]);
        check("touching behind", &[(0, b"ab"), (2, b"c")], &[(0, b"abc")]);
        check("touching before", &[(2, b"c"), (0, b"ab")], &[(0, b"abc")]);
        check("a gap is filled", &[(0, b"a"), (2, b"c"), (1, b"b")], &[(0, b"abc")]);
        check("those that were there stay", &[(1, b"bc"), (0, b"XXXX")], &[(0, b"XbcX")]);
        check("also at the ends", &[(0, b"ab"), (4, b"ef"), (1, b"XXXX")], &[(0, b"abXXef")]);
        check("over several", &[(1, b"b"), (3, b"d"), (9, b"j"), (0, b"XXXXX")], &[(0, b"XbXdX"), (9, b"j")]);
        check("the same again", &[(0, b"abc"), (1, b"XX")], &[(0, b"abc")]);
        check("at the chunk's end", &[(CHUNK - 1, b"ab")], &[(CHUNK - 1, b"a")]);
        check("behind it", &[(CHUNK, b"ab"), (u32::MAX, b"ab")], &[]);
    }

    #[test]
    fn the_smallest_piece_goes() {
        let sixteen: Vec<(u32, &[u8])> =
            (0..PIECES_MAX as u32).map(|at| (at * 4, if at == 7 { &b"c"[..] } else { b"ab" })).collect();
        let parts = made(&sixteen);
        assert_eq!((parts.pieces.len(), parts.get(28..29).is_some()), (PIECES_MAX, true));
        let one_more = parts.with(100, b"abc");
        assert_eq!((one_more.pieces.len(), one_more.get(28..29)), (PIECES_MAX, None), "the smallest");
        assert_eq!(parts.with(100, b"c").covered_to(28), 28, "the first of the smallest");
        let one_more = one_more.with(200, b"c");
        assert_eq!((one_more.pieces.len(), one_more.covered_to(200)), (PIECES_MAX, 200), "the new one itself");
        assert_eq!(parts.with(2, b"XX").pieces.len(), PIECES_MAX - 1, "none goes for one that joins two");
    }

    #[test]
    fn a_whole_chunk() {
        let chunk: Vec<u8> = (0..CHUNK_BYTES + 5).map(|at| at as u8).collect();
        let parts = made(&[(0, &chunk[..1000]), (2000, &chunk[2000..])]);
        assert_eq!(parts.whole(CHUNK), None);
        assert_eq!(parts.whole(1000).as_deref(), Some(&chunk[..1000]), "a last chunk that is shorter");
        let parts = parts.with(900, &chunk[900..2100]);
        assert_eq!(parts.whole(CHUNK).as_deref(), Some(&chunk[..CHUNK_BYTES]));
        assert_eq!((parts.bytes(), parts.whole(CHUNK + 1)), (CHUNK_BYTES, None));
        assert_eq!(parts.weight(), size_of::<Parts>() + 48 + CHUNK_BYTES + BYTES_SHARED);
        assert_eq!(Parts::default().weight(), size_of::<Parts>());
    }

    #[test]
    fn nothing_is_copied_and_nothing_else_kept() {
        let (parts, older) = (made(&[(0, b"abcdef")]), made(&[(0, b"abc")]));
        let (piece, slice) = (parts.get(0..6).expect("there"), parts.get(2..4).expect("there"));
        assert_eq!(slice.as_ptr(), piece[2..].as_ptr());
        let newer = older.with(3, b"def");
        assert_eq!((older.covered_to(0), newer.covered_to(0)), (3, 6), "the older one is as it was");
    }

    /// How much of a chunk the model holds: room for more pieces than are kept.
    const MODELLED: usize = 120;

    /// The model's second writing of [`Parts::with`].
    fn put(model: &mut [Option<u8>], at: usize, bytes: &[u8]) {
        for (byte, new) in model.iter_mut().skip(at).zip(bytes) {
            *byte = byte.or(Some(*new));
        }
        let runs = runs(model);
        if runs.len() > PIECES_MAX {
            let smallest = runs.iter().map(Range::len).min().expect("there are runs");
            let gone = runs.into_iter().find(|run| run.len() == smallest).expect("one of them");
            model[gone].fill(None);
        }
    }

    fn runs(model: &[Option<u8>]) -> Vec<Range<usize>> {
        let is_there = |at: usize| model.get(at).is_some_and(Option::is_some);
        let starts = (0..model.len()).filter(|at| is_there(*at) && (*at == 0 || !is_there(at - 1)));
        starts.map(|start| start..(start..).find(|at| !is_there(*at)).expect("it ends")).collect()
    }

    fn puts() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
        let small = (0..MODELLED, prop::collection::vec(any::<u8>(), 0..4));
        let any = (0..MODELLED, prop::collection::vec(any::<u8>(), 0..40));
        let one = prop_oneof![5 => small.boxed(), 1 => any.boxed()];
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn parts_are_as_the_model(puts in puts(), is_at_the_end in any::<bool>(), ends in (0..130_u32, 0..130_u32)) {
            let base = if is_at_the_end { CHUNK - MODELLED as u32 } else { 0 };
            let (mut parts, mut model) = (Parts::default(), vec![None; MODELLED]);
            for (at, bytes) in puts {
                // Where the model ends but the chunk does not, nothing is put beyond it.
                let bytes = if is_at_the_end { &bytes } else { &bytes[..bytes.len().min(MODELLED - at)] };
                parts = parts.with(base + at as u32, bytes);
                put(&mut model, at, bytes);

                let expected: Vec<_> = runs(&model).into_iter().map(|run| {
                    (base + run.start as u32, model[run].iter().copied().flatten().collect::<Vec<_>>())
                }).collect();
                let found: Vec<_> = parts.pieces.iter().map(|(at, piece)| (*at, piece.to_vec())).collect();
                prop_assert_eq!(found, expected);
                prop_assert!(parts.pieces.len() <= PIECES_MAX);
                prop_assert_eq!(parts.bytes(), model.iter().flatten().count());
                prop_assert!(parts.weight() >= parts.bytes() + size_of::<Parts>());
            }
            let missing_from = |from: usize| (from..).find(|at| model.get(*at).is_none_or(Option::is_none));
            for from in 0..MODELLED + 2 {
                let at = base + from as u32;
                let covered = missing_from(from).map(|missing| base + missing as u32);
                prop_assert_eq!(Some(parts.covered_to(at)), covered);
                let next = runs(&model).iter().find(|run| run.start >= from).map(|run| base + run.start as u32);
                prop_assert_eq!(parts.next_after(at), next);
                let whole = model.get(..from).filter(|bytes| !bytes.is_empty() && base == 0)
                    .and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
                prop_assert_eq!(parts.whole(at).map(|bytes| bytes.to_vec()), whole);
            }
            for (start, end) in (0..MODELLED as u32 + 2).map(|start| (start, start + 3)).chain([ends]) {
                let expected = model.get(start as usize..end as usize).filter(|bytes| !bytes.is_empty())
                    .and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
                prop_assert_eq!(parts.get(base + start..base + end).map(|bytes| bytes.to_vec()), expected);
            }
        }

        #[test]
        fn no_number_panics(puts in prop::collection::vec((any::<u32>(), 0..9_usize), 0..9), within in any::<(u32, u32)>()) {
            let parts = puts.iter().fold(Parts::default(), |parts, (at, length)| parts.with(*at, &[0; 9][..*length]));
            parts.get(within.0..within.1);
            parts.whole(within.0);
            prop_assert!(parts.covered_to(within.0) >= within.0);
            prop_assert!(parts.next_after(within.0).is_none_or(|next| next >= within.0 && next < CHUNK));
        }
    }
}
