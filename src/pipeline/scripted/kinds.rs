//! Kinds of answers, and what the next one who asks is told.

use super::*;
use crate::purge::ledger::{Mode, Target};
use crate::purge::selector::Named;

/// Two requests for the same, and what the second one is told.
#[test]
fn lifetimes_at_the_edge() {
    const HOUR: &str = "ttl = \"1h\"";
    for (then, status, answer, expected) in [
        (HOUR, 200, "", "hit; ttl=3600"),
        (HOUR, 200, "cache-control: max-age=5", "hit; ttl=3600"),
        (HOUR, 200, "cache-control: s-maxage=5, max-age=9", "hit; ttl=3600"),
        (HOUR, 200, "cache-control: no-cache", "hit; ttl=3600"),
        (HOUR, 200, "cache-control: max-age=5\ncdn-cache-control: max-age=7", "hit; ttl=3600"),
        (HOUR, 200, "expires: Thu, 01 Jan 1970 00:00:00 GMT", "hit; ttl=3600"),
        (HOUR, 200, "cache-control: max-age=5\nage: 100", "hit; ttl=3500"),
        (HOUR, 302, "location: /b", "hit; ttl=3600"),
        (HOUR, 418, "", "hit; ttl=3600"),
        ("ttl = \"10s\"", 200, "cache-control: max-age=5000", "hit; ttl=10"),
        ("browser_ttl = \"1h\"", 200, "cache-control: max-age=5", "hit; ttl=5"),
        // What no rule overrides.
        (HOUR, 200, "cache-control: no-store", "fwd=uri-miss; fwd-status=200; detail=no-store"),
        (HOUR, 200, "cache-control: private", "fwd=uri-miss; fwd-status=200; detail=private"),
        (HOUR, 200, "vary: *", "fwd=uri-miss; fwd-status=200; detail=vary-star"),
        (HOUR, 200, "set-cookie: a=b", "fwd=uri-miss; fwd-status=200; detail=set-cookie"),
        // With the cookie goes the reason.
        ("ttl = \"1h\", strip_response = [\"set-cookie\"]", 200, "set-cookie: a=b", "hit; ttl=3600"),
        ("strip_response = [\"cache-control\"], ttl = \"9s\"", 200, "cache-control: no-store", "hit; ttl=9"),
    ] {
        let node = Node::new(&[("", then)]);
        node.script(status, answer).script(status, answer);
        node.get("/", "");
        let second = node.get("/", "");
        assert_eq!((second.status, second.says().as_str()), (status, expected), "{then} {answer}");
        assert_eq!(second.field("set-cookie").is_empty(), !answer.contains("cookie") || expected.contains("hit"));
    }
}

/// A rule caps what anything gives, and adds keys to be purged by.
#[test]
fn capped_lifetimes_and_keys_of_rules() {
    let node =
        Node::new(&[("", "ttl_max = \"10s\", surrogate_key = [\"html\"]"), ("path = \"/long\"", "ttl = \"1h\"")]);
    for (target, answer) in [("/a", "cache-control: max-age=99"), ("/long", ""), ("/short", "cache-control: max-age=5")]
    {
        node.script(200, answer);
        node.get(target, "");
        let expected = if target == "/short" { "hit; ttl=5" } else { "hit; ttl=10" };
        assert_eq!(node.get(target, "").says(), expected, "{target}");
    }
    let ledger = &node.pipeline.store.ledger;
    let html = Target::Key(node.site.id, ledger.name(Named::Key, b"html"));
    ledger.apply(ledger.applied().log.next(), clock::wall(), Mode::Delete, &[html]);
    node.script(200, "cache-control: max-age=5");
    assert_eq!(node.get("/a", "").says(), "fwd=uri-miss; stored; fwd-status=200; detail=purged");
}

/// A response that cannot be purged by all its keys is not stored, and clients do not see the keys.
#[test]
fn surrogate_keys() {
    let keys: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    let many = format!("cache-control: max-age=9\nsurrogate-key: {}", keys.join(" "));
    for (keep, answer, expected) in [
        (false, "cache-control: max-age=9\nsurrogate-key: a b\ncache-tag: c", "fwd=uri-miss; stored; fwd-status=200"),
        (true, "cache-control: max-age=9\nsurrogate-key: a b\ncache-tag: c", "fwd=uri-miss; stored; fwd-status=200"),
        (false, &many, "fwd=uri-miss; fwd-status=200; detail=tags-over-limit"),
    ] {
        let node = Node::with(&[], |site| site.keep_surrogate_keys = keep);
        node.script(200, answer);
        let got = node.get("/", "");
        assert_eq!(got.says(), expected);
        assert_eq!((got.field("surrogate-key").is_empty(), got.field("cache-tag").is_empty()), (!keep, !keep));
    }
}

/// Somebody's page under the name of a stylesheet.
#[test]
fn what_contradicts_its_name_is_not_stored() {
    for (armour, target, kind, expected) in [
        (true, "/account/x.css", "text/html", "fwd=uri-miss; fwd-status=200; detail=content-type-mismatch"),
        (true, "/x.css", "text/css", "fwd=uri-miss; stored; fwd-status=200"),
        (true, "/account", "text/html", "fwd=uri-miss; stored; fwd-status=200"),
        (false, "/account/x.css", "text/html", "fwd=uri-miss; stored; fwd-status=200"),
    ] {
        let node = Node::with(&[], |site| site.deception_armour = armour);
        node.script(200, &format!("cache-control: max-age=9\ncontent-type: {kind}"));
        assert_eq!(node.get(target, "").says(), expected, "{target} {kind}");
    }
}

