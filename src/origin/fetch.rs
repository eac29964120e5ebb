//! Asking an origin over Pingora's connector, with deadlines and limits of our own.

mod body;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use edge_config::section::limits::{FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, ErrorType};

use self::body::FetchBody;
use super::group::{Choice, Group, Wanted};
use super::prepare::{Payload, prepare};
use super::retry::{is_failure, is_tried_again};
use super::session::{Place, Session};
use super::{Failure, Interims, OriginRequest, OriginResponse, Upstream};
use crate::semantics::fields::Fields;
use crate::semantics::hop_by_hop::end_to_end;

/// A connection from the pool may be dying; a request on it is tried again with the same origin this often.
const STALE_CONNECTIONS_MAX: u32 = 2;

/// How long a request waits for the budget of retries to have one for it.
const BUDGET_PAUSE: Duration = Duration::from_millis(100);

/// The real upstream: the origins of a site.
pub struct Fetch {
    group: Arc<Group>,
    /// The label index of the site in the metrics.
    site: usize,
}

impl Fetch {
    pub fn new(group: Arc<Group>, site: usize) -> Self {
        Self { group, site }
    }

    /// Asks one origin, on a new connection when those it kept are dead.
    async fn ask(
        &self,
        choice: &Choice,
        request: &OriginRequest,
        interim: Interims<'_>,
    ) -> Result<(HttpSession, HttpPeer), Failure> {
        let peer = choice.member.to_connect(choice.connect, request.client);
        let mut stale = 0;
        loop {
            match self.attempt(choice, &peer, request, interim).await {
                Ok(session) => return Ok((session, peer)),
                Err(Attempt::Again) if stale < STALE_CONNECTIONS_MAX => stale += 1,
                Err(Attempt::Again) => return Err(Failure::Closed),
                Err(Attempt::Final(failure)) => return Err(failure),
            }
        }
    }

    async fn attempt(
        &self,
        choice: &Choice,
        peer: &HttpPeer,
        request: &OriginRequest,
        interim: Interims<'_>,
    ) -> Result<HttpSession, Attempt> {
        let timeouts = &choice.member.peer.origin().timeouts;
        // Most of what this needs is for handshakes; in a box it does not make everything around it larger.
        let connecting = Box::pin(self.group.origins.connector.get_http_session(peer));
        let (mut session, reused) = match tokio::time::timeout(choice.connect, connecting).await {
            Ok(Ok(connected)) => connected,
            // A stream on a kept connection of HTTP/2 that is just being closed.
            Ok(Err(error)) if *error.etype() == ErrorType::H2Error => return Err(Attempt::Again),
            Ok(Err(_)) | Err(_) => return Err(Attempt::Final(Failure::Unreachable)),
        };
        if !choice.member.peer.accepts(session.digest()) {
            return Err(Attempt::Final(Failure::Unreachable));
        }
        let header = self.request_header(choice, request).and_then(|header| target_for(&session, peer, header));
        let header = header.ok_or(Attempt::Final(Failure::Malformed))?;
        // The connector looks at the peer's only for connecting.
        session.set_write_timeout(Some(timeouts.between_bytes.get()));
        session.set_read_timeout(Some(timeouts.first_byte.get()));
        let exchange = async {
            send_head(&mut session, header).await?;
            loop {
                session.read_response_header().await?;
                match session.response_header() {
                    Some(head) if head.status == http::StatusCode::SWITCHING_PROTOCOLS => return Ok(()),
                    // Nothing was asked that 100 could answer.
                    Some(head) if head.status == http::StatusCode::CONTINUE => {}
                    Some(head) if head.status.is_informational() => {
                        if let Some(block) = field_lines(head) {
                            let mut fields = Vec::with_capacity(block.len());
                            end_to_end(Fields::new(&block)).for_each(|line| line.write(&mut fields));
                            interim(head.status.as_u16(), fields);
                        }
                    }
                    _ => return Ok::<(), BError>(()),
                }
            }
        };
        match tokio::time::timeout(timeouts.first_byte.get(), exchange).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(Attempt::of(&error, reused)),
            Err(_) => Err(Attempt::Final(Failure::FirstByteTimeout)),
        }
    }

    fn request_header(&self, choice: &Choice, request: &OriginRequest) -> Option<RequestHeader> {
        let fields = Fields::new(&request.fields);
        let count = fields.lines().count() + 1;
        let mut header = RequestHeader::build_no_case(request.method, &request.target, Some(count)).ok()?;
        for line in fields.lines() {
            let name = http::HeaderName::from_bytes(line.name).ok()?;
            header.append_header(name, http::HeaderValue::from_bytes(line.value).ok()?).ok()?;
        }
        let host = choice.member.host_header(&request.host);
        prepare(&choice.member, &host, Payload::Empty, crate::clock::wall(), &mut header)?;
        Some(header)
    }
}

