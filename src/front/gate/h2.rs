//! The gate for HTTP/2: what the `h2` crate decoded, read as strictly as the bytes of HTTP/1.
//!
//! The crate refuses what breaks the protocol itself (order and number of pseudo-fields, upper-case names, control
//! characters). Everything the rest of the node relies on is checked here all the same: another version of the crate must
//! not be able to let it through.

use edge_config::section::limits::{FIELDS_MAX, HEAD_BYTES_MAX};
use http::request::Parts;

use super::{Authority, Found, Framing, Head, Interest, Method, Refusal, Version, check_target};
use crate::semantics::fields::Fields;

/// The head of an HTTP/2 request, checked, in memory of its own that the next one can use again.
#[derive(Debug, Default)]
pub struct OwnedHead {
    method: http::Method,
    target: Vec<u8>,
    host: Vec<u8>,
    fields: Vec<u8>,
    framing: Option<Framing>,
    interest: Interest,
}

const HTTPS_PORT: u16 = 443;
/// RFC 9113 section 8.2.2.
const CONNECTION_FIELDS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

impl OwnedHead {
    /// Reads a head. `ends`: no body follows.
    ///
    /// # Errors
    /// What is wrong with it; what was read before must not be used then.
    pub fn read(&mut self, parts: &Parts, ends: bool) -> Result<(), Refusal> {
        self.clear();
        self.method.clone_from(&parts.method);
        self.read_target(parts)?;
        let mut found = Found::default();
        self.read_fields(parts, &mut found)?;
        self.read_host(parts, found.host)?;
        self.framing = Some(match (found.length, ends) {
            (Some(1..), true) => return Err(Refusal::ContentLengthWithoutBody),
            (_, true) => Framing::None,
            (Some(length), false) => Framing::Length(length),
            // RFC 9113 section 8.1.1: the stream says where the body ends.
            (None, false) => Framing::Chunked,
        });
        self.interest = found.interest(Version::Http11);
        Ok(())
    }

    /// The head, as the rest of the front knows heads.
    pub fn head(&self) -> Head<'_> {
        Head {
            method: Method::new(self.method.as_str()),
            target: &self.target,
            host: &self.host,
            fields: Fields::new(&self.fields),
            version: Version::Http11,
            framing: self.framing.unwrap_or(Framing::None),
            keep_alive: true,
            interest: self.interest,
            length: 0,
        }
    }

    fn clear(&mut self) {
        self.target.clear();
        self.host.clear();
        self.fields.clear();
        self.framing = None;
        self.interest = Interest::default();
    }

    fn read_target(&mut self, parts: &Parts) -> Result<(), Refusal> {
        if parts.method == http::Method::CONNECT {
            // Refused with a status of its own later; it has neither scheme nor path.
            self.target.extend_from_slice(parts.uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
            return check_target(&self.target);
        }
        // Without an authority the crate keeps the path alone; that there was a scheme it has made sure of.
        let scheme_dropped = parts.uri.authority().is_none() && parts.uri.scheme().is_none();
        if parts.uri.scheme_str() != Some("https") && !scheme_dropped {
            return Err(Refusal::MalformedScheme);
        }
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        check_target(target.as_bytes())?;
        let whole_server = target == "*" && parts.method == http::Method::OPTIONS;
        if !target.starts_with('/') && !whole_server {
            return Err(Refusal::MalformedTarget);
        }
        self.target.extend_from_slice(target.as_bytes());
        Ok(())
    }

    fn read_fields<'p>(&mut self, parts: &'p Parts, found: &mut Found<'p>) -> Result<(), Refusal> {
        if parts.headers.len() > FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        let mut cookies = 0;
        for (name, value) in &parts.headers {
            let (name, value) = (name.as_str(), value.as_bytes());
            check_field(name, value)?;
            found.take(name.as_bytes(), value)?;
            if name == "cookie" {
                cookies += 1;
                continue;
            }
            self.line(name, [value].into_iter(), b"");
        }
        if cookies > 0 {
            // RFC 9113 section 8.2.3: they were one field, and for HTTP/1 they are again.
            let values = parts.headers.get_all(http::header::COOKIE).iter().map(http::HeaderValue::as_bytes);
            self.line("cookie", values, b"; ");
        }
        if self.fields.len() + self.target.len() > HEAD_BYTES_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(())
    }

    fn line<'v>(&mut self, name: &str, values: impl Iterator<Item = &'v [u8]>, between: &[u8]) {
        self.fields.extend_from_slice(name.as_bytes());
        self.fields.extend_from_slice(b": ");
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.fields.extend_from_slice(between);
            }
            self.fields.extend_from_slice(value);
        }
        self.fields.extend_from_slice(b"\r\n");
    }

    /// RFC 9113 section 8.3.1: the authority counts, and a `Host` beside it must name the same.
    fn read_host(&mut self, parts: &Parts, field: Option<&[u8]>) -> Result<(), Refusal> {
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = authority.or(field).ok_or(Refusal::MissingHost)?;
        let named = Authority::read(host).ok_or(Refusal::MalformedHost)?;
        if let Some(field) = field {
            let field = Authority::read(field).ok_or(Refusal::MalformedHost)?;
            if !named.agrees_with(&field, HTTPS_PORT) {
                return Err(Refusal::HostDisagreesWithTarget);
            }
        }
        self.host.extend_from_slice(host);
        if field.is_none() {
            self.line("host", [host].into_iter(), b"");
        }
        Ok(())
    }
}

