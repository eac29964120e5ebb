//! `[tls]`: certificates, and how handshakes are done.

use std::path::PathBuf;

use crate::units::Duration;

/// How the node speaks TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Chosen among by the name the client asks for (SNI) and the names they are for.
    pub certificates: Vec<CertificateFiles>,
    /// What a client gets that asks for no name, or for one no certificate is for. Default: refused.
    pub unknown_name: UnknownName,
    /// Default 1.2.
    pub minimum_version: TlsVersion,
    /// A file of at least 32 random bytes, the same on every node of a PoP, from which the keys of session tickets are
    /// derived. Default: random keys of this process.
    pub ticket_keys: Option<PathBuf>,
    /// From the connection to the end of the handshake. Default 10s.
    pub handshake_timeout: Duration,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a client gets that asks for a name no certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// The alert `unrecognized_name`.
    #[default]
    Refuse,
    /// The first certificate.
    First,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            unknown_name: UnknownName::default(),
            minimum_version: TlsVersion::default(),
            ticket_keys: None,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}
