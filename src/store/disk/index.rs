//! Where the frames of one disk are: 17 to 39 bytes of memory for each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::frame::{ALIGN, Kind};
use crate::store::key::KeyHasher;

/// Maps that are locked apart.
const SHARDS: usize = 64;

const OFFSET_BITS: u32 = 20;
const LENGTH_BITS: u32 = 14;
const SEGMENT_BITS: u32 = 24;

/// Segments of one disk at most.
pub const SEGMENTS_MAX: u32 = (1 << SEGMENT_BITS) - 1;
/// A segment at most.
pub const SEGMENT_BYTES_MAX: u64 = (ALIGN as u64) << OFFSET_BITS;

/// What one place of a map takes: a number, a location, and a byte of the map's own.
const PLACE_BYTES: u64 = 17;

/// Frames an index may know that is to take no more memory than this. Maps double, and are filled to 7/8; some get a
/// little more than others.
pub fn entries_within(bytes: u64) -> u64 {
    let places = bytes / SHARDS as u64 / PLACE_BYTES;
    let places = if places == 0 { 0 } else { 1 << places.ilog2() };
    SHARDS as u64 * places / 8 * 7 / 100 * 98
}

/// Where a frame is, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location(u64);

impl Location {
    /// `offset` and `bytes` are multiples of [`ALIGN`].
    pub fn new(segment: u32, offset: u32, bytes: usize, kind: Kind) -> Self {
        let units = |bytes: u64| bytes / ALIGN as u64;
        let packed = u64::from(segment) << (OFFSET_BITS + LENGTH_BITS) | units(u64::from(offset)) << LENGTH_BITS;
        Self((packed | units(bytes as u64)) << 3 | kind as u64)
    }

    pub fn segment(self) -> u32 {
        ((self.0 >> (3 + OFFSET_BITS + LENGTH_BITS)) & ((1 << SEGMENT_BITS) - 1)) as u32
    }

    /// From the beginning of the segment.
    pub fn offset(self) -> u32 {
        (((self.0 >> (3 + LENGTH_BITS)) & ((1 << OFFSET_BITS) - 1)) as u32) * ALIGN as u32
    }

    /// Of the whole frame, padding included.
    pub fn bytes(self) -> usize {
        ((self.0 >> 3) & ((1 << LENGTH_BITS) - 1)) as usize * ALIGN
    }

    pub fn kind(self) -> Option<Kind> {
        Kind::of((self.0 & 3) as u8)
    }

    /// It was read since it was written.
    pub fn is_hot(self) -> bool {
        self.0 & HOT != 0
    }

    fn place(self) -> u64 {
        self.0 & !HOT
    }
}

const HOT: u64 = 1 << 2;

/// In place of a location, which is never zero: forgotten, and what older segments hold of it is not to come back.
const GONE: u64 = 0;

type Shard = RwLock<HashMap<u64, u64, KeyHasher>>;

/// Frames by their number.
pub struct Index {
    shards: Box<[Shard]>,
    entries: AtomicU64,
    records: AtomicU64,
    /// Older places of frames may still be found.
    is_recovering: AtomicBool,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            entries: AtomicU64::new(0),
            records: AtomicU64::new(0),
            is_recovering: AtomicBool::new(false),
        }
    }
}

impl Index {
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    pub fn get(&self, hash: u64) -> Option<Location> {
        self.shard(hash).read().get(&hash).filter(|packed| **packed != GONE).map(|packed| Location(*packed))
    }

    /// Remembers that a frame was wanted.
    pub fn touch(&self, hash: u64, location: Location) {
        if !location.is_hot()
            && let Some(packed) = self.shard(hash).write().get_mut(&hash)
            && Location(*packed).place() == location.place()
        {
            *packed |= HOT;
        }
    }

    /// The frame is here now, wherever it was before.
    pub fn put(&self, hash: u64, location: Location) {
        let before = self.shard(hash).write().insert(hash, location.0).filter(|packed| *packed != GONE);
        self.count(before.map(Location), Some(location));
    }

