//! A block of field lines, read in place.
//!
//! Requests and stored responses are both kept as the bytes of zero or more `name: value\r\n` lines. The gate has
//! checked their form; this reader is tolerant all the same and never panics: a line without a colon is skipped.

use memchr::{memchr, memchr2};

/// The field lines of one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a>(&'a [u8]);

/// One field line; the value has lost the optional whitespace around it (RFC 9110 section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The field name as it was sent.
    pub name: &'a [u8],
    /// The field value without leading and trailing whitespace.
    pub value: &'a [u8],
}

impl Line<'_> {
    /// Whether this line carries the field `name`, whatever its case.
    pub fn is(&self, name: &str) -> bool {
        same_name(self.name, name.as_bytes())
    }

    /// Appends this line as `name: value\r\n`.
    pub fn write(&self, out: &mut Vec<u8>) {
        for part in [self.name, b": ", self.value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

impl<'a> Fields<'a> {
    /// Reads `bytes` as field lines, without the start line and without the empty line that ends them.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes as they were given.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Every field line in order.
    pub fn lines(self) -> impl Iterator<Item = Line<'a>> + Clone {
        Lines(self.0)
    }

    /// The values of every line named `name`, in order.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.lines().filter(move |line| line.is(name)).map(|line| line.value)
    }

    /// The value of the first line named `name`.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The value of the line named `name` when there is exactly one.
    pub fn only(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Whether any line is named `name`.
    pub fn contains(self, name: &str) -> bool {
        self.contains_bytes(name.as_bytes())
    }

    /// As [`Fields::contains`], for a name that came off the wire.
    pub fn contains_bytes(self, name: &[u8]) -> bool {
        self.lines().any(|line| same_name(line.name, name))
    }

    /// The members of a comma separated list spread over every line named `name` (RFC 9110 section 5.6.1).
    ///
    /// Members are trimmed and empty ones dropped. A comma inside a quoted string does not separate.
    pub fn members(self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.values(name).flat_map(members)
    }
}

/// The members of one comma separated list; see [`Fields::members`].
///
/// A quote that is never closed is an ordinary character, so it cannot hide the directives behind it.
pub fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    Separated { rest: Some(list), separator: b',', quotes: true }.filter(|member| !member.is_empty())
}

/// The parameters behind the first `;` of a list member, and the first part itself; parts are trimmed.
pub(super) fn parameters(member: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    Separated { rest: Some(member), separator: b';', quotes: true }
}

/// Whether two field names are the same; their case does not matter (RFC 9110 section 5.1).
pub fn same_name(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.eq_ignore_ascii_case(right)
}

/// Removes optional whitespace, spaces and tabs, from both ends (RFC 9110 section 5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[derive(Clone)]
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        while !self.0.is_empty() {
            let end = memchr(b'\n', self.0);
            let (line, rest) = self.0.split_at(end.map_or(self.0.len(), |end| end + 1));
            self.0 = rest;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(colon) = memchr(b':', line) {
                let (name, value) = line.split_at(colon);
                return Some(Line { name, value: trim(value.get(1..).unwrap_or_default()) });
            }
        }
        None
    }
}

#[derive(Clone)]
struct Separated<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
    /// False once a quote was found that is never closed: from there on quotes mean nothing. It also keeps the
    /// search for closing quotes linear.
    quotes: bool,
}

impl<'a> Iterator for Separated<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut at = 0;
        while let Some(tail) = rest.get(at..) {
            let found = if self.quotes { memchr2(b'"', self.separator, tail) } else { memchr(self.separator, tail) };
            let Some(found) = found else { break };
            at += found;
            if tail.get(found) == Some(&self.separator) {
                self.rest = rest.get(at + 1..);
                return Some(trim(rest.get(..at).unwrap_or_default()));
            }
            match quoted_length(rest.get(at..).unwrap_or_default()) {
                Some(length) => at += length,
                None => {
                    self.quotes = false;
                    at += 1;
                }
            }
        }
        Some(trim(rest))
    }
}

/// The length of the quoted string at the start of `text`, quotes included; none when it is not closed.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        match text.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, block: &str, expected: &[&str]) {
        let found: Vec<_> = Fields::new(block.as_bytes()).members("list").map(String::from_utf8_lossy).collect();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn list_members() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("9110 5.6.1: one line", "List: a, b\r\n", &["a", "b"]),
            ("9110 5.3: lines combine, names fold case", "LIST: a\r\nother: x\r\nlist:b\r\n", &["a", "b"]),
            ("9110 5.6.1.2: empty members go", "list: ,a,, ,\tb ,\r\nlist:\r\n", &["a", "b"]),
            ("9110 5.6.4: quoted commas stay", "list: a=\"1,2\", b\r\n", &["a=\"1,2\"", "b"]),
            ("9110 5.6.4: an escaped quote stays", "list: \"a\\\",b\",c\r\n", &["\"a\\\",b\"", "c"]),
            ("an open quote hides nothing", "list: a=\"1, no-store\r\n", &["a=\"1", "no-store"]),
            ("nor on the next line", "list: a=\"1\r\nlist: b\"\r\n", &["a=\"1", "b\""]),
            ("a bare line feed ends a line", "list: a\nlist: b", &["a", "b"]),
            ("no colon, no line", "list\r\n: x\r\nlist: a\r\n", &["a"]),
            ("a longer name is another", "list2: a\r\nlis: b\r\n", &[]),
        ];
        for (name, block, expected) in rows {
            check(name, block, expected);
        }
    }

    #[test]
    fn only_wants_exactly_one() {
        assert_eq!(Fields::new(b"a: 1\r\n").only("A"), Some(&b"1"[..]));
        assert_eq!(Fields::new(b"a: 1\r\na: 2\r\n").only("a"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let fields = Fields::new(&bytes);
            for line in fields.lines() {
                prop_assert!(members(line.value).all(|member| !member.is_empty()));
                parameters(line.value).count();
            }
        }

        #[test]
        fn written_lines_read_back(lines in prop::collection::vec(("[a-z-]{1,8}", "([!-~][ -~]{0,9}[!-~])?"), 0..8)) {
            let mut block = Vec::new();
            for (name, value) in &lines {
                Line { name: name.as_bytes(), value: value.as_bytes() }.write(&mut block);
            }
            let read: Vec<_> = Fields::new(&block).lines().map(|line| (line.name, line.value)).collect();
            let sent: Vec<_> = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(read, sent);
        }
    }
}
