//! Asking an origin over Pingora's connector, with deadlines and limits of our own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use edge_config::section::limits::{FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, ErrorType};

use super::peer::OriginPeer;
use super::{Failure, OriginBody, OriginRequest, OriginResponse, Upstream};
use crate::semantics::fields::Fields;
use crate::semantics::hop_by_hop::end_to_end;
use crate::telemetry::metrics::Metrics;

/// A connection from the pool may be dying; a request on it is tried again this often, always before the first byte.
const RETRIES_MAX: u32 = 2;

/// The real upstream.
pub struct Fetch {
    connector: Arc<Connector>,
    peer: Arc<OriginPeer>,
    /// The label index of the site in the metrics.
    site: usize,
    metrics: Arc<Metrics>,
}

impl Fetch {
    pub fn new(peer: Arc<OriginPeer>, site: usize, metrics: Arc<Metrics>) -> Self {
        Self { connector: Arc::new(Connector::new(None)), peer, site, metrics }
    }

    async fn attempt(&self, peer: &HttpPeer, request: &OriginRequest) -> Result<HttpSession, Attempt> {
        let timeouts = &self.peer.origin().timeouts;
        let connecting = self.connector.get_http_session(peer);
        let (mut session, reused) = match tokio::time::timeout(timeouts.connect.get(), connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(_)) | Err(_) => return Err(Attempt::Final(Failure::Unreachable)),
        };
        let header = self.request_header(request).ok_or(Attempt::Final(Failure::Malformed))?;
        session.set_write_timeout(Some(timeouts.between_bytes.get()));
        session.set_read_timeout(Some(timeouts.first_byte.get()));
        let exchange = async {
            session.write_request_header(Box::new(header)).await?;
            loop {
                session.read_response_header().await?;
                // Interim responses are not for us; the final one follows.
                let interim = session.response_header().is_some_and(|head| head.status.is_informational());
                if !interim {
                    return Ok::<(), BError>(());
                }
            }
        };
        match tokio::time::timeout(timeouts.first_byte.get(), exchange).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(Attempt::of(&error, reused)),
            Err(_) => Err(Attempt::Final(Failure::FirstByteTimeout)),
        }
    }

    fn request_header(&self, request: &OriginRequest) -> Option<RequestHeader> {
        let fields = Fields::new(&request.fields);
        let count = fields.lines().count() + 1;
        let mut header = RequestHeader::build_no_case(request.method, &request.target, Some(count)).ok()?;
        let host = self.peer.host_header(&request.host);
        header.insert_header(http::header::HOST, http::HeaderValue::from_bytes(host).ok()?).ok()?;
        for line in fields.lines() {
            let name = http::HeaderName::from_bytes(line.name).ok()?;
            header.append_header(name, http::HeaderValue::from_bytes(line.value).ok()?).ok()?;
        }
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
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError if reused => Self::Again,
            _ => Self::Final(failure_of(error)),
        }
    }
}

fn failure_of(error: &BError) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::BetweenBytesTimeout,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Failure::Closed,
        _ => Failure::Malformed,
    }
}

#[async_trait]
impl Upstream for Fetch {
    async fn open(&self, request: &OriginRequest) -> Result<OriginResponse, Failure> {
        let started = crate::clock::monotonic();
        let opened = async {
            let peer = self.peer.resolve().await?;
            let mut retries = 0;
            let session = loop {
                match self.attempt(&peer, request).await {
                    Ok(session) => break session,
                    Err(Attempt::Again) if retries < RETRIES_MAX => retries += 1,
                    Err(Attempt::Again) => return Err(Failure::Closed),
                    Err(Attempt::Final(failure)) => return Err(failure),
                }
            };
            self.response(session, peer, request, retries)
        }
        .await;
        self.metrics.origin_seconds(crate::clock::monotonic().duration_since(started).as_secs_f64());
        let outcome = match &opened {
            Ok(response) if response.status >= 500 => "status-5xx",
            Ok(_) => "ok",
            Err(failure) => failure.outcome(),
        };
        self.metrics.origin_request(self.site, outcome);
        opened
    }
}

impl Fetch {
    fn response(
        &self,
        mut session: HttpSession,
        peer: HttpPeer,
        request: &OriginRequest,
        retries: u32,
    ) -> Result<OriginResponse, Failure> {
        session.set_read_timeout(Some(self.peer.origin().timeouts.between_bytes.get()));
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
            connector: self.connector.clone(),
            remaining: if bodiless { Some(0) } else { length },
            idle: self.peer.origin().timeouts.idle.get(),
        };
        Ok(OriginResponse { status, fields, length, body: Box::new(body), retries })
    }
}

/// RFC 9112 section 6.3: `Transfer-Encoding` is `chunked` and nothing else, or the response cannot be delimited safely.
fn framing_is_sound(header: &ResponseHeader) -> bool {
    let mut encodings = header.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(one), None) => {
            one.as_bytes().eq_ignore_ascii_case(b"chunked") && header.version == http::Version::HTTP_11
        }
        _ => false,
    }
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

struct FetchBody {
    session: Option<HttpSession>,
    peer: HttpPeer,
    connector: Arc<Connector>,
    remaining: Option<u64>,
    idle: std::time::Duration,
}

#[async_trait]
impl OriginBody for FetchBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(session) = self.session.as_mut() else { return Ok(None) };
            if session.response_done() || self.remaining == Some(0) {
                return self.finish().await;
            }
            match session.read_response_body().await {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.checked_sub(piece.len() as u64).ok_or(Failure::Malformed)?;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => return self.finish().await,
                Err(error) => {
                    self.session = None;
                    return Err(failure_of(&error));
                }
            }
        }
    }
}

impl FetchBody {
    async fn finish(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(mut session) = self.session.take() else { return Ok(None) };
        if self.remaining.is_some_and(|remaining| remaining > 0) {
            return Err(Failure::Closed);
        }
        // Only a connection at the end of its response goes back to the pool.
        if session.response_done() {
            self.connector.release_http_session(session, &self.peer, Some(self.idle)).await;
        }
        Ok(None)
    }
}