/// How an attempt failed.
enum Attempt {
    /// A pooled connection died before the first byte: another one may do.
    Again,
    Final(Failure),
}

impl Attempt {
    fn of(error: &BError, reused: bool) -> Self {
        match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error
                if reused =>
            {
                Self::Again
            }
            _ => Self::Final(failure_of(error)),
        }
    }
}

fn failure_of(error: &BError) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::BetweenBytesTimeout,
        // GOAWAY and a refused stream are H2Error: somebody who is leaving, like one who closes.
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error => {
            Failure::Closed
        }
        _ => Failure::Malformed,
    }
}

/// Sends the head of a request without a body.
pub(super) async fn send_head(session: &mut HttpSession, header: RequestHeader) -> Result<(), BError> {
    match session {
        // Otherwise the origin waits for a body.
        HttpSession::H2(stream) => stream.write_request_header(Box::new(header), true),
        session => session.write_request_header(Box::new(header)).await,
    }
}

/// The header as the protocol of the session wants it: HTTP/2 has the host in the target.
pub(super) fn target_for(session: &HttpSession, peer: &HttpPeer, mut header: RequestHeader) -> Option<RequestHeader> {
    if let HttpSession::H2(_) = session {
        let host = header.headers.get(http::header::HOST)?.as_bytes();
        let target = http::uri::PathAndQuery::try_from(header.raw_path()).ok()?;
        let uri = http::Uri::builder()
            .scheme(if peer.is_tls() { "https" } else { "http" })
            .authority(host)
            .path_and_query(target)
            .build()
            .ok()?;
        header.set_uri(uri);
        header.remove_header(&http::header::HOST);
    }
    Some(header)
}

#[async_trait]
impl Upstream for Fetch {
    async fn open(&self, request: &OriginRequest, interim: Interims<'_>) -> Result<OriginResponse, Failure> {
        if request.avoid.is_none() {
            self.group.begin();
        }
        let key = self.group.key(&request.host, &request.target, Fields::new(&request.fields), request.client);
        let mut wanted = Ask { tried: Vec::new(), avoid: request.avoid, key, session: request.session };
        let mut choice = self.group.choose(wanted.wanted()).await?;
        // One more request for what was asked for already: it must not make a storm worse either.
        if request.avoid.is_some() && !self.group.may_repeat() {
            return Err(Failure::Unreachable);
        }
        let began = crate::clock::monotonic();
        // An answer that another origin might better.
        let mut kept: Option<OriginResponse> = None;
        loop {
            let deadline = choice.member.peer.origin().timeouts.total.map(|total| began + total.get());
            let opened = self.open_soon(&choice, &mut wanted, request, interim, deadline).await;
            let again = match self.is_tried_again(&opened) {
                true => self.group.choose_again(wanted.wanted()),
                false => None,
            };
            match again {
                Some(next) => (kept, choice) = (opened.ok().or(kept), next),
                None => return opened.or_else(|failure| kept.ok_or(failure)),
            }
        }
    }
}

/// Who is wanted for a request, as it goes from one to the other.
struct Ask {
    tried: Vec<usize>,
    avoid: Option<usize>,
    key: u64,
    session: Session,
}

