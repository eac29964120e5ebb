//! `[[site.*.rule]]`: what a site does differently with some requests and responses.

mod glob;
pub mod mirror;
mod reply;
pub mod rewrite;
mod split;

use std::path::PathBuf;

pub use self::glob::Glob;
use self::mirror::MIRROR_KEYS;
pub use self::mirror::{Mirror, Mirroring};
pub use self::reply::{Redirect, Reply};
use self::rewrite::REWRITE_KEYS;
pub use self::rewrite::Rewrite;
pub use self::split::{Share, Split, StickyBy};
use super::geo::Country;
use super::named_group::OWN;
use super::site::Network;
use super::status::StatusRange;
use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table, Value};
use crate::units::{ByteSize, Duration, Percent};

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
    /// Where their addresses are. Only where there is a database.
    pub country: Vec<Country>,
    /// Of all clients this part: the same ones each time.
    pub share: Option<Percent>,
    /// What makes them the same ones. Default: their addresses.
    pub share_by: StickyBy,
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

/// What is set. `None` and empty: left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Then {
    /// False: nothing stored is used or made.
    pub cache: Option<bool>,
    /// The edge's freshness lifetime, in place of what the response says.
    pub ttl: Option<Duration>,
    /// The longest lifetime at the edge.
    pub ttl_max: Option<Duration>,
    /// Surrogate keys added to those of the response.
    pub surrogate_key: Vec<String>,
    /// The lifetime that is left for browsers.
    pub browser_ttl: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    /// A response with a longer body is not stored. At least one byte.
    pub max_size: Option<ByteSize>,
    /// Names of query parameters that are dropped from the request.
    pub ignore_query: Vec<Glob>,
    /// Names of fields dropped from the origin's response, in lower case.
    pub strip_response: Vec<String>,
    /// Fields set on the origin's response, names in lower case.
    pub set_response: Vec<(String, String)>,
    /// The node's own answer: nobody else is asked.
    pub reply: Option<Reply>,
    /// Who is asked in place of the site's own origins.
    pub split: Option<Split>,
    /// What path is asked for.
    pub rewrite: Option<Rewrite>,
    /// Who gets copies of the requests.
    pub mirror: Option<Mirroring>,
}

const GLOBS: Kind = Kind::Many(&Kind::Text("a pattern; * stands for any run of characters"));
const MATCHES: Kind = Kind::Map(&Kind::Any(&[Kind::Boolean, GLOBS]));
const STATUSES: Kind = Kind::Many(&Kind::Any(&[Kind::Integer(100, 599), Kind::Text("a class or a range of statuses")]));

section! {
    /// A rule: every rule that matches applies, in order; of one setting the last wins.
    RULE = "a rule" {
        /// Which requests, and which responses to them. Every condition that is there must hold. Absent: all.
        WHEN = "when": Kind::Table(&WHEN_KEYS);
        /// What is set for them.
        THEN = "then": Kind::Table(&THEN_KEYS);
    }
}

section! {
    /// Which requests, and which responses to them.
    WHEN_KEYS = "when" {
        /// The path without the query; case counts.
        PATH = "path": GLOBS;
        /// The host without the port.
        HOST = "host": GLOBS;
        /// The method.
        METHOD = "method": Kind::Many(&Kind::Text("a method"));
        /// Request fields: true for present, false for absent, or patterns of which some value matches one.
        HEADER = "header": MATCHES;
        /// Cookies, in the same way.
        COOKIE = "cookie": MATCHES;
        /// Query parameters, in the same way.
        QUERY = "query": MATCHES;
        /// Client addresses.
        CLIENT = "client": Kind::Many(&Kind::Text("an address range, as in \"10.0.0.0/8\""));
        /// Countries by their two letters (ISO 3166-1), as the database of \[geo\] has them. An address it does not know is in
        /// none.
        COUNTRY = "country": Kind::Many(&Kind::Text("a country, as in \"DE\""));
        /// A part of all clients: the same ones each time, on every node, and those of a smaller share among those of a
        /// larger one.
        SHARE = "share": Kind::Percent;
        /// What makes them the same ones: "address" (IPv6: the /64), or "cookie NAME" or "header NAME" with the address for
        /// clients without it.
        SHARE_BY = "share_by": Kind::Text("address, cookie NAME or header NAME"), "address";
        /// Makes it a rule for responses: it is judged when an origin has answered.
        RESPONSE = "response": Kind::Table(&RESPONSE_KEYS);
    }
}

