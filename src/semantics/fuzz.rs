//! Every parser of this module, fed with what nobody sends on purpose; see [`crate::fuzz`] for how.
//!
//! A check asserts a law: lines mean what they mean joined, what is normalised is normal, what is written reads back,
//! a bound holds. An input is one or more lines, which become lines of one field.

use crate::fuzz::target;

use super::fields::{Fields, members, trim};
use super::http_date;
use super::range::{PARTS_MAX, RangePlan, plan};
use super::time::UnixMs;

mod corpus;
mod directives;
mod selecting;
mod stored;

/// The input's lines, each as a line of the field `name`.
fn block(name: &str, input: &[u8]) -> Vec<u8> {
    input.split(|byte| *byte == b'\n').flat_map(|value| [name.as_bytes(), b": ", value, b"\r\n"].concat()).collect()
}

/// The input's lines joined to one line of the field `name` (RFC 9110 section 5.3); blanks around them are no part of
/// them.
fn joined(name: &str, input: &[u8]) -> Vec<u8> {
    let lines: Vec<_> = input.split(|byte| *byte == b'\n').map(trim).collect();
    [name.as_bytes(), b": ", &lines.join(&b", "[..]), b"\r\n"].concat()
}

/// Whether every line closes the quoted strings it opens: of no other lines does RFC 9110 say that they may be joined.
fn is_closed(input: &[u8]) -> bool {
    input.split(|byte| *byte == b'\n').all(|line| {
        let mut bytes = line.iter();
        let mut quoted = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => drop(bytes.next()),
                _ => {}
            }
        }
        !quoted
    })
}

#[test]
fn field_lines() {
    target("field lines", corpus::BLOCKS, |input| {
        let lines: Vec<_> = Fields::new(input).lines().collect();
        let mut written = Vec::new();
        lines.iter().for_each(|line| line.write(&mut written));
        assert_eq!(Fields::new(&written).lines().collect::<Vec<_>>(), lines, "what is written reads back");
        for line in lines {
            assert!(!line.name.contains(&b':') && !line.value.contains(&b'\n'));
            let whole: Vec<_> = members(line.value).collect();
            // What stands between two commas that separate says the same alone.
            assert!(whole.iter().all(|member| members(member).eq([*member])), "{whole:?}");
            assert!(whole.iter().map(|member| member.len()).sum::<usize>() <= line.value.len());
        }
    });
}

#[test]
fn dates() {
    const LAST_SECOND: u64 = 253_402_300_799;
    target("dates", corpus::DATES, |input| {
        let at = input.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(u64::from(*byte)));
        let mut text = Vec::new();
        http_date::write(UnixMs(at), &mut text);
        assert_eq!(http_date::parse(&text), Some(UnixMs::from_seconds((at / 1000).min(LAST_SECOND))), "{at}");

        let read = http_date::parse(input);
        assert_eq!(read, http_date::parse(&input.to_ascii_lowercase()), "letters fold case");
        assert_eq!(read, http_date::parse(&input.to_ascii_uppercase()), "letters fold case");
        let Some(at) = read else { return };
        text.clear();
        http_date::write(at, &mut text);
        assert_eq!((text.len(), http_date::parse(&text)), (29, Some(at)), "what is written reads back");
        let Some((_, shorter)) = input.split_last() else { return };
        assert_eq!(http_date::parse(shorter), None, "nothing shorter is a date");
        assert_eq!(http_date::parse(&[input, b" "].concat()), None, "nor is anything longer");
        // Sun, 06 Nov 1994 08:49:37 GMT: all of it but the day's name and the century is in every form. Before 1970 it
        // is not, and a leap second reads as the one before.
        let said = input.to_ascii_lowercase();
        let says = |part: &[u8]| said.windows(part.len()).any(|found| found == part.to_ascii_lowercase());
        if at > UnixMs(0) && !says(b":60") {
            assert!([&text[6..7], &text[8..11], &text[14..16], &text[17..25]].into_iter().all(says), "{text:?}");
        }
    });
}

#[test]
fn ranges() {
    target("ranges", corpus::RANGES, |input| {
        let line = joined("range", input);
        let request = Fields::new(&line);
        for length in [0, 1, 11, 4096, 1 << 40, u64::MAX] {
            let planned = plan(request, Fields::default(), 200, length);
            let parts: &[_] = match &planned {
                RangePlan::One(part) => std::slice::from_ref(part),
                RangePlan::Many(parts) => {
                    assert!((2..=PARTS_MAX).contains(&parts.len()), "{planned:?}");
                    parts
                }
                RangePlan::Whole | RangePlan::Unsatisfiable => &[],
            };
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= length), "{planned:?} of {length}");
            let mut sorted = parts.to_vec();
            sorted.sort_by_key(|part| part.start);
            assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start), "{planned:?} overlap");

            let again = |value: &[u8]| {
                let line = [b"range:", value, b"\r\n"].concat();
                plan(Fields::new(&line), Fields::default(), 200, length)
            };
            let value = request.first("range").unwrap_or_default();
            if !parts.is_empty() {
                let spelt: Vec<_> = parts.iter().map(|part| format!("{}-{}", part.start, part.end - 1)).collect();
                assert_eq!(
                    again(format!("bytes={}", spelt.join(",")).as_bytes()),
                    planned,
                    "what is planned, asked for"
                );
            }
            assert_eq!(again(&value.to_ascii_uppercase()), planned, "units fold case");
            let spaced: Vec<_> = value.split(|byte| *byte == b',').collect();
            assert_eq!(again(&spaced.join(&b" ,\t, "[..])), planned, "blanks and empty members say nothing");
            if planned == RangePlan::Unsatisfiable && length > 0 {
                let satisfied = again(&[value, b",0-0"].concat());
                assert!(matches!(satisfied, RangePlan::One(_) | RangePlan::Whole), "{satisfied:?}");
            }
            for status in [206, 404] {
                assert_eq!(plan(request, Fields::default(), status, length), RangePlan::Whole);
            }
        }
    });
}

/// `If-Range` and a stored response's validators, both arbitrary: a part is sent for a strong validator alone.
#[test]
fn conditions_of_ranges() {
    const RANGE: &[u8] = b"range: bytes=0-0\r\n";
    target("conditions of ranges", corpus::VALIDATORS, |input| {
        let (condition, validator) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(0));
        let validator = validator.trim_ascii_start();
        let request = [RANGE, &block("if-range", condition)].concat();
        for field in ["etag", "last-modified"] {
            let stored = [block(field, validator), block("date", b"Sun, 06 Nov 1994 08:49:38 GMT")].concat();
            let planned = plan(Fields::new(&request), Fields::new(&stored), 200, 9);
            if planned != RangePlan::Whole {
                assert_eq!(planned, RangePlan::One(0..1));
                let (said, stored) = (Fields::new(&request).only("if-range"), Fields::new(&stored).first(field));
                let said = said.expect("one If-Range");
                let is_same_tag = field == "etag" && stored == Some(said) && said.starts_with(b"\"");
                let is_same_date =
                    http_date::parse(said).is_some() && stored.and_then(http_date::parse) == http_date::parse(said);
                assert!(is_same_tag || is_same_date, "{said:?} {stored:?}");
            }
        }
    });
}
