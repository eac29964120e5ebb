use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use edge_config::section::admin::Token;
use serde_json::Value;

use super::*;
use crate::admin::access::{Access, Detail};
use crate::admin::certificates::{CertificateState, Change, Held, NotChanged, Unusable};
use crate::admin::purge::tests::snapshot;
use crate::admin::sites::{HostState, SiteState};
use crate::admin::{NotUpgraded, Operate};
use crate::pipeline::Pipeline;
use crate::pipeline::explain::{Named as NamedRequest, Question};
use crate::purge::local::{FIRST_GENERATION, LocalLog};
use crate::purge::nats::documents::Which;
use crate::purge::nats::shelf::Shelf;
use crate::routing::Snapshot;
use crate::semantics::cache_key::KeyParts;
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;
use crate::store::persist::Label;
use crate::store::{Store, tiers::DiskPlan};
use crate::telemetry::metrics::Metrics;

const VERBS: [Verb; 6] =
    [Verb::Purge, Verb::Explain, Verb::Observe, Verb::Certificates, Verb::Operate, Verb::Configure];

/// What a request about the site `shop` adds to the path of a route, its body, and what who may everything is answered. A
/// route that asks for a token has a row here.
const REQUESTS: &[(&str, &str, &str, &str, u16)] = &[
    ("GET", "/metrics", "", "", 200),
    ("GET", "/v1/statistics", "", "", 200),
    ("GET", "/v1/stat", "", "", 200),
    ("POST", "/v1/purge", "", r#"{"site":"shop","tags":["a"]}"#, 200),
    ("GET", "/v1/purges/{id}", "", "", 200),
    ("GET", "/v1/nodes", "", "", 200),
    ("POST", "/v1/nodes/forget", "", r#"{"node":"a"}"#, 404),
    ("GET", "/v1/explain", "?url=https%3A%2F%2Fwww.example.com%2F", "", 200),
    ("GET", "/v1/cache/object", "?url=https%3A%2F%2Fwww.example.com%2F", "", 404),
    ("GET", "/v1/cache/objects", "?site=shop", "", 200),
    ("GET", "/v1/cache/verify", "", "", 200),
    ("POST", "/v1/cache/verify", "?url=https%3A%2F%2Fwww.example.com%2F", "", 404),
    ("GET", "/v1/origins", "", "", 200),
    ("POST", "/v1/origins/drain", "", r#"{"site":"shop","origin":"127.0.0.1:1"}"#, 200),
    ("POST", "/v1/origins/undrain", "", r#"{"site":"shop","origin":"127.0.0.1:1"}"#, 200),
    ("GET", "/v1/certificates", "", "", 200),
    ("POST", "/v1/certificates", "", r#"{"site":"shop","chain":"","key":""}"#, 200),
    ("POST", "/v1/certificates/account/forget", "", "", 200),
    ("GET", "/v1/sites", "", "", 200),
    ("POST", "/v1/sites", "", r#"{"site":"shop","hosts":["a.test"],"origins":["http://127.0.0.1:1"]}"#, 409),
    ("POST", "/v1/sites/delete", "", r#"{"site":"shop"}"#, 409),
    ("POST", "/v1/hosts", "", r#"{"site":"shop","host":"a.test"}"#, 409),
    ("POST", "/v1/hosts/delete", "", r#"{"site":"shop","host":"a.test"}"#, 409),
    ("POST", "/v1/hosts/revoke", "", r#"{"site":"shop","host":"a.test"}"#, 409),
    ("POST", "/v1/hosts/allow", "", r#"{"site":"shop","host":"a.test"}"#, 409),
    ("POST", "/v1/certificates/delete", "", r#"{"site":"shop","fingerprint":"00"}"#, 404),
    // The node follows no hub, which is told to who may ask.
    ("GET", "/v1/config", "", "", 200),
    ("GET", "/v1/config/history", "?site=shop", "", 409),
    ("POST", "/v1/config/push", "", r#"{"site":"shop","text":"[site.shop]"}"#, 409),
    ("POST", "/v1/config/rollback", "", r#"{"site":"shop"}"#, 409),
    ("POST", "/v1/config/diff", "", r#"{"site":"shop","text":""}"#, 409),
    ("POST", "/v1/config/reload", "", "", 200),
    ("POST", "/v1/drain", "", "", 202),
    ("POST", "/v1/upgrade", "", "", 409),
];

/// A node of two sites that does what it is told, and nothing.
struct Nothing {
    snapshot: Arc<Snapshot>,
    access: Arc<Access>,
}

#[async_trait]
impl Operate for Nothing {
    fn reload(&self) -> Result<Value, Value> {
        Ok(Value::Null)
    }

    fn shelf(&self) -> Option<Arc<Shelf>> {
        None
    }

    fn try_document(&self, _: &Which, _: &str, _: Detail) -> Result<(), Value> {
        Ok(())
    }

    fn certificates(&self) -> Held {
        let state = |site: Option<&str>| CertificateState {
            site: site.map(str::to_owned),
            names: site.map(|site| format!("www.{site}.test")).into_iter().collect(),
            unused: Vec::new(),
            issuer: "an authority".into(),
            not_before: 1,
            not_after: 2,
            fingerprint: "00".into(),
            from: "file",
        };
        let unusable = ["shop", "blog"].map(|site| Unusable {
            site: site.into(),
            why: format!("of {site}"),
            fingerprints: Vec::new(),
        });
        let certificates = vec![state(Some("shop")), state(Some("blog")), state(None)];
        Held { certificates, unusable: unusable.into() }
    }

    fn change_certificates(&self, _: &str, _: &str, _: &Change) -> Result<(String, String), NotChanged> {
        Ok((String::new(), "00".into()))
    }

    fn change_certificates_here(&self, _: &str, change: &Change) -> Result<String, NotChanged> {
        match change {
            Change::Add { .. } => Ok("00".into()),
            Change::Remove { .. } => Err(NotChanged::Unknown("there is none".into())),
        }
    }

    async fn forget_account(&self) -> Result<(), String> {
        Ok(())
    }

    fn site_states(&self) -> Vec<SiteState> {
        let state =
            |site: &str| SiteState { site: site.to_owned(), target: None, addresses: Vec::new(), hosts: Vec::new() };
        ["shop", "blog"].map(state).into()
    }

    async fn judge_host(&self, _: &str, _: &str, _: HostChange) -> Result<HostState, String> {
        Err("nothing is known of it".to_owned())
    }

    fn drain(&self) {}

    fn is_draining(&self) -> bool {
        false
    }

    fn is_withdrawn(&self) -> bool {
        false
    }

    fn is_frozen(&self) -> bool {
        false
    }

    async fn upgrade(&self) -> Result<u32, NotUpgraded> {
        Err(NotUpgraded::NotTried("it does nothing".to_owned()))
    }

    fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    fn purge_rate(&self) -> u32 {
        1_000
    }

    async fn explain(&self, _: &Question) -> Result<Value, String> {
        Ok(Value::Null)
    }

    fn named(&self, question: &Question) -> Result<Option<NamedRequest>, String> {
        let Some(site) = self.snapshot.site(question.host.as_bytes()) else { return Ok(None) };
        let Question { scheme, host, target, .. } = question.clone();
        let parts = KeyParts::of_url(&site.name, &scheme, host.as_bytes(), target.as_bytes());
        let key = Keyer::new([7; 32]).primary(&parts, &mut Vec::new());
        let label = Label { site: site.name.clone(), scheme, host, target };
        Ok(Some(NamedRequest { key, label, fields: Vec::new() }))
    }

    fn describe(&self) -> Value {
        Value::Object(serde_json::Map::new())
    }

    fn tell(&self) {}
}

/// Tokens are called by what they may: `shop-purge`, `*-operate`; `blog-but-explain` may the others.
fn admin() -> Admin {
    let mut tokens = Vec::new();
    for site in ["shop", "blog", "*"] {
        for verb in VERBS {
            let others = VERBS.into_iter().filter(|other| *other != verb).collect();
            for (name, verbs) in [("", vec![verb]), ("but-", others)] {
                let name = format!("{site}-{name}{verb:?}").to_lowercase();
                let hash = *blake3::hash(name.as_bytes()).as_bytes();
                tokens.push(Token { name, hash, sites: vec![site.to_owned()], verbs });
            }
        }
    }
    let metrics = Metrics::new("routes");
    let keyer = || Keyer::new([7; 32]);
    let store = Store::new(64 << 20, Arc::default(), keyer(), metrics.clone(), &DiskPlan::default());
    let ledger = store.ledger.clone();
    let log = LocalLog::open(None, "n", ledger, keyer(), UnixMs(1), FIRST_GENERATION).expect("a log");
    let snapshot = Arc::new(snapshot(&[("shop", "www.example.com"), ("blog", "blog.test")]));
    let node = Nothing { snapshot, access: Arc::new(Access::new(tokens)) };
    let listen = Vec::<SocketAddr>::new();
    Admin::new(Pipeline::new(store, metrics, drop), Arc::new(node), Arc::new(log), listen, false)
}

/// A node ends outside of what it ran in.
fn on_a_node(test: impl AsyncFnOnce(&Admin)) {
    let admin = admin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test(&admin));
}

async fn ask(admin: &Admin, method: &Method, target: &str, body: &str, token: Option<&str>) -> Reply {
    let authorization = token.map(|token| format!("Bearer {token}"));
    admin.answer(&mut Asked::of(method.clone(), target, authorization.as_deref(), body)).await
}

#[test]
fn every_route_below_v1_refuses_who_may_not_ask() {
    on_a_node(every_route_refuses);
}

async fn every_route_refuses(admin: &Admin) {
    let purged = ask(admin, &Method::POST, "/v1/purge", r#"{"site":"shop","tags":["a"]}"#, Some("*-purge")).await;
    let purged: Value = serde_json::from_str(&purged.body).expect("a receipt");
    let id = purged["id"].as_str().expect("an id");
    let mut rows: Vec<_> = REQUESTS.iter().collect();
    for route in ROUTES {
        let For(verb, reach, _) = route.handler else {
            let open = ["/livez", "/readyz", "/announcez", "/currentz", "/test/clock", "/v1/openapi.json"];
            assert!(open.contains(&route.path), "{} asks for no token", route.path);
            continue;
        };
        let row = rows.iter().position(|row| (row.0, row.1) == (route.method.as_str(), route.path));
        let row = row.unwrap_or_else(|| panic!("{} {} has no row in REQUESTS", route.method, route.path));
        let (_, path, more, body, allowed) = rows.remove(row);
        let target = path.replace("{id}", id) + more;
        let named = format!("{verb:?}").to_lowercase();
        for (token, expected) in [
            (None, vec![401]),
            (Some("guess".to_owned()), vec![401]),
            (Some(format!("shop-but-{named}")), vec![403]),
            (Some(format!("*-but-{named}")), vec![403]),
            (Some(format!("blog-{named}")), if reach == Own { vec![200, 202] } else { vec![401, 403, 404] }),
            (Some(format!("*-{named}")), vec![*allowed]),
        ] {
            let reply = ask(admin, &route.method, &target, body, token.as_deref()).await;
            let (status, text) = (reply.status.as_u16(), &reply.body);
            assert!(expected.contains(&status), "{} {target} as {token:?}: {status} {text}", route.method);
            let is_others = token.as_deref().is_none_or(|token| !token.starts_with("*-"));
            assert!(!is_others || !text.contains("shop"), "{} {target} as {token:?}: {text}", route.method);
        }
    }
    assert!(rows.is_empty(), "there are no such routes: {rows:?}");
}

#[test]
fn what_is_nowhere_and_what_is_asked_for_in_another_way() {
    on_a_node(nowhere_and_otherwise);
}

async fn nowhere_and_otherwise(admin: &Admin) {
    for (method, target, status) in [
        (Method::GET, "/livez", 200),
        (Method::HEAD, "/livez", 405),
        (Method::POST, "/v1/stat", 405),
        (Method::GET, "/v1/purge", 405),
        (Method::DELETE, "/v1/purges/1", 405),
        (Method::GET, "/v1/purges", 404),
        (Method::GET, "/v1/purges/", 401),
        (Method::PUT, "/v1/cache/verify", 405),
        (Method::GET, "/v1/statistics/", 404),
        (Method::GET, "/v1/statistics", 401),
        (Method::GET, "/metrics", 401),
        (Method::DELETE, "/v1/certificates", 405),
        (Method::GET, "/v1/certificates/delete", 405),
        (Method::GET, "/", 404),
        (Method::GET, "/v1/openapi.json?a", 200),
        (Method::POST, "/test/clock?advance_ms=1", 403),
    ] {
        let reply = ask(admin, &method, target, "", None).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {target}: {}", reply.body);
    }
    let nowhere = ask(admin, &Method::GET, "/", "", None).await.body;
    assert!(ROUTES.iter().all(|route| nowhere.contains(route.path)), "{nowhere}");
    assert_eq!(nowhere.matches("/v1/cache/verify").count(), 1, "{nowhere}");
}

/// The module's doc has a line of each, and no other.
#[test]
fn the_documented_routes_are_these() {
    let page = include_str!("../mod.rs");
    let begins = |line: &str, route: &Route| {
        let rest = line.strip_prefix(&format!("//! | `{} {}", route.method, route.path));
        rest.is_some_and(|rest| rest.starts_with(['`', '?']))
    };
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("//! | `")).collect();
    for route in ROUTES {
        assert!(lines.iter().any(|line| begins(line, route)), "no line has {} {}", route.method, route.path);
    }
    for line in &lines {
        assert!(ROUTES.iter().any(|route| begins(line, route)), "there is no such route: {line}");
    }
}
