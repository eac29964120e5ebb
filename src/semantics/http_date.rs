//! Dates as RFC 9110 section 5.6.7 writes them, in three forms.

use super::time::UnixMs;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAYS: [&[u8]; 7] = [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];
const SECONDS_PER_DAY: u64 = 86_400;

/// The last instant that four digits of a year can say: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Reads an IMF-fixdate, an RFC 850 date or an asctime date.
///
/// Only the case of letters is forgiven (RFC 9111 section 4.2 asks caches for that) and a day name that does not fit
/// the date, which says nothing. Any other deviation makes a date invalid, and an invalid `Expires` means stale
/// (section 5.3): spaces too many, a missing comma, `UTC` for `GMT`, one digit where two belong. Dates before 1970
/// read as 1970: no comparison a cache makes can tell.
///
/// RFC 9110 places a two-digit year at most 50 years ahead of now. There is no now here: 70 to 99 are 19xx, the rest
/// are 20xx. The answers differ for years written `70` to `76` only, and no sender of RFC 850 dates means 2070.
pub fn parse(value: &[u8]) -> Option<UnixMs> {
    let mut date = Reader(value);
    let day_name = date.letters();
    let short = DAYS.iter().any(|day| day.get(..3).is_some_and(|day| day.eq_ignore_ascii_case(day_name)));
    let long = DAYS.iter().any(|day| day.eq_ignore_ascii_case(day_name));
    if short && date.skip(b", ") {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let day = date.number(2)?;
        let month = date.skip(b" ").then(|| date.month())??;
        let year = date.skip(b" ").then(|| date.number(4))??;
        let time = date.skip(b" ").then(|| date.time())??;
        date.zone()?;
        instant(year, month, day, time)
    } else if long && date.skip(b", ") {
        // Sunday, 06-Nov-94 08:49:37 GMT
        let day = date.number(2)?;
        let month = date.skip(b"-").then(|| date.month())??;
        let year = date.skip(b"-").then(|| date.number(2))??;
        let time = date.skip(b" ").then(|| date.time())??;
        date.zone()?;
        instant(if year < 70 { year + 2000 } else { year + 1900 }, month, day, time)
    } else if short && date.skip(b" ") {
        // Sun Nov  6 08:49:37 1994
        let month = date.month()?;
        let day = date.skip(b" ").then(|| if date.skip(b" ") { date.number(1) } else { date.number(2) })??;
        let time = date.skip(b" ").then(|| date.time())??;
        let year = date.skip(b" ").then(|| date.number(4))??;
        date.0.is_empty().then(|| instant(year, month, day, time))?
    } else {
        None
    }
}

/// Appends `at` as an IMF-fixdate, the one form a sender may use; later than the year 9999 reads as its last second.
pub fn write(at: UnixMs, out: &mut Vec<u8>) {
    let seconds = at.seconds().min(LAST_SECOND);
    let (days, time) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    // 1970-01-01 was a Thursday.
    let day_name = DAYS.get(((days + 3) % 7) as usize).and_then(|day| day.get(..3)).unwrap_or_default();
    let month_name = MONTHS.get(month as usize - 1).map_or(&b""[..], |month| &month[..]);
    out.extend_from_slice(day_name);
    out.extend_from_slice(b", ");
    two_digits(day, out);
    out.push(b' ');
    out.extend_from_slice(month_name);
    out.push(b' ');
    two_digits(year / 100, out);
    two_digits(year % 100, out);
    for (separator, part) in [(b' ', time / 3600), (b':', time / 60 % 60), (b':', time % 60)] {
        out.push(separator);
        two_digits(part, out);
    }
    out.extend_from_slice(b" GMT");
}

/// Year, month, day, hour, minute and second of an instant; later than the year 9999 reads as its last second.
pub fn civil_time(at: UnixMs) -> (u64, u64, u64, u64, u64, u64) {
    let seconds = at.seconds().min(LAST_SECOND);
    let (days, time) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    (year, month, day, time / 3600, time / 60 % 60, time % 60)
}

fn two_digits(number: u64, out: &mut Vec<u8>) {
    out.extend([b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn letters(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(self.0.len());
        let (letters, rest) = self.0.split_at(end);
        self.0 = rest;
        letters
    }

    fn skip(&mut self, text: &[u8]) -> bool {
        let Some(rest) = self.0.strip_prefix(text) else { return false };
        self.0 = rest;
        true
    }

    fn number(&mut self, digits: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
    }

    fn month(&mut self) -> Option<u64> {
        let name = self.letters();
        let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
        Some(index as u64 + 1)
    }

    /// Seconds into the day; a leap second counts as the one before it.
    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        let minute = self.skip(b":").then(|| self.number(2))??;
        let second = self.skip(b":").then(|| self.number(2))??;
        (hour < 24 && minute < 60 && second <= 60).then(|| hour * 3600 + minute * 60 + second.min(59))
    }

    /// RFC 9111 section 4.2: any zone but GMT makes the date invalid.
    fn zone(&mut self) -> Option<()> {
        self.0.eq_ignore_ascii_case(b" GMT").then_some(())
    }
}

fn instant(year: u64, month: u64, day: u64, second_of_day: u64) -> Option<UnixMs> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > length {
        return None;
    }
    Some(
        days_since_epoch(year, month, day)
            .map_or(UnixMs(0), |days| UnixMs::from_seconds(days * SECONDS_PER_DAY + second_of_day)),
    )
}

