//! The rules of a site: which of them match a request, and what they say about it and about its responses.
//!
//! Every rule that matches applies, in order; of one setting the last wins. What a rule asks of the request is decided
//! once, when the request comes; a rule for responses is looked at again when an origin has answered.
//!
//! What follows from that, and may surprise:
//!
//! - Conditions see the request as the client sent it, ignored parameters included, and the response as the origin sent
//!   it, before any rule has changed its fields. After a 304 that is the stored response, as rules have left it, under the
//!   fields of the 304: a rule that strips the field it looks for does not match again.
//! - `cache = true` undoes an earlier `cache = false` of its own kind: among rules for requests, or for responses.
//! - What is stored is for everybody who asks for the same, and has what the rules made of the response to whoever asked
//!   first. A rule about cookies, fields or clients therefore says `cache = false`, or goes with a `Vary`.
//! - A request past the cache neither stores anything nor removes anything that is stored.
//! - `ttl` counts as `max-age` does, from when the response was made: an `Age` that it comes with is used up already.
//! - An unsafe request invalidates the target that is left of its own after `ignore_query`; a rule that is only about GET
//!   has it invalidate another.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::section::rule::{Glob, NamedMatch, Rule, Then, ValueMatch, When};
use percent_encoding::percent_decode;

use crate::semantics::fields::Fields;
use crate::semantics::time::DeltaSeconds;

/// What rules look at in a request.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Path and query, as the client sent them.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    pub method: &'a str,
    pub fields: Fields<'a>,
    pub client: IpAddr,
}

/// The rules that match a request, and what they say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Their indices, in order; of those for responses the request's part has matched.
    rules: Arc<[usize]>,
    /// Nothing stored is used or made.
    pub bypass: bool,
}

/// What the rules say about a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseSettings<'r> {
    pub cache: Option<bool>,
    pub ttl: Option<DeltaSeconds>,
    /// The longest lifetime.
    pub ttl_max: Option<DeltaSeconds>,
    /// Surrogate keys besides those of the response.
    pub surrogate_keys: Vec<&'r str>,
    pub browser_ttl: Option<DeltaSeconds>,
    pub stale_while_revalidate: Option<DeltaSeconds>,
    pub stale_if_error: Option<DeltaSeconds>,
    pub strip: Vec<&'r str>,
    pub set: Vec<(&'r str, &'r str)>,
}

/// The rules of a site, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that match a request; none where none does.
    pub fn request(&self, facts: &Facts<'_>) -> Option<Matched> {
        let of_request = RequestParts::new(facts);
        let matching = self.0.iter().enumerate().filter(|(_, rule)| of_request.matches(&rule.when));
        let rules: Arc<[usize]> = matching.map(|(index, _)| index).collect();
        if rules.is_empty() {
            return None;
        }
        let last = rules.iter().rev().filter_map(|index| self.0.get(*index)).find_map(|rule| {
            let for_requests = rule.when.response.is_none();
            rule.then.cache.filter(|_| for_requests)
        });
        Some(Matched { rules, bypass: last == Some(false) })
    }

    /// The target without the query parameters that make no difference; none where there are none of them.
    pub fn target(&self, matched: &Matched, target: &[u8]) -> Option<Vec<u8>> {
        let ignored: Vec<&Glob> = self.thens(matched).flat_map(|then| &then.ignore_query).collect();
        if ignored.is_empty() {
            return None;
        }
        let (path, query) = target.split_at(memchr::memchr(b'?', target)?);
        let is_ignored = |parameter: &[u8]| {
            let name = decoded(parameter.split(|byte| *byte == b'=').next().unwrap_or_default());
            ignored.iter().any(|glob| glob.matches(&name))
        };
        let kept: Vec<&[u8]> =
            query.get(1..)?.split(|byte| *byte == b'&').filter(|parameter| !is_ignored(parameter)).collect();
        let query = kept.join(&b'&');
        let question_mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
        Some([path, question_mark, &query].concat())
    }

    /// What the rules that matched the request say about a response to it.
    pub fn response<'r>(&'r self, matched: &Matched, status: u16, fields: Fields<'_>) -> ResponseSettings<'r> {
        let mut settings = ResponseSettings::default();
        for rule in matched.rules.iter().filter_map(|index| self.0.get(*index)) {
            if !response_matches(&rule.when, status, fields) {
                continue;
            }
            let then = &rule.then;
            if rule.when.response.is_some() {
                settings.cache = then.cache.or(settings.cache);
            }
            let seconds =
                |time: Option<edge_config::Duration>| time.map(|time| DeltaSeconds::saturating(time.get().as_secs()));
            settings.ttl = seconds(then.ttl).or(settings.ttl);
            settings.ttl_max = seconds(then.ttl_max).or(settings.ttl_max);
            settings.surrogate_keys.extend(then.surrogate_key.iter().map(String::as_str));
            settings.browser_ttl = seconds(then.browser_ttl).or(settings.browser_ttl);
            settings.stale_while_revalidate = seconds(then.stale_while_revalidate).or(settings.stale_while_revalidate);
            settings.stale_if_error = seconds(then.stale_if_error).or(settings.stale_if_error);
            settings.strip.extend(then.strip_response.iter().map(String::as_str));
            for (name, value) in &then.set_response {
                settings.set.retain(|(other, _)| other != name);
                settings.set.push((name, value));
            }
        }
        settings
    }

    /// The rules that match, in order.
    pub fn matching<'r>(&'r self, matched: &'r Matched) -> impl Iterator<Item = &'r Rule> {
        matched.rules.iter().filter_map(|index| self.0.get(*index))
    }

    fn thens(&self, matched: &Matched) -> impl Iterator<Item = &Then> {
        let rules = matched.rules.iter().filter_map(|index| self.0.get(*index));
        rules.map(|rule| &rule.then)
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}

