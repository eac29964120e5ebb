//! How old a response already was when it arrived (RFC 9111 section 4.2.3).

use super::fields::Fields;
use super::http_date;
use super::time::{DeltaSeconds, UnixMs};

/// `corrected_initial_age` in milliseconds: the greater of what `Date` and what `Age` tell.
///
/// `request_time` is when the request was sent, `response_time` when the response's head arrived; the delay between
/// them counts as age, since nobody knows at which end of it the origin answered.
pub fn initial_age_ms(response: Fields<'_>, request_time: UnixMs, response_time: UnixMs) -> u64 {
    // A difference of whole seconds: Date has no more, and a response is not 999 ms old for having been made late in
    // its second. Date may be ahead of us; apparent_age is never negative.
    let apparent_age_ms = response
        .first("date")
        .and_then(http_date::parse)
        .map_or(0, |date| response_time.seconds().saturating_sub(date.seconds()) * 1000);
    let corrected_age_ms = age_value(response).as_ms().saturating_add(response_time.since_ms(request_time));
    apparent_age_ms.max(corrected_age_ms)
}

/// RFC 9111 section 5.1: of a list the first member counts; a value that is no number is ignored.
///
/// Parameters (`7200;a=b`) are not in the grammar either, but whoever wrote them meant the number, and to believe it
/// errs towards asking the origin.
fn age_value(response: Fields<'_>) -> DeltaSeconds {
    let Some(value) = response.first("age") else { return DeltaSeconds::ZERO };
    let digits = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    let (number, rest) = value.split_at(digits);
    match rest.trim_ascii_start().first() {
        None | Some(b',' | b';') => DeltaSeconds::parse(number).unwrap_or(DeltaSeconds::ZERO),
        Some(_) => DeltaSeconds::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Sun, 06 Nov 1994 08:49:37 GMT, and a bit.
    const ARRIVED: UnixMs = UnixMs(784_111_777_900);

    #[track_caller]
    fn check(name: &str, block: &str, asked_ms_before: u64, expected_ms: u64) {
        let request_time = UnixMs(ARRIVED.0 - asked_ms_before);
        assert_eq!(
            initial_age_ms(Fields::new(block.as_bytes()), request_time, ARRIVED),
            expected_ms,
            "{name}: {block:?}"
        );
    }

    #[test]
    fn initial_age() {
        let rows = [
            ("4.2.3: nothing", "", 0, 0),
            ("4.2.3: the delay counts", "", 250, 250),
            ("4.2.3: Age and the delay", "Age: 30\r\n", 250, 30_250),
            ("4.2.3: Date within our second", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 0, 0),
            ("4.2.3: Date behind", "Date: Sun, 06 Nov 1994 08:49:27 GMT\r\n", 250, 10_000),
            ("4.2.3: Date ahead", "Date: Sun, 06 Nov 1994 08:59:37 GMT\r\n", 0, 0),
            ("4.2.3: the greater", "Date: Sun, 06 Nov 1994 08:49:27 GMT\r\nAge: 25\r\n", 0, 25_000),
            ("no date", "Date: foo\r\nAge: 1\r\n", 0, 1000),
            ("5.1: not a number", "Age: abc\r\n", 0, 0),
            ("5.1: negative", "Age: -7200\r\n", 0, 0),
            ("5.1: a fraction", "Age: 7200.0\r\n", 0, 0),
            ("5.1: quoted", "Age: \"7200\"\r\n", 0, 0),
            ("5.1: no first member", "Age: , 7200\r\n", 0, 0),
            ("5.1: empty", "Age:\r\n", 0, 0),
            ("5.1: the first member", "Age: 7200, 0\r\n", 0, 7_200_000),
            ("5.1: the first member", "Age: 0,7200\r\n", 0, 0),
            ("5.1: the first line", "Age: 7200\r\nAge: 0\r\n", 0, 7_200_000),
            ("5.1: the first line", "Age: 0\r\nAge: 7200\r\n", 0, 0),
            ("parameters", "Age: 7200;foo=111\r\n", 0, 7_200_000),
            ("1.2.2: saturates", "Age: 99999999999\r\n", 0, 2_147_483_647_000),
        ];
        for (name, block, asked_ms_before, expected_ms) in rows {
            check(name, block, asked_ms_before, expected_ms);
        }
    }

    proptest! {
        #[test]
        fn any_clock_and_any_bytes(age in "[0-9,;a ]{0,25}", asked in any::<u64>(), arrived in any::<u64>()) {
            let block = format!("age: {age}\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
            let at_least = arrived.saturating_sub(asked);
            prop_assert!(initial_age_ms(Fields::new(block.as_bytes()), UnixMs(asked), UnixMs(arrived)) >= at_least);
        }

        #[test]
        fn what_arrives_later_is_not_younger(
            age in prop::option::of("[0-9]{1,11}"),
            made in prop::option::of(0..4_000_000_000_u64),
            asked in 0..4_000_000_000_000_u64,
            one in 0..4_000_000_000_000_u64,
            other in 0..4_000_000_000_000_u64,
        ) {
            let mut block = age.map(|age| format!("age: {age}\r\ndate: ")).unwrap_or("date: ".into()).into_bytes();
            if let Some(seconds) = made {
                http_date::write(UnixMs::from_seconds(seconds), &mut block);
            }
            let at = |arrived| initial_age_ms(Fields::new(&block), UnixMs(asked), UnixMs(arrived));
            prop_assert!(at(one.min(other)) <= at(one.max(other)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let block = [b"age: ", &value[..], b"\r\ndate: ", &value[..]].concat();
            initial_age_ms(Fields::new(&block), UnixMs(0), ARRIVED);
        }
    }
}
