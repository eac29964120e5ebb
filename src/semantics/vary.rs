//! Which of several stored responses a request selects (RFC 9111 section 4.1).

use std::ops::Range;

use super::cache_key::write_part;
use super::fields::{Fields, parameters, same_name, trim};

/// The most field names a variant is selected by. Real responses name five or fewer; a longer list makes every request
/// a variant of its own, which is what `*` says.
pub const NAMES_MAX: usize = 16;

/// The most members that are put in order; a longer list is taken as it comes, and may then miss.
const SORTED_MEMBERS_MAX: usize = 32;

/// What a response says about its selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// It is the answer to every request for its URI.
    No,
    /// It is the answer to one request only: `*`, or more than [`NAMES_MAX`] names.
    Any,
    /// It is the answer to requests that agree in these fields: names in lower case, sorted, each once.
    On(Vec<Box<str>>),
}

impl Vary {
    /// Reads a response's `Vary`.
    pub fn of(response: Fields<'_>) -> Self {
        let mut names: Vec<Box<str>> = Vec::new();
        for member in response.members("vary") {
            // A name that is not even text is no field's, so no request can be known to match it.
            let Ok(name) = std::str::from_utf8(member) else { return Self::Any };
            if name == "*" {
                return Self::Any;
            }
            let name = name.to_ascii_lowercase();
            if let Err(place) = names.binary_search_by(|known| (**known).cmp(&name)) {
                if names.len() == NAMES_MAX {
                    return Self::Any;
                }
                names.insert(place, name.into_boxed_str());
            }
        }
        if names.is_empty() { Self::No } else { Self::On(names) }
    }
}

/// Appends what a request has in the fields `names`, so that two requests have the same bytes exactly when the one
/// may be given what was stored for the other.
///
/// RFC 9111 section 4.1 lets a cache normalise what does not change the meaning. Every value is read as a list: many
/// lines are one joined line, whitespace around members is nothing. `Accept`, `Accept-Language` and `Accept-Encoding`
/// are sets, so order, case and the spelling of weights go too. An absent field differs from an empty one.
pub fn selecting_key<'n>(names: impl IntoIterator<Item = &'n str>, request: Fields<'_>, out: &mut Vec<u8>) {
    for name in names {
        write_part(name.as_bytes(), out);
        if !request.contains(name) {
            out.push(0);
            continue;
        }
        out.push(1);
        // The members' bytes carry no count, so this length closes them off from the next name.
        let length_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let start = out.len();
        if same_name(name.as_bytes(), b"accept") {
            write_set(request, name, write_media_range, out);
        } else if same_name(name.as_bytes(), b"accept-language") || same_name(name.as_bytes(), b"accept-encoding") {
            write_set(request, name, write_token, out);
        } else {
            request.members(name).for_each(|member| write_part(member, out));
        }
        let length = ((out.len() - start) as u64).to_le_bytes();
        if let Some(place) = out.get_mut(length_at..start) {
            place.copy_from_slice(&length);
        }
    }
}

/// Whether a field that selects is the one about languages.
pub fn is_language(name: &str) -> bool {
    name.eq_ignore_ascii_case("accept-language")
}

/// The one language a client likes best, in lower case; none where it likes several the same, or whatever there is.
pub fn preferred_language(request: Fields<'_>) -> Option<Vec<u8>> {
    let (mut best, mut tied) = (None::<(u16, &[u8])>, false);
    for member in request.members("accept-language") {
        let mut parts = parameters(member);
        let range = parts.next()?;
        let weight = match parts.next() {
            None => 1000,
            // What is no weight makes the whole member something nobody knows.
            Some(parameter) => weight(parameter)?,
        };
        match best {
            Some((most, _)) if weight < most => {}
            Some((most, _)) if weight == most => tied = true,
            _ => (best, tied) = (Some((weight, range)), false),
        }
    }
    let (weight, range) = best.filter(|_| !tied)?;
    (weight > 0 && range != b"*").then(|| range.to_ascii_lowercase())
}

