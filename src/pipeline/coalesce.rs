//! One fill for many requests: who is being asked for right now.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::fill::Fill;
use crate::store::fill::reader::Reader;
use crate::store::key::{CacheKey, KeyHasher};

/// What a fill brings in about the time that asking for a part takes.
const NEAR: u64 = 1 << 20;
/// Maps that are locked apart.
const SHARDS: usize = 64;

/// A part of the fills under way.
type Shard = Mutex<HashMap<CacheKey, Arc<Fill>, KeyHasher>>;

/// The fills that others may join.
pub struct Coalesce {
    shards: Box<[Shard]>,
}

/// What a request that wants to share a fill gets.
pub enum Joined {
    /// A fill that was under way.
    Follower(Reader),
    /// A fill that this request has to start.
    Starter(Reader),
    /// The same, but the fill before it has to be answered first.
    StarterAfter(Reader, Arc<Fill>),
    /// The store has changed since the request looked: it has to look again.
    LookAgain,
}

impl Default for Coalesce {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect() }
    }
}

impl Coalesce {
    /// Joins the fill under way for `key`, or enters the one that `new` makes. `unchanged` is asked under the lock:
    /// a fill that ended between the look-up and now has left its response in the store.
    pub fn join_or_start(
        &self,
        key: &CacheKey,
        unchanged: impl FnOnce() -> bool,
        new: impl FnOnce() -> Arc<Fill>,
    ) -> Joined {
        let mut fills = self.shard(key).lock();
        if let Some(reader) = fills.get(key).and_then(|fill| fill.join()) {
            return Joined::Follower(reader);
        }
        if !unchanged() {
            return Joined::LookAgain;
        }
        let fill = new();
        let Some(reader) = fill.join() else { return Joined::LookAgain };
        fills.insert(*key, fill);
        Joined::Starter(reader)
    }

    /// The same for a request whose answer has to be newer than itself: it joins a fill that has not asked yet, or enters one that
    /// asks after the one under way. So there are never more than two for a key.
    pub fn join_or_start_after(
        &self,
        key: &CacheKey,
        unchanged: impl FnOnce() -> bool,
        new: impl FnOnce() -> Arc<Fill>,
    ) -> Joined {
        let mut fills = self.shard(key).lock();
        let before = fills.get(key).cloned();
        if let Some(reader) = before.as_ref().filter(|fill| !fill.has_asked()).and_then(Fill::join) {
            return Joined::Follower(reader);
        }
        if !unchanged() {
            return Joined::LookAgain;
        }
        let fill = new();
        let Some(reader) = fill.join() else { return Joined::LookAgain };
        fills.insert(*key, fill);
        match before {
            Some(before) => Joined::StarterAfter(reader, before),
            None => Joined::Starter(reader),
        }
    }

    /// Joins the fill under way for `key` if it brings the byte at `offset` soon: no more than so much is to come before.
    pub fn join_near(&self, key: &CacheKey, offset: u64) -> Option<Reader> {
        let fills = self.shard(key).lock();
        let fill = fills.get(key)?;
        (offset <= fill.received()?.saturating_add(NEAR)).then(|| fill.join())?
    }

    /// Enters a fill that no client waits for, unless one is under way.
    pub fn start_background(&self, key: &CacheKey, new: impl FnOnce() -> Arc<Fill>) -> Option<Arc<Fill>> {
        let mut fills = self.shard(key).lock();
        if fills.contains_key(key) {
            return None;
        }
        let fill = new();
        fills.insert(*key, fill.clone());
        Some(fill)
    }

    /// Has others join a fill under another key as well, unless one is under way for that.
    pub fn enter(&self, key: &CacheKey, fill: &Arc<Fill>) {
        self.shard(key).lock().entry(*key).or_insert_with(|| fill.clone());
    }

    /// Nobody joins this fill under this key any more.
    pub fn leave(&self, fill: &Arc<Fill>, key: &CacheKey) {
        let mut fills = self.shard(key).lock();
        if fills.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            fills.remove(key);
        }
    }

    /// Fills under way that others may join.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: &CacheKey) -> &Shard {
        &self.shards[key.low_u64() as usize % SHARDS]
    }
}
