//! `origins`, `health`, `eject` and `retry`: the origins of a site together.

use super::balance::{Balance, Crowd};
use super::origin::Origin;
use crate::units::{Duration, Percent};

use super::origin::{HostHeader, OriginScheme, OriginTimeouts};
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};

/// The origins of a site. At least one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub members: Vec<Member>,
    pub balance: Balance,
    /// How long a member that has come up gets less than its weight. Default: not at all.
    pub slow_start: Option<Duration>,
    pub crowd: Crowd,
    /// Active checks. Default: none.
    pub health: Option<Health>,
    /// Passive ejection. `None`: never.
    pub eject: Option<Eject>,
    pub retry: Retry,
}

/// An origin and its place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub origin: Origin,
    /// Its share of the requests of its tier, 1 to 1,000. Default 1.
    pub weight: u32,
    /// Asked only when no member of a lower number is up, 1 to 16. Default 1.
    pub tier: u8,
}

/// Active checks: each member is asked for a path, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    /// The `Host` of the check. Default: what requests to that origin have; the first host of the site where that is the
    /// client's.
    pub host: Option<String>,
    /// From the start of a check to the start of the next. Default 500ms.
    pub interval: Duration,
    /// How long a check may take, connection included. Default 400ms. At most the interval.
    pub timeout: Duration,
    /// Failed checks in a row until a member counts as down. Default 3.
    pub fall: u32,
    /// Passed checks in a row until a member counts as up again. Default 2.
    pub rise: u32,
    /// Statuses that pass. Default 200 to 299.
    pub status: Vec<StatusRange>,
}

/// Statuses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl StatusRange {
    pub const fn contains(&self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

/// Passive ejection: a member whose requests fail is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row. Default 5.
    pub failures: u32,
    /// Within this time. Default 10s.
    pub window: Duration,
    /// How long it is left alone. Default 10s.
    pub period: Duration,
}

/// When a request that failed is sent to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts of one request, 0 to 2. Default 2.
    pub attempts: u32,
    /// Retries as a part of all requests, in percent. Default 20.
    pub budget_percent: u32,
    /// Retries a second that are always allowed. Default 10.
    pub reserve: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: "/".into(),
            host: None,
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            fall: 3,
            rise: 2,
            status: vec![StatusRange { first: 200, last: 299 }],
        }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, window: Duration::from_secs(10), period: Duration::from_secs(10) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, reserve: 10 }
    }
}

impl Group {
    /// One origin, asked for everything.
    pub fn of_one(origin: Origin) -> Self {
        Self {
            members: vec![Member { origin, weight: 1, tier: 1 }],
            balance: Balance::default(),
            slow_start: None,
            crowd: Crowd::default(),
            health: None,
            eject: Some(Eject::default()),
            retry: Retry::default(),
        }
    }
}

/// Members of a group, as they can be written.
pub(crate) const ORIGINS: Kind =
    Kind::Many(&Kind::Any(&[Kind::Text("a URL, http://host[:port] or https://host[:port]"), Kind::Table(&MEMBER)]));
const STATUSES: Kind = Kind::Many(&Kind::Any(&[
    Kind::Integer(100, 599),
    Kind::Text("a class as in \"2xx\", or a range as in \"200-299\""),
]));

section! {
    /// One origin.
    MEMBER = "an origin" {
        /// Where it is: http://host\[:port\] or https://host\[:port\]. The request's own path is used.
        URL = "url": Kind::Text("a URL");
        /// Its share of the requests of its tier.
        WEIGHT = "weight": Kind::Integer(1, 1_000), "1";
        /// Asked only when no origin of a lower number is up.
        TIER = "tier": Kind::Integer(1, 16), "1";
        /// What the Host field of a request to it says: "client" for what the client sent, or a name. Absent: the
        /// URL's own.
        HOST = "host": Kind::Text("client or a host name");
        /// The name asked for in TLS and expected in the certificate. Absent: the URL's host.
        SNI = "sni": Kind::Text("a host name");
        /// A PEM file of the authorities that may vouch for it, in place of the system's.
        CA = "ca": Kind::Text("a file");
        /// Whether its certificate is checked.
        VERIFY = "verify": Kind::Boolean, "true";
        /// HTTP/2: agreed on in TLS, or with prior knowledge in the clear.
        HTTP2 = "http2": Kind::Boolean, "false";
    }
}

