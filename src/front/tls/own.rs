//! Certificates that sites bring themselves: a document of each site, with chains and sealed keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::hosts::Hosts;
use super::leaf::{Leaf, LeafError};
use super::sealed::StoreKey;
use crate::purge::nats::documents::TEXT_BYTES_MAX;

/// The certificates of one site, at most.
pub const CERTIFICATES_MAX: usize = 16;
/// A chain, without the armour of PEM: four certificates with RSA keys of 4,096 bits.
pub const CHAIN_BYTES_MAX: usize = 7_680;
/// A private key, without the armour of PEM; one of RSA with 4,096 bits has 2,400.
pub const KEY_BYTES_MAX: usize = 3_072;
/// What sealing adds to a key, and the rest of an entry.
const SEAL_BYTES: usize = 64;
const ENTRY_BYTES: usize = 512;
// All of them fit a document: four characters of base64 stand for three bytes.
const _: () = assert!(
    CERTIFICATES_MAX * ((CHAIN_BYTES_MAX + KEY_BYTES_MAX + SEAL_BYTES) * 4 / 3 + ENTRY_BYTES) <= TEXT_BYTES_MAX
);
/// How far the clock of an authority may be ahead.
const AHEAD_SECONDS: i64 = 300;
const FORM: u8 = 1;

/// What a document holds.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    v: u8,
    /// The last one that was added comes last.
    certificates: Vec<Held>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Held {
    /// Each certificate in base64, the site's own first.
    chain: Vec<String>,
    /// The private key, sealed; in base64.
    key: String,
}

/// A certificate of a site, ready for handshakes.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    pub leaf: Leaf,
    pub key: Arc<CertifiedKey>,
}

/// Why a certificate is not taken, or a document not used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    // Of who brings it.
    #[error("`chain`: expected certificates in PEM: {0}")]
    Chain(String),
    #[error("`chain` has {0} bytes without the armour of PEM, expected at most {CHAIN_BYTES_MAX}")]
    LongChain(usize),
    #[error("`chain`: {0}")]
    Leaf(#[from] LeafError),
    #[error("`key`: expected a private key in PEM: {0}")]
    Key(String),
    #[error("`key` has {0} bytes without the armour of PEM, expected at most {KEY_BYTES_MAX}")]
    LongKey(usize),
    #[error("`key` is not the key of the certificate")]
    Mismatch,
    #[error("the certificate has ended")]
    Ended,
    #[error("the certificate is not valid yet")]
    NotYet,
    #[error("the certificate is for {0}, and none of that is a host of the site")]
    NotOfTheSite(String),
    #[error("the site has {CERTIFICATES_MAX} certificates, which is as many as there may be: remove one first")]
    TooMany,
    #[error("the site has no certificate with this fingerprint")]
    Unknown,
    // Of the operator.
    #[error("this node keeps no private keys of sites: its operator has to set `store_key` in [tls] first")]
    NoStoreKey,
    #[error("a private key cannot be opened: it was sealed with another `store_key` than this node has")]
    Sealed,
    // Of whoever published it past every check.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("the system gives no random numbers")]
    Random,
}

/// A document that is changed: its text, and the certificate that the change is about.
#[derive(Debug)]
pub struct Changed {
    pub text: String,
    pub fingerprint: String,
}

/// The certificates of a document.
///
/// # Errors
/// It is none, or a key does not open or does not fit.
pub fn open(site: &str, text: &str, key: Option<&StoreKey>) -> Result<Vec<OwnCertificate>, OwnError> {
    let document = read(text)?;
    if document.certificates.is_empty() {
        return Ok(Vec::new());
    }
    if document.certificates.len() > CERTIFICATES_MAX {
        return Err(OwnError::TooMany);
    }
    let key = key.ok_or(OwnError::NoStoreKey)?;
    document.certificates.iter().map(|held| held.open(site, key)).collect()
}

/// A document with one certificate more. Those that have ended are left out of it, and so is the same one from before.
///
/// # Errors
/// Why it is not taken.
pub fn add(
    site: &str,
    text: &str,
    (chain, key): (&str, &str),
    store_key: Option<&StoreKey>,
    hosts: &Hosts<'_>,
    now: i64,
) -> Result<Changed, OwnError> {
    let store_key = store_key.ok_or(OwnError::NoStoreKey)?;
    let (chain, key) = read_pair(chain, key)?;
    let leaf = Leaf::read(&chain)?;
    if leaf.not_after <= now {
        return Err(OwnError::Ended);
    }
    if leaf.not_before > now + AHEAD_SECONDS {
        return Err(OwnError::NotYet);
    }
    if !leaf.names.iter().any(|name| hosts.is_of(site, name)) {
        return Err(OwnError::NotOfTheSite(leaf.names.join(", ")));
    }
    let sealed = store_key.seal(site, &chain, key.secret_der()).ok_or(OwnError::Random)?;
    let held = Held {
        chain: chain.iter().map(|certificate| BASE64.encode(certificate)).collect(),
        key: BASE64.encode(sealed),
    };
    certified(chain, key)?;
    let mut document = read(text)?;
    let mut kept = Vec::new();
    for held in document.certificates {
        // What is kept has to open here: else no node with this key would take the document.
        let own = held.open(site, store_key)?;
        if own.leaf.not_after > now && own.leaf.fingerprint != leaf.fingerprint {
            kept.push(held);
        }
    }
    if kept.len() >= CERTIFICATES_MAX {
        return Err(OwnError::TooMany);
    }
    kept.push(held);
    document.certificates = kept;
    Ok(Changed { text: write(&document), fingerprint: leaf.fingerprint })
}

