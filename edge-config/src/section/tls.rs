//! `[tls]`: certificates, and how handshakes are done.

use std::path::PathBuf;

use super::secret::key_file;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};
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
    /// A file of at least 32 random bytes, the same on every node, from which the key is derived that seals the private keys of
    /// certificates that sites bring themselves. Default: they may bring none.
    pub store_key: Option<PathBuf>,
    /// Whose word that certificates are not revoked is stapled to handshakes. Default: that of responders at public addresses.
    pub ocsp: Ocsp,
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

/// Which OCSP responders are asked about the certificates that name one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ocsp {
    /// Those at addresses that anybody can reach: sites bring certificates, and what these name must not be the network inside.
    #[default]
    Public,
    Any,
    Off,
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
            store_key: None,
            ocsp: Ocsp::default(),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

section! {
    /// Certificates, and how handshakes are done.
    TLS = "[tls]" {
        /// Certificate chains and their keys. A client gets the one for the name it asks for (SNI); of several for one
        /// name, the first. One that a site has brought itself goes before them, for the hosts of that site.
        CERTIFICATES = "certificates": Kind::Many(&Kind::Table(&CERTIFICATE));
        /// What a client gets that asks for no name, or for one no certificate is for: "refuse" is the alert
        /// unrecognized_name, "first" the first certificate.
        UNKNOWN_NAME = "unknown_name": Kind::Choice(&["refuse", "first"]), "refuse";
        /// The oldest version of TLS that is spoken.
        MINIMUM_VERSION = "minimum_version": Kind::Choice(&["1.2", "1.3"]), "1.2";
        /// A file of at least 32 random bytes, the same on every node of a PoP, from which the keys of session tickets are
        /// derived. They change with the clock. Without it, keys are this process's own.
        TICKET_KEYS = "ticket_keys": Kind::Text("a file");
        /// A file of at least 32 random bytes, the same on every node, from which the key is derived that seals the private keys of
        /// certificates that sites bring themselves, over the admin API. Without it they may bring none.
        STORE_KEY = "store_key": Kind::Text("a file");
        /// Certificates that name an OCSP responder get its word that they are not revoked stapled to handshakes: "public" asks
        /// responders at public addresses alone, "any" those of an authority of your own as well, and "off" none. They are asked by
        /// http, in the background, when half of the time is over that an answer is for.
        OCSP = "ocsp": Kind::Choice(&["public", "any", "off"]), "public";
        /// Time from the connection to the end of the handshake.
        HANDSHAKE_TIMEOUT = "handshake_timeout": Kind::Duration, "10s";
    }
}

section! {
    /// A certificate and its key.
    CERTIFICATE = "a certificate" {
        /// The certificate chain in PEM, the node's own first.
        CERTIFICATE_FILE = "certificate": Kind::Text("a file");
        /// The private key in PEM.
        KEY_FILE = "key": Kind::Text("a file");
    }
}

impl Tls {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
        let unknown_name = [("refuse", UnknownName::Refuse), ("first", UnknownName::First)];
        let ocsp = [("public", Ocsp::Public), ("any", Ocsp::Any), ("off", Ocsp::Off)];
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let tls = Self {
            certificates: table.many(reader, &CERTIFICATES, CertificateFiles::read),
            unknown_name: table.choice(reader, &UNKNOWN_NAME, &unknown_name).unwrap_or_default(),
            minimum_version: table.choice(reader, &MINIMUM_VERSION, &versions).unwrap_or_default(),
            ticket_keys: key_file(&table, reader, &TICKET_KEYS, "tickets.key"),
            store_key: key_file(&table, reader, &STORE_KEY, "store.key"),
            ocsp: table.choice(reader, &OCSP, &ocsp).unwrap_or_default(),
            handshake_timeout: table
                .parsed(reader, &HANDSHAKE_TIMEOUT)
                .map_or(default.handshake_timeout, |time| time.value),
        };
        table.positive(reader, &HANDSHAKE_TIMEOUT);
        table.finish(reader);
        tls
    }
}

impl CertificateFiles {
    fn read(reader: &mut Reader, value: Value<'_>) -> Option<Self> {
        let table = reader.as_table(&CERTIFICATES, &CERTIFICATE, "a certificate".into(), value)?;
        let certificate = table.required_file(reader, &CERTIFICATE_FILE, "BEGIN CERTIFICATE");
        let key = table.required_file(reader, &KEY_FILE, "PRIVATE KEY");
        table.finish(reader);
        Some(Self { certificate: certificate?, key: key? })
    }
}
