//! `Vary`, and what a request is selected by.

use crate::fuzz::target;

use super::super::fields::Fields;
use super::super::vary::{NAMES_MAX, Vary, selecting_key};
use super::{block, corpus, is_closed, joined};

/// So many members are put in order.
const SORTED_MAX: usize = 32;

#[test]
fn vary() {
    target("vary", corpus::NAMES, |input| {
        let of = |block: &[u8]| Vary::of(Fields::new(block));
        let lines = block("vary", input);
        let vary = of(&lines);
        if is_closed(input) {
            assert_eq!(of(&joined("vary", input)), vary, "lines say what they say joined");
        }
        assert_eq!(of(&lines.to_ascii_uppercase()), vary, "names fold case");
        assert_eq!(of(&[&lines[..], b"vary: a, *\r\n"].concat()), Vary::Any);
        if let Vary::On(names) = &vary {
            assert!((1..=NAMES_MAX).contains(&names.len()));
            assert!(names.iter().all(|name| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase())));
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?} are sorted, each once");
            let again: Vec<u8> = names.iter().rev().flat_map(|name| block("vary", name.as_bytes())).collect();
            assert_eq!(of(&again), vary, "what is read, spelt out");
        }
    });
}

fn key(names: &[&str], request: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    selecting_key(names.iter().copied(), Fields::new(request), &mut key);
    key
}

/// A part of a key behind its length (LEB128), and what follows it.
fn part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("a length ends");
    let length = bytes[..=end].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
    bytes[end + 1..].split_at(length)
}

/// A part behind a length of eight bytes, and what follows it.
fn long_part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk().expect("a length");
    rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a length in memory"))
}

/// Cuts a part off.
type Cut = fn(&[u8]) -> (&[u8], &[u8]);

/// The members in a key of one field that is there.
fn in_key<'k>(key: &'k [u8], name: &str, cut: Cut) -> Vec<&'k [u8]> {
    let (named, rest) = part(key);
    assert_eq!((named, rest.first()), (name.as_bytes(), Some(&1)));
    let (mut list, behind) = long_part(&rest[1..]);
    assert!(behind.is_empty());
    let mut members = Vec::new();
    while !list.is_empty() {
        let (member, rest) = cut(list);
        members.push(member);
        list = rest;
    }
    members
}

/// A member of a set as a field has it, from what a key has: there a weight is a line feed and `q=` thousandths.
fn spelt(member: &[u8]) -> Vec<u8> {
    let mut pieces = member.split(|byte| *byte == b'\n');
    let mut field = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        let (weight, rest) = piece.split_at(piece.iter().position(|byte| *byte == b';').unwrap_or(piece.len()));
        let weight = std::str::from_utf8(weight).ok().and_then(|weight| weight.strip_prefix("q=")?.parse().ok());
        let thousandths: u16 = weight.expect("a weight");
        assert!(thousandths < 1000, "a weight of 1 is not said");
        field.extend_from_slice(format!(";q=0.{thousandths:03}").as_bytes());
        field.extend_from_slice(rest);
    }
    // A member of nothing but a weight of 1 would be none.
    if field.is_empty() { b";q=1".to_vec() } else { field }
}

/// The law of a list whose order and spelling of weights say nothing, and of tokens letters' case neither.
fn check_set(name: &str, input: &[u8], are_tokens: bool) {
    let request = block(name, input);
    let whole = key(&[name], &request);
    let members: Vec<_> = Fields::new(&request).members(name).collect();
    let normal = in_key(&whole, name, long_part);
    if is_closed(input) {
        assert_eq!(key(&[name], &joined(name, input)), whole, "lines say what they say joined");
    }
    if are_tokens {
        assert_eq!(key(&[name], &block(name, &input.to_ascii_uppercase())), whole, "letters fold case");
    }
    if members.is_empty() {
        return assert!(normal.is_empty());
    }
    let respelt: Vec<u8> = normal.iter().flat_map(|member| block(name, &spelt(member))).collect();
    assert_eq!(key(&[name], &respelt), whole, "what is normalised is normal");
    if members.len() > SORTED_MAX {
        return assert_eq!(normal.len(), members.len(), "a long list is as it came");
    }
    assert!(normal.windows(2).all(|pair| pair[0] != pair[1]), "each once");
    let turned: Vec<u8> = members.iter().rev().flat_map(|member| block(name, member)).collect();
    assert_eq!(key(&[name], &turned), whole, "order says nothing");
    if members.len() <= SORTED_MAX / 2 {
        assert_eq!(key(&[name], &[&request[..], &turned].concat()), whole, "nor does it to say it twice");
    }
}

#[test]
fn selecting_keys_of_media_ranges() {
    target("selecting keys of media ranges", corpus::PREFERENCES, |input| check_set("accept", input, false));
}

#[test]
fn selecting_keys_of_tokens() {
    target("selecting keys of tokens", corpus::PREFERENCES, |input| {
        check_set("accept-language", input, true);
        let [language, coding] = ["accept-language", "accept-encoding"].map(|name| key(&[name], &block(name, input)));
        assert_eq!(part(&language).1, part(&coding).1, "codings are read as languages are");
    });
}

/// A field of which nothing is known: its key has its members, and nothing else's.
#[test]
fn selecting_keys() {
    target("selecting keys", corpus::PREFERENCES, |input| {
        let request = block("x", input);
        let whole = key(&["x"], &request);
        let members: Vec<_> = Fields::new(&request).members("x").collect();
        assert_eq!(in_key(&whole, "x", part), members);
        if is_closed(input) {
            assert_eq!(key(&["x"], &joined("x", input)), whole, "lines say what they say joined");
        }
        assert_ne!(key(&["x"], b""), whole, "no field is no empty field");
        // Whatever a field says, the key of several is theirs one behind the other, behind what was there.
        let all = [&request[..], &block("accept", input), &block("y", input)].concat();
        let each = ["accept", "x", "y", "z"].map(|name| key(&[name], &all));
        let mut behind = b"before".to_vec();
        selecting_key(["accept", "x", "y", "z"], Fields::new(&all), &mut behind);
        assert_eq!(behind, [b"before".to_vec(), each.concat()].concat());
        // An origin names what it likes.
        if let Vary::On(names) = Vary::of(Fields::new(&block("vary", input))) {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            assert_eq!(key(&names, &all), names.iter().flat_map(|name| key(&[name], &all)).collect::<Vec<u8>>());
        }
    });
}
