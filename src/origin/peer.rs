//! An origin as Pingora connects to it: address, name, deadlines.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_config::section::origin::{HostHeader, Origin, OriginScheme};
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;

use crate::clock;
use crate::origin::Failure;

/// How long the addresses of a name are used before it is resolved again.
const RESOLVED_FOR: Duration = Duration::from_secs(30);

/// One origin and the addresses its name last resolved to.
pub struct OriginPeer {
    origin: Origin,
    resolved: Mutex<Option<(SocketAddr, Instant)>>,
}

impl OriginPeer {
    pub fn new(origin: Origin) -> Self {
        Self { origin, resolved: Mutex::new(None) }
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What to call this origin in logs.
    pub fn label(&self) -> &str {
        &self.origin.host
    }

    /// The `Host` of a request to it.
    pub fn host_header<'a>(&'a self, client_host: &'a [u8]) -> &'a [u8] {
        match &self.origin.host_header {
            HostHeader::Origin(authority) | HostHeader::Fixed(authority) => authority.as_bytes(),
            HostHeader::Client => client_host,
        }
    }

    /// The peer to connect to.
    ///
    /// # Errors
    /// The name does not resolve.
    pub async fn resolve(&self) -> Result<HttpPeer, Failure> {
        let address = self.address().await.ok_or(Failure::Unreachable)?;
        let tls = self.origin.scheme == OriginScheme::Https;
        let mut peer = HttpPeer::new(address, tls, self.origin.host.clone());
        let timeouts = &self.origin.timeouts;
        peer.options.connection_timeout = Some(timeouts.connect.get());
        peer.options.total_connection_timeout = Some(timeouts.connect.get());
        peer.options.read_timeout = Some(timeouts.between_bytes.get());
        peer.options.write_timeout = Some(timeouts.between_bytes.get());
        peer.options.idle_timeout = Some(timeouts.idle.get());
        Ok(peer)
    }

    async fn address(&self) -> Option<SocketAddr> {
        if let Ok(ip) = self.origin.host.parse() {
            return Some(SocketAddr::new(ip, self.origin.port));
        }
        let now = clock::monotonic();
        let known = *self.resolved.lock();
        if let Some((address, at)) = known
            && now.duration_since(at) < RESOLVED_FOR
        {
            return Some(address);
        }
        let lookup = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port)).await;
        // IPv4 first: a host without IPv6 would otherwise wait for a connection that cannot succeed.
        let mut addresses: Vec<SocketAddr> = lookup.ok()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = addresses.first().copied().or(known.map(|(address, _)| address))?;
        *self.resolved.lock() = Some((address, now));
        Some(address)
    }
}
