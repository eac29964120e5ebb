//! `CDN-Loop` (RFC 8586): a request that comes back to a node that has sent it is answered, and sent on no more.

use super::fields::{Fields, parameters};

pub const FIELD: &str = "cdn-loop";

/// A request that was in so many CDNs goes round among some of them that do not say so.
pub const MEMBERS_MAX: usize = 32;

const CONTEXT: &str = "littoral 2026 what a node calls itself in CDN-Loop";

/// What a node calls itself: a pseudonym, the same after every start, that says nothing of where the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdnId(String);

impl CdnId {
    /// `secret` is the node's own.
    pub fn new(secret: &[u8]) -> Self {
        let digest = blake3::derive_key(CONTEXT, secret);
        Self(format!("littoral-{}", digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a request has been here, or in more CDNs than make sense. Where a member cannot be read, nothing is hidden by it:
/// see [`Fields::members`].
pub fn is_loop(fields: Fields<'_>, own: &CdnId) -> bool {
    fields.members(FIELD).enumerate().any(|(index, member)| index >= MEMBERS_MAX || names(member, own))
}

/// Section 2: `cdn-info = cdn-id *( OWS ";" OWS parameter )`. Ids that are hosts have no case.
fn names(member: &[u8], own: &CdnId) -> bool {
    parameters(member).next().is_some_and(|id| id.eq_ignore_ascii_case(own.0.as_bytes()))
}

/// Appends the line of a request that goes on: what came, and this node.
pub fn write(fields: Fields<'_>, own: &CdnId, out: &mut Vec<u8>) {
    out.extend_from_slice(FIELD.as_bytes());
    out.extend_from_slice(b": ");
    for value in fields.values(FIELD).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(own.0.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> CdnId {
        CdnId("littoral-0123456789abcdef".into())
    }

    #[test]
    fn loops() {
        let many = |count: usize| format!("cdn-loop: {}\r\n", vec!["a.example"; count].join(", "));
        let rows: [(&str, &str, bool); 14] = [
            ("no field", "via: 1.1 littoral-0123456789abcdef\r\n", false),
            ("empty", "cdn-loop:\r\n", false),
            ("8586 2: another", "cdn-loop: foo123.foocdn.example, barcdn.example; trace=\"abcdef\"\r\n", false),
            ("8586 2: this one", "cdn-loop: littoral-0123456789abcdef\r\n", true),
            ("with parameters", "cdn-loop: a, littoral-0123456789abcdef ; b=\"c, d;e\" ; f=g\r\n", true),
            ("in another line", "CDN-Loop: a\r\nb: c\r\nCDN-Loop: d, LITTORAL-0123456789ABCDEF\r\n", true),
            ("in a quoted string", "cdn-loop: a; b=\"c, littoral-0123456789abcdef\"\r\n", false),
            ("as a parameter", "cdn-loop: a; littoral-0123456789abcdef\r\n", false),
            ("behind an open quote", "cdn-loop: a; b=\"c, littoral-0123456789abcdef\r\n", true),
            ("with a port", "cdn-loop: littoral-0123456789abcdef:80\r\n", false),
            ("longer", "cdn-loop: littoral-0123456789abcdef0\r\n", false),
            ("shorter", "cdn-loop: littoral-0123456789abcde\r\n", false),
            ("as many as make sense", &many(MEMBERS_MAX), false),
            ("more", &many(MEMBERS_MAX + 1), true),
        ];
        for (name, lines, expected) in rows {
            assert_eq!(is_loop(Fields::new(lines.as_bytes()), &own()), expected, "{name}");
        }
    }

    #[test]
    fn lines() {
        let rows = [
            ("none", "a: b\r\n", "cdn-loop: littoral-0123456789abcdef\r\n"),
            (
                "what came, in order",
                "CDN-Loop: a.example; b=\"c, d\"\r\ncdn-loop:\r\nCDN-LOOP: e\r\n",
                "cdn-loop: a.example; b=\"c, d\", e, littoral-0123456789abcdef\r\n",
            ),
        ];
        for (name, lines, expected) in rows {
            let mut out = Vec::new();
            write(Fields::new(lines.as_bytes()), &own(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{name}");
        }
    }

    #[test]
    fn ids() {
        let (one, other) = (CdnId::new(&[1; 32]), CdnId::new(&[2; 32]));
        assert_eq!(one, CdnId::new(&[1; 32]));
        assert_ne!(one, other);
        let digits = one.as_str().strip_prefix("littoral-").expect("a pseudonym");
        assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
    }

    #[test]
    fn anything() {
        let corpus: [&[u8]; 4] = [
            b"a.example, b.example:8080; c=d",
            b"a; b=\"c, littoral-0123456789abcdef\", littoral-0123456789abcdef; e",
            b"a; b=\"c\\\", d",
            b",,; \"",
        ];
        crate::fuzz::target("CDN-Loop", &corpus, |input| {
            // What the gate lets through is one line.
            let value: Vec<u8> = input.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
            let line = [b"cdn-loop: ", &value[..], b"\r\n"].concat();
            let _ = is_loop(Fields::new(&line), &own());
            let mut sent = Vec::new();
            write(Fields::new(&line), &own(), &mut sent);
            assert_eq!(sent.iter().filter(|byte| **byte == b'\n').count(), 1);
        });
    }
}
