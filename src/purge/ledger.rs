//! The ledger: what was purged and invalidated, and when in that order. No I/O and no clock.
//!
//! A purge changes no stored object. It writes an entry for each thing it names, and every stored response is judged
//! against the entries when it is looked up: an entry later than the position its fill began at concerns it. Each
//! selector has two entries, hard and soft, each its own maximum, so that a soft purge never hides an earlier hard one.
//!
//! What this node alone invalidates, because an unsafe request succeeded or an answer that must not be stored took the
//! place of a stored one, is counted apart from the log and kept in buckets of a fixed number: two keys in one bucket can
//! only cause a miss too many, never a stale answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::position::{LogPosition, Position};
use super::prefixes::Prefixes;
use super::selector::{Named, Naming, SelectorId, Selectors, SiteId};
use crate::semantics::time::UnixMs;

/// Buckets of what this node alone invalidates: 512 KiB. One invalidation makes 1 in 65,536 unrelated keys a miss.
pub const BUCKETS: usize = 1 << 16;
/// Prefixes kept of one site. Purges of more fold the oldest into the site: more misses, never a stale answer.
pub const PREFIXES_MAX: usize = 1024;
/// What one entry costs in memory, the slack of the table included.
const ENTRY_BYTES: usize = 96;
/// Entries at most, whatever the memory: at 1,000 purges a second of names not seen before, a quarter of an hour.
const ENTRIES_MAX: usize = 1 << 20;

/// What becomes of what was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Gone: a miss. Never served, its validators never used.
    Delete,
    /// Stale since then: validated before it is used again, or served in the windows a stale response may be served in.
    Invalidate,
}

#[cfg(test)]
thread_local! {
    /// A bug that simulations plant.
    pub(crate) static HARD_HIDDEN_BY_SOFT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The latest purges of one selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub hard: LogPosition,
    pub soft: LogPosition,
    /// When the soft purge was.
    pub soft_at: UnixMs,
}

impl Entry {
    /// Applying twice equals applying once, and the order of applying makes no difference.
    pub fn purge(&mut self, mode: Mode, position: LogPosition, at: UnixMs) {
        match mode {
            Mode::Delete => self.hard = self.hard.max(position),
            Mode::Invalidate if position > self.soft => (self.soft, self.soft_at) = (position, at),
            Mode::Invalidate => {}
        }
        #[cfg(test)]
        if mode == Mode::Invalidate && HARD_HIDDEN_BY_SOFT.get() {
            self.hard = LogPosition::default();
        }
    }

    /// What two entries of one selector say together.
    pub fn and(mut self, other: Self) -> Self {
        self.purge(Mode::Delete, other.hard, UnixMs(0));
        self.purge(Mode::Invalidate, other.soft, other.soft_at);
        self
    }

    pub fn latest(&self) -> LogPosition {
        self.hard.max(self.soft)
    }
}

/// What a purge names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Everything,
    Site(SiteId),
    Host(SiteId, u32),
    Url(SiteId, u32),
    Key(SiteId, u32),
    /// `host` none: of every host of the site.
    Prefix {
        site: SiteId,
        host: Option<u32>,
        path: Box<[u8]>,
    },
}

/// What the ledger says about a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing concerns it.
    Live,
    /// Purged softly: stale since then at the latest.
    StaleSince(UnixMs),
    Gone(Gone),
}

/// Why a stored response is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Purged,
    Invalidated,
}

/// A local invalidation, and the one of the same bucket before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidated {
    pub before: u64,
    pub at: u64,
}

/// A judgement, and what makes it worth keeping: while the version stands, so does the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub verdict: Verdict,
    pub version: u64,
}

/// What remembers local invalidations beyond the process.
pub trait Journal: Send + Sync {
    /// Is told before anybody else is.
    fn invalidated(&self, bucket: usize, at: u64);
}

/// The process that has taken over what this one kept, and is told what this one still invalidates.
pub trait Successor: Send + Sync {
    fn invalidated(&self, number: u32);
}

