//! The one lookup: memory, then disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::purge::ledger::{Gone, Invalidated, Ledger};
use crate::purge::selector::url_of;
use crate::semantics::fields::Fields;
use crate::semantics::reuse::Freshness;
use crate::semantics::vary::{content_language, is_language, preferred_language, selecting_key};
use crate::store::admission::Seen;
use crate::store::body::{Chunks, Sparse};
use crate::store::budget::Budget;
use crate::store::chunks::ChunkTiers;
use crate::store::disk::Disks;
use crate::store::disk::device::{Disk, Settings};
use crate::store::disk::disks::{Keeping, Shares};
use crate::store::disk::frame::{FrameKey, Kind};
use crate::store::disk::index::entries_within;
use crate::store::disk::value::Payload;
use crate::store::key::{CacheKey, Keyer};
use crate::store::marks::Marks;
use crate::store::memory::{Entry, MemoryTier, Variants};
use crate::store::persist;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::Metrics;

/// Locks that make a commit's look and its insert one step. More than threads, so that they rarely meet.
const COMMIT_LOCKS: usize = 64;

/// Everything stored on this node, and what may be used of it.
pub struct Store {
    pub ledger: Arc<Ledger>,
    pub keyer: Keyer,
    pub marks: Marks,
    pub budget: Budget,
    pub memory: MemoryTier,
    pub disks: Arc<Disks>,
    /// Where bodies that stand apart from their records are.
    pub(super) chunks: Arc<dyn Chunks>,
    /// What part of the disks each site may keep.
    pub shares: Arc<Shares>,
    pub(super) seen: Seen,
    /// Chunks that lots were drawn for.
    pub(super) lots: AtomicU64,
    /// Whose turn it is among what disks were too busy for.
    pub(super) late: Semaphore,
    commits: Box<[Mutex<()>]>,
    pub(super) metrics: Arc<Metrics>,
}

/// What a store is made with beside memory.
#[derive(Clone, Debug, Default)]
pub struct DiskPlan {
    pub disks: Vec<PlannedDisk>,
    /// Counts the starts of the node.
    pub run: u64,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct PlannedDisk {
    pub path: PathBuf,
    pub bytes: u64,
    /// It was taken out before: what it holds may have been replaced elsewhere.
    pub distrusted: bool,
}

/// What a look-up found.
pub enum Lookup {
    /// A live response for this request, the key it stands under, and what purges have left of its freshness.
    Found { stored: Arc<StoredResponse>, key: CacheKey, freshness: Freshness },
    /// Nothing for this URL; what there was is gone for a reason.
    UriMiss { gone: Option<Gone> },
    /// Something for this URL, but no variant for this request; the one to fill.
    VaryMiss { key: CacheKey, gone: Option<Gone> },
    /// What stands under this key is on a disk: see [`Store::read`].
    OnDisk { key: CacheKey },
}

/// What stands under a key.
pub(super) enum Standing {
    Here(Entry),
    OnDisk,
    Nothing,
}

/// Frames that one request may have read to find its response: its variants, in the worst case.
pub const READS_MAX: usize = 8;
/// Keys whose last use is remembered, for each frame a disk's index may know.
const SEEN_PER_ENTRY: u64 = 2;

impl Store {
    pub fn new(memory: u64, ledger: Arc<Ledger>, keyer: Keyer, metrics: Arc<Metrics>, plan: &DiskPlan) -> Self {
        let budget = Budget::new(memory, !plan.disks.is_empty());
        let tier = MemoryTier::new(&budget, memory, metrics.clone());
        let shares = Arc::<Shares>::default();
        let all: u64 = plan.disks.iter().map(|disk| disk.bytes).sum();
        let share = |disk: &PlannedDisk| u128::from(budget.index) * u128::from(disk.bytes) / u128::from(all.max(1));
        let entries_max = |disk: &PlannedDisk| entries_within(u64::try_from(share(disk)).unwrap_or(u64::MAX));
        let entries: u64 = plan.disks.iter().map(entries_max).sum();
        let disks = plan.disks.iter().map(|disk| {
            let settings = Settings {
                path: disk.path.clone(),
                bytes: disk.bytes,
                entries_max: entries_max(disk),
                run: plan.run,
                distrusted: disk.distrusted,
            };
            let keep = Keeping { holds: tier.holds(), shares: shares.clone() };
            Disk::open(settings, Arc::new(keep), metrics.clone())
        });
        let disks = Arc::new(Disks::new(disks.collect()));
        Self {
            ledger,
            keyer,
            marks: Marks::default(),
            chunks: Arc::new(ChunkTiers { memory: tier.clone(), disks: disks.clone() }),
            disks,
            shares,
            seen: Seen::new(if plan.disks.is_empty() { 0 } else { entries * SEEN_PER_ENTRY }),
            lots: AtomicU64::new(0),
            late: Semaphore::new(1),
            budget,
            memory: tier,
            commits: (0..COMMIT_LOCKS).map(|_| Mutex::new(())).collect(),
            metrics,
        }
    }

