//! An origin as Pingora connects to it: addresses, names, deadlines.

use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_config::section::origin::{HostHeader, Origin, OriginScheme};
use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock;
use crate::origin::Failure;

/// How long the addresses of a name are used before it is resolved again.
const RESOLVED_FOR: Duration = Duration::from_secs(30);
/// Requests at a time on one HTTP/2 connection; Pingora's default is one.
const STREAMS_MAX: usize = 100;

/// Why the authorities of an origin cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {error}")]
pub struct AuthorityError {
    file: String,
    error: String,
}

/// One origin and the addresses its name last resolved to.
pub struct OriginPeer {
    origin: Origin,
    label: String,
    authorities: Option<Arc<CaType>>,
    /// Keeps connections apart that differ in what Pingora does not look at: the site and its authorities.
    group_key: u64,
    resolved: Mutex<Option<Resolved>>,
}

struct Resolved {
    addresses: Vec<SocketAddr>,
    at: Instant,
}

impl OriginPeer {
    /// An origin of a site.
    ///
    /// # Errors
    /// The file of its authorities cannot be used.
    pub fn new(origin: Origin, site: &str) -> Result<Self, AuthorityError> {
        let authorities = read_authorities(&origin)?;
        let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
        hasher.write(site.as_bytes());
        hasher.write_u8(0);
        for authority in authorities.iter().flat_map(|all| all.iter()) {
            hasher.write(authority.borrow_raw_cert());
        }
        hasher.write_u8(u8::from(origin.http2));
        let label = format!("{}:{}", origin.host, origin.port);
        Ok(Self { group_key: hasher.finish(), origin, label, authorities, resolved: Mutex::new(None) })
    }

    /// Whether another has the same authorities, and so may have its connections.
    pub fn is_like(&self, other: &Self) -> bool {
        self.group_key == other.group_key
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What to call this origin in logs and metrics: host and port.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The `Host` of a request to it.
    pub fn host_header<'a>(&'a self, client_host: &'a [u8]) -> &'a [u8] {
        match &self.origin.host_header {
            HostHeader::Origin(authority) | HostHeader::Fixed(authority) => authority.as_bytes(),
            HostHeader::Client => client_host,
        }
    }

    /// The peer to connect to, at the address that worked last. `connect`: how long that may take.
    ///
    /// # Errors
    /// The name does not resolve.
    pub async fn resolve(&self, connect: Duration) -> Result<HttpPeer, Failure> {
        let address = self.address(connect).await.ok_or(Failure::Unreachable)?;
        let tls = self.origin.scheme == OriginScheme::Https;
        let sni = self.origin.sni.clone().unwrap_or_else(|| self.origin.host.clone());
        let mut peer = HttpPeer::new(address, tls, sni);
        peer.group_key = self.group_key;
        let timeouts = &self.origin.timeouts;
        let options = &mut peer.options;
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        // Pingora's proxy has one for the head and the body; whoever can sets both apart.
        options.read_timeout = Some(timeouts.first_byte.get().max(timeouts.between_bytes.get()));
        options.write_timeout = Some(timeouts.between_bytes.get());
        options.idle_timeout = Some(timeouts.idle.get());
        options.verify_cert = self.origin.verify;
        options.verify_hostname = self.origin.verify;
        options.ca.clone_from(&self.authorities);
        options.max_h2_streams = STREAMS_MAX;
        options.alpn = match (self.origin.http2, tls) {
            (false, _) => ALPN::H1,
            (true, true) => ALPN::H2H1,
            (true, false) => ALPN::H2,
        };
        Ok(peer)
    }

    /// A connection to the present address failed: the next one is tried first from now on.
    pub fn turn(&self) {
        if let Some(resolved) = &mut *self.resolved.lock()
            && !resolved.addresses.is_empty()
        {
            resolved.addresses.rotate_left(1);
        }
    }

    /// `limit`: how long a resolver may take; what it said before is better than waiting for it.
    async fn address(&self, limit: Duration) -> Option<SocketAddr> {
        if let Ok(ip) = self.origin.host.parse() {
            return Some(SocketAddr::new(ip, self.origin.port));
        }
        let now = clock::monotonic();
        let known = self.known();
        if let Some((address, at)) = known
            && now.duration_since(at) < RESOLVED_FOR
        {
            return Some(address);
        }
        let lookup = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port));
        let lookup = tokio::time::timeout(limit, lookup).await;
        // IPv4 first: a host without IPv6 would otherwise wait for a connection that cannot succeed.
        let mut addresses: Vec<SocketAddr> =
            lookup.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let Some(first) = addresses.first().copied() else { return known.map(|(address, _)| address) };
        // The one in use stays in use while its name still has it.
        let kept = known.map(|(address, _)| address).filter(|address| addresses.contains(address)).unwrap_or(first);
        let at = addresses.iter().position(|address| *address == kept).unwrap_or(0);
        addresses.rotate_left(at);
        *self.resolved.lock() = Some(Resolved { addresses, at: now });
        Some(kept)
    }

    fn known(&self) -> Option<(SocketAddr, Instant)> {
        let resolved = self.resolved.lock();
        resolved.as_ref().and_then(|resolved| Some((*resolved.addresses.first()?, resolved.at)))
    }
}

fn read_authorities(origin: &Origin) -> Result<Option<Arc<CaType>>, AuthorityError> {
    let Some(path) = &origin.ca else { return Ok(None) };
    let wrong = |error: String| AuthorityError { file: path.display().to_string(), error };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let mut authorities = Vec::new();
    for certificate in read {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        // Pingora parses it again, and panics where it cannot.
        X509Certificate::from_der(&certificate).map_err(|error| wrong(error.to_string()))?;
        authorities.push(WrappedX509::new(certificate.to_vec(), parse_x509));
    }
    if authorities.is_empty() {
        return Err(wrong("there is no certificate in the file".into()));
    }
    Ok(Some(authorities.into()))
}
