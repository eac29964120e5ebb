//! `Cache-Control` and its kin, of responses and of requests, and the dictionaries of structured fields.

use crate::fuzz::target;

use super::super::directives::{MaxStale, RequestDirectives, ResponseDirectives, no_cache_field_names};
use super::super::fields::{Fields, members as split};
use super::super::structured::{Value, dictionary};
use super::super::time::DeltaSeconds;
use super::{block, corpus, is_closed, joined};

const UNTARGETED: &str = "cache-control";
const TARGETED: &str = "cdn-cache-control";

fn of_response(block: &[u8]) -> ResponseDirectives {
    ResponseDirectives::parse(Fields::new(block))
}

fn of_request(block: &[u8]) -> RequestDirectives {
    RequestDirectives::parse(Fields::new(block))
}

/// What two lines say together: a switch that was set stays set, and the first of two values counts.
fn both(first: ResponseDirectives, second: ResponseDirectives) -> ResponseDirectives {
    ResponseDirectives {
        targeted: false,
        no_store: first.no_store | second.no_store,
        no_cache: first.no_cache | second.no_cache,
        no_cache_fields: first.no_cache_fields | second.no_cache_fields,
        private: first.private | second.private,
        public: first.public | second.public,
        must_revalidate: first.must_revalidate | second.must_revalidate,
        proxy_revalidate: first.proxy_revalidate | second.proxy_revalidate,
        must_understand: first.must_understand | second.must_understand,
        immutable: first.immutable | second.immutable,
        s_maxage: first.s_maxage.or(second.s_maxage),
        max_age: first.max_age.or(second.max_age),
        stale_while_revalidate: first.stale_while_revalidate.or(second.stale_while_revalidate),
        stale_if_error: first.stale_if_error.or(second.stale_if_error),
        lifetime_max: None,
        stale_by_rule: false,
    }
}

#[track_caller]
fn check_bounds(seconds: &[Option<DeltaSeconds>]) {
    assert!(seconds.iter().flatten().all(|seconds| *seconds <= DeltaSeconds::MAX), "{seconds:?}");
}

#[track_caller]
fn check_names(block: &[u8]) {
    let (fields, directives) = (Fields::new(block), of_response(block));
    let ResponseDirectives { s_maxage, max_age, stale_while_revalidate, stale_if_error, .. } = directives;
    check_bounds(&[s_maxage, max_age, stale_while_revalidate, stale_if_error]);
    // A field that must not be stored has a name, or it would be stored.
    assert!(!directives.no_cache_fields || !no_cache_field_names(fields, &directives).is_empty());
}

#[test]
fn delta_seconds() {
    target("delta seconds", corpus::NUMBERS, |input| {
        let digits = match input {
            [b'"', inner @ .., b'"'] => inner,
            bare => bare,
        };
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        // The standard library refuses what is too large, where we take the greatest.
        let expected = is_number.then(|| match String::from_utf8_lossy(digits).parse() {
            Ok(seconds) => DeltaSeconds::saturating(seconds),
            Err(_) => DeltaSeconds::MAX,
        });
        assert_eq!(DeltaSeconds::parse(input), expected);
    });
}

#[test]
fn response_directives() {
    target("response directives", corpus::DIRECTIVES, |input| {
        let lines = block(UNTARGETED, input);
        let whole = of_response(&lines);
        check_names(&lines);
        if is_closed(input) {
            assert_eq!(of_response(&joined(UNTARGETED, input)), whole, "lines say what they say joined");
        }
        assert_eq!(of_response(&lines.to_ascii_uppercase()), whole, "letters fold case");
        let alone = Fields::new(&lines).members(UNTARGETED).map(|member| of_response(&block(UNTARGETED, member)));
        assert_eq!(alone.fold(ResponseDirectives::default(), both), whole, "each member says what it says alone");
        // Whoever appends a line lengthens nothing and takes nothing back.
        let appended = [&lines[..], b"cache-control: max-age=2147483647, s-maxage=2147483647, public\r\n"].concat();
        let appended = of_response(&appended);
        assert_eq!(appended.max_age, whole.max_age.or(Some(DeltaSeconds::MAX)));
        assert_eq!(appended.s_maxage, whole.s_maxage.or(Some(DeltaSeconds::MAX)));
        assert_eq!((appended.no_store, appended.private), (whole.no_store, whole.private));
    });
}

/// `CDN-Cache-Control` speaks when it is a dictionary of the right types, and then it alone; else it says nothing.
#[test]
fn targeted_directives() {
    target("targeted directives", corpus::DIRECTIVES, |input| {
        let lines = block(TARGETED, input);
        let whole = of_response(&lines);
        check_names(&lines);
        assert_eq!(of_response(&joined(TARGETED, input)), whole, "lines say what they say joined");
        let beside = [&lines[..], b"cache-control: no-store, max-age=7\r\n"].concat();
        if whole.targeted {
            assert_eq!(of_response(&beside), whole);
        } else {
            assert_eq!(whole, ResponseDirectives::default());
            assert_eq!(of_response(&beside), of_response(b"cache-control: no-store, max-age=7\r\n"));
        }
        let line = joined(TARGETED, input);
        let text = Fields::new(&line).first(TARGETED).unwrap_or_default();
        let Some(members) = dictionary(text) else { return assert!(!whole.targeted, "no dictionary, yet it speaks") };
        let value = |name: &str| members.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value);
        if whole.targeted {
            assert!(!members.is_empty());
            assert_eq!(whole.no_store, value("no-store") == Some(Value::Boolean(true)));
            let seconds = value("max-age").map(|value| match value {
                Value::Integer(digits) => DeltaSeconds::parse(digits).unwrap_or(DeltaSeconds::ZERO),
                other => panic!("max-age is {other:?}, yet it speaks"),
            });
            assert_eq!(whole.max_age, seconds);
        }
    });
}

