//! Whether a certificate is revoked: what is asked (RFC 6960 section 4.1), and whether an answer may be stapled (section 3.2).

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetString};
use x509_cert::der::{self, Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, ExtendedKeyUsage};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request, ResponderId,
    TbsRequest, Version,
};

/// What is asked about a certificate.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where, by http; at least one.
    pub urls: Vec<String>,
    pub request: Vec<u8>,
    subject: CertId,
    issuer: Certificate,
}

/// Why nothing can be asked about a certificate that names a responder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the chain has no certificate of its issuer")]
    NoIssuer,
    #[error("its responders are not asked by http: {0}")]
    NoHttp(String),
}

/// From when on, and how long, a certificate is said to be good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Good {
    pub this_update: u64,
    pub next_update: u64,
}

/// Why an answer is not stapled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the responder says {0:?}")]
    Unsuccessful(OcspResponseStatus),
    #[error("the answer is about another certificate")]
    AnotherCertificate,
    #[error("the answer is signed by nobody who may")]
    Signature,
    #[error("the certificate is revoked")]
    Revoked,
    #[error("the responder does not know the certificate")]
    Unknown,
    #[error("the answer does not say until when it holds")]
    WithoutEnd,
    #[error("the answer is for another time: {0} to {1} in seconds since 1970")]
    AnotherTime(u64, u64),
}

/// Clocks of responders may be ahead of ours.
const AHEAD_SECONDS_MAX: u64 = 300;
/// Others are not asked.
const URLS_MAX: usize = 2;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

impl Question {
    /// What is to be asked about the first certificate of a chain. None: it names no responder.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn of(chain: &[CertificateDer<'_>]) -> Result<Option<Self>, QuestionError> {
        let unreadable = |error: der::Error| QuestionError::Unreadable(error.to_string());
        let Some(leaf) = chain.first() else { return Ok(None) };
        let leaf = Certificate::from_der(leaf).map_err(unreadable)?;
        let access = leaf.tbs_certificate.get::<AuthorityInfoAccessSyntax>().map_err(unreadable)?;
        let Some((_, access)) = access else { return Ok(None) };
        let responders = access.0.iter().filter(|description| description.access_method == OCSP);
        let all: Vec<String> = responders
            .filter_map(|description| match &description.access_location {
                GeneralName::UniformResourceIdentifier(url) => Some(url.to_string()),
                _ => None,
            })
            .collect();
        if all.is_empty() {
            return Ok(None);
        }
        let urls: Vec<String> = all.iter().filter(|url| url.starts_with("http://")).take(URLS_MAX).cloned().collect();
        if urls.is_empty() {
            return Err(QuestionError::NoHttp(all.join(", ")));
        }
        let issuer = chain.get(1).ok_or(QuestionError::NoIssuer)?;
        let issuer = Certificate::from_der(issuer).map_err(unreadable)?;
        if issuer.tbs_certificate.subject != leaf.tbs_certificate.issuer {
            return Err(QuestionError::NoIssuer);
        }
        let subject = cert_id(&leaf, &issuer).map_err(unreadable)?;
        let request = OcspRequest {
            tbs_request: TbsRequest {
                version: Version::V1,
                requestor_name: None,
                request_list: vec![Request { req_cert: subject.clone(), single_request_extensions: None }],
                request_extensions: None,
            },
            optional_signature: None,
        };
        Ok(Some(Self { urls, request: request.to_der().map_err(unreadable)?, subject, issuer }))
    }

    /// Whether an answer may be stapled at this time, in seconds since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, answer: &[u8], now: u64) -> Result<Good, Refused> {
        let unreadable = |error: der::Error| Refused::Unreadable(error.to_string());
        let answer = OcspResponse::from_der(answer).map_err(unreadable)?;
        if answer.response_status != OcspResponseStatus::Successful {
            return Err(Refused::Unsuccessful(answer.response_status));
        }
        let bytes = answer.response_bytes.ok_or_else(|| Refused::Unreadable("there is nothing in it".into()))?;
        if bytes.response_type != <BasicOcspResponse as der::oid::AssociatedOid>::OID {
            return Err(Refused::Unreadable(format!("it is of the type {}", bytes.response_type)));
        }
        let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(unreadable)?;
        let single = basic.tbs_response_data.responses.iter().find(|single| self.is_about(&single.cert_id));
        let single = single.ok_or(Refused::AnotherCertificate)?;
        // Before anything it says is believed.
        if !self.is_signed(&basic, now) {
            return Err(Refused::Signature);
        }
        let this_update = single.this_update.0.to_unix_duration().as_secs();
        let next_update = single.next_update.map(|time| time.0.to_unix_duration().as_secs());
        let is_current = |until: u64| this_update <= now.saturating_add(AHEAD_SECONDS_MAX) && now < until;
        if next_update.is_some_and(|until| !is_current(until)) {
            return Err(Refused::AnotherTime(this_update, next_update.unwrap_or_default()));
        }
        match single.cert_status {
            CertStatus::Good(_) => {}
            CertStatus::Revoked(_) => return Err(Refused::Revoked),
            CertStatus::Unknown(_) => return Err(Refused::Unknown),
        }
        // It could be as old as whoever replays it likes.
        let next_update = next_update.ok_or(Refused::WithoutEnd)?;
        Ok(Good { this_update, next_update })
    }

    fn is_about(&self, other: &CertId) -> bool {
        // Parameters of the hash may be there or not.
        self.subject.hash_algorithm.oid == other.hash_algorithm.oid
            && self.subject.issuer_name_hash == other.issuer_name_hash
            && self.subject.issuer_key_hash == other.issuer_key_hash
            && self.subject.serial_number == other.serial_number
    }

    /// Section 4.2.2.2: signed by the issuer, or by whom the issuer says may sign.
    fn is_signed(&self, answer: &BasicOcspResponse, now: u64) -> bool {
        let Ok(signed) = answer.tbs_response_data.to_der() else { return false };
        let responder = &answer.tbs_response_data.responder_id;
        let Some(signature) = answer.signature.as_bytes() else { return false };
        let by = |signer: &Certificate| {
            is_responder(signer, responder) && verifies(signer, &answer.signature_algorithm, &signed, signature)
        };
        by(&self.issuer) || answer.certs.iter().flatten().any(|delegate| self.may_sign(delegate, now) && by(delegate))
    }

    fn may_sign(&self, delegate: &Certificate, now: u64) -> bool {
        let tbs = &delegate.tbs_certificate;
        let validity = &tbs.validity;
        let is_current = validity.not_before.to_unix_duration().as_secs() <= now
            && now <= validity.not_after.to_unix_duration().as_secs();
        let usage = tbs.get::<ExtendedKeyUsage>().ok().flatten();
        let is_for_it = usage.is_some_and(|(_, usage)| usage.0.contains(&OCSP_SIGNING));
        let (Ok(signed), Some(signature)) = (tbs.to_der(), delegate.signature.as_bytes()) else { return false };
        is_current
            && is_for_it
            && tbs.issuer == self.issuer.tbs_certificate.subject
            && verifies(&self.issuer, &delegate.signature_algorithm, &signed, signature)
    }
}

