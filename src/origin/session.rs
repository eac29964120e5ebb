//! Sessions that stay with one origin: the cookie that says with which, and how it is kept from everybody else. Pure.
//!
//! A cookie is 32 bytes in hexadecimal digits: until when it holds (seconds since 1970, 8 bytes), the origin (8 bytes) and half
//! of a keyed BLAKE3 over both. The key is derived from the secret, the site and the group, so that what one group has given
//! out is nothing to another. The origin is named by a keyed digest of what it is called and its address: neither its place
//! in the configuration nor anything a client could read.

use std::fmt::Write;

use crate::semantics::cookies::{cookies, name_and_value, pairs};
use crate::semantics::fields::{Fields, Line};
use crate::semantics::time::UnixMs;

const CONTEXT: &str = "littoral 2026 cookies of sticky sessions";
const BYTES: usize = 32;
const SIGNED: usize = 16;

/// What a cookie calls a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberId([u8; 8]);

/// Where the next request of a session is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// There is no session yet, or the group has none.
    #[default]
    Anywhere,
    /// To the member that a cookie names.
    At(MemberId),
    /// To the one that this hash gives.
    By(u64),
}

/// The session of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    pub place: Place,
    /// Its cookie has less than half of its time left.
    pub ages: bool,
    /// It is refused rather than sent elsewhere.
    pub must_stay: bool,
}

impl Session {
    /// The same for a request whose answer may be for others too: it goes elsewhere when it has to.
    pub fn for_all(self) -> Self {
        Self { must_stay: false, ..self }
    }
}

/// The cookies of one group.
#[derive(Clone)]
pub struct Cookies {
    name: String,
    key: [u8; 32],
    ttl_seconds: u64,
}

