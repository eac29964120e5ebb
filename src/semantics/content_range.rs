//! Which bytes of a representation an answer carries, as `Content-Range` says (RFC 9110 section 14.4).
//!
//! Nothing is forgiven here: bytes are put beside those of other answers on the word of this field.

use std::ops::Range;

use super::fields::Fields;

/// The part of a representation that is the content of a 206.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Where its first byte stands.
    pub first: u64,
    /// Where its last byte stands; not before the first, and never at the end of what 64 bits can say.
    pub last: u64,
    /// How long the whole representation is, if the origin knows; more than `last`.
    pub total: Option<u64>,
}

impl ContentRange {
    /// How many bytes it has: at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is no way to write an empty range")]
    pub fn len(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// The same, with an end that is no part of it.
    pub fn range(&self) -> Range<u64> {
        self.first..self.last.saturating_add(1)
    }
}

/// Reads the one `Content-Range` of a response that has bytes.
///
/// None for more than one line, another unit, what is not well-formed, a range that is invalid (section 14.4: the last
/// byte before the first, or not within the representation), and numbers that 64 bits cannot hold.
pub fn content_range(response: Fields<'_>) -> Option<ContentRange> {
    let (range, total) = range_and_total(response)?;
    let (first, last) = split(range, b'-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == b"*" { None } else { Some(number(total)?) };
    // An end behind the last byte has to be a number too.
    (first <= last && last < total.unwrap_or(u64::MAX)).then_some(ContentRange { first, last, total })
}

/// How long the representation is, as a 416 tells: `bytes */N`.
pub fn unsatisfied_total(response: Fields<'_>) -> Option<u64> {
    match range_and_total(response)? {
        (b"*", total) => number(total),
        _ => None,
    }
}

/// What stands before and behind the slash, for the unit `bytes`, whose case does not matter (section 14.1).
fn range_and_total(response: Fields<'_>) -> Option<(&[u8], &[u8])> {
    let (unit, rest) = split(response.only("content-range")?, b' ')?;
    unit.eq_ignore_ascii_case(b"bytes").then(|| split(rest, b'/'))?
}

fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, behind) = text.split_at_checked(memchr::memchr(separator, text)?)?;
    Some((before, behind.get(1..)?))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, block: &str, expected: Option<(u64, u64, Option<u64>)>) {
        let expected = expected.map(|(first, last, total)| ContentRange { first, last, total });
        assert_eq!(content_range(Fields::new(block.as_bytes())), expected, "{name}: {block}");
    }

    #[test]
    fn ranges_of_content() {
        let max = u64::MAX;
        let rows = [
            ("14.4: its first example", "bytes 42-1233/1234", Some((42, 1233, Some(1234)))),
            ("14.4: a length that is unknown", "bytes 42-1233/*", Some((42, 1233, None))),
            ("14.4: the first 500", "bytes 0-499/1234", Some((0, 499, Some(1234)))),
            ("14.4: one byte", "bytes 0-0/1", Some((0, 0, Some(1)))),
            ("14.1: units fold case", "BYTES 0-0/1", Some((0, 0, Some(1)))),
            ("zeros in front are digits", "bytes 00-01/0002", Some((0, 1, Some(2)))),
            ("14.4: unsatisfied", "bytes */1234", None),
            ("14.4: last before first", "bytes 2-1/5", None),
            ("14.4: not within the length", "bytes 0-5/5", None),
            ("14.4: an empty representation", "bytes 0-0/0", None),
            ("14.4: another unit", "lines 0-1/5", None),
            ("14.4: no unit", "0-1/5", None),
            ("14.4: no space", "bytes=0-1/5", None),
            ("14.4: two spaces", "bytes  0-1/5", None),
            ("14.4: space within", "bytes 0 - 1 / 5", None),
            ("14.4: no length", "bytes 0-1", None),
            ("14.4: an empty length", "bytes 0-1/", None),
            ("14.4: no first", "bytes -1/5", None),
            ("14.4: no last", "bytes 1-/5", None),
            ("14.4: a sign", "bytes +0-1/5", None),
            ("14.4: a length with a sign", "bytes 0-1/-5", None),
            ("14.4: hexadecimal", "bytes 0x0-0x1/0x5", None),
            ("14.4: one behind another", "bytes 0-1/5, 2-3/5", None),
            ("14.4: nothing", "", None),
            (
                "the largest of all",
                "bytes 18446744073709551614-18446744073709551614/18446744073709551615",
                Some((max - 1, max - 1, Some(max))),
            ),
            ("no number for its end", "bytes 0-18446744073709551615/*", None),
            ("a last that overflows", "bytes 0-18446744073709551616/*", None),
            ("a length that overflows", "bytes 0-1/18446744073709551616", None),
            ("a length that overflows by far", "bytes 0-1/99999999999999999999999999", None),
        ];
        for (name, value, expected) in rows {
            check(name, &format!("Content-Range: {value}\r\n"), expected);
        }
        check("none", "content-length: 5\r\n", None);
        let line = "content-range: bytes 0-1/5\r\n";
        check("14.4: two that agree", &line.repeat(2), None);
    }

    #[test]
    fn lengths_and_ends() {
        let rows = [((0, 0), 1, 0..1), ((5, 9), 5, 5..10), ((0, u64::MAX - 1), u64::MAX, 0..u64::MAX)];
        for ((first, last), length, range) in rows {
            let part = ContentRange { first, last, total: None };
            assert_eq!((part.len(), part.range()), (length, range));
        }
    }

    #[test]
    fn lengths_of_what_could_not_be_satisfied() {
        let rows = [
            ("14.4: its example", "bytes */1234", Some(1234)),
            ("14.1: units fold case", "Bytes */0", Some(0)),
            ("the largest", "bytes */18446744073709551615", Some(u64::MAX)),
            ("it overflows", "bytes */18446744073709551616", None),
            ("14.4: a range", "bytes 0-1/1234", None),
            ("14.4: no length", "bytes */*", None),
            ("14.4: an empty length", "bytes */", None),
            ("14.4: a sign", "bytes */+5", None),
            ("14.4: another unit", "lines */5", None),
        ];
        for (name, value, expected) in rows {
            let block = format!("content-range: {value}\r\n");
            assert_eq!(unsatisfied_total(Fields::new(block.as_bytes())), expected, "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60), of_unit in any::<bool>()) {
            let block = [if of_unit { &b"content-range: bytes "[..] } else { b"content-range: " }, &value].concat();
            let fields = Fields::new(&block);
            if let Some(part) = content_range(fields) {
                prop_assert!(part.first <= part.last && part.total.is_none_or(|total| part.last < total));
                prop_assert_eq!(part.range().end - part.range().start, part.len());
                prop_assert_eq!(unsatisfied_total(fields), None);
            }
        }

        #[test]
        fn what_looks_like_one_never_panics(value in "bytes [0-9*]{0,21}[-]?[0-9]{0,21}/?[0-9*]{0,21}") {
            let block = format!("content-range: {value}\r\n");
            let read = content_range(Fields::new(block.as_bytes()));
            prop_assert!(read.is_none_or(|part| part.first <= part.last));
        }

        #[test]
        fn what_is_written_is_read(
            mut ends in prop::array::uniform3(prop_oneof![0..100_u64, any::<u64>()]),
            is_known in any::<bool>(),
        ) {
            ends.sort_unstable();
            let [first, last, end] = ends;
            prop_assume!(last < end);
            let (total, written) = if is_known { (Some(end), end.to_string()) } else { (None, "*".to_owned()) };
            let block = format!("content-range: bytes {first}-{last}/{written}\r\n");
            let part = ContentRange { first, last, total };
            prop_assert_eq!(content_range(Fields::new(block.as_bytes())), Some(part));
            let block = format!("content-range: bytes */{end}\r\n");
            prop_assert_eq!(unsatisfied_total(Fields::new(block.as_bytes())), Some(end));
        }
    }
}
