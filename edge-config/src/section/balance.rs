//! `balance`, `hash`, `slow_start`, `max_requests`, `queue` and `queue_wait`: which origin is asked, and when none is.

use std::str::FromStr;

use super::group::Member;
use super::site::{BALANCE, HASH, MAX_REQUESTS, QUEUE, QUEUE_WAIT, SLOW_START};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// How one of the members that are up is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight, without bursts for one member.
    #[default]
    SmoothWeighted,
    /// The less busy of two.
    LeastRequests,
    /// The one that answers sooner, of two.
    Ewma,
    /// The same one for the same key.
    Consistent(HashBy),
    /// By chance and weight.
    Random,
}

impl Balance {
    /// How, in words that follow "one of them is asked".
    pub const fn words(&self) -> &'static str {
        match self {
            Self::SmoothWeighted => "in turn by weight",
            Self::LeastRequests => "the less busy of two",
            Self::Ewma => "of two the one that answers sooner",
            Self::Consistent(_) => "always the same one for the same key, while it is not overloaded",
            Self::Random => "by chance and weight",
        }
    }
}

/// What a key is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashBy {
    /// Host, path and query.
    #[default]
    Url,
    /// A field of the request, by its name.
    Header(String),
    /// A cookie, by its name.
    Cookie(String),
    /// The address of the client.
    Address,
}

/// A text that says nothing a key can be made of.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is nothing to hash by: expected url, address, header NAME or cookie NAME")]
pub struct HashError(String);

impl FromStr for HashBy {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let error = || HashError(text.into());
        // RFC 9110 section 5.6.2.
        let token = |name: &str| {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let name = name.trim();
            (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_owned()).ok_or_else(error)
        };
        match text.split_once(' ') {
            None if text == "url" => Ok(Self::Url),
            None if text == "address" => Ok(Self::Address),
            Some(("header", name)) => token(name).map(|name| Self::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) => token(name).map(Self::Cookie),
            _ => Err(error()),
        }
    }
}

/// How many requests an origin gets at a time, and how many wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Requests to each member at a time. Default: no bound.
    pub max_requests: Option<u32>,
    /// Requests that wait while every member has as many. Default 0.
    pub queue: u32,
    /// How long they wait at most. Default 1s.
    pub queue_wait: Duration,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { max_requests: None, queue: 0, queue_wait: Duration::from_secs(1) }
    }
}

impl Balance {
    pub(crate) fn read(table: &Table<'_>, reader: &mut Reader) -> Self {
        let by = table.parsed::<HashBy>(reader, &HASH);
        let rules = [("smooth-weighted", 0), ("least-requests", 1), ("ewma", 2), ("consistent", 3), ("random", 4)];
        let rule = match table.choice(reader, &BALANCE, &rules) {
            Some(1) => Self::LeastRequests,
            Some(2) => Self::Ewma,
            Some(3) => Self::Consistent(by.map(|by| by.value).unwrap_or_default()),
            Some(4) => Self::Random,
            _ => Self::SmoothWeighted,
        };
        if let Some(value) = table.value(&HASH).filter(|_| !matches!(rule, Self::Consistent(_))) {
            let message = "`hash` is for `balance = \"consistent\"`, and this site balances otherwise";
            reader.wrong(
                &value.span(),
                message,
                "has no effect",
                "set `balance` to \"consistent\", or leave the key out",
            );
        }
        rule
    }
}

impl Crowd {
    pub(crate) fn read(table: &Table<'_>, reader: &mut Reader, members: &[Member]) -> Self {
        let default = Self::default();
        let crowd = Self {
            max_requests: table.integer(reader, &MAX_REQUESTS, 1..=1_000_000),
            queue: table.integer(reader, &QUEUE, 0..=100_000).unwrap_or(default.queue),
            queue_wait: table.parsed(reader, &QUEUE_WAIT).map_or(default.queue_wait, |time| time.value),
        };
        table.positive(reader, &QUEUE_WAIT);
        for (key, needs) in [(&QUEUE, &MAX_REQUESTS), (&QUEUE_WAIT, &QUEUE)] {
            let is_capped = needs.name == MAX_REQUESTS.name && members.iter().any(|one| one.max_requests.is_some());
            if let (Some(value), None, false) = (table.value(key), table.value(needs), is_capped) {
                let message = format!("`{}` without `{}`: nobody ever waits", key.name, needs.name);
                reader.wrong(&value.span(), message, "has no effect", needs.summary());
            }
        }
        crowd
    }
}

/// How long one that has come up gets less than its weight.
pub(crate) fn slow_start(table: &Table<'_>, reader: &mut Reader) -> Option<Duration> {
    table.positive(reader, &SLOW_START);
    table.parsed(reader, &SLOW_START).map(|time| time.value)
}
