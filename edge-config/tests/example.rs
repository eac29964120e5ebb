//! The example configuration in `deploy/` is one a node can run with.

use std::fs;
use std::path::Path;

#[path = "../../cache-tests/src/countries.rs"]
#[expect(unreachable_pub, reason = "it is public where it lives")]
mod countries;

use edge_config::load;
use edge_config::section::balance::{Balance, Crowd, HashBy};
use edge_config::section::group::Group;

/// Loads it as it is with what it names beside it, and again with everything that is commented out.
#[test]
fn the_example_is_complete_and_loads() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let example = fs::read_to_string(deploy.join("edge.toml")).expect("deploy/edge.toml is there");
    let scratch = std::env::temp_dir().join(format!("edge-config-example-{}", std::process::id()));
    for directory in ["tls", "errors", "geo", "secrets", "dns"] {
        fs::create_dir_all(scratch.join(directory)).expect("a directory can be made");
    }
    for (file, text) in [
        ("tls/example.com.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("tls/example.com.key", "-----BEGIN PRIVATE KEY-----\n"),
        ("tls/internal-ca.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("tls/nodes-ca.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("secrets/node.key", "0123456789abcdef0123456789abcdef"),
        ("tls/node.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("tls/node.key", "-----BEGIN PRIVATE KEY-----\n"),
        ("secrets/origin", "hush"),
        ("secrets/hub.creds", "-----BEGIN NATS USER JWT-----\n"),
        ("secrets/acme-eab", "aHVzaA"),
        ("secrets/dns-hook", "#!/bin/sh\n"),
        ("secrets/s3", "hush"),
        ("secrets/s3-token", "hush"),
        ("tls/tickets.key", "0123456789abcdef0123456789abcdef"),
        ("tls/store.key", "0123456789abcdef0123456789abcdef"),
        ("tls/sticky.key", "0123456789abcdef0123456789abcdef"),
        ("errors/unavailable.html", "<p>Back soon.\n"),
        ("dns/latency.csv", "192.0.2.0/24,fra,12.5\n"),
        ("errors/error.html", "<p>Sorry.\n"),
    ] {
        fs::write(scratch.join(file), text).expect("a file can be written");
    }
    let database = countries::database(&[("192.0.2.0/24", "DE"), ("2001:db8::/32", "AT")]);
    fs::write(scratch.join("geo/GeoLite2-Country.mmdb"), database).expect("a file can be written");
    let everything = example.replace("#: ", "");
    let loaded = [&example, &everything].map(|text| {
        let file = scratch.join("edge.toml");
        fs::write(&file, text).expect("a file can be written");
        load(&file).map_err(|problems| problems.summary())
    });
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json")).expect("schema.json");
    fs::remove_dir_all(&scratch).expect("it can be removed");
    let [as_it_is, everything] = loaded.map(|config| config.unwrap_or_else(|problems| panic!("{problems}")));
    assert_eq!(as_it_is.sites.len(), 4);
    // What is commented out shows the defaults; the two that are examples of something else differ.
    assert_eq!(everything.limits, as_it_is.limits);
    assert_eq!(everything.tls, as_it_is.tls);
    let [shop, other] = [&everything, &as_it_is]
        .map(|config| config.sites.iter().find(|site| site.name == "shop").expect("the shop is there"));
    // How the origins share the work is an example too.
    let Group { members, balance, slow_start, crowd, retry, sticky, .. } = other.origins.clone();
    assert!(sticky.is_none() && shop.origins.sticky.is_some() && members.len() + 1 == shop.origins.members.len());
    let crowd = Crowd { max_requests: crowd.max_requests, ..shop.origins.crowd };
    let alike = Group { members, balance, slow_start, crowd, retry, sticky, ..shop.origins.clone() };
    assert_eq!(alike, other.origins);
    assert_eq!((&shop.origins.balance, shop.origins.crowd.queue), (&Balance::Consistent(HashBy::Url), 0));
    assert_eq!((shop.rules.len(), shop.trusted_clients.len(), other.trusted_clients.len()), (14, 1, 0));
    let geo = everything.geo.as_ref().expect("a database");
    for (client, country) in
        [("192.0.2.7", Some("DE")), ("::ffff:192.0.2.7", Some("DE")), ("192.0.3.1", None), ("2001:db8:1::", Some("AT"))]
    {
        let found = geo.country(client.parse().expect("an address"));
        assert_eq!(found.as_ref().map(|country| country.as_str()), country, "{client}");
    }
    let dns = everything.dns.as_ref().expect("a zone");
    assert_eq!((dns.target("My_shop.eu").as_str(), dns.health_port), ("my-shop-eu.cdn.example.net", 9901));
    let addresses = everything.dns_addresses();
    assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(everything.pops.iter().map(|pop| pop.name.as_str()).collect::<Vec<_>>(), ["fra", "nyc"]);
    // Every key the schema has at the top level and in a site is in the example.
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let keys = |pointer: &str| -> Vec<String> {
        schema.pointer(pointer).and_then(|keys| keys.as_object()).expect("an object").keys().cloned().collect()
    };
    let site = "/properties/site/additionalProperties/properties";
    let rule = format!("{site}/rule/anyOf/0/properties");
    let all =
        [keys("/properties"), keys("/properties/limits/properties"), keys("/properties/tls/properties"), keys(site)];
    let dns = [keys("/properties/dns/properties"), keys("/properties/pop/additionalProperties/properties")].concat();
    let origin = keys(&format!("{site}/origins/anyOf/0/anyOf/1/properties"));
    for key in all.concat().iter().chain(&dns).chain(&origin).chain(&keys(&format!("{rule}/then/properties"))) {
        assert!(example.contains(key.as_str()), "deploy/edge.toml does not show `{key}`");
    }
}