impl Cookies {
    /// `scope`: the site and the group.
    pub fn new(name: &str, secret: &[u8], scope: [&str; 2], ttl_seconds: u64) -> Self {
        let mut key = blake3::Hasher::new_derive_key(CONTEXT);
        for part in [secret, scope[0].as_bytes(), scope[1].as_bytes()] {
            key.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        Self { name: name.to_owned(), key: key.finalize().into(), ttl_seconds }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What cookies call a member. `address`: of those its name resolves to; empty where it is an address itself.
    pub fn member(&self, label: &str, address: &str) -> MemberId {
        let mut digest = blake3::Hasher::new_keyed(&self.key);
        digest.update(b"member").update(&(label.len() as u64).to_be_bytes()).update(label.as_bytes());
        let digest = digest.update(address.as_bytes()).finalize();
        MemberId(digest.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// The session that the cookies of a request say; of several, the first that is ours.
    pub fn find(&self, fields: Fields<'_>, now: UnixMs) -> Option<(MemberId, bool)> {
        let ours = cookies(fields).filter(|(name, _)| *name == self.name.as_bytes());
        ours.into_iter().find_map(|(_, value)| self.read(value, now))
    }

    /// What a value says: the member, and whether less than half of its time is left.
    fn read(&self, value: &[u8], now: UnixMs) -> Option<(MemberId, bool)> {
        let bytes = bytes_of(value)?;
        let (signed, signature) = bytes.split_first_chunk::<SIGNED>()?;
        let given = signature.first_chunk::<SIGNED>()?;
        // Compared in constant time: how long it takes tells nothing.
        if self.sign(*signed) != padded(*given) {
            return None;
        }
        let (until, id) = signed.split_first_chunk::<8>()?;
        let left = u64::from_be_bytes(*until).checked_sub(now.0 / 1_000).filter(|left| *left > 0)?;
        Some((MemberId(*id.first_chunk()?), left * 2 < self.ttl_seconds))
    }

    /// The `Set-Cookie` that ties a session to a member.
    pub fn set(&self, member: MemberId, secure: bool, now: UnixMs) -> String {
        let until = (now.0 / 1_000).saturating_add(self.ttl_seconds);
        let mut signed = [0; SIGNED];
        let (first, second) = signed.split_at_mut(8);
        first.copy_from_slice(&until.to_be_bytes());
        second.copy_from_slice(&member.0);
        let mut value = String::with_capacity(2 * BYTES);
        let signature = self.sign(signed);
        for byte in signed.iter().chain(signature.as_bytes().iter().take(SIGNED)) {
            write!(value, "{byte:02x}").expect("a string takes everything");
        }
        self.line(&value, self.ttl_seconds, secure)
    }

    /// The `Set-Cookie` that ends a session.
    pub fn end(&self, secure: bool) -> String {
        self.line("", 0, secure)
    }

    fn line(&self, value: &str, seconds: u64, secure: bool) -> String {
        let secure = if secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", self.name)
    }

    fn sign(&self, signed: [u8; SIGNED]) -> blake3::Hash {
        let digest = blake3::Hasher::new_keyed(&self.key).update(b"cookie").update(&signed).finalize();
        padded(digest.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

/// Half a digest as one that is compared in constant time.
fn padded(half: [u8; SIGNED]) -> blake3::Hash {
    let mut whole = [0; 32];
    whole[..SIGNED].copy_from_slice(&half);
    blake3::Hash::from_bytes(whole)
}

fn bytes_of(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(*digits.first()?)? << 4 | digit(*digits.last()?)?;
    }
    Some(bytes)
}

/// The field lines of a request without these cookies. None: it has none of them.
pub fn without_cookies(fields: Fields<'_>, names: &[String]) -> Option<Vec<u8>> {
    let is_ours = |name: &[u8]| names.iter().any(|ours| ours.as_bytes() == name);
    if names.is_empty() || !cookies(fields).any(|(name, _)| is_ours(name)) {
        return None;
    }
    let mut without = Vec::with_capacity(fields.as_bytes().len());
    for line in fields.lines() {
        if !line.is("cookie") {
            line.write(&mut without);
            continue;
        }
        let left: Vec<&[u8]> = pairs(line.value).filter(|pair| !is_ours(name_and_value(pair).0)).collect();
        let value = left.join(&b';');
        // What is left of a line that had nothing else says nothing.
        if !value.trim_ascii().is_empty() {
            Line { name: line.name, value: value.trim_ascii() }.write(&mut without);
        }
    }
    Some(without)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn cookies(secret: &str, group: &str) -> Cookies {
        Cookies::new("lb", secret.as_bytes(), ["shop", group], 3_600)
    }

    fn found(cookies: &Cookies, value: &str, seconds: u64) -> Option<(MemberId, bool)> {
        let line = format!("cookie: a=b; lb={value}; c=d\r\n");
        cookies.find(Fields::new(line.as_bytes()), UnixMs(NOW.0 + seconds * 1_000))
    }

    #[test]
    fn who_a_cookie_names_and_for_whom() {
        let ours = cookies("secret", "");
        let member = ours.member("a:80", "");
        let set = ours.set(member, true, NOW);
        let value = set.strip_prefix("lb=").and_then(|rest| rest.split(';').next()).expect("a value").to_owned();
        assert!(set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"), "{set}");
        assert!(!ours.set(member, false, NOW).contains("Secure"));
        let changed = |at: usize| {
            let mut changed = value.clone();
            changed.replace_range(at..=at, if value.as_bytes()[at] == b'0' { "1" } else { "0" });
            changed
        };
        for (name, cookies, value, seconds, expected) in [
            ("at once", &ours, value.clone(), 0, Some((member, false))),
            ("in the first half", &ours, value.clone(), 1_800, Some((member, false))),
            ("in the second half", &ours, value.clone(), 1_801, Some((member, true))),
            ("at its end", &ours, value.clone(), 3_600, None),
            ("another time", &ours, changed(15), 0, None),
            ("another member", &ours, changed(31), 0, None),
            ("another signature", &ours, changed(63), 0, None),
            ("cut off", &ours, value[..62].to_owned(), 0, None),
            ("longer", &ours, value.clone() + "00", 0, None),
            ("no digits", &ours, "zz".repeat(32), 0, None),
            ("nothing", &ours, String::new(), 0, None),
            ("another secret", &cookies("other", ""), value.clone(), 0, None),
            ("another group", &cookies("secret", "canary"), value.clone(), 0, None),
            ("the same on another node", &cookies("secret", ""), value.clone(), 0, Some((member, false))),
        ] {
            assert_eq!(found(cookies, &value, seconds), expected, "{name}");
        }
        let twice = format!("cookie: lb=forged\r\ncookie: lb={value}\r\n");
        assert_eq!(ours.find(Fields::new(twice.as_bytes()), NOW), Some((member, false)), "the first that is ours");
        assert_ne!(member, ours.member("b:80", ""));
        assert_ne!(ours.member("a", "b"), ours.member("ab", ""));
    }

    #[test]
    fn cookies_that_are_taken_out() {
        let names = ["lb".to_owned(), "lb2".to_owned()];
        for (fields, expected) in [
            ("cookie: a=b\r\nx: y\r\n", None),
            ("cookie: lb\r\nx: lb=1\r\n", Some("x: lb=1\r\n")),
            ("cookie: xlb=1; lb3=2\r\n", None),
            ("cookie: lb=1\r\nx: y\r\n", Some("x: y\r\n")),
            ("x: y\r\ncookie: a=b; lb=1; c=d\r\n", Some("x: y\r\ncookie: a=b; c=d\r\n")),
            ("cookie: lb=1; c=d\r\ncookie: lb2=1\r\n", Some("cookie: c=d\r\n")),
            ("cookie: c=d;lb = 1;lb=2\r\n", Some("cookie: c=d\r\n")),
        ] {
            let without = without_cookies(Fields::new(fields.as_bytes()), &names);
            let without = without.map(|fields| String::from_utf8(fields).expect("text"));
            assert_eq!(without.as_deref(), expected, "{fields}");
        }
        assert_eq!(without_cookies(Fields::new(b"cookie: lb=1\r\n"), &[]), None);
    }
}
