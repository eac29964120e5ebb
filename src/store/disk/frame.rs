//! What stands on a disk: segments of frames. No I/O.
//!
//! ```text
//! segment  head (64 B) | frame | frame | ...                        | table | table's end (32 B)
//! frame    head (64 B) | payload | padding to 64 B
//! ```
//!
//! A frame's head has a checksum of its own and one of the payload, and the epoch of its segment: what an earlier use of
//! the segment has left behind the last frame is never taken for one. The table of a segment that is full says what is in
//! it, so that a node that starts reads no frame. Numbers are little-endian.

use twox_hash::XxHash3_64;

use crate::store::key::CacheKey;

/// Frames begin at multiples of it.
pub const ALIGN: usize = 64;
/// The head of a frame and the head of a segment.
pub const HEAD: usize = 64;
/// The end of a segment's table.
pub const TABLE_END: usize = 32;
/// One row of a segment's table.
pub const ROW: usize = 24;
/// A payload at most: one chunk, or a head with a body of up to one chunk, with room to spare.
pub const PAYLOAD_MAX: usize = 1 << 19;

const FRAME: u32 = u32::from_le_bytes(*b"LFR1");
const SEGMENT: u32 = u32::from_le_bytes(*b"LSG1");
const TABLE: u32 = u32::from_le_bytes(*b"LTB1");

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A stored response: its head, and its body if that is no larger than a chunk.
    Record = 1,
    /// A chunk of a body.
    Chunk = 2,
    /// What leads from one key to another.
    Hint = 3,
}

impl Kind {
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Record),
            2 => Some(Self::Chunk),
            3 => Some(Self::Hint),
            _ => None,
        }
    }
}

/// What a frame is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameKey {
    pub key: CacheKey,
    /// Of chunks: another for every body that was ever stored, so that two can never mix.
    pub generation: u64,
    pub index: u32,
}

impl FrameKey {
    /// The frame of a record or a hint: the latest one counts.
    pub const fn of(key: CacheKey) -> Self {
        Self { key, generation: 0, index: 0 }
    }

    pub const fn chunk(key: CacheKey, generation: u64, index: u32) -> Self {
        Self { key, generation, index }
    }

    /// The number the index knows it by. Two frames that share one cost a miss, as the whole key is compared.
    pub fn hash(&self) -> u64 {
        if self.generation == 0 {
            return self.key.low_u64();
        }
        let mixed = self.generation.wrapping_add(u64::from(self.index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.key.low_u64() ^ mixed ^ (mixed >> 29)
    }
}

impl std::hash::Hash for FrameKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash());
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: Kind,
    pub key: FrameKey,
    /// Of the payload.
    pub length: u32,
    /// Of the segment it stands in.
    pub epoch: u64,
    /// The site it belongs to.
    pub site: u32,
    /// Of the payload.
    pub checksum: u64,
}

/// The bytes a frame takes, padding included.
pub const fn frame_bytes(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(ALIGN)
}

/// A checksum that is fast enough to be looked at on every read.
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The same over pieces.
pub fn checksum_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    use std::hash::Hasher;
    let mut hasher = XxHash3_64::new();
    pieces.into_iter().for_each(|piece| hasher.write(piece));
    hasher.finish()
}

impl FrameHead {
    pub fn write(&self) -> [u8; HEAD] {
        let mut head = Fields::default();
        head.put(&FRAME.to_le_bytes());
        head.put(&[self.kind as u8, 0, 0, 0]);
        head.put(&self.key.key.to_bytes());
        head.put(&self.key.generation.to_le_bytes());
        head.put(&self.key.index.to_le_bytes());
        head.put(&self.length.to_le_bytes());
        head.put(&self.epoch.to_le_bytes());
        head.put(&self.site.to_le_bytes());
        head.put(&self.checksum.to_le_bytes());
        head.seal()
    }

