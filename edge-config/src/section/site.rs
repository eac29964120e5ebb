//! `[site.*]`: what one site does with requests and responses.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::group::{Group, ORIGINS};
use super::health::{EJECT, HEALTH};
use super::named_group::{GROUP_KEYS, NamedGroup};
use super::origin::TIMEOUTS;
use super::retry::RETRY;
use super::rule::RULE;
use super::rule::Rule;
use super::status::StatusRange;
use super::sticky::STICKY;
use crate::read::key::{Key, Kind, section};
use crate::read::{At, Reader, Table, Value};
use crate::units::Percent;

/// One site: the requests it answers and the origins behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub name: String,
    /// The hosts it answers for. No two sites have the same.
    pub hosts: Vec<HostPattern>,
    pub origins: Group,
    /// Others, for what rules send there. No two have the same name.
    pub groups: Vec<NamedGroup>,
    pub rules: Vec<Rule>,
    /// Responses with `Set-Cookie`. Default: not stored without explicit permission.
    pub set_cookie: SetCookie,
    /// GET and HEAD requests with a body. Default: refused.
    pub get_body: GetBody,
    /// Clients whose `X-Forwarded-*` and similar fields are believed. Default: nobody.
    pub trusted_clients: Vec<Network>,
    /// Whether clients are told what the cache did. Default: yes.
    pub cache_status: bool,
    /// Whether clients see the fields that carry surrogate keys. Default: no.
    pub keep_surrogate_keys: bool,
    /// Whether what contradicts its path's extension is kept out of the store. Default: yes.
    pub deception_armour: bool,
    /// Whether `No-Vary-Search` of the origin is honoured. Default: no.
    pub no_vary_search: bool,
    /// Whether requests in the clear are redirected to HTTPS. Default: no.
    pub https_only: bool,
    /// What of the disk cache it keeps while another site is above its share, 1 to 100 percent. None: equal parts of all
    /// sites.
    pub disk_share: Option<u8>,
    /// What becomes of what is stored while the node cannot know what was purged. Default: validated before it is used.
    pub isolated: Isolated,
    /// Such validations at each origin at a time.
    pub isolated_requests: u32,
    /// The PoP whose nodes are asked for what is not stored. None: the origins are.
    pub shield: Option<String>,
    /// Bodies for answers of the node's own; the first that covers a status.
    pub error_pages: Vec<ErrorPage>,
}

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: every host no other site answers for.
    Any,
    /// One name or address, in lower case, without a port.
    Exact(String),
    /// `*.example.com`, kept as `example.com`: every name below it, at any depth, but not itself.
    Below(String),
}

/// The body of an answer of the node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    pub status: StatusRange,
    pub file: PathBuf,
    pub content_type: &'static str,
    /// What the file held when the configuration was read.
    pub body: Vec<u8>,
}

/// An error page is at most this large.
pub const ERROR_PAGE_BYTES_MAX: usize = 256 << 10;

impl Site {
    /// A site for every host with one origin, and defaults for the rest.
    pub fn of_one(name: &str, origin: super::origin::Origin) -> Self {
        Self {
            name: name.into(),
            hosts: vec![HostPattern::Any],
            origins: Group::of_one(origin),
            groups: Vec::new(),
            rules: Vec::new(),
            set_cookie: SetCookie::default(),
            get_body: GetBody::default(),
            trusted_clients: Vec::new(),
            cache_status: true,
            keep_surrogate_keys: false,
            deception_armour: true,
            no_vary_search: false,
            https_only: false,
            disk_share: None,
            isolated: Isolated::default(),
            isolated_requests: ISOLATED_REQUESTS,
            shield: None,
            error_pages: Vec::new(),
        }
    }
}

/// What may be stored of responses that set a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Only with `public`, `s-maxage` or a targeted field: one forgotten `Cache-Control` must not share a session.
    #[default]
    Refuse,
    /// As any other response, to the letter of RFC 9111.
    Rfc9111,
}

/// What becomes of what is stored while the node cannot know what was purged: it has lost the hub for longer than it may trust
/// what it stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolated {
    /// It is validated before it is used.
    #[default]
    Revalidate,
    /// It is served.
    Serve,
    /// 503.
    Fail,
}

