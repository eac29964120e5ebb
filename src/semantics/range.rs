//! Which bytes of a stored response a request asks for (RFC 9110 sections 13.1.5 and 14).

use std::ops::Range;

use super::fields::{Fields, members, trim};
use super::http_date;
use super::validation::{strong_date, strong_eq};

/// The most parts in one answer. Players and viewers ask for a few; RFC 9110 section 17.15 warns of many.
pub const PARTS_MAX: usize = 16;

/// How to answer a GET with respect to its `Range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangePlan {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes, never none.
    One(Range<u64>),
    /// 206 `multipart/byteranges` with two to [`PARTS_MAX`] parts that do not overlap, in the order asked for.
    Many(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Plans the answer to a GET from a stored response whose body has `length` bytes.
///
/// A server may ignore `Range`, and does so here whenever that is the safe reading: for any status but 200, more than
/// one `Range`, another unit, a set that is not well-formed, one with more than [`PARTS_MAX`] specs or with parts that
/// overlap (section 14.2), or an `If-Range` that does not hold.
pub fn plan(request: Fields<'_>, stored: Fields<'_>, status: u16, length: u64) -> RangePlan {
    if status != 200 {
        return RangePlan::Whole;
    }
    match request.only("range").and_then(byte_range_set) {
        Some(set) if if_range_holds(request, stored) => within(set, length),
        _ => RangePlan::Whole,
    }
}

/// What one `range-spec` of section 14.1.2 asks for; numbers too large for us are as good as the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `5-9`, or `5-`: from a byte on.
    From {
        /// Where it begins.
        first: u64,
        /// Its last byte, not before the first; none for all there is behind the first.
        last: Option<u64>,
    },
    /// `-5`: the last bytes.
    Suffix {
        /// How many of them; 0 can never be satisfied.
        length: u64,
    },
}

/// The first range that a request asks for, while it is not known yet how long the body is.
///
/// None where [`plan`] ignores `Range` for its form alone: not exactly one line, another unit, a set with a spec that is
/// not well-formed or with more than [`PARTS_MAX`] of them. Whether an `If-Range` holds is for who knows the response.
pub fn first_wanted(request: Fields<'_>) -> Option<Wanted> {
    let mut set = request.only("range").and_then(byte_range_set)?;
    let first = set.next()??;
    let mut others = 0;
    set.all(|spec| {
        others += 1;
        spec.is_some() && others < PARTS_MAX
    })
    .then_some(first)
}

/// The range of a set to ask an origin for, while it is not known yet how long the body is: one of it that is there, if any
/// is. None where [`first_wanted`] is none.
pub fn surest_wanted(request: Fields<'_>) -> Option<Wanted> {
    let first = first_wanted(request)?;
    let rank = |wanted: &Wanted| match wanted {
        // As long as there is anything at all.
        Wanted::Suffix { length: 1.. } => 0,
        Wanted::Suffix { length: 0 } => u64::MAX,
        Wanted::From { first, .. } => *first,
    };
    let all = request.only("range").and_then(byte_range_set).into_iter().flatten().flatten();
    Some(all.min_by_key(rank).unwrap_or(first))
}

fn within(set: impl Iterator<Item = Option<Wanted>>, length: u64) -> RangePlan {
    // The first part is kept outside the list: the ordinary request for one range allocates nothing.
    let mut first: Option<Range<u64>> = None;
    let mut others: Vec<Range<u64>> = Vec::new();
    let mut asks_for_nothing_of_nothing = false;
    for (index, spec) in set.enumerate() {
        let Some(spec) = spec.filter(|_| index < PARTS_MAX) else { return RangePlan::Whole };
        let range = match spec {
            Wanted::From { first, last } => first..last.map_or(length, |last| last.saturating_add(1).min(length)),
            Wanted::Suffix { length: suffix } => {
                asks_for_nothing_of_nothing |= suffix > 0 && length == 0;
                length.saturating_sub(suffix)..length
            }
        };
        if range.is_empty() {
            continue;
        }
        if first.iter().chain(&others).any(|part| part.start < range.end && range.start < part.end) {
            return RangePlan::Whole;
        }
        match first {
            None => first = Some(range),
            Some(_) => others.push(range),
        }
    }
    match first {
        Some(first) if others.is_empty() => RangePlan::One(first),
        Some(first) => {
            others.insert(0, first);
            RangePlan::Many(others)
        }
        // Section 14.1.2: a suffix of an empty body can be satisfied, but Content-Range has no way to say so.
        None if asks_for_nothing_of_nothing => RangePlan::Whole,
        None => RangePlan::Unsatisfiable,
    }
}

