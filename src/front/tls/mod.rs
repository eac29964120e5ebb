//! TLS: from the ClientHello to decrypted bytes.
//!
//! - [`certificates`]: certificates by name, and the settings of rustls.
//! - [`own`]: certificates that sites bring themselves; [`sealed`]: their private keys, on their way and at rest.
//! - [`hosts`]: whose a name is; [`leaf`]: what a certificate says of itself.
//! - [`issued`]: those that come while the node runs, and what an authority wants to see for them.
//! - [`staple`]: whether a certificate is revoked, asked and judged; [`staples`]: what goes with handshakes of it.
//! - [`tickets`]: session tickets whose keys follow the clock.
//! - [`records`]: the bytes of a connection, sealed and opened.
//! - [`stream`]: such a connection as HTTP/1 reads and writes it.

pub mod certificates;
pub mod hosts;
pub mod issued;
pub mod leaf;
pub mod own;
pub mod records;
pub mod sealed;
pub mod staple;
pub mod staples;
pub mod stream;
pub mod tickets;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::protocols::Stream;
use rustls::server::{Accepted, Acceptor, ProducesTickets};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt;

use self::certificates::Certificates;
use self::issued::Issued;
use self::records::{Records, poll_fill};
use crate::front::connection::Timer;

/// What handshakes are done with now; a new configuration swaps it whole.
pub struct Tls(ArcSwap<Settings>);

/// The settings of handshakes.
pub struct Settings {
    pub certificates: Arc<Certificates>,
    pub server: Arc<ServerConfig>,
    /// From the connection to the end of the handshake.
    pub handshake_timeout: Duration,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: &'static str,
    pub resumed: bool,
    pub http2: bool,
}

/// Why there was no handshake. The client has been told, where that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeEnd {
    /// Nothing came, or the client went away.
    Closed,
    Late,
    /// No certificate is for the name it asked for.
    UnknownName,
    /// Not TLS, or nothing in common.
    Failed,
}

impl HandshakeEnd {
    /// The label of the refusal; none for a client that just went away.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Late => Some("tls-timeout"),
            Self::UnknownName => Some("tls-unknown-name"),
            Self::Failed => Some("tls-handshake"),
        }
    }
}

/// What is left of the time for a handshake when the certificate is there.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Alert record: fatal, unrecognized_name (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Tls {
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(settings)))
    }

    /// From now on handshakes are done with these. Connections go on as they are.
    pub fn replace(&self, settings: Settings) {
        self.0.store(Arc::new(settings));
    }

    pub fn certificates(&self) -> Arc<Certificates> {
        self.0.load().certificates.clone()
    }

    /// What seals the tickets of sessions.
    pub fn tickets(&self) -> Arc<dyn ProducesTickets> {
        self.0.load().server.ticketer.clone()
    }

    /// From the connection to the end of the handshake.
    pub fn handshake_timeout(&self) -> Duration {
        self.0.load().handshake_timeout
    }

    /// Does a handshake.
    ///
    /// # Errors
    /// Why there was none.
    pub async fn accept(
        &self,
        stream: Stream,
        timer: &mut Timer,
        deadline: Instant,
    ) -> Result<(Records, Agreed), HandshakeEnd> {
        let mut stream = stream;
        let mut acceptor = Acceptor::default();
        let accepted = poll_fn(|context| {
            loop {
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Poll::Ready(Ok(Ok(accepted))),
                    Ok(None) => {}
                    Err((_, alert)) => return Poll::Ready(Ok(Err(alert))),
                }
                match poll_fill(&mut stream, context, |socket| acceptor.read_tls(socket)) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(HandshakeEnd::Closed)),
                    Poll::Pending => return timer.poll(context, deadline).map(|()| Err(HandshakeEnd::Late)),
                }
            }
        })
        .await?;
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(mut alert) => return Err(refuse(&mut stream, |out| alert.write_all(out), HandshakeEnd::Failed).await),
        };
        let current = self.0.load_full();
        let issued = current.certificates.issued();
        if let Some(challenge) = issued.challenged(&accepted.client_hello()) {
            return Err(show_challenge(accepted, challenge, stream, timer, deadline).await);
        }
        let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        let is_there = current.certificates.find(name.as_deref()).is_some();
        if !is_there && !Box::pin(wait_for(issued, name.as_deref(), deadline)).await {
            let alert = |out: &mut Vec<u8>| io::Write::write_all(out, &UNRECOGNIZED_NAME);
            return Err(refuse(&mut stream, alert, HandshakeEnd::UnknownName).await);
        }
        let tls = match accepted.into_connection(current.server.clone()) {
            Ok(tls) => tls,
            Err((_, mut alert)) => {
                return Err(refuse(&mut stream, |out| alert.write_all(out), HandshakeEnd::Failed).await);
            }
        };
        let mut records = Records::new(stream, tls);
        shake_hands(&mut records, timer, deadline).await?;
        let agreed = Agreed {
            version: if records.tls().protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                "TLSv1.3"
            } else {
                "TLSv1.2"
            },
            resumed: records.tls().handshake_kind() == Some(HandshakeKind::Resumed),
            http2: records.tls().alpn_protocol() == Some(b"h2"),
        };
        Ok((records, agreed))
    }
}

/// Does the handshake by which an authority sees that a host is ours, and ends it there.
async fn show_challenge(
    accepted: Accepted,
    challenge: Arc<ServerConfig>,
    stream: Stream,
    timer: &mut Timer,
    deadline: Instant,
) -> HandshakeEnd {
    let Ok(tls) = accepted.into_connection(challenge) else { return HandshakeEnd::Failed };
    let mut records = Records::new(stream, tls);
    match shake_hands(&mut records, timer, deadline).await {
        Ok(()) => HandshakeEnd::Closed,
        Err(end) => end,
    }
}

/// Waits for a certificate that is issued now, for as long as the client has not gone away by itself.
async fn wait_for(issued: &Issued, name: Option<&str>, deadline: Instant) -> bool {
    match name {
        Some(name) => issued.wait_for(name, deadline.checked_sub(ANSWER_WITHIN).unwrap_or(deadline)).await,
        None => false,
    }
}

async fn shake_hands(records: &mut Records, timer: &mut Timer, deadline: Instant) -> Result<(), HandshakeEnd> {
    poll_fn(|context| match records.poll_handshake(context) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Poll::Ready(Err(HandshakeEnd::Failed)),
        Poll::Ready(Err(_)) => Poll::Ready(Err(HandshakeEnd::Closed)),
        Poll::Pending => {
            ready!(timer.poll(context, deadline));
            Poll::Ready(Err(HandshakeEnd::Late))
        }
    })
    .await
}

/// Sends an alert, as far as the socket takes it at once.
async fn refuse(
    stream: &mut Stream,
    alert: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    end: HandshakeEnd,
) -> HandshakeEnd {
    let mut out = Vec::new();
    if alert(&mut out).is_ok() {
        let _ = AsyncWriteExt::write(stream, &out).await;
        let _ = AsyncWriteExt::flush(stream).await;
    }
    end
}
