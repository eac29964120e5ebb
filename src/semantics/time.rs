//! Instants and durations with their units.

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The instant `seconds` after the Unix epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the Unix epoch, rounded down: the resolution of an HTTP date.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds from `earlier` to here; zero when `earlier` is later.
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A `delta-seconds` of RFC 9111 section 1.2.2: whole seconds, at most [`DeltaSeconds::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaSeconds(pub u32);

impl DeltaSeconds {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// RFC 9111 section 1.2.2: the value a recipient uses for anything greater than it can represent.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// Reads digits, and nothing but digits, saturating at [`DeltaSeconds::MAX`].
    ///
    /// RFC 9111 section 5.2: recipients ought to accept the quoted form too, so `"60"` in double quotes is 60.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let digits = match value {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        if digits.is_empty() {
            return None;
        }
        let mut seconds: u32 = 0;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            seconds = seconds.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        }
        Some(Self::saturating(u64::from(seconds)))
    }

    /// `seconds`, or [`DeltaSeconds::MAX`] when there are more.
    pub const fn saturating(seconds: u64) -> Self {
        if seconds > Self::MAX.0 as u64 { Self::MAX } else { Self(seconds as u32) }
    }

    /// The same span in milliseconds; it cannot overflow.
    pub const fn as_ms(self) -> u64 {
        self.0 as u64 * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(section: &str, value: &str, expected: Option<u32>) {
        let parsed = DeltaSeconds::parse(value.as_bytes()).map(|seconds| seconds.0);
        assert_eq!(parsed, expected, "{section}: {value:?}");
    }

    #[test]
    fn delta_seconds() {
        let rows = [
            ("9111 1.2.2", "0", Some(0)),
            ("9111 1.2.2", "003600", Some(3600)),
            ("9111 1.2.2", "2147483647", Some(2_147_483_647)),
            ("9111 1.2.2", "2147483648", Some(2_147_483_647)),
            ("9111 1.2.2", "99999999999999999999999", Some(2_147_483_647)),
            ("9111 5.2", "\"3600\"", Some(3600)),
            ("9111 5.2", "\"3600", None),
            ("9111 5.2", "'3600'", None),
            ("9111 5.2", "\"\"", None),
            ("9111 5.2", "\"", None),
            ("9111 1.2.2", "", None),
            ("9111 1.2.2", "-1", None),
            ("9111 1.2.2", "+1", None),
            ("9111 1.2.2", "60.0", None),
            ("9111 1.2.2", " 60", None),
            ("9111 1.2.2", "6a", None),
        ];
        for (section, value, expected) in rows {
            check(section, value, expected);
        }
    }

    #[test]
    fn since_never_goes_below_zero() {
        assert_eq!(UnixMs(5).since_ms(UnixMs(9)), 0);
        assert_eq!(UnixMs(9).since_ms(UnixMs(5)), 4);
    }

    proptest! {
        #[test]
        fn numbers_read_back_saturated(number in any::<u64>(), zeros in 0..20_usize) {
            let digits = format!("{}{number}", "0".repeat(zeros));
            prop_assert_eq!(DeltaSeconds::parse(digits.as_bytes()), Some(DeltaSeconds::saturating(number)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..12)) {
            prop_assert!(DeltaSeconds::parse(&value).is_none_or(|seconds| seconds <= DeltaSeconds::MAX));
        }
    }
}