#[test]
fn request_directives() {
    target("request directives", corpus::DIRECTIVES, |input| {
        let lines = block(UNTARGETED, input);
        let whole = of_request(&lines);
        let within = match whole.max_stale {
            Some(MaxStale::Within(limit)) => Some(limit),
            Some(MaxStale::Any) | None => None,
        };
        check_bounds(&[whole.max_age, whole.min_fresh, within]);
        if is_closed(input) {
            assert_eq!(of_request(&joined(UNTARGETED, input)), whole, "lines say what they say joined");
        }
        assert_eq!(of_request(&lines.to_ascii_uppercase()), whole, "letters fold case");
        let alone = Fields::new(&lines).members(UNTARGETED).map(|member| of_request(&block(UNTARGETED, member)));
        let alone = alone.fold(RequestDirectives::NONE, |first, second| RequestDirectives {
            no_cache: first.no_cache | second.no_cache,
            no_store: first.no_store | second.no_store,
            only_if_cached: first.only_if_cached | second.only_if_cached,
            max_age: first.max_age.or(second.max_age),
            min_fresh: first.min_fresh.or(second.min_fresh),
            max_stale: first.max_stale.or(second.max_stale),
        });
        assert_eq!(alone, whole, "each member says what it says alone");
        // RFC 9111 section 5.4: Pragma says no more than that, and nothing beside Cache-Control.
        let pragma = block("pragma", input);
        let alone = of_request(&pragma);
        assert_eq!(alone, RequestDirectives { no_cache: alone.no_cache, ..RequestDirectives::NONE });
        assert_eq!(of_request(&[&pragma[..], &lines].concat()), whole);
    });
}

/// A dictionary spelt out again: parameters are gone, and what has no type we know is some token.
fn spelt(members: &[(&[u8], Value<'_>)]) -> Vec<u8> {
    let spelt: Vec<Vec<u8>> = members
        .iter()
        .map(|(key, value)| match value {
            Value::Boolean(true) => key.to_vec(),
            Value::Boolean(false) => [key, &b"=?0"[..]].concat(),
            Value::Integer(text) | Value::String(text) | Value::InnerList(text) => [key, &b"="[..], text].concat(),
            Value::Other => [key, &b"=token"[..]].concat(),
        })
        .collect();
    spelt.join(&b", "[..])
}

#[test]
fn dictionaries() {
    target("dictionaries", corpus::DICTIONARIES, |input| {
        let (first, rest) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len()));
        let rest = rest.get(1..).unwrap_or_default();
        let one = dictionary(first);
        if let Some(members) = &one {
            assert_eq!(dictionary(&spelt(members)).as_ref(), Some(members), "what is read, spelt out");
            assert!(split(first).all(|member| dictionary(member).is_some()), "each member is a dictionary alone");
            for (index, (key, value)) in members.iter().enumerate() {
                assert!(members.iter().skip(index + 1).all(|(other, _)| other != key), "a key stands once");
                assert!(key.starts_with(b"*") || key.first().is_some_and(u8::is_ascii_lowercase));
                match value {
                    Value::Integer(text) => {
                        let number: i64 = std::str::from_utf8(text).expect("ASCII").parse().expect("an integer");
                        assert!(number.abs() < 1_000_000_000_000_000);
                    }
                    Value::String([b'"', inner @ .., b'"']) => {
                        assert!(inner.iter().all(|byte| matches!(byte, b' '..=b'~')));
                    }
                    Value::String(text) => panic!("{text:?} is no string"),
                    Value::Boolean(_) | Value::InnerList(_) | Value::Other => {}
                }
            }
            assert_eq!(
                dictionary(&[b"  ", first, b" "].concat()).as_ref(),
                Some(members),
                "spaces around it say nothing"
            );
            assert_eq!(dictionary(&[first, b","].concat()), None, "a trailing comma is an error");
        }
        // RFC 8941 section 4.2: two lines are one dictionary, in which the last value of a key stands at the key's first
        // place.
        if let (Some(one), Some(other)) = (one, dictionary(rest))
            && !one.is_empty()
            && !other.is_empty()
        {
            let mut merged = one;
            for (key, value) in other {
                match merged.iter_mut().find(|(known, _)| *known == key) {
                    Some(member) => member.1 = value,
                    None => merged.push((key, value)),
                }
            }
            assert_eq!(dictionary(&[first, b", ", rest].concat()), Some(merged), "lines are joined");
        }
    });
}