    /// What stands under a key. `disk`: whether a disk may be asked.
    pub(super) fn standing(&self, key: &CacheKey, disk: bool) -> Standing {
        match self.memory.lookup(key) {
            Some(entry) => Standing::Here(entry),
            None if disk && self.disks.contains(&FrameKey::of(*key)) => Standing::OnDisk,
            None => Standing::Nothing,
        }
    }

    /// Finds the response for a request. Every reader of the store comes through here, so every stored response is
    /// judged by the ledger before it is used. `disk`: whether a disk may be asked.
    pub fn lookup(&self, primary: &CacheKey, request: Fields<'_>, disk: bool) -> Lookup {
        match self.standing(primary, disk) {
            Standing::Nothing => Lookup::UriMiss { gone: None },
            Standing::OnDisk => Lookup::OnDisk { key: *primary },
            Standing::Here(Entry::Response(stored)) => match stored.judge(&self.ledger) {
                Ok(freshness) => Lookup::Found { stored, key: *primary, freshness },
                Err(gone) => {
                    self.forget(primary);
                    Lookup::UriMiss { gone: Some(gone) }
                }
            },
            Standing::Here(Entry::Variants(variants)) => self.lookup_variant(primary, &variants, request, disk),
            // These stand under keys of their own, which no URL has.
            Standing::Here(Entry::Alias(_) | Entry::Searches(_) | Entry::Chunk(_)) => Lookup::UriMiss { gone: None },
        }
    }

    /// The same, reading from disks what has to be read.
    pub async fn find(&self, primary: &CacheKey, request: Fields<'_>) -> Lookup {
        for _ in 0..READS_MAX {
            match self.lookup(primary, request, true) {
                Lookup::OnDisk { key } if self.read(&key).await => {}
                Lookup::OnDisk { .. } => break,
                found => return found,
            }
        }
        self.lookup(primary, request, false)
    }

    /// Reads what stands under a key from its disk into memory. False: it cannot be read, or is no more.
    pub async fn read(&self, key: &CacheKey) -> bool {
        let Some(loaded) = self.disks.load(&FrameKey::of(*key)).await else { return false };
        let entry = match (loaded.kind, loaded.payload) {
            (Kind::Record, Payload::Response { stored, .. }) => Some(Entry::Response(stored)),
            (Kind::Record, Payload::Bytes(bytes)) => {
                let read = persist::read_response(bytes.into(), loaded.distrusted_since, |generation| {
                    self.sparse(*key, generation)
                });
                read.map(|(stored, _)| Entry::Response(Arc::new(stored)))
            }
            (Kind::Hint, Payload::Bytes(bytes)) => persist::read_hint(&bytes),
            _ => None,
        };
        let usable = entry.filter(|entry| match entry {
            Entry::Response(stored) => {
                let of_use =
                    stored.can_be_completed() || stored.sparse().is_none_or(|body| body.is_whole(stored.body_len()));
                of_use && stored.is_live(&self.ledger)
            }
            _ => true,
        });
        let Some(entry) = usable else {
            self.disks.remove(&FrameKey::of(*key));
            return false;
        };
        let _step = self.commit_lock(key);
        // Whatever has come meanwhile is later.
        if self.memory.lookup(key).is_none() {
            self.memory.insert(*key, entry);
        }
        true
    }

    /// Forgets what stands under a key. A purge, an invalidation or a later response is what keeps it from coming back.
    pub fn forget(&self, key: &CacheKey) {
        self.memory.remove(key);
        self.disks.remove(&FrameKey::of(*key));
    }

    /// A representation has been replaced at the origin: its record leads nobody to it any more. Whoever reads it goes on.
    pub fn outdated(&self, body: &Sparse) {
        let _step = self.commit_lock(&body.key);
        match self.memory.lookup(&body.key) {
            Some(Entry::Response(now)) if now.generation() != Some(body.generation) => {}
            _ => self.forget(&body.key),
        }
    }