/// Bytes of a field name in HTTP/2: those of a token (RFC 9110 section 5.6.2) but for upper-case letters.
const NAME: [bool; 256] = {
    let mut name = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        name[byte] = !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    let delimiters = b"\"(),/:;<=>?@[\\]{}";
    let mut at = 0;
    while at < delimiters.len() {
        name[delimiters[at] as usize] = false;
        at += 1;
    }
    name
};

fn check_field(name: &str, value: &[u8]) -> Result<(), Refusal> {
    match name.as_bytes() {
        [] => return Err(Refusal::EmptyFieldName),
        name if !name.iter().all(|byte| NAME[usize::from(*byte)]) => return Err(Refusal::MalformedFieldName),
        _ => {}
    }
    if !value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) {
        return Err(Refusal::ControlCharacterInValue);
    }
    if matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t')) {
        return Err(Refusal::SpaceAroundValue);
    }
    if CONNECTION_FIELDS.contains(&name) || (name == "te" && !value.eq_ignore_ascii_case(b"trailers")) {
        return Err(Refusal::ConnectionField);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, uri: &str, fields: &[(&str, &str)], want: Result<&str, Refusal>) {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap_or_else(|error| panic!("{name}: {error}")).into_parts();
        let mut head = OwnedHead::default();
        let got = head.read(&parts, true).map(|()| String::from_utf8_lossy(head.head().fields.as_bytes()).into_owned());
        assert_eq!(got.as_deref().map_err(|refusal| *refusal), want, "{name}");
    }

    #[test]
    fn heads() {
        let uri = "https://example.org/a?b";
        let host = "host: example.org\r\n";
        check("plain", uri, &[], Ok(host));
        check("fields", uri, &[("a", "1"), ("b", "2")], Ok("a: 1\r\nb: 2\r\nhost: example.org\r\n"));
        let cookies = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")];
        check("cookies are one", uri, &cookies, Ok("x: y\r\ncookie: a=1; b=2\r\nhost: example.org\r\n"));
        check("same host", uri, &[("host", "EXAMPLE.org:443")], Ok("host: EXAMPLE.org:443\r\n"));
        check("host alone", "/a?b", &[("host", "example.org")], Ok(host));
        let refused = [
            ("another host", uri, ("host", "example.net"), Refusal::HostDisagreesWithTarget),
            ("bad host", uri, ("host", "a b"), Refusal::MalformedHost),
            ("user", "https://user@example.org/", ("a", "1"), Refusal::MalformedHost),
            ("scheme", "http://example.org/", ("a", "1"), Refusal::MalformedScheme),
            ("no authority and no host", "/a", ("a", "1"), Refusal::MissingHost),
            ("connection", uri, ("connection", "close"), Refusal::ConnectionField),
            ("transfer-encoding", uri, ("transfer-encoding", "chunked"), Refusal::ConnectionField),
            ("te", uri, ("te", "gzip"), Refusal::ConnectionField),
            ("space before", uri, ("a", " 1"), Refusal::SpaceAroundValue),
            ("space behind", uri, ("a", "1\t"), Refusal::SpaceAroundValue),
            ("length", uri, ("content-length", "+3"), Refusal::MalformedContentLength),
            ("length without body", uri, ("content-length", "3"), Refusal::ContentLengthWithoutBody),
        ];
        for (name, uri, field, refusal) in refused {
            check(name, uri, &[field], Err(refusal));
        }
        check("two hosts", uri, &[("host", "example.org"), ("host", "example.org")], Err(Refusal::RepeatedHost));
        let two = [("content-length", "3"), ("content-length", "3")];
        check("two lengths", uri, &two, Err(Refusal::RepeatedContentLength));
        let many: Vec<_> = (0..=FIELDS_MAX).map(|n| (format!("x-{n}"), "1")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        check("many fields", uri, &many, Err(Refusal::TooManyFields));
        check("trailers", uri, &[("te", "trailers")], Ok("te: trailers\r\nhost: example.org\r\n"));
    }
}
