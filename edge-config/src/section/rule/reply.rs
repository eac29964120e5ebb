//! What a rule answers itself: a status, or another place.

use super::{REDIRECT, REDIRECT_STATUS, RESPOND};
use crate::read::{Reader, Table};

/// An answer that no origin is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The site's error page for this status, or a short text.
    Status(u16),
    /// Somewhere else.
    Redirect(Redirect),
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub status: u16,
    to: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Host,
    Path,
    Query,
}

/// Statuses that send a client elsewhere (RFC 9110 section 15.4).
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];
/// Temporary, so that no browser keeps for ever what a rule no longer says.
const REDIRECT_DEFAULT: u16 = 302;

impl Redirect {
    fn new(status: u16, text: &str) -> Option<Self> {
        let is_somewhere = ["http://", "https://", "/"].iter().any(|start| text.starts_with(start));
        // What no field value and no URL has.
        if !is_somewhere || !text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
            return None;
        }
        let (mut to, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}')?;
            let piece = match name {
                "host" => Piece::Host,
                "path" => Piece::Path,
                "query" => Piece::Query,
                _ => return None,
            };
            to.extend([Piece::Text(before.to_owned()), piece]);
            rest = after;
        }
        to.push(Piece::Text(rest.to_owned()));
        Some(Self { status, to })
    }

    /// The `Location` for a request: its host without the port, and its target.
    pub fn location(&self, host: &[u8], target: &[u8]) -> Vec<u8> {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at(end);
        let mut location = Vec::with_capacity(target.len() + 64);
        for piece in &self.to {
            location.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Host => host,
                Piece::Path => path,
                Piece::Query => query,
            });
        }
        // Two slashes at the beginning would name another host (RFC 3986 section 4.2).
        let slashes = location.iter().take_while(|byte| **byte == b'/').count();
        if slashes > 1 {
            location.drain(..slashes - 1);
        }
        location
    }
}

impl Reply {
    /// `late`: the rule is for responses.
    pub(super) fn read(table: &Table<'_>, late: bool, reader: &mut Reader) -> Option<Self> {
        let respond = table.integer(reader, &RESPOND, 200..=599);
        let redirect = table.parsed::<String>(reader, &REDIRECT);
        let status = table.integer(reader, &REDIRECT_STATUS, 300..=399);
        for key in [&RESPOND, &REDIRECT].into_iter().filter(|_| late) {
            if let Some(value) = table.value(key) {
                let message = format!("`{}` in a rule for responses: an origin has answered by then", key.name);
                reader.wrong(&value.span(), message, "too late", "take `response` out of `when`");
            }
        }
        if let (Some(_), Some(value)) = (&redirect, table.value(&RESPOND)) {
            let message = "`respond` beside `redirect`: a request has one answer";
            reader.wrong(&value.span(), message, "one too many", "leave out one of them, or make it two rules");
        }
        if let (None, Some(value)) = (table.value(&REDIRECT), table.value(&REDIRECT_STATUS)) {
            let message = "`redirect_status` without `redirect`";
            reader.wrong(&value.span(), message, "of nothing", REDIRECT.summary());
        }
        if let (Some(number), Some(value)) = (status, table.value(&REDIRECT_STATUS))
            && !REDIRECTS.contains(&number)
        {
            let message = format!("`redirect_status` is {number}, expected 301, 302, 303, 307 or 308");
            reader.wrong(&value.span(), message, "sends nobody anywhere", REDIRECT_STATUS.summary());
        }
        if let Some(text) = redirect {
            let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or(REDIRECT_DEFAULT);
            let redirect = Redirect::new(status, &text.value);
            if redirect.is_none() {
                let message = format!("\"{}\" is no place to send clients to", text.value);
                let label = "expected a URL, or a path, with {host}, {path} and {query} in it at most";
                reader.wrong(&text.span, message, label, REDIRECT.summary());
            }
            return redirect.map(Self::Redirect);
        }
        respond.and_then(|status| u16::try_from(status).ok()).map(Self::Status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        for (to, target, expected) in [
            ("https://www.example.com{path}{query}", "/a/b?c=d", "https://www.example.com/a/b?c=d"),
            ("https://{host}:8443{path}", "/a?b", "https://a.example:8443/a"),
            ("/moved{path}{query}", "/a", "/moved/a"),
            ("/new", "/a?b", "/new"),
            ("{path}", "/a", ""),
            ("/{path}", "//evil.example/", "/evil.example/"),
            ("{host}/x", "/", ""),
            ("/a b", "/", ""),
            ("/{other}", "/", ""),
            ("/{path", "/", ""),
            ("javascript:alert(1)", "/", ""),
        ] {
            let found = Redirect::new(301, to).map(|redirect| redirect.location(b"a.example", target.as_bytes()));
            assert_eq!(String::from_utf8(found.unwrap_or_default()).as_deref(), Ok(expected), "{to} {target}");
        }
    }
}