section! {
    /// Which responses.
    RESPONSE_KEYS = "response" {
        /// The status.
        STATUS = "status": STATUSES;
        /// The media type without parameters.
        CONTENT_TYPE = "content_type": GLOBS;
        /// Response fields: true for present, false for absent, or patterns.
        RESPONSE_HEADER = "header": MATCHES;
    }
}

section! {
    /// What is set.
    THEN_KEYS = "then" {
        /// False: nothing stored is used, and nothing is stored. True undoes an earlier rule's false.
        CACHE = "cache": Kind::Boolean;
        /// The edge's freshness lifetime, in place of what the response says. It does not override no-store, private and
        /// the safety about Set-Cookie. It is for every status, errors too: `response` in `when` leaves them out.
        TTL = "ttl": Kind::Duration;
        /// The longest lifetime at the edge, whatever gives it, `ttl` of this or another rule included.
        TTL_MAX = "ttl_max": Kind::Duration;
        /// Surrogate keys added to those of the response.
        SURROGATE_KEY = "surrogate_key": Kind::Many(&Kind::Text("a key without white space and commas"));
        /// The lifetime that is left for browsers, for every status: Cache-Control is replaced, unless it says no-store or
        /// private. "0s" has them ask every time.
        BROWSER_TTL = "browser_ttl": Kind::Duration;
        /// How long a stale response may be served while it is fetched anew.
        STALE_WHILE_REVALIDATE = "stale_while_revalidate": Kind::Duration;
        /// How long a stale response may be served when no origin has a better answer.
        STALE_IF_ERROR = "stale_if_error": Kind::Duration;
        /// A response with a longer body is not stored. At least 1B.
        MAX_SIZE = "max_size": Kind::Size;
        /// Query parameters that make no difference: they are left out of the key and of the request to the origin.
        IGNORE_QUERY = "ignore_query": GLOBS;
        /// Fields removed from the origin's response before it is judged and stored.
        STRIP_RESPONSE = "strip_response": Kind::Many(&Kind::Text("a field name"));
        /// Fields set on the origin's response before it is stored.
        SET_RESPONSE = "set_response": Kind::Map(&Kind::Text("a field value"));
        /// Answers with this status, and asks nobody: the site's error page for it, or a short text.
        RESPOND = "respond": Kind::Integer(200, 599);
        /// Sends the client to a URL or a path. In it {host}, {path} and {query} stand for the request's own: the host without
        /// the port, the path, and the query with its question mark.
        REDIRECT = "redirect": Kind::Text("a URL or a path");
        /// How it is sent there: 301 and 308 for good, 302, 303 and 307 for now; 307 and 308 keep the method.
        REDIRECT_STATUS = "redirect_status": Kind::Integer(301, 308), "302";
        /// Who is asked: the name of a group of the site, or several with weights, as in { origins = 95, canary = 5 }, each
        /// client always the same one. "origins" are the site's own. What a group answers is stored for its own clients
        /// alone; purges reach it as they reach everything.
        GROUP = "group": Kind::Any(&[Kind::Text("the name of a group"), Kind::Map(&Kind::Integer(0, 1_000_000))]);
        /// By what a client always gets the same one of several groups: "address" (IPv6: the /64), or "cookie NAME" or
        /// "header NAME" with the address for clients without it.
        GROUP_BY = "group_by": Kind::Text("address, cookie NAME or header NAME"), "address";
        /// The path that is asked for in place of the client's, {path} in it standing for that; or { from = "/old", to =
        /// "/new" } for the beginning of it. The query stays. What is stored is known, and purged, by the client's URL.
        REWRITE = "rewrite": Kind::Any(&[Kind::Text("a path, perhaps with {path} in it"), Kind::Table(&REWRITE_KEYS)]);
        /// Sends copies of the requests to a group, and forgets about them; false undoes an earlier rule's.
        MIRROR = "mirror": Kind::Any(&[Kind::Table(&MIRROR_KEYS), Kind::Off]);
    }
}

/// The longest surrogate key.
const SURROGATE_KEY_BYTES_MAX: usize = 1024;

