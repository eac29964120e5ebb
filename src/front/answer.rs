//! HTTP/1 answers on a connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use edge_config::section::limits::HEAD_BYTES_MAX;
use pingora::protocols::Stream;

use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::front::connection::{Timer, poll_read, write_all};
use crate::store::record::{StoredResponse, write_content_length};

/// A block up to this size is copied behind its head: one plain write is cheaper than a vectored one.
const COPY_MAX: usize = 8 << 10;
/// Slices handed to the kernel at once (`IOV_MAX` is 1,024).
const SLICES_MAX: usize = 64;

/// One answer of a connection.
pub struct Answer<'c> {
    pub stream: &'c mut Stream,
    pub timer: &'c mut Timer,
    /// The head that waits to be sent; the connection's own, so that no request allocates it.
    pub out: &'c mut Vec<u8>,
    /// What the client sent meanwhile.
    pub pipelined: &'c mut BytesMut,
    pub write_timeout: Duration,
    /// HTTP/1.0 knows no chunks.
    pub chunks_allowed: bool,
    /// HTTP/1.0 has to be told that the connection stays.
    pub says_keep_alive: bool,
    pub keep_alive: bool,
    pub chunked: bool,
    /// Something has gone out.
    pub first_byte: Option<Instant>,
}

impl Answer<'_> {
    fn status_line(&mut self, status: u16) {
        self.out.clear();
        if status == 200 {
            self.out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            return;
        }
        self.out.extend_from_slice(b"HTTP/1.1 ");
        self.out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        self.out.push(b' ');
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        self.out.extend_from_slice(reason.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn connection_line(&mut self) {
        if !self.keep_alive {
            self.out.extend_from_slice(b"connection: close\r\n");
        } else if self.says_keep_alive {
            self.out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }

    async fn send(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.first_byte.get_or_insert_with(clock::monotonic);
        let mut all: Vec<IoSlice<'_>> = Vec::with_capacity(slices.len() + 1);
        if !self.out.is_empty() {
            all.push(IoSlice::new(self.out));
        }
        all.extend(slices.iter().map(|slice| IoSlice::new(slice)));
        for part in all.chunks_mut(SLICES_MAX) {
            write_all(self.stream, self.timer, part, self.write_timeout).await?;
        }
        self.out.clear();
        Ok(())
    }
}

impl Exchange for Answer<'_> {
    async fn stored(&mut self, response: &Arc<StoredResponse>, part: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        let (block, chunks): (&[u8], &[Bytes]) = match part {
            StoredPart::Whole => (response.wire_block(), response.chunks()),
            StoredPart::Head => (response.wire_head(), &[]),
        };
        self.status_line(response.status());
        self.out.extend_from_slice(dynamic);
        self.connection_line();
        if chunks.is_empty() && block.len() <= COPY_MAX {
            self.out.extend_from_slice(block);
            self.first_byte = Some(clock::monotonic());
            let mut one = [IoSlice::new(self.out)];
            return write_all(self.stream, self.timer, &mut one, self.write_timeout).await;
        }
        let mut slices = Vec::with_capacity(1 + chunks.len());
        slices.push(block);
        slices.extend(chunks.iter().map(Bytes::as_ref));
        self.send(&slices).await
    }

    async fn interim(&mut self, status: u16, fields: &[u8]) -> io::Result<()> {
        // HTTP/1.0 knows neither chunks nor interim responses.
        if !self.chunks_allowed {
            return Ok(());
        }
        self.status_line(status);
        self.out.extend_from_slice(fields);
        self.out.extend_from_slice(b"\r\n");
        let first_byte = self.first_byte;
        let sent = self.send(&[]).await;
        self.first_byte = first_byte;
        sent
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength) {
        self.status_line(status);
        for block in fields {
            self.out.extend_from_slice(block);
        }
        match length {
            BodyLength::None => {}
            BodyLength::Known(length) => write_content_length(length, self.out),
            BodyLength::Unknown if self.chunks_allowed => {
                self.chunked = true;
                self.out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            BodyLength::Unknown => self.keep_alive = false,
        }
        self.connection_line();
        self.out.extend_from_slice(b"\r\n");
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Ok(());
        }
        if !self.chunked {
            return self.send(slices).await;
        }
        let size = format!("{total:x}\r\n");
        let mut framed = Vec::with_capacity(slices.len() + 2);
        framed.push(size.as_bytes());
        framed.extend_from_slice(slices);
        framed.push(b"\r\n");
        self.send(&framed).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.send(&[]).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.chunked {
            return self.send(&[b"0\r\n\r\n"]).await;
        }
        self.flush().await
    }

    async fn gone(&mut self) {
        poll_fn(|context| {
            // A client may send its next request early; past the bound that has to wait in the socket.
            while self.pipelined.len() < HEAD_BYTES_MAX {
                match poll_read(self.stream, self.pipelined, context) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Pending
        })
        .await;
    }
}