/// The specs of a `bytes` set, each none when it is malformed; none at all for another unit or an empty set.
fn byte_range_set(value: &[u8]) -> Option<impl Iterator<Item = Option<Wanted>>> {
    let (unit, set) = value.split_at_checked(memchr::memchr(b'=', value)?)?;
    let set = set.get(1..)?;
    members(set).next()?;
    // Section 14.1: units fold case.
    unit.eq_ignore_ascii_case(b"bytes").then(|| members(set).map(spec))
}

fn spec(text: &[u8]) -> Option<Wanted> {
    let (first, last) = text.split_at_checked(memchr::memchr(b'-', text)?)?;
    match (trim(first), trim(last.get(1..)?)) {
        (b"", suffix) => Some(Wanted::Suffix { length: position(suffix)? }),
        (first, b"") => Some(Wanted::From { first: position(first)?, last: None }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then(|| Wanted::From { first, last: (last < u64::MAX).then_some(last) })
        }
    }
}

fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

/// RFC 9110 section 13.1.5: the same strong entity tag, or exactly the date of a `Last-Modified` that is a strong
/// validator, being at least a second older than the response's `Date` (section 8.8.2.2).
fn if_range_holds(request: Fields<'_>, stored: Fields<'_>) -> bool {
    if !request.contains("if-range") {
        return true;
    }
    let Some(validator) = request.only("if-range") else { return false };
    let Some(date) = http_date::parse(validator) else {
        return stored.first("etag").is_some_and(|etag| strong_eq(etag, validator));
    };
    strong_date(stored).and_then(http_date::parse) == Some(date)
}

