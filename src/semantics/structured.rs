//! Structured Field dictionaries (RFC 8941 section 4.2.2), read strictly: any deviation refuses the whole field.

/// The value of one dictionary member; parameters are checked for form and forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Boolean(bool),
    /// As it was written: an optional minus and one to fifteen digits.
    Integer(&'a [u8]),
    /// As it was written, with its quotes and escapes.
    String(&'a [u8]),
    /// A decimal, a token, a byte sequence or an inner list: types no cache directive we know has.
    Other,
}

/// RFC 8941 section 3.2 has parsers take so many. Keys are found by looking at each, so that the work grows with the
/// square of their number: half a million comparisons, and 115 million for what a response's head could hold.
const MEMBERS_MAX: usize = 1024;

/// Reads a whole dictionary of at most [`MEMBERS_MAX`] members; none when it is not one. Of members with the same key the
/// last one stands.
pub(super) fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Value<'_>)>> {
    let mut members: Vec<(&[u8], Value<'_>)> = Vec::new();
    let mut room = MEMBERS_MAX;
    let mut input = Input(text);
    input.discard(b" ");
    while !input.0.is_empty() {
        room = room.checked_sub(1)?;
        let key = input.key()?;
        let value = if input.skip(b'=') { input.item_or_inner_list()? } else { Value::Boolean(true) };
        input.parameters()?;
        match members.iter_mut().find(|(known, _)| *known == key) {
            Some(member) => member.1 = value,
            None => members.push((key, value)),
        }
        input.discard(b" \t");
        if !input.0.is_empty() {
            input.skip(b',').then_some(())?;
            input.discard(b" \t");
            // A trailing comma is an error.
            input.0.first()?;
        }
    }
    Some(members)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn skip(&mut self, byte: u8) -> bool {
        let Some(rest) = self.0.strip_prefix(&[byte]) else { return false };
        self.0 = rest;
        true
    }

    fn discard(&mut self, blanks: &[u8]) {
        self.take_while(|byte| blanks.contains(&byte));
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !wanted(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        matches!(self.0.first()?, b'a'..=b'z' | b'*').then_some(())?;
        Some(self.take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.skip(b';') {
            self.discard(b" ");
            self.key()?;
            if self.skip(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn item_or_inner_list(&mut self) -> Option<Value<'a>> {
        if !self.skip(b'(') {
            return self.bare_item();
        }
        loop {
            self.discard(b" ");
            if self.skip(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            matches!(self.0.first()?, b' ' | b')').then_some(())?;
        }
    }

    fn bare_item(&mut self) -> Option<Value<'a>> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.skip(b'?');
                let yes = self.skip(b'1');
                (yes || self.skip(b'0')).then_some(Value::Boolean(yes))
            }
            b':' => {
                self.skip(b':');
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.skip(b':').then_some(Value::Other)
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    /// RFC 8941 section 4.2.4: fifteen digits of an integer; twelve, a point and three of a decimal.
    fn number(&mut self) -> Option<Value<'a>> {
        let start = self.0;
        self.skip(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit()).len();
        if self.skip(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit()).len();
            return ((1..=12).contains(&whole) && (1..=3).contains(&fraction)).then_some(Value::Other);
        }
        (1..=15).contains(&whole).then_some(())?;
        start.get(..start.len() - self.0.len()).map(Value::Integer)
    }

    /// RFC 8941 section 4.2.5: printable ASCII; a backslash escapes a quote or a backslash and nothing else.
    fn string(&mut self) -> Option<Value<'a>> {
        let mut at = 1;
        loop {
            match self.0.get(at)? {
                b'"' => break,
                b'\\' => {
                    matches!(self.0.get(at + 1)?, b'"' | b'\\').then_some(())?;
                    at += 2;
                }
                b' '..=b'~' => at += 1,
                _ => return None,
            }
        }
        let (string, rest) = self.0.split_at_checked(at + 1)?;
        self.0 = rest;
        Some(Value::String(string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Members<'a> = &'a [(&'a str, Value<'a>)];

    #[track_caller]
    fn check(name: &str, text: &str, expected: Option<Members<'_>>) {
        let expected: Option<Vec<_>> =
            expected.map(|members| members.iter().map(|(key, value)| (key.as_bytes(), *value)).collect());
        assert_eq!(dictionary(text.as_bytes()), expected, "{name}: {text:?}");
    }

    #[test]
    fn dictionaries() {
        let yes = Value::Boolean(true);
        let rows: &[(&str, &str, Option<Members<'_>>)] = &[
            ("8941 3.2: empty", "", Some(&[])),
            ("8941 3.2: a bare key is true", "a, b", Some(&[("a", yes), ("b", yes)])),
            ("8941 3.3.1: integers", "a=-60", Some(&[("a", Value::Integer(b"-60"))])),
            ("8941 4.2.2: the last one stands", "a=1,b,a=2", Some(&[("a", Value::Integer(b"2")), ("b", yes)])),
            ("8941 3.1.2: parameters", "a;x=1;y, b=1; z=\"q,\"", Some(&[("a", yes), ("b", Value::Integer(b"1"))])),
            ("8941 3.3.3: strings", r#"a="x\",\\""#, Some(&[("a", Value::String(br#""x\",\\""#))])),
            ("8941 3.3.6: booleans", "a=?0", Some(&[("a", Value::Boolean(false))])),
            ("other types", "a=tok/en, b=1.5, c=:aGk=:, d=(1 2;q \"x\")", {
                Some(&[("a", Value::Other), ("b", Value::Other), ("c", Value::Other), ("d", Value::Other)])
            }),
            ("8941 4.2.2: a trailing comma", "a,", None),
            ("8941 4.2.2: an empty member", "a,,b", None),
            ("8941 3.1.2: upper case key", "A=1", None),
            ("8941 4.2: no such type", "a=1, &&&&&", None),
            ("no space around the equals sign", "a =1", None),
            ("nor behind it", "a= 1", None),
            ("sixteen digits", "a=1234567890123456", None),
            ("no fraction", "a=1.", None),
            ("an open string", "a=\"x", None),
            ("a bad escape", "a=\"\\x\"", None),
            ("a control character", "a=\"\t\"", None),
            ("an open inner list", "a=(1 2", None),
            ("a bad boolean", "a=?2", None),
        ];
        for (name, text, expected) in rows {
            check(name, text, *expected);
        }
    }

    #[test]
    fn a_dictionary_has_an_end() {
        let length = |keys: Vec<String>| dictionary(keys.join(",").as_bytes()).map(|members| members.len());
        let other = |count: usize| (0..count).map(|key| format!("k{key}")).collect();
        assert_eq!((length(other(MEMBERS_MAX)), length(other(MEMBERS_MAX + 1))), (Some(MEMBERS_MAX), None));
        let same = |count: usize| vec!["k".to_owned(); count];
        assert_eq!((length(same(MEMBERS_MAX)), length(same(MEMBERS_MAX + 1))), (Some(1), None));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a-c*=;,?:()\"\\\\ \t0-9.\u{0}é-]{0,40}") {
            dictionary(text.as_bytes());
        }
    }
}