/// As many as keep an origin busy without burying it.
const ISOLATED_REQUESTS: u32 = 64;

/// What to do with a GET or HEAD that has a body. No cache may use it, and origins disagree about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GetBody {
    /// 400.
    #[default]
    Refuse,
    /// Hand it to the origin, uncached.
    Pass,
}

/// A range of addresses in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range: expected 10.0.0.0/8, 2001:db8::/32 or a single address")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.into());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix }).ok_or_else(error)
    }
}

impl Network {
    /// Whether an address lies in the range. An IPv4 address that arrived on an IPv6 socket counts as IPv4.
    pub fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(client)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(network).checked_shr(shift) == u32::from(client).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(client)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(network).checked_shr(shift) == u128::from(client).checked_shr(shift)
            }
            _ => false,
        }
    }
}

section! {
    /// A site: the requests it answers, and what it does with them.
    SITE = "[site.NAME]" {
        /// The hosts it answers for: names, "*.example.com" for every name below one, "*" for every host no other site
        /// answers for. No two sites may have the same.
        HOSTS = "hosts": Kind::Many(&Kind::Text("a host name, *.name or *"));
        /// Where its content comes from.
        ORIGIN_LIST = "origins": ORIGINS;
        /// How one of the origins that are up is chosen: "smooth-weighted" in turn by weight, without bursts;
        /// "least-requests" the less busy of two; "ewma" of two the one that answers sooner; "consistent" always the same
        /// one for the same key, up to 125% of its share of the load; "random" by chance and weight.
        BALANCE = "balance": Kind::Choice(&["smooth-weighted", "least-requests", "ewma", "consistent", "random"]), "smooth-weighted";
        /// What the key of "consistent" is: "url", "header NAME", "cookie NAME" or "address". A request without that field
        /// or cookie goes by its URL. Absent: url.
        HASH = "hash": Kind::Text("url, address, header NAME or cookie NAME");
        /// How long an origin that has come up, or that a reload has added, gets less than its weight: a tenth at first,
        /// growing evenly. Absent: all of it at once.
        SLOW_START = "slow_start": Kind::Duration;
        /// Requests to each origin at a time, their bodies included; checks do not count. When all that are up have as many,
        /// requests are queued. Absent: no bound.
        MAX_REQUESTS = "max_requests": Kind::Integer(1, 1_000_000);
        /// How many requests wait then, in the order they came. Others are answered 503 with Retry-After, or with what is
        /// stored, where that may be stale.
        QUEUE = "queue": Kind::Integer(0, 100_000), "0";
        /// How long a request waits at most.
        QUEUE_WAIT = "queue_wait": Kind::Duration, "1s";
        /// Active checks of the origins. Absent: none.
        SITE_HEALTH = "health": Kind::Table(&HEALTH);
        /// Passive ejection of origins whose requests fail; false turns it off.
        SITE_EJECT = "eject": Kind::Any(&[Kind::Table(&EJECT), Kind::Off]);
        /// When a failed request is sent to another origin.
        SITE_RETRY = "retry": Kind::Table(&RETRY);
        /// Sessions that stay with one origin. Absent: every request goes where `balance` says.
        SITE_STICKY = "sticky": Kind::Table(&STICKY);
        /// How long the origins may take.
        SITE_TIMEOUTS = "timeouts": Kind::Table(&TIMEOUTS);
        /// Responses that set a cookie: "refuse" stores them only with public, s-maxage or a targeted field, "rfc9111"
        /// like any other.
        SET_COOKIE = "set_cookie": Kind::Choice(&["refuse", "rfc9111"]), "refuse";
        /// GET and HEAD requests with a body: "refuse" answers 400, "pass" hands them to the origin uncached.
        GET_BODY = "get_body": Kind::Choice(&["refuse", "pass"]), "refuse";
        /// Clients whose X-Forwarded-* and similar fields are believed.
        TRUST = "trust": Kind::Many(&Kind::Text("an address range, as in \"10.0.0.0/8\""));
        /// Whether clients are told in Cache-Status what the cache did.
        CACHE_STATUS = "cache_status": Kind::Boolean, "true";
        /// Surrogate-Key, Cache-Tag, Edge-Cache-Tag and Cache-Groups of the origin: "strip" takes them out of what clients
        /// get, "keep" leaves them in. What is purged by them is the same.
        SURROGATE_KEYS = "surrogate_keys": Kind::Choice(&["strip", "keep"]), "strip";
        /// Whether a response is kept out of the store that is something else than its path's extension says: a page
        /// under the name of a stylesheet, script, image or font is somebody's own page that a link made look public.
        DECEPTION_ARMOUR = "deception_armour": Kind::Boolean, "true";
        /// Whether the origin's No-Vary-Search is honoured: query parameters it names make no difference to what is stored.
        NO_VARY_SEARCH = "no_vary_search": Kind::Boolean, "false";
        /// Whether requests in the clear are redirected to HTTPS.
        HTTPS_ONLY = "https_only": Kind::Boolean, "false";
        /// What of the disk cache this site keeps while another site is above its share, 1% to 100%. Absent: equal parts of
        /// all sites.
        DISK_SHARE = "disk_share": Kind::Percent;
        /// What becomes of what is stored while the node has been cut off from the hub for longer than 3s and so cannot know what
        /// was purged: "revalidate" asks an origin before it is used, "serve" serves it, "fail" answers 503.
        ISOLATED = "isolated": Kind::Choice(&["revalidate", "serve", "fail"]), "revalidate";
        /// How many such questions each origin gets at a time. Others are answered with what is stored where stale-if-error
        /// allows that, else 503 with Retry-After.
        ISOLATED_REQUESTS_KEY = "isolated_requests": Kind::Integer(1, 100_000), "64";
        /// The PoP whose nodes ask its origins for all others, so that these are asked once and not by each PoP. Needs `pop` and
        /// `key_file` of the node. Absent: every node asks them itself.
        SHIELD = "shield": Kind::Text("a name");
        /// Bodies for answers of the node's own, by status or class: "502" before "5xx". At most 256KiB each.
        ERROR_PAGES = "error_pages": Kind::Map(&Kind::Text("a file"));
        /// Origins besides its own, for what rules send there: [site.NAME.group.NAME].
        GROUPS = "group": Kind::Named(&GROUP_KEYS);
        /// What it does differently with some requests and responses.
        RULES = "rule": Kind::Many(&Kind::Table(&RULE));
    }
}

