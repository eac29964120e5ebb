//! The one lookup and the one commit.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::purge::ledger::Ledger;
use crate::semantics::fields::Fields;
use crate::semantics::vary::selecting_key;
use crate::store::budget::Budget;
use crate::store::fill::Selecting;
use crate::store::key::{CacheKey, Keyer};
use crate::store::marks::Marks;
use crate::store::memory::{Entry, MemoryTier, Variants};
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::Metrics;

/// Locks that make a commit's look and its insert one step. More than threads, so that they rarely meet.
const COMMIT_LOCKS: usize = 64;

/// Everything stored on this node, and what may be used of it.
pub struct Store {
    pub ledger: Ledger,
    pub keyer: Keyer,
    pub marks: Marks,
    pub budget: Budget,
    pub memory: MemoryTier,
    commits: Box<[Mutex<()>]>,
    metrics: Arc<Metrics>,
}

/// What a look-up found.
pub enum Lookup {
    /// A live response for this request, and the key it stands under.
    Found { stored: Arc<StoredResponse>, key: CacheKey },
    /// Nothing for this URL.
    UriMiss,
    /// Something for this URL, but no variant for this request; the one to fill.
    VaryMiss { key: CacheKey },
}

/// What became of a finished response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Stored,
    /// A newer response stood there already.
    Superseded,
}

impl Store {
    pub fn new(memory: u64, secret: [u8; 32], metrics: Arc<Metrics>) -> Self {
        let budget = Budget::new(memory);
        let tier = MemoryTier::new(&budget, memory, metrics.clone());
        Self {
            ledger: Ledger::default(),
            keyer: Keyer::new(secret),
            marks: Marks::default(),
            budget,
            memory: tier,
            commits: (0..COMMIT_LOCKS).map(|_| Mutex::new(())).collect(),
            metrics,
        }
    }

    /// Finds the response for a request. Every reader of the store comes through here, so every stored response is
    /// judged by the ledger before it is used.
    pub fn lookup(&self, primary: &CacheKey, request: Fields<'_>) -> Lookup {
        match self.memory.lookup(primary) {
            None => Lookup::UriMiss,
            Some(Entry::Response(stored)) => {
                if stored.is_live(primary, &self.ledger) {
                    return Lookup::Found { stored, key: *primary };
                }
                self.memory.remove(primary);
                Lookup::UriMiss
            }
            Some(Entry::Variants(variants)) => self.lookup_variant(primary, &variants, request),
        }
    }

    fn lookup_variant(&self, primary: &CacheKey, variants: &Variants, request: Fields<'_>) -> Lookup {
        let mut latest = None;
        for names in &variants.field_sets {
            let mut values = Vec::with_capacity(128);
            selecting_key(names.iter().map(AsRef::as_ref), request, &mut values);
            let key = self.keyer.variant(primary, &values);
            latest.get_or_insert(key);
            if let Some(Entry::Response(stored)) = self.memory.lookup(&key)
                && stored.is_live(primary, &self.ledger)
            {
                return Lookup::Found { stored, key };
            }
        }
        latest.map_or(Lookup::UriMiss, |key| Lookup::VaryMiss { key })
    }

    /// Remembers on which fields responses under a primary key vary, as soon as a head says so.
    pub fn note_variants(&self, primary: &CacheKey, names: &[Box<str>]) {
        let _step = self.commit_lock(primary);
        let known = match self.memory.lookup(primary) {
            Some(Entry::Variants(variants)) => Some(variants),
            _ => None,
        };
        let variants = Variants::with_latest(known.as_deref(), names);
        if known.as_deref() != Some(&variants) {
            self.memory.insert(*primary, Entry::Variants(Arc::new(variants)));
        }
    }

    /// Makes a complete response visible. It never replaces one whose fill began at a later position, or whose head
    /// came later: a slow fill or a slow 304 is not news.
    pub fn commit(&self, primary: &CacheKey, selecting: Option<&Selecting>, stored: &Arc<StoredResponse>) -> Commit {
        let key = selecting.map_or(*primary, |selecting| self.keyer.variant(primary, &selecting.values));
        if let Some(selecting) = selecting {
            self.note_variants(primary, &selecting.names);
        }
        let _step = self.commit_lock(&key);
        if let Some(Entry::Response(current)) = self.memory.lookup(&key) {
            let order = |r: &StoredResponse| (r.fill_pos(), r.freshness().response_time());
            if current.is_live(primary, &self.ledger) && order(&current) > order(stored) {
                self.metrics.admission("superseded");
                return Commit::Superseded;
            }
        }
        self.memory.insert(key, Entry::Response(stored.clone()));
        self.marks.lift(primary);
        self.metrics.admission("stored");
        Commit::Stored
    }

    /// An answer that must not be stored has taken the place of whatever was stored: that never comes back, not even
    /// by a fill that is still under way.
    pub fn supersede(&self, primary: &CacheKey) {
        if self.memory.lookup(primary).is_some() {
            self.invalidate(primary);
        }
    }

    /// Everything stored under this URL, in all variants, is gone.
    pub fn invalidate(&self, primary: &CacheKey) {
        self.ledger.invalidate(primary);
        self.memory.remove(primary);
    }

    fn commit_lock(&self, key: &CacheKey) -> parking_lot::MutexGuard<'_, ()> {
        self.commits[key.low_u64() as usize % COMMIT_LOCKS].lock()
    }
}
