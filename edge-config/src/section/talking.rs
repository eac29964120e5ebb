//! How the node speaks to one origin, and how it proves who it is.

use super::origin::{Origin, OriginScheme};
use super::secret::{self, Secret};
use super::tls::{CertificateFiles, TlsVersion};
use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table};

/// How the node speaks to an origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talking {
    /// What the node shows of itself in TLS. Default: nothing.
    pub certificate: Option<CertificateFiles>,
    /// The oldest version of TLS it is spoken to in. Default 1.2.
    pub tls_minimum: TlsVersion,
    /// Fields set on every request to it, names in lower case.
    pub fields: Vec<(String, Secret)>,
    /// How requests to it are signed. Default: not at all.
    pub signing: Option<Signing>,
    /// With what connections to it begin. Default: with TLS or the request.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// What requests are signed with, as AWS has it in Signature Version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    pub region: String,
    pub service: String,
    pub access_key: String,
    pub secret: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

section! {
    /// What requests are signed with.
    SIGV4 = "sigv4" {
        /// The region the bucket is in.
        REGION = "region": Kind::Text("a region, as in \"eu-central-1\"");
        /// The service that is asked.
        SERVICE = "service": Kind::Text("a service, as in \"s3\""), "s3";
        /// The id of the access key. One that may only read is enough for a site that is only read.
        ACCESS_KEY = "access_key": Kind::Text("an access key id");
        /// A file with the secret access key. It is read again with every reload.
        SECRET_KEY_FILE = "secret_key_file": Kind::Text("a file");
        /// A file with the session token, for temporary credentials. It is read again with every reload.
        SESSION_TOKEN_FILE = "session_token_file": Kind::Text("a file");
    }
}

/// The keys of an origin that are read here. They are declared with the others of an origin.
pub(super) struct Keys {
    pub certificate: &'static Key,
    pub key: &'static Key,
    pub tls_minimum: &'static Key,
    pub headers: &'static Key,
    pub sigv4: &'static Key,
    pub proxy_protocol: &'static Key,
}

impl Talking {
    pub(super) fn read(table: &Table<'_>, reader: &mut Reader, keys: &Keys) -> Self {
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let proxies = [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
        let signing = table.table(reader, keys.sigv4, &SIGV4).map(|table| Signing::read(table, reader));
        let fields = secret::fields(table, reader, keys.headers);
        if let (Some(_), Some((name, _))) = (&signing, fields.iter().find(|(name, _)| is_of_signature(name)))
            && let Some(value) = table.value(keys.headers)
        {
            let message = format!("`headers` sets {name}, and `sigv4` does too");
            reader.wrong(&value.span(), message, "set twice", "leave one of the two out");
        }
        Self {
            certificate: certificate_of(table, reader, keys.certificate, keys.key),
            tls_minimum: table.choice(reader, keys.tls_minimum, &versions).unwrap_or_default(),
            fields,
            signing: signing.flatten(),
            proxy_protocol: table
                .value(keys.proxy_protocol)
                .and_then(|value| reader.choice(keys.proxy_protocol, value, &proxies)),
        }
    }

    /// The keys that only make sense in TLS.
    pub(super) fn check(table: &Table<'_>, reader: &mut Reader, keys: &[&'static Key], origin: &Origin) {
        if origin.scheme == OriginScheme::Https {
            return;
        }
        for key in keys {
            if let Some(value) = table.value(key) {
                let message = format!("`{}` is for TLS, and the URL of this origin is http", key.name);
                reader.wrong(&value.span(), message, "has no effect", "use an https URL, or leave the key out");
            }
        }
    }
}

/// Whether a field is one a signature is carried in, or one that a signer has to sign.
fn is_of_signature(name: &str) -> bool {
    name == "authorization" || name.starts_with("x-amz-")
}

/// A certificate and its key, both or none.
pub(super) fn certificate_of(
    table: &Table<'_>,
    reader: &mut Reader,
    certificate: &'static Key,
    key: &'static Key,
) -> Option<CertificateFiles> {
    match (table.value(certificate), table.value(key)) {
        (None, None) => return None,
        (Some(value), None) => {
            reader.wrong(&value.span(), "a `certificate` without its `key`", "`key` is missing", key.summary());
        }
        (None, Some(value)) => {
            let help = certificate.summary();
            reader.wrong(&value.span(), "a `key` without its `certificate`", "`certificate` is missing", help);
        }
        (Some(_), Some(_)) => {
            let certificate = table.required_file(reader, certificate, "BEGIN CERTIFICATE");
            let key = table.required_file(reader, key, "PRIVATE KEY");
            return Some(CertificateFiles { certificate: certificate?, key: key? });
        }
    }
    None
}

impl Signing {
    fn read(table: Table<'_>, reader: &mut Reader) -> Option<Self> {
        for key in [&REGION, &ACCESS_KEY, &SECRET_KEY_FILE] {
            table.required(reader, key, false);
        }
        let region = scope(&table, reader, &REGION);
        let service = scope(&table, reader, &SERVICE);
        let access_key = scope(&table, reader, &ACCESS_KEY);
        let secret = secret::of_file(&table, reader, &SECRET_KEY_FILE);
        let session_token = secret::of_file(&table, reader, &SESSION_TOKEN_FILE);
        table.finish(reader);
        Some(Self { region: region?, service: service?, access_key: access_key?, secret: secret?, session_token })
    }
}

/// A part of the scope of a signature: a slash or a comma in it would make it another one.
fn scope(table: &Table<'_>, reader: &mut Reader, key: &'static Key) -> Option<String> {
    let text = table.parsed::<String>(reader, key)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.value.is_empty() || !text.value.bytes().all(fits) {
        let label = "expected letters, digits and hyphens";
        reader.wrong(&text.span, format_args!("`{}` cannot be \"{}\"", key.name, text.value), label, key.summary());
        return None;
    }
    Some(text.value)
}