section! {
    /// Active checks: each origin is asked for a path, over and over.
    HEALTH = "health" {
        /// The path, and perhaps a query.
        PATH = "path": Kind::Text("a path"), "/";
        /// The Host field of the check. Absent: what requests to that origin have; the first host of the site where that
        /// is the client's.
        CHECK_HOST = "host": Kind::Text("a host name");
        /// Time from the start of a check to the start of the next.
        INTERVAL = "interval": Kind::Duration, "500ms";
        /// How long a check may take, connection included. At most the interval.
        TIMEOUT = "timeout": Kind::Duration, "400ms";
        /// Failed checks in a row until an origin counts as down.
        FALL = "fall": Kind::Integer(1, 100), "3";
        /// Passed checks in a row until it counts as up again.
        RISE = "rise": Kind::Integer(1, 100), "2";
        /// Statuses that pass.
        STATUS = "status": STATUSES, "2xx";
    }
}

section! {
    /// Passive ejection: an origin whose requests fail is left alone for a while.
    EJECT = "eject" {
        /// Failures in a row.
        FAILURES = "failures": Kind::Integer(1, 1_000), "5";
        /// The time they must fall into.
        WINDOW = "window": Kind::Duration, "10s";
        /// How long it is left alone.
        FOR = "for": Kind::Duration, "10s";
    }
}

section! {
    /// When a request that failed before its first byte is sent to another origin. Only idempotent requests are.
    RETRY = "retry" {
        /// Further attempts of one request.
        ATTEMPTS = "attempts": Kind::Integer(0, 2), "2";
        /// Retries as a part of all requests.
        BUDGET = "budget": Kind::Percent, "20%";
        /// Retries a second that are always allowed.
        RESERVE = "reserve": Kind::Integer(0, 100_000), "10";
    }
}

impl Member {
    pub(crate) fn read(reader: &mut Reader, key: &crate::read::key::Key, value: Value<'_>) -> Option<Self> {
        if value.as_str().is_some() {
            let origin = reader.parse::<Origin>(&URL, value)?.value;
            return Some(Self { origin, weight: 1, tier: 1 });
        }
        let table = reader.as_table(key, &MEMBER, "an origin".into(), value)?;
        let member = Self::read_table(&table, reader);
        table.finish(reader);
        member
    }

    fn read_table(table: &Table<'_>, reader: &mut Reader) -> Option<Self> {
        if table.value(&URL).is_none() {
            reader.wrong(&table.span, "an origin has no `url`", "`url` is missing", URL.summary());
        }
        let origin = table.parsed::<Origin>(reader, &URL);
        let weight = table.integer(reader, &WEIGHT, 1..=1_000);
        let tier = table.integer(reader, &TIER, 1..=16);
        let host = table.parsed::<HostHeader>(reader, &HOST);
        let sni = table.parsed::<HostName>(reader, &SNI);
        let ca = table.file(reader, &CA).map(|(path, _)| path);
        let verify = table.boolean(reader, &VERIFY);
        let http2 = table.boolean(reader, &HTTP2);
        let mut origin = origin?.value;
        if origin.scheme == OriginScheme::Http {
            for key in [&SNI, &CA, &VERIFY] {
                if let Some(value) = table.value(key) {
                    let message = format!("`{}` is for TLS, and the URL of this origin is http", key.name);
                    reader.wrong(&value.span(), message, "has no effect", "use an https URL, or leave the key out");
                }
            }
        }
        if let Some(host) = host {
            origin.host_header = host.value;
        }
        origin.sni = sni.map(|name| name.value.0);
        origin.ca = ca;
        origin.verify = verify.unwrap_or(true);
        origin.http2 = http2.unwrap_or(false);
        Some(Self { origin, weight: weight.unwrap_or(1), tier: u8::try_from(tier.unwrap_or(1)).unwrap_or(1) })
    }
}

/// A host name, perhaps with a port where it is a `Host`.
struct HostName(String);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a host name: expected a name as in www.example.com, without scheme and path")]
pub struct HostNameError(String);

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

impl std::str::FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        is_host_name(text).then(|| Self(text.into())).ok_or_else(|| HostNameError(text.into()))
    }
}

