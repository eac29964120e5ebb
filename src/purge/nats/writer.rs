//! The thread that applies records and writes to the node's disk.
//!
//! What a customer asked for is on disk before it is acknowledged. What the hub has sent is applied at once and written within a
//! second: a node that is killed before has it sent again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use ulid::Ulid;

use super::outbox::{self, Pending};
use super::verify::Followed;
use crate::clock;
use crate::purge::kept::{Kept, Written};
use crate::purge::log::LogError;
use crate::purge::position::LogPosition;
use crate::purge::record::PurgeRecord;

/// How long what was applied waits to be written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Records that wait to be written, at most. A disk that has not taken them by then gets none any more: what is on it has no
/// hole, and the next start has the rest sent again.
const UNSAVED_MAX: usize = 100_000;
/// How long a purge waits for others to be written with it; see the local log.
const GATHER: Duration = Duration::from_millis(10);
const BUSY_FOR: Duration = Duration::from_millis(16);
/// How often what the hub has kept for long enough is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Purges written together at most.
const BATCH_MAX: usize = 1024;

/// Whether a purge was kept.
type Done = oneshot::Sender<Result<(), Arc<LogError>>>;

/// What is to be done.
pub enum Work {
    /// Keep a purge that was asked for here.
    Take { record: PurgeRecord, done: Done },
    /// Apply records of the log, which follow on those before.
    Apply { records: Vec<(u64, PurgeRecord)>, done: oneshot::Sender<()> },
    /// Follow another log from here on. `last`: the last record of it.
    Adopt { created: u64, last: Option<(u64, PurgeRecord)>, done: Done },
    /// The hub has a purge of ours.
    Acknowledged(Ulid, u64),
}

/// What others see of it.
pub struct Seen {
    pub followed: Mutex<Followed>,
    /// When the log was made; 0 while another one is being adopted, so that who reads a position first and then this has no
    /// position of the new log with the name of the old.
    pub made: AtomicU64,
    /// The generation and the number of the last record applied.
    pub applied: watch::Sender<LogPosition>,
    /// What is applied and not on disk yet.
    pub recent: Mutex<HashMap<Ulid, Written>>,
    pub pending: Mutex<Pending>,
}

/// The thread.
pub struct Writer {
    pub kept: Kept,
    pub seen: Arc<Seen>,
    unsaved: Vec<Written>,
    acknowledged: Vec<(Ulid, u64)>,
    is_saving: bool,
    saved: Instant,
    forgotten: Instant,
}

