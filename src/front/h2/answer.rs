//! HTTP/2 answers on a stream.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};

use super::heads::{append, head_of};
use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::front::connection::{Patience, Timer};
use crate::front::log::Times;
use crate::semantics::fields::Fields;
use crate::store::record::StoredResponse;

/// What is asked of the window at a time.
const PIECE_BYTES: usize = 256 << 10;

/// One answer.
pub struct Answer {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    /// The head that waits to be sent.
    head: Option<Response<()>>,
    /// Bytes of the body that were promised and are still to come.
    promised: Option<u64>,
    ended: bool,
    /// What there was no room for in the client's window; only for answers that do not wait.
    rest: Vec<Bytes>,
    waits: bool,
    write_timeout: Duration,
    /// When something was handed to the connection; kept only by answers that wait.
    first_byte: Option<Instant>,
}

impl Answer {
    /// An answer that waits for room.
    pub fn new(respond: SendResponse<Bytes>, write_timeout: Duration) -> Self {
        Self {
            respond,
            stream: None,
            head: None,
            promised: None,
            ended: false,
            rest: Vec::new(),
            waits: true,
            write_timeout,
            first_byte: None,
        }
    }

    /// An answer whose every method is done at once: what there is no room for is left for [`Self::send_rest`].
    pub fn at_once(respond: SendResponse<Bytes>, write_timeout: Duration) -> Self {
        Self { waits: false, ..Self::new(respond, write_timeout) }
    }

    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Sends what there was no room for, as room is made.
    ///
    /// # Errors
    /// The client has gone, or made too little room for too long.
    pub async fn send_rest(&mut self) -> io::Result<()> {
        self.waits = true;
        self.first_byte = Some(clock::monotonic());
        let rest = std::mem::take(&mut self.rest);
        self.send_pieces(rest).await
    }

    /// When it began and that it ends now. What never waits does both at once.
    pub fn times(&self) -> Times {
        let mut times = Times::ended(self.first_byte);
        if !self.waits && self.stream.is_some() {
            times.first_byte = Some(times.ended);
        }
        times
    }

    /// Breaks the stream off, so that nothing looks complete.
    pub fn reset(&mut self) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn send_head(&mut self, head: Response<()>, ends: bool) -> io::Result<()> {
        if self.waits {
            self.first_byte.get_or_insert_with(clock::monotonic);
        }
        self.stream = Some(self.respond.send_response(head, ends).map_err(io::Error::other)?);
        self.ended = ends;
        Ok(())
    }

    fn send_waiting_head(&mut self, ends: bool) -> io::Result<()> {
        match self.head.take() {
            Some(head) => self.send_head(head, ends),
            None => Ok(()),
        }
    }

    async fn send_piece(&mut self, piece: Bytes) -> io::Result<()> {
        if !self.waits
            && self.rest.is_empty()
            && self.stream.as_mut().is_some_and(|stream| has_room(stream, piece.len()))
        {
            return self.hand_over(piece);
        }
        self.send_pieces(vec![piece]).await
    }

    async fn send_pieces(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let total: usize = pieces.iter().map(Bytes::len).sum();
        if !self.waits {
            let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
            if self.rest.is_empty() && has_room(stream, total) {
                return pieces.into_iter().try_for_each(|piece| self.hand_over(piece));
            }
            self.rest.extend(pieces);
            return Ok(());
        }
        let mut patience = Patience::new(self.write_timeout);
        let mut timer = None;
        for mut piece in pieces {
            while !piece.is_empty() {
                let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
                let room = room(stream, piece.len(), &mut patience, &mut timer).await?;
                let now = piece.split_to(room.min(piece.len()));
                patience.progress(now.len());
                self.hand_over(now)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, piece: Bytes) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(promised) = &mut self.promised {
            *promised = promised.saturating_sub(piece.len() as u64);
        }
        self.ended = self.promised == Some(0);
        stream.send_data(piece, self.ended).map_err(io::Error::other)
    }
}

/// Waits for room in the client's windows: some, at most `wanted`.
///
/// # Errors
/// The stream has ended, or the client made too little room for too long.
pub(super) async fn room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    patience: &mut Patience,
    timer: &mut Option<Timer>,
) -> io::Result<usize> {
    stream.reserve_capacity(wanted.min(PIECE_BYTES));
    poll_fn(|context| {
        loop {
            // Room that was there before is not announced.
            let room = stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Poll::Pending => break,
            }
        }
        let deadline = patience.deadline();
        let timer = timer.get_or_insert_with(|| Timer::new(deadline));
        timer.poll(context, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

/// Whether the windows have room for `wanted` bytes now.
fn has_room(stream: &mut SendStream<Bytes>, wanted: usize) -> bool {
    stream.reserve_capacity(wanted);
    stream.capacity() >= wanted
}

impl Exchange for Answer {
    async fn stored(&mut self, response: &Arc<StoredResponse>, part: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        let mut head = Response::new(());
        *head.status_mut() = status(response.status());
        *head.headers_mut() = head_of(response, Fields::new(dynamic));
        let length = response.body_len();
        if part == StoredPart::Head || length == 0 {
            return self.send_head(head, true);
        }
        self.send_head(head, false)?;
        self.promised = Some(length);
        if response.chunks().is_empty() {
            let block = Bytes::from_owner(Block(response.clone()));
            return self.send_piece(block.slice(response.wire_head().len()..)).await;
        }
        self.send_pieces(response.chunks().to_vec()).await
    }

    async fn interim(&mut self, code: u16, fields: &[u8]) -> io::Result<()> {
        let mut head = Response::new(());
        *head.status_mut() = status(code);
        append(Fields::new(fields), head.headers_mut());
        self.respond.send_informational(head).map_err(io::Error::other)
    }

    fn head(&mut self, code: u16, fields: &[&[u8]], length: BodyLength) {
        let mut head = Response::new(());
        *head.status_mut() = status(code);
        let headers = head.headers_mut();
        fields.iter().for_each(|block| append(Fields::new(block), headers));
        if let BodyLength::Known(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            self.promised = Some(length);
        }
        self.head = Some(head);
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Ok(());
        }
        self.send_waiting_head(false)?;
        let mut copy = BytesMut::with_capacity(total);
        slices.iter().for_each(|slice| copy.extend_from_slice(slice));
        self.send_piece(copy.freeze()).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.send_waiting_head(false)
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.send_waiting_head(true)?;
        if self.ended || !self.rest.is_empty() {
            return Ok(());
        }
        // A body of unknown length ends here; one that was promised and is not complete must not.
        if self.promised.is_some_and(|promised| promised > 0) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.ended = true;
        match &mut self.stream {
            Some(stream) => stream.send_data(Bytes::new(), true).map_err(io::Error::other),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn gone(&mut self) {
        poll_fn(|context| match &mut self.stream {
            Some(stream) => stream.poll_reset(context).map(|_| ()),
            None => self.respond.poll_reset(context).map(|_| ()),
        })
        .await;
    }
}

/// The block of a stored response as shared bytes.
struct Block(Arc<StoredResponse>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.0.wire_block()
    }
}

pub(super) fn status(code: u16) -> http::StatusCode {
    http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::BAD_GATEWAY)
}
