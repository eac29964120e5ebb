//! One range, as whoever asks has it (RFC 9110 section 14.1.2).

use std::ops::Range;

/// What is asked for of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Without `Range`.
    Whole,
    /// From the first of these bytes to before the last.
    Part(Range<u64>),
    From(u64),
    /// The last so many.
    Last(u64),
}

impl Wanted {
    /// So many bytes from `first` on.
    pub fn part(first: u64, count: u64) -> Self {
        Self::Part(first..first + count)
    }

    /// The value of `Range`; none for the whole.
    pub fn value(&self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Part(part) => Some(format!("bytes={}-{}", part.start, part.end - 1)),
            Self::From(first) => Some(format!("bytes={first}-")),
            Self::Last(count) => Some(format!("bytes=-{count}")),
        }
    }

    /// One range of bytes; none for several, and for what is not well-formed.
    pub(super) fn of_value(value: &str) -> Option<Self> {
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", count) => Some(Self::Last(count.parse().ok()?)),
            (first, "") => Some(Self::From(first.parse().ok()?)),
            (first, last) => {
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                (first <= last).then_some(Self::Part(first..last.saturating_add(1)))
            }
        }
    }

    /// Those of `length` bytes that are meant; none when there are none (RFC 9110 section 15.5.17).
    pub fn within(&self, length: u64) -> Option<Range<u64>> {
        let part = match self {
            Self::Whole => return Some(0..length),
            Self::Part(part) => part.start..part.end.min(length),
            Self::From(first) => *first..length,
            Self::Last(count) => length.saturating_sub(*count)..length,
        };
        (part.start < part.end).then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (wanted, value, of_ten) in [
            (Wanted::Part(2..5), "bytes=2-4", Some(2..5)),
            (Wanted::part(8, 90), "bytes=8-97", Some(8..10)),
            (Wanted::From(7), "bytes=7-", Some(7..10)),
            (Wanted::From(10), "bytes=10-", None),
            (Wanted::Last(3), "bytes=-3", Some(7..10)),
            (Wanted::Last(30), "bytes=-30", Some(0..10)),
            (Wanted::Last(0), "bytes=-0", None),
        ] {
            assert_eq!(wanted.value().as_deref(), Some(value));
            assert_eq!(Wanted::of_value(value).as_ref(), Some(&wanted));
            assert_eq!(wanted.within(10), of_ten, "{value}");
        }
        for value in ["bytes=1-2,4-5", "bytes=4-2", "bytes=a-", "lines=1-2", "bytes=-"] {
            assert_eq!(Wanted::of_value(value), None, "{value}");
        }
    }
}
