//! One reader of a fill: the head, then the body at its own pace.

use std::sync::Arc;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use super::{End, Fill, FillHead, Interim, Read};
use crate::origin::Failure;
use crate::store::body::Sparse;

/// One reader of a fill. Dropping it leaves the fill.
pub struct Reader {
    pub(super) fill: Arc<Fill>,
    pub(super) slot: usize,
    pub(super) offset: u64,
}

impl Reader {
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Waits for the head, or for an interim response after the first `seen`.
    ///
    /// # Errors
    /// The fill failed before there was a head.
    pub async fn head(&self, seen: usize) -> Result<Begun, Failure> {
        loop {
            let notified = self.fill.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.fill.state.lock();
                if let Some(interim) = state.interims.get(seen) {
                    return Ok(Begun::Interim(interim.clone()));
                }
                match (&state.head, &state.end) {
                    (Some(head), _) => return Ok(Begun::Head(head.clone())),
                    (None, Some(End::Failed(failure))) => return Err(*failure),
                    (None, Some(End::Complete)) => return Err(Failure::Abandoned),
                    (None, None) => {}
                }
            }
            notified.await;
        }
    }

    /// The next bytes if they are there already.
    ///
    /// # Errors
    /// The fill failed, or this reader fell too far behind: what the client has so far must not look complete.
    pub fn try_next(&mut self) -> Result<Next, Failure> {
        let mut state = self.fill.state.lock();
        match state.read(self.offset) {
            Read::Piece(piece) => {
                self.offset += piece.len() as u64;
                state.readers.move_to(self.slot, self.offset);
                let writer_may_wait = !state.keeping;
                drop(state);
                if writer_may_wait {
                    self.fill.room.notify_one();
                }
                Ok(Next::Piece(piece))
            }
            Read::OnDisk(on_disk) => Ok(Next::OnDisk(on_disk)),
            Read::NotYet => Ok(Next::NotYet),
            Read::End => Ok(Next::End),
            Read::Lost => Err(Failure::ReaderTooSlow),
            Read::Failed(failure) => Err(failure),
        }
    }

    /// Goes on at this byte, whether it is there or not.
    pub fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
        let mut state = self.fill.state.lock();
        state.readers.move_to(self.slot, offset);
        state.forget();
        drop(state);
        self.fill.room.notify_one();
    }

    /// Reads the next bytes from the disk they are on.
    ///
    /// # Errors
    /// They are not there any more.
    pub async fn read(&mut self, on_disk: &Sparse) -> Result<Bytes, Failure> {
        let (index, skip) = (self.offset / CHUNK_BYTES as u64, self.offset % CHUNK_BYTES as u64);
        let chunk = match u32::try_from(index) {
            Ok(index) => on_disk.load(index, CHUNK_BYTES as u32).await,
            Err(_) => None,
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let piece = chunk.filter(|chunk| skip < chunk.len()).ok_or(Failure::ReaderTooSlow)?.slice(skip..);
        self.offset += piece.len() as u64;
        let mut state = self.fill.state.lock();
        state.readers.move_to(self.slot, self.offset);
        Ok(piece)
    }

    /// Waits until [`Self::try_next`] has something to say.
    pub async fn ready(&self) {
        loop {
            let notified = self.fill.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if !matches!(self.fill.state.lock().read(self.offset), Read::NotYet) {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fill.state.lock();
        state.readers.remove(self.slot);
        if state.readers.count() == 0 {
            state.abandoned_at = Some(state.received);
        }
        state.forget();
        drop(state);
        self.fill.room.notify_one();
    }
}

/// What a response begins with.
pub enum Begun {
    Interim(Arc<Interim>),
    Head(Arc<FillHead>),
}

/// What a reader finds.
pub enum Next {
    Piece(Bytes),
    /// They are on a disk: [`Reader::read`].
    OnDisk(Sparse),
    NotYet,
    /// The whole body has been read.
    End,
}
