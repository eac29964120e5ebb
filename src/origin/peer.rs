//! An origin as Pingora connects to it: names, authorities, deadlines.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use edge_config::section::origin::{HostHeader, Origin, OriginScheme};
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::dns::{Name, Target};

/// Requests at a time on one HTTP/2 connection; Pingora's default is one.
const STREAMS_MAX: usize = 100;

/// Why the authorities of an origin cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {error}")]
pub struct AuthorityError {
    file: String,
    error: String,
}

/// One origin as it is configured.
pub struct OriginPeer {
    origin: Origin,
    label: String,
    authorities: Option<Arc<CaType>>,
    /// Keeps connections apart that differ in what Pingora does not look at: the site and its authorities.
    group_key: u64,
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
        Ok(Self { group_key: hasher.finish(), origin, label, authorities })
    }

    /// The same in a group of its site.
    pub fn of_group(mut self, name: &str) -> Self {
        if !name.is_empty() {
            self.label = format!("{name}/{}", self.label);
        }
        self
    }

    /// Whether another has the same authorities, and so may have its connections.
    pub fn is_like(&self, other: &Self) -> bool {
        self.group_key == other.group_key
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

    /// How Pingora connects to a target of it. `connect`: how long that may take.
    pub fn at(&self, target: &Target, connect: Duration) -> HttpPeer {
        let tls = self.origin.scheme == OriginScheme::Https;
        let name = target.name.as_deref().unwrap_or(&self.origin.host);
        let sni = self.origin.sni.as_deref().unwrap_or(name).to_owned();
        let mut peer = HttpPeer::new(target.address, tls, sni);
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
        peer
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
