use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::front::tls::hosts::tests::sites;

/// A certificate and its key, both PEM.
pub struct Made {
    pub chain: String,
    pub key: String,
}

/// When the tests are.
const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;

pub fn made(names: &[&str]) -> Made {
    made_within(names, NOW - DAY, NOW + DAY)
}

fn made_within(names: &[&str], from: i64, to: i64) -> Made {
    let key = KeyPair::generate().expect("a key can be made");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("names of certificates");
    let at = |seconds: i64| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
    (parameters.not_before, parameters.not_after) = (at(from), at(to));
    let chain = parameters.self_signed(&key).expect("a certificate can sign itself").pem();
    Made { chain, key: key.serialize_pem() }
}

/// A certificate of a site, ready for handshakes.
pub fn own(names: &[&str]) -> OwnCertificate {
    let made = made(names);
    let (chain, key) = (read_chain(&made.chain).expect("a chain"), read_key(&made.key).expect("a key"));
    let leaf = Leaf::read(&chain).expect("a leaf");
    OwnCertificate { leaf, key: Arc::new(certified(chain, key).expect("they go together")) }
}

fn added(site: &str, text: &str, made: &Made, key: Option<&StoreKey>) -> Result<Changed, OwnError> {
    let sites = sites(&[("shop", &["shop.test", "*.shop.test"]), ("blog", &["blog.test"])]);
    add(site, text, (&made.chain, &made.key), key, &Hosts::of(&sites), NOW)
}

#[test]
fn what_is_taken_and_what_is_not() {
    let key = StoreKey::new(b"a secret");
    let (good, other) = (made(&["shop.test"]), made(&["shop.test"]));
    let many = good.chain.repeat(40);
    let (chain, own_key) = (&good.chain, &good.key);
    let rows: [(&str, &str, &str, Option<&StoreKey>, &str); 13] = [
        ("its own", chain, own_key, Some(&key), ""),
        ("an issuer behind it", &format!("{chain}{}", other.chain), own_key, Some(&key), ""),
        ("text before it", &format!("subject=shop\n{chain}"), own_key, Some(&key), ""),
        ("no store key", chain, own_key, None, "`store_key`"),
        ("no chain", "", own_key, Some(&key), "there is none"),
        ("a key as the chain", own_key, own_key, Some(&key), "there is none"),
        ("a chain as the key", chain, chain, Some(&key), "`key`: expected a private key"),
        ("the key of another", chain, &other.key, Some(&key), "not the key of the certificate"),
        ("a long chain", &many, own_key, Some(&key), "`chain` has"),
        (
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            own_key,
            Some(&key),
            "expected a certificate",
        ),
        (
            "no base64",
            "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n",
            own_key,
            Some(&key),
            "`chain`: expected",
        ),
        (
            "a long key",
            chain,
            &format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", "AAAA".repeat(1_025)),
            Some(&key),
            "`key` has 3075 bytes",
        ),
        ("no key at all", chain, "", Some(&key), "`key`: expected"),
    ];
    for (name, chain, own_key, key, expected) in rows {
        let found = added("shop", "", &Made { chain: chain.to_owned(), key: own_key.to_owned() }, key);
        let said = found.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!((said.contains(expected), found.is_ok()), (true, expected.is_empty()), "{name}: {said}");
    }
    for (name, made, expected) in [
        ("ended", made_within(&["shop.test"], NOW - 2 * DAY, NOW), Some("has ended")),
        ("ends", made_within(&["shop.test"], NOW - 2 * DAY, NOW + 1), None),
        ("an authority whose clock is ahead", made_within(&["shop.test"], NOW + 300, NOW + DAY), None),
        ("not yet", made_within(&["shop.test"], NOW + 301, NOW + DAY), Some("not valid yet")),
        ("of another site", made_within(&["blog.test"], NOW, NOW + DAY), Some("none of that is a host")),
        ("of nobody", made_within(&["else.test"], NOW, NOW + DAY), Some("none of that is a host")),
        ("of two sites", made_within(&["blog.test", "www.shop.test"], NOW, NOW + DAY), None),
        ("a wildcard", made_within(&["*.shop.test"], NOW, NOW + DAY), None),
        ("a wildcard above", made_within(&["*.test"], NOW, NOW + DAY), None),
        ("no name", made_within(&["192.0.2.1"], NOW, NOW + DAY), Some("no DNS name")),
    ] {
        let said = added("shop", "", &made, Some(&key)).err().map(|error| error.to_string());
        assert_eq!(said.is_some(), expected.is_some(), "{name}: {said:?}");
        assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "{name}");
    }
}

