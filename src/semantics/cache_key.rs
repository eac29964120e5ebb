//! What a stored response is found by: site, scheme, host, path and query.

use std::borrow::Cow;

/// The parts of a primary cache key (RFC 9111 section 2). The method is always GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// The site's name: two sites never share a stored response.
    pub site: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host as [`canonical_host`] has it.
    pub host: &'a [u8],
    /// The path and, behind `?`, the query, as clients ask for it.
    pub path_and_query: &'a [u8],
    /// The group of origins that is asked: what one answered is not for clients of another. Empty: the site's own.
    pub group: &'a str,
    /// What the origin is asked for. None: the same.
    pub asked: Option<&'a [u8]>,
}

impl<'a> KeyParts<'a> {
    /// Of what the site's own origins answer, asked for what the client asks for: what a URL is purged by.
    pub fn of_url(site: &'a str, scheme: &'a str, host: &'a [u8], path_and_query: &'a [u8]) -> Self {
        Self { site, scheme, host, path_and_query, group: "", asked: None }
    }

    /// Appends an encoding that no other parts have: each part behind its length, so that nothing a client writes
    /// into one part can look like the start of the next.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for part in [self.site.as_bytes(), self.scheme.as_bytes(), self.host, self.path_and_query] {
            write_part(part, out);
        }
        // Two parts more or none: parts have lengths, so that no four are any six.
        if !self.group.is_empty() || self.asked.is_some() {
            write_part(self.group.as_bytes(), out);
            write_part(self.asked.unwrap_or_default(), out);
        }
    }
}

/// Appends `part` behind its length, seven bits a byte (LEB128): most keys then fit the 64 bytes that are digested at
/// once.
pub(super) fn write_part(part: &[u8], out: &mut Vec<u8>) {
    let mut length = part.len();
    while length >= 0x80 {
        out.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(part);
}

/// The one spelling of an authority's host and port: lower case, without the scheme's default port or an empty one,
/// without the dot that ends a fully qualified name (RFC 9110 section 4.2.3, RFC 3986 section 6.2.3).
///
/// Borrowed, and so without allocation, unless there are capitals or a dot before a port.
pub fn canonical_host<'a>(host: &'a [u8], scheme: &str) -> Cow<'a, [u8]> {
    let (name, port) = split_port(host);
    let default_port: &[u8] = if scheme.eq_ignore_ascii_case("https") { b"443" } else { b"80" };
    let port = port.filter(|port| !port.is_empty() && *port != default_port);
    let undotted = name.strip_suffix(b".").unwrap_or(name);
    let kept = match port {
        Some(_) if undotted.len() == name.len() => host,
        Some(port) => {
            let mut canonical = undotted.to_ascii_lowercase();
            canonical.push(b':');
            canonical.extend_from_slice(port);
            return Cow::Owned(canonical);
        }
        None => undotted,
    };
    if kept.iter().any(u8::is_ascii_uppercase) { Cow::Owned(kept.to_ascii_lowercase()) } else { Cow::Borrowed(kept) }
}

/// The name in an authority: lower case, without the port and without the dot that ends a fully qualified name.
pub fn host_name(host: &[u8]) -> Cow<'_, [u8]> {
    let (name, _) = split_port(host);
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.iter().any(u8::is_ascii_uppercase) { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// The colons of an IPv6 address, inside its brackets, begin no port.
fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, port) = host.split_at(host.len() - digits);
    match before.strip_suffix(b":") {
        Some(name) if !name.contains(&b':') || name.ends_with(b"]") => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, scheme: &str, host: &str, expected: &str, is_borrowed: bool) {
        let canonical = canonical_host(host.as_bytes(), scheme);
        assert_eq!(String::from_utf8_lossy(&canonical), expected, "{name}: {scheme} {host}");
        assert_eq!(matches!(canonical, Cow::Borrowed(_)), is_borrowed, "{name}: {scheme} {host}");
    }

    #[test]
    fn hosts() {
        let rows = [
            ("canonical already", "https", "example.com", "example.com", true),
            ("another port", "https", "example.com:8443", "example.com:8443", true),
            ("9110 4.2.3: capitals", "http", "Example.COM", "example.com", false),
            ("9110 4.2.3: default port", "http", "example.com:80", "example.com", true),
            ("9110 4.2.3: default port", "https", "example.com:443", "example.com", true),
            ("of the other scheme", "https", "example.com:80", "example.com:80", true),
            ("3986 6.2.3: empty port", "http", "example.com:", "example.com", true),
            ("the root's dot", "http", "example.com.", "example.com", true),
            ("the root's dot before a port", "http", "Example.com.:81", "example.com:81", false),
            ("the root's dot before the default", "http", "example.com.:80", "example.com", true),
            ("IPv6", "http", "[::1]", "[::1]", true),
            ("IPv6 with the default port", "http", "[::1]:80", "[::1]", true),
            ("IPv6 with another", "http", "[2001:DB8::80]:81", "[2001:db8::80]:81", false),
            ("IPv6 without brackets", "http", "::80", "::80", true),
            ("nothing", "http", "", "", true),
        ];
        for (name, scheme, host, expected, is_borrowed) in rows {
            check(name, scheme, host, expected, is_borrowed);
        }
    }

    type AnyParts = (String, String, String, String, String, String);

    fn any_parts() -> impl Strategy<Value = AnyParts> {
        let part = || "[a:\\x01]{0,2}";
        (part(), part(), part(), part(), part(), part())
    }

    proptest! {
        #[test]
        fn canonical_twice_is_canonical_once(host in "([a-zA-Z0-9]{1,4}|\\[[:aA0-9]{2,6}\\])\\.?(:[0-9]{0,3})?") {
            let once = canonical_host(host.as_bytes(), "http");
            prop_assert_eq!(canonical_host(&once, "http"), once.clone());
        }

        #[test]
        fn arbitrary_bytes_never_panic(host in prop::collection::vec(any::<u8>(), 0..12)) {
            canonical_host(&host, "https");
        }

        #[test]
        fn keys_are_injective(one in any_parts(), other in any_parts()) {
            let key = |parts: &AnyParts| {
                let mut key = Vec::new();
                let of_url = KeyParts::of_url(&parts.0, &parts.1, parts.2.as_bytes(), parts.3.as_bytes());
                let asked = Some(parts.5.as_bytes()).filter(|asked| !asked.is_empty());
                KeyParts { group: &parts.4, asked, ..of_url }.encode(&mut key);
                key
            };
            prop_assert_eq!(one == other, key(&one) == key(&other));
        }
    }
}
