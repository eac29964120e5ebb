//! A body on its way to a disk, chunk by chunk.

use std::collections::VecDeque;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::store::Store;
use crate::store::body::Sparse;
use crate::store::key::CacheKey;

/// What becomes of the chunks of one body.
pub(super) struct Spool {
    /// What the record will stand under.
    key: CacheKey,
    state: State,
    next: u32,
    /// It waits for a disk that is busy: memory is too small for the body.
    patient: bool,
    /// The chunk it waits with.
    held: Option<Bytes>,
    /// Chunks that wait to be written, in order.
    pending: VecDeque<Receiver<bool>>,
    /// Bytes from the beginning that are written.
    written: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is longer than a chunk yet.
    Undecided,
    /// Every chunk so far is written, or will be.
    Going(u64),
    /// A disk was too busy for a chunk.
    Late,
    /// Not on a disk.
    Off,
}

impl Spool {
    /// `generation`: it was decided already. `may`: such a body may go to a disk at all.
    pub(super) fn new(key: CacheKey, generation: Option<u64>, may: bool) -> Self {
        let undecided = if may { State::Undecided } else { State::Off };
        let state = generation.map_or(undecided, State::Going);
        Self { key, state, next: 0, patient: generation.is_some(), held: None, pending: VecDeque::new(), written: 0 }
    }

    pub(super) fn key(&self) -> CacheKey {
        self.key
    }

    /// What its chunks are known by, if they are all on their way.
    pub(super) fn generation(&self) -> Option<u64> {
        match self.state {
            State::Going(generation) => Some(generation),
            State::Undecided | State::Late | State::Off => None,
        }
    }

    /// A disk was too busy for it.
    pub(super) fn is_late(&self) -> bool {
        self.state == State::Late
    }

    pub(super) fn on_disk(&self, store: &Store) -> Option<Sparse> {
        self.generation().map(|generation| store.sparse(self.key, generation))
    }

    /// Takes the next chunk. `length`: of the whole body, if it is known.
    pub(super) fn put(&mut self, store: &Store, chunk: Bytes, length: Option<u64>, site: &str) {
        if self.state == State::Undecided {
            self.state = store.admits_chunks(&self.key, length).map_or(State::Off, State::Going);
        }
        let State::Going(generation) = self.state else { return };
        match store.put_chunk(&self.key, generation, self.next, chunk.clone(), site) {
            Some(told) => self.pending.push_back(told),
            None if self.patient => {
                self.held = Some(chunk);
                return;
            }
            None => self.state = State::Late,
        }
        self.next += 1;
    }

    /// From now on the body is on a disk alone.
    pub(super) fn be_patient(&mut self) {
        self.patient = true;
    }

    /// Tries again to put a chunk that a disk was too busy for. True: there is none any more.
    pub(super) fn retry(&mut self, store: &Store, site: &str) -> bool {
        if let Some(chunk) = self.held.take() {
            self.put(store, chunk, None, site);
        }
        self.held.is_none()
    }

    /// How far it is written. None: not all of it will be.
    pub(super) fn written(&mut self) -> Option<u64> {
        self.generation()?;
        while let Some(first) = self.pending.front_mut() {
            match first.try_recv() {
                Ok(true) => self.written += CHUNK_BYTES as u64,
                Err(TryRecvError::Empty) => break,
                Ok(false) | Err(TryRecvError::Closed) => {
                    self.state = State::Off;
                    return None;
                }
            }
            self.pending.pop_front();
        }
        Some(self.written)
    }
}
