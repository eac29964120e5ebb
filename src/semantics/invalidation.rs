//! What an unsafe request makes stale (RFC 9111 section 4.4).

use url::Url;

use super::fields::Fields;

/// The URIs, as path and query of the request's own origin, whose stored responses an unsafe request invalidates.
///
/// The target always, `Location` and `Content-Location` when they name the same origin: another origin's responses are
/// not this one's to remove. Nothing when the request failed, nothing for a safe method. A method nobody knows is
/// taken for unsafe, as the section asks. `target` is the path and query of the request, `host` its authority.
pub fn targets(
    method: &[u8],
    status: u16,
    target: &[u8],
    scheme: &str,
    host: &[u8],
    response: Fields<'_>,
) -> Vec<Vec<u8>> {
    let mut targets = Vec::new();
    if matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE") || !matches!(status, 200..=399) {
        return targets;
    }
    targets.push(target.to_vec());
    let Some(base) = base(target, scheme, host) else { return targets };
    for name in ["location", "content-location"] {
        let Some(named) = response.only(name).and_then(|value| resolve(&base, value)) else { continue };
        if !targets.contains(&named) {
            targets.push(named);
        }
    }
    targets
}

/// Whether `Content-Location` says that an answer holds what a GET of the target would get (RFC 9110 section 8.7).
pub fn is_content_of_target(target: &[u8], scheme: &str, host: &[u8], response: Fields<'_>) -> bool {
    let named = base(target, scheme, host).zip(response.only("content-location"));
    let own = base(target, scheme, host).and_then(|base| resolve(&base, target));
    own.is_some() && named.and_then(|(base, value)| resolve(&base, value)) == own
}

fn base(target: &[u8], scheme: &str, host: &[u8]) -> Option<Url> {
    // Anything else could move the end of the host.
    target.starts_with(b"/").then_some(())?;
    let (target, host) = (std::str::from_utf8(target).ok()?, std::str::from_utf8(host).ok()?);
    Url::parse(&format!("{scheme}://{host}{target}")).ok()
}

fn resolve(base: &Url, reference: &[u8]) -> Option<Vec<u8>> {
    let named = base.join(std::str::from_utf8(reference).ok()?).ok()?;
    let is_ours = named.scheme() == base.scheme()
        && named.host() == base.host()
        && named.port_or_known_default() == base.port_or_known_default();
    let mut path_and_query = named.path().as_bytes().to_vec();
    if let Some(query) = named.query() {
        path_and_query.push(b'?');
        path_and_query.extend_from_slice(query.as_bytes());
    }
    is_ours.then_some(path_and_query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, method: &str, status: u16, block: &str, expected: &[&str]) {
        let named =
            targets(method.as_bytes(), status, b"/a/b?c", "https", b"example.com", Fields::new(block.as_bytes()));
        let named: Vec<_> = named.iter().map(|target| String::from_utf8_lossy(target)).collect();
        assert_eq!(named, expected, "{name}: {method} {status} {block:?}");
    }

    #[test]
    fn what_is_invalidated() {
        let rows: &[(&str, &str, u16, &str, &[&str])] = &[
            ("4.4: the target", "POST", 200, "", &["/a/b?c"]),
            ("4.4: a redirection is no error", "DELETE", 303, "", &["/a/b?c"]),
            ("4.4: unknown methods are unsafe", "M-SEARCH", 204, "", &["/a/b?c"]),
            ("4.4: an error", "POST", 500, "", &[]),
            ("4.4: a safe method", "GET", 200, "location: /x\r\n", &[]),
            ("4.4: relative", "PUT", 201, "Location: x?y\r\nContent-Location: ../z\r\n", &["/a/b?c", "/a/x?y", "/z"]),
            ("4.4: absolute", "PUT", 201, "Location: https://EXAMPLE.com:443/x#y\r\n", &["/a/b?c", "/x"]),
            ("4.4: no path", "PUT", 201, "Location: //example.com\r\n", &["/a/b?c", "/"]),
            ("4.4: another host", "PUT", 201, "Location: https://example.net/x\r\n", &["/a/b?c"]),
            ("4.4: another scheme", "PUT", 201, "Location: http://example.com/x\r\n", &["/a/b?c"]),
            ("4.4: another port", "PUT", 201, "Location: https://example.com:444/x\r\n", &["/a/b?c"]),
            ("each once", "PUT", 201, "Location: /a/b?c\r\nContent-Location: /a/b?c\r\n", &["/a/b?c"]),
            (
                "not a reference",
                "PUT",
                201,
                "Location: https://[\r\nContent-Location: \u{7f}\r\n",
                &["/a/b?c", "/a/%7F"],
            ),
        ];
        for (name, method, status, block, expected) in rows {
            check(name, method, *status, block, expected);
        }
    }

    #[test]
    fn a_host_that_is_none_leaves_the_target() {
        let fields = Fields::new(b"location: /x\r\n");
        assert_eq!(targets(b"POST", 200, b"/a", "https", b"\xff", fields), [b"/a".to_vec()]);
    }

    #[test]
    fn the_content_of_the_target() {
        for (value, expected) in [
            ("/a/b?c", true),
            ("b?c", true),
            ("https://example.com/a/b?c", true),
            ("https://example.com:443/a/b?c", true),
            ("", true),
            ("/a/b", false),
            ("https://other.example/a/b?c", false),
            ("http://example.com/a/b?c", false),
        ] {
            let block = format!("content-location: {value}\r\n");
            let fields = Fields::new(block.as_bytes());
            assert_eq!(is_content_of_target(b"/a/b?c", "https", b"example.com", fields), expected, "{value}");
        }
        assert!(!is_content_of_target(b"/a", "https", b"example.com", Fields::new(b"")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60), host in "[a-z.:\\[\\]@/0-9]{0,9}") {
            let block = [b"location: ", &value[..]].concat();
            targets(b"POST", 200, &value, "http", host.as_bytes(), Fields::new(&block));
        }
    }
}