/// A text that is no pattern for hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("`{0}` is not a host: expected a name without scheme and path, as in www.example.com")]
    Url(String),
    #[error("`{0}` has a port: a site answers for a host on every listener")]
    Port(String),
    #[error("`{0}`: a `*` stands for everything before a name, as in *.example.com, or alone")]
    Star(String),
    #[error("`{0}` is not a host: expected letters, digits, hyphens and dots, as in www.example.com")]
    Name(String),
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('/') {
            return Err(HostError::Url(text.into()));
        }
        if text.starts_with('[') && text.ends_with(']') {
            return Ok(Self::Exact(text.to_ascii_lowercase()));
        }
        if text.contains(':') {
            return Err(HostError::Port(text.into()));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(HostError::Star(text.into()));
        }
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(HostError::Name(text.into()));
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// A site and where its hosts stand.
#[derive(Debug)]
pub(crate) struct SiteAt {
    pub site: Site,
    pub hosts: Vec<At<HostPattern>>,
}

impl Site {
    pub(crate) fn read(name: &str, table: Table<'_>, reader: &mut Reader) -> SiteAt {
        let host = |reader: &mut Reader, value| reader.parse::<HostPattern>(&HOSTS, value);
        let hosts = table.many(reader, &HOSTS, host);
        table.required(reader, &HOSTS, hosts.is_empty());
        reader.known.cookies.clear();
        let origins = Group::read(&table, reader);
        // Before the rules, which name them.
        let groups = NamedGroup::read_all(name, &table, reader);
        let network = |reader: &mut Reader, value| reader.parse::<Network>(&TRUST, value).map(|network| network.value);
        let set_cookie = [("refuse", SetCookie::Refuse), ("rfc9111", SetCookie::Rfc9111)];
        let isolated = [("revalidate", Isolated::Revalidate), ("serve", Isolated::Serve), ("fail", Isolated::Fail)];
        let get_body = [("refuse", GetBody::Refuse), ("pass", GetBody::Pass)];
        let site = Self {
            name: name.to_owned(),
            hosts: hosts.iter().map(|host| host.value.clone()).collect(),
            origins,
            groups,
            rules: table.many(reader, &RULES, |reader, value| Rule::read(reader, &RULES, value)),
            set_cookie: table.choice(reader, &SET_COOKIE, &set_cookie).unwrap_or_default(),
            get_body: table.choice(reader, &GET_BODY, &get_body).unwrap_or_default(),
            trusted_clients: table.many(reader, &TRUST, network),
            cache_status: table.boolean(reader, &CACHE_STATUS).unwrap_or(true),
            keep_surrogate_keys: table
                .choice(reader, &SURROGATE_KEYS, &[("strip", false), ("keep", true)])
                .unwrap_or(false),
            deception_armour: table.boolean(reader, &DECEPTION_ARMOUR).unwrap_or(true),
            no_vary_search: table.boolean(reader, &NO_VARY_SEARCH).unwrap_or(false),
            https_only: table.boolean(reader, &HTTPS_ONLY).unwrap_or(false),
            disk_share: disk_share(&table, reader),
            isolated: table.choice(reader, &ISOLATED, &isolated).unwrap_or_default(),
            isolated_requests: table.integer(reader, &ISOLATED_REQUESTS_KEY, 1..=100_000).unwrap_or(ISOLATED_REQUESTS),
            shield: super::node::shield(&table, reader, &SHIELD),
            error_pages: error_pages(&table, reader),
        };
        table.finish(reader);
        SiteAt { site, hosts }
    }
}

