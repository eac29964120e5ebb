//! What the rules of a site make of requests and answers, with an origin that does as it is told (test only).

mod agreement;
mod kinds;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use edge_config::section::site::ErrorPage;
use edge_config::section::status::StatusRange;
use parking_lot::Mutex;

use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::origin::group::Group;
use crate::origin::{Failure, Interims, OriginBody, OriginRequest, OriginResponse, Upstream};
use crate::pipeline::Pipeline;
use crate::pipeline::request::{Forwarded, Method, Request};
use crate::routing::rule::Facts;
use crate::routing::{Backings, GroupIndex, Site};
use crate::semantics::cache_key::KeyParts;
use crate::semantics::directives::RequestDirectives;
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::store::Store;
use crate::store::key::Keyer;
use crate::store::record::StoredResponse;
use crate::store::tiers::DiskPlan;
use crate::telemetry::metrics::Metrics;

thread_local! {
    static SPAWNED: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs to its end what waits for nothing but what it spawns, and that too.
fn run<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let (mut context, mut done, mut spawned) = (Context::from_waker(Waker::noop()), None, Vec::<Work>::new());
    for _ in 0..1000 {
        if done.is_none()
            && let Poll::Ready(result) = work.as_mut().poll(&mut context)
        {
            done = Some(result);
        }
        spawned.append(&mut SPAWNED.take());
        spawned.retain_mut(|work| work.as_mut().poll(&mut context).is_pending());
        if spawned.is_empty()
            && let Some(result) = done.take()
        {
            return result;
        }
    }
    panic!("it goes on for ever");
}

/// Gives one answer after the other, and remembers what it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<(u16, String)>>,
    asked: Mutex<Vec<OriginRequest>>,
}

struct Body(Option<Bytes>);

#[async_trait]
impl OriginBody for Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl Upstream for Script {
    async fn open(&self, request: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        self.asked.lock().push(request.clone());
        let (status, fields) = self.answers.lock().pop_front().ok_or(Failure::Unreachable)?;
        let body = (status != 304 && request.method == "GET").then(|| Bytes::from_static(b"body"));
        let length = body.as_ref().map(|body| body.len() as u64);
        Ok(OriginResponse {
            status,
            fields: fields.into(),
            length,
            body: Box::new(Body(body)),
            retries: 0,
            origin: 0,
            judged: None,
        })
    }
}

/// What a client got.
#[derive(Default)]
struct Got {
    status: u16,
    fields: Vec<u8>,
    body: Vec<u8>,
}

impl Got {
    fn field(&self, name: &str) -> String {
        let values: Vec<_> = Fields::new(&self.fields).values(name).map(String::from_utf8_lossy).collect();
        values.join(" | ")
    }

    /// What `Cache-Status` says of this node, without the name.
    fn says(&self) -> String {
        self.field("cache-status").replace("littoral; ", "")
    }
}

impl Exchange for Got {
    async fn interim(&mut self, _: u16, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn stored(&mut self, stored: &Arc<StoredResponse>, part: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        self.head(stored.status(), &[dynamic, stored.fields().as_bytes()], BodyLength::None);
        if part == StoredPart::Whole {
            let slices: Vec<&[u8]> = stored.slices(0..stored.body_len()).collect();
            self.body(&slices).await?;
        }
        Ok(())
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], _: BodyLength) {
        (self.status, self.fields) = (status, fields.concat());
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        self.body.extend(slices.concat());
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn gone(&mut self) {
        pending::<()>().await;
    }
}

/// A node with one site.
struct Node {
    pipeline: Arc<Pipeline>,
    site: Arc<Site>,
    origin: Arc<Script>,
}

impl Node {
    /// `rules`: what is between the braces of `when` and of `then`.
    fn new(rules: &[(&str, &str)]) -> Self {
        Self::with(rules, |_| {})
    }

