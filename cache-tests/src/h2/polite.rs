//! An HTTP/2 client that keeps to the protocol: many requests at once, flow control, interim answers and trailers.

use std::future::poll_fn;
use std::io;

use ::h2::RecvStream;
use ::h2::client::{Builder, ResponseFuture, SendRequest};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Version};

use crate::client::HOST;
use crate::deadline::PATIENCE;
use crate::deadline::within;
use crate::response::{End, Head, Response};
use crate::stream::Stream;

/// Requests at a time before the node has said how many it takes.
const FIRST_STREAMS: usize = 10;

/// One connection; clones share it. It ends with the last of them and of the answers.
#[derive(Clone, Debug)]
pub struct Polite {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Begun {
    pub interim: Vec<Head>,
    pub head: Head,
    body: RecvStream,
}

/// A request that was sent.
#[derive(Debug)]
pub struct Sent {
    future: ResponseFuture,
    body: ::h2::SendStream<Bytes>,
}

/// The body of a request whose answer may have begun.
#[derive(Debug)]
pub struct Sending {
    body: ::h2::SendStream<Bytes>,
}

impl Polite {
    /// # Errors
    /// When the node does not speak HTTP/2.
    pub async fn open(stream: Stream) -> io::Result<Self> {
        let mut builder = Builder::new();
        // The node's own limit is known only once its SETTINGS are here.
        Self::open_with(stream, builder.initial_max_send_streams(FIRST_STREAMS)).await
    }

    /// # Errors
    /// See [`Self::open`].
    pub async fn open_with(stream: Stream, builder: &Builder) -> io::Result<Self> {
        let (requests, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        // Ends with the connection; its failure is for the requests to tell.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { requests, authority: HOST.to_owned() })
    }

    /// The same connection, for another site.
    pub fn to(&self, authority: &str) -> Self {
        Self { requests: self.requests.clone(), authority: authority.to_owned() }
    }

    /// Asks and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes; an answer that breaks off is returned, with its [`End`].
    pub async fn exchange(&self, method: &str, target: &str, lines: &[&str], body: Option<Bytes>) -> Response {
        let begun = self.begin(method, target, lines, body).await;
        begun.unwrap_or_else(|end| panic!("{method} {target} has no answer: {end:?}")).whole().await
    }

    pub async fn get(&self, target: &str) -> Response {
        self.exchange("GET", target, &[], None).await
    }

    /// Asks, and reads as far as the final head.
    ///
    /// # Errors
    /// How the stream or the connection ended instead.
    pub async fn begin(&self, method: &str, target: &str, lines: &[&str], body: Option<Bytes>) -> Result<Begun, End> {
        let mut sent = self.send(method, target, lines, body.is_none()).await?;
        if let Some(body) = body {
            sent.send_body(body, true)?;
        }
        sent.begun().await
    }

    /// Sends a head; a body can follow unless this is the end.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub async fn send(&self, method: &str, target: &str, lines: &[&str], end: bool) -> Result<Sent, End> {
        let mut request = Request::builder()
            .version(Version::HTTP_2)
            .method(method)
            .uri(format!("https://{}{target}", self.authority));
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field line: {line:?}"));
            request = request.header(name.to_ascii_lowercase(), value);
        }
        let request = request.body(()).unwrap_or_else(|error| panic!("{method} {target} {lines:?}: {error}"));
        let ready = within(PATIENCE, "the node allows one more stream", self.requests.clone().ready()).await;
        let (future, body) = ready.and_then(|mut ready| ready.send_request(request, end)).map_err(end_of)?;
        Ok(Sent { future, body })
    }
}

impl Sent {
    /// Flow control is kept to in the background.
    ///
    /// # Errors
    /// How the stream ended.
    pub fn send_body(&mut self, bytes: Bytes, end: bool) -> Result<(), End> {
        self.body.send_data(bytes, end).map_err(end_of)
    }