    /// None: no frame begins here.
    pub fn read(head: &[u8; HEAD]) -> Option<Self> {
        let mut fields = Reader::sealed(head, FRAME)?;
        let [kind, ..] = fields.take::<4>();
        let head = Self {
            kind: Kind::of(kind)?,
            key: FrameKey {
                key: CacheKey::from_bytes(fields.take()),
                generation: u64::from_le_bytes(fields.take()),
                index: u32::from_le_bytes(fields.take()),
            },
            length: u32::from_le_bytes(fields.take()),
            epoch: u64::from_le_bytes(fields.take()),
            site: u32::from_le_bytes(fields.take()),
            checksum: u64::from_le_bytes(fields.take()),
        };
        (head.length as usize <= PAYLOAD_MAX).then_some(head)
    }

    /// The head of a frame of this epoch stood here: part of it still does.
    pub fn is_broken(head: &[u8; HEAD], epoch: u64) -> bool {
        let is_like_one = head[..4] == FRAME.to_le_bytes() || head[40..48] == epoch.to_le_bytes();
        is_like_one && Self::read(head).is_none()
    }
}

/// The head of a segment: when it was begun, in the order of all segments of the disk, and the last epoch whose frames
/// were distrusted then.
pub fn write_segment_head(epoch: u64, distrusted: u64) -> [u8; HEAD] {
    let mut head = Fields::default();
    head.put(&SEGMENT.to_le_bytes());
    head.put(&epoch.to_le_bytes());
    head.put(&distrusted.to_le_bytes());
    head.seal()
}

/// The epoch of a segment, and the one that was distrusted. None: nothing was ever written there, or it cannot be read.
pub fn read_segment_head(head: &[u8; HEAD]) -> Option<(u64, u64)> {
    let mut fields = Reader::sealed(head, SEGMENT)?;
    Some((u64::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take())))
}

/// A row of a segment's table: what a node needs to find a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub hash: u64,
    /// From the beginning of the segment.
    pub offset: u32,
    pub length: u32,
    pub site: u32,
    pub kind: Kind,
}

/// The bytes of a table with so many rows, its end included.
pub const fn table_bytes(rows: usize) -> usize {
    rows * ROW + TABLE_END
}

pub fn write_table(epoch: u64, rows: &[Row]) -> Vec<u8> {
    let mut table = Vec::with_capacity(table_bytes(rows.len()));
    for row in rows {
        table.extend_from_slice(&row.hash.to_le_bytes());
        table.extend_from_slice(&row.offset.to_le_bytes());
        table.extend_from_slice(&row.length.to_le_bytes());
        table.extend_from_slice(&row.site.to_le_bytes());
        table.extend_from_slice(&[row.kind as u8, 0, 0, 0]);
    }
    let sum = checksum(&table);
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut end = [0; TABLE_END];
    end[..4].copy_from_slice(&TABLE.to_le_bytes());
    end[4..8].copy_from_slice(&count.to_le_bytes());
    end[8..16].copy_from_slice(&epoch.to_le_bytes());
    end[16..24].copy_from_slice(&sum.to_le_bytes());
    let sum = checksum(&end[..24]);
    end[24..].copy_from_slice(&sum.to_le_bytes());
    table.extend_from_slice(&end);
    table
}

/// How many rows the table of a segment has, and their checksum. None: the segment of this epoch was never finished.
pub fn read_table_end(end: &[u8; TABLE_END], epoch: u64) -> Option<(usize, u64)> {
    let mut fields = Reader(end);
    let magic = u32::from_le_bytes(fields.take());
    let count = u32::from_le_bytes(fields.take());
    let of = u64::from_le_bytes(fields.take());
    let rows = u64::from_le_bytes(fields.take());
    let sound = u64::from_le_bytes(fields.take()) == checksum(&end[..24]);
    (magic == TABLE && of == epoch && sound).then_some((count as usize, rows))
}