    fn with(rules: &[(&str, &str)], change: impl FnOnce(&mut Site)) -> Self {
        let tables: Vec<String> = rules
            .iter()
            .map(|(when, then)| format!("[[site.s.rule]]\nwhen = {{ {when} }}\nthen = {{ {then} }}\n"))
            .collect();
        let rules = edge_config::load::rules_of(&tables.concat());
        let address: edge_config::section::origin::Origin = "http://scripted".parse().expect("an origin");
        let mut config = edge_config::section::site::Site::of_one("s", address.clone());
        config.rules = rules.unwrap_or_else(|problems| panic!("{}", problems.summary()));
        let origin = Arc::new(Script::default());
        let mut site = Site::new(&config, 0, Backings::of_one(Group::idle("s", address), origin.clone()), None);
        change(&mut site);
        let metrics = Metrics::new("scripted");
        let store = Store::new(64 << 20, Arc::default(), Keyer::new([7; 32]), metrics.clone(), &DiskPlan::default());
        let pipeline = Pipeline::new(store, metrics, |work| SPAWNED.with_borrow_mut(|spawned| spawned.push(work)));
        Self { pipeline, site: Arc::new(site), origin }
    }

    /// Has the origin answer this after what it was told before.
    fn script(&self, status: u16, fields: &str) -> &Self {
        let fields = fields.split('\n').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
        self.origin.answers.lock().push_back((status, fields));
        self
    }

    fn get(&self, target: &str, fields: &str) -> Got {
        self.ask(Method::Get, target, fields)
    }

    fn ask(&self, method: Method, target: &str, fields: &str) -> Got {
        self.with_request(method, target, fields, clock::wall(), |request| {
            let mut got = Got::default();
            let decision = self.pipeline.decide(request);
            run(self.pipeline.answer(request, decision, &mut got)).expect("the client takes everything");
            got
        })
    }

    fn with_request<T>(
        &self,
        method: Method,
        target: &str,
        fields: &str,
        now: UnixMs,
        act: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        let block: String = fields.split('\n').filter(|line| !line.is_empty()).map(|l| format!("{l}\r\n")).collect();
        let fields = Fields::new(block.as_bytes());
        let name = if method == Method::Get { "GET" } else { "HEAD" };
        let client = [127, 0, 0, 1].into();
        let facts = Facts { target: target.as_bytes(), host: b"a", method: name, fields, client, geo: None };
        let matched = self.site.rules.request(&facts);
        let kept = matched.as_ref().and_then(|matched| self.site.rules.target(matched, target.as_bytes()));
        let target = kept.as_deref().unwrap_or(target.as_bytes());
        let parts = KeyParts::of_url("s", "http", b"a", target);
        let forward = |forwarded: Forwarded, out: &mut Vec<u8>| {
            if forwarded == Forwarded::Own {
                out.extend_from_slice(block.as_bytes());
            }
        };
        let conditional = ["if-none-match", "if-match", "if-modified-since"].iter().any(|name| fields.contains(name));
        let request = Request {
            client: None,
            disk: true,
            session: crate::origin::session::Session::default(),
            rounds: 0,
            in_full: false,
            by_node: None,
            told: b"",
            site: &self.site,
            matched: matched.as_ref(),
            method,
            scheme: "http",
            target,
            asked: target,
            group: GroupIndex::OWN,
            host: b"a",
            fields,
            key: self.pipeline.store.keyer.primary(&parts, &mut Vec::new()),
            directives: RequestDirectives::parse(fields),
            conditional,
            range: fields.contains("range"),
            authorization: fields.contains("authorization"),
            now,
            forward: &forward,
        };
        act(&request)
    }

