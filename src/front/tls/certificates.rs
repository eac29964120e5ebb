//! Certificates by the name a client asks for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_config::section::tls::{CertificateFiles, Tls, TlsVersion, UnknownName};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::telemetry::metrics::CertificateEnd;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{0}: expected a certificate chain in PEM: {1}")]
    Chain(PathBuf, String),
    #[error("{0}: expected a private key in PEM: {1}")]
    Key(PathBuf, String),
    #[error("{key} is not the key of {certificate}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{0}: the certificate is for no DNS name")]
    Nameless(PathBuf),
    #[error("{0}: {1}")]
    Tickets(PathBuf, std::io::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// All certificates of a node.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>, ahash::RandomState>,
    /// `*.example.com` as `example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>, ahash::RandomState>,
    first: Option<Arc<CertifiedKey>>,
    unknown_is_first: bool,
    ends: Vec<CertificateEnd>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(config: &Tls) -> Result<Self, CertificateError> {
        let provider = default_provider();
        let mut certificates = Self { unknown_is_first: config.unknown_name == UnknownName::First, ..Self::default() };
        for files in &config.certificates {
            certificates.add(files, &provider)?;
        }
        Ok(certificates)
    }

    fn add(&mut self, files: &CertificateFiles, provider: &CryptoProvider) -> Result<(), CertificateError> {
        let chain = read_chain(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| CertificateError::Key(files.key.clone(), error.to_string()))?;
        let (names, expiry) = names(&chain, &files.certificate)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            error => CertificateError::Key(files.key.clone(), error.to_string()),
        })?;
        let certified = Arc::new(certified);
        let end = |name: &String| CertificateEnd { name: name.clone(), site: String::new(), seconds: expiry };
        self.ends.extend(names.first().map(end));
        for name in names {
            // Of several for one name, the first in the file wins.
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_insert_with(|| certified.clone()),
                None => self.exact.entry(name).or_insert_with(|| certified.clone()),
            };
        }
        self.first.get_or_insert(certified);
        Ok(())
    }

    /// The certificate for a name: its own, else that of its parent's wildcard (RFC 6125 section 6.4.3: one label).
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let parent = name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(&name).or(parent)
        });
        found.or_else(|| self.first.as_ref().filter(|_| self.unknown_is_first))
    }

    /// When each certificate ends.
    pub fn ends(&self) -> &[CertificateEnd] {
        &self.ends
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).cloned()
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |error: String| CertificateError::Chain(path.to_owned(), error);
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?.collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(unreadable("there is none in the file".into())),
        chain => chain.map_err(|error| unreadable(error.to_string())),
    }
}

/// The DNS names a certificate is for, and when it ends.
fn names(chain: &[CertificateDer<'_>], path: &Path) -> Result<(Vec<String>, i64), CertificateError> {
    let unreadable = |error: String| CertificateError::Chain(path.to_owned(), error);
    let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
    let alternatives = leaf.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    let names: Vec<String> = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err(CertificateError::Nameless(path.to_owned()));
    }
    Ok((names, leaf.validity().not_after.timestamp()))
}

/// What handshakes are done with.
///
/// # Errors
/// rustls does not take the settings.
pub fn server_config(
    config: &Tls,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let versions: &[_] = match config.minimum_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .map_err(CertificateError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions live in tickets, at the clients.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = tickets;
    Ok(Arc::new(server))
}