/// A document with one certificate less. Nothing has to be opened for it.
///
/// # Errors
/// It has no such certificate, or cannot be read.
pub fn remove(text: &str, fingerprint: &str) -> Result<Changed, OwnError> {
    let fingerprint = fingerprint.replace(':', "").to_ascii_lowercase();
    let mut document = read(text)?;
    let count = document.certificates.len();
    document.certificates.retain(|held| {
        let leaf = held.chain().and_then(|chain| Leaf::read(&chain).map_err(OwnError::from));
        leaf.map_or(true, |leaf| leaf.fingerprint != fingerprint)
    });
    if document.certificates.len() == count {
        return Err(OwnError::Unknown);
    }
    Ok(Changed { text: write(&document), fingerprint })
}

/// The certificates that a document has, for who cannot open it: none, where it cannot be read.
pub fn fingerprints(text: &str) -> Vec<String> {
    let document = read(text).unwrap_or(Document { v: FORM, certificates: Vec::new() });
    let leaf = |held: &Held| Leaf::read(&held.chain().ok()?).ok();
    document.certificates.iter().filter_map(leaf).map(|leaf| leaf.fingerprint).collect()
}

fn read(text: &str) -> Result<Document, OwnError> {
    if text.trim().is_empty() {
        return Ok(Document { v: FORM, certificates: Vec::new() });
    }
    let document: Document = serde_json::from_str(text).map_err(|error| OwnError::Unreadable(error.to_string()))?;
    match document.v {
        FORM => Ok(document),
        other => Err(OwnError::Unreadable(format!("it is of the form {other}, which this node does not know"))),
    }
}

/// Nothing, where there is no certificate: the document is as if it had never been.
fn write(document: &Document) -> String {
    match document.certificates.is_empty() {
        true => String::new(),
        false => serde_json::to_string(document).expect("texts and numbers are JSON"),
    }
}

impl Held {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, OwnError> {
        let unreadable = |error: base64::DecodeError| OwnError::Unreadable(error.to_string());
        let decode = |text: &String| BASE64.decode(text).map(CertificateDer::from).map_err(unreadable);
        self.chain.iter().map(decode).collect()
    }

    fn open(&self, site: &str, key: &StoreKey) -> Result<OwnCertificate, OwnError> {
        let chain = self.chain()?;
        let leaf = Leaf::read(&chain)?;
        let sealed = BASE64.decode(&self.key).map_err(|error| OwnError::Unreadable(error.to_string()))?;
        let opened = key.open(site, &chain, &sealed).ok_or(OwnError::Sealed)?;
        let key = PrivateKeyDer::try_from(opened).map_err(|error| OwnError::Key(error.to_owned()))?;
        Ok(OwnCertificate { leaf, key: Arc::new(certified(chain, key)?) })
    }
}

fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, OwnError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| OwnError::Chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(OwnError::Chain("there is none".to_owned()));
    }
    match chain.iter().map(|certificate| certificate.len()).sum() {
        length if length > CHAIN_BYTES_MAX => Err(OwnError::LongChain(length)),
        _ => Ok(chain),
    }
}

fn read_key(text: &str) -> Result<PrivateKeyDer<'static>, OwnError> {
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| OwnError::Key(error.to_string()))?;
    match key.secret_der().len() {
        length if length > KEY_BYTES_MAX => Err(OwnError::LongKey(length)),
        _ => Ok(key),
    }
}

/// A chain and its key, both PEM.
///
/// # Errors
/// One of them is none, or too long.
pub fn read_pair(chain: &str, key: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), OwnError> {
    Ok((read_chain(chain)?, read_key(key)?))
}

/// A certificate ready for handshakes.
///
/// # Errors
/// The key is not that of the certificate, or of no kind that is known.
pub fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, OwnError> {
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => OwnError::Mismatch,
        error => OwnError::Key(error.to_string()),
    })
}

#[cfg(test)]
pub mod tests;
