use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber,
    SigningKey,
};
use x509_cert::der::DateTime;
use x509_cert::der::asn1::{BitString, GeneralizedTime};
use x509_ocsp::{AsResponseBytes, OcspGeneralizedTime, ResponseData, RevokedInfo, SingleResponse};

use super::*;

/// 2026-01-01, in seconds since 1970.
const NOW: u64 = 1_767_225_600;

/// An authority, a certificate of it, and whoever may sign its answers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = params(name, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn certified(&self, params: &CertificateParams) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate").der().clone(), key)
    }

    /// A certificate that names these responders.
    fn leaf(&self, serial: u64, urls: &[&str]) -> CertificateDer<'static> {
        let mut params = params("leaf.test", serial);
        params.custom_extensions.extend((!urls.is_empty()).then(|| responders(urls)));
        self.certified(&params).0
    }

    fn question(&self, serial: u64) -> Question {
        let chain = [self.leaf(serial, &["http://ocsp.test/"]), self.certificate.clone()];
        Question::of(&chain).expect("it can be asked").expect("it names a responder")
    }
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// The extension that names responders, as DER: all of it is short.
fn responders(urls: &[&str]) -> CustomExtension {
    let within = |tag: u8, contents: &[u8]| {
        let mut out = vec![tag, u8::try_from(contents.len()).expect("it is short")];
        out.extend_from_slice(contents);
        out
    };
    let ocsp = within(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]);
    let one = |url: &&str| within(0x30, &[ocsp.clone(), within(0x86, url.as_bytes())].concat());
    let all: Vec<u8> = urls.iter().flat_map(one).collect();
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], within(0x30, &all))
}

fn time(seconds: u64) -> OcspGeneralizedTime {
    let time = DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).expect("a time");
    OcspGeneralizedTime(GeneralizedTime::from_date_time(time))
}

/// What is said about a certificate.
fn about(question: &Question, status: CertStatus, from: u64, until: Option<u64>) -> SingleResponse {
    SingleResponse {
        cert_id: question.subject.clone(),
        cert_status: status,
        this_update: time(from),
        next_update: until.map(time),
        single_extensions: None,
    }
}

fn good(question: &Question) -> SingleResponse {
    about(question, CertStatus::good(), NOW - 100, Some(NOW + 100))
}

/// An answer, signed by a key of P-256 in the name of a certificate.
fn signed(
    single: SingleResponse,
    name: &CertificateDer<'_>,
    key: &impl SigningKey,
    with: &[&CertificateDer<'_>],
) -> Vec<u8> {
    let certificate = |der: &CertificateDer<'_>| Certificate::from_der(der).expect("a certificate");
    let data = ResponseData {
        version: Version::V1,
        responder_id: ResponderId::ByName(certificate(name).tbs_certificate.subject),
        produced_at: time(NOW),
        responses: vec![single],
        response_extensions: None,
    };
    let signature = key.sign(&data.to_der().expect("DER")).expect("a signature");
    let answer = BasicOcspResponse {
        tbs_response_data: data,
        // ecdsa-with-SHA256.
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
            parameters: None,
        },
        signature: BitString::from_bytes(&signature).expect("bits"),
        certs: (!with.is_empty()).then(|| with.iter().map(|der| certificate(der)).collect()),
    };
    let bytes = answer.to_response_bytes().expect("DER");
    let answer = OcspResponse { response_status: OcspResponseStatus::Successful, response_bytes: Some(bytes) };
    answer.to_der().expect("DER")
}

