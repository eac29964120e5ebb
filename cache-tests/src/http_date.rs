//! HTTP dates (RFC 9110 section 5.6.7), to write and nothing more.

use std::time::SystemTime;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 by the clock of this machine.
pub fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(now.as_secs()).expect("the clock is before the year 292 billion")
}

/// `Thu, 01 Jan 1970 00:00:00 GMT` and so on.
pub fn imf_fixdate(unix_seconds: i64) -> String {
    let (days, second) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days: years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 2 } else { march_month - 10 };
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let name = |names: &[&'static str], index: i64| names[usize::try_from(index).expect("an index from a remainder")];
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Replaces `{now}`, `{now+60}` and `{now-60}` by dates.
pub fn fill_in(text: &str, now: i64) -> String {
    let mut filled = text.to_owned();
    while let Some(start) = filled.find("{now") {
        let end = start + filled[start..].find('}').expect("a date template ends in a brace");
        let offset = &filled[start + 4..end];
        let seconds: i64 = if offset.is_empty() { 0 } else { offset.parse().expect("a date template has an offset") };
        filled.replace_range(start..=end, &imf_fixdate(now + seconds));
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_500_293, "Tue, 24 Nov 2026 06:04:53 GMT"),
        ] {
            assert_eq!(imf_fixdate(seconds), expected);
        }
        assert_eq!(fill_in("Date: {now-10}, {now+10}", 10), fill_in("Date: {now}, {now+20}", 0));
    }
}
