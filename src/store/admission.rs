//! What goes to a disk. Pure, but for the memory of what was asked for.
//!
//! While a disk has room, everything is written: nothing is displaced, and it survives a restart. Once it is full, what is
//! written takes the place of something, and most of what a CDN fetches is never asked for again: then a response is
//! written when it is wanted a second time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Responses below it are not worth a write of their own, nor their place in the index, before they are wanted again.
pub const SMALL: u64 = 4 << 10;

/// A body larger than this part of a full disk does not come back all at once: of the chunks that are fetched again, one in
/// eight is written. Otherwise bodies that do not fit together, read in turn, would each displace the next, and all would
/// be fetched each time.
pub const CROWDING: u64 = 32;
const LOTS: u64 = 8;

/// Whether the lot falls on a chunk; `number`: of those there were so far.
pub const fn is_drawn(number: u64) -> bool {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32 & (LOTS - 1) == 0
}

/// What is weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of head and body.
    pub bytes: u64,
    /// What is written takes the place of something.
    pub full: bool,
    /// It was wanted before, not long ago.
    pub seen: bool,
    /// It is of a body that is a good part of the disk, and the lot is not drawn for it: see [`CROWDING`].
    pub crowds: bool,
}

/// What is done with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Write,
    /// Not before it is wanted again.
    FirstTime,
    /// The same, and it is small too.
    Small,
    /// It would take the place of what is wanted as much.
    Crowding,
}

impl Admission {
    /// The value of the label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "stored",
            Self::FirstTime => "first-time",
            Self::Small => "small",
            Self::Crowding => "crowding",
        }
    }
}

pub const fn admission(facts: Facts) -> Admission {
    match facts {
        Facts { full: false, .. } | Facts { seen: true, crowds: false, .. } => Admission::Write,
        Facts { seen: true, .. } => Admission::Crowding,
        Facts { bytes: 0..SMALL, .. } => Admission::Small,
        _ => Admission::FirstTime,
    }
}

/// Remembers for a while which keys were wanted: two Bloom filters, of which the older is emptied when the newer is full.
/// One that was not is taken for one that was in less than one case of a hundred.
pub struct Seen {
    /// Bits, as many for each of the two.
    filters: [Box<[AtomicU64]>; 2],
    /// Keys in the newer one, and which that is: its lowest bit.
    state: AtomicU64,
    capacity: u64,
}

/// Bits for each key, and how many of them are set: 0.8 % of strangers pass.
const BITS_PER_KEY: u64 = 10;
const PROBES: u64 = 4;

impl Seen {
    /// Remembers at least the last `capacity` keys, and at most twice as many.
    pub fn new(capacity: u64) -> Self {
        let words = (capacity.max(64) * BITS_PER_KEY).div_ceil(64);
        let filter = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { filters: [filter(), filter()], state: AtomicU64::new(0), capacity: capacity.max(64) }
    }

    /// Whether a key was noted before; from now on it is.
    pub fn note(&self, hash: u64) -> bool {
        let newer = (self.state.load(Ordering::Relaxed) & 1) as usize;
        let [new, old] = [&self.filters[newer], &self.filters[1 - newer]];
        let was = Self::probe(old, hash, false);
        // Short of certain when threads meet: a key noted at the same time may count as new twice.
        let is_in_newer = Self::probe(new, hash, true);
        if !is_in_newer && self.state.fetch_add(2, Ordering::Relaxed) >> 1 >= self.capacity {
            self.turn(newer as u64);
        }
        was || is_in_newer
    }

