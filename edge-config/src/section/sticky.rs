//! `sticky`: whose next requests go to the origin that answered the first, and what happens when that one cannot be asked.

use std::fmt;
use std::str::FromStr;

use super::balance::HashBy;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// How the requests of a session come to the same member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub by: StickyBy,
    /// How long a cookie holds from when it was set. Default 1h.
    pub ttl: Duration,
    pub fallback: Fallback,
    /// What cookies are signed with. Default: random bytes of this process.
    pub key: Option<SigningKey>,
}

/// How a session is told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// A cookie of the node's own, by its name.
    Cookie(String),
    /// A field of the request, by its name.
    Header(String),
    /// The address of the client.
    Address,
}

/// What becomes of a request when the member of its session cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// It goes to another, and so does the session from then on.
    #[default]
    Another,
    /// 503.
    Refuse,
}

/// What cookies are signed with. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A key file has at least this many bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// And at most so many: it is read into memory.
pub const KEY_BYTES_MAX: u64 = 64 << 10;

/// A text that says nothing a session can be told by.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" does not tell sessions: expected cookie NAME, header NAME or address")]
pub struct StickyByError(String);

impl FromStr for StickyBy {
    type Err = StickyByError;

    fn from_str(text: &str) -> Result<Self, StickyByError> {
        match text.parse() {
            Ok(HashBy::Cookie(name)) => Ok(Self::Cookie(name)),
            Ok(HashBy::Header(name)) => Ok(Self::Header(name)),
            Ok(HashBy::Address) => Ok(Self::Address),
            Ok(HashBy::Url) | Err(_) => Err(StickyByError(text.into())),
        }
    }
}

section! {
    /// Sessions that stay with one origin, for applications that keep them in memory. It is about requests that reach an
    /// origin: what is stored is for everybody, and answers without one. What is fetched for several at once, or stored, is
    /// asked of the origin of whoever came first.
    STICKY = "sticky" {
        /// How a session is told: "cookie NAME", a cookie of the node's own; "header NAME", by the value of a field;
        /// "address", the client's. The cookie names the origin by what only the key can make out, and is signed: one that is
        /// forged, expired or unknown counts as none. It is set on answers that are this client's own (passed, or not stored
        /// because of what they are), HttpOnly, SameSite=Lax, Path=/ and under TLS Secure; it is neither part of what is
        /// stored, nor shown to origins, nor looked at by Vary. By field and address nothing is set: the value is hashed to
        /// one of the origins that are up, by weight, and moves only when that one goes, or when one comes that it suits
        /// better; a request without the field goes where `balance` says.
        BY = "by": Kind::Text("cookie NAME, header NAME or address");
        /// How long a cookie holds. It is set anew when half of that is over. For "cookie".
        TTL = "ttl": Kind::Duration, "1h";
        /// When the origin of a session is gone, down, ejected, drained or has `max_requests`: "another" is asked, as
        /// `balance` says, and has the session from then on; "refuse" answers 503 with Retry-After, at once, and takes the
        /// cookie away where that origin will not come back by itself: it is gone from the configuration, or drained.
        FALLBACK = "fallback": Kind::Choice(&["another", "refuse"]), "another";
        /// A file of at least 32 random bytes, the same on every node of a PoP, that cookies are signed with. Without it, the
        /// key is this process's own: a reload keeps it, a restart does not. For "cookie".
        KEY_FILE = "key_file": Kind::Text("a file");
    }
}

impl Sticky {
    pub(crate) fn read(table: Table<'_>, reader: &mut Reader) -> Option<Self> {
        let by = table.parsed::<StickyBy>(reader, &BY);
        table.required(reader, &BY, by.is_none());
        let ttl = table.parsed::<Duration>(reader, &TTL).map_or(Duration::from_secs(3_600), |ttl| ttl.value);
        if table.value(&TTL).is_some() && ttl.get().as_secs() == 0 {
            let span = table.value(&TTL).map_or(table.span.clone(), |value| value.span());
            reader.wrong(&span, "`ttl` is less than a second", "expected 1s or more", TTL.summary());
        }
        let fallback = [("another", Fallback::Another), ("refuse", Fallback::Refuse)];
        let fallback = table.choice(reader, &FALLBACK, &fallback).unwrap_or_default();
        let key = key(&table, reader);
        if by.as_ref().is_some_and(|by| !matches!(by.value, StickyBy::Cookie(_))) {
            for key in [&TTL, &KEY_FILE] {
                if let Some(value) = table.value(key) {
                    let message = format!("`{}` is about cookies, and sessions are told otherwise", key.name);
                    let help = "set `by` to \"cookie NAME\", or leave the key out";
                    reader.wrong(&value.span(), message, "has no effect", help);
                }
            }
        }
        table.finish(reader);
        Some(Self { by: by?.value, ttl, fallback, key })
    }

    /// The name of its cookie.
    pub fn cookie(&self) -> Option<&str> {
        match &self.by {
            StickyBy::Cookie(name) => Some(name),
            StickyBy::Header(_) | StickyBy::Address => None,
        }
    }
}

fn key(table: &Table<'_>, reader: &mut Reader) -> Option<SigningKey> {
    let (path, span) = table.file(reader, &KEY_FILE)?;
    let length = std::fs::metadata(&path).map_or(0, |file| file.len());
    let bytes = if length <= KEY_BYTES_MAX { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
    if bytes.len() < KEY_BYTES_MIN {
        let message = format!("{} has {length} bytes, expected {KEY_BYTES_MIN} to {KEY_BYTES_MAX}", path.display());
        reader.wrong(&span, message, "this file", "make one with: head -c 32 /dev/urandom > sticky.key");
    }
    Some(SigningKey(bytes))
}