#[test]
fn documents_are_added_to_and_taken_from() {
    let key = StoreKey::new(b"a secret");
    let first = made(&["shop.test"]);
    let one = added("shop", "", &first, Some(&key)).expect("taken");
    // Behind it is the public part, which the certificate has too.
    let secret = first.key.lines().nth(1).expect("a line of base64");
    assert!(!one.text.contains(secret), "{secret} in {}", one.text);
    let again = added("shop", &one.text, &first, Some(&key)).expect("taken");
    let second = added("shop", &again.text, &made(&["www.shop.test"]), Some(&key)).expect("taken");
    let fingerprints = |text: &str| -> Vec<String> {
        let opened = open("shop", text, Some(&key)).unwrap_or_else(|error| panic!("{error}"));
        opened.into_iter().map(|own| own.leaf.fingerprint).collect()
    };
    assert_eq!(fingerprints(&again.text), [one.fingerprint.as_str()]);
    assert_eq!(fingerprints(&second.text), [one.fingerprint.as_str(), second.fingerprint.as_str()]);
    let colons: Vec<String> =
        one.fingerprint.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
    let less = remove(&second.text, &colons.join(":")).expect("it is there");
    assert_eq!(fingerprints(&less.text), [second.fingerprint.as_str()]);
    assert_eq!(super::fingerprints(&less.text), fingerprints(&less.text));
    assert_eq!(super::fingerprints("no document"), [""; 0]);
    assert!(matches!(remove(&less.text, &one.fingerprint), Err(OwnError::Unknown)));
    assert_eq!(remove(&less.text, &second.fingerprint).expect("it is there").text, "");
    let mut text = String::new();
    for _ in 0..CERTIFICATES_MAX {
        text = added("shop", &text, &made(&["shop.test"]), Some(&key)).expect("taken").text;
    }
    assert!(matches!(added("shop", &text, &first, Some(&key)), Err(OwnError::TooMany)));
    assert!(text.len() <= TEXT_BYTES_MAX);
}

#[test]
fn what_has_ended_makes_room() {
    let key = StoreKey::new(b"a secret");
    let sites = sites(&[("shop", &["shop.test"])]);
    let hosts = Hosts::of(&sites);
    let early = made_within(&["shop.test"], NOW - DAY, NOW + 1);
    let text = added("shop", "", &early, Some(&key)).expect("taken").text;
    let late = made_within(&["shop.test"], NOW, NOW + DAY);
    let changed = add("shop", &text, (&late.chain, &late.key), Some(&key), &hosts, NOW + 2).expect("taken");
    assert_eq!(open("shop", &changed.text, Some(&key)).expect("good").len(), 1);
}

#[test]
fn a_document_opens_for_its_site_with_its_key() {
    let key = StoreKey::new(b"a secret");
    let text = added("shop", "", &made(&["shop.test"]), Some(&key)).expect("taken").text;
    let another = StoreKey::new(b"another");
    for (name, site, text, key, expected) in [
        ("its own", "shop", text.as_str(), Some(&key), None),
        ("nothing", "shop", "", None, None),
        ("of another site", "blog", &text, Some(&key), Some("cannot be opened")),
        ("another key", "shop", &text, Some(&another), Some("cannot be opened")),
        ("no key", "shop", &text, None, Some("`store_key`")),
        ("no JSON", "shop", "[site.shop]", Some(&key), Some("cannot be read")),
        ("another form", "shop", r#"{"v":2,"certificates":[]}"#, Some(&key), Some("of the form 2")),
        (
            "no base64",
            "shop",
            r#"{"v":1,"certificates":[{"chain":["?"],"key":""}]}"#,
            Some(&key),
            Some("cannot be read"),
        ),
        (
            "no chain",
            "shop",
            r#"{"v":1,"certificates":[{"chain":[],"key":""}]}"#,
            Some(&key),
            Some("expected a certificate"),
        ),
    ] {
        let said = open(site, text, key).err().map(|error| error.to_string());
        assert_eq!(said.is_some(), expected.is_some(), "{name}: {said:?}");
        assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "{name}");
    }
}