fn disk_share(table: &Table<'_>, reader: &mut Reader) -> Option<u8> {
    let share = table.parsed::<Percent>(reader, &DISK_SHARE)?;
    if share.value.get() == 0 {
        let message = "`disk_share` is 0%, expected 1% to 100%";
        reader.wrong(&share.span, message, "expected more than 0%", DISK_SHARE.summary());
    }
    u8::try_from(share.value.get()).ok()
}

/// The pages, the most particular first.
fn error_pages(table: &Table<'_>, reader: &mut Reader) -> Vec<ErrorPage> {
    let Some(value) = table.value(&ERROR_PAGES) else { return Vec::new() };
    let Some(entries) = value.entries() else {
        reader.wrong_kind(&ERROR_PAGES, value, "a table of statuses and files");
        return Vec::new();
    };
    let mut pages: Vec<ErrorPage> =
        entries.into_iter().filter_map(|(status, file)| error_page(reader, &ERROR_PAGES, &status, file)).collect();
    pages.sort_by_key(|page| page.status.last - page.status.first);
    pages
}

fn error_page(reader: &mut Reader, key: &Key, status: &At<&str>, file: Value<'_>) -> Option<ErrorPage> {
    let range = match status.value.parse::<StatusRange>() {
        Ok(range) if range.first >= 400 => range,
        Ok(_) => {
            let message = format!("\"{}\" is not a status of an error", status.value);
            reader.wrong(&status.span, message, "expected 400 to 599", key.summary());
            return None;
        }
        Err(error) => {
            reader.wrong(&status.span, error, "this status", key.summary());
            return None;
        }
    };
    let path = reader.parse::<PathBuf>(key, file)?;
    let file = reader.beside(&path.value);
    if !reader.readable(key, &file, &path.span) {
        return None;
    }
    let length = std::fs::metadata(&file).map_or(0, |file| file.len());
    if length > ERROR_PAGE_BYTES_MAX as u64 {
        let message = format!("{} has {length} bytes, expected at most {ERROR_PAGE_BYTES_MAX}", file.display());
        reader.wrong(&path.span, message, "too large", key.summary());
        return None;
    }
    let body = std::fs::read(&file).unwrap_or_default();
    let content_type = match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    Some(ErrorPage { status: range, file, content_type, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, client: &str, want: bool) {
        let network: Network = network.parse().expect("a network");
        assert_eq!(network.contains(client.parse().expect("an address")), want, "{network:?} {client}");
    }

    #[test]
    fn networks() {
        check("10.0.0.0/8", "10.9.8.7", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("127.0.0.0/8", "::ffff:127.0.0.1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "::1", true);
        check("::/0", "127.0.0.1", false);
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "/8", "10.0.0.0/", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
