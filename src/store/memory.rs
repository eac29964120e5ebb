//! The memory tier: foyer's `Cache` with S3-FIFO, weighed in bytes with everything an entry costs.
//!
//! S3-FIFO resists scans and takes only a shard's read lock on a hit. Entries are reference-counted, so a hit copies
//! nothing, and one that is evicted while it is being sent stays alive until the last reader is done.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use equivalent::Equivalent;
use foyer::{Cache, CacheBuilder, Event, EventListener, S3FifoConfig};
use parking_lot::Mutex;
use slab::Slab;

use crate::semantics::no_vary_search::NoVarySearch;
use crate::store::budget::Budget;
use crate::store::disk::frame::FrameKey;
use crate::store::key::{CacheKey, KeyHasher};
use crate::store::parts::Parts;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::Metrics;

/// What a key leads to.
#[derive(Clone)]
pub enum Entry {
    /// The response itself.
    Response(Arc<StoredResponse>),
    /// The response depends on request fields: which ones, and so under which key to look next.
    Variants(Arc<Variants>),
    /// What is looked for stands under another key: a variant found by its language, or a URL by what matters of its query.
    Alias(Arc<CacheKey>),
    /// Which parts of the query do not matter below a path, as responses have said lately.
    Searches(Arc<Vec<NoVarySearch>>),
    /// Some bytes of a body.
    Chunk(Arc<KeptChunk>),
}

/// One chunk of a body that stands apart from its record, as far as it is there.
pub struct KeptChunk {
    /// Which it is: keys may be mistaken for one another, this is not.
    pub frame: FrameKey,
    pub parts: Parts,
}

/// A stored response and what finds it.
pub type Listed = (Half, Arc<StoredResponse>);

// Eight bytes more for each stored response would be 48: the cache keeps it in an allocation with its own bookkeeping.
const _: () = assert!(size_of::<Entry>() <= 16);

/// The sets of request fields that have selected responses under one primary key, latest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Variants {
    pub field_sets: Vec<Vec<Box<str>>>,
}

/// Different `Vary` values remembered under one key; an origin that varies its `Vary` more than this only misses more.
pub const FIELD_SETS_MAX: usize = 4;

impl Variants {
    /// `set` first, then what was known before, bounded.
    pub fn with_latest(previous: Option<&Self>, set: &[Box<str>]) -> Self {
        let others = previous.into_iter().flat_map(|p| p.field_sets.iter()).filter(|known| known.as_slice() != set);
        let field_sets = std::iter::once(set.to_vec()).chain(others.cloned()).take(FIELD_SETS_MAX).collect();
        Self { field_sets }
    }

    fn weight(&self) -> usize {
        let names = self.field_sets.iter().flatten();
        VARIANTS_OVERHEAD + names.map(|name| size_of::<Box<str>>() + name.len().next_multiple_of(16)).sum::<usize>()
    }
}

/// A `Variants` entry without its names: the cache's own entry, the reference count and the outer vector.
const VARIANTS_OVERHEAD: usize = 300;

/// An alias: the cache's own entry, and the key.
const ALIAS_WEIGHT: usize = 250;

/// One rule about queries: its list of names, as it is bounded by the size of a head.
const SEARCH_WEIGHT: usize = 2 << 10;

/// Memory behind one shard's lock. Few large shards, so that a large object fits one; enough of them that locks do not
/// meet on machines with many cores (which have more memory).
const SHARD_BYTES: u64 = 128 << 20;
const SHARDS_MAX: u64 = 64;

/// Lists of what is stored that are locked apart.
const LISTS: usize = 64;

/// What is stored, to be gone through without disturbing the order of eviction.
struct Roll([Mutex<List>; LISTS]);

type List = Slab<(Half, Weak<StoredResponse>)>;

/// The half of a key that it is placed by, which finds it as well: two keys with one half would be a wonder, and cost a
/// miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half(u64);

impl Hash for Half {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl Equivalent<CacheKey> for Half {
    fn equivalent(&self, key: &CacheKey) -> bool {
        key.low_u64() == self.0
    }
}

impl Half {
    pub fn low_u64(self) -> u64 {
        self.0
    }
}

impl Default for Roll {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Roll {
    fn list(&self, key: &CacheKey) -> &Mutex<List> {
        &self.0[(key.low_u64() >> 32) as usize % LISTS]
    }

    fn enter(&self, key: &CacheKey, stored: &Arc<StoredResponse>) {
        let mut list = self.list(key).lock();
        if list.len() == list.capacity() {
            // By an eighth, not by twice: each place is paid for by every object.
            let more = (list.len() / 8).max(16);
            list.reserve_exact(more);
        }
        stored.set_slot(list.insert((Half(key.low_u64()), Arc::downgrade(stored))));
    }

    fn leave(&self, key: &CacheKey, stored: &StoredResponse) {
        if let Some(slot) = stored.slot() {
            self.list(key).lock().try_remove(slot);
        }
    }
}

/// A chunk, beside its bytes: the cache's own entry, the count of references and the frame.
const CHUNK_WEIGHT: usize = 300;

/// The memory tier. A clone is the same tier.
#[derive(Clone)]
pub struct MemoryTier {
    cache: Cache<CacheKey, Entry, KeyHasher>,
    roll: Arc<Roll>,
    object_bytes_max: u64,
}

struct Leaving {
    metrics: Arc<Metrics>,
    roll: Arc<Roll>,
}

impl EventListener for Leaving {
    type Key = CacheKey;
    type Value = Entry;