#[test]
fn what_is_asked() {
    let authority = Authority::new("ca.test");
    let chain = |urls: &[&str]| [authority.leaf(7, urls), authority.certificate.clone()];
    let asked = |chain: &[CertificateDer<'_>]| Question::of(chain).map(|question| question.map(|asked| asked.urls));
    assert_eq!(asked(&chain(&[])), Ok(None));
    assert_eq!(asked(&[]), Ok(None));
    assert_eq!(
        asked(&chain(&["http://a.test/o", "http://b.test"])),
        Ok(Some(vec!["http://a.test/o".into(), "http://b.test".into()]))
    );
    assert_eq!(asked(&chain(&["https://a.test"])), Err(QuestionError::NoHttp("https://a.test".into())));
    let [leaf, _] = chain(&["http://a.test"]);
    assert_eq!(asked(std::slice::from_ref(&leaf)), Err(QuestionError::NoIssuer));
    assert_eq!(asked(&[leaf, Authority::new("other.test").certificate]), Err(QuestionError::NoIssuer));
    assert!(matches!(asked(&[CertificateDer::from(vec![1, 2, 3])]), Err(QuestionError::Unreadable(_))));
    let question = authority.question(7);
    let request = OcspRequest::from_der(&question.request).expect("a request");
    assert_eq!(request.tbs_request.request_list[0].req_cert, question.subject);
    assert_eq!(question.subject.serial_number.as_bytes(), [7]);
}

#[test]
fn what_may_be_stapled() {
    let authority = Authority::new("ca.test");
    let question = authority.question(7);
    let by_issuer = |single: SingleResponse| signed(single, &authority.certificate, authority.issuer.key(), &[]);
    let revoked = CertStatus::revoked(RevokedInfo { revocation_time: time(NOW - 5), revocation_reason: None });
    let rows: [(&str, SingleResponse, Result<Good, Refused>); 8] = [
        ("good", good(&question), Ok(Good { this_update: NOW - 100, next_update: NOW + 100 })),
        ("revoked", about(&question, revoked, NOW - 1, Some(NOW + 1)), Err(Refused::Revoked)),
        ("unknown", about(&question, CertStatus::unknown(), NOW - 1, Some(NOW + 1)), Err(Refused::Unknown)),
        ("over", about(&question, CertStatus::good(), NOW - 9, Some(NOW)), Err(Refused::AnotherTime(NOW - 9, NOW))),
        (
            "of the future",
            about(&question, CertStatus::good(), NOW + 301, Some(NOW + 999)),
            Err(Refused::AnotherTime(NOW + 301, NOW + 999)),
        ),
        (
            "a clock that is ahead",
            about(&question, CertStatus::good(), NOW + 299, Some(NOW + 999)),
            Ok(Good { this_update: NOW + 299, next_update: NOW + 999 }),
        ),
        ("without an end", about(&question, CertStatus::good(), NOW - 1, None), Err(Refused::WithoutEnd)),
        ("another serial", good(&authority.question(8)), Err(Refused::AnotherCertificate)),
    ];
    for (name, single, expected) in rows {
        assert_eq!(question.judge(&by_issuer(single), NOW), expected, "{name}");
    }
    assert!(matches!(question.judge(b"<html>", NOW), Err(Refused::Unreadable(_))));
    let later = OcspResponse { response_status: OcspResponseStatus::TryLater, response_bytes: None };
    let later = later.to_der().expect("DER");
    assert_eq!(question.judge(&later, NOW), Err(Refused::Unsuccessful(OcspResponseStatus::TryLater)));
}

#[test]
fn who_may_sign() {
    let (authority, other) = (Authority::new("ca.test"), Authority::new("other.test"));
    let question = authority.question(7);
    let delegate = |usage: &[ExtendedKeyUsagePurpose], by: &Authority| {
        let mut params = params("responder.test", 3);
        params.extended_key_usages = usage.to_vec();
        by.certified(&params)
    };
    let signing = [ExtendedKeyUsagePurpose::OcspSigning];
    let (appointed, appointed_key) = delegate(&signing, &authority);
    let (server, server_key) = delegate(&[ExtendedKeyUsagePurpose::ServerAuth], &authority);
    let (foreign, foreign_key) = delegate(&signing, &other);
    let is_taken = |answer: &[u8]| question.judge(answer, NOW).is_ok();
    let single = || good(&question);
    assert!(is_taken(&signed(single(), &appointed, &appointed_key, &[&appointed])), "a delegate of the issuer");
    assert!(!is_taken(&signed(single(), &appointed, &appointed_key, &[])), "who is it?");
    assert!(!is_taken(&signed(single(), &server, &server_key, &[&server])), "not for this");
    assert!(!is_taken(&signed(single(), &foreign, &foreign_key, &[&foreign])), "of another authority");
    assert!(!is_taken(&signed(single(), &other.certificate, other.issuer.key(), &[])), "another authority");
    assert!(!is_taken(&signed(single(), &authority.certificate, other.issuer.key(), &[])), "in a name not its own");
    let answer = signed(single(), &authority.certificate, authority.issuer.key(), &[]);
    // No bit of it can be another one. Where it is not signed it is not what is believed.
    let mut taken = Vec::new();
    for at in 0..answer.len() {
        let mut changed = answer.clone();
        changed[at] ^= 1;
        if is_taken(&changed) {
            taken.push(at);
        }
    }
    assert!(taken.is_empty(), "bytes that may be anything: {taken:?}");
}

#[test]
fn whatever_a_responder_says() {
    let authority = Authority::new("ca.test");
    let question = authority.question(7);
    let answer = signed(good(&question), &authority.certificate, authority.issuer.key(), &[&authority.certificate]);
    let expected = Good { this_update: NOW - 100, next_update: NOW + 100 };
    crate::fuzz::target("answers of OCSP responders", &[&answer, b"0\x03\x0a\x01\x06", b"0\x80"], |input| {
        if let Ok(good) = question.judge(input, NOW) {
            assert_eq!(good, expected, "nobody has signed this");
        }
    });
    crate::fuzz::target("certificates that are asked about", &[&authority.leaf(7, &["http://a.test"])], |input| {
        let _ = Question::of(&[CertificateDer::from(input.to_vec()), authority.certificate.clone()]);
    });
}
