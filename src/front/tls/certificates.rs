//! Certificates by the name a client asks for.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_config::section::tls::{CertificateFiles, Ocsp, Tls, TlsVersion, UnknownName};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::hosts::Hosts;
use super::issued::Issued;
use super::leaf::Leaf;
use super::own::{OwnCertificate, OwnError};
use super::staples::Staples;
use crate::clock;
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
    #[error("{0}: {1}")]
    Tickets(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    StoreKey(PathBuf, std::io::Error),
    #[error("the certificates of the site {0}: {1}")]
    Own(String, OwnError),
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Certificates by name.
type Names<T> = HashMap<String, T, ahash::RandomState>;

/// All certificates of a node: those of the operator's files, and those that sites have brought.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// None: a name that has no certificate, although there is one for all names beside it, of another site.
    exact: Names<Option<Arc<CertifiedKey>>>,
    /// `*.example.com` as `example.com`.
    wildcard: Names<Arc<CertifiedKey>>,
    /// The first of the operator's.
    first: Option<Arc<CertifiedKey>>,
    unknown_is_first: bool,
    ends: Vec<CertificateEnd>,
    /// What those of files say of themselves.
    leaves: Vec<Leaf>,
    /// Those that come one by one.
    issued: Arc<Issued>,
    ocsp: Ocsp,
    /// What goes with handshakes; the same of all that take the place of these.
    staples: Arc<Staples>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(config: &Tls) -> Result<Self, CertificateError> {
        let provider = default_provider();
        let mut certificates =
            Self { unknown_is_first: config.unknown_name == UnknownName::First, ocsp: config.ocsp, ..Self::default() };
        for files in &config.certificates {
            certificates.add(files, &provider)?;
        }
        Ok(certificates)
    }

    fn add(&mut self, files: &CertificateFiles, provider: &CryptoProvider) -> Result<(), CertificateError> {
        let chain = read_chain(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| CertificateError::Key(files.key.clone(), error.to_string()))?;
        let unreadable =
            |error: super::leaf::LeafError| CertificateError::Chain(files.certificate.clone(), error.to_string());
        let leaf = Leaf::read(&chain).map_err(unreadable)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            error => CertificateError::Key(files.key.clone(), error.to_string()),
        })?;
        let certified = Arc::new(certified);
        self.enter(leaf, certified);
        Ok(())
    }

    fn enter(&mut self, leaf: Leaf, certified: Arc<CertifiedKey>) {
        self.ends.extend(end(&leaf, ""));
        for name in &leaf.names {
            // Of several for one name, the first in the file wins.
            match name.strip_prefix("*.") {
                Some(parent) => _ = self.wildcard.entry(parent.to_owned()).or_insert_with(|| certified.clone()),
                None => _ = self.exact.entry(name.clone()).or_insert_with(|| Some(certified.clone())),
            }
        }
        self.leaves.push(leaf);
        self.first.get_or_insert(certified);
    }

    /// These, and those that sites have brought. One of a site is for hosts of that site alone, and for them goes before the
    /// operator's; of several for one name, the last one that was added. The names are sorted out here, so that a handshake looks up
    /// a name and its parent as it did before.
    pub fn with_own<'o>(&self, own: impl Iterator<Item = (&'o str, &'o [OwnCertificate])>, hosts: &Hosts<'_>) -> Self {
        let mut all = self.clone();
        let (mut exact, mut by_wildcard, mut wildcard) = (Names::default(), Names::default(), Names::default());
        for (site, certificates) in own {
            // Of several with one first name, the metric has the end of the last one.
            all.ends.extend(certificates.iter().filter_map(|own| end(&own.leaf, site)));
            for OwnCertificate { leaf, key } in certificates.iter().rev() {
                for name in &leaf.names {
                    let Some(parent) = name.strip_prefix("*.") else {
                        if hosts.site_of(name) == Some(site) {
                            exact.entry(name.clone()).or_insert_with(|| key.clone());
                        }
                        continue;
                    };
                    for (host, _) in hosts.below(parent).filter(|(_, theirs)| *theirs == site) {
                        by_wildcard.entry(host.to_owned()).or_insert_with(|| key.clone());
                    }
                    if hosts.site_below(parent) == Some(site) {
                        wildcard.entry(parent.to_owned()).or_insert_with(|| (site, key.clone()));
                    }
                }
            }
        }
        let parent_of = |name: &str| name.split_once('.').map(|(_, parent)| parent.to_owned());
        for name in self.exact.keys() {
            // Of a site that has a wildcard for it: its own goes before the operator's.
            if let Some((site, key)) = parent_of(name).and_then(|parent| wildcard.get(&parent))
                && hosts.site_of(name) == Some(site)
            {
                by_wildcard.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
        for (parent, (site, key)) in wildcard {
            // Hosts of other sites beside it keep what the operator has for them, or have none.
            for (host, _) in hosts.below(&parent).filter(|(_, theirs)| *theirs != site) {
                all.exact.insert(host.to_owned(), self.named(host).cloned());
            }
            all.wildcard.insert(parent, key);
        }
        let by_wildcard = by_wildcard.into_iter().filter(|(name, _)| !exact.contains_key(name)).collect::<Vec<_>>();
        all.exact.extend(exact.into_iter().chain(by_wildcard).map(|(name, key)| (name, Some(key))));
        all
    }

    /// The certificate for a name: its own, else that of its parent's wildcard (RFC 6125 section 6.4.3: one label).
    /// Else one that was issued.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.named(&name).cloned().or_else(|| self.issued.find(&name))
        });
        found.or_else(|| self.first.clone().filter(|_| self.unknown_is_first))
    }

    /// Whether there is one for a host, which may be a wildcard, without any that was issued.
    pub fn covers(&self, host: &str) -> bool {
        match host.strip_prefix("*.") {
            Some(parent) => self.wildcard.contains_key(parent),
            None => self.named(host).is_some(),
        }
    }

    /// These, beside those that are issued.
    pub fn beside(self, issued: Arc<Issued>) -> Self {
        Self { issued, ..self }
    }

    pub fn issued(&self) -> &Arc<Issued> {
        &self.issued
    }

    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        match self.exact.get(name) {
            Some(found) => found.as_ref(),
            None => name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)),
        }
    }

    /// These, with what was stapled to others before them.
    pub fn stapled_as(&self, before: &Self) -> Self {
        Self { staples: before.staples.clone(), ..self.clone() }
    }

    /// Whose word is stapled, and what was.
    pub fn stapling(&self) -> (Ocsp, &Arc<Staples>) {
        (self.ocsp, &self.staples)
    }

    /// Each one once.
    pub fn keys(&self) -> Vec<Arc<CertifiedKey>> {
        let mut seen = HashSet::new();
        let all = self.exact.values().flatten().chain(self.wildcard.values()).chain(&self.first);
        let issued = self.issued.all().into_iter().map(|issued| issued.key);
        all.cloned().chain(issued).filter(|key| seen.insert(Arc::as_ptr(key))).collect()
    }

    /// What the certificates of files say of themselves.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// When each certificate ends.
    pub fn ends(&self) -> &[CertificateEnd] {
        &self.ends
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|key| self.staples.with(&key, clock::wall()))
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

/// When a certificate ends, under its first name.
pub fn end(leaf: &Leaf, site: &str) -> Option<CertificateEnd> {
    let name = leaf.names.first()?.clone();
    Some(CertificateEnd { name, site: site.to_owned(), seconds: leaf.not_after })
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

#[cfg(test)]
mod tests;
