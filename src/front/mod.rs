//! Clients: connections, the gate, HTTP/1 and HTTP/2, TLS, and the pass path for what is not cacheable.
//!
//! - [`gate`]: the head of a request, accepted with exactly one framing or refused. Pure.
//! - [`registry`]: who is connected, how many from one address, and how to wake them when the node drains.
//! - [`proxied`]: the header by which a load balancer says whose connection it passes on.
//! - [`connection`]: reading and writing with deadlines.
//! - [`tls`]: handshakes, certificates and records.
//! - [`request`]: what both protocols do with a request once its head is accepted.
//! - [`answer`], [`h1`]: HTTP/1, its answers and its connections.
//! - [`mod@h2`] is HTTP/2.
//! - [`pass`]: the pass path, Pingora's `HttpProxy`.
//! - [`mirroring`]: copies of requests.
//! - [`explain`]: what would become of a request.
//! - [`log`]: a request's log record and metrics.

pub mod answer;
pub mod connection;
pub mod explain;
pub mod gate;
pub mod h1;
pub mod h2;
pub mod log;
pub mod mirroring;
mod nodes;
pub mod pass;
pub mod proxied;
pub mod registry;
pub mod request;
pub mod tls;

use std::net::{self, IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use edge_config::section::listener::Listen;
use edge_config::section::site::Network;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::server::ShutdownWatch;

use self::connection::Timer;
use self::log::Log;
use self::pass::Pass;
use self::registry::{Lease, Registry};
use self::tls::Tls;
use self::tls::issued::Issued;
use self::tls::stream::TlsStream;
use crate::clock;
use crate::fleet::Fleet;
use crate::pipeline::Pipeline;
use crate::routing::Snapshots;
use crate::semantics::cdn_loop::CdnId;

/// What every connection shares.
pub struct Front {
    pub pipeline: Arc<Pipeline>,
    pub snapshots: Arc<Snapshots>,
    pub registry: Arc<Registry>,
    pub pass: Pass,
    pub log: Log,
    /// What the node calls itself in `CDN-Loop`.
    pub cdn: CdnId,
    /// From where connections begin with a header of the PROXY protocol; a new configuration swaps it.
    pub proxies: ArcSwap<Vec<Network>>,
    /// What authorities that issue certificates are shown.
    pub issued: Arc<Issued>,
    /// The other nodes, where there are some that may ask this one.
    pub fleet: Option<Arc<Fleet>>,
}

/// Who is at the other end of a connection, and how it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub client: IpAddr,
    /// The version of TLS; none in the clear.
    pub tls: Option<&'static str>,
    /// It is the client of another node, which asks for it.
    pub relayed: bool,
}

impl Peer {
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// All listeners: one service, so that its workers serve both.
pub struct Doors {
    pub front: Arc<Front>,
    /// None where nobody listens for TLS.
    pub tls: Option<Arc<Tls>>,
    pub listen: Listen,
}

#[async_trait]
impl ServerApp for Doors {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let digest = stream.get_socket_digest();
        let address = |socket: Option<&SocketAddr>| socket.and_then(|address| address.as_inet()).copied();
        let client = address(digest.as_ref().and_then(|digest| digest.peer_addr()));
        let client = client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |inet| inet.ip());
        let (stream, client) = match self.front.is_proxy(client) {
            true => Box::pin(self.front.proxied(stream, client)).await?,
            false => (stream, client),
        };
        let lease = self.front.registry.admit(client)?;
        let local = address(digest.as_ref().and_then(|digest| digest.local_addr()));
        match &self.tls {
            Some(tls) if local.is_some_and(|local| is_https(&self.listen, local)) => {
                // What the handshake needs is not carried along for the life of the connection.
                Box::pin(self.front.serve_tls(tls, stream, client, lease, shutdown)).await;
            }
            _ => self.front.serve_h1(stream, Peer { client, tls: None, relayed: false }, lease, shutdown).await,
        }
        None
    }
}

impl Front {
    /// Whether connections from an address are passed on for somebody else, who is told first.
    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.load().iter().any(|network| network.contains(address))
    }

    /// A connection of a load balancer, and whose it is.
    async fn proxied(&self, stream: Stream, address: IpAddr) -> Option<(Stream, IpAddr)> {
        let deadline = clock::monotonic() + self.snapshots.load().limits.head_timeout.get();
        match proxied::accept(stream, deadline).await {
            Ok((stream, told)) => Some((stream, told.unwrap_or(address))),
            Err(end) => {
                end.reason().into_iter().for_each(|reason| self.log.dropped(reason));
                None
            }
        }
    }

    async fn serve_tls(
        self: &Arc<Self>,
        tls: &Tls,
        stream: Stream,
        client: IpAddr,
        lease: Lease,
        shutdown: &ShutdownWatch,
    ) {
        let deadline = clock::monotonic() + tls.handshake_timeout();
        let mut timer = Timer::new(deadline);
        let (records, agreed) = match Box::pin(tls.accept(stream, &mut timer, deadline)).await {
            Ok(accepted) => accepted,
            Err(end) => return end.reason().into_iter().for_each(|reason| self.log.dropped(reason)),
        };
        self.log.handshake(agreed.version, agreed.resumed);
        let peer = Peer { client, tls: Some(agreed.version), relayed: false };
        if agreed.http2 {
            h2::serve(self, records, peer, lease, timer, shutdown).await;
        } else {
            self.serve_h1(Box::new(TlsStream::new(records)), peer, lease, shutdown).await;
        }
    }
}

/// Whether a connection came in on a listener for TLS. One for every address yields to one for exactly this.
fn is_https(listen: &Listen, local: net::SocketAddr) -> bool {
    let ip = local.ip().to_canonical();
    let exact = |address: &net::SocketAddr| address.port() == local.port() && address.ip().to_canonical() == ip;
    let any = |address: &net::SocketAddr| address.port() == local.port() && address.ip().is_unspecified();
    listen.https.iter().any(exact) || (listen.https.iter().any(any) && !listen.http.iter().any(exact))
}

#[cfg(test)]
mod listener_tests {
    use super::*;

    #[test]
    fn which_listeners_speak_tls() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        let listen = Listen {
            http: addresses(&["0.0.0.0:80", "127.0.0.1:443"]),
            https: addresses(&["[::]:443", "10.0.0.1:8443"]),
            health: Vec::new(),
            proxies: Vec::new(),
        };
        for (local, https) in [
            ("10.0.0.1:80", false),
            ("10.0.0.1:443", true),
            ("[::ffff:10.0.0.1]:443", true),
            ("127.0.0.1:443", false),
            ("[::ffff:127.0.0.1]:443", false),
            ("10.0.0.1:8443", true),
            ("10.0.0.2:8443", false),
        ] {
            assert_eq!(is_https(&listen, local.parse().expect("an address")), https, "{local}");
        }
    }
}
