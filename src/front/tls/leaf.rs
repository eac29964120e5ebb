//! What a certificate says of itself.

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificate of a node, which is the first of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The DNS names it is for, in lower case; there is at least one.
    pub names: Vec<String>,
    pub issuer: String,
    /// In seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256, in hexadecimal digits.
    pub fingerprint: String,
}

/// Why a chain has none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("expected a certificate: {0}")]
    Unreadable(String),
    #[error("the certificate is for no DNS name")]
    Nameless,
}

impl Leaf {
    /// Reads the first certificate of a chain.
    ///
    /// # Errors
    /// It is none, or is for no DNS name.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, LeafError> {
        let der = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let unreadable = |error: String| LeafError::Unreadable(error);
        let (_, leaf) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
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
            return Err(LeafError::Nameless);
        }
        let validity = leaf.validity();
        Ok(Self {
            names,
            issuer: leaf.issuer().to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            fingerprint: digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}