impl std::str::FromStr for HostHeader {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        match text {
            "client" => Ok(Self::Client),
            name => name.parse().map(|HostName(name)| Self::Fixed(name)),
        }
    }
}

impl std::str::FromStr for StatusRange {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        let error = || StatusError(text.into());
        let number = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => {
                let class = class.parse::<u16>().ok().filter(|class| (1..=5).contains(class)).ok_or_else(error)?;
                (class * 100, class * 100 + 99)
            }
            (None, Some((first, last))) => (number(first).ok_or_else(error)?, number(last).ok_or_else(error)?),
            (None, None) => {
                let status = number(text).ok_or_else(error)?;
                (status, status)
            }
        };
        (first <= last).then_some(Self { first, last }).ok_or_else(error)
    }
}

/// A text that is no set of statuses.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a status: expected a number from 100 to 599, a class as in 2xx, or a range as in 200-299")]
pub struct StatusError(String);

impl StatusRange {
    pub(crate) fn read(reader: &mut Reader, key: &crate::read::key::Key, value: Value<'_>) -> Option<Self> {
        let Some(number) = value.as_integer() else { return reader.parse(key, value).map(|range| range.value) };
        match number.to_string().parse() {
            Ok(range) => Some(range),
            Err(error) => {
                let error: StatusError = error;
                reader.wrong(&value.span(), error, "this value", key.summary());
                None
            }
        }
    }
}

impl Health {
    pub(crate) fn read(table: Table<'_>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let path = table.parsed::<String>(reader, &PATH);
        if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
            let message = format!("\"{}\" is not a path: expected one that begins with /", path.value);
            reader.wrong(&path.span, message, "this value", PATH.summary());
        }
        let interval = table.parsed::<Duration>(reader, &INTERVAL);
        let timeout = table.parsed::<Duration>(reader, &TIMEOUT);
        table.positive(reader, &INTERVAL);
        table.positive(reader, &TIMEOUT);
        if let (Some(interval), Some(timeout)) = (&interval, &timeout)
            && timeout.value > interval.value
        {
            let message = format!("`timeout` is {}, longer than the interval of {}", timeout.value, interval.value);
            let label = "longer than the interval";
            reader.wrong(&timeout.span, message, label, "a check must be over when the next one starts");
        }
        let status = match table.value(&STATUS) {
            Some(_) => table.many(reader, &STATUS, |reader, value| StatusRange::read(reader, &STATUS, value)),
            None => default.status,
        };
        let health = Self {
            path: path.map_or(default.path, |path| path.value),
            host: table.parsed::<HostName>(reader, &CHECK_HOST).map(|host| host.value.0),
            interval: interval.map_or(default.interval, |time| time.value),
            timeout: timeout.map_or(default.timeout, |time| time.value),
            fall: table.integer(reader, &FALL, 1..=100).unwrap_or(default.fall),
            rise: table.integer(reader, &RISE, 1..=100).unwrap_or(default.rise),
            status,
        };
        table.finish(reader);
        health
    }
}

impl Eject {
    pub(crate) fn read(table: Table<'_>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let eject = Self {
            failures: table.integer(reader, &FAILURES, 1..=1_000).unwrap_or(default.failures),
            window: table.parsed(reader, &WINDOW).map_or(default.window, |time| time.value),
            period: table.parsed(reader, &FOR).map_or(default.period, |time| time.value),
        };
        table.positive(reader, &WINDOW);
        table.positive(reader, &FOR);
        table.finish(reader);
        eject
    }
}

impl Retry {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
        let budget = table.parsed::<Percent>(reader, &BUDGET);
        let retry = Self {
            attempts: table.integer(reader, &ATTEMPTS, 0..=2).unwrap_or(default.attempts),
            budget_percent: budget.map_or(default.budget_percent, |budget| budget.value.get()),
            reserve: table.integer(reader, &RESERVE, 0..=100_000).unwrap_or(default.reserve),
        };
        table.finish(reader);
        retry
    }
}

/// The timeouts of a group's members.
pub(crate) fn with_timeouts(mut members: Vec<Member>, timeouts: OriginTimeouts) -> Vec<Member> {
    members.iter_mut().for_each(|member| member.origin.timeouts = timeouts);
    members
}
