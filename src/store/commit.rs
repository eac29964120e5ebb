//! The one commit: what becomes visible, in which order, and what of it goes to a disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use crate::clock;
use crate::purge::selector::url_of;
use crate::semantics::vary::{content_language, is_language};
use crate::store::Store;
use crate::store::admission::{Admission, Facts, admission};
use crate::store::body::Sparse;
use crate::store::disk::disks::{NO_SITE, site_number};
use crate::store::disk::frame::{FrameKey, Kind, frame_bytes};
use crate::store::disk::value::Payload;
use crate::store::fill::Selecting;
use crate::store::key::CacheKey;
use crate::store::memory::{Entry, Variants};
use crate::store::persist::{self, Label};
use crate::store::record::StoredResponse;

/// How long a response may wait for a disk that is busy, once it is its turn, and how often it looks.
pub(super) const LATE_WITHIN: Duration = Duration::from_secs(1);
const LATE_PAUSE: Duration = Duration::from_millis(2);
/// How long a node that stops waits for it.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// How long a response that takes the place of one on a disk waits to be there itself.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// What became of a finished response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Stored,
    /// In memory, under this key; a disk was too busy for it: [`Store::put_late`].
    InMemory {
        key: CacheKey,
    },
    /// A newer response stood there already.
    Superseded,
}

/// What a commit has done so far.
struct Committed {
    commit: Commit,
    /// An older one may be on a disk.
    replaces: bool,
    put: Put,
}

/// What became of a frame that was to be written.
pub(super) enum Put {
    /// It will be; what is received tells whether it was.
    Queued(oneshot::Receiver<bool>),
    /// There is no room among what waits.
    Busy,
    /// It is not for a disk, or there is none.
    Not,
}

impl Store {
    /// Remembers on which fields responses under a primary key vary, as soon as a head says so.
    pub fn note_variants(&self, primary: &CacheKey, names: &[Box<str>]) {
        let _step = self.commit_lock(primary);
        let known = match self.memory.lookup(primary) {
            Some(Entry::Variants(variants)) => Some(variants),
            _ => None,
        };
        let variants = Variants::with_latest(known.as_deref(), names);
        if known.as_deref() != Some(&variants) {
            self.lead(*primary, Entry::Variants(Arc::new(variants)));
        }
    }

    /// Remembers what leads from one key to another, also on a disk.
    pub(super) fn lead(&self, key: CacheKey, entry: Entry) {
        if self.disks.takes(&FrameKey::of(key))
            && let Some(payload) = persist::hint(&entry)
        {
            self.put(FrameKey::of(key), Kind::Hint, NO_SITE, payload);
        }
        self.memory.insert(key, entry);
    }

    /// Makes a complete response visible. It never replaces one whose fill began at a later position, or whose head
    /// came later: a slow fill or a slow 304 is not news. When this returns, what it has replaced does not come back, not
    /// even if the process is killed. Without a label it is for memory alone.
    pub async fn commit(
        &self,
        primary: &CacheKey,
        selecting: Option<&Selecting>,
        stored: &Arc<StoredResponse>,
        label: Option<&Label>,
    ) -> Commit {
        let key = selecting.map_or(*primary, |selecting| self.keyer.variant(primary, &selecting.values));
        if self.disks.contains(&FrameKey::of(key)) && self.memory.lookup(&key).is_none() {
            // What is on the disk may be the later one.
            self.read(&key).await;
        }
        let Committed { commit, replaces, put } = self.commit_now(primary, selecting, stored, label);
        let written = match put {
            Put::Queued(told) if replaces => {
                tokio::time::timeout(WRITTEN_WITHIN, told).await.is_ok_and(|told| told == Ok(true))
            }
            Put::Busy if !replaces => return Commit::InMemory { key },
            Put::Queued(_) => true,
            Put::Busy | Put::Not => false,
        };
        if replaces && !written {
            self.bury(primary, &key);
        }
        commit
    }

