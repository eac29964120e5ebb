//! `[[site.*.rule]]`: what a site does differently with some requests and responses.

use std::path::PathBuf;

use super::group::StatusRange;
use super::site::Network;
use crate::units::Duration;

/// One rule: every rule that matches applies, in order; of one setting the last wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands, for explanations.
    pub place: Place,
    pub when: When,
    pub then: Then,
}

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
}

/// Which requests, and which responses to them. Every condition that is there must hold; of a list, one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// The path, without the query.
    pub path: Vec<Glob>,
    /// The host, without the port, in lower case.
    pub host: Vec<Glob>,
    pub method: Vec<String>,
    pub header: Vec<NamedMatch>,
    pub cookie: Vec<NamedMatch>,
    pub query: Vec<NamedMatch>,
    pub client: Vec<Network>,
    /// With this the rule is judged when an origin has answered.
    pub response: Option<WhenResponse>,
}

/// Which responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhenResponse {
    pub status: Vec<StatusRange>,
    /// The media type without parameters, in lower case.
    pub content_type: Vec<Glob>,
    pub header: Vec<NamedMatch>,
}

/// What a field, a cookie or a query parameter must be. Field names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Present,
    Absent,
    /// Some value matches one of these.
    Any(Vec<Glob>),
}

/// A pattern: `*` stands for any run of characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole text matches. Linear for each `*`: the first place that fits is as good as any later one.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut pieces = self.0.as_bytes().split(|byte| *byte == b'*');
        let Some(first) = pieces.next() else { return text.is_empty() };
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return rest.ends_with(piece);
            }
            if piece.is_empty() {
                continue;
            }
            let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else { return false };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// What is set. `None` and empty: left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Then {
    /// False: nothing stored is used or made.
    pub cache: Option<bool>,
    /// The edge's freshness lifetime, in place of what the response says.
    pub ttl: Option<Duration>,
    /// The lifetime that is left for browsers.
    pub browser_ttl: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    /// Names of query parameters that are dropped from the request.
    pub ignore_query: Vec<Glob>,
    /// Names of fields dropped from the origin's response, in lower case.
    pub strip_response: Vec<String>,
    /// Fields set on the origin's response, names in lower case.
    pub set_response: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab/c", true),
            ("*", "", true),
            ("*.js", "/x/y.js", true),
            ("*.js", "/x.js/y", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("a*b*c", "a-b-b-c", true),
            ("a**c", "ac", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text.as_bytes()), want, "{pattern} {text}");
        }
    }
}