/// The rows of a table. None: they are not what was written.
pub fn read_rows(table: &[u8], sum: u64) -> Option<Vec<Row>> {
    if checksum(table) != sum {
        return None;
    }
    let rows = table.as_chunks::<ROW>().0.iter().map(|row| {
        let mut fields = Reader(row);
        Some(Row {
            hash: u64::from_le_bytes(fields.take()),
            offset: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            site: u32::from_le_bytes(fields.take()),
            kind: Kind::of(fields.take::<4>()[0])?,
        })
    });
    rows.collect()
}

/// Fields of a head, one after the other; the last four bytes are a checksum of the rest.
struct Fields {
    bytes: [u8; HEAD],
    at: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self { bytes: [0; HEAD], at: 0 }
    }
}

impl Fields {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    fn seal(mut self) -> [u8; HEAD] {
        let sum = checksum(&self.bytes[..HEAD - 4]) as u32;
        self.bytes[HEAD - 4..].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

/// Reads what [`Fields`] wrote. Every head is longer than what is taken from it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn sealed(head: &'a [u8; HEAD], magic: u32) -> Option<Self> {
        let mut fields = Self(head);
        // First, as most of what is looked at where a head may be is none.
        let is_like_one = u32::from_le_bytes(fields.take()) == magic;
        let is_whole = || head[HEAD - 4..] == (checksum(&head[..HEAD - 4]) as u32).to_le_bytes();
        (is_like_one && is_whole()).then_some(fields)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> FrameKey {
        FrameKey::chunk(CacheKey::from_bytes([n; 16]), 7, u32::from(n))
    }

    #[test]
    fn heads_come_out_as_they_went_in_and_any_changed_bit_is_noticed() {
        let head =
            FrameHead { kind: Kind::Chunk, key: key(3), length: 70_000, epoch: 9, site: 5, checksum: u64::MAX - 1 };
        let bytes = head.write();
        assert_eq!(FrameHead::read(&bytes), Some(head));
        for bit in 0..HEAD * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHead::read(&wrong), None, "bit {bit}");
            assert!(FrameHead::is_broken(&wrong, 9), "bit {bit}");
        }
        assert!(!FrameHead::is_broken(&bytes, 9) && !FrameHead::is_broken(&[0; HEAD], 9));
        assert_eq!(read_segment_head(&write_segment_head(77, 5)), Some((77, 5)));
        assert_eq!(read_segment_head(&bytes), None);
        assert_eq!(FrameHead::read(&write_segment_head(77, 5)), None);
        assert_eq!(FrameHead::read(&[0; HEAD]), None);
    }

    #[test]
    fn a_table_is_of_one_epoch_and_whole() {
        let row = |n: u8| Row { hash: u64::from(n), offset: 64 * u32::from(n), length: 9, site: 1, kind: Kind::Record };
        let rows: Vec<Row> = (1..20).map(row).collect();
        let table = write_table(4, &rows);
        assert_eq!(table.len(), table_bytes(rows.len()));
        let (body, end) = table.split_last_chunk::<TABLE_END>().expect("longer");
        let (count, sum) = read_table_end(end, 4).expect("just written");
        assert_eq!((count, read_rows(body, sum)), (19, Some(rows)));
        assert_eq!(read_table_end(end, 5), None);
        let mut wrong = body.to_vec();
        wrong[100] ^= 1;
        assert_eq!(read_rows(&wrong, sum), None);
    }

    #[test]
    fn checksums_of_pieces_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        assert_eq!(checksum(&bytes), checksum_of([&bytes[..100], &bytes[100..4097], &bytes[4097..]]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(head in prop::array::uniform32(any::<u8>()), more in prop::array::uniform32(any::<u8>())) {
            let mut bytes = [0; HEAD];
            bytes[..32].copy_from_slice(&head);
            bytes[32..].copy_from_slice(&more);
            prop_assert_eq!(FrameHead::read(&bytes), None);
            prop_assert_eq!(read_table_end(&head, 1), None);
            let rows = read_rows(&bytes, checksum(&bytes));
            prop_assert!(rows.is_none_or(|rows| rows.len() == HEAD / ROW));
        }
    }
}