#[cfg(test)]
mod against_slices;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, range: &str, length: u64, expected: RangePlan) {
        let request = format!("Range: {range}\r\n");
        assert_eq!(
            plan(Fields::new(request.as_bytes()), Fields::default(), 200, length),
            expected,
            "{name}: {range} of {length}"
        );
    }

    #[test]
    fn ranges() {
        use RangePlan::{Many, One, Unsatisfiable, Whole};
        let sixteen: String = (0..16).map(|at| format!("{}-{},", at * 2, at * 2)).collect();
        let rows = [
            ("14.1.2: first and last", "bytes=0-1", 11, One(0..2)),
            ("14.1.2: no last", "bytes=1-", 11, One(1..11)),
            ("14.1.2: suffix", "bytes=-1", 11, One(10..11)),
            ("14.1.2: last beyond the end", "bytes=5-99999999999999999999999", 11, One(5..11)),
            ("14.1.2: suffix beyond the start", "bytes=-99999999999999999999999", 11, One(0..11)),
            ("14.1: units fold case", "Bytes=0-0", 11, One(0..1)),
            ("14.1.2: first at the end", "bytes=11-", 11, Unsatisfiable),
            ("14.1.2: first far beyond", "bytes=99999999999999999999999-", 11, Unsatisfiable),
            ("14.1.2: suffix of nothing", "bytes=-0", 11, Unsatisfiable),
            ("14.1.2: an empty body", "bytes=0-", 0, Unsatisfiable),
            ("14.1.2: a suffix of an empty body", "bytes=-5", 0, Whole),
            ("14.1.2: many", "bytes=0-1, 4-5 ,-1", 11, Many(vec![0..2, 4..6, 10..11])),
            ("as asked, not sorted", "bytes=4-5,0-1", 11, Many(vec![4..6, 0..2])),
            ("14.1.2: what cannot be goes", "bytes=20-,0-1,-0", 11, One(0..2)),
            ("touching is not overlapping", "bytes=0-1,2-3", 11, Many(vec![0..2, 2..4])),
            ("14.2: overlapping", "bytes=0-2,2-3", 11, Whole),
            ("14.2: the same again", "bytes=0-,0-", 11, Whole),
            ("14.2: last before first", "bytes=2-1", 11, Whole),
            ("14.2: one of them malformed", "bytes=0-1,x", 11, Whole),
            ("14.2: nothing", "bytes=", 11, Whole),
            ("14.2: no number", "bytes=-", 11, Whole),
            ("14.2: a sign", "bytes=+1-2", 11, Whole),
            ("14.2: another unit", "lines=0-1", 11, Whole),
            ("14.2: no unit", "0-1", 11, Whole),
            ("sixteen", &format!("bytes={sixteen}"), 99, Many((0..16).map(|at| at * 2..at * 2 + 1).collect())),
            ("seventeen", &format!("bytes={sixteen}40-"), 99, Whole),
            ("the largest body", "bytes=-1", u64::MAX, One(u64::MAX - 1..u64::MAX)),
        ];
        for (name, range, length, expected) in rows {
            check(name, range, length, expected);
        }
    }

    #[test]
    fn first_ranges() {
        let from = |first, last| Some(Wanted::From { first, last });
        let suffix = |length| Some(Wanted::Suffix { length });
        let sixteen = ["0-0"; PARTS_MAX].join(",");
        let rows = [
            ("14.1.2: first and last", "bytes=0-1", from(0, Some(1))),
            ("14.1.2: no last", "bytes=5-", from(5, None)),
            ("14.1.2: a last beyond all", "bytes=5-18446744073709551615", from(5, None)),
            ("14.1.2: and one that overflows", "bytes=5-99999999999999999999999", from(5, None)),
            ("14.1.2: the largest but one", "bytes=5-18446744073709551614", from(5, Some(u64::MAX - 1))),
            ("14.1.2: suffix", "bytes=-5", suffix(5)),
            ("14.1.2: suffix of nothing", "bytes=-0", suffix(0)),
            ("14.1.2: as asked, not sorted", "BYTES= ,4-5,0-1", from(4, Some(5))),
            ("14.1.2: overlapping shows later", "bytes=0-,0-", from(0, None)),
            ("14.2: last before first", "bytes=2-1", None),
            ("14.2: one of them malformed", "bytes=0-1,x", None),
            ("14.2: another unit", "lines=0-1", None),
            ("14.2: nothing", "bytes=", None),
            ("14.2: two Ranges", "bytes=0-1\r\nrange: bytes=0-1", None),
            ("sixteen", &format!("bytes={sixteen}"), from(0, Some(0))),
            ("seventeen", &format!("bytes={sixteen},0-0"), None),
            ("seventeen, the last malformed", &format!("bytes={sixteen},x"), None),
        ];
        for (name, range, expected) in rows {
            let request = format!("range: {range}\r\n");
            assert_eq!(first_wanted(Fields::new(request.as_bytes())), expected, "{name}: {range}");
        }
        assert_eq!(first_wanted(Fields::default()), None, "14.2: no Range");
    }

    #[test]
    fn surest_ranges() {
        let from = |first, last| Some(Wanted::From { first, last });
        let rows = [
            ("one", "bytes=9-", from(9, None)),
            ("the least", "bytes=9-,3-4", from(3, Some(4))),
            ("the first of two that are there", "bytes=0-1,-5", from(0, Some(1))),
            ("a suffix is there", "bytes=9-,-5,3-4", Some(Wanted::Suffix { length: 5 })),
            ("but not that of nothing", "bytes=-0,9-", from(9, None)),
            ("nothing else", "bytes=-0", Some(Wanted::Suffix { length: 0 })),
            ("malformed", "bytes=9-,x", None),
        ];
        for (name, range, expected) in rows {
            let request = format!("range: {range}\r\n");
            assert_eq!(surest_wanted(Fields::new(request.as_bytes())), expected, "{name}: {range}");
        }
        assert_eq!(surest_wanted(Fields::default()), None, "14.2: no Range");
    }

    #[track_caller]
    fn check_condition(name: &str, request: &str, status: u16, stored: &str, expected: RangePlan) {
        let request = format!("range: bytes=0-0\r\n{request}");
        assert_eq!(
            plan(Fields::new(request.as_bytes()), Fields::new(stored.as_bytes()), status, 9),
            expected,
            "{name}"
        );
    }

    #[test]
    fn conditions() {
        use RangePlan::{One, Whole};
        let modified = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let strong = &format!("{modified}date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
        let weak = &format!("{modified}date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let same = "if-range: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let rows = [
            ("13.1.5: the tag", "if-range: \"a\"\r\n", 200, "etag: \"a\"\r\n", One(0..1)),
            ("13.1.5: another", "if-range: \"b\"\r\n", 200, "etag: \"a\"\r\n", Whole),
            ("13.1.5: a weak one", "if-range: W/\"a\"\r\n", 200, "etag: W/\"a\"\r\n", Whole),
            ("13.1.5: the date", same, 200, strong, One(0..1)),
            ("13.1.5: a later date", "if-range: Sun, 06 Nov 1994 08:49:38 GMT\r\n", 200, strong, Whole),
            ("8.8.2.2: a weak date", same, 200, weak, Whole),
            ("8.8.2.2: no Date", same, 200, modified, Whole),
            ("13.1.5: nothing stored", same, 200, "", Whole),
            ("13.1.5: two", "if-range: \"a\"\r\nif-range: \"a\"\r\n", 200, "etag: \"a\"\r\n", Whole),
            ("14.2: two Ranges", "range: bytes=0-0\r\n", 200, "", Whole),
            ("14.2: another status", "", 404, "", Whole),
        ];
        for (name, request, status, stored, expected) in rows {
            check_condition(name, request, status, stored, expected);
        }
    }

    proptest! {
        #[test]
        fn parts_are_within_and_apart(set in "bytes=([0-9]{0,2}-[0-9]{0,20},){0,18}", length in prop_oneof![0..40_u64, any::<u64>()]) {
            let request = format!("range: {set}\r\n");
            let parts = match plan(Fields::new(request.as_bytes()), Fields::default(), 200, length) {
                RangePlan::One(part) => vec![part],
                RangePlan::Many(parts) => parts,
                RangePlan::Whole | RangePlan::Unsatisfiable => vec![],
            };
            prop_assert!(parts.len() <= PARTS_MAX);
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            let mut sorted = parts;
            sorted.sort_by_key(|part| part.start);
            prop_assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60), length in any::<u64>()) {
            let block = [b"range: bytes=", &value[..]].concat();
            plan(Fields::new(&block), Fields::default(), 200, length);
        }

        #[test]
        fn arbitrary_fields_never_panic(
            range in prop::collection::vec(any::<u8>(), 0..40),
            validator in prop::collection::vec(any::<u8>(), 0..40),
            status in prop_oneof![Just(200), any::<u16>()],
            length in any::<u64>(),
        ) {
            let request = [b"if-range: ", &validator[..], b"\r\nrange: ", &range[..]].concat();
            let stored = [b"etag: ", &validator[..], b"\r\nlast-modified: ", &range[..]].concat();
            plan(Fields::new(&request), Fields::new(&stored), status, length);
        }
    }
}