    fn asked(&self) -> Vec<String> {
        self.origin.asked.lock().iter().map(|asked| String::from_utf8_lossy(&asked.target).into_owned()).collect()
    }
}

#[test]
fn a_lifetime_does_not_share_what_was_asked_for_with_authorization() {
    let node = Node::new(&[("", "ttl = \"1h\"")]);
    node.script(200, "x-for: alice").script(200, "x-for: bob");
    assert_eq!(node.get("/", "authorization: alice").field("x-for"), "alice");
    assert_eq!(node.get("/", "authorization: bob").field("x-for"), "bob");
}

/// The first answer and the second: what `Cache-Control` says less the age that is told.
#[test]
fn lifetimes_of_browsers() {
    const FIVE: &str = "browser_ttl = \"5m\"";
    for (then, answer, expected) in [
        (FIVE, "cache-control: max-age=60\nexpires: 0\npragma: x", ["max-age=300", "max-age=300"]),
        (FIVE, "cache-control: max-age=600\nage: 100", ["max-age=400", "max-age=400"]),
        (FIVE, "cache-control: max-age=60\ncdn-cache-control: max-age=9", ["max-age=300", "max-age=300"]),
        ("browser_ttl = \"0s\"", "cache-control: max-age=60", ["no-cache", "no-cache"]),
        // Not stored for a reason that is no browser's business; the origin's Age goes to the client.
        (FIVE, "cache-control: max-age=600\nage: 100\nset-cookie: a", ["max-age=400", "max-age=400"]),
        // The origin keeps others from storing it, and its word stays.
        (FIVE, "cache-control: private", ["private", "private"]),
        (FIVE, "cache-control: no-store", ["no-store", "no-store"]),
        (FIVE, "cache-control: private\ncdn-cache-control: max-age=60", ["private", "private"]),
        (FIVE, "cache-control: max-age=1, no-store\ncdn-cache-control: max-age=60", ["max-age=1, no-store"; 2]),
    ] {
        let node = Node::new(&[("", then)]);
        node.script(200, answer).script(200, answer);
        for expected in expected {
            let got = node.get("/", "");
            assert_eq!(got.field("cache-control"), expected, "{then} {answer}");
            if expected.starts_with("max-age=300") {
                assert_eq!([got.field("expires"), got.field("pragma")], ["", ""], "{answer}");
            }
        }
    }
}

#[test]
fn a_browsers_lifetime_is_told_with_304_and_not_with_416() {
    let node = Node::new(&[("", "browser_ttl = \"5m\"")]);
    node.script(200, "etag: \"a\"\ncache-control: max-age=60");
    node.get("/", "");
    for (fields, status, control) in [
        ("if-none-match: \"a\"", 304, "max-age=300"),
        ("range: bytes=0-1", 206, "max-age=300"),
        ("range: bytes=9-", 416, ""),
    ] {
        let got = node.get("/", fields);
        assert_eq!((got.status, got.field("cache-control").as_str()), (status, control), "{fields}");
    }
}

/// `no-cache="field"`: the field is for the one client, whatever else rules make of `Cache-Control`.
#[test]
fn withheld_fields_stay_withheld() {
    for then in ["browser_ttl = \"5m\"", "ttl = \"1h\"", "ttl = \"1h\", browser_ttl = \"0s\""] {
        let node = Node::new(&[("", then)]);
        let control = "cache-control: max-age=60, no-cache=\"set-cookie\"";
        node.script(200, &format!("set-cookie: mine\netag: \"a\"\n{control}"));
        assert_eq!(node.get("/", "").field("set-cookie"), "mine", "{then}");
        let second = node.get("/", "");
        assert!(second.says().starts_with("hit"), "{then}: {}", second.says());
        assert_eq!(second.field("set-cookie"), "", "{then}");
        // Nor does one that comes with a 304 become everybody's.
        node.script(304, &format!("set-cookie: again\n{control}"));
        node.get("/", "cache-control: no-cache");
        let last = node.get("/", "");
        assert!(last.says().starts_with("hit"), "{then}: {}", last.says());
        assert_eq!(last.field("set-cookie"), "", "{then}");
    }
}

/// A request that goes past the cache leaves it as it is.
#[test]
fn what_is_not_for_the_cache_does_not_touch_it() {
    let node = Node::new(&[("cookie = { preview = true }", "cache = false")]);
    let fresh = "cache-control: max-age=60\netag: \"a\"\nx-page: ";
    let preview = "cookie: preview=1";
    // Nothing is stored for others.
    node.script(200, &format!("{fresh}draft"));
    let got = node.get("/", preview);
    assert_eq!(got.says(), "fwd=bypass; fwd-status=200; detail=rule");
    node.script(200, &format!("{fresh}public"));
    assert_eq!(node.get("/", "").says(), "fwd=uri-miss; stored; fwd-status=200");
    // What is stored is neither used nor removed, whatever comes back.
    for answer in [format!("{fresh}draft"), "cache-control: no-store\nx-page: draft".into(), "x-page: draft".into()] {
        node.script(200, &answer);
        let got = node.get("/", preview);
        assert_eq!(
            (got.field("x-page").as_str(), got.says().as_str()),
            ("draft", "fwd=bypass; fwd-status=200; detail=rule")
        );
        let got = node.get("/", "");
        assert_eq!((got.field("x-page").as_str(), got.says().contains("hit")), ("public", true), "{answer}");
    }
    // Conditions and ranges are the origin's to judge.
    node.script(304, "etag: \"a\"").script(206, "content-range: bytes 0-1/4");
    assert_eq!(node.get("/", "cookie: preview=1\nif-none-match: \"a\"").status, 304);
    assert_eq!(node.get("/", "cookie: preview=1\nrange: bytes=0-1").status, 206);
    let asked = node.origin.asked.lock().iter().map(|asked| asked.fields.clone()).collect::<Vec<_>>();
    let sent = |name: &str| asked.iter().any(|fields| Fields::new(fields).contains(name));
    assert!(sent("if-none-match") && sent("range"));
    // Who wants what is stored or nothing is not sent past it either.
    let count = asked.len();
    assert_eq!(node.get("/", "cookie: preview=1\ncache-control: only-if-cached").status, 504);
    assert_eq!(node.asked().len(), count);
}

#[test]
fn a_rule_about_the_response_says_that_it_is_not_stored() {
    let node = Node::new(&[("response = { header = { x-draft = true } }", "cache = false")]);
    let draft = "cache-control: max-age=60\nx-draft: 1";
    node.script(200, "cache-control: max-age=60").script(200, draft).script(200, draft);
    assert_eq!(node.get("/public", "").says(), "fwd=uri-miss; stored; fwd-status=200");
    assert_eq!(node.get("/draft", "").says(), "fwd=uri-miss; fwd-status=200; detail=rule");
    let second = node.get("/draft", "");
    assert_eq!((second.says().as_str(), &*second.body), ("fwd=uri-miss; fwd-status=200; detail=rule", &b"body"[..]));
}

#[test]
fn parameters_that_make_no_difference_reach_neither_key_nor_origin() {
    let node = Node::new(&[("path = \"/a\"", "ignore_query = [\"utm_*\"]")]);
    let fresh = "cache-control: max-age=60";
    node.script(200, fresh).script(200, fresh).script(200, fresh);
    for (target, hit) in
        [("/a?x=1&utm_a=2", false), ("/a?utm_b&x=1", true), ("/a?utm_b", false), ("/a", true), ("/b?utm_a=1", false)]
    {
        assert_eq!(node.get(target, "").says().contains("hit"), hit, "{target}");
    }
    assert_eq!(node.asked(), ["/a?x=1", "/a", "/b?utm_a=1"]);
}

#[test]
fn rules_apply_again_to_what_a_304_freshens() {
    let node = Node::new(&[
        ("", "ttl = \"1h\", browser_ttl = \"5m\", strip_response = [\"x-inner\"]"),
        ("response = { header = { x-kind = \"news\" } }", "ttl = \"1m\""),
    ]);
    node.script(200, "etag: \"a\"\ncache-control: max-age=5\nx-inner: 1");
    node.get("/", "");
    node.script(304, "etag: \"a\"\ncache-control: max-age=7, no-cache\nx-inner: 2\nx-kind: news\nage: 10");
    assert!(node.get("/", "cache-control: no-cache").says().contains("fwd-status=304"));
    let got = node.get("/", "");
    assert_eq!(
        [got.says(), got.field("age"), got.field("x-inner"), got.field("x-kind"), got.field("cache-control")],
        ["hit; ttl=50", "10", "", "news", "max-age=310"]
    );
    // The origin's own word is remembered beneath the browser's: it may still take the response back.
    node.script(304, "etag: \"a\"\ncache-control: no-store");
    node.get("/", "cache-control: no-cache");
    node.script(200, "");
    assert!(node.get("/", "").says().starts_with("fwd=uri-miss"));
}

#[test]
fn windows_for_stale_responses() {
    let old = "cache-control: max-age=10\nage: 50";
    for (then, answer, expected) in [
        ("stale_while_revalidate = \"100s\"", old, "hit; ttl=-40; detail=stale"),
        // Too old for that; but nothing forbids to stand in for an origin that is not there (RFC 9111 section 4.2.4).
        ("stale_while_revalidate = \"20s\"", old, "hit; ttl=-40; detail=origin-unreachable"),
        ("stale_while_revalidate = \"1h\"", "cache-control: s-maxage=10\nage: 50", "hit; ttl=-40; detail=stale"),
        ("stale_if_error = \"100s\"", old, "hit; ttl=-40; detail=origin-unreachable"),
        ("stale_if_error = \"20s\"", old, "fwd=stale; detail=origin-unreachable"),
        (
            "stale_if_error = \"1h\"",
            "cache-control: max-age=10, must-revalidate\nage: 50",
            "fwd=stale; detail=origin-unreachable",
        ),
    ] {
        let node = Node::new(&[("", then)]);
        node.script(200, answer);
        node.get("/", "");
        assert_eq!(node.get("/", "").says(), expected, "{then} {answer}");
    }
}

/// An error does not take the place of what may stand in for it, though `ttl` is for every status.
#[test]
fn a_lifetime_for_errors_does_not_undo_stale_if_error() {
    for (then, expected) in [
        ("ttl = \"40s\", stale_if_error = \"1h\"", ["200 old", "200 new"]),
        // Nothing may stand in: the error is an answer like any other.
        ("ttl = \"40s\"", ["500 error", "500 error"]),
        ("ttl = \"40s\", stale_if_error = \"5s\"", ["500 error", "500 error"]),
    ] {
        let node = Node::new(&[("", then)]);
        node.script(200, "age: 50\nx-page: old").script(500, "x-page: error").script(200, "x-page: new");
        node.get("/", "");
        for expected in expected {
            let got = node.get("/", "");
            assert_eq!(format!("{} {}", got.status, got.field("x-page")), expected, "{then}");
        }
    }
}

#[test]
fn a_site_may_keep_to_itself_what_its_cache_does() {
    let node = Node::with(&[], |site| site.cache_status = false);
    let upstream = "cache-control: max-age=60\ncache-status: other; hit";
    node.script(200, upstream).script(200, "cache-control: no-store\ncache-status: other; hit");
    for target in ["/a", "/a", "/b", "/nobody-there"] {
        assert_eq!(node.get(target, "").field("cache-status"), "", "{target}");
    }
}

#[test]
fn pages_for_answers_of_our_own() {
    let page = |status: &str, body: &str| ErrorPage {
        status: status.parse::<StatusRange>().expect("a status"),
        file: "page.html".into(),
        content_type: "text/html; charset=utf-8",
        body: body.as_bytes().into(),
    };
    let node = Node::with(&[], |site| site.error_pages = vec![page("502", "exact"), page("5xx", "class")]);
    let expected = ["text/html; charset=utf-8", "no-store", "fwd=uri-miss; detail=origin-unreachable"];
    for (method, body) in [(Method::Get, "exact"), (Method::Head, "")] {
        let got = node.ask(method, "/", "");
        assert_eq!((got.status, String::from_utf8_lossy(&got.body).as_ref()), (502, body));
        assert_eq!([got.field("content-type"), got.field("cache-control"), got.says()], expected);
    }
    assert_eq!(node.get("/", "cache-control: only-if-cached").body, b"class");
    // The origin's own errors are its own.
    node.script(502, "");
    assert_eq!(node.get("/", "").body, b"body");
}