    fn turn(&self, newer: u64) {
        let state = self.state.load(Ordering::Relaxed);
        // One thread turns; the others find it turned.
        if state & 1 == newer
            && self.state.compare_exchange(state, 1 - newer, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.filters[1 - newer as usize].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    /// Whether all bits of a key are set; sets them if asked to.
    fn probe(filter: &[AtomicU64], hash: u64, set: bool) -> bool {
        let bits = filter.len() as u64 * 64;
        let step = (hash >> 32) | 1;
        (0..PROBES).fold(true, |all, probe| {
            let bit = hash.wrapping_add(step.wrapping_mul(probe)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % bits;
            let (word, mask) = (&filter[(bit / 64) as usize], 1 << (bit % 64));
            let before = if set { word.fetch_or(mask, Ordering::Relaxed) } else { word.load(Ordering::Relaxed) };
            all & (before & mask != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn everything_is_written_while_there_is_room_and_afterwards_what_is_wanted_again() {
        for (bytes, full, seen, crowds, want) in [
            (100, false, false, false, Admission::Write),
            (1 << 20, false, false, true, Admission::Write),
            (100, true, false, false, Admission::Small),
            (SMALL - 1, true, false, false, Admission::Small),
            (SMALL, true, false, false, Admission::FirstTime),
            (1 << 30, true, false, true, Admission::FirstTime),
            (100, true, true, false, Admission::Write),
            (1 << 30, true, true, false, Admission::Write),
            (1 << 18, true, true, true, Admission::Crowding),
        ] {
            let facts = Facts { bytes, full, seen, crowds };
            assert_eq!(admission(facts), want, "{facts:?}");
        }
    }

    #[test]
    fn the_lot_falls_on_one_in_eight() {
        let drawn = (0..80_000).filter(|number| is_drawn(*number)).count();
        assert!((9_500..10_500).contains(&drawn), "{drawn}");
    }

    #[test]
    fn what_was_wanted_is_remembered_for_a_while_and_strangers_hardly_ever_pass() {
        let key = |n: u64| n.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(17);
        let seen = Seen::new(10_000);
        let strangers = (0..10_000).filter(|n| seen.note(key(*n))).count();
        assert!(strangers < 100, "{strangers}");
        assert!((0..10_000).all(|n| seen.note(key(n))));
        (10_000..40_000).for_each(|n| _ = seen.note(key(n)));
        assert!((30_100..40_000).all(|n| seen.note(key(n))));
        let old = (0..1_000).filter(|n| seen.note(key(*n))).count();
        assert!(old < 50, "{old}");
    }

    /// A memory and a disk, as the tiers use them.
    struct Model {
        memory: foyer::Cache<u64, Arc<AtomicU64>>,
        /// Oldest first: what was written, and whether it was read since.
        disk: VecDeque<u64>,
        hot: HashMap<u64, bool>,
        capacity: usize,
        seen: Seen,
        selective: bool,
        written: u64,
        hits: u64,
    }

    impl Model {
        fn new(capacity: usize, selective: bool) -> Self {
            let memory = foyer::CacheBuilder::new(capacity / 10).with_eviction_config(foyer::S3FifoConfig::default());
            let (disk, hot, seen) = (VecDeque::new(), HashMap::new(), Seen::new(2 * capacity as u64));
            Self { memory: memory.with_shards(1).build(), disk, hot, capacity, seen, selective, written: 0, hits: 0 }
        }

        fn write(&mut self, key: u64) {
            self.written += 1;
            self.disk.push_back(key);
            self.hot.insert(key, false);
            while self.disk.len() > self.capacity {
                let Some(oldest) = self.disk.pop_front() else { return };
                // What was read since, or stands in memory, is written again.
                if self.hot.get(&oldest) == Some(&true) || self.memory.contains(&oldest) {
                    self.written += 1;
                    self.hot.insert(oldest, false);
                    self.disk.push_back(oldest);
                } else {
                    self.hot.remove(&oldest);
                }
            }
        }

        fn ask(&mut self, key: u64) {
            let full = self.disk.len() == self.capacity;
            if let Some(entry) = self.memory.get(&key) {
                self.hits += 1;
                let again = entry.value().fetch_add(1, Ordering::Relaxed) == 1;
                if again && !self.hot.contains_key(&key) {
                    self.write(key);
                }
                return;
            }
            if let Some(hot) = self.hot.get_mut(&key) {
                self.hits += 1;
                *hot = true;
                self.memory.insert(key, Arc::new(AtomicU64::new(0)));
                return;
            }
            self.memory.insert(key, Arc::new(AtomicU64::new(1)));
            let seen = self.seen.note(key.wrapping_mul(0x2545_f491_4f6c_dd1d));
            if !self.selective || admission(Facts { bytes: 64 << 10, full, seen, crowds: false }) == Admission::Write {
                self.write(key);
            }
        }
    }

    #[test]
    fn one_hit_wonders_stay_off_the_disk_and_the_hit_ratio_is_no_lower() {
        const OBJECTS: usize = 100_000;
        // The cumulative weights of Zipf(0.9).
        let mut weights: Vec<f64> = (1..=OBJECTS).map(|rank| 1.0 / (rank as f64).powf(0.9)).collect();
        (1..OBJECTS).for_each(|rank| weights[rank] += weights[rank - 1]);
        let whole = weights[OBJECTS - 1];
        for (wonders, capacity) in [(0.7, 10_000), (0.7, 30_000), (0.5, 10_000)] {
            let [mut all, mut selective] = [false, true].map(|selective| Model::new(capacity, selective));
            let mut state = 0x9e37_79b9_7f4a_7c15u64;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            for request in 0..600_000u64 {
                let (is_wonder, at) = (random() < wonders, random() * whole);
                let key = match is_wonder {
                    true => (1 << 40) + request,
                    false => weights.partition_point(|weight| *weight < at) as u64,
                };
                all.ask(key);
                selective.ask(key);
            }
            let saved = 1.0 - selective.written as f64 / all.written as f64;
            let (before, after) = (all.hits as f64 / 6e5, selective.hits as f64 / 6e5);
            println!(
                "{wonders} of one-hit wonders, disk of {capacity}: {saved:.3} fewer bytes, hits {before:.4} -> {after:.4}"
            );
            assert!(saved >= 0.4 && after >= before, "{wonders} {capacity}: {saved:.3} {before:.4} {after:.4}");
        }
    }
}