    /// The frame is here now, if it is known where it was before.
    pub fn put_moved(&self, hash: u64, before: Location, location: Location) -> bool {
        let mut shard = self.shard(hash).write();
        let Some(packed) = shard.get_mut(&hash).filter(|packed| Location(**packed).place() == before.place()) else {
            return false;
        };
        *packed = location.0;
        true
    }

    /// From now until [`Self::end_recovery`], what is forgotten stays so when an older place of it is found.
    pub fn begin_recovery(&self) {
        self.is_recovering.store(true, Ordering::SeqCst);
    }

    /// Nothing older is found any more.
    pub fn end_recovery(&self) {
        self.is_recovering.store(false, Ordering::SeqCst);
        self.shards.iter().for_each(|shard| shard.write().retain(|_, packed| *packed != GONE));
    }

    /// The frame is here unless a later one is known, or it was forgotten.
    pub fn put_older(&self, hash: u64, location: Location) -> bool {
        let mut shard = self.shard(hash).write();
        let Entry::Vacant(vacant) = shard.entry(hash) else { return false };
        vacant.insert(location.0);
        drop(shard);
        self.count(None, Some(location));
        true
    }

    pub fn remove(&self, hash: u64) -> bool {
        let before = self.take(&mut self.shard(hash).write(), hash);
        self.count(before, None);
        before.is_some()
    }

    /// Forgets a frame, if it is still where it was.
    pub fn remove_at(&self, hash: u64, location: Location) -> bool {
        let mut shard = self.shard(hash).write();
        let is_there = shard.get(&hash).is_some_and(|packed| Location(*packed).place() == location.place());
        if is_there {
            self.take(&mut shard, hash);
            drop(shard);
            self.count(Some(location), None);
        }
        is_there
    }

    /// With the shard locked, so that the end of a recovery sweeps away what is left here.
    fn take(&self, shard: &mut HashMap<u64, u64, KeyHasher>, hash: u64) -> Option<Location> {
        let before =
            if self.is_recovering.load(Ordering::SeqCst) { shard.insert(hash, GONE) } else { shard.remove(&hash) };
        before.filter(|packed| *packed != GONE).map(Location)
    }

