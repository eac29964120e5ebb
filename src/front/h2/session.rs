//! An HTTP/2 stream as Pingora's proxy knows sessions: the way of what only the origin can answer.
//!
//! The proxy gets the gate's own reading of the head, never the client's. Interim responses go through; a client that
//! resets its stream is noticed while the origin is waited for.

use std::future::poll_fn;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::Stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{BError, Error, ErrorType};

use super::answer::room;
use crate::front::connection::Patience;

/// A body up to this size can be sent again when a connection to an origin fails.
const RETRY_BYTES_MAX: usize = 64 << 10;

type Result<T> = std::result::Result<T, BError>;

/// One stream.
pub struct Session {
    request: Box<RequestHeader>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    no_body: bool,
    body_done: bool,
    ended: bool,
    read: usize,
    sent: usize,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    retry: Option<BytesMut>,
    retry_truncated: bool,
}

fn failed(kind: ErrorType, error: impl std::error::Error + Send + Sync + 'static) -> BError {
    Error::because(kind, "HTTP/2 stream", error).into_down()
}

fn failure(kind: ErrorType) -> BError {
    Error::new_down(kind)
}

impl Session {
    pub fn new(request: RequestHeader, body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let no_body = body.is_end_stream();
        Self {
            request: Box::new(request),
            body,
            respond,
            stream: None,
            written: None,
            no_body,
            body_done: no_body,
            ended: false,
            read: 0,
            sent: 0,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            retry: None,
            retry_truncated: false,
        }
    }

    async fn next_data(&mut self) -> Result<Option<Bytes>> {
        let limit = self.read_timeout.unwrap_or(Duration::MAX);
        while !self.body_done {
            let next = tokio::time::timeout(limit, self.body.data()).await;
            match next.map_err(|_| failure(ErrorType::ReadTimedout))? {
                Some(Ok(data)) => {
                    // The client may send as much again; what the origin does not take stops it by and by.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.body_done = self.body.is_end_stream();
                    self.read += data.len();
                    // A frame without data is no chunk: written as one it would end the body for the origin, and what
                    // follows would be another request.
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(failed(ErrorType::ReadError, error)),
                None => self.body_done = true,
            }
        }
        Ok(None)
    }

    fn send_head(&mut self, response: Box<ResponseHeader>, ends: bool) -> Result<()> {
        if self.written.is_some() || self.ended {
            return Ok(());
        }
        let mut head = http::Response::new(());
        *head.status_mut() = response.status;
        for (name, value) in &response.headers {
            if !is_connection_field(name) {
                head.headers_mut().append(name, value.clone());
            }
        }
        if response.status.is_informational() {
            if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
                return Ok(());
            }
            return self.respond.send_informational(head).map_err(|error| failed(ErrorType::WriteError, error));
        }
        let stream = self.respond.send_response(head, ends).map_err(|error| failed(ErrorType::WriteError, error))?;
        self.stream = Some(stream);
        self.written = Some(response);
        self.ended = ends;
        Ok(())
    }

    async fn send_body(&mut self, mut data: Bytes, ends: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(failure(ErrorType::H2Error)) };
        let mut patience = Patience::new(self.write_timeout.unwrap_or(Duration::from_secs(60)));
        let mut timer = None;
        while !data.is_empty() {
            let room = room(stream, data.len(), &mut patience, &mut timer).await.map_err(|error| {
                let late = error.kind() == std::io::ErrorKind::TimedOut;
                failed(if late { ErrorType::WriteTimedout } else { ErrorType::WriteError }, error)
            })?;
            let now = data.split_to(room.min(data.len()));
            patience.progress(now.len());
            self.sent += now.len();
            self.ended = ends && data.is_empty();
            stream.send_data(now, self.ended).map_err(|error| failed(ErrorType::WriteError, error))?;
        }
        if ends { self.end() } else { Ok(()) }
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(failure(ErrorType::H2Error)) };
        self.ended = true;
        stream.send_trailers(trailers).map_err(|error| failed(ErrorType::WriteError, error))
    }

    fn end(&mut self) -> Result<()> {
        match &mut self.stream {
            Some(stream) if !self.ended => {
                self.ended = true;
                stream.send_data(Bytes::new(), true).map_err(|error| failed(ErrorType::WriteError, error))
            }
            _ => Ok(()),
        }
    }

    fn break_off(&mut self, reason: Reason) {
        if !self.ended {
            self.ended = true;
            match &mut self.stream {
                Some(stream) => stream.send_reset(reason),
                None => self.respond.send_reset(reason),
            }
        }
    }

    /// Keeps what was read, to send it again.
    fn keep(&mut self, data: &Bytes) {
        if let Some(retry) = &mut self.retry {
            if retry.len() + data.len() > RETRY_BYTES_MAX {
                self.retry_truncated = true;
            } else {
                retry.extend_from_slice(data);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever was not ended properly must not look as if it had been.
        self.break_off(Reason::INTERNAL_ERROR);
    }
}

/// RFC 9113 section 8.2.2.
fn is_connection_field(name: &header::HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[async_trait]
impl CustomSession for Session {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let data = self.next_data().await?;
        if let Some(data) = &data {
            self.keep(data);
        }
        Ok(data)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while self.next_data().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, response: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_head(response, end)
    }

    async fn write_response_header_ref(&mut self, response: &ResponseHeader, end: bool) -> Result<()> {
        self.send_head(Box::new(response.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut done = false;
        for task in tasks {
            done |= match task {
                HttpTask::Header(head, end) => {
                    self.send_head(head, end)?;
                    end
                }
                HttpTask::Body(data, end) => {
                    self.send_body(data.unwrap_or_default(), end).await?;
                    end
                }
                HttpTask::UpgradedBody(..) => return Err(failure(ErrorType::InternalError)),
                HttpTask::Trailer(Some(trailers)) => {
                    self.send_trailers(*trailers)?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if done {
            self.end()?;
        }
        Ok(done)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("HTTP/2 {} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, code: u32, _: &str) {
        self.break_off(if code == 0 { Reason::CANCEL } else { Reason::from(code) });
    }

    async fn abandon(&mut self, _: &str) {
        self.break_off(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.body_done
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.no_body
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.body_done {
            return self.read_body_bytes().await;
        }
        let reset = poll_fn(|context| match &mut self.stream {
            Some(stream) => stream.poll_reset(context),
            None => self.respond.poll_reset(context),
        });
        match reset.await {
            Ok(_) => Err(failure(ErrorType::ConnectionClosed)),
            Err(error) => Err(failed(ErrorType::ConnectionClosed, error)),
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_default();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry_truncated
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let kept = self.retry.as_ref().filter(|kept| !self.retry_truncated && !kept.is_empty());
        kept.map(|kept| kept.clone().freeze())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
