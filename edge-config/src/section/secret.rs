//! What an origin is told and nobody else may see: values in the file, or in files of their own.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table, Value};

/// A text that is never shown: in no log, no answer of the admin API, no error.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What it is, for whoever it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A file with a secret is small; something else by mistake is not read.
const SECRET_BYTES_MAX: u64 = 8 << 10;

section! {
    /// A value that is kept in a file of its own.
    SECRET_FILE = "a secret" {
        /// The file with the value. White space around what it holds does not count. It is read again with every reload.
        FILE = "file": Kind::Text("a file");
    }
}

/// Fields whose meaning is the node's or the protocol's own, in requests to an origin. `If-*` goes without being listed.
const PROTECTED: [&str; 22] = [
    "accept-encoding",
    "cdn-loop",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-littoral-mirror",
    "x-request-id",
];

/// Fields set on every request to an origin, names in lower case.
pub(super) fn fields(table: &Table<'_>, reader: &mut Reader, key: &'static Key) -> Vec<(String, Secret)> {
    let Some(value) = table.value(key) else { return Vec::new() };
    let Some(entries) = value.entries() else {
        reader.wrong_kind(key, value, "a table of fields and values");
        return Vec::new();
    };
    let mut read: Vec<(String, Secret)> = Vec::new();
    for (name, value) in entries {
        let Some(lower) = field_name(reader, key, name.value, &name.span) else { continue };
        if read.iter().any(|(other, _)| *other == lower) {
            let message = format!("{} is in `{}` twice", name.value, key.name);
            reader.wrong(&name.span, message, "again", "names of fields are the same in upper and lower case");
            continue;
        }
        read.extend(text_or_file(reader, key, value).map(|secret| (lower, secret)));
    }
    read
}

/// A value in the file, or in one of its own.
pub(super) fn text_or_file(reader: &mut Reader, key: &'static Key, value: Value<'_>) -> Option<Secret> {
    match value.as_str() {
        Some(text) => visible(reader, key, text, &value.span()),
        None => in_a_file(reader, key, value),
    }
}

fn field_name(reader: &mut Reader, key: &Key, name: &str, span: &Range<usize>) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        reader.wrong(span, format_args!("\"{name}\" is not a field name"), "this name", key.summary());
        return None;
    }
    let lower = name.to_ascii_lowercase();
    if PROTECTED.contains(&lower.as_str()) || lower.starts_with("if-") {
        let message = format!("`{}` cannot set {name}", key.name);
        let help = "the node or the protocol gives this field its meaning";
        reader.wrong(span, message, "not the operator's", help);
        return None;
    }
    Some(lower)
}

/// The value of a table with a file.
fn in_a_file(reader: &mut Reader, key: &'static Key, value: Value<'_>) -> Option<Secret> {
    if value.entries().is_none() {
        reader.wrong_kind(key, value, "a value, or { file = \"...\" } with one");
        return None;
    }
    let table = reader.as_table(key, &SECRET_FILE, "a secret".into(), value)?;
    table.required(reader, &FILE, false);
    let secret = of_file(&table, reader, &FILE);
    table.finish(reader);
    secret
}

/// What the file of a key holds.
pub(super) fn of_file(table: &Table<'_>, reader: &mut Reader, key: &Key) -> Option<Secret> {
    let (path, span) = table.file(reader, key)?;
    let mut wrong = |what: &str| {
        let message = format!("{} {what}", path.display());
        reader.wrong(&span, message, "this file", "expected one line of text, and nothing else");
    };
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    if bytes > SECRET_BYTES_MAX {
        wrong(&format!("has {bytes} bytes, expected at most {SECRET_BYTES_MAX}"));
        return None;
    }
    let Ok(text) = std::fs::read_to_string(&path) else {
        wrong("does not hold text");
        return None;
    };
    let text = text.trim();
    if text.is_empty() {
        wrong("is empty");
        return None;
    }
    if !can_be_sent(text) {
        wrong("holds control characters, or more than a line");
        return None;
    }
    Some(Secret::new(text))
}

fn visible(reader: &mut Reader, key: &Key, text: &str, span: &Range<usize>) -> Option<Secret> {
    if !can_be_sent(text) || text.trim() != text {
        let label = "control characters, or white space around it";
        reader.wrong(span, "the value of a field cannot be sent", label, key.summary());
        return None;
    }
    Some(Secret::new(text))
}

fn can_be_sent(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Fewer bytes are no secret.
const RANDOM_BYTES_MIN: u64 = 32;

/// A file of random bytes that keys are derived from; `example` is what it could be called.
pub(super) fn key_file(table: &Table<'_>, reader: &mut Reader, key: &Key, example: &str) -> Option<PathBuf> {
    let (path, span) = table.file(reader, key)?;
    let length = std::fs::metadata(&path).map_or(0, |file| file.len());
    if length < RANDOM_BYTES_MIN {
        let message = format!("{} has {length} bytes, expected at least {RANDOM_BYTES_MIN}", path.display());
        let help = format!("make one with: head -c 32 /dev/urandom > {example}");
        reader.wrong(&span, message, "too short", help);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new("hush");
        assert!(!format!("{:?} {:#?}", secret, Some(&secret)).contains("hush"));
        assert_eq!(secret.expose(), "hush");
    }
}
