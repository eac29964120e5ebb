use super::*;
use edge_config::load::rules_of;
use edge_config::section::rule::{Place, WhenResponse};
use proptest::prelude::*;

/// Rules about one of a few paths, or about all; for requests or for responses.
fn any_rule() -> impl Strategy<Value = Rule> {
    let path = proptest::option::of("/[ab*]");
    (path, any::<[Option<bool>; 2]>(), any::<bool>(), proptest::option::of(0..3_u64)).prop_map(
        |(path, [cache, browser], for_responses, ttl)| {
            let place = Place { file: "rules.toml".into(), line: 1 };
            let when = When {
                path: path.into_iter().map(Glob::new).collect(),
                response: for_responses.then(WhenResponse::default),
                ..When::default()
            };
            let seconds = |seconds: u64| format!("{seconds}s").parse().expect("a time");
            let browser_ttl = browser.map(|long| seconds(u64::from(long)));
            let set_response = browser.map(|long| ("x-a".to_owned(), long.to_string())).into_iter().collect();
            let then = Then { cache, ttl: ttl.map(seconds), browser_ttl, set_response, ..Then::default() };
            Rule { place, when, then }
        },
    )
}

proptest! {
    /// Of every setting the last of the rules that match, each for itself; rules that do not match change nothing.
    #[test]
    fn rules_are_a_fold(all in proptest::collection::vec(any_rule(), 0..6), target in "/[abc]") {
        let applies = |rule: &&Rule| {
            rule.when.path.is_empty() || rule.when.path.iter().any(|glob| glob.matches(target.as_bytes()))
        };
        let applying: Vec<Rule> = all.iter().filter(applies).cloned().collect();
        let matched = Rules::new(all).request(&facts(&target, ""));
        prop_assert_eq!(matched.is_none(), applying.is_empty());
        let rules = Rules::new(applying.clone());
        let Some(only) = rules.request(&facts(&target, "")) else { return Ok(()) };
        let cache = |for_responses: bool| {
            applying.iter().rev().filter(|r| r.when.response.is_some() == for_responses).find_map(|r| r.then.cache)
        };
        prop_assert_eq!(only.bypass, cache(false) == Some(false));
        prop_assert_eq!(matched.map(|matched| matched.bypass), Some(only.bypass));
        let found = rules.response(&only, 200, Fields::new(b""));
        let last = |of: fn(&Then) -> Option<edge_config::Duration>| {
            applying.iter().rev().find_map(|r| of(&r.then)).map(|time| time.get().as_secs())
        };
        let seconds = |time: Option<DeltaSeconds>| time.map(|time| u64::from(time.0));
        prop_assert_eq!(seconds(found.ttl), last(|then| then.ttl));
        prop_assert_eq!(seconds(found.browser_ttl), last(|then| then.browser_ttl));
        prop_assert_eq!(found.cache, cache(true));
        let set = applying.iter().rev().find_map(|r| r.then.set_response.first());
        prop_assert_eq!(found.set, set.map(|(name, value)| (name.as_str(), value.as_str())).into_iter().collect::<Vec<_>>());
    }

    /// What is left is what came, in its order and spelling, without what is ignored; once is enough.
    #[test]
    fn parameters_are_left_out_and_nothing_else(
        target in "/[a?]{0,2}(\\?([axu](=[au&=?]{0,2})?&?){0,5})?",
        ignored in "[axu]?\\*?",
    ) {
        let then = Then { ignore_query: vec![Glob::new(ignored.clone())], ..Then::default() };
        let place = Place { file: "rules.toml".into(), line: 1 };
        let rules = Rules::new(vec![Rule { place, when: When::default(), then }]);
        let matched = rules.request(&facts(&target, "")).expect("it matches everything");
        let left = rules.target(&matched, target.as_bytes());
        let Some((path, query)) = target.split_once('?') else {
            prop_assert_eq!(left, None);
            return Ok(());
        };
        let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_owned();
        let glob = Glob::new(ignored);
        let kept: Vec<&str> = query.split('&').filter(|p| !glob.matches(name(p).as_bytes())).collect();
        let query = kept.join("&");
        let expected = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let left = left.expect("there is a query");
        prop_assert_eq!(String::from_utf8_lossy(&left), expected);
        let again = rules.target(&matched, &left).unwrap_or_else(|| left.clone());
        prop_assert_eq!(again, left);
    }

    /// Whatever comes is judged, and a condition and its opposite never both hold.
    #[test]
    fn present_and_absent_are_opposites(target in "/[ -~]{0,12}", fields in "((cookie|a): [a-c=;% ]{0,6}\r\n){0,3}") {
        for what in ["header", "cookie", "query"] {
            let of = |present: bool| {
                let when = format!("[[site.s.rule]]\nwhen = {{ {what} = {{ a = {present} }} }}\n");
                rules(&format!("{when}then = {{ ttl = \"1h\" }}\n")).request(&facts(&target, &fields)).is_some()
            };
            prop_assert_ne!(of(true), of(false), "{}", what);
        }
    }
}

fn rules(text: &str) -> Rules {
    Rules::new(rules_of(text).unwrap_or_else(|problems| panic!("{}", problems.summary())))
}

fn facts<'a>(target: &'a str, fields: &'a str) -> Facts<'a> {
    Facts {
        target: target.as_bytes(),
        host: b"WWW.example.com:8080",
        method: "GET",
        fields: Fields::new(fields.as_bytes()),
        client: [192, 0, 2, 7].into(),
        geo: None,
    }
}

