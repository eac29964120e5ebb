//! Which part of a representation an origin is asked for, and whether what it says is an answer to that. Pure.

use std::ops::Range;

use edge_config::section::limits::{CHUNK_BYTES, RUN_BYTES_FIRST, RUN_BYTES_MAX};

use crate::semantics::content_range::ContentRange;
use crate::semantics::range::Wanted;

const CHUNK: u64 = CHUNK_BYTES as u64;

/// A part of a representation whose length is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These bytes, as far as there are so many; to the end of all there is if they end where numbers do.
    Span(Range<u64>),
    /// The last bytes, so many.
    Suffix(u64),
}

impl Asked {
    /// Whole chunks around what a client wants, as many as are fetched at a time. Of the end nobody knows in which chunk it
    /// begins: that is asked for as it is.
    pub fn chunks_around(wanted: Wanted) -> Self {
        match wanted {
            Wanted::From { first, last } => {
                let from = first / CHUNK * CHUNK;
                let (to, window) = match last {
                    Some(last) => ((last / CHUNK).saturating_add(1).saturating_mul(CHUNK), RUN_BYTES_MAX),
                    None => (u64::MAX, RUN_BYTES_FIRST),
                };
                Self::Span(from..to.min(from.saturating_add(window)))
            }
            Wanted::Suffix { length } => Self::Suffix(length),
        }
    }

    /// What a client wants, as it says it.
    pub fn exactly(wanted: Wanted) -> Self {
        match wanted {
            Wanted::From { first, last } => Self::Span(first..last.map_or(u64::MAX, |last| last.saturating_add(1))),
            Wanted::Suffix { length } => Self::Suffix(length),
        }
    }

    /// Appends the `Range` line.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"range: bytes=");
        match self {
            Self::Span(range) => {
                out.extend_from_slice(number.format(range.start).as_bytes());
                out.push(b'-');
                if range.end != u64::MAX {
                    out.extend_from_slice(number.format(range.end.saturating_sub(1)).as_bytes());
                }
            }
            Self::Suffix(length) => {
                out.push(b'-');
                out.extend_from_slice(number.format(*length).as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a 206 can be the answer to this: it begins where it was asked to, ends no later, says how long the whole is,
    /// and its content is as long as it says. Fewer bytes than were asked for are an answer too.
    pub fn is_answered_by(&self, said: &ContentRange, content_length: Option<u64>) -> bool {
        let Some(total) = said.total else { return false };
        let asked = match self {
            Self::Span(range) => range.clone(),
            Self::Suffix(length) => total.saturating_sub(*length)..total,
        };
        said.first == asked.start && said.last < asked.end && content_length.is_none_or(|length| length == said.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(asked: &Asked) -> String {
        let mut out = Vec::new();
        asked.write(&mut out);
        String::from_utf8(out).expect("ASCII").trim_end().to_owned()
    }

    #[test]
    fn whole_chunks_are_asked_for_and_no_more_than_a_window() {
        let from = |first, last| Wanted::From { first, last };
        for (wanted, expected) in [
            (from(0, Some(0)), "range: bytes=0-262143"),
            (from(262_143, Some(262_144)), "range: bytes=0-524287"),
            (from(262_144, Some(262_144)), "range: bytes=262144-524287"),
            (from(1 << 40, Some(1 << 50)), "range: bytes=1099511627776-1099515822079"),
            (from(300_000, None), "range: bytes=262144-1310719"),
            (from(u64::MAX, Some(u64::MAX)), "range: bytes=18446744073709289472-"),
            (Wanted::Suffix { length: 5 }, "range: bytes=-5"),
        ] {
            assert_eq!(line(&Asked::chunks_around(wanted)), expected, "{wanted:?}");
        }
        assert_eq!(line(&Asked::exactly(from(5, None))), "range: bytes=5-");
        assert_eq!(line(&Asked::exactly(from(5, Some(6)))), "range: bytes=5-6");
    }

    #[test]
    fn an_answer_begins_where_it_was_asked_to() {
        let said = |first, last, total| ContentRange { first, last, total };
        let span = Asked::Span(10..20);
        for (asked, said, length, expected) in [
            (&span, said(10, 19, Some(100)), Some(10), true),
            (&span, said(10, 19, Some(100)), None, true),
            // RFC 9110 section 14.2 allows less, and the end may come before.
            (&span, said(10, 12, Some(100)), Some(3), true),
            (&span, said(10, 14, Some(15)), Some(5), true),
            (&span, said(10, 19, None), Some(10), false),
            (&span, said(11, 19, Some(100)), Some(9), false),
            (&span, said(10, 20, Some(100)), Some(11), false),
            (&span, said(10, 19, Some(100)), Some(9), false),
            (&Asked::Suffix(5), said(95, 99, Some(100)), Some(5), true),
            (&Asked::Suffix(5), said(0, 2, Some(3)), Some(3), true),
            (&Asked::Suffix(5), said(4, 9, Some(10)), Some(5), false),
            (&Asked::Suffix(5), said(94, 98, Some(100)), Some(5), false),
        ] {
            assert_eq!(asked.is_answered_by(&said, length), expected, "{asked:?} {said:?} {length:?}");
        }
    }
}
