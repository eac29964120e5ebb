//! Signing a request by AWS Signature Version 4. Pure: what is signed, with what, and when, are arguments.
//!
//! A server computes the signature from what it makes of the target, not from the bytes of it. So the target is sent in the
//! one form that servers and signers agree on: everything percent-encoded that is not unreserved (RFC 3986 section 2.3).
//! That is why this is not left to a library: those that there are sign the target as it is, and bring a runtime along.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.

use std::fmt::Write;

use edge_config::section::talking::Signing;
use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::semantics::http_date::civil_time;
use crate::semantics::time::UnixMs;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What stands for the digest of a body that is not signed: it is not there yet when its head is.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The digest of no body.
pub const EMPTY_PAYLOAD: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Seconds as a signature has them: `20130524T000000Z`.
pub fn stamp(now: UnixMs) -> String {
    let (year, month, day, hour, minute, second) = civil_time(now);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// Path and query in the form of [`normal`].
    pub target: &'a str,
    /// Names in lower case, and values.
    pub fields: &'a [(&'a str, &'a [u8])],
    pub payload: &'a str,
    /// When, as [`stamp`] has it.
    pub stamp: &'a str,
}

/// The value of `Authorization`.
pub fn authorization(signing: &Signing, request: &Signed<'_>) -> String {
    let day = request.stamp.get(..8).unwrap_or(request.stamp);
    let scope = format!("{day}/{}/{}/aws4_request", signing.region, signing.service);
    let (canonical, names) = canonical(request, is_s3(&signing.service));
    let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let text = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", request.stamp);
    let mut key = format!("AWS4{}", signing.secret.expose()).into_bytes();
    for part in [day, &signing.region, &signing.service, "aws4_request", &text] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    let signature = hex(&key);
    format!("{ALGORITHM} Credential={}/{scope},SignedHeaders={names},Signature={signature}", signing.access_key)
}

/// S3 signs the path as it is; every other service encodes it once more.
fn is_s3(service: &str) -> bool {
    service.starts_with("s3")
}

/// The request as it is hashed, and the names of the fields in it.
fn canonical(request: &Signed<'_>, s3: bool) -> (String, String) {
    let (path, query) = split(request.target);
    let path = if s3 { path.to_owned() } else { encoded(path.as_bytes(), Slash::Kept) };
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut fields: Vec<(&str, String)> = request.fields.iter().map(|(name, value)| (*name, trimmed(value))).collect();
    // Lines of one name stay in their order.
    fields.sort_by_key(|(name, _)| *name);
    fields.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 = format!("{},{}", first.1, later.1);
        }
        same
    });
    let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let query = query.join("&");
    (format!("{}\n{path}\n{query}\n{lines}\n{names}\n{}", request.method, request.payload), names)
}

fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// A value without white space around it, and with one space for each run of it.
fn trimmed(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The target in the form in which it is signed and sent. It means the same.
///
/// `+` is a plus: in a path it never means a space, and in a query only to those who read it as a form.
pub fn normal(target: &[u8], service: &str) -> String {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next());
    let mut normal = match is_s3(service) {
        // The key of an object has no segments: a slash is one however it is written.
        true => encoded(&decoded(path), Slash::Kept),
        false => {
            let segments = path.split(|byte| *byte == b'/').map(|segment| encoded(&decoded(segment), Slash::Encoded));
            segments.collect::<Vec<_>>().join("/")
        }
    };
    let Some(query) = query else { return normal };
    normal.push('?');
    for (number, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if number > 0 {
            normal.push('&');
        }
        for (number, part) in pair.splitn(2, |byte| *byte == b'=').enumerate() {
            if number > 0 {
                normal.push('=');
            }
            normal.push_str(&encoded(&decoded(part), Slash::Encoded));
        }
    }
    normal
}

fn decoded(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

fn encoded(text: &[u8], slash: Slash) -> String {
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(*byte)),
            b'/' if slash == Slash::Kept => encoded.push('/'),
            byte => write!(encoded, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests;