/// A request taken apart, as far as rules look into it.
struct RequestParts<'a> {
    path: &'a [u8],
    host: Vec<u8>,
    facts: &'a Facts<'a>,
}

impl<'a> RequestParts<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        let end = memchr::memchr(b'?', facts.target).unwrap_or(facts.target.len());
        // A name is the same with the dot that ends a full one: the key has it so, and rules must not be got around by it.
        let host = super::snapshot::without_port(facts.host);
        let host = host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase();
        Self { path: facts.target.get(..end).unwrap_or_default(), host, facts }
    }

    fn matches(&self, when: &When) -> bool {
        let any = |globs: &[Glob], text: &[u8]| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        any(&when.path, self.path)
            && any(&when.host, &self.host)
            && (when.method.is_empty() || when.method.iter().any(|method| method == self.facts.method))
            && (when.client.is_empty() || when.client.iter().any(|network| network.contains(self.facts.client)))
            && fields_match(&when.header, self.facts.fields)
            && when.cookie.iter().all(|wanted| named(wanted, self.cookies()))
            && when.query.iter().all(|wanted| named(wanted, self.parameters()))
    }

    fn cookies(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        let pairs = self.facts.fields.values("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
        pairs.map(|pair| {
            let (name, value) = split_at_sign(pair.trim_ascii());
            (name.into(), value.into())
        })
    }

    fn parameters(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        let query = self.facts.target.get(self.path.len() + 1..).unwrap_or_default();
        query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = split_at_sign(pair);
            (decoded(name), decoded(value))
        })
    }
}

fn split_at_sign(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (pair, b""),
    }
}

/// Whether what has a name is as it should be.
fn named<'a>(wanted: &NamedMatch, mut all: impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)>) -> bool {
    let has = |name: &[u8]| name == wanted.name.as_bytes();
    match &wanted.value {
        ValueMatch::Present => all.any(|(name, _)| has(&name)),
        ValueMatch::Absent => !all.any(|(name, _)| has(&name)),
        ValueMatch::Any(globs) => all.any(|(name, value)| has(&name) && globs.iter().any(|glob| glob.matches(&value))),
    }
}

fn fields_match(wanted: &[NamedMatch], fields: Fields<'_>) -> bool {
    wanted.iter().all(|wanted| match &wanted.value {
        ValueMatch::Present => fields.contains(&wanted.name),
        ValueMatch::Absent => !fields.contains(&wanted.name),
        ValueMatch::Any(globs) => fields.values(&wanted.name).any(|value| globs.iter().any(|glob| glob.matches(value))),
    })
}

fn response_matches(when: &When, status: u16, fields: Fields<'_>) -> bool {
    let Some(response) = &when.response else { return true };
    let media_type = || {
        let value = fields.first("content-type").unwrap_or_default();
        value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
    };
    (response.status.is_empty() || response.status.iter().any(|range| range.contains(status)))
        && (response.content_type.is_empty() || {
            let media_type = media_type();
            response.content_type.iter().any(|glob| glob.matches(&media_type))
        })
        && fields_match(&response.header, fields)
}

#[cfg(test)]
mod tests {
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
}