impl Ask {
    fn wanted(&self) -> Wanted<'_> {
        Wanted { tried: &self.tried, avoid: self.avoid, key: self.key, session: self.session }
    }
}

impl Fetch {
    /// GET and HEAD may be asked again, as long as nothing has come.
    fn is_tried_again(&self, opened: &Result<OriginResponse, Failure>) -> bool {
        is_tried_again(self.group.retry(), opened.as_ref().map(|response| response.status).map_err(|failure| *failure))
    }

    /// Asks one origin, and while it has not answered perhaps a second one: whoever answers first, and well, counts. Who was
    /// asked is added to those tried.
    async fn open_soon(
        &self,
        choice: &Choice,
        ask: &mut Ask,
        request: &OriginRequest,
        interim: Interims<'_>,
        deadline: Option<Instant>,
    ) -> Result<OriginResponse, Failure> {
        let retries = ask.tried.len();
        ask.tried.push(choice.index);
        let began = crate::clock::monotonic();
        let mut first = pin!(self.open_at(choice, request, interim, deadline, retries));
        if !self.group.is_checked() && self.group.hedging().is_none() {
            return first.await;
        }
        let second = tokio::select! {
            biased;
            opened = &mut first => return opened,
            second = self.second(choice, ask) => second,
        };
        ask.tried.push(second.index);
        let mut other = Box::pin(self.open_at(&second, request, interim, deadline, retries + 1));
        let (opened, is_first) = tokio::select! {
            opened = &mut first => (opened, true),
            opened = &mut other => (opened, false),
        };
        self.group.origins.metrics.origin_hedged(self.site, !is_first);
        if self.is_tried_again(&opened) {
            let rest = if is_first { other.await } else { first.await };
            return if rest.is_ok() { rest } else { opened };
        }
        let late = if is_first { &second } else { choice };
        self.group.origins.metrics.origin_request(self.site, late.member.peer.label(), Failure::Abandoned.outcome());
        if !is_first {
            self.was_too_slow(choice, began);
        }
        opened
    }

