//! TLS records on a connection: rustls does the cryptography, this moves the bytes.
//!
//! Answers are sealed into whole records straight from where they are stored; only the rest of a record is copied and
//! waits for more. Nothing goes to the socket before [`Records::poll_drain`] or before `UNSENT_MAX` is reached, so that
//! all answers to one read leave in one system call.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 << 10;
/// Sealed bytes that wait for the socket at most. With 256 KiB large answers were 8 % slower: it leaves the CPU's cache.
const UNSENT_MAX: usize = 64 << 10;
/// Slices looked at in one write; what is behind them is for the next.
const SLICES_MAX: usize = 64;

/// A connection under TLS.
pub struct Records {
    io: Stream,
    tls: ServerConnection,
    /// The beginning of the next record.
    staged: Vec<u8>,
    /// Plain bytes sealed since the socket had taken everything.
    unsent: usize,
    /// Bytes the socket has taken, from the beginning.
    sent: u64,
}

/// The socket, as rustls wants it: what would wait is an error.
struct Socket<'s, 'c, 'w> {
    io: &'s mut Stream,
    context: &'c mut Context<'w>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(ready) => ready,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Socket<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(buffer);
        or_would_block(Pin::new(&mut *self.io).poll_read(self.context, &mut read))?;
        Ok(read.filled().len())
    }
}

impl Write for Socket<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write_vectored(self.context, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from the socket into `read_tls` of whatever part of rustls reads now. Ready with false: the end.
pub fn poll_fill(
    io: &mut Stream,
    context: &mut Context<'_>,
    read_tls: impl FnOnce(&mut dyn Read) -> io::Result<usize>,
) -> Poll<io::Result<bool>> {
    match read_tls(&mut Socket { io, context }) {
        Ok(read) => Poll::Ready(Ok(read > 0)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

impl Records {
    pub fn new(io: Stream, mut tls: ServerConnection) -> Self {
        // The bound is ours; rustls would refuse what is beyond its own.
        tls.set_buffer_limit(None);
        Self { io, tls, staged: Vec::new(), unsent: 0, sent: 0 }
    }

    pub fn tls(&self) -> &ServerConnection {
        &self.tls
    }

    pub fn io(&self) -> &Stream {
        &self.io
    }

    /// Bytes the socket has taken so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Goes on with the handshake. Ready: it is done.
    pub fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.poll_send(context)?;
            if !self.tls.is_handshaking() {
                // What is left, tickets mostly, goes out with the first answer.
                return Poll::Ready(Ok(()));
            }
            ready!(flushed);
            ready!(self.poll_receive(context))?;
        }
    }

    /// Reads decrypted bytes. Nothing read: the end, announced as such.
    pub fn poll_read_plain(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            // Copied from where rustls has it, so that the caller's buffer need not be zeroed first.
            match self.tls.reader().into_first_chunk() {
                Ok(chunk) => {
                    let taken = chunk.len().min(buffer.remaining());
                    buffer.put_slice(chunk.get(..taken).unwrap_or_default());
                    self.tls.reader().consume(taken);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_receive(context))?;
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tls, .. } = self;
        ready!(poll_fill(io, context, |socket| tls.read_tls(socket)))?;
        if let Err(error) = tls.process_new_packets() {
            // The alert that says why, if the socket takes it.
            let _ = self.poll_send(context);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to be sent; waits only while too much is unsent.
    pub fn poll_write_plain(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.unsent >= UNSENT_MAX {
            ready!(self.poll_drain(context))?;
        }
        Poll::Ready(self.seal(slices.get(..SLICES_MAX).unwrap_or(slices)))
    }

    /// Seals whole records and stages the rest.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let available = self.staged.len() + total;
        if available < RECORD_BYTES {
            slices.iter().for_each(|slice| self.staged.extend_from_slice(slice));
            return Ok(total);
        }
        // As many whole records as there are, but not past the bound by more than one write.
        let mut whole = (available / RECORD_BYTES * RECORD_BYTES).min(UNSENT_MAX) - self.staged.len();
        let taken_whole = whole;
        let mut sealed = Vec::with_capacity(slices.len() + 1);
        sealed.push(IoSlice::new(&self.staged));
        let mut rest: &[IoSlice<'_>] = slices;
        let mut rest_at = 0;
        while let [first, others @ ..] = rest {
            let taken = first.len().min(whole);
            let (now, later) = first.split_at(taken);
            sealed.push(IoSlice::new(now));
            whole -= taken;
            if !later.is_empty() {
                rest_at = taken;
                break;
            }
            rest = others;
        }
        let bytes = self.staged.len() + taken_whole;
        let written = self.tls.writer().write_vectored(&sealed)?;
        debug_assert_eq!(written, bytes, "there is no limit that could refuse some");
        self.unsent += written;
        self.staged.clear();
        let left = total - taken_whole;
        if left >= RECORD_BYTES {
            return Ok(taken_whole);
        }
        for slice in rest {
            self.staged.extend_from_slice(slice.get(rest_at..).unwrap_or_default());
            rest_at = 0;
        }
        Ok(total)
    }

    /// Sends everything that was taken.
    pub fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.staged.is_empty() {
            self.tls.writer().write_all(&self.staged)?;
            self.staged.clear();
        }
        ready!(self.poll_send(context))?;
        self.unsent = 0;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket { io: &mut self.io, context }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.sent += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more follows, and closes the sending side.
    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is staged comes before close_notify, or it never leaves.
        ready!(self.poll_drain(context))?;
        self.tls.send_close_notify();
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