/// Fields whose meaning is the node's or the protocol's own.
const PROTECTED: [&str; 14] = [
    "age",
    "cache-status",
    "connection",
    "content-length",
    "content-range",
    "date",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

impl Rule {
    /// Whether it has copies sent to this group; the site's own origins have no name.
    pub fn mirrors_to(&self, name: &str) -> bool {
        let name = if name.is_empty() { OWN } else { name };
        matches!(&self.then.mirror, Some(Mirroring::To(mirror)) if mirror.group == name)
    }

    pub(crate) fn read(reader: &mut Reader, key: &Key, value: Value<'_>) -> Option<Self> {
        let table = reader.as_table(key, &RULE, "a rule".into(), value)?;
        let (line, _) = reader.source.position(value.span().start);
        let place = Place { file: reader.source.file.clone(), line: u32::try_from(line).unwrap_or(u32::MAX) };
        let when = table.table(reader, &WHEN, &WHEN_KEYS).map(|table| When::read(table, reader)).unwrap_or_default();
        let then = match table.table(reader, &THEN, &THEN_KEYS) {
            Some(then) => Then::read(then, when.response.is_some(), reader),
            None => {
                if table.value(&THEN).is_none() {
                    reader.wrong(&table.span, "a rule has no `then`", "`then` is missing", THEN.summary());
                }
                Then::default()
            }
        };
        table.finish(reader);
        Some(Self { place, when, then })
    }
}

fn globs(table: &Table<'_>, reader: &mut Reader, key: &Key) -> Vec<Glob> {
    table.many(reader, key, |reader, value| reader.parse::<String>(key, value).map(|text| Glob::new(text.value)))
}

fn lower(globs: Vec<Glob>) -> Vec<Glob> {
    globs.into_iter().map(|glob| Glob::new(glob.as_str().to_ascii_lowercase())).collect()
}

fn statuses(table: &Table<'_>, reader: &mut Reader, key: &Key) -> Vec<StatusRange> {
    table.many(reader, key, |reader, value| StatusRange::read(reader, key, value))
}

/// `{ name = true | false | pattern | [patterns] }`. Field names are tokens in any case.
fn matches(table: &Table<'_>, reader: &mut Reader, key: &Key, fields: bool) -> Vec<NamedMatch> {
    let Some(value) = table.value(key) else { return Vec::new() };
    let Some(entries) = value.entries() else {
        reader.wrong_kind(key, value, "a table of names");
        return Vec::new();
    };
    let read = entries.into_iter().map(|(name, value)| {
        if fields {
            check_field_name(reader, key, name.value, &name.span);
        }
        let expected = match value.as_bool() {
            Some(true) => ValueMatch::Present,
            Some(false) => ValueMatch::Absent,
            None => {
                let parse = |value| reader.parse::<String>(key, value).map(|text| Glob::new(text.value));
                ValueMatch::Any(value.members().into_iter().filter_map(parse).collect())
            }
        };
        let name = if fields { name.value.to_ascii_lowercase() } else { name.value.to_owned() };
        NamedMatch { name, value: expected }
    });
    read.collect()
}

fn check_field_name(reader: &mut Reader, key: &Key, name: &str, span: &std::ops::Range<usize>) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let valid = !name.is_empty() && name.bytes().all(token);
    if !valid {
        reader.wrong(span, format_args!("\"{name}\" is not a field name"), "this name", key.summary());
    }
    valid
}

/// The lower-case name of a field a rule may change.
fn own_field(reader: &mut Reader, key: &Key, name: &str, span: &std::ops::Range<usize>) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if !check_field_name(reader, key, name, span) {
        return None;
    }
    if PROTECTED.contains(&lower.as_str()) {
        let message = format!("`{}` cannot be about {name}", key.name);
        let help = "the node or the protocol gives this field its meaning; a rule cannot change it";
        reader.wrong(span, message, "not a rule's", help);
        return None;
    }
    Some(lower)
}

impl When {
    fn read(table: Table<'_>, reader: &mut Reader) -> Self {
        let response = table.table(reader, &RESPONSE, &RESPONSE_KEYS).map(|response| {
            let when = WhenResponse {
                status: statuses(&response, reader, &STATUS),
                content_type: lower(globs(&response, reader, &CONTENT_TYPE)),
                header: matches(&response, reader, &RESPONSE_HEADER, true),
            };
            response.finish(reader);
            when
        });
        let network = |reader: &mut Reader, value| reader.parse::<Network>(&CLIENT, value).map(|network| network.value);
        let method = |reader: &mut Reader, value| reader.parse::<String>(&METHOD, value).map(|method| method.value);
        let when = Self {
            path: globs(&table, reader, &PATH),
            host: lower(globs(&table, reader, &HOST)),
            method: table.many(reader, &METHOD, method),
            header: matches(&table, reader, &HEADER, true),
            cookie: matches(&table, reader, &COOKIE, false),
            query: matches(&table, reader, &QUERY, false),
            client: table.many(reader, &CLIENT, network),
            country: table.many(reader, &COUNTRY, |reader, value| Country::read(reader, &COUNTRY, value)),
            share: table.parsed::<Percent>(reader, &SHARE).map(|share| share.value),
            share_by: table.parsed::<StickyBy>(reader, &SHARE_BY).map(|by| by.value).unwrap_or_default(),
            response,
        };
        if let (Some(value), None) = (table.value(&SHARE_BY), table.value(&SHARE)) {
            let message = "`share_by` without `share`: the rule is for all clients";
            reader.wrong(&value.span(), message, "has no effect", SHARE.summary());
        }
        table.finish(reader);
        when
    }
}