#[test]
fn conditions_of_requests() {
    let cookie = "cookie: a=1; preview=yes\r\n";
    for (when, target, fields, expected) in [
        ("", "/", "", true),
        ("path = \"/assets/*\"", "/assets/a.js?x", "", true),
        ("path = \"/assets/*\"", "/other", "", false),
        ("path = [\"/a\", \"/b\"]", "/b?q", "", true),
        ("host = \"*.Example.com\"", "/", "", true),
        ("host = \"example.com\"", "/", "", false),
        ("method = \"POST\"", "/", "", false),
        ("method = [\"POST\", \"GET\"]", "/", "", true),
        ("client = \"192.0.2.0/24\"", "/", "", true),
        ("client = \"198.51.100.0/24\"", "/", "", false),
        ("header = { X-Debug = true }", "/", "x-debug: 1\r\n", true),
        ("header = { x-debug = true }", "/", "", false),
        ("header = { x-debug = false }", "/", "", true),
        ("header = { accept-language = [\"de*\", \"fr\"] }", "/", "accept-language: de-CH\r\n", true),
        ("cookie = { preview = true }", "/", cookie, true),
        ("cookie = { a = \"2\" }", "/", cookie, false),
        ("cookie = { a = \"1\" }", "/", cookie, true),
        ("cookie = { b = false }", "/", cookie, true),
        ("query = { v = \"1*\" }", "/?u=2&v=10", "", true),
        ("query = { v = true }", "/?u=2", "", false),
        ("query = { \"a b\" = \"c&d\" }", "/?a%20b=c%26d", "", true),
        ("path = \"/a\", query = { v = true }", "/a?v", "", true),
        ("path = \"/a\", query = { v = true }", "/b?v", "", false),
    ] {
        let rules = rules(&format!("[[site.s.rule]]\nwhen = {{ {when} }}\nthen = {{ ttl = \"1h\" }}\n"));
        let matched = rules.request(&facts(target, fields));
        assert_eq!(matched.is_some(), expected, "{when} for {target} {fields}");
    }
}

/// Whoever writes a name in another way must not get around what is said about it.
#[test]
fn a_host_is_a_name() {
    let rules = rules("[[site.s.rule]]\nwhen = { host = \"www.example.com\" }\nthen = { cache = false }\n");
    for (host, expected) in [
        ("www.example.com", true),
        ("WWW.Example.COM:8080", true),
        ("www.example.com.", true),
        ("www.example.com.:80", true),
        ("www.example.com..", false),
        ("example.com", false),
        ("", false),
    ] {
        let found = rules.request(&Facts { host: host.as_bytes(), ..facts("/", "") });
        assert_eq!(found.is_some(), expected, "{host}");
    }
}

#[test]
fn the_last_of_several_wins() {
    let rules = rules(
        "[[site.s.rule]]\nthen = { ttl = \"1h\", cache = false, set_response = { a = \"1\", b = \"1\" } }\n\
         [[site.s.rule]]\nwhen = { path = \"/a\" }\nthen = { ttl = \"2h\", cache = true, set_response = { a = \"2\" } }\n\
         [[site.s.rule]]\nwhen = { response = { status = \"4xx\" } }\nthen = { ttl = \"10s\", cache = false }\n",
    );
    let other = rules.request(&facts("/b", "")).expect("the first matches");
    assert!(other.bypass);
    let matched = rules.request(&facts("/a", "")).expect("all match");
    assert!(!matched.bypass);
    let found = rules.response(&matched, 200, Fields::new(b""));
    assert_eq!((found.ttl, found.cache), (Some(DeltaSeconds(7_200)), None));
    assert_eq!(found.set, [("b", "1"), ("a", "2")]);
    let missing = rules.response(&matched, 404, Fields::new(b""));
    assert_eq!((missing.ttl, missing.cache), (Some(DeltaSeconds(10)), Some(false)));
}

#[test]
fn conditions_of_responses() {
    for (when, expected) in [
        ("status = 200", true),
        ("status = [404, \"5xx\"]", false),
        ("content_type = \"text/HTML\"", true),
        ("content_type = [\"image/*\", \"text/*\"]", true),
        ("content_type = \"html\"", false),
        ("header = { x-kind = \"page\" }", true),
        ("header = { x-kind = false }", false),
    ] {
        let rules =
            rules(&format!("[[site.s.rule]]\nwhen = {{ response = {{ {when} }} }}\nthen = {{ ttl = \"1h\" }}\n"));
        let matched = rules.request(&facts("/", "")).expect("no condition on the request");
        let fields = Fields::new(b"content-type: Text/html; charset=utf-8\r\nx-kind: page\r\n");
        assert_eq!(rules.response(&matched, 200, fields).ttl.is_some(), expected, "{when}");
    }
}

#[test]
fn parameters_that_make_no_difference_are_dropped() {
    let rules = rules("[[site.s.rule]]\nthen = { ignore_query = [\"utm_*\", \"fbclid\"] }\n");
    for (target, expected) in [
        ("/a", None),
        ("/a?x=1", Some("/a?x=1")),
        ("/a?utm_source=m&x=1&fbclid=2", Some("/a?x=1")),
        ("/a?utm_source=m", Some("/a")),
        ("/a?y=2&x=1&utm_a", Some("/a?y=2&x=1")),
        ("/a?%75tm_a=1&x", Some("/a?x")),
        ("/a?xutm_=1", Some("/a?xutm_=1")),
        ("/a?x=1&&utm_a&y=?/&", Some("/a?x=1&&y=?/&")),
        ("/a?x=utm_a&utm_a=1=2", Some("/a?x=utm_a")),
    ] {
        let matched = rules.request(&facts(target, "")).expect("it matches everything");
        let found = rules.target(&matched, target.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{target}");
    }
}