impl Writer {
    /// Takes over what is kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(mut kept: Kept) -> Result<Self, LogError> {
        kept.write(&[], outbox::begin)?;
        let read = kept.shared.read()?;
        let (pending, acknowledged) = outbox::restore(&read)?;
        let applied = kept.shared.record_at(kept.position)?.map(|record| (kept.position.seq(), record.id));
        let followed = Followed { created: outbox::followed(&read)?, applied, acknowledged };
        let seen = Arc::new(Seen {
            made: AtomicU64::new(followed.created),
            followed: Mutex::new(followed),
            applied: watch::Sender::new(kept.position),
            recent: Mutex::default(),
            pending: Mutex::new(pending),
        });
        let now = clock::monotonic();
        let (unsaved, acknowledged) = (Vec::new(), Vec::new());
        Ok(Self { kept, seen, unsaved, acknowledged, is_saving: true, saved: now, forgotten: now })
    }

    pub fn run(mut self, work: &Receiver<Work>) {
        let mut taken_at = None::<Instant>;
        loop {
            let idle = self.unsaved.is_empty() && self.acknowledged.is_empty();
            let next = match idle {
                true => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => work.recv_timeout(SAVE_EVERY),
            };
            let mut taken = Vec::new();
            match next {
                Ok(first) => self.begin(first, &mut taken),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let is_busy = taken_at.is_some_and(|at| clock::monotonic().duration_since(at) < BUSY_FOR);
            let until = clock::monotonic() + if is_busy { GATHER } else { Duration::ZERO };
            while !taken.is_empty() && taken.len() < BATCH_MAX {
                let left = until.saturating_duration_since(clock::monotonic());
                let Ok(more) = work.recv_timeout(left) else { break };
                self.begin(more, &mut taken);
            }
            if !taken.is_empty() {
                self.take(taken);
                taken_at = Some(clock::monotonic());
            } else if clock::monotonic().duration_since(self.saved) >= SAVE_EVERY {
                self.save(&[]).unwrap_or_else(|error| self.failed(&error));
            }
        }
        if let Err(error) = self.save(&[]).and_then(|()| self.kept.compact()) {
            tracing::warn!(%error, "the next start has what was purged sent again");
        }
    }

    /// Does what cannot wait, and collects what is written with others.
    fn begin(&mut self, work: Work, taken: &mut Vec<(PurgeRecord, Done)>) {
        match work {
            Work::Take { record, done } => taken.push((record, done)),
            Work::Apply { records, done } => {
                records.into_iter().for_each(|(seq, record)| self.apply(seq, record));
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            Work::Adopt { created, last, done } => {
                let adopted = self.adopt(created, last);
                // The same.
                let _ = done.send(adopted.map_err(Arc::new));
            }
            Work::Acknowledged(id, seq) => {
                self.seen.pending.lock().remove(&id);
                let mut followed = self.seen.followed.lock();
                if followed.acknowledged.is_none_or(|(last, _)| last < seq) {
                    followed.acknowledged = Some((seq, id));
                }
                self.acknowledged.push((id, seq));
            }
        }
    }

    fn apply(&mut self, seq: u64, record: PurgeRecord) {
        let position = LogPosition::new(self.kept.position.generation(), seq);
        if position <= self.kept.position {
            return;
        }
        self.kept.apply(position, &record);
        self.seen.followed.lock().applied = Some((seq, record.id));
        if self.is_saving {
            self.seen.recent.lock().insert(record.id, (position, record.clone()));
            self.unsaved.push((position, record));
        }
        self.seen.applied.send_replace(position);
        if self.unsaved.len() > UNSAVED_MAX {
            tracing::error!("the disk of the purge log takes nothing: the next start has what was purged sent again");
            self.is_saving = false;
            self.unsaved.clear();
            self.seen.recent.lock().clear();
        }
    }

    fn adopt(&mut self, created: u64, last: Option<(u64, PurgeRecord)>) -> Result<(), LogError> {
        if let Err(error) = self.save(&[]) {
            self.failed(&error);
        }
        let generation = self.kept.position.generation().saturating_add(1);
        let position = LogPosition::new(generation, last.as_ref().map_or(0, |(seq, _)| *seq));
        self.seen.made.store(0, Ordering::Release);
        let now = clock::wall().0;
        let record = last.map(|(_, record)| (position, record));
        self.kept.begin_anew(position, record.as_slice(), |transaction| {
            outbox::send_again(transaction, now)?;
            outbox::follow(transaction, created)
        })?;
        let (pending, _) = outbox::restore(&self.kept.shared.read()?)?;
        *self.seen.pending.lock() = pending;
        let applied = record.map(|(position, record)| (position.seq(), record.id));
        *self.seen.followed.lock() = Followed { created, applied, acknowledged: None };
        self.seen.made.store(created, Ordering::Release);
        self.seen.applied.send_replace(position);
        Ok(())
    }

    fn take(&mut self, taken: Vec<(PurgeRecord, Done)>) {
        let (records, done): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        match self.save(&records) {
            Ok(()) => done.into_iter().for_each(|done| _ = done.send(Ok(()))),
            Err(error) => {
                tracing::error!(%error, purges = done.len(), "purges are not taken");
                let error = Arc::new(error);
                done.into_iter().for_each(|done| _ = done.send(Err(error.clone())));
                self.failed(&error);
            }
        }
    }

    /// Writes everything that waits, in one transaction.
    fn save(&mut self, taken: &[PurgeRecord]) -> Result<(), LogError> {
        self.saved = clock::monotonic();
        let places: Vec<_> = self.unsaved.iter().map(|(position, record)| (record.id, position.as_u64())).collect();
        let acknowledged = &self.acknowledged;
        let now = clock::wall().0;
        let forgets = clock::monotonic().duration_since(self.forgotten) >= FORGET_EVERY;
        self.kept.write(&self.unsaved, |transaction| {
            outbox::enter(transaction, taken)?;
            outbox::acknowledge(transaction, acknowledged)?;
            outbox::place(transaction, &places)?;
            if forgets { outbox::forget(transaction, now) } else { Ok(()) }
        })?;
        if forgets {
            self.forgotten = clock::monotonic();
        }
        self.acknowledged.clear();
        let mut recent = self.seen.recent.lock();
        self.unsaved.drain(..).for_each(|(_, record)| _ = recent.remove(&record.id));
        drop(recent);
        if self.is_saving {
            self.kept.keep_up();
        }
        Ok(())
    }

    /// A file that failed once refuses everything until it is opened anew.
    fn failed(&mut self, error: &LogError) {
        tracing::warn!(%error, "the purge log cannot be written");
        if let Err(error) = self.kept.reopen() {
            tracing::error!(%error, path = ?self.kept.path(), "the purge log cannot be opened again");
        }
    }
}

#[cfg(test)]
mod tests;