    fn on_leave(&self, reason: Event, key: &CacheKey, entry: &Entry) {
        if reason == Event::Evict {
            self.metrics.store_evictions.inc();
        }
        if let Entry::Response(stored) = entry {
            self.roll.leave(key, stored);
        }
    }
}

impl MemoryTier {
    /// Forgets everything. What is being read goes on.
    pub fn clear(&self) {
        self.cache.clear();
    }

    pub fn new(budget: &Budget, memory: u64, metrics: Arc<Metrics>) -> Self {
        let shards = (memory / SHARD_BYTES).clamp(1, SHARDS_MAX);
        // Half a shard, so that a large object cannot empty it; and it has to fit the fills' share while it arrives.
        let object_bytes_max = (budget.objects / shards / 2).min(budget.fills.limit());
        let roll = Arc::new(Roll::default());
        let cache = CacheBuilder::new(usize::try_from(budget.objects).unwrap_or(usize::MAX))
            .with_name("memory")
            .with_shards(usize::try_from(shards).unwrap_or(1))
            .with_eviction_config(S3FifoConfig::default())
            .with_hash_builder(KeyHasher::default())
            .with_weighter(|_: &CacheKey, entry: &Entry| match entry {
                Entry::Response(stored) => stored.weight(),
                Entry::Variants(variants) => variants.weight(),
                Entry::Alias(_) => ALIAS_WEIGHT,
                Entry::Chunk(chunk) => CHUNK_WEIGHT + chunk.parts.weight(),
                Entry::Searches(rules) => ALIAS_WEIGHT + rules.len() * SEARCH_WEIGHT,
            })
            .with_event_listener(Arc::new(Leaving { metrics, roll: roll.clone() }))
            .build();
        Self { cache, roll, object_bytes_max }
    }

    /// The largest body that is stored.
    pub fn object_bytes_max(&self) -> u64 {
        self.object_bytes_max
    }

    /// What is in memory of a chunk.
    pub fn chunk(&self, frame: &FrameKey) -> Option<Arc<KeptChunk>> {
        let entry = self.cache.get(&key_of(frame))?;
        match entry.value() {
            Entry::Chunk(chunk) if chunk.frame == *frame => Some(chunk.clone()),
            _ => None,
        }
    }

    pub fn keep_chunk(&self, chunk: KeptChunk) {
        self.cache.insert(key_of(&chunk.frame), Entry::Chunk(Arc::new(chunk)));
    }

    /// Has a chunk leave, as if others had taken its room.
    #[cfg(test)]
    pub(crate) fn evict_chunk(&self, frame: &FrameKey) {
        self.cache.remove(&key_of(frame));
    }

    pub fn lookup(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.get(key).map(|entry| entry.value().clone())
    }

    /// Whether something stands under the key of this half, without that counting as a use.
    pub fn holds(&self) -> impl Fn(u64) -> bool + Send + Sync + use<> {
        let cache = self.cache.clone();
        move |half| cache.contains(&Half(half))
    }

    pub fn insert(&self, key: CacheKey, entry: Entry) {
        if let Entry::Response(stored) = &entry {
            self.roll.enter(&key, stored);
        }
        self.cache.insert(key, entry);
    }

    /// Some of what is stored, from a place on; and the place to go on from, if that was not all.
    pub fn some(&self, from: (usize, usize), count: usize) -> (Vec<Listed>, Option<(usize, usize)>) {
        let (mut list_at, mut slot_at) = from;
        let mut found = Vec::with_capacity(count);
        while let Some(list) = self.roll.0.get(list_at) {
            let list = list.lock();
            let end = list.capacity();
            while slot_at < end {
                if found.len() == count {
                    return (found, Some((list_at, slot_at)));
                }
                if let Some((key, stored)) = list.get(slot_at) {
                    found.extend(stored.upgrade().map(|stored| (*key, stored)));
                }
                slot_at += 1;
            }
            (list_at, slot_at) = (list_at + 1, 0);
        }
        (found, None)
    }

    pub fn remove(&self, key: &CacheKey) {
        self.cache.remove(key);
    }

    /// Takes out a response, unless another has taken its place.
    pub fn remove_this(&self, key: Half, stored: &Arc<StoredResponse>) -> bool {
        let is_there = self
            .cache
            .get(&key)
            .is_some_and(|entry| matches!(entry.value(), Entry::Response(current) if Arc::ptr_eq(current, stored)));
        is_there && self.cache.remove(&key).is_some()
    }

    /// Bytes in use, by weight.
    pub fn bytes(&self) -> usize {
        self.cache.usage()
    }

    pub fn objects(&self) -> usize {
        self.cache.entries()
    }
}

/// The key of a chunk: disks know it by the same half.
fn key_of(frame: &FrameKey) -> CacheKey {
    let of_body = frame.generation ^ u64::from(frame.index).rotate_left(32);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&frame.hash().to_le_bytes());
    key[8..].copy_from_slice(&of_body.to_le_bytes());
    CacheKey::from_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|n| (*n).into()).collect()
    }

    #[test]
    fn the_latest_field_set_comes_first_and_the_number_is_bounded() {
        let mut variants = Variants::with_latest(None, &set(&["accept"]));
        for name in ["a", "b", "accept", "c", "d", "e"] {
            variants = Variants::with_latest(Some(&variants), &set(&[name]));
        }
        assert_eq!(variants.field_sets, [set(&["e"]), set(&["d"]), set(&["c"]), set(&["accept"])]);
    }
}
