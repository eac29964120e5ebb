use super::*;
use crate::admin::purge::tests::{caller, snapshot};

fn wanted(site: &str, scheme: Option<&str>, host: Option<&str>, target: &str) -> Wanted {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Wanted { site: site.into(), scheme: owned(scheme), host: owned(host), target: target.into() }
}

#[test]
fn listings() {
    let snapshot = snapshot(&[("shop", "www.example.com"), ("blog", "*.blog.test")]);
    for (query, sites, expected) in [
        ("site=shop", &["*"][..], wanted("shop", None, None, "")),
        ("", &["shop"], wanted("shop", None, None, "")),
        ("prefix=/a", &["shop"], wanted("shop", None, None, "/a")),
        ("prefix=WWW.example.com/a?b", &["*"], wanted("shop", None, Some("www.example.com"), "/a?b")),
        ("prefix=https://a.blog.test:8443", &["*"], wanted("blog", Some("https"), Some("a.blog.test:8443"), "")),
        ("site=shop&prefix=http://x/y", &["*"], wanted("shop", Some("http"), Some("x"), "/y")),
    ] {
        let expected = Listing { wanted: expected, limit: LIMIT, cursor: Cursor::default() };
        assert_eq!(read_listing(Some(query), &snapshot, &caller(sites)), Ok(expected), "{query}");
    }
    let paged = read_listing(Some("site=shop&limit=7&cursor=1.2.ff"), &snapshot, &caller(&["*"]));
    let cursor = Cursor { disk: 1, shard: 2, from: 255 };
    assert_eq!(paged.map(|listing| (listing.limit, listing.cursor)), Ok((7, cursor)));
    for (query, sites, key, denied) in [
        ("", &["*"][..], "site", false),
        ("", &["shop", "blog"], "site", false),
        ("site=none", &["*"], "site", false),
        ("site=blog", &["shop"], "site", true),
        ("site=none", &["shop"], "site", true),
        ("prefix=http://a.blog.test/", &["shop"], "site", true),
        ("prefix=elsewhere.test/", &["shop"], "prefix", true),
        ("prefix=elsewhere.test/", &["*"], "prefix", false),
        ("prefix=www.example.com", &["*"], "prefix", false),
        ("prefix=http:///a", &["*"], "prefix", false),
        ("prefix=a@b/", &["*"], "prefix", false),
        ("site=shop&limit=0", &["*"], "limit", false),
        ("site=shop&limit=1001", &["*"], "limit", false),
        ("site=shop&cursor=x", &["*"], "cursor", false),
        ("site=shop&what=this", &["*"], "what", false),
    ] {
        let found = match read_listing(Some(query), &snapshot, &caller(sites)) {
            Err(Refused::Wrong(wrong)) => (wrong, false),
            Err(Refused::NotAllowed(wrong)) => (wrong, true),
            Ok(listing) => panic!("{query}: {listing:?}"),
        };
        assert_eq!((found.0[0].key.as_str(), found.1), (key, denied), "{query} {sites:?}");
    }
}

#[test]
fn verifications() {
    let everything = |mib_per_second| Ok(Verifying::Everything { mib_per_second });
    assert_eq!(read_verifying(Some("all=1")), everything(64));
    assert_eq!(read_verifying(Some("rate=5&all=1")), everything(5));
    let one = read_verifying(Some("url=http://a/b&header=Accept:%20x"));
    assert!(matches!(one, Ok(Verifying::One(question)) if question.target == "/b" && question.fields.len() == 1));
    for (query, key) in [
        (None, "url"),
        (Some(""), "url"),
        (Some("all=yes"), "all"),
        (Some("all=1&rate=0"), "rate"),
        (Some("all=1&url=http://a/"), "url"),
        (Some("rate=5"), "rate"),
        (Some("url=nonsense"), "url"),
    ] {
        assert_eq!(read_verifying(query).map_err(|wrong| wrong.key), Err(key.to_owned()), "{query:?}");
    }
}