/// The one language a response is in, in lower case.
pub fn content_language(response: Fields<'_>) -> Option<Vec<u8>> {
    let mut members = response.members("content-language");
    let language = members.next()?;
    members.next().is_none().then(|| language.to_ascii_lowercase())
}

/// Writes the members of a list that is a set, sorted and each once. Members are first written as they come, then
/// copied in order behind that, so that the caller's buffer is all the memory it takes.
fn write_set(request: Fields<'_>, name: &str, write_member: fn(&[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
    let start = out.len();
    let mut spans: [Range<usize>; SORTED_MEMBERS_MAX] = [const { 0..0 }; SORTED_MEMBERS_MAX];
    let mut count = 0;
    for member in request.members(name) {
        let from = out.len();
        let length_at = out.len();
        out.extend_from_slice(&[0; 8]);
        write_member(member, out);
        let length = ((out.len() - length_at - 8) as u64).to_le_bytes();
        if let Some(place) = out.get_mut(length_at..length_at + 8) {
            place.copy_from_slice(&length);
        }
        if let Some(span) = spans.get_mut(count) {
            *span = from..out.len();
        }
        count += 1;
    }
    let Some(spans) = spans.get_mut(..count) else { return };
    spans.sort_unstable_by(|left, right| out.get(left.clone()).cmp(&out.get(right.clone())));
    let sorted_from = out.len();
    let mut previous: Option<Range<usize>> = None;
    for span in spans {
        if previous.as_ref().and_then(|previous| out.get(previous.clone())) != out.get(span.clone()) {
            out.extend_from_within(span.clone());
        }
        previous = Some(span.clone());
    }
    out.drain(start..sorted_from);
}

/// A language range or a content coding: case does not matter (RFC 9110 sections 8.4.1 and 12.5.4).
fn write_token(member: &[u8], out: &mut Vec<u8>) {
    write_member(member, |_, value, out| out.extend(folded(value)), out);
}

/// A media range: type, subtype and parameter names fold case, parameter values may not (RFC 9110 section 8.3.1).
fn write_media_range(member: &[u8], out: &mut Vec<u8>) {
    write_member(
        member,
        |is_parameter, value, out| {
            let end = if is_parameter { memchr::memchr(b'=', value).unwrap_or(value.len()) } else { value.len() };
            let (name, rest) = value.split_at_checked(end).unwrap_or((value, b""));
            out.extend(folded(name));
            out.extend_from_slice(rest);
        },
        out,
    );
}

