//! The one lookup and the one commit.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::purge::ledger::{Gone, Invalidated, Ledger};
use crate::purge::selector::url_of;
use crate::semantics::fields::Fields;
use crate::semantics::reuse::Freshness;
use crate::semantics::vary::{content_language, is_language, preferred_language, selecting_key};
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
    pub ledger: Arc<Ledger>,
    pub keyer: Keyer,
    pub marks: Marks,
    pub budget: Budget,
    pub memory: MemoryTier,
    commits: Box<[Mutex<()>]>,
    metrics: Arc<Metrics>,
}

/// What a look-up found.
pub enum Lookup {
    /// A live response for this request, the key it stands under, and what purges have left of its freshness.
    Found { stored: Arc<StoredResponse>, key: CacheKey, freshness: Freshness },
    /// Nothing for this URL; what there was is gone for a reason.
    UriMiss { gone: Option<Gone> },
    /// Something for this URL, but no variant for this request; the one to fill.
    VaryMiss { key: CacheKey, gone: Option<Gone> },
}

/// What became of a finished response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Stored,
    /// A newer response stood there already.
    Superseded,
}

impl Store {
    pub fn new(memory: u64, ledger: Arc<Ledger>, keyer: Keyer, metrics: Arc<Metrics>) -> Self {
        let budget = Budget::new(memory);
        let tier = MemoryTier::new(&budget, memory, metrics.clone());
        Self {
            ledger,
            keyer,
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
            None => Lookup::UriMiss { gone: None },
            Some(Entry::Response(stored)) => match stored.judge(&self.ledger) {
                Ok(freshness) => Lookup::Found { stored, key: *primary, freshness },
                Err(gone) => {
                    self.memory.remove(primary);
                    Lookup::UriMiss { gone: Some(gone) }
                }
            },
            Some(Entry::Variants(variants)) => self.lookup_variant(primary, &variants, request),
            // These stand under keys of their own, which no URL has.
            Some(Entry::Alias(_) | Entry::Searches(_)) => Lookup::UriMiss { gone: None },
        }
    }

    fn lookup_variant(&self, primary: &CacheKey, variants: &Variants, request: Fields<'_>) -> Lookup {
        let (mut latest, mut gone) = (None, None);
        for names in &variants.field_sets {
            let mut values = Vec::with_capacity(128);
            selecting_key(names.iter().map(AsRef::as_ref), request, &mut values);
            let key = self.keyer.variant(primary, &values);
            latest.get_or_insert(key);
            if let Some(Entry::Response(stored)) = self.memory.lookup(&key) {
                match stored.judge(&self.ledger) {
                    Ok(freshness) => return Lookup::Found { stored, key, freshness },
                    Err(why) => gone = Some(why),
                }
            }
        }
        if let Some(found) = self.lookup_language(primary, variants, request) {
            return found;
        }
        latest.map_or(Lookup::UriMiss { gone }, |key| Lookup::VaryMiss { key, gone })
    }

    /// A response that varies by the language alone is the answer to everybody who likes its own best: that is what the
    /// field asks an origin for (RFC 9110 section 12.5.4).
    fn lookup_language(&self, primary: &CacheKey, variants: &Variants, request: Fields<'_>) -> Option<Lookup> {
        let varies = variants.field_sets.iter().any(|names| matches!(names.as_slice(), [name] if is_language(name)));
        let language = preferred_language(request).filter(|_| varies)?;
        let alias = self.memory.lookup(&self.keyer.language(primary, &language))?;
        let Entry::Alias(key) = alias else { return None };
        let key = *key;
        let Entry::Response(stored) = self.memory.lookup(&key)? else { return None };
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
            if current.is_live(&self.ledger) && order(&current) > order(stored) {
                self.metrics.admission("superseded");
                return Commit::Superseded;
            }
        }
        self.memory.insert(key, Entry::Response(stored.clone()));
        if let Some(Selecting { names, .. }) = selecting
            && matches!(names.as_slice(), [name] if is_language(name))
            && let Some(language) = content_language(stored.fields())
        {
            self.memory.insert(self.keyer.language(primary, &language), Entry::Alias(Arc::new(key)));
        }
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
    pub fn invalidate(&self, primary: &CacheKey) -> Invalidated {
        let invalidated = self.ledger.invalidate(url_of(primary));
        self.memory.remove(primary);
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

    fn commit_lock(&self, key: &CacheKey) -> parking_lot::MutexGuard<'_, ()> {
        self.commits[key.low_u64() as usize % COMMIT_LOCKS].lock()
    }
}
