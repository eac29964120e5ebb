//! Reading and writing with deadlines.
//!
//! One timer serves all deadlines of a connection. It is armed lazily: while requests come and go faster than the
//! deadline, moving the deadline costs nothing, and only when the timer fires is it compared with what is due.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edge_config::section::limits::SEND_RATE_MIN;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::clock;

/// Bytes taken from the socket at once. On the stack: an idle connection holds no buffer.
const READ_BYTES: usize = 16 << 10;

/// The one timer of a connection.
pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub fn new(first: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(first.into())))
    }

    /// Ready once `deadline` has passed.
    pub fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            if self.0.deadline().into_std() > deadline {
                self.0.as_mut().reset(deadline.into());
            }
            ready!(self.0.as_mut().poll(context));
            if clock::monotonic() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline.into());
        }
    }
}

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The client closed its side, or the connection broke.
    Closed,
    Late,
    /// `stop` said so.
    Stopped,
}

/// Reads what is there into `buffer`, at least a byte. `stop` is asked before every wait.
///
/// # Errors
/// Why there is nothing to read any more.
pub async fn read_some(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    timer: &mut Timer,
    deadline: Instant,
    mut stop: impl FnMut(&mut Context<'_>) -> bool,
) -> Result<(), ReadEnd> {
    poll_fn(|context| {
        match poll_read(stream, buffer, context) {
            Poll::Ready(Ok(n)) if n > 0 => return Poll::Ready(Ok(())),
            Poll::Ready(_) => return Poll::Ready(Err(ReadEnd::Closed)),
            Poll::Pending => {}
        }
        if stop(context) {
            return Poll::Ready(Err(ReadEnd::Stopped));
        }
        timer.poll(context, deadline).map(|()| Err(ReadEnd::Late))
    })
    .await
}

/// Reads without waiting longer than the poll, appending to `buffer`. Zero bytes: the end.
pub fn poll_read(stream: &mut Stream, buffer: &mut BytesMut, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut space = [MaybeUninit::uninit(); READ_BYTES];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(context, &mut read))?;
    buffer.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// When a client that takes nothing is given up: a pause of `stall` at most, and no less than [`SEND_RATE_MIN`] on
/// average.
pub struct Patience {
    stall: Duration,
    until: Option<Instant>,
}

impl Patience {
    pub fn new(stall: Duration) -> Self {
        Self { stall, until: None }
    }

    /// When it ends; it begins now, if it has not.
    pub fn deadline(&mut self) -> Instant {
        let stall = self.stall;
        *self.until.get_or_insert_with(|| clock::monotonic() + stall)
    }

    pub fn progress(&mut self, bytes: usize) {
        if let Some(until) = self.until {
            let earned = Duration::from_millis(bytes as u64 * 1000 / SEND_RATE_MIN);
            self.until = Some((until + earned).min(clock::monotonic() + self.stall));
        }
    }
}

/// Writes all of `slices`, in as few system calls as the socket takes.
///
/// # Errors
/// The connection broke, or the client took too little for too long.
pub async fn write_all(
    stream: &mut Stream,
    timer: &mut Timer,
    slices: &mut [IoSlice<'_>],
    stall: Duration,
) -> io::Result<()> {
    let mut slices = slices;
    let mut patience = Patience::new(stall);
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = poll_fn(|context| match Pin::new(&mut *stream).poll_write_vectored(context, slices) {
            Poll::Pending => {
                let deadline = patience.deadline();
                timer.poll(context, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            ready => ready,
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        patience.progress(written);
        IoSlice::advance_slices(&mut slices, written);
    }
    // Under TLS this is where the last bytes leave.
    poll_fn(|context| match Pin::new(&mut *stream).poll_flush(context) {
        Poll::Pending => {
            let deadline = patience.deadline();
            timer.poll(context, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
        }
        ready => ready,
    })
    .await
}

/// Breaks the connection so that the client sees an error and not an end: with a reset, nothing looks complete.
pub fn reset(stream: &Stream) {
    use std::os::fd::BorrowedFd;
    let descriptor = stream.id();
    if descriptor < 0 {
        return;
    }
    // SAFETY: the descriptor belongs to `stream`, which is borrowed and therefore open for the whole call.
    #[expect(unsafe_code, reason = "Pingora gives the descriptor of a stream only as a number")]
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    // A socket that cannot be set is broken already.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
