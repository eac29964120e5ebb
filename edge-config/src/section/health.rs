//! `health` and `eject`: how one knows whether an origin is up.

use super::group::{HostName, Member};
use super::origin::OriginScheme;
use super::status::{STATUSES, StatusRange};
use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table};
use crate::units::{Duration, Percent};

/// Active checks: each member is asked, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub check: Check,
    /// From the start of a check to the start of the next. Default 500ms.
    pub interval: Duration,
    /// How long a check may take, connection included. Default 400ms. At most the interval.
    pub timeout: Duration,
    /// Failed checks in a row until a member counts as down. Default 3.
    pub fall: u32,
    /// Passed checks in a row until a member counts as up again. Default 2.
    pub rise: u32,
}

/// What a member has to do to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Answer a GET.
    Http(HttpCheck),
    /// Accept a connection.
    Tcp,
    /// Complete a handshake of TLS, with a certificate that requests would accept.
    Tls,
    /// Say in `grpc.health.v1.Health/Check` that it serves.
    Grpc {
        /// Who is asked about. Default: the empty name, the server as a whole.
        service: String,
        /// As in [`HttpCheck::host`].
        host: Option<String>,
    },
}

/// A GET and the answers to it that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub path: String,
    /// The `Host` of the check. Default: what requests to that origin have; the first host of the site where that is the
    /// client's.
    pub host: Option<String>,
    /// Statuses that pass. Default 200 to 299.
    pub status: Vec<StatusRange>,
    /// What the first [`CHECKED_BODY_MAX`] bytes of the body must contain. Default: nothing.
    pub body: Option<String>,
}

/// Bytes of the body of a check that are looked at: a page of status, not a download every half second.
pub const CHECKED_BODY_MAX: usize = 64 << 10;

/// Passive ejection: a member whose requests fail is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row. Default 5.
    pub failures: u32,
    /// Within this time. Default 10s.
    pub window: Duration,
    /// How long it is left alone the first time; twice as long each further time. Default 10s.
    pub period: Duration,
    /// How long at most. Default 1m. At least the period.
    pub period_max: Duration,
    /// The part of the members, in percent, that may be out at a time; the last one never is. Default 50.
    pub out_percent_max: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check: Check::Http(HttpCheck::default()),
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            fall: 3,
            rise: 2,
        }
    }
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self { path: "/".into(), host: None, status: vec![StatusRange { first: 200, last: 299 }], body: None }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            failures: 5,
            window: Duration::from_secs(10),
            period: Duration::from_secs(10),
            period_max: Duration::from_secs(60),
            out_percent_max: 50,
        }
    }
}

section! {
    /// Active checks: each origin is asked, over and over, on a connection of its own.
    HEALTH = "health" {
        /// What an origin has to do: answer a GET ("http"), accept a connection ("tcp"), complete a handshake of TLS with
        /// a certificate that requests would accept ("tls"), or say over HTTP/2 that it serves, by the health protocol
        /// of gRPC ("grpc").
        TYPE = "type": Kind::Choice(&["http", "tcp", "tls", "grpc"]), "http";
        /// The path, and perhaps a query. For "http".
        PATH = "path": Kind::Text("a path"), "/";
        /// The Host field of the check. Absent: what requests to that origin have; the first host of the site where that
        /// is the client's. For "http" and "grpc".
        CHECK_HOST = "host": Kind::Text("a host name");
        /// Statuses that pass. For "http".
        STATUS = "status": STATUSES, "2xx";
        /// Text that the first 64 KiB of the body must contain, in these very letters. For "http".
        BODY = "body": Kind::Text("a text");
        /// The service that is asked about; "" is the server as a whole. For "grpc".
        SERVICE = "service": Kind::Text("a name as in package.Service"), "";
        /// Time from the start of a check to the start of the next; half of it after a check that contradicts what is known,
        /// so that it is soon known whether it is so.
        INTERVAL = "interval": Kind::Duration, "500ms";
        /// How long a check may take, connection included. At most the interval.
        TIMEOUT = "timeout": Kind::Duration, "400ms";
        /// Failed checks in a row until an origin counts as down.
        FALL = "fall": Kind::Integer(1, 100), "3";
        /// Passed checks in a row until it counts as up again.
        RISE = "rise": Kind::Integer(1, 100), "2";
    }
}

section! {
    /// Passive ejection: an origin whose requests fail is left alone for a while. After that one request is its trial:
    /// an answer brings it back, a failure ejects it for twice as long.
    EJECT = "eject" {
        /// Failures in a row.
        FAILURES = "failures": Kind::Integer(1, 1_000), "5";
        /// The time they must fall into.
        WINDOW = "window": Kind::Duration, "10s";
        /// How long it is left alone the first time. Each ejection that follows lasts twice as long; each time of this
        /// length that it does well takes one doubling back.
        FOR = "for": Kind::Duration, "10s";
        /// How long at most. At least `for`.
        MAX = "max": Kind::Duration, "1m";
        /// The part of the origins that may be out at a time, ejected or down by their checks. One that would be ejected
        /// beyond it is asked on; the last one is, whatever this says.
        MAX_PERCENT = "max_percent": Kind::Percent, "50%";
    }
}