    /// The same, but for what is known of it only after a disk has answered.
    fn commit_now(
        &self,
        primary: &CacheKey,
        selecting: Option<&Selecting>,
        stored: &Arc<StoredResponse>,
        label: Option<&Label>,
    ) -> Committed {
        let key = selecting.map_or(*primary, |selecting| self.keyer.variant(primary, &selecting.values));
        if let Some(selecting) = selecting {
            self.note_variants(primary, &selecting.names);
        }
        let _step = self.commit_lock(&key);
        if let Some(Entry::Response(current)) = self.memory.lookup(&key) {
            let order = |r: &StoredResponse| (r.fill_pos(), r.freshness().response_time());
            if current.is_live(&self.ledger) && order(&current) > order(stored) {
                self.metrics.admission("superseded");
                return Committed { commit: Commit::Superseded, replaces: false, put: Put::Not };
            }
        }
        let replaces = !self.disks.is_empty() && self.disks.may_hold(&FrameKey::of(key));
        // In the order of the commits: both under the lock.
        let put = label.map_or(Put::Not, |label| self.put_response(&key, stored, label));
        self.memory.insert(key, Entry::Response(stored.clone()));
        if let Some(Selecting { names, .. }) = selecting
            && matches!(names.as_slice(), [name] if is_language(name))
            && let Some(language) = content_language(stored.fields())
        {
            self.lead(self.keyer.language(primary, &language), Entry::Alias(Arc::new(key)));
        }
        self.marks.lift(primary);
        self.metrics.admission("stored");
        Committed { commit: Commit::Stored, replaces, put }
    }

    /// The commit of a response whose URL was invalidated when it began: nothing earlier can come back.
    pub fn commit_over_nothing(
        &self,
        primary: &CacheKey,
        selecting: Option<&Selecting>,
        stored: &Arc<StoredResponse>,
        label: &Label,
    ) {
        self.commit_now(primary, selecting, stored, Some(label));
    }

    /// What a disk holds of a key was replaced by what is not on it: neither may be found again.
    fn bury(&self, primary: &CacheKey, key: &CacheKey) {
        self.ledger.invalidate(url_of(primary));
        self.forget(key);
    }

    /// Whether a body that is about to arrive is kept on a disk, chunk by chunk; and what they will be known by.
    pub fn admits_chunks(&self, key: &CacheKey, bytes: Option<u64>) -> Option<u64> {
        let frame = FrameKey::of(*key);
        if !self.disks.takes(&frame) || bytes.is_some_and(|bytes| bytes > self.disks.object_bytes_max()) {
            return None;
        }
        let admitted = self.admits(&frame, bytes.unwrap_or(u64::MAX), false);
        admitted.then(new_generation).flatten()
    }

    /// Has a chunk written. None: the disk is too slow for it, or gone.
    pub fn put_chunk(
        &self,
        key: &CacheKey,
        generation: u64,
        index: u32,
        chunk: Bytes,
        site: &str,
    ) -> Option<oneshot::Receiver<bool>> {
        let frame = FrameKey::chunk(*key, generation, index);
        match self.put(frame, Kind::Chunk, site_number(site), Payload::Bytes(chunk)) {
            Put::Queued(told) => Some(told),
            Put::Busy | Put::Not => None,
        }
    }

    /// What finds the chunks of a body.
    pub fn sparse(&self, key: CacheKey, generation: u64) -> Sparse {
        Sparse { chunks: self.chunks.clone(), key, generation }
    }

    /// Whether what stands in memory under a key is to be written now that it is wanted again: see [`Self::put_late`].
    pub fn is_in_memory_alone(&self, key: &CacheKey) -> bool {
        let frame = FrameKey::of(*key);
        let alone = self.disks.takes(&frame) && !self.disks.contains(&frame);
        if alone {
            self.seen.note(frame.hash());
        }
        alone
    }

    /// Puts a response in the place of the same one whose body was elsewhere, if that still stands there.
    fn replace(&self, key: &CacheKey, from: &Arc<StoredResponse>, to: Arc<StoredResponse>) -> bool {
        let _step = self.commit_lock(key);
        let is_there = matches!(self.memory.lookup(key), Some(Entry::Response(now)) if Arc::ptr_eq(&now, from));
        if is_there {
            self.memory.insert(*key, Entry::Response(to));
        }
        is_there
    }

    /// Reads a body that is on a disk alone into memory, where there is room for it.
    pub async fn read_body(&self, stored: &Arc<StoredResponse>, body: &Sparse) {
        if !body.is_whole(stored.body_len()) {
            return;
        }
        let mut reservation = self.budget.fills.reservation();
        if !reservation.grow(stored.body_len()) {
            return;
        }
        let pieces: Vec<Option<Bytes>> = body.pieces(0..stored.body_len()).collect().await;
        let chunks: Option<Box<[Bytes]>> = pieces.into_iter().collect();
        if let Some(whole) = chunks.and_then(|chunks| stored.with_chunks(chunks)) {
            self.replace(&body.key, stored, Arc::new(whole));
        }
    }