    /// Sends as the node takes it: a body that does not fit into memory twice.
    ///
    /// # Errors
    /// How the stream ended.
    pub async fn send_all(&mut self, mut bytes: Bytes, end: bool) -> Result<(), End> {
        while !bytes.is_empty() {
            self.body.reserve_capacity(bytes.len());
            let room = poll_fn(|context| self.body.poll_capacity(context));
            let room = within(PATIENCE, "the node takes more of a body", room).await;
            let room = room.ok_or(End::Cut)?.map_err(end_of)?;
            let now = bytes.split_to(room.min(bytes.len()));
            self.body.send_data(now, end && bytes.is_empty()).map_err(end_of)?;
        }
        Ok(())
    }

    /// What is still sent, and what comes meanwhile.
    pub fn split(self) -> (Sending, impl Future<Output = Result<Begun, End>>) {
        (Sending { body: self.body }, begun(self.future))
    }

    /// # Errors
    /// How the stream ended.
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), End> {
        self.body.send_trailers(trailers).map_err(end_of)
    }

    /// RST_STREAM, by the client.
    pub fn cancel(mut self) {
        self.body.send_reset(::h2::Reason::CANCEL);
    }

    /// Reads as far as the final head.
    ///
    /// # Errors
    /// How the stream or the connection ended instead.
    pub async fn begun(self) -> Result<Begun, End> {
        begun(self.future).await
    }
}

impl Sending {
    /// Flow control is kept to in the background.
    ///
    /// # Errors
    /// How the stream ended.
    pub fn send_body(&mut self, bytes: Bytes, end: bool) -> Result<(), End> {
        self.body.send_data(bytes, end).map_err(end_of)
    }
}

async fn begun(mut future: ResponseFuture) -> Result<Begun, End> {
    let mut interim = Vec::new();
    let head = async {
        while let Some(informational) = poll_fn(|context| future.poll_informational(context)).await {
            interim.push(informational.map(|response| head_of(response.status(), response.headers()))?);
        }
        future.await
    };
    match tokio::time::timeout(PATIENCE, head).await {
        Ok(Ok(response)) => {
            let head = head_of(response.status(), response.headers());
            Ok(Begun { interim, head, body: response.into_body() })
        }
        Ok(Err(error)) => Err(end_of(error)),
        Err(_) => Err(End::Stalled),
    }
}

impl Begun {
    /// The next bytes of the body, as they come; the window opens again by as much.
    ///
    /// # Errors
    /// The end, clean or not.
    pub async fn some_body(&mut self) -> Result<Bytes, End> {
        match tokio::time::timeout(PATIENCE, self.body.data()).await {
            Ok(Some(Ok(bytes))) => {
                let _ = self.body.flow_control().release_capacity(bytes.len());
                Ok(bytes)
            }
            Ok(Some(Err(error))) => Err(end_of(error)),
            Ok(None) => Err(End::Whole),
            Err(_) => Err(End::Stalled),
        }
    }

    /// The rest of the body and its end.
    pub async fn rest(&mut self) -> (Bytes, End) {
        let mut body = BytesMut::new();
        loop {
            match self.some_body().await {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(end) => return (body.freeze(), end),
            }
        }
    }

    /// After the body.
    ///
    /// # Errors
    /// How the stream ended instead.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, End> {
        self.body.trailers().await.map_err(end_of)
    }

    /// The rest of it, and how it ended.
    pub async fn whole(mut self) -> Response {
        let (body, end) = self.rest().await;
        Response { status: self.head.status, head: self.head, body, end }
    }
}

fn head_of(status: http::StatusCode, fields: &HeaderMap) -> Head {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = fields.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    Head { version: "HTTP/2".to_owned(), status: status.as_u16(), fields }
}

fn end_of(error: ::h2::Error) -> End {
    match error.reason() {
        Some(reason) if error.is_reset() => End::StreamReset(reason.into()),
        _ if error.is_io() => End::Reset,
        _ => End::Cut,
    }
}
