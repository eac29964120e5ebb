//! The body of an answer, as it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, ErrorType};

use super::{failure_of, within};
use crate::origin::group::{Lease, Member, Origins};
use crate::origin::{Failure, OriginBody};

/// A body that comes from an origin.
pub(super) struct FetchBody {
    pub(super) session: Option<HttpSession>,
    pub(super) peer: HttpPeer,
    pub(super) member: Arc<Member>,
    /// Until the end of the body.
    pub(super) lease: Option<Arc<Lease>>,
    /// When the member was chosen.
    pub(super) began: Instant,
    pub(super) origins: Arc<Origins>,
    pub(super) remaining: Option<u64>,
    pub(super) idle: Duration,
    /// When the whole response is due.
    pub(super) deadline: Option<Instant>,
}

#[async_trait]
impl OriginBody for FetchBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(session) = self.session.as_mut() else { return Ok(None) };
            // A stream of HTTP/2 has an end of its own; a length that is reached is not that yet.
            let all_there = self.remaining == Some(0) && !matches!(session, HttpSession::H2(_));
            if all_there || (session.response_done() && ended_well(session)) {
                return self.finish().await;
            }
            let read = within(self.deadline, session.read_response_body()).await;
            match read.unwrap_or_else(|| Err(BError::from(pingora::Error::new_up(ErrorType::ReadTimedout)))) {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.checked_sub(piece.len() as u64).ok_or(Failure::Malformed)?;
                    }
                    // Before the client has the last piece, and asks for the next thing.
                    if self.remaining == Some(0) && matches!(session, HttpSession::H1(_)) && session.response_done() {
                        self.finish().await?;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => return self.finish().await,
                Err(error) => {
                    self.session = None;
                    self.lease = None;
                    self.member.failed(self.began, &self.origins.metrics);
                    return Err(failure_of(&error));
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.deadline
    }
}

/// A stream of HTTP/2 that was reset has ended too, but not well; reading on says so.
fn ended_well(session: &mut HttpSession) -> bool {
    match session {
        HttpSession::H2(stream) => stream.check_response_end_or_error().unwrap_or(false),
        _ => true,
    }
}

impl FetchBody {
    async fn finish(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(mut session) = self.session.take() else { return Ok(None) };
        let _until_here = self.lease.take();
        // Trailers have no place in a stored response, but the stream has not ended before them.
        let trailers = match &mut session {
            HttpSession::H2(stream) => {
                within(self.deadline, stream.read_trailers()).await.is_some_and(|read| read.is_ok())
            }
            _ => true,
        };
        if self.remaining.is_some_and(|remaining| remaining > 0) || !trailers || !ended_well(&mut session) {
            self.member.failed(self.began, &self.origins.metrics);
            return Err(Failure::Closed);
        }
        // Only a connection at the end of its response goes back to the pool.
        if session.response_done() {
            self.origins.connector.release_http_session(session, &self.peer, Some(self.idle)).await;
        }
        Ok(None)
    }
}
