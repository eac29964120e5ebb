//! The connection under the `h2` crate, shared with the task that serves it.
//!
//! The crate flushes after each frame; here that does nothing. The task drains when there is nothing left to read and
//! to answer, so that the answers to everything a client sent at once leave at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::clock;
use crate::front::tls::records::Records;

/// A handle to the connection. One task uses all of them, so the lock is never waited for.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    records: Records,
    watch: Watch,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Bytes the socket has taken so far.
    pub sent: u64,
    pub excess: bool,
    pub unfinished_since: Option<Instant>,
}

impl Shared {
    pub fn new(records: Records) -> Self {
        Self(Arc::new(Mutex::new(Inner { records, watch: Watch::new(clock::monotonic()) })))
    }

    /// Sends what was written.
    pub fn poll_drain(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().records.poll_drain(context)
    }

    /// Says that nothing more follows.
    pub fn poll_close(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().records.poll_close(context)
    }

    pub fn standing(&self) -> Standing {
        let inner = self.0.lock();
        Standing {
            sent: inner.records.sent(),
            excess: inner.watch.is_excess(),
            unfinished_since: inner.watch.unfinished_since(),
        }
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        if inner.watch.is_excess() {
            // Nothing more is read from somebody who sends too much of nothing; the task ends the connection.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let poll = inner.records.poll_read_plain(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            inner.watch.take(read, clock::monotonic());
        }
        poll
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().records.poll_write_plain(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().records.poll_write_plain(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(context)
    }
}
