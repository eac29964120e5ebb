//! What `Cache-Control`, `Pragma` and `CDN-Cache-Control` say (RFC 9111 section 5.2, RFC 9213).
//!
//! RFC 9111 section 4.2.1 leaves two choices. A directive given twice: the first one counts, as the RFC suggests, so
//! that whoever appends a line cannot lengthen what was said before. A value that is not `delta-seconds`: it counts
//! as zero, stale.

use super::fields::{Fields, members, parameters, same_name};
use super::structured::{self, Value};
use super::time::DeltaSeconds;

const CACHE_CONTROL: &str = "cache-control";
const CDN_CACHE_CONTROL: &str = "cdn-cache-control";

/// How stale an answer a client accepts (RFC 9111 section 5.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStale {
    /// However stale.
    Any,
    /// At most this long past its freshness lifetime.
    Within(DeltaSeconds),
}

/// The cache directives of a request (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control` (section 5.4).
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`; a value that is not `delta-seconds` is ignored, the directive being advice.
    pub max_age: Option<DeltaSeconds>,
    /// `min-fresh`; likewise.
    pub min_fresh: Option<DeltaSeconds>,
    /// `max-stale`; likewise.
    pub max_stale: Option<MaxStale>,
}

impl RequestDirectives {
    /// A request that asks for nothing in particular.
    pub const NONE: Self = Self {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
    };

    /// Reads a request's fields in one pass, without allocating.
    pub fn parse(request: Fields<'_>) -> Self {
        let mut directives = Self::NONE;
        let (mut has_cache_control, mut pragma_no_cache) = (false, false);
        for line in request.lines() {
            if line.is(CACHE_CONTROL) {
                has_cache_control = true;
                members(line.value).for_each(|member| directives.apply(member));
            } else if line.is("pragma") {
                pragma_no_cache |= members(line.value).any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            }
        }
        directives.no_cache |= pragma_no_cache && !has_cache_control;
        directives
    }

    fn apply(&mut self, member: &[u8]) {
        let (name, argument) = split(member);
        let seconds = argument.and_then(DeltaSeconds::parse);
        let is = |directive: &str| same_name(name, directive.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = self.max_age.or(seconds);
        } else if is("min-fresh") {
            self.min_fresh = self.min_fresh.or(seconds);
        } else if is("max-stale") {
            let stale = if argument.is_none() { Some(MaxStale::Any) } else { seconds.map(MaxStale::Within) };
            self.max_stale = self.max_stale.or(stale);
        }
    }
}

/// The cache directives of a response (RFC 9111 section 5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// A valid `CDN-Cache-Control` spoke instead of `Cache-Control` and `Expires` (RFC 9213 section 2.2).
    pub targeted: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names.
    pub no_cache: bool,
    /// `no-cache="..."`; the names are in [`no_cache_field_names`].
    pub no_cache_fields: bool,
    /// `private`, with field names or without: to keep the rest of such a response is allowed, but nobody relies on it.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `s-maxage`.
    pub s_maxage: Option<DeltaSeconds>,
    /// `max-age`.
    pub max_age: Option<DeltaSeconds>,
    /// `stale-while-revalidate` (RFC 5861 section 3).
    pub stale_while_revalidate: Option<DeltaSeconds>,
    /// `stale-if-error` (RFC 5861 section 4).
    pub stale_if_error: Option<DeltaSeconds>,
    /// A rule of the site caps the freshness lifetime, whatever gives it.
    pub lifetime_max: Option<DeltaSeconds>,
    /// A rule of the site gives one of the two windows: `s-maxage` does not forbid stale service then.
    pub stale_by_rule: bool,
}

impl ResponseDirectives {
    /// Reads a response's fields: `CDN-Cache-Control` when it is valid and not empty, else `Cache-Control`.
    pub fn parse(response: Fields<'_>) -> Self {
        Self::parse_targeted(response).unwrap_or_else(|| Self::parse_untargeted(response))
    }

    /// Reads `Cache-Control` alone: what a browser goes by, whatever caches like ours are told.
    pub fn parse_untargeted(response: Fields<'_>) -> Self {
        let mut directives = Self::default();
        for member in response.members(CACHE_CONTROL) {
            let (name, argument) = split(member);
            directives.apply(name, argument);
        }
        directives
    }

    /// Whether a stale copy must not be served without validation: `must-revalidate`, `proxy-revalidate`, and
    /// `s-maxage`, which means the latter too (RFC 9111 section 5.2.2.10) unless a rule of the site says otherwise.
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || (self.s_maxage.is_some() && !self.stale_by_rule)
    }

    /// RFC 9213 section 2.1: none when the field is absent, empty or not a dictionary. A known directive of the wrong
    /// type (`max-age="60"`) makes it invalid too, as RFC 8941 section 4.2 has it for fields with such constraints.
    fn parse_targeted(response: Fields<'_>) -> Option<Self> {
        let text = structured::joined(response, CDN_CACHE_CONTROL)?;
        let members = structured::dictionary(&text)?;
        if members.is_empty() {
            return None;
        }
        let mut directives = Self { targeted: true, ..Self::default() };
        for (name, value) in members {
            match (Kind::of(name), value) {
                (Kind::Unknown, _) | (Kind::Switch | Kind::Fields, Value::Boolean(false)) => {}
                (Kind::Switch | Kind::Fields, Value::Boolean(true)) => directives.apply(name, None),
                (Kind::Seconds, Value::Integer(argument)) | (Kind::Fields, Value::String(argument)) => {
                    directives.apply(name, Some(argument));
                }
                _ => return None,
            }
        }
        Some(directives)
    }

    fn apply(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |directive: &str| same_name(name, directive.as_bytes());
        let set = |seconds: &mut Option<DeltaSeconds>| {
            seconds.get_or_insert_with(|| argument.and_then(DeltaSeconds::parse).unwrap_or(DeltaSeconds::ZERO));
        };
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            let names_fields = argument.is_some_and(|names| field_names(names).next().is_some());
            self.no_cache_fields |= names_fields;
            self.no_cache |= !names_fields;
        } else if is("private") {
            self.private = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("public") {
            // What allows more is taken at its word only when it is spelt right.
            self.public |= argument.is_none();
        } else if is("must-understand") {
            self.must_understand |= argument.is_none();
        } else if is("immutable") {
            self.immutable |= argument.is_none();
        } else if is("s-maxage") {
            set(&mut self.s_maxage);
        } else if is("max-age") {
            set(&mut self.max_age);
        } else if is("stale-while-revalidate") {
            set(&mut self.stale_while_revalidate);
        } else if is("stale-if-error") {
            set(&mut self.stale_if_error);
        }
    }
}

/// The fields that `no-cache="..."` names: not to be stored, so that they are never sent without validation
/// (RFC 9111 section 5.2.2.4). At least one when the directives say that there are some.
pub fn no_cache_field_names(response: Fields<'_>, directives: &ResponseDirectives) -> Vec<Box<[u8]>> {
    fn named<'a>(list: impl Iterator<Item = &'a [u8]>) -> Vec<Box<[u8]>> {
        list.map(split)
            .filter(|(name, _)| same_name(name, b"no-cache"))
            .flat_map(|(_, argument)| field_names(argument.unwrap_or_default()))
            .map(Box::from)
            .collect()
    }
    if !directives.no_cache_fields {
        return Vec::new();
    }
    if directives.targeted {
        structured::joined(response, CDN_CACHE_CONTROL).map(|text| named(members(&text))).unwrap_or_default()
    } else {
        named(response.members(CACHE_CONTROL))
    }
}

/// What type a known directive has in a dictionary.
enum Kind {
    Switch,
    Fields,
    Seconds,
    Unknown,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name {
            b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error" => Self::Seconds,
            b"no-cache" | b"private" => Self::Fields,
            b"no-store" | b"public" | b"must-revalidate" | b"proxy-revalidate" | b"must-understand" | b"immutable" => {
                Self::Switch
            }
            _ => Self::Unknown,
        }
    }
}

/// A directive's name and argument. Whitespace around `=` is not trimmed: `max-age =60` is a directive nobody knows,
/// `max-age= 60` one with an invalid value.
fn split(member: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'=', member) {
        Some(equals) => (member.get(..equals).unwrap_or_default(), member.get(equals + 1..)),
        None => (member, None),
    }
}

/// The field names in a directive's argument; the token form is accepted (RFC 9111 section 5.2), and what follows a
/// semicolon is a parameter, which only a dictionary has and which says nothing.
fn field_names(argument: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let argument = parameters(argument).next().unwrap_or_default();
    members(argument.strip_prefix(b"\"").map_or(argument, |inner| inner.strip_suffix(b"\"").unwrap_or(inner)))
}

#[cfg(test)]
mod tests;