/// What was purged and invalidated.
pub struct Ledger {
    /// Changes with every event. Published last, loaded first.
    version: AtomicU64,
    log: AtomicU64,
    local: AtomicU64,
    buckets: Box<[AtomicU64]>,
    entries: RwLock<Entries>,
    /// Writers take turns, so that what is published never runs ahead of an entry still being written.
    writer: Mutex<()>,
    naming: Naming,
    /// None: nothing that is stored outlives the process either.
    journal: Option<Box<dyn Journal>>,
    /// Who is told in the place of the journal.
    successor: RwLock<Option<Arc<dyn Successor>>>,
    /// Until when the log is known to have nothing that is not in here: see [`Ledger::is_current`].
    current_until: AtomicU64,
}

/// Of a node that alone writes its log.
const FOR_EVER: u64 = u64::MAX;
/// Of one that follows its log no more.
const NO_MORE: u64 = 0;

struct Entries {
    everything: Entry,
    /// Whatever began before it is gone: an older log, or entries that were folded for all sites.
    floor: LogPosition,
    of: HashMap<SelectorId, (SiteId, Entry), ahash::RandomState>,
    prefixes: HashMap<SiteId, Prefixes, ahash::RandomState>,
    entries_max: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(ENTRIES_MAX * ENTRY_BYTES)
    }
}

impl Ledger {
    /// A ledger of nothing. `memory`: the bytes its entries may take.
    pub fn new(memory: usize) -> Self {
        Self::with(memory, Naming::default(), vec![0; BUCKETS], None)
    }

    /// The same with names that are the same in every process.
    pub fn named(memory: usize, naming: Naming) -> Self {
        Self::with(memory, naming, vec![0; BUCKETS], None)
    }

    /// A ledger that goes on with the invalidations of another process, and with its names.
    pub fn restored(memory: usize, naming: Naming, buckets: Vec<u64>, journal: Box<dyn Journal>) -> Self {
        Self::with(memory, naming, buckets, Some(journal))
    }

    fn with(memory: usize, naming: Naming, buckets: Vec<u64>, journal: Option<Box<dyn Journal>>) -> Self {
        let latest = buckets.iter().copied().max().unwrap_or(0);
        // Position 0 is "before everything": a fresh node starts at 1 so that a zeroed record can never look live.
        Self {
            version: AtomicU64::new(1),
            log: AtomicU64::new(0),
            local: AtomicU64::new(latest.max(1)),
            buckets: buckets.into_iter().map(AtomicU64::new).collect(),
            entries: RwLock::new(Entries {
                everything: Entry::default(),
                floor: LogPosition::default(),
                of: HashMap::default(),
                prefixes: HashMap::default(),
                entries_max: (memory / ENTRY_BYTES).clamp(1024, ENTRIES_MAX),
            }),
            writer: Mutex::new(()),
            naming,
            journal,
            successor: RwLock::new(None),
            current_until: AtomicU64::new(FOR_EVER),
        }
    }

    /// Whether all there is in the log is known to be in here. `now`: milliseconds of a clock that runs through suspend; it is
    /// read only where that matters.
    pub fn is_current(&self, now: impl FnOnce() -> u64) -> bool {
        self.isolated_for(now).is_none()
    }

    /// For how long it has not been current, in milliseconds of the same clock.
    pub fn isolated_for(&self, now: impl FnOnce() -> u64) -> Option<u64> {
        match self.current_until.load(Ordering::Acquire) {
            FOR_EVER => None,
            until => now().checked_sub(until),
        }
    }