    /// Who is asked beside one that has not answered, once there is reason to ask somebody, and the budget has a retry left.
    async fn second(&self, choice: &Choice, ask: &Ask) -> Choice {
        // A session is where it is: only when nobody will answer there, another is asked.
        let is_free = ask.session.place == Place::Anywhere;
        let delay = self.group.hedging().filter(|_| is_free).and_then(|hedging| hedging.lock().delay());
        let late = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = late => {}
            () = choice.member.fallen() => {}
        }
        loop {
            if let Some(second) = self.group.choose_again(ask.wanted()) {
                return second;
            }
            tokio::time::sleep(BUDGET_PAUSE).await;
        }
    }

    /// Somebody else was faster.
    fn was_too_slow(&self, choice: &Choice, began: Instant) {
        let Some(hedging) = self.group.hedging() else { return };
        let now = crate::clock::monotonic();
        let mut hedging = hedging.lock();
        hedging.took(now.saturating_duration_since(began), now);
        let is_limit = hedging.is_limit();
        drop(hedging);
        if is_limit {
            choice.member.failed(choice.began, &self.group.origins.metrics);
        }
    }

    async fn open_at(
        &self,
        choice: &Choice,
        request: &OriginRequest,
        interim: Interims<'_>,
        deadline: Option<Instant>,
        retries: usize,
    ) -> Result<OriginResponse, Failure> {
        let metrics = &self.group.origins.metrics;
        let member = &choice.member;
        let started = crate::clock::monotonic();
        let asking = pin!(self.ask(choice, request, interim));
        let asked = within(deadline, asking).await;
        let opened = asked
            .unwrap_or(Err(Failure::FirstByteTimeout))
            .and_then(|(session, peer)| self.response(session, peer, choice, request, deadline, retries));
        let took = crate::clock::monotonic().duration_since(started);
        metrics.origin_seconds(took.as_secs_f64());
        let answered = opened.as_ref().is_ok_and(|response| !is_failure(self.group.retry(), response.status));
        if self.group.learns_latency() {
            member.timed(took, answered);
        }
        if let Some(hedging) = self.group.hedging().filter(|_| answered) {
            hedging.lock().took(took, crate::clock::monotonic());
        }
        let outcome = match &opened {
            Ok(response) if response.status >= 500 => "status-5xx",
            Ok(_) => "ok",
            Err(failure) => failure.outcome(),
        };
        metrics.origin_request(self.site, member.peer.label(), outcome);
        if answered {
            member.succeeded(choice.began, metrics);
        } else {
            member.failed(choice.began, metrics);
        }
        opened
    }

    fn response(
        &self,
        mut session: HttpSession,
        peer: HttpPeer,
        choice: &Choice,
        request: &OriginRequest,
        deadline: Option<Instant>,
        retries: usize,
    ) -> Result<OriginResponse, Failure> {
        let timeouts = &choice.member.peer.origin().timeouts;
        session.set_read_timeout(Some(timeouts.between_bytes.get()));
        let header = session.response_header().ok_or(Failure::Malformed)?;
        let status = header.status.as_u16();
        if status == 101 || !framing_is_sound(header) {
            return Err(Failure::Malformed);
        }
        let block = field_lines(header).ok_or(Failure::Malformed)?;
        let length =
            header.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut fields = Vec::with_capacity(block.len());
        for line in end_to_end(Fields::new(&block)).filter(|line| !line.is("content-length")) {
            line.write(&mut fields);
        }
        let bodiless = request.method == "HEAD" || matches!(status, 204 | 304);
        let body = FetchBody {
            session: Some(session),
            peer,
            member: choice.member.clone(),
            lease: Some(choice.lease.clone()),
            began: choice.began,
            origins: self.group.origins.clone(),
            remaining: if bodiless { Some(0) } else { length },
            idle: timeouts.idle.get(),
            deadline,
        };
        let (origin, retries) = (choice.index, u32::try_from(retries).unwrap_or(u32::MAX));
        Ok(OriginResponse { status, fields, length, body: Box::new(body), retries, origin, judged: None })
    }
}

/// Waits no longer than until a deadline.
pub(super) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await.ok(),
        None => Some(work.await),
    }
}

/// RFC 9112 section 6.3: what `Transfer-Encoding` delimits a response with, if it can be delimited safely.
fn framing_is_sound(header: &ResponseHeader) -> bool {
    let mut encodings = header.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(coding), None) if header.version == http::Version::HTTP_11 => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") || is_nobodys_coding(coding.as_bytes())
        }
        _ => false,
    }
}

/// Whether a transfer coding is one that nobody knows: a response under such a name ends with its connection, and what
/// came is its content. One that somebody may know (RFC 9112 section 7.4) has coded it, and we cannot decode it; one that
/// looks like `chunked` may be that to others.
fn is_nobodys_coding(coding: &[u8]) -> bool {
    let lower = coding.to_ascii_lowercase();
    let token = !lower.is_empty() && lower.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    let known: [&[u8]; 7] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity", b"trailers"];
    token && !known.contains(&&*lower) && !lower.windows(5).any(|part| part == b"chunk")
}

/// The field lines as we keep them; `None` beyond the limits or with bytes that no field may hold.
fn field_lines(header: &ResponseHeader) -> Option<Vec<u8>> {
    if header.headers.len() > FIELDS_MAX {
        return None;
    }
    let mut block = Vec::with_capacity(512);
    for (name, value) in &header.headers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(b": ");
        for byte in value.as_bytes() {
            match byte {
                // RFC 9112 section 5.2: an obsolete line folding becomes a space.
                b'\r' | b'\n' => block.push(b' '),
                0 => return None,
                byte => block.push(*byte),
            }
        }
        block.extend_from_slice(b"\r\n");
        if block.len() > RESPONSE_HEAD_BYTES_MAX {
            return None;
        }
    }
    Some(block)
}

#[cfg(test)]
mod tests;
