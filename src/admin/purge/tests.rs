use std::sync::Arc;

use edge_config::section::admin::{Token, Verb};
use edge_config::section::limits::Limits;
use edge_config::section::site::HostPattern;

use super::*;
use crate::admin::access::Access;
use crate::origin::Nobody;
use crate::origin::group::Group;
use crate::routing::Backings;

pub fn snapshot(sites: &[(&str, &str)]) -> Snapshot {
    let made = sites.iter().enumerate().map(|(index, (name, host))| {
        let origin: edge_config::section::origin::Origin = "http://127.0.0.1:1".parse().expect("an origin");
        let mut config = edge_config::section::site::Site::of_one(name, origin.clone());
        let rules = "[[site.s.rule]]\nwhen = { path = \"/q*\" }\nthen = { ignore_query = \"utm_*\" }\n";
        config.rules = edge_config::load::rules_of(rules).unwrap_or_else(|problems| panic!("{}", problems.summary()));
        let site =
            Arc::new(Site::new(&config, index, Backings::of_one(Group::idle(name, origin), Arc::new(Nobody)), None));
        (site, vec![host.parse::<HostPattern>().expect("a host")])
    });
    Snapshot::new(1, Limits::default(), made.collect())
}

pub fn caller(sites: &[&str]) -> Caller {
    let token = Token {
        name: "t".into(),
        hash: *blake3::hash(b"t").as_bytes(),
        sites: sites.iter().map(|site| (*site).to_owned()).collect(),
        verbs: vec![Verb::Purge],
    };
    Access::new(vec![token]).caller(Some(b"Bearer t"), Verb::Purge).expect("it may")
}

fn read(body: &str, sites: &[&str]) -> Result<Vec<String>, Refused> {
    let snapshot = snapshot(&[("shop", "www.example.com"), ("blog", "*.blog.test")]);
    let request: PurgeRequest = serde_json::from_str(body).expect("a request");
    let selectors = request.selectors(&snapshot, &caller(sites))?;
    Ok(selectors.iter().map(|s| format!("{} {} {}", s.site, s.kind.as_str(), s.value)).collect())
}