/// Section 4.1.1. The hash finds a certificate and protects nothing: responders know this one.
fn cert_id(leaf: &Certificate, issuer: &Certificate) -> der::Result<CertId> {
    let hashed = |bytes: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: hashed(&issuer.tbs_certificate.subject.to_der()?)?,
        issuer_key_hash: hashed(public_key(issuer))?,
        serial_number: leaf.tbs_certificate.serial_number.clone(),
    })
}

fn public_key(certificate: &Certificate) -> &[u8] {
    certificate.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes()
}

fn is_responder(certificate: &Certificate, responder: &ResponderId) -> bool {
    match responder {
        ResponderId::ByName(name) => certificate.tbs_certificate.subject == *name,
        ResponderId::ByKey(hash) => {
            digest(&SHA1_FOR_LEGACY_USE_ONLY, public_key(certificate)).as_ref() == hash.as_bytes()
        }
    }
}

/// Whether a signature is that of a certificate's key, by any algorithm handshakes are done with.
fn verifies(signer: &Certificate, by: &AlgorithmIdentifierOwned, signed: &[u8], signature: &[u8]) -> bool {
    let key_algorithm = &signer.tbs_certificate.subject_public_key_info.algorithm;
    let (Some(by), Some(key)) = (contents(by), contents(key_algorithm)) else { return false };
    let algorithms = default_provider().signature_verification_algorithms.all;
    algorithms.iter().any(|algorithm| {
        algorithm.signature_alg_id().as_ref() == by
            && algorithm.public_key_alg_id().as_ref() == key
            && algorithm.verify_signature(public_key(signer), signed, signature).is_ok()
    })
}

/// What is within the sequence of an algorithm: rustls has it so.
fn contents(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    let header = 2;
    // Long forms of the length are for what is longer than any of these.
    der.get(1).filter(|length| usize::from(**length) + header == der.len())?;
    der.get(header..).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests;