/// RFC 9111 section 4.3.5: what HEAD says of a stored answer to GET.
#[test]
fn head_freshens_or_invalidates() {
    let stored = "cache-control: max-age=9\netag: \"a\"\nx-a: 1";
    for (head, expected, x_a) in [
        ("cache-control: max-age=50\netag: \"a\"\nx-a: 2", "hit; ttl=50", "2"),
        ("cache-control: max-age=50\netag: \"b\"\nx-a: 2", "fwd=uri-miss; stored; fwd-status=200", "1"),
        ("cache-control: no-store\netag: \"a\"", "fwd=uri-miss; stored; fwd-status=200", "1"),
    ] {
        let node = Node::new(&[]);
        node.script(200, stored).script(200, head).script(200, stored);
        node.get("/", "");
        node.ask(Method::Head, "/", "cache-control: no-cache");
        let got = node.get("/", "");
        assert_eq!((got.says().as_str(), got.field("x-a").as_str()), (expected, x_a), "{head}");
        assert_eq!(got.body, b"body", "{head}");
    }
}

/// What is stored in one language is for who likes that best.
#[test]
fn variants_by_language() {
    let answer = "cache-control: max-age=9\nvary: accept-language\ncontent-language: de";
    let node = Node::new(&[]);
    node.script(200, answer).script(200, "cache-control: max-age=9\nvary: accept-language\ncontent-language: en");
    node.get("/", "accept-language: en, de");
    assert_eq!(node.get("/", "accept-language: fr;q=0.5, de").says(), "hit; ttl=9");
    assert_eq!(node.get("/", "accept-language: en").says(), "fwd=vary-miss; stored; fwd-status=200");
    assert_eq!(node.get("/", "accept-language: en-gb;q=0.2, en").field("content-language"), "en");
}

/// A part is stored as what it is. More is put beside it if it has a strong validator; otherwise all of it is fetched.
#[test]
fn parts() {
    let weak = "cache-control: max-age=9\ncontent-range: bytes 0-3/10";
    let strong = &format!("{weak}\netag: \"a\"");
    let (rest, whole) = (&strong.replace("0-3", "4-7"), "cache-control: max-age=9");
    for (first, again, (status, answer), expected) in [
        (weak, "range: bytes=0-3", (206, rest), "206 hit; ttl=9"),
        (weak, "range: bytes=1-2", (206, rest), "206 hit; ttl=9"),
        (weak, "range: bytes=4-7", (200, &whole.to_owned()), "416 fwd=partial; stored; fwd-status=200"),
        (weak, "", (200, &whole.to_owned()), "200 fwd=partial; stored; fwd-status=200"),
        (strong, "range: bytes=1-2", (206, rest), "206 hit; ttl=9"),
        (strong, "range: bytes=1-2\nif-range: \"a\"", (206, rest), "206 hit; ttl=9"),
        (strong, "range: bytes=4-7", (206, rest), "206 fwd=partial; stored; ttl=9"),
        (strong, "range: bytes=2-5", (206, rest), "206 fwd=partial; stored; ttl=9"),
        (strong, "range: bytes=4-7", (200, &whole.to_owned()), "416 fwd=uri-miss; stored; fwd-status=200"),
        (&format!("{strong}\nvary: accept"), "range: bytes=1-2", (206, rest), "206 hit; ttl=9"),
        (
            &strong.replace("max-age=9", "no-store"),
            "range: bytes=4-7",
            (206, rest),
            "206 fwd=uri-miss; stored; fwd-status=206",
        ),
    ] {
        let node = Node::new(&[]);
        // What is asked for again after the second answer was of no use.
        node.script(206, first).script(status, answer).script(status, answer);
        node.get("/", "range: bytes=0-3");
        let got = node.get("/", again);
        let says = format!("{} {}", got.status, got.says());
        assert!(says.starts_with(expected), "{first} {again}: {says}");
    }
}

/// What does not matter of a query, for sites that want to know.
#[test]
fn queries_that_do_not_matter() {
    let answer = "cache-control: max-age=9\nno-vary-search: params=(\"utm\"), key-order";
    for (honoured, target, expected) in [
        (true, "/a?utm=2&x=1&y=2", "hit; ttl=9"),
        (true, "/a?y=2&x=1", "hit; ttl=9"),
        (true, "/a?x=2&y=2", "fwd=uri-miss; stored; fwd-status=200"),
        (true, "/b?x=1&y=2", "fwd=uri-miss; stored; fwd-status=200"),
        (false, "/a?utm=2&x=1&y=2", "fwd=uri-miss; stored; fwd-status=200"),
    ] {
        let node = Node::with(&[], |site| site.no_vary_search = honoured);
        node.script(200, answer).script(200, answer);
        node.get("/a?x=1&y=2&utm=1", "");
        assert_eq!(node.get(target, "").says(), expected, "{target}");
    }
}