    fn put_response(&self, key: &CacheKey, stored: &Arc<StoredResponse>, label: &Label) -> Put {
        let frame = FrameKey::of(*key);
        if !self.disks.takes(&frame) {
            return Put::Not;
        }
        // Its chunks have been admitted, or there are none.
        let is_admitted = !stored.is_inline() || self.admits(&frame, stored.weight() as u64, false);
        match persist::response(stored, label).filter(|_| is_admitted) {
            Some(payload) => self.put(frame, Kind::Record, site_number(&label.site), payload),
            None => Put::Not,
        }
    }

    /// `crowds`: see [`Facts`].
    pub(super) fn admits(&self, frame: &FrameKey, bytes: u64, crowds: bool) -> bool {
        // What takes the place of something on a disk is wanted again.
        let seen = self.seen.note(frame.hash()) || self.disks.contains(frame);
        let verdict = admission(Facts { bytes, full: self.disks.is_full(frame), seen, crowds });
        self.metrics.disk_admission(verdict.as_str());
        verdict == Admission::Write
    }

    pub(super) fn put(&self, frame: FrameKey, kind: Kind, site: u32, payload: Payload) -> Put {
        let mut room = self.budget.writes.reservation();
        if !room.grow(frame_bytes(payload.bytes()) as u64) {
            // Above the disk's rate: nobody waits for it.
            return Put::Busy;
        }
        self.disks.put(frame, kind, site, payload, room).map_or(Put::Not, Put::Queued)
    }

    /// Has a response written when nobody waits for it: a disk was too busy, or it was not wanted often enough before. It
    /// stands in memory meanwhile; what has left it, or does not get its turn, is not written.
    pub async fn put_late(&self, key: &CacheKey, stored: Arc<StoredResponse>, label: &Label) {
        let mut waiting = self.budget.late.reservation();
        let written = waiting.grow(stored.weight() as u64) && self.put_in_turn(key, stored, label).await;
        if !written {
            self.metrics.disk_lost("busy", 1);
        }
    }

    /// Lets another process have the disks.
    pub fn release(&self) {
        self.disks.release();
    }

    /// Writes what waits to be written, as far as that takes no longer than a node that stops can wait.
    pub fn close(&self) {
        let until = clock::monotonic() + CLOSE_WITHIN;
        // Turns are taken in order: one that is free is free because nobody waits.
        while self.late.try_acquire().is_err() && clock::monotonic() < until {
            std::thread::park_timeout(LATE_PAUSE);
        }
        self.disks.close();
    }

    async fn put_in_turn(&self, key: &CacheKey, stored: Arc<StoredResponse>, label: &Label) -> bool {
        // One after the other, so that one of them looks for room at a time.
        let Ok(_turn) = self.late.acquire().await else { return false };
        let until = clock::monotonic() + LATE_WITHIN;
        let chunks = stored.chunks().to_vec();
        let mut stored = stored;
        if !chunks.is_empty() && stored.generation().is_none() {
            let Some(generation) = new_generation() else { return false };
            for (index, chunk) in (0u32..).zip(chunks) {
                let frame = FrameKey::chunk(*key, generation, index);
                let payload = Payload::Bytes(chunk);
                if !self
                    .put_until(until, || self.put(frame, Kind::Chunk, site_number(&label.site), payload.clone()))
                    .await
                {
                    return false;
                }
            }
            let Some(known) = stored.with_generation(generation).map(Arc::new) else { return false };
            if !self.replace(key, &stored, known.clone()) {
                return false;
            }
            stored = known;
        }
        let Some(payload) = persist::response(&stored, label) else { return false };
        self.put_until(until, || {
            let _step = self.commit_lock(key);
            match self.memory.lookup(key) {
                Some(Entry::Response(now)) if Arc::ptr_eq(&now, &stored) => {
                    self.put(FrameKey::of(*key), Kind::Record, site_number(&label.site), payload.clone())
                }
                _ => Put::Not,
            }
        })
        .await
    }

    /// Tries again until there is room.
    pub(super) async fn put_until(&self, until: Instant, put: impl Fn() -> Put) -> bool {
        loop {
            match put() {
                Put::Queued(_) => return true,
                Put::Busy if clock::monotonic() < until => tokio::time::sleep(LATE_PAUSE).await,
                Put::Busy | Put::Not => return false,
            }
        }
    }
}

/// What the chunks of a body are known by: no other body has it. Zero is for frames that are no chunks.
pub fn new_generation() -> Option<u64> {
    getrandom::u64().ok().filter(|generation| *generation != 0)
}
