//! `retry`: when another origin is asked for what one has failed to answer, or has not answered yet.

use std::str::FromStr;

use super::status::StatusRange;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::{Duration, Percent};

/// When a request is sent to another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts of one request, 0 to 2. Default 2.
    pub attempts: u32,
    /// Retries as a part of all requests, in percent. Default 20.
    pub budget_percent: u32,
    /// Retries a second that are always allowed. Default 10.
    pub reserve: u32,
    /// Whether another is asked when one does not answer in time. Default: no.
    pub after_timeout: bool,
    /// Statuses after which another is asked. Default: none.
    pub statuses: Vec<StatusRange>,
    /// When another is asked while one has not answered yet. Default: never.
    pub hedge: Option<Hedge>,
}

/// How long an origin has before a second one is asked for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// As long as this part of its group's answers takes at most, in percent.
    Percentile(u8),
    After(Duration),
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, reserve: 10, after_timeout: false, statuses: Vec::new(), hedge: None }
    }
}

section! {
    /// When a request is sent to another origin, before the first byte of an answer. Only idempotent requests are. Those that
    /// found no connection, or one that was closed, always are; all within a budget.
    RETRY = "retry" {
        /// Further attempts of one request.
        ATTEMPTS = "attempts": Kind::Integer(0, 2), "2";
        /// Retries as a part of all requests.
        BUDGET = "budget": Kind::Percent, "20%";
        /// Retries a second that are always allowed.
        RESERVE = "reserve": Kind::Integer(0, 100_000), "10";
        /// After what else another origin is asked: "timeout", when nothing came within `timeouts.first_byte`; a status, a
        /// class as in "5xx" or a range as in "502-504", 400 to 599; those from 500 count for `eject`, too. When nobody answers otherwise, the first such answer
        /// counts.
        ON = "on": Kind::Many(&Kind::Any(&[Kind::Integer(400, 599), Kind::Text("timeout, a class or a range of statuses")]));
        /// When a second origin is asked for what one has not begun to answer, and the first answer counts: "p95", when it
        /// takes longer than 95 % of the answers of the last seconds ("p50" to "p99"), or a time as in "200ms"; an origin
        /// that takes longer than a time that is set has failed. Only for what may be cached. Absent: never; but for GET and
        /// HEAD that wait for an origin its checks have just found dead, another is asked in any case.
        HEDGE = "hedge": Kind::Text("p50 to p99, or a time");
    }
}

/// One thing `on` can list.
enum On {
    Timeout,
    Statuses(StatusRange),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is nothing to try again on: expected timeout, or a status from 400 to 599, a class as in 5xx, or a range as in 502-504"
)]
struct OnError(String);

impl FromStr for On {
    type Err = OnError;

    fn from_str(text: &str) -> Result<Self, OnError> {
        if text == "timeout" {
            return Ok(Self::Timeout);
        }
        let range = text.parse::<StatusRange>().ok().filter(|range| range.first >= 400);
        range.map(Self::Statuses).ok_or_else(|| OnError(text.into()))
    }
}

/// A text that says no time for a second request.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" says no time: expected p50 to p99, or a time as in 200ms")]
pub struct HedgeError(String);

impl FromStr for Hedge {
    type Err = HedgeError;

    fn from_str(text: &str) -> Result<Self, HedgeError> {
        let error = || HedgeError(text.into());
        if let Some(number) = text.strip_prefix('p') {
            let percentile = number.parse().ok().filter(|percent| (50..=99).contains(percent));
            return percentile.map(Self::Percentile).ok_or_else(error);
        }
        let time = text.parse::<Duration>().ok().filter(|time| !time.get().is_zero());
        time.map(Self::After).ok_or_else(error)
    }
}

impl Retry {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
        let budget = table.parsed::<Percent>(reader, &BUDGET);
        let mut retry = Self {
            attempts: table.integer(reader, &ATTEMPTS, 0..=2).unwrap_or(default.attempts),
            budget_percent: budget.map_or(default.budget_percent, |budget| budget.value.get()),
            reserve: table.integer(reader, &RESERVE, 0..=100_000).unwrap_or(default.reserve),
            hedge: table.parsed::<Hedge>(reader, &HEDGE).map(|hedge| hedge.value),
            ..default
        };
        let on = table.many(reader, &ON, |reader, value| match value.as_integer() {
            None => reader.parse::<On>(&ON, value).map(|on| on.value),
            Some(number) => match number.to_string().parse::<On>() {
                Ok(on) => Some(on),
                Err(error) => {
                    reader.wrong(&value.span(), error, "this value", ON.summary());
                    None
                }
            },
        });
        for on in on {
            match on {
                On::Timeout => retry.after_timeout = true,
                On::Statuses(range) => retry.statuses.push(range),
            }
        }
        if retry.attempts == 0 {
            for key in [&ON, &HEDGE] {
                if let Some(value) = table.value(key) {
                    let message = format!("`{}`, and `attempts` is 0: nothing is tried again", key.name);
                    reader.wrong(&value.span(), message, "has no effect", ATTEMPTS.summary());
                }
            }
        }
        table.finish(reader);
        retry
    }
}