impl Health {
    /// The `Host` of a check, where one is set.
    pub fn host(&self) -> Option<&str> {
        match &self.check {
            Check::Http(HttpCheck { host, .. }) | Check::Grpc { host, .. } => host.as_deref(),
            Check::Tcp | Check::Tls => None,
        }
    }

    /// The checks of some members.
    pub(crate) fn read(table: Table<'_>, reader: &mut Reader, members: &[Member]) -> Self {
        let default = Self::default();
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
        let check = Check::read(&table, reader);
        let in_the_clear = members.iter().find(|member| member.origin.scheme == OriginScheme::Http);
        if let (Check::Tls, Some(member), Some(value)) = (&check, in_the_clear, table.value(&TYPE)) {
            let message = format!("a check of the type \"tls\" cannot pass: the URL of {} is http", member.origin.host);
            reader.wrong(&value.span(), message, "needs https", "use https URLs, or the type \"tcp\"");
        }
        let health = Self {
            check,
            interval: interval.map_or(default.interval, |time| time.value),
            timeout: timeout.map_or(default.timeout, |time| time.value),
            fall: table.integer(reader, &FALL, 1..=100).unwrap_or(default.fall),
            rise: table.integer(reader, &RISE, 1..=100).unwrap_or(default.rise),
        };
        table.finish(reader);
        health
    }
}

impl Check {
    fn read(table: &Table<'_>, reader: &mut Reader) -> Self {
        let host = table.parsed::<HostName>(reader, &CHECK_HOST).map(|host| host.value.0);
        let http = Self::Http(HttpCheck::read(table, reader, host.clone()));
        let service = table.parsed::<String>(reader, &SERVICE).map(|service| service.value).unwrap_or_default();
        let (name, check, others): (_, _, &[&'static Key]) = match table.value(&TYPE).and_then(|value| value.as_str()) {
            Some("tcp") => ("tcp", Self::Tcp, &[&PATH, &CHECK_HOST, &STATUS, &BODY, &SERVICE]),
            Some("tls") => ("tls", Self::Tls, &[&PATH, &CHECK_HOST, &STATUS, &BODY, &SERVICE]),
            Some("grpc") => ("grpc", Self::Grpc { service, host }, &[&PATH, &STATUS, &BODY]),
            Some("http") | None => ("http", http, &[&SERVICE]),
            // Which of the keys have an effect cannot be known.
            Some(_) => ("", http, &[]),
        };
        table.choice(reader, &TYPE, &[("http", ()), ("tcp", ()), ("tls", ()), ("grpc", ())]);
        for key in others {
            if let Some(value) = table.value(key) {
                let message = format!("`{}` means nothing to a check of the type \"{name}\"", key.name);
                let other = if key.name == SERVICE.name { "grpc" } else { "http" };
                let help = format!("leave it out, or make the check one of the type \"{other}\"");
                reader.wrong(&value.span(), message, "has no effect", help);
            }
        }
        check
    }
}

impl HttpCheck {
    fn read(table: &Table<'_>, reader: &mut Reader, host: Option<String>) -> Self {
        let default = Self::default();
        let path = table.parsed::<String>(reader, &PATH);
        if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
            let message = format!("\"{}\" is not a path: expected one that begins with /", path.value);
            reader.wrong(&path.span, message, "this value", PATH.summary());
        }
        let body = table.parsed::<String>(reader, &BODY);
        if let Some(body) = body.as_ref().filter(|body| body.value.is_empty() || body.value.len() > CHECKED_BODY_MAX) {
            let message = format!("`body` is a text of {} bytes, expected 1 to {CHECKED_BODY_MAX}", body.value.len());
            reader.wrong(&body.span, message, "no body fits or all do", BODY.summary());
        }
        let status = match table.value(&STATUS) {
            Some(_) => table.many(reader, &STATUS, |reader, value| StatusRange::read(reader, &STATUS, value)),
            None => default.status,
        };
        Self { path: path.map_or(default.path, |path| path.value), host, status, body: body.map(|body| body.value) }
    }
}

impl Eject {
    pub(crate) fn read(table: Table<'_>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let period = table.parsed::<Duration>(reader, &FOR);
        let period = period.map_or(default.period, |time| time.value);
        let period_max = table.parsed::<Duration>(reader, &MAX);
        // Who only writes a long `for` means that.
        let written = period_max.filter(|_| table.value(&MAX).is_some());
        if let Some(max) = written.as_ref().filter(|max| max.value < period) {
            let message = format!("`max` is {}, shorter than the first ejection of {period}", max.value);
            reader.wrong(&max.span, message, "shorter than `for`", MAX.summary());
        }
        let percent = table.parsed::<Percent>(reader, &MAX_PERCENT);
        let eject = Self {
            failures: table.integer(reader, &FAILURES, 1..=1_000).unwrap_or(default.failures),
            window: table.parsed(reader, &WINDOW).map_or(default.window, |time| time.value),
            period,
            period_max: written.map_or(default.period_max, |time| time.value).max(period),
            out_percent_max: percent.map_or(default.out_percent_max, |percent| percent.value.get()),
        };
        table.positive(reader, &WINDOW);
        table.positive(reader, &FOR);
        table.finish(reader);
        eject
    }
}
