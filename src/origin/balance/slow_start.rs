//! How much of its weight counts for one that has just come up: a cold origin must not get its whole share at once.

use std::time::Duration;

/// What it begins with. Less would be no test of it, and nothing would warm up.
const FIRST_PERCENT: u32 = 10;

/// A weight in hundredths, of one that has been up for `up`; the whole of it after `slow`, growing evenly until then.
pub fn share(weight: u32, up: Option<Duration>, slow: Option<Duration>) -> u32 {
    let percent = match (up, slow) {
        (Some(up), Some(slow)) if up < slow => {
            let grown = up.as_millis() * u128::from(100 - FIRST_PERCENT) / slow.as_millis().max(1);
            FIRST_PERCENT + u32::try_from(grown).unwrap_or(0)
        }
        _ => 100,
    };
    weight.saturating_mul(percent).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_the_whole() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (name, up, slow, expected) in [
            ("always up", None, seconds(30), 300),
            ("not slow", seconds(1), None, 300),
            ("just up", seconds(0), seconds(30), 30),
            ("half way", seconds(15), seconds(30), 165),
            ("there", seconds(30), seconds(30), 300),
            ("long since", seconds(3_000), seconds(30), 300),
        ] {
            assert_eq!(share(3, up, slow), expected, "{name}");
        }
        assert_eq!(share(1, seconds(0), Some(Duration::ZERO)), 100);
    }
}
