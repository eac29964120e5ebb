//! Structured Fields (RFC 8941 section 4.2), read strictly: any deviation refuses the whole field.

use std::borrow::Cow;

use super::fields::Fields;

/// The value of one dictionary member; parameters are checked for form and forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Boolean(bool),
    /// As it was written: an optional minus and one to fifteen digits.
    Integer(&'a [u8]),
    /// As it was written, with its quotes and escapes.
    String(&'a [u8]),
    /// As it was written, with its parentheses; its items have parsed.
    InnerList(&'a [u8]),
    /// A decimal, a token or a byte sequence: types that nothing we read has.
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
        input.separator()?;
    }
    Some(members)
}

/// Reads the field `name` as a list of strings (section 4.2.1), without quotes and escapes; none when there is no such
/// field or it is anything else. Parameters are checked for form and forgotten.
pub(super) fn list_of_strings<'a>(fields: Fields<'a>, name: &str) -> Option<Vec<Cow<'a, [u8]>>> {
    match joined(fields, name)? {
        Cow::Borrowed(text) => strings(text),
        Cow::Owned(text) => Some(strings(&text)?.into_iter().map(|string| Cow::Owned(string.into_owned())).collect()),
    }
}

/// The value of the field `name`; none when there is no such line. Section 4.2: many lines are joined before they are
/// read.
pub(super) fn joined<'a>(fields: Fields<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut values = fields.values(name);
    let mut text = Cow::Borrowed(values.next()?);
    for value in values {
        let joined = text.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value);
    }
    Some(text)
}

fn strings(text: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut members = Vec::new();
    let mut input = Input(text);
    input.discard(b" ");
    while !input.0.is_empty() {
        members.push(input.item_or_inner_list()?.string()?);
        input.parameters()?;
        input.separator()?;
    }
    Some(members)
}

