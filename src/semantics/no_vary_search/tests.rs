use proptest::prelude::*;

use super::Params::{All, AllExcept, None as Nothing, Only};
use super::*;

fn rule(text: &str) -> NoVarySearch {
    NoVarySearch::of(Fields::new(format!("no-vary-search: {text}\r\n").as_bytes()))
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[track_caller]
fn check(name: &str, text: &str, key_order: bool, params: Params) {
    assert_eq!(rule(text), NoVarySearch { key_order, params }, "{name}: {text:?}");
}

#[test]
fn rules() {
    let many = |count: usize| format!("params=({})", vec!["\"a\""; count].join(" "));
    let rows = [
        ("5.2: empty", "", false, Nothing),
        ("5.1: order", "key-order", true, Nothing),
        ("5.1: order, spelt out", "key-order=?1", true, Nothing),
        ("5.1: no order", "key-order=?0", false, Nothing),
        ("5.1: a list", r#"params=("a" "b")"#, false, Only(list(&["a", "b"]))),
        ("5.1: an empty list", "params=()", false, Only(vec![])),
        ("5.1: except", r#"except=("x")"#, false, AllExcept(list(&["x"]))),
        ("5.1: except nothing", "except=()", false, AllExcept(vec![])),
        ("5.1: any order of keys", r#"except=("x"), key-order"#, true, AllExcept(list(&["x"]))),
        ("5.1: parameters of values", r#"key-order;a, params=("a";b);c"#, true, Only(list(&["a"]))),
        ("5.1: unknown keys", r#"other=("x"), params=("a")"#, false, Only(list(&["a"]))),
        ("5.1: unknown keys alone", "unknown-key", false, Nothing),
        ("8941 4.2.2: the last one stands", r#"params=("a"), params=("b")"#, false, Only(list(&["b"]))),
        ("revision 05: all", "params", false, All),
        ("revision 05: all but", r#"params, except=("x")"#, false, AllExcept(list(&["x"]))),
        ("revision 05: all but, in order", r#"params=?1, key-order, except=("x")"#, true, AllExcept(list(&["x"]))),
        ("revision 05: nothing", "params=?0", false, Nothing),
        ("revision 05: nothing and order", "params=?0, key-order", true, Nothing),
        ("5.3: names are decoded", r#"params=("%C3%A9+%E6%B0%97" "%f6")"#, false, Only(list(&["é 気", "\u{fffd}"]))),
        ("5.1: order is a boolean", r#"key-order="not a boolean", params=("a")"#, false, Nothing),
        ("5.1: order is no list", "key-order=()", false, Nothing),
        ("5.1: a string is no list", r#"params="not an inner list""#, false, Nothing),
        ("5.1: a token is no string", "params=(not-a-string)", false, Nothing),
        ("5.1: one token among strings", r#"params=("a" b), key-order"#, false, Nothing),
        ("5.1: both", r#"params=("a"), except=("x")"#, false, Nothing),
        ("5.1: both, empty", "params=(), except=()", false, Nothing),
        ("5.1: none and except", r#"params=?0, except=("x")"#, false, Nothing),
        ("5.1: except a string", r#"except="not an inner list""#, false, Nothing),
        ("5.1: except a token", "params, except=(not-a-string)", false, Nothing),
        ("5.1: except a boolean", "params, except=?1", false, Nothing),
        ("8941 4.2: no dictionary", "key-order, &", false, Nothing),
        ("as many names as are read", &many(64), false, Only(vec!["a".to_owned(); 64])),
        ("more", &many(65), false, Nothing),
    ];
    for (name, text, key_order, params) in rows {
        check(name, text, key_order, params);
    }
}

#[test]
fn lines_join_and_absence_says_nothing() {
    let of = |block: &str| NoVarySearch::of(Fields::new(block.as_bytes()));
    let both = of("No-Vary-Search: key-order\r\nno-vary-search: params=(\"a\")\r\n");
    assert_eq!(both, NoVarySearch { key_order: true, params: Only(list(&["a"])) });
    assert_eq!(of("vary: a\r\n"), NoVarySearch::default());
    assert!(["", "params=()", "key-order=?0"].iter().all(|text| rule(text).varies_on_everything()));
    assert!(
        !["key-order", "params", "except=()", "params=(\"a\")"].iter().any(|text| rule(text).varies_on_everything())
    );
}

#[track_caller]
fn check_same(name: &str, text: &str, one: &str, other: &str, is_same: bool) {
    let normalized = |target: &str| {
        let normalized = normalized_query(&rule(text), target.as_bytes());
        String::from_utf8_lossy(&normalized).into_owned()
    };
    let (left, right) = (normalized(one), normalized(other));
    assert_eq!(left == right, is_same, "{name}: {text:?} {one} is {left}, {other} is {right}");
}

#[test]
fn equivalence() {
    let rows = [
        ("6: nothing said", "", "/a", "/a?", false),
        ("6: nothing said", "params=()", "/a?a=b&&&c", "/a?a=b&c=", false),
        ("6: nothing said, the same", "", "/a?%61", "/a?%61", true),
        ("6: another path", "params", "/a?x", "/b?x", false),
        ("6: a path is not decoded", "params", "/a", "/%61", false),
        ("6.1: no query", "key-order", "/a", "/a?", true),
        ("6.1: percent-encoding", "key-order", "/a?a=x", "/a?%61=%78", true),
        ("6.1: bytes as they are", "key-order", "/a?a=é", "/a?a=%C3%a9", true),
        ("6.1: empty parts", "key-order", "/a?a=x&&&&", "/a?&a=x", true),
        ("6.1: empty values", "key-order", "/a?a=", "/a?a", true),
        ("6.1: a space", "key-order", "/a?a=%20", "/a?a=+", true),
        ("6.1: a plus is no space", "key-order", "/a?a=%2b", "/a?a=+", false),
        ("6.1: no normal form", "key-order", "/a?a=%C3%A9", "/a?a=e%CC%81", false),
        ("8: what is not UTF-8 is not the same", "key-order", "/a?a=%f6", "/a?a=%ef%bf%bd", false),
        ("6: order", "key-order", "/a?a=1&b=2&a=3", "/a?b=2&a=1&a=3", true),
        ("6: order within a name", "key-order", "/a?a=1&a=2", "/a?a=2&a=1", false),
        ("6: order of names that are not UTF-8", "key-order", "/a?%f6=1&%f7=2", "/a?%f7=2&%f6=1", false),
        ("6: order, when it matters", r#"params=("x")"#, "/a?a=1&b=2", "/a?b=2&a=1", false),
        ("6: one that does not matter", r#"params=("x")"#, "/a?x=1&a=2", "/a?a=2&%78", true),
        ("6: names fold no case", r#"params=("x")"#, "/a?X=1&a=2", "/a?a=2", false),
        ("6: those that matter", r#"params=("x")"#, "/a?x=1&a=2", "/a?x=1&a=3", false),
        ("6: how many", r#"params=("x")"#, "/a?a", "/a?a&a", false),
        ("6: a name of two words", r#"params=("utm+source")"#, "/a?utm%20source=1", "/a?utm+source=2", true),
        ("6: a name that is not UTF-8", r#"params=("%f6")"#, "/a?%f7=1", "/a", true),
        ("6: an empty name", r#"params=("")"#, "/a?=1", "/a", true),
        ("6: only these matter", r#"except=("id")"#, "/a?id=1&a=2", "/a?b=3&id=1", true),
        ("6: only these matter", r#"except=("id")"#, "/a?id=1", "/a?id=2", false),
        ("6: all gone", "except=()", "/a?id=1", "/a", true),
        ("6: all gone", "params", "/a?id=1", "/a?b", true),
        ("a question mark in a query", r#"params=("x")"#, "/a?a=?&x", "/a?a=%3F", true),
        ("an ampersand in a value", r#"params=("x")"#, "/a?a=%26b", "/a?a&b", false),
        ("only the first sign divides", "key-order", "/a?a=b=c", "/a?a=b", false),
        ("an equals sign in a name", r#"params=("x")"#, "/a?a%3Db=c", "/a?a=b=c", false),
        ("nothing is something", r#"params=("x")"#, "/a?=", "/a?", false),
    ];
    for (name, text, one, other, is_same) in rows {
        check_same(name, text, one, other, is_same);
    }
}

/// One spelling of it is enough to know; the others are equivalent.
#[test]
fn what_is_written() {
    let rule = rule("key-order, params=(\"x\")");
    assert_eq!(normalized_query(&rule, b"/a b?c=/~&x&b=+\xff&a"), b"/a b?a=&b=%20%FF&c=%2F~");
}

type Query = Vec<(String, String)>;

/// Names that are often the same, with all that means something in a query.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&["", "a", "b", "é", "a b", "+", "=", "&", "=&", "a=&b"][..]).prop_map(str::to_owned)
}

fn query() -> impl Strategy<Value = Query> {
    prop::collection::vec((name(), "[a &%=]{0,1}"), 0..4)
}

fn any_rule() -> impl Strategy<Value = NoVarySearch> {
    let names = || prop::collection::vec(name(), 0..3);
    let params = prop_oneof![Just(Nothing), Just(All), names().prop_map(AllExcept), names().prop_map(Only)];
    (any::<bool>(), params).prop_map(|(key_order, params)| NoVarySearch { key_order, params })
}

/// Writes a query; each byte that may be written otherwise is so when its bit of `spelling` is set.
fn spell(query: &Query, mut spelling: u64) -> Vec<u8> {
    let mut otherwise = || {
        spelling = spelling.rotate_right(1);
        spelling & 1 == 1
    };
    let mut out = b"/a?".to_vec();
    for (name, value) in query {
        for (index, text) in [name, value].into_iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"&" } else { b"=" });
            for byte in text.bytes() {
                match byte {
                    b' ' if otherwise() => out.push(b'+'),
                    b'=' if index == 1 && otherwise() => out.push(b'='),
                    b'&' | b'=' | b'+' | b'%' => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                    _ if otherwise() => out.extend_from_slice(format!("%{byte:02x}").as_bytes()),
                    _ => out.push(byte),
                }
            }
        }
    }
    out
}

/// Section 6, word for word.
fn compared(rule: &NoVarySearch, mut query: Query) -> Query {
    match &rule.params {
        Nothing => {}
        All => query.clear(),
        AllExcept(names) => query.retain(|(name, _)| names.contains(name)),
        Only(names) => query.retain(|(name, _)| !names.contains(name)),
    }
    if rule.key_order {
        query.sort_by(|(left, _), (right, _)| left.cmp(right));
    }
    query
}

proptest! {
    #[test]
    fn the_same_bytes_are_equivalence(
        rule in any_rule().prop_filter("says something", |rule| !rule.varies_on_everything()),
        one in query(),
        other in query(),
        spellings in any::<[u64; 2]>(),
    ) {
        let (left, right) = (spell(&one, spellings[0]), spell(&other, spellings[1]));
        let is_same = normalized_query(&rule, &left) == normalized_query(&rule, &right);
        prop_assert_eq!(is_same, compared(&rule, one.clone()) == compared(&rule, other));
        prop_assert_eq!(normalized_query(&rule, &left), normalized_query(&rule, &spell(&one, spellings[1])));
    }

    #[test]
    fn normalized_twice_is_normalized_once(
        rule in any_rule(),
        target in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "([ab&=+?]|%26|%3d|%2B|%){0,9}".prop_map(String::into_bytes),
        ],
    ) {
        let once = normalized_query(&rule, &[b"/?", &target[..]].concat());
        prop_assert_eq!(normalized_query(&rule, &once), once);
    }

    #[test]
    fn nothing_said_changes_nothing(target in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(normalized_query(&NoVarySearch::default(), &target), target);
    }

    #[test]
    fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
        let block = [b"no-vary-search: params=(\"", &value[..], b"\"), key-order"].concat();
        normalized_query(&NoVarySearch::of(Fields::new(&block)), &value);
    }
}
