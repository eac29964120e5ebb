//! One reader of a fill: the head, then the body at its own pace.

use std::sync::Arc;

use bytes::Bytes;

use super::{End, Fill, FillHead, Interim, Read};
use crate::origin::Failure;

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
                state.readers.offsets[self.slot] = Some(self.offset);
                let writer_may_wait = !state.keeping;
                drop(state);
                if writer_may_wait {
                    self.fill.room.notify_one();
                }
                Ok(Next::Piece(piece))
            }
            Read::NotYet => Ok(Next::NotYet),
            Read::End => Ok(Next::End),
            Read::Lost => Err(Failure::ReaderTooSlow),
            Read::Failed(failure) => Err(failure),
        }
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
        if state.readers.count == 0 {
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
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Piece(Bytes),
    NotYet,
    /// The whole body has been read.
    End,
}
