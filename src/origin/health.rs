//! Up or down, by active checks. So many in a row decide; one alone never does.

use std::time::Duration;

/// What the checks of one origin have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    fall: u32,
    rise: u32,
    up: bool,
    /// Checks in a row that spoke against `up`.
    against: u32,
}

impl Health {
    /// An origin nobody has checked counts as up: a node that has just started must not answer 502.
    pub fn new(fall: u32, rise: u32) -> Self {
        Self { fall, rise, up: true, against: 0 }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    /// From the start of the last check to the start of the next, or to the end of the last where that is later: half the
    /// interval once a check has spoken against what is known, so that it is soon known whether it is so.
    ///
    /// With the defaults one that hangs is down 1.7 s after its last good check began: 500 ms, and three checks of 400 ms.
    pub fn pause(&self, interval: Duration) -> Duration {
        if self.against > 0 { interval / 2 } else { interval }
    }

    /// Takes the result of a check. True: up has become down, or down up.
    pub fn checked(&mut self, passed: bool) -> bool {
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if self.up { self.fall } else { self.rise };
        if self.against < needed {
            return false;
        }
        self.up = passed;
        self.against = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_decide() {
        for (name, checks, expected) in [
            ("two failures do nothing", "--", "uu"),
            ("three do", "---", "uud"),
            ("one pass begins anew", "--+--", "uuuuu"),
            ("one pass does not bring it back", "---+", "uudd"),
            ("two do", "---++", "uuddu"),
            ("not in a row", "---+-+", "uudddd"),
            ("up stays up", "++++", "uuuu"),
        ] {
            let mut health = Health::new(3, 2);
            let mut seen = String::new();
            for check in checks.chars() {
                let before = health.is_up();
                let changed = health.checked(check == '+');
                assert_eq!(changed, before != health.is_up(), "{name}");
                seen.push(if health.is_up() { 'u' } else { 'd' });
            }
            assert_eq!(seen, expected, "{name}");
        }
    }

    #[test]
    fn one_in_doubt_is_checked_sooner() {
        for (name, checks, expected) in [
            ("well", "+", "1"),
            ("until it is down", "---", "221"),
            ("and down", "----", "2211"),
            ("until it is up", "---++", "22121"),
            ("not in a row", "-+-+", "2121"),
        ] {
            let mut health = Health::new(3, 2);
            let mut seen = String::new();
            for check in checks.chars() {
                health.checked(check == '+');
                seen.push(if health.pause(Duration::from_secs(2)) == Duration::from_secs(1) { '2' } else { '1' });
            }
            assert_eq!(seen, expected, "{name}");
        }
    }
}