    fn lookup_variant(&self, primary: &CacheKey, variants: &Variants, request: Fields<'_>, disk: bool) -> Lookup {
        let (mut latest, mut gone) = (None, None);
        for names in &variants.field_sets {
            let mut values = Vec::with_capacity(128);
            selecting_key(names.iter().map(AsRef::as_ref), request, &mut values);
            let key = self.keyer.variant(primary, &values);
            latest.get_or_insert(key);
            match self.standing(&key, disk) {
                Standing::Here(Entry::Response(stored)) => match stored.judge(&self.ledger) {
                    Ok(freshness) => return Lookup::Found { stored, key, freshness },
                    Err(why) => gone = Some(why),
                },
                Standing::OnDisk => return Lookup::OnDisk { key },
                Standing::Here(_) | Standing::Nothing => {}
            }
        }
        if let Some(found) = self.lookup_language(primary, variants, request, disk) {
            return found;
        }
        latest.map_or(Lookup::UriMiss { gone }, |key| Lookup::VaryMiss { key, gone })
    }

    /// A response that varies by the language alone is the answer to everybody who likes its own best: that is what the
    /// field asks an origin for (RFC 9110 section 12.5.4).
    fn lookup_language(
        &self,
        primary: &CacheKey,
        variants: &Variants,
        request: Fields<'_>,
        disk: bool,
    ) -> Option<Lookup> {
        let varies = variants.field_sets.iter().any(|names| matches!(names.as_slice(), [name] if is_language(name)));
        let language = preferred_language(request).filter(|_| varies)?;
        let alias = self.keyer.language(primary, &language);
        let key = match self.standing(&alias, disk) {
            Standing::Here(Entry::Alias(key)) => *key,
            Standing::OnDisk => return Some(Lookup::OnDisk { key: alias }),
            Standing::Here(_) | Standing::Nothing => return None,
        };
        let stored = match self.standing(&key, disk) {
            Standing::Here(Entry::Response(stored)) => stored,
            Standing::OnDisk => return Some(Lookup::OnDisk { key }),
            Standing::Here(_) | Standing::Nothing => return None,
        };
        let freshness = stored.judge(&self.ledger).ok()?;
        (content_language(stored.fields()) == Some(language)).then_some(Lookup::Found { stored, key, freshness })
    }

    /// Takes out what is gone, a part at a time: the memory of what was purged comes back although nobody asks for it.
    /// Gives how many there were, and where to go on.
    pub fn reclaim(&self, from: (usize, usize), count: usize) -> (usize, Option<(usize, usize)>) {
        let (some, next) = self.memory.some(from, count);
        let mut taken = 0;
        for (key, stored) in some {
            if stored.is_live(&self.ledger) {
                continue;
            }
            // What has taken its place in the meantime stays.
            let _step = self.commits[key.low_u64() as usize % COMMIT_LOCKS].lock();
            taken += usize::from(self.memory.remove_this(key, &stored));
        }
        (taken, next)
    }

    /// An answer that must not be stored has taken the place of whatever was stored: that never comes back, not even
    /// by a fill that is still under way.
    pub fn supersede(&self, primary: &CacheKey) {
        if self.memory.lookup(primary).is_some() || self.disks.may_hold(&FrameKey::of(*primary)) {
            self.invalidate(primary);
        }
    }

    /// Everything stored under this URL, in all variants, is gone.
    pub fn invalidate(&self, primary: &CacheKey) -> Invalidated {
        let invalidated = self.ledger.invalidate(url_of(primary));
        self.forget(primary);
        invalidated
    }

    /// Makes a part of a representation visible to who asks for exactly that part, unless the whole is there by now.
    pub fn commit_part(&self, primary: &CacheKey, key: &CacheKey, stored: &Arc<StoredResponse>) {
        if self.memory.lookup(primary).is_none() {
            self.memory.insert(*key, Entry::Response(stored.clone()));
            self.metrics.admission("stored");
        }
    }

    /// The part stored for exactly this range, if it is live.
    pub fn lookup_part(&self, key: &CacheKey) -> Option<(Arc<StoredResponse>, Freshness)> {
        let Some(Entry::Response(stored)) = self.memory.lookup(key) else { return None };
        let freshness = stored.judge(&self.ledger).ok()?;
        Some((stored, freshness))
    }

    pub(super) fn commit_lock(&self, key: &CacheKey) -> parking_lot::MutexGuard<'_, ()> {
        self.commits[key.low_u64() as usize % COMMIT_LOCKS].lock()
    }
}