impl Then {
    fn read(table: Table<'_>, for_responses: bool, reader: &mut Reader) -> Self {
        let mut time = |key| table.parsed::<Duration>(reader, key).map(|time| time.value);
        let mut then = Self {
            ttl: time(&TTL),
            ttl_max: time(&TTL_MAX),
            browser_ttl: time(&BROWSER_TTL),
            stale_while_revalidate: time(&STALE_WHILE_REVALIDATE),
            stale_if_error: time(&STALE_IF_ERROR),
            ..Self::default()
        };
        then.cache = table.boolean(reader, &CACHE);
        then.max_size = max_size(&table, reader);
        then.ignore_query = globs(&table, reader, &IGNORE_QUERY);
        then.strip_response = table.many(reader, &STRIP_RESPONSE, |reader, value| {
            let name = reader.parse::<String>(&STRIP_RESPONSE, value)?;
            own_field(reader, &STRIP_RESPONSE, &name.value, &name.span)
        });
        then.surrogate_key = table.many(reader, &SURROGATE_KEY, |reader, value| surrogate_key(reader, value));
        then.set_response = fields_to_set(&table, reader);
        then.reply = Reply::read(&table, for_responses, reader);
        then.split = Split::read(&table, reader);
        then.rewrite = Rewrite::read(&table, reader);
        then.mirror = Mirroring::read(&table, reader);
        for key in [&GROUP, &REWRITE, &MIRROR] {
            let Some(value) = table.value(key) else { continue };
            if for_responses {
                let message = format!("`{}` in a rule for responses: an origin has been asked by then", key.name);
                reader.wrong(&value.span(), message, "too late", "take `response` out of `when`, or make it two rules");
            } else if then.reply.is_some() {
                let message = format!("`{}` beside an answer of the node's own: nobody is asked", key.name);
                reader.wrong(&value.span(), message, "has no effect", "leave out one of them, or make it two rules");
            }
        }
        if let Some(value) = table.value(&IGNORE_QUERY).filter(|_| for_responses) {
            let message = "`ignore_query` in a rule for responses: the request has been made by then";
            reader.wrong(&value.span(), message, "too late", "take `response` out of `when`, or make it two rules");
        }
        if then == Self::default() && table.is_empty() {
            reader.wrong(&table.span, "`then` sets nothing", "empty", THEN.summary());
        }
        table.finish(reader);
        then
    }
}

fn max_size(table: &Table<'_>, reader: &mut Reader) -> Option<ByteSize> {
    let size = table.parsed::<ByteSize>(reader, &MAX_SIZE)?;
    if size.value.bytes() == 0 {
        let message = "`max_size` is 0B, expected at least 1B";
        reader.wrong(&size.span, message, "too small", "where nothing is to be stored, say cache = false");
    }
    Some(size.value)
}

fn surrogate_key(reader: &mut Reader, value: Value<'_>) -> Option<String> {
    let key = reader.parse::<String>(&SURROGATE_KEY, value)?;
    let separates = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || byte == b',';
    if key.value.is_empty() || key.value.len() > SURROGATE_KEY_BYTES_MAX || key.value.bytes().any(separates) {
        let message = format!("\"{}\" is not a surrogate key", key.value);
        let label = "empty, too long, or with what separates keys";
        reader.wrong(&key.span, message, label, SURROGATE_KEY.summary());
        return None;
    }
    Some(key.value)
}

fn fields_to_set(table: &Table<'_>, reader: &mut Reader) -> Vec<(String, String)> {
    let Some(value) = table.value(&SET_RESPONSE) else { return Vec::new() };
    let Some(entries) = value.entries() else {
        reader.wrong_kind(&SET_RESPONSE, value, "a table of fields and values");
        return Vec::new();
    };
    let read = entries.into_iter().filter_map(|(name, value)| {
        let field = own_field(reader, &SET_RESPONSE, name.value, &name.span)?;
        let text = reader.parse::<String>(&SET_RESPONSE, value)?;
        let visible = text.value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        if !visible || text.value.trim() != text.value {
            let message = format!("the value of {} cannot be sent", name.value);
            let label = "control characters, or white space around it";
            reader.wrong(&text.span, message, label, SET_RESPONSE.summary());
            return None;
        }
        Some((field, text.value))
    });
    read.collect()
}