    /// It is current until then, on the same clock; not if the log is followed no more.
    pub fn vouch(&self, until: u64) {
        let until = until.clamp(NO_MORE + 1, FOR_EVER - 1);
        let still = |now| (now != NO_MORE).then_some(until);
        // Otherwise it is as it should be.
        let _ = self.current_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, still);
    }

    /// The log is followed no more: from now on it is not current, whoever vouches for it.
    pub fn end(&self) {
        self.current_until.store(NO_MORE, Ordering::Release);
    }

    /// Whether it has ended: whatever is stored may have been purged since.
    pub fn has_ended(&self) -> bool {
        self.current_until.load(Ordering::Acquire) == NO_MORE
    }

    /// Another process follows the log from now on, and is told what this one invalidates.
    pub fn hand_over(&self, successor: Arc<dyn Successor>) {
        *self.successor.write() = Some(successor);
        self.end();
    }

    /// The log is followed again. `alone`: by its one writer, who knows all of it.
    pub fn begin_again(&self, alone: bool) {
        *self.successor.write() = None;
        self.current_until.store(if alone { FOR_EVER } else { NO_MORE + 1 }, Ordering::Release);
    }

    /// The number of a host, a surrogate key or a cache group.
    pub fn name(&self, named: Named, value: &[u8]) -> u32 {
        self.naming.name(named, value)
    }

    /// The position whose entries are all visible. A fill notes it before it asks its origin.
    pub fn applied(&self) -> Position {
        Position {
            log: LogPosition::from_u64(self.log.load(Ordering::Acquire)),
            local: self.local.load(Ordering::Acquire),
        }
    }

    /// Changes whenever a verdict may.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Entries kept.
    pub fn len(&self) -> usize {
        self.entries.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies one record of the log.
    pub fn apply(&self, position: LogPosition, at: UnixMs, mode: Mode, targets: &[Target]) {
        self.enter(position, at, mode, targets);
        self.publish(position);
    }

    /// Writes the entries of one record: the first half of [`Self::apply`].
    pub(crate) fn enter(&self, position: LogPosition, at: UnixMs, mode: Mode, targets: &[Target]) {
        let mut entries = self.entries.write();
        targets.iter().for_each(|target| entries.of(target).purge(mode, position, at));
        entries.fold();
    }

    /// Writes an entry that another process had.
    pub(crate) fn enter_entry(&self, target: &Target, entry: Entry) {
        let mut entries = self.entries.write();
        let known = entries.of(target);
        *known = known.and(entry);
        entries.fold();
    }

    /// Says that every entry up to `position` is written: the second half.
    pub(crate) fn publish(&self, position: LogPosition) {
        let _turn = self.writer.lock();
        self.log.fetch_max(position.as_u64(), Ordering::AcqRel);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Begins where another process left off: everything stored under an older log is gone.
    pub fn restore(&self, position: LogPosition, floor: LogPosition) {
        {
            let mut entries = self.entries.write();
            entries.floor = entries.floor.max(floor);
        }
        self.publish(position);
    }

    /// Everything stored under a key by fills that began until now is gone, on this node.
    pub fn invalidate(&self, url: u32) -> Invalidated {
        self.invalidate_bucket(url)
    }

    /// The same for every response of a cache group.
    pub fn invalidate_group(&self, group: u32) {
        self.invalidate_bucket(group);
    }

    /// The same for a number that another process has told.
    pub fn invalidate_bucket(&self, number: u32) -> Invalidated {
        let _turn = self.writer.lock();
        let position = self.local.load(Ordering::Relaxed) + 1;
        if let Some(successor) = &*self.successor.read() {
            successor.invalidated(number);
        } else if let Some(journal) = &self.journal {
            journal.invalidated(number as usize % self.buckets.len(), position);
        }
        let before = self.bucket(number).swap(position, Ordering::AcqRel);
        self.local.store(position, Ordering::Release);
        self.version.fetch_add(1, Ordering::AcqRel);
        Invalidated { before, at: position }
    }

    /// Judges a response whose fill began at `fill_pos`.
    pub fn judge(&self, selectors: &Selectors<'_>, fill_pos: Position) -> Judged {
        // First of all, so that whatever changes from here on is looked at again.
        let version = self.version();
        let verdict = match self.is_invalidated(selectors, fill_pos.local) {
            true => Verdict::Gone(Gone::Invalidated),
            false => self.entries.read().judge(selectors, fill_pos.log, self.applied().log),
        };
        Judged { verdict, version }
    }

    fn is_invalidated(&self, selectors: &Selectors<'_>, known: u64) -> bool {
        let later = |number: u32| self.bucket(number).load(Ordering::Acquire) > known;
        known > self.local.load(Ordering::Acquire) || later(selectors.url) || selectors.groups().any(later)
    }

    fn bucket(&self, number: u32) -> &AtomicU64 {
        &self.buckets[number as usize % self.buckets.len()]
    }
}

impl Entries {
    fn len(&self) -> usize {
        self.of.len() + self.prefixes.values().map(Prefixes::len).sum::<usize>()
    }

    fn of(&mut self, target: &Target) -> &mut Entry {
        let (site, id) = match target {
            Target::Everything => return &mut self.everything,
            Target::Prefix { site, host, path } => {
                return self.prefixes.entry(*site).or_default().entry(path, *host);
            }
            Target::Site(site) => (*site, SelectorId::site(*site)),
            Target::Host(site, host) => (*site, SelectorId::host(*site, *host)),
            Target::Url(site, url) => (*site, SelectorId::url(*site, *url)),
            Target::Key(site, key) => (*site, SelectorId::key(*site, *key)),
        };
        &mut self.of.entry(id).or_insert((site, Entry::default())).1
    }

    fn judge(&self, selectors: &Selectors<'_>, fill_pos: LogPosition, applied: LogPosition) -> Verdict {
        if fill_pos < self.floor || fill_pos > applied {
            return Verdict::Gone(Gone::Purged);
        }
        let (mut hard, mut stale_since) = (false, None::<UnixMs>);
        let mut look = |entry: &Entry| {
            hard |= entry.hard > fill_pos;
            if entry.soft > fill_pos {
                stale_since = Some(stale_since.map_or(entry.soft_at, |since| since.min(entry.soft_at)));
            }
        };
        look(&self.everything);
        if !self.of.is_empty() {
            let site = selectors.site;
            let fixed =
                [SelectorId::site(site), SelectorId::host(site, selectors.host), SelectorId::url(site, selectors.url)];
            let keys = selectors.keys().map(|key| SelectorId::key(site, key));
            fixed.into_iter().chain(keys).filter_map(|id| self.of.get(&id)).for_each(|(_, entry)| look(entry));
        }
        if let Some(prefixes) = self.prefixes.get(&selectors.site) {
            prefixes.each_of(selectors.path, selectors.host, &mut look);
        }
        match (hard, stale_since) {
            (true, _) => Verdict::Gone(Gone::Purged),
            (false, Some(since)) => Verdict::StaleSince(since),
            (false, None) => Verdict::Live,
        }
    }

    /// Keeps the bounds: what is too much goes into an entry of its site that says no less, the oldest first.
    fn fold(&mut self) {
        for (site, prefixes) in &mut self.prefixes {
            while prefixes.len() > PREFIXES_MAX {
                let Some((entry, ..)) = prefixes.take_oldest() else { break };
                let id = SelectorId::site(*site);
                let (_, whole) = self.of.entry(id).or_insert((*site, Entry::default()));
                whole.hard = whole.hard.max(entry.latest());
            }
        }
        if self.of.len() <= self.entries_max {
            return;
        }
        let mut ages: Vec<LogPosition> = self.of.values().map(|(_, entry)| entry.latest()).collect();
        let quarter = ages.len() / 4;
        let (_, limit, _) = ages.select_nth_unstable(quarter);
        let limit = *limit;
        let mut folded: HashMap<SiteId, LogPosition> = HashMap::new();
        self.of.retain(|id, (site, entry)| {
            let keep = entry.latest() > limit || *id == SelectorId::site(*site);
            if !keep {
                let position = folded.entry(*site).or_default();
                *position = (*position).max(entry.latest());
            }
            keep
        });
        for (site, position) in folded {
            let (_, whole) = self.of.entry(SelectorId::site(site)).or_insert((site, Entry::default()));
            whole.hard = whole.hard.max(position);
        }
    }
}

#[cfg(test)]
mod tests;
