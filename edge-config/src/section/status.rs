//! Sets of statuses.

use crate::read::key::{Key, Kind};
use crate::read::{Reader, Value};

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

/// Sets of statuses, as they can be written.
pub(crate) const STATUSES: Kind = Kind::Many(&Kind::Any(&[
    Kind::Integer(100, 599),
    Kind::Text("a class as in \"2xx\", or a range as in \"200-299\""),
]));

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
    pub(crate) fn read(reader: &mut Reader, key: &Key, value: Value<'_>) -> Option<Self> {
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
