//! What a node says when it asks another one, signed so that nobody else can say it. Pure.

use std::net::IpAddr;

use super::parameters::Parameters;
use crate::semantics::time::UnixMs;

/// The name of the field a node's request carries.
pub const FIELD: &str = "littoral-node";

const CONTEXT: &str = "littoral 2026 what nodes ask one another";

/// Ids stand in fields, lists and logs.
const NODE_MAX: usize = 64;

/// How far the clocks of two nodes may be apart, and how long a request that somebody saw can be sent again.
const AGE_MS_MAX: u64 = 30_000;

/// What follows everything that is signed: this and 32 bytes in hexadecimal digits.
const SIGNATURE: &[u8] = b"; mac=";
const DIGITS: usize = 64;

/// What the node that is asked is to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It stores what was asked for, for the nodes of its PoP.
    Owner,
    /// It asks the origin, for the nodes of other PoPs.
    Shield,
}

/// What a node says when it asks another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The id of who asks: 1 to 64 letters, digits, dots, underscores and hyphens.
    pub node: String,
    pub role: Role,
    pub at: UnixMs,
    /// When the purge log it follows was made.
    pub log: u64,
    /// The last record of that log it had applied.
    pub seq: u64,
    /// The scheme its client used is https.
    pub secure: bool,
    pub client: Option<IpAddr>,
}

/// The key of all nodes of one CDN.
#[derive(Clone)]
pub struct Key([u8; 32]);

/// Why something was not said by a node of this CDN, just now and about this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    #[error("expected what nodes write, found something else")]
    Malformed,
    #[error("the signature is of another key or another request: key_file has to hold the same on all nodes")]
    Signature,
    #[error("it was signed more than 30 s ago or ahead: the clocks of the nodes disagree, or it was sent again")]
    Time,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Shield => "shield",
        }
    }
}

impl Key {
    /// `secret` is what all nodes were given.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }

    /// Each part with its length in front: no two requests have the same encoding.
    fn signature(&self, said: &[u8], method: &str, host: &[u8], target: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [said, method.as_bytes(), host, target] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        hasher.finalize()
    }
}

