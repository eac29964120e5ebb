//! The files that say who an origin is, and who the node is to it.

use std::path::Path;
use std::sync::Arc;

use edge_config::section::tls::CertificateFiles;
use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a file of an origin cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {error}")]
pub struct CredentialError {
    file: String,
    error: String,
}

impl CredentialError {
    fn new(file: &Path, error: impl ToString) -> Self {
        Self { file: file.display().to_string(), error: error.to_string() }
    }
}

/// The authorities in a file.
///
/// # Errors
/// There are none, or they cannot be read.
pub fn authorities(file: &Path) -> Result<Arc<CaType>, CredentialError> {
    let authority = |authority: CertificateDer<'_>| WrappedX509::new(authority.to_vec(), parse_x509);
    Ok(certificates(file)?.into_iter().map(authority).collect())
}

/// A certificate chain and its key.
///
/// # Errors
/// They cannot be read, or do not belong together.
pub fn certificate(files: &CertificateFiles) -> Result<Arc<CertKey>, CredentialError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| CredentialError::new(&files.key, error))?;
    let der = key.secret_der().to_vec();
    // Pingora makes this of them for each connection, and panics where a key is none.
    match CertifiedKey::from_der(chain.clone(), key, &default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let error = format!("this is not the key of {}", files.certificate.display());
            return Err(CredentialError::new(&files.key, error));
        }
        Err(error) => return Err(CredentialError::new(&files.key, error)),
    }
    Ok(Arc::new(CertKey::new(chain.into_iter().map(|certificate| certificate.to_vec()).collect(), der)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| CredentialError::new(file, error))?;
    let mut certificates = Vec::new();
    for certificate in read {
        let certificate = certificate.map_err(|error| CredentialError::new(file, error))?;
        // Pingora parses it again, and panics where it cannot.
        X509Certificate::from_der(&certificate).map_err(|error| CredentialError::new(file, error))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(CredentialError::new(file, "there is no certificate in the file"));
    }
    Ok(certificates)
}
