//! `first; name=value; flag`: the form of the fields that nodes exchange. Nodes write it in one way, so it is read in
//! one way: names in one order, one space, numbers as they are written. Pure.

/// What has not been read yet.
pub(super) struct Parameters<'a>(Option<&'a str>);

impl<'a> Parameters<'a> {
    /// What stands in front of the parameters, and the parameters; none when it is no plain ASCII.
    pub(super) fn of(value: &'a [u8]) -> Option<(&'a str, Self)> {
        let text =
            std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')))?;
        Some(match text.split_once("; ") {
            Some((first, rest)) => (first, Self(Some(rest))),
            None => (text, Self(None)),
        })
    }

    /// The value of the next parameter, if that has this name.
    pub(super) fn value(&mut self, name: &str) -> Option<&'a str> {
        let (next, rest) = self.split()?;
        let value = next.strip_prefix(name)?.strip_prefix('=')?;
        self.0 = rest;
        Some(value)
    }

    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let digits = self.value(name)?;
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        if canonical { digits.parse().ok() } else { None }
    }

    /// Whether the next parameter is this name alone.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let Some((_, rest)) = self.split().filter(|(next, _)| *next == name) else { return false };
        self.0 = rest;
        true
    }

    /// Whether the next parameter has this name.
    pub(super) fn follows(&self, name: &str) -> bool {
        self.split().and_then(|(next, _)| next.strip_prefix(name)).is_some_and(|rest| rest.starts_with('='))
    }

    /// None when something was not read.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_none().then_some(())
    }

    fn split(&self) -> Option<(&'a str, Option<&'a str>)> {
        let text = self.0?;
        Some(text.split_once("; ").map_or((text, None), |(next, rest)| (next, Some(rest))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_alone() {
        type Row = (&'static str, &'static str, Option<(u64, bool)>);
        let rows: &[Row] = &[
            ("all", "a; n=7; f", Some((7, true))),
            ("no flag", "a; n=0", Some((0, false))),
            ("the largest", "a; n=18446744073709551615", Some((u64::MAX, false))),
            ("larger", "a; n=18446744073709551616", None),
            ("a zero in front", "a; n=07", None),
            ("a sign", "a; n=+7", None),
            ("no digit", "a; n=", None),
            ("no value", "a; n", None),
            ("no space", "a;n=7", None),
            ("two spaces", "a;  n=7", None),
            ("another order", "a; f; n=7", None),
            ("something more", "a; n=7; f; g", None),
            ("an end that is none", "a; n=7; ", None),
            ("twice", "a; n=7; n=7", None),
            ("no ASCII", "a; n=7; \u{e9}", None),
        ];
        for (name, text, expected) in rows {
            let read = || {
                let (first, mut rest) = Parameters::of(text.as_bytes())?;
                let found = (rest.number("n")?, rest.flag("f"));
                rest.end()?;
                Some(found).filter(|_| first == "a")
            };
            assert_eq!(read(), *expected, "{name}");
        }
    }
}