impl Asking {
    /// Appends the whole line, its end among it. Method, host and target are those of the request that carries it, byte for
    /// byte.
    pub fn write(&self, key: &Key, method: &str, host: &[u8], target: &[u8], out: &mut Vec<u8>) {
        debug_assert!(is_node(&self.node), "{:?} is no id of a node", self.node);
        out.extend_from_slice(FIELD.as_bytes());
        out.extend_from_slice(b": ");
        let start = out.len();
        self.write_said(out);
        let said = out.get(start..).unwrap_or_default();
        let signature = key.signature(said, method, host, target).to_hex();
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(signature.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Reads the value of the field of a request with this method, host and target. Nothing is read that is not signed.
    ///
    /// # Errors
    /// No node of this CDN said it, not about this request, or not now.
    pub fn read(
        value: &[u8],
        key: &Key,
        method: &str,
        host: &[u8],
        target: &[u8],
        now: UnixMs,
    ) -> Result<Self, Forged> {
        let (said, signature) = signed(value).ok_or(Forged::Malformed)?;
        // Hashes are compared in constant time.
        if key.signature(said, method, host, target) != signature {
            return Err(Forged::Signature);
        }
        let asking = Self::read_said(said).ok_or(Forged::Malformed)?;
        if asking.at.0.abs_diff(now.0) > AGE_MS_MAX { Err(Forged::Time) } else { Ok(asking) }
    }

    fn write_said(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(b"; role=");
        out.extend_from_slice(self.role.as_str().as_bytes());
        for (name, value) in [("at", self.at.0), ("log", self.log), ("seq", self.seq)] {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(number.format(value).as_bytes());
        }
        if self.secure {
            out.extend_from_slice(b"; secure");
        }
        if let Some(client) = self.client {
            out.extend_from_slice(b"; client=");
            out.extend_from_slice(client.to_string().as_bytes());
        }
    }

    fn read_said(said: &[u8]) -> Option<Self> {
        let (node, mut rest) = Parameters::of(said)?;
        let asking = Self {
            node: Some(node).filter(|node| is_node(node))?.to_owned(),
            role: match rest.value("role")? {
                "owner" => Role::Owner,
                "shield" => Role::Shield,
                _ => return None,
            },
            at: UnixMs(rest.number("at")?),
            log: rest.number("log")?,
            seq: rest.number("seq")?,
            secure: rest.flag("secure"),
            client: match rest.follows("client") {
                true => Some(rest.value("client")?.parse().ok()?),
                false => None,
            },
        };
        rest.end()?;
        Some(asking)
    }
}

/// What is signed, and the signature: small letters alone, so that nothing can be written in two ways.
fn signed(value: &[u8]) -> Option<(&[u8], blake3::Hash)> {
    let (rest, digits) = value.split_at_checked(value.len().checked_sub(DIGITS)?)?;
    let small = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let signature = blake3::Hash::from_hex(digits).ok().filter(|_| small)?;
    Some((rest.strip_suffix(SIGNATURE)?, signature))
}

fn is_node(id: &str) -> bool {
    (1..=NODE_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_780_000_000_000);

    fn asking() -> Asking {
        Asking {
            node: "fra-1".into(),
            role: Role::Shield,
            at: NOW,
            log: 1_770_000_000_000,
            seq: 42,
            secure: true,
            client: Some(IpAddr::from([192, 0, 2, 7])),
        }
    }

    fn value(asking: &Asking, key: &Key) -> Vec<u8> {
        let mut line = Vec::new();
        asking.write(key, "GET", b"shop.test", b"/a?b", &mut line);
        let value = line.strip_prefix(b"littoral-node: ").and_then(|line| line.strip_suffix(b"\r\n"));
        value.expect("a whole line").to_vec()
    }

    fn read(value: &[u8], key: &Key) -> Result<Asking, Forged> {
        Asking::read(value, key, "GET", b"shop.test", b"/a?b", NOW)
    }

    #[test]
    fn what_is_written() {
        let written = value(&asking(), &Key::new(b"secret"));
        let (said, _) = signed(&written).expect("signed");
        assert_eq!(
            std::str::from_utf8(said),
            Ok("fra-1; role=shield; at=1780000000000; log=1770000000000; seq=42; secure; client=192.0.2.7")
        );
        let least = Asking { role: Role::Owner, secure: false, client: None, ..asking() };
        let mut out = Vec::new();
        least.write_said(&mut out);
        assert_eq!(out, b"fra-1; role=owner; at=1780000000000; log=1770000000000; seq=42");
    }

    #[test]
    fn every_single_byte_is_signed() {
        let key = Key::new(b"secret");
        let written = value(&asking(), &key);
        assert_eq!(read(&written, &key), Ok(asking()));
        for at in 0..written.len() {
            for byte in 0..=u8::MAX {
                let mut changed = written.clone();
                changed[at] = byte;
                assert!(byte == written[at] || read(&changed, &key).is_err(), "{}", changed.escape_ascii());
            }
            let shorter = [&written[..at], &written[at + 1..]].concat();
            assert!(read(&shorter, &key).is_err(), "{}", shorter.escape_ascii());
            assert!(read(&written[..at], &key).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn another_request_and_another_key() {
        let key = Key::new(b"secret");
        let written = value(&asking(), &key);
        type Row = (&'static str, &'static str, &'static [u8], &'static [u8], Result<(), Forged>);
        let rows: [Row; 7] = [
            ("as it was signed", "GET", b"shop.test", b"/a?b", Ok(())),
            ("another method", "POST", b"shop.test", b"/a?b", Err(Forged::Signature)),
            ("another method's case", "get", b"shop.test", b"/a?b", Err(Forged::Signature)),
            ("another host", "GET", b"shop.tesT", b"/a?b", Err(Forged::Signature)),
            ("another target", "GET", b"shop.test", b"/a", Err(Forged::Signature)),
            ("bytes of the host in the target", "GET", b"shop.tes", b"t/a?b", Err(Forged::Signature)),
            ("bytes of the method in the host", "GE", b"Tshop.test", b"/a?b", Err(Forged::Signature)),
        ];
        for (name, method, host, target, expected) in rows {
            assert_eq!(Asking::read(&written, &key, method, host, target, NOW).map(drop), expected, "{name}");
        }
        assert_eq!(read(&written, &Key::new(b"Secret")), Err(Forged::Signature));
    }

    #[test]
    fn times() {
        let key = Key::new(b"secret");
        let rows: [(&str, i64, bool, Result<(), Forged>); 6] = [
            ("30 s ago", -30_000, false, Ok(())),
            ("longer ago", -30_001, false, Err(Forged::Time)),
            ("30 s ahead", 30_000, false, Ok(())),
            ("further ahead", 30_001, false, Err(Forged::Time)),
            ("never", -(NOW.0 as i64), false, Err(Forged::Time)),
            ("the signature comes first", 30_001, true, Err(Forged::Signature)),
        ];
        for (name, offset, other_key, expected) in rows {
            let written =
                value(&Asking { at: UnixMs(NOW.0.checked_add_signed(offset).expect("a time")), ..asking() }, &key);
            let key = if other_key { Key::new(b"other") } else { key.clone() };
            assert_eq!(read(&written, &key).map(drop), expected, "{name}");
        }
    }

    #[test]
    fn what_is_signed_and_malformed() {
        let key = Key::new(b"secret");
        let rows = [
            ("nothing", ""),
            ("no id", "; role=owner; at=1780000000000; log=1; seq=1"),
            ("an id with a space", "a b; role=owner; at=1780000000000; log=1; seq=1"),
            ("another role", "a; role=client; at=1780000000000; log=1; seq=1"),
            ("another order", "a; at=1780000000000; role=owner; log=1; seq=1"),
            ("no address", "a; role=owner; at=1780000000000; log=1; seq=1; client=shop.test"),
            ("something more", "a; role=owner; at=1780000000000; log=1; seq=1; more"),
        ];
        for (name, said) in rows {
            let signature = key.signature(said.as_bytes(), "GET", b"shop.test", b"/a?b").to_hex();
            let value = format!("{said}; mac={signature}");
            assert_eq!(read(value.as_bytes(), &key), Err(Forged::Malformed), "{name}");
        }
        let long = "a".repeat(NODE_MAX + 1);
        assert!(is_node(&long[..NODE_MAX]) && !is_node(&long));
    }

    #[test]
    fn anything() {
        let key = Key::new(b"secret");
        let good = value(&asking(), &key);
        let (said, _) = signed(&good).expect("signed");
        let more = b"a; role=owner; at=0; log=0; seq=0; client=::1";
        crate::fuzz::target("what nodes ask", &[&good, said, more, b"; mac="], |input| {
            assert!(input == good || read(input, &key).is_err());
            if let Some(asking) = Asking::read_said(input) {
                let written = value(&Asking { at: NOW, ..asking.clone() }, &key);
                assert_eq!(read(&written, &key), Ok(Asking { at: NOW, ..asking }));
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            node in "[A-Za-z0-9._-]{1,64}",
            shield in any::<bool>(),
            at in NOW.0 - AGE_MS_MAX..=NOW.0 + AGE_MS_MAX,
            log in any::<u64>(),
            seq in any::<u64>(),
            secure in any::<bool>(),
            client in any::<Option<IpAddr>>(),
            method in "[A-Z]{1,8}",
            host in any::<Vec<u8>>(),
            target in any::<Vec<u8>>(),
        ) {
            let role = if shield { Role::Shield } else { Role::Owner };
            let asking = Asking { node, role, at: UnixMs(at), log, seq, secure, client };
            let (key, mut line) = (Key::new(b"secret"), Vec::new());
            asking.write(&key, &method, &host, &target, &mut line);
            let value = &line[FIELD.len() + 2..line.len() - 2];
            prop_assert_eq!(Asking::read(value, &key, &method, &host, &target, NOW), Ok(asking));
        }
    }
}
