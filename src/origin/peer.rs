//! An origin as Pingora connects to it: names, authorities, deadlines.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_config::section::origin::{HostHeader, Origin, OriginScheme};
use edge_config::section::tls::TlsVersion;
use pingora::protocols::tls::CaType;
use pingora::protocols::{ALPN, Digest};
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::CertKey;

use super::announce::Announced;
use super::credentials::{self, CredentialError};
use super::dns::{Name, Target};

/// Requests at a time on one HTTP/2 connection; Pingora's default is one.
const STREAMS_MAX: usize = 100;

/// One origin as it is configured.
pub struct OriginPeer {
    origin: Origin,
    label: String,
    authorities: Option<Arc<CaType>>,
    /// What the node shows of itself.
    certificate: Option<Arc<CertKey>>,
    /// Keeps connections apart that differ in what Pingora does not look at: the site and all that they begin with.
    group_key: u64,
}

impl OriginPeer {
    /// An origin of a site.
    ///
    /// # Errors
    /// A file it needs cannot be used.
    pub fn new(origin: Origin, site: &str) -> Result<Self, CredentialError> {
        let authorities = origin.ca.as_deref().map(credentials::authorities).transpose()?;
        let certificate = origin.talking.certificate.as_ref().map(credentials::certificate).transpose()?;
        let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
        hasher.write(site.as_bytes());
        hasher.write_u8(0);
        for authority in authorities.iter().flat_map(|all| all.iter()) {
            hasher.write(authority.borrow_raw_cert());
        }
        if let Some(certificate) = &certificate {
            hasher.write(certificate.leaf().borrow_raw_cert());
            certificate.intermediates().iter().for_each(|certificate| hasher.write(certificate.borrow_raw_cert()));
            hasher.write(certificate.key());
        }
        hasher.write_u8(u8::from(origin.http2));
        (origin.talking.tls_minimum as u8).hash(&mut hasher);
        origin.talking.proxy_protocol.map(|version| version as u8).hash(&mut hasher);
        let label = format!("{}:{}", origin.host, origin.port);
        Ok(Self { group_key: hasher.finish(), origin, label, authorities, certificate })
    }

    /// The same in a group of its site.
    pub fn of_group(mut self, name: &str) -> Self {
        if !name.is_empty() {
            self.label = format!("{name}/{}", self.label);
        }
        self
    }

    /// Whether what another has read from files is the same, and so it may have its connections.
    pub fn is_like(&self, other: &Self) -> bool {
        self.group_key == other.group_key
    }

    /// Whether a connection speaks a version of TLS that is not too old.
    ///
    /// Pingora offers TLS 1.2 and 1.3 whatever is wanted, so this is asked when there is a connection and before anything is
    /// sent on it.
    pub fn accepts(&self, connection: Option<&Digest>) -> bool {
        if self.origin.talking.tls_minimum == TlsVersion::Tls12 || self.origin.scheme == OriginScheme::Http {
            return true;
        }
        let tls = connection.and_then(|digest| digest.ssl_digest.as_ref());
        tls.is_some_and(|tls| tls.version == "TLSv1_3")
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What to call this origin in logs and metrics: host and port, behind the name of its group if it has one.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The name of what it is resolved to, if that is no address.
    pub fn name(&self) -> Option<Name> {
        let Origin { host, port, resolve, .. } = &self.origin;
        self.origin.address().is_none().then(|| Name { host: host.clone(), port: *port, resolve: *resolve })
    }

    /// The `Host` of a request to a target of it.
    pub fn host_header(&self, target: &Target, client_host: &[u8]) -> Vec<u8> {
        match (&self.origin.host_header, &target.name) {
            (HostHeader::Client, _) => client_host.to_vec(),
            (HostHeader::Fixed(authority), _) | (HostHeader::Origin(authority), None) => authority.as_bytes().to_vec(),
            (HostHeader::Origin(_), Some(name)) => {
                let default = if self.origin.scheme == OriginScheme::Https { 443 } else { 80 };
                match target.address.port() {
                    port if port == default => name.as_bytes().to_vec(),
                    port => format!("{name}:{port}").into_bytes(),
                }
            }
        }
    }

    /// How Pingora connects to a target of it. `connect`: how long that may take; `client`: in whose name, where that matters.
    /// None: in the node's own.
    pub fn at(&self, target: &Target, connect: Duration, client: Option<IpAddr>) -> HttpPeer {
        let tls = self.origin.scheme == OriginScheme::Https;
        let name = target.name.as_deref().unwrap_or(&self.origin.host);
        let sni = self.origin.sni.as_deref().unwrap_or(name).to_owned();
        let mut peer = HttpPeer::new(target.address, tls, sni);
        peer.group_key = self.group_key;
        peer.client_cert_key.clone_from(&self.certificate);
        if let Some(version) = self.origin.talking.proxy_protocol {
            peer.group_key ^= key_of(client);
            peer.options.custom_l4 = Some(Arc::new(Announced::new(version, client, target.address)));
        }
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
        peer
    }
}

/// What keeps the connections of one client apart from those of others.
fn key_of(client: Option<IpAddr>) -> u64 {
    ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(client.map(|client| client.to_canonical()))
}