impl<'a> Value<'a> {
    /// The strings of an inner list, without quotes and escapes; none when it is, or holds, something else.
    pub(super) fn strings(self) -> Option<Vec<Cow<'a, [u8]>>> {
        let Value::InnerList(written) = self else { return None };
        let mut items = Vec::new();
        Input(written.strip_prefix(b"(")?).items(|item| items.push(item))?;
        items.into_iter().map(Value::string).collect()
    }

    /// The characters of a string; none when it is something else.
    fn string(self) -> Option<Cow<'a, [u8]>> {
        let Value::String(written) = self else { return None };
        let inner = written.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !inner.contains(&b'\\') {
            return Some(Cow::Borrowed(inner));
        }
        let mut bytes = inner.iter().copied();
        let unescaped =
            std::iter::from_fn(|| bytes.next().and_then(|byte| if byte == b'\\' { bytes.next() } else { Some(byte) }));
        Some(Cow::Owned(unescaped.collect()))
    }
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

    /// What is between two members, or nothing at the end. A trailing comma is an error.
    fn separator(&mut self) -> Option<()> {
        self.discard(b" \t");
        if !self.0.is_empty() {
            self.skip(b',').then_some(())?;
            self.discard(b" \t");
            self.0.first()?;
        }
        Some(())
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
        let start = self.0;
        if !self.skip(b'(') {
            return self.bare_item();
        }
        self.items(|_| {})?;
        start.get(..start.len() - self.0.len()).map(Value::InnerList)
    }

    /// The items of an inner list and the parenthesis that closes it.
    fn items(&mut self, mut found: impl FnMut(Value<'a>)) -> Option<()> {
        loop {
            self.discard(b" ");
            if self.skip(b')') {
                return Some(());
            }
            found(self.bare_item()?);
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
            ("8941 3.1.1: inner lists", r#"a=( "x" 1;q );y, b=()"#, {
                Some(&[("a", Value::InnerList(br#"( "x" 1;q )"#)), ("b", Value::InnerList(b"()"))])
            }),
            ("other types", "a=tok/en, b=1.5, c=:aGk=:", {
                Some(&[("a", Value::Other), ("b", Value::Other), ("c", Value::Other)])
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

    #[track_caller]
    fn check_list(name: &str, block: &str, expected: Option<&[&str]>) {
        let found = list_of_strings(Fields::new(block.as_bytes()), "list");
        let found: Option<Vec<_>> =
            found.map(|strings| strings.iter().map(|string| String::from_utf8_lossy(string).into_owned()).collect());
        let expected: Option<Vec<_>> =
            expected.map(|strings| strings.iter().map(|string| (*string).to_owned()).collect());
        assert_eq!(found, expected, "{name}: {block:?}");
    }

    #[test]
    fn lists_of_strings() {
        let rows: &[(&str, &str, Option<&[&str]>)] = &[
            ("absent", "other: \"a\"\r\n", None),
            ("8941 3.1: empty", "list:\r\n", Some(&[])),
            ("8941 3.1: strings", "list: \"a\" ,\t\"b c\",\"\"\r\n", Some(&["a", "b c", ""])),
            ("8941 3.1: each as often as it is there", "list: \"a\", \"a\"\r\n", Some(&["a", "a"])),
            ("8941 3.1: lines join", "List: \"a\"\r\nlist: \"b\\\"\", \"c\"\r\n", Some(&["a", "b\"", "c"])),
            ("8941 3.3.3: escapes", r#"list: "\\\"a\\""#, Some(&[r#"\"a\"#])),
            ("8941 3.3.3: a comma in a string", "list: \"a, b\"\r\n", Some(&["a, b"])),
            ("8941 3.1.2: parameters", "list: \"a\";x;y=1; z=\"q,\", \"b\"\r\n", Some(&["a", "b"])),
            ("8941 4.2.1: a trailing comma", "list: \"a\",\r\n", None),
            ("8941 4.2.1: an empty line is an empty member", "list: \"a\"\r\nlist:\r\n", None),
            ("8941 4.2.1: no comma", "list: \"a\" \"b\"\r\n", None),
            ("a token", "list: a\r\n", None),
            ("an inner list", "list: (\"a\" \"b\")\r\n", None),
            ("one of another type", "list: \"a\", 1\r\n", None),
            ("a bad parameter", "list: \"a\";X\r\n", None),
            ("an open string", "list: \"a\r\n", None),
            ("no ASCII", "list: \"é\"\r\n", None),
        ];
        for (name, block, expected) in rows {
            check_list(name, block, *expected);
        }
    }

    type Strings<'a> = Option<&'a [&'a [u8]]>;

    #[track_caller]
    fn check_strings(name: &str, value: Value<'_>, expected: Strings<'_>) {
        let found = value.strings();
        let found: Option<Vec<&[u8]>> = found.as_ref().map(|strings| strings.iter().map(AsRef::as_ref).collect());
        assert_eq!(found.as_deref(), expected, "{name}: {value:?}");
    }

    #[test]
    fn strings_of_inner_lists() {
        let rows: &[(&str, Value<'_>, Strings<'_>)] = &[
            ("8941 3.1.1: none", Value::InnerList(b"(  )"), Some(&[])),
            ("8941 3.1.1: strings", Value::InnerList(br#"("a";q=1  "b\"" "")"#), Some(&[b"a", b"b\"", b""])),
            ("a token among them", Value::InnerList(br#"("a" b)"#), None),
            ("no list", Value::String(br#""a""#), None),
            ("no list", Value::Boolean(true), None),
        ];
        for (name, value, expected) in rows {
            check_strings(name, *value, *expected);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a-c*=;,?:()\"\\\\ \t0-9.\u{0}é-]{0,40}") {
            for (_, value) in dictionary(text.as_bytes()).unwrap_or_default() {
                let is_list = matches!(value, Value::InnerList(_));
                prop_assert!(value.strings().is_none() || is_list);
            }
            strings(text.as_bytes());
        }

        #[test]
        fn written_strings_read_back(sent in prop::collection::vec("[ -~]{0,6}", 0..5)) {
            let quoted = |string: &String| format!("\"{}\"", string.replace('\\', r"\\").replace('"', "\\\""));
            let text = sent.iter().map(quoted).collect::<Vec<_>>().join(",");
            let sent: Vec<Cow<'_, [u8]>> = sent.iter().map(|string| Cow::Borrowed(string.as_bytes())).collect();
            prop_assert_eq!(strings(text.as_bytes()), Some(sent));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            dictionary(&bytes);
            strings(&bytes);
            dictionary(&[b"a=(\"", &bytes[..]].concat());
            strings(&[b"\"", &bytes[..], b"\""].concat());
        }
    }
}