// The two conversions are Howard Hinnant's, "chrono-compatible low-level date algorithms": years begin in March, so
// that the leap day is the last one, and eras of 400 years all have 146 097 days.
const DAYS_PER_ERA: u64 = 146_097;
const DAYS_BEFORE_EPOCH: u64 = 719_468;

/// Days from 1970-01-01; none when the date is earlier.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * DAYS_PER_ERA + day_of_era).checked_sub(DAYS_BEFORE_EPOCH)
}

/// Year, month and day of the date `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<u64>) {
        assert_eq!(parse(value.as_bytes()).map(UnixMs::seconds), expected, "{name}: {value:?}");
    }

    #[test]
    fn three_forms_and_what_is_forgiven() {
        let fixed = Some(784_111_777);
        let in_2050 = Some(2_544_400_878);
        let rows = [
            ("9110 5.6.7: IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", fixed),
            ("9110 5.6.7: RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", fixed),
            ("9110 5.6.7: asctime", "Sun Nov  6 08:49:37 1994", fixed),
            ("9110 5.6.7: asctime, two digits", "Sun Nov 06 08:49:37 1994", fixed),
            ("9111 4.2: case of the day", "THU, 18 Aug 2050 02:01:18 GMT", in_2050),
            ("9111 4.2: case of the month", "Thu, 18 AUG 2050 02:01:18 GMT", in_2050),
            ("9111 4.2: case of the zone", "Thu, 18 Aug 2050 02:01:18 gMT", in_2050),
            ("a day name that does not fit", "Mon, 18 Aug 2050 02:01:18 GMT", in_2050),
            ("9110 5.6.7: two-digit year ahead", "Thursday, 18-Aug-50 02:01:18 GMT", in_2050),
            ("9111 4.2: past 2038", "Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599)),
            ("a leap day", "Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("a leap second", "Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_799)),
            ("before the epoch", "Wed, 31 Dec 1969 23:59:59 GMT", Some(0)),
            ("year zero", "Sat, 01 Jan 0000 00:00:00 GMT", Some(0)),
            ("no such leap day", "Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("no such century leap day", "Thu, 29 Feb 2100 00:00:00 GMT", None),
            ("9111 4.2: zone UTC", "Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("9111 4.2: zone AEST", "Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("two-digit year", "Thu, 18 Aug 50 02:01:18 GMT", None),
            ("no comma", "Thu 18 Aug 2050 02:01:18 GMT", None),
            ("many spaces", "Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("dashes", "Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("periods", "Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("one-digit hour", "Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("something behind it", "Thu, 18 Aug 2050 02:01:18 GMT x", None),
            ("hour 24", "Thu, 18 Aug 2050 24:00:00 GMT", None),
            ("no such month", "Thu, 18 Foo 2050 02:01:18 GMT", None),
            ("day zero", "Thu, 00 Aug 2050 02:01:18 GMT", None),
            ("9111 5.3: zero", "0", None),
            ("nothing", "", None),
        ];
        for (name, value, expected) in rows {
            check(name, value, expected);
        }
    }

    proptest! {
        #[test]
        fn a_written_date_reads_back(seconds in 0..=LAST_SECOND) {
            let mut text = Vec::new();
            write(UnixMs::from_seconds(seconds), &mut text);
            prop_assert_eq!(text.len(), 29);
            prop_assert_eq!(parse(&text), Some(UnixMs::from_seconds(seconds)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), at in any::<u64>()) {
            parse(&bytes);
            write(UnixMs(at), &mut Vec::new());
        }

        #[test]
        fn what_is_nearly_a_date_is_one_or_none(
            text in "(Sun|Sunday|Xyz)(,|) (([0-9]{2}|[ 0-9][0-9]) (Feb|Dec|Xyz) [0-9]{4}|[0-9]{2}-(FEB|Jun)-[0-9]{2}|\
                (Feb|Nov) [ 0-9][0-9]) [0-2][0-9]:[0-6][0-9]:[0-6][0-9]( GMT| gmt| UTC| [0-9]{4}|)",
        ) {
            if let Some(at) = parse(text.as_bytes()) {
                let mut written = Vec::new();
                write(at, &mut written);
                prop_assert_eq!(parse(&written), Some(at));
            }
        }
    }
}