fn write_member(member: &[u8], write: fn(bool, &[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
    for (index, part) in parameters(member).enumerate() {
        match weight(part).filter(|_| index > 0) {
            // RFC 9110 section 12.4.2: no weight means 1.
            Some(1000) => {}
            Some(thousandths) => {
                // No value holds a line feed, so this is no other parameter's spelling.
                out.extend_from_slice(b"\nq=");
                out.extend_from_slice(itoa::Buffer::new().format(thousandths).as_bytes());
            }
            None => {
                if index > 0 {
                    out.push(b';');
                }
                write(index > 0, part, out);
            }
        }
    }
}

/// The weight in thousandths; none when the parameter is not a weight or not a valid one.
fn weight(parameter: &[u8]) -> Option<u16> {
    let equals = memchr::memchr(b'=', parameter)?;
    let (name, value) = (parameter.get(..equals)?, trim(parameter.get(equals + 1..)?));
    if !same_name(trim(name), b"q") {
        return None;
    }
    let (whole, fraction) = match value {
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        [whole] => (*whole, &b""[..]),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, unit) in fraction.iter().zip([100, 10, 1]) {
        digit.is_ascii_digit().then_some(())?;
        thousandths += u16::from(digit - b'0') * unit;
    }
    (thousandths <= 1000).then_some(thousandths)
}

fn folded(value: &[u8]) -> impl Iterator<Item = u8> {
    value.iter().map(u8::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_names(name: &str, block: &str, expected: Option<&[&str]>) {
        let expected = match expected {
            None => Vary::Any,
            Some([]) => Vary::No,
            Some(names) => Vary::On(names.iter().map(|name| Box::from(*name)).collect()),
        };
        assert_eq!(Vary::of(Fields::new(block.as_bytes())), expected, "{name}: {block:?}");
    }

    #[test]
    fn names() {
        let numbered = |count: usize| (0..count).map(|number| format!("vary: a{number}\r\n")).collect::<String>();
        check_names("absent", "accept: a\r\n", Some(&[]));
        check_names("9110 12.5.5: folded, sorted, once", "Vary: Foo, bar\r\nvary: foo\r\n", Some(&["bar", "foo"]));
        check_names("9111 4.1: *", "Vary: *\r\n", None);
        check_names("9111 4.1: among others", "Vary: foo, *\r\n", None);
        check_names("9111 4.1: behind nothing", "Vary:\r\nVary: , *\r\n", None);
        check_names("empty", "Vary: ,\r\n", Some(&[]));
        check_names("too many", &numbered(NAMES_MAX + 1), None);
        assert!(matches!(Vary::of(Fields::new(numbered(NAMES_MAX).as_bytes())), Vary::On(_)));
    }

    fn key(names: &[&str], block: &str) -> Vec<u8> {
        let mut key = Vec::new();
        selecting_key(names.iter().copied(), Fields::new(block.as_bytes()), &mut key);
        key
    }

    #[track_caller]
    fn check(name: &str, names: &[&str], one: &str, other: &str, is_same: bool) {
        assert_eq!(key(names, one) == key(names, other), is_same, "{name}: {names:?} {one:?} {other:?}");
    }

    #[test]
    fn selection() {
        let long: String = (0..40).map(|number| format!("a{number},")).collect();
        let long = format!("accept: {long}\r\n");
        let rows: &[(&str, &[&str], &str, &str, bool)] = &[
            ("4.1: same", &["foo"], "foo: 1\r\nx: 1\r\n", "Foo: 1\r\nx: 2\r\n", true),
            ("4.1: other", &["foo"], "foo: 1\r\n", "foo: 2\r\n", false),
            ("4.1: both absent", &["bar", "foo"], "foo: 1\r\n", "foo: 1\r\n", true),
            ("4.1: one absent", &["foo"], "", "foo: 1\r\n", false),
            ("absent is not empty", &["foo"], "", "foo:\r\n", false),
            ("4.1: lines join", &["foo"], "foo: 1\r\nfoo: 2\r\n", "foo: 1, 2\r\n", true),
            ("4.1: whitespace", &["foo"], "foo: 1,2\r\n", "foo:  1 , 2 \r\n", true),
            ("order may matter", &["foo"], "foo: 1, 2\r\n", "foo: 2, 1\r\n", false),
            ("case may matter", &["foo"], "foo: a\r\n", "foo: A\r\n", false),
            ("values do not wander", &["a", "b"], "a: x\r\nb: y\r\n", "a: x, y\r\nb:\r\n", false),
            (
                "9110 12.5.4: order",
                &["accept-language"],
                "accept-language: en, de\r\n",
                "accept-language: de,en\r\n",
                true,
            ),
            (
                "9110 12.5.4: case",
                &["accept-language"],
                "accept-language: en, de\r\n",
                "accept-language: eN, De\r\n",
                true,
            ),
            (
                "9110 12.4.2: weights",
                &["accept-language"],
                { "accept-language: en;q=0.50, de;q=1.0\r\n" },
                "accept-language: de, en ; Q=.5, en;q=0.5\r\n",
                false,
            ),
            (
                "9110 12.4.2: weights",
                &["accept-language"],
                { "accept-language: en;q=0.50, de;q=1.0\r\n" },
                "accept-language: de, en ; Q=0.5, en;q=0.5\r\n",
                true,
            ),
            (
                "9110 12.4.2: other weights",
                &["accept-encoding"],
                { "accept-encoding: gzip, br;q=0\r\n" },
                "accept-encoding: gzip, br\r\n",
                false,
            ),
            (
                "an invalid weight is no weight",
                &["accept-encoding"],
                { "accept-encoding: br;q=0.5\r\n" },
                "accept-encoding: br;q=500\r\n",
                false,
            ),
            (
                "9110 12.5.1: type folds case",
                &["accept"],
                "accept: Text/HTML;Level=1\r\n",
                "accept: text/html; level=1\r\n",
                true,
            ),
            ("9110 8.3.1: a value may not", &["accept"], "accept: a/b;c=D\r\n", "accept: a/b;c=d\r\n", false),
            ("a long list is kept as it is", &["accept"], &long, &long, true),
            (
                "one coding is not its prefix",
                &["accept-encoding"],
                "accept-encoding: gzip\r\n",
                "accept-encoding: g, zip\r\n",
                false,
            ),
        ];
        for (name, names, one, other, is_same) in rows {
            check(name, names, one, other, *is_same);
        }
    }

    #[test]
    fn languages() {
        for (name, block, expected) in [
            ("12.5.4: one", "accept-language: de\r\n", Some("de")),
            ("case", "accept-language: DE-at\r\n", Some("de-at")),
            ("12.4.2: the heaviest", "accept-language: fr;q=0.5, de;q=1.0\r\n", Some("de")),
            ("in any order", "accept-language: de, fr;q=0.5\r\n", Some("de")),
            ("many lines", "accept-language: fr;q=0.5\r\naccept-language: de\r\n", Some("de")),
            ("two that weigh the same", "accept-language: en, de\r\n", None),
            ("whatever there is", "accept-language: *\r\n", None),
            ("anything but it", "accept-language: de;q=0\r\n", None),
            ("not a weight", "accept-language: de;x=1\r\n", None),
            ("none", "", None),
        ] {
            let language = preferred_language(Fields::new(block.as_bytes()));
            assert_eq!(language.as_deref(), expected.map(str::as_bytes), "{name}: {block}");
        }
        for (block, expected) in
            [("content-language: De\r\n", Some("de")), ("content-language: de, en\r\n", None), ("", None)]
        {
            let language = content_language(Fields::new(block.as_bytes()));
            assert_eq!(language.as_deref(), expected.map(str::as_bytes), "{block}");
        }
    }

    proptest! {
        #[test]
        fn unknown_fields_are_injective(
            one in prop::collection::vec(prop::option::of(prop::collection::vec("[ab]{1,2}", 0..3)), 3),
            other in prop::collection::vec(prop::option::of(prop::collection::vec("[ab]{1,2}", 0..3)), 3),
        ) {
            let block = |values: &[Option<Vec<String>>]| -> String {
                ["x", "y", "z"].iter().zip(values)
                    .filter_map(|(name, value)| Some(format!("{name}: {}\r\n", value.as_ref()?.join(","))))
                    .collect()
            };
            let keys = [&one, &other].map(|values| key(&["x", "y", "z"], &block(values)));
            prop_assert_eq!(one == other, keys[0] == keys[1]);
        }

        #[test]
        fn sets_have_no_order(mut members in prop::collection::vec("[a-c]{1,2}(;q=0\\.[0-9])?", 0..6)) {
            let one = key(&["accept-encoding"], &format!("accept-encoding: {}\r\n", members.join(", ")));
            members.reverse();
            members.extend(members.first().cloned());
            prop_assert_eq!(one, key(&["accept-encoding"], &format!("accept-encoding: {}\r\n", members.join(","))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let block = [b"accept: ", &value[..], b"\r\nvary: ", &value[..]].concat();
            selecting_key(["accept", "vary"], Fields::new(&block), &mut Vec::new());
            Vary::of(Fields::new(&block));
        }

        #[test]
        fn lines_say_what_they_say_joined(
            lines in prop::collection::vec("(([A-Ca-c]{1,2}|\\*|)[ ,]{1,2}){0,4}", 1..4),
        ) {
            let block = |field: &str| lines.iter().map(|line| format!("{field}: {line}\r\n")).collect::<String>();
            let joined = |field: &str| format!("{field}: {}\r\n", lines.join(", "));
            let vary = |block: String| Vary::of(Fields::new(block.as_bytes()));
            prop_assert_eq!(vary(block("vary")), vary(joined("vary")));
            for field in ["accept", "accept-encoding", "x"] {
                prop_assert_eq!(key(&[field], &block(field)), key(&[field], &joined(field)));
            }
        }
    }
}