#[test]
fn what_is_named_becomes_selectors() {
    for (body, expected) in [
        (r#"{"everything":true}"#, vec!["* everything "]),
        (r#"{"sites":["shop","blog","shop"]}"#, vec!["shop site ", "blog site "]),
        (r#"{"hosts":["WWW.example.com","a.blog.test"]}"#, vec!["shop host www.example.com", "blog host a.blog.test"]),
        (
            r#"{"urls":["https://www.example.com"]}"#,
            vec!["shop url http://www.example.com/", "shop url https://www.example.com/"],
        ),
        (
            r#"{"urls":["http://www.example.com:8080/q?utm_a=1&b"]}"#,
            vec![
                "shop url http://www.example.com:8080/q?utm_a=1&b",
                "shop url http://www.example.com:8080/q?b",
                "shop url https://www.example.com:8080/q?utm_a=1&b",
                "shop url https://www.example.com:8080/q?b",
            ],
        ),
        (r#"{"site":"blog","tags":["a b"],"prefixes":["/x"]}"#, vec!["blog tag a b", "blog prefix /x"]),
        (r#"{"prefixes":["https://www.example.com/a/"]}"#, vec!["shop prefix www.example.com/a/"]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(read(body, &["*"]), Ok(expected), "{body}");
    }
    assert_eq!(read(r#"{"tags":["a"]}"#, &["blog"]), Ok(vec!["blog tag a".into()]), "the token says which site");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let body = r#"{"urls":["nonsense","https://nobody.test/"],"tags":["a",""],"prefixes":["x"],"hosts":["a b"],"sites":["no"]}"#;
    let Err(Refused::Wrong(wrong)) = read(body, &["*"]) else { panic!("it is refused") };
    let keys: Vec<&str> = wrong.iter().map(|wrong| wrong.key.as_str()).collect();
    assert_eq!(keys, ["sites[0]", "hosts[0]", "urls[0]", "urls[1]", "site", "tags[1]", "prefixes[0]"]);
    for body in ["{}", r#"{"site":"shop"}"#] {
        assert!(matches!(read(body, &["*"]), Err(Refused::Wrong(_))), "{body}");
    }
    let many = format!("{{\"site\":\"shop\",\"tags\":[{}]}}", vec!["\"a\""; SELECTORS_MAX + 1].join(","));
    assert!(matches!(read(&many, &["*"]), Err(Refused::Wrong(_))));
    assert!(serde_json::from_str::<PurgeRequest>(r#"{"tag":["a"]}"#).is_err(), "a key nobody knows");
}

#[test]
fn a_token_purges_its_own_sites_and_learns_nothing_of_others() {
    for body in [
        r#"{"everything":true}"#,
        r#"{"sites":["blog"]}"#,
        r#"{"sites":["no-such-site"]}"#,
        r#"{"hosts":["a.blog.test"]}"#,
        r#"{"hosts":["nobody.test"]}"#,
        r#"{"urls":["https://a.blog.test/"]}"#,
        r#"{"prefixes":["a.blog.test/"]}"#,
        r#"{"site":"blog","tags":["a"]}"#,
        r#"{"urls":["https://www.example.com/","https://nobody.test/"]}"#,
    ] {
        let Err(Refused::NotAllowed(denied)) = read(body, &["shop"]) else { panic!("{body} is not refused") };
        assert!(denied.iter().all(|wrong| wrong.message == "the token is not for this"), "{denied:?}");
    }
    assert!(read(r#"{"urls":["https://www.example.com/"]}"#, &["shop"]).is_ok());
}

#[test]
fn waiting() {
    for (query, good) in [
        (None, true),
        (Some("wait=all"), true),
        (Some("wait=all&timeout=2s"), true),
        (Some("wait=some"), false),
        (Some("timeout=1h"), false),
        (Some("timeout=soon"), false),
        (Some("weight=all"), false),
    ] {
        assert_eq!(read_wait(query).is_ok(), good, "{query:?}");
    }
}

/// Whatever a customer sends is a request or an error, never more than the token allows, and what it names is kept.
#[test]
fn fuzzed_requests() {
    let corpus: [&[u8]; 6] = [
        br#"{"urls":["https://www.example.com/q?utm_a=1&b"],"mode":"invalidate"}"#,
        br#"{"site":"shop","tags":["a","b c"],"prefixes":["/x","www.example.com/a/"]}"#,
        br#"{"hosts":["a.blog.test"],"sites":["blog"],"everything":true}"#,
        br#"{"tags":[""],"urls":["http://[::1]:8080/"]}"#,
        br#"{"site":null,"tags":["\u0000\ud83d\ude00"]}"#,
        b"{",
    ];
    let sites = snapshot(&[("shop", "www.example.com"), ("blog", "*.blog.test")]);
    let (all, shop) = (caller(&["*"]), caller(&["shop"]));
    let (ledger, keyer) = (crate::purge::ledger::Ledger::default(), crate::store::key::Keyer::new([5; 32]));
    crate::fuzz::target("purge requests", &corpus, |input| {
        let Ok(request) = serde_json::from_slice::<PurgeRequest>(input) else { return };
        if let Ok(selectors) = request.selectors(&sites, &all) {
            assert!(!selectors.is_empty());
            for selector in &selectors {
                selector.target(&ledger, &keyer);
                let kept = serde_json::to_string(selector).expect("it can be kept");
                assert_eq!(serde_json::from_str::<Selector>(&kept).expect("it can be read again"), *selector);
            }
        }
        if let Ok(selectors) = request.selectors(&sites, &shop) {
            assert!(selectors.iter().all(|selector| selector.site == "shop"), "{selectors:?}");
        }
    });
}
