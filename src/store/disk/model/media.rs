//! A disk in memory that fails as disks do.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fuzz::Random;
use crate::store::disk::media::Media;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// One disk, and what the system has not written to it yet.
#[derive(Clone)]
pub(super) struct FaultyMedia(Arc<Mutex<State>>);

struct State {
    random: Random,
    /// As processes see it.
    now: Vec<u8>,
    /// Pages that are not on the disk yet: what is there instead.
    durable: HashMap<usize, Vec<u8>>,
    /// The write during which the process is killed: so many are still to come before it.
    crash: Option<usize>,
    is_dead: bool,
    /// One write in so many fails, and one read. Zero: none.
    failing: [usize; 2],
    failed: bool,
    outside: Option<String>,
}

impl FaultyMedia {
    pub(super) fn new(bytes: u64, random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            now: vec![0; bytes as usize],
            durable: HashMap::new(),
            crash: None,
            is_dead: false,
            failing: [0; 2],
            failed: false,
            outside: None,
        })))
    }

    pub(super) fn grow(&self, bytes: u64) {
        self.0.lock().now.resize(bytes as usize, 0);
    }

    /// One write in `writes` fails from now on, and one read in `reads`. Zero: none.
    pub(super) fn fail(&self, writes: usize, reads: usize) {
        self.0.lock().failing = [writes, reads];
    }

    /// The process dies in the middle of a write, `after` others.
    pub(super) fn crash(&self, after: usize) {
        self.0.lock().crash = Some(after);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.lock().is_dead
    }

    /// A write has failed, though nobody died of it.
    pub(super) fn has_failed(&self) -> bool {
        self.0.lock().failed
    }

    /// Another process may use it: all that was written is there.
    pub(super) fn revive(&self) {
        let mut state = self.0.lock();
        (state.crash, state.is_dead) = (None, false);
    }

    /// The system writes some of what it holds.
    pub(super) fn write_back(&self, one_in: usize) {
        let state = &mut *self.0.lock();
        let mut dirty: Vec<usize> = state.durable.keys().copied().collect();
        dirty.sort_unstable();
        dirty.retain(|_| state.random.one_in(one_in));
        dirty.iter().for_each(|page| _ = state.durable.remove(page));
    }

    /// Of what was not written back, each page is there, or is not, or some sectors of it are.
    pub(super) fn lose_power(&self) {
        let state = &mut *self.0.lock();
        let mut lost: Vec<(usize, Vec<u8>)> = state.durable.drain().collect();
        lost.sort_unstable_by_key(|(page, _)| *page);
        for (page, before) in lost {
            let how = state.random.below(3);
            let at = page * PAGE;
            for (sector, before) in before.chunks(SECTOR).enumerate() {
                if how == 0 || how == 1 && state.random.one_in(2) {
                    let at = at + sector * SECTOR;
                    state.now[at..at + before.len()].copy_from_slice(before);
                }
            }
        }
    }

    pub(super) fn flip(&self, offset: u64, bit: u32) {
        let state = &mut *self.0.lock();
        let at = offset as usize;
        state.now[at] ^= 1 << bit;
        if let Some(before) = state.durable.get_mut(&(at / PAGE)) {
            before[at % PAGE] ^= 1 << bit;
        }
    }

    /// What was written or read where nothing is.
    pub(super) fn outside(&self) -> Option<String> {
        self.0.lock().outside.clone()
    }
}

impl State {
    fn may_read(&mut self, bytes: usize, offset: u64) -> io::Result<usize> {
        let at = offset as usize;
        if at + bytes > self.now.len() {
            self.outside = Some(format!("{bytes} bytes are read at {offset}"));
        }
        let [_, reads] = self.failing;
        if self.is_dead || self.outside.is_some() || reads > 0 && self.random.one_in(reads) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(at)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let pages = at / PAGE..(at + bytes.len()).div_ceil(PAGE);
        for page in pages {
            let end = ((page + 1) * PAGE).min(self.now.len());
            let now = &self.now[page * PAGE..end];
            self.durable.entry(page).or_insert_with(|| now.to_vec());
        }
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Where a killed process was in a write: often close to where a piece begins.
    fn cut(&mut self, pieces: &[&[u8]], bytes: usize) -> usize {
        if pieces.is_empty() || self.random.one_in(2) {
            return self.random.below(bytes + 1);
        }
        let piece = self.random.below(pieces.len());
        let at: usize = pieces[..piece].iter().map(|piece| piece.len()).sum();
        (at + self.random.below(80)).min(bytes)
    }
}

impl Media for FaultyMedia {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let at = state.may_read(buffer.len(), offset)?;
        buffer.copy_from_slice(&state.now[at..at + buffer.len()]);
        Ok(())
    }

    fn read_at_once(&self, buffers: &mut [&mut [u8]; 2], offset: u64) -> io::Result<bool> {
        let mut state = self.0.lock();
        let mut at = state.may_read(buffers[0].len() + buffers[1].len(), offset)?;
        if state.random.one_in(3) {
            return Ok(false);
        }
        for buffer in buffers {
            buffer.copy_from_slice(&state.now[at..at + buffer.len()]);
            at += buffer.len();
        }
        Ok(true)
    }

    fn write(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let (bytes, at) = (pieces.concat(), offset as usize);
        if at + bytes.len() > state.now.len() {
            state.outside = Some(format!("{} bytes are written at {offset}", bytes.len()));
        }
        if state.is_dead || state.outside.is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        match &mut state.crash {
            Some(0) => {
                let cut = state.cut(pieces, bytes.len());
                state.put(at, &bytes[..cut]);
                state.is_dead = true;
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(after) => *after -= 1,
            None => {}
        }
        let [writes, _] = state.failing;
        if writes == 0 || !state.random.one_in(writes) {
            state.put(at, &bytes);
            return Ok(());
        }
        state.failed = true;
        if state.random.one_in(2) {
            let cut = state.cut(pieces, bytes.len());
            state.put(at, &bytes[..cut]);
            return Err(io::Error::from_raw_os_error(28));
        }
        for (sector, part) in bytes.chunks(SECTOR).enumerate() {
            if state.random.one_in(2) {
                state.put(at + sector * SECTOR, part);
            }
        }
        Err(io::Error::from_raw_os_error(5))
    }
}
