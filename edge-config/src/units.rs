//! Sizes and durations with their units written out.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written with a binary unit: `"0B"`, `"64KiB"`, `"512MiB"`, `"2GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size as an index type; saturates where addresses are narrower than 64 bits.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, factor) = split_unit(text, &BYTE_UNITS).ok_or_else(|| UnitError::Size(text.into()))?;
        number.checked_mul(factor).map(Self).ok_or_else(|| UnitError::Size(text.into()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = largest_exact(self.0, &BYTE_UNITS);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A length of time, written with one unit: `"400ms"`, `"10s"`, `"5m"`, `"2h"`, `"1d"`, `"2w"`, `"1y"` (365 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

const TIME_UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

impl Duration {
    pub const fn from_secs(n: u64) -> Self {
        Self(std::time::Duration::from_secs(n))
    }

    pub const fn from_millis(n: u64) -> Self {
        Self(std::time::Duration::from_millis(n))
    }

    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, factor) = split_unit(text, &TIME_UNITS).ok_or_else(|| UnitError::Duration(text.into()))?;
        number.checked_mul(factor).map(Self::from_millis).ok_or_else(|| UnitError::Duration(text.into()))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let by_size = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let (unit, factor) = largest_exact(ms, &by_size);
        write!(f, "{}{unit}", ms / factor)
    }
}

/// A part in a hundred, written with its sign: `"20%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = split_unit(text, &[("%", 1)]).and_then(|(number, _)| u32::try_from(number).ok());
        number.filter(|number| *number <= 100).map(Self).ok_or_else(|| UnitError::Percent(text.into()))
    }
}

/// A value whose unit is missing or unknown, or whose number does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("`{0}` is not a size: expected a whole number and B, KiB, MiB, GiB or TiB, as in 512MiB")]
    Size(String),
    #[error("`{0}` is not a duration: expected a whole number and ms, s, m, h, d, w or y, as in 10s")]
    Duration(String),
    #[error("`{0}` is not a percentage: expected a whole number from 0 to 100 and %, as in 20%")]
    Percent(String),
}

fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?;
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| number.parse().ok()).flatten().map(|n| (n, *factor))
    })
}

fn largest_exact(n: u64, units: &[(&'static str, u64)]) -> (&'static str, u64) {
    let smallest = units.iter().min_by_key(|(_, factor)| *factor).copied().unwrap_or(("", 1));
    units.iter().copied().find(|(_, factor)| n != 0 && n.is_multiple_of(*factor)).unwrap_or(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in
            [("0B", Some(0)), ("64KiB", Some(65_536)), ("512MiB", Some(512 << 20)), ("1TiB", Some(1 << 40))]
                .into_iter()
                .chain([
                    ("12", None),
                    ("MiB", None),
                    ("-1B", None),
                    ("1.5GiB", None),
                    ("1MB", None),
                    ("99999999999TiB", None),
                ])
        {
            assert_eq!(text.parse::<ByteSize>().ok().map(ByteSize::bytes), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in
            [("400ms", Some(400)), ("10s", Some(10_000)), ("5m", Some(300_000)), ("1d", Some(86_400_000))]
                .into_iter()
                .chain([("10", None), ("s", None), ("1.5s", None), ("10 s", None), ("99999999999999999d", None)])
        {
            assert_eq!(text.parse::<Duration>().ok().map(|d| d.get().as_millis()), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(n in 0u64..1 << 50) {
            proptest::prop_assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
            proptest::prop_assert_eq!(Duration::from_millis(n).to_string().parse(), Ok(Duration::from_millis(n)));
        }
    }
}