    /// What stands in a segment, with the numbers of the frames.
    pub fn in_segment(&self, segment: u32) -> Vec<(u64, Location)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            let known = shard.iter().filter(|(_, packed)| **packed != GONE);
            let here = known.map(|(hash, packed)| (*hash, Location(*packed)));
            found.extend(here.filter(|(_, location)| location.segment() == segment));
        }
        found
    }

    /// Frames known.
    pub fn len(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Responses among them.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The records of one shard from a number on, in the order of their numbers, and no more than `count` of them. What
    /// comes and goes meanwhile changes no other's place in this order. None: there is no such shard.
    pub fn record_places(&self, shard: usize, from: u64, count: usize) -> Option<Vec<(u64, Location)>> {
        let shard = self.shards.get(shard)?.read();
        let all = shard.iter().map(|(hash, packed)| (*hash, Location(*packed)));
        let is_next = |(hash, at): &(u64, Location)| *hash >= from && at.kind() == Some(Kind::Record);
        let mut found: Vec<(u64, Location)> = all.filter(is_next).collect();
        drop(shard);
        if found.len() > count {
            found.select_nth_unstable_by_key(count, |(hash, _)| *hash);
            found.truncate(count);
        }
        found.sort_unstable_by_key(|(hash, _)| *hash);
        Some(found)
    }

    /// The numbers of all frames of one shard, in the order in which they stand on the disk. None: there is no such shard.
    pub fn in_shard(&self, shard: usize) -> Option<Vec<u64>> {
        let shard = self.shards.get(shard)?.read();
        let known = shard.iter().filter(|(_, packed)| **packed != GONE);
        let mut found: Vec<(u64, Location)> = known.map(|(hash, packed)| (*hash, Location(*packed))).collect();
        drop(shard);
        found.sort_unstable_by_key(|(_, location)| (location.segment(), location.offset()));
        Some(found.into_iter().map(|(hash, _)| hash).collect())
    }

    fn count(&self, before: Option<Location>, after: Option<Location>) {
        let is_record = |location: &Location| location.kind() == Some(Kind::Record);
        let change = |count: &AtomicU64, before: bool, after: bool| match (before, after) {
            (false, true) => _ = count.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = count.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        };
        change(&self.entries, before.is_some(), after.is_some());
        change(&self.records, before.as_ref().is_some_and(is_record), after.as_ref().is_some_and(is_record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_comes_out_as_it_went_in() {
        for (segment, offset, bytes, kind) in [
            (0, 64, 64, Kind::Record),
            (SEGMENTS_MAX, (SEGMENT_BYTES_MAX - 64) as u32, (1 << 20) - 64, Kind::Hint),
            (77, 4096, 262_208, Kind::Chunk),
        ] {
            let location = Location::new(segment, offset, bytes, kind);
            assert_eq!(
                (location.segment(), location.offset(), location.bytes(), location.kind(), location.is_hot()),
                (segment, offset, bytes, Some(kind), false)
            );
        }
    }

    #[test]
    fn an_index_takes_no_more_than_it_may() {
        for (bytes, want) in [(0, 0), (32 << 20, 898_912), (36 << 20, 1_797_824), (64 << 20, 1_797_824)] {
            let entries = entries_within(bytes);
            assert!(entries.abs_diff(want) < want / 100 + 1, "{bytes}: {entries}");
        }
    }

    #[test]
    fn the_latest_place_counts_and_heat_does_not_change_it() {
        let index = Index::default();
        let (one, two) = (Location::new(1, 64, 128, Kind::Record), Location::new(2, 64, 128, Kind::Record));
        index.put(5, one);
        assert!(!index.put_older(5, two));
        index.touch(5, one);
        assert!(index.get(5).is_some_and(Location::is_hot));
        index.put(5, two);
        assert_eq!(index.get(5), Some(two));
        index.remove_at(5, one);
        assert_eq!((index.len(), index.records(), index.in_segment(2)), (1, 1, vec![(5, two)]));
        index.remove_at(5, two);
        assert_eq!((index.len(), index.records()), (0, 0));
    }

    #[test]
    fn records_are_listed_in_an_order_that_stands() {
        let index = Index::default();
        // One shard, and a frame among them that is no record.
        for (number, kind) in [(9, Kind::Record), (2, Kind::Record), (5, Kind::Chunk), (7, Kind::Record)] {
            index.put(number, Location::new(1, 64 * number as u32, 128, kind));
        }
        let from = |from, count| {
            let found = index.record_places(0, from, count).expect("a shard");
            found.into_iter().map(|(hash, _)| hash).collect::<Vec<_>>()
        };
        assert_eq!((from(0, 2), from(8, 2), from(10, 2)), (vec![2, 7], vec![9], Vec::new()));
        index.remove(7);
        index.put(8, Location::new(1, 64, 128, Kind::Record));
        assert_eq!(from(3, 9), [8, 9]);
        assert_eq!(index.in_shard(0), Some(vec![8, 2, 5, 9]));
        assert_eq!((index.record_places(SHARDS, 0, 1), index.in_shard(SHARDS)), (None, None));
    }

    #[test]
    fn what_is_forgotten_stays_so_until_all_is_recovered() {
        let index = Index::default();
        let (one, two) = (Location::new(0, 64, 128, Kind::Record), Location::new(2, 64, 128, Kind::Record));
        index.begin_recovery();
        index.put(5, two);
        assert!(index.remove(5) && !index.remove(5) && !index.remove(6));
        assert!(!index.put_older(5, one) && !index.put_older(6, one) && !index.put_moved(5, two, one));
        assert_eq!((index.get(5), index.len(), index.records(), index.in_segment(0)), (None, 0, 0, Vec::new()));
        index.put(6, two);
        index.end_recovery();
        assert!(index.put_older(5, one) && index.put_moved(6, two, one));
        assert_eq!((index.get(6), index.len(), index.records()), (Some(one), 2, 2));
    }
}
