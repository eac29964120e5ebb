use edge_config::section::dns::NameServer;

use super::*;
use crate::steering::latency::Latencies;

fn pop(name: &str, addresses: &[&str], weight: u32, near: &[&str]) -> Pop {
    Pop {
        name: name.into(),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        weight,
        near: near.iter().map(|place| place.parse().expect("a place")).collect(),
    }
}

fn pops() -> Vec<Pop> {
    vec![
        pop("fra", &["192.0.2.1", "192.0.2.2", "2001:db8::1"], 3, &["EU", "AF"]),
        pop("nyc", &["192.0.2.11"], 1, &["NA", "SA", "EU/GB"]),
        pop("s.in", &["192.0.2.21", "2001:db8::21"], 1, &["AS", "NA/US/HI"]),
    ]
}

fn dns(steering: Steering) -> Dns {
    let server = |name: &str, addresses: &[&str]| NameServer {
        name: name.into(),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
    };
    Dns {
        zone: "cdn.example.net".into(),
        nameservers: vec![
            server("ns1.example.org", &[]),
            server("ns2.cdn.example.net", &["192.0.2.53", "2001:db8::53"]),
        ],
        contact: "host.master@example.net".into(),
        ttl: edge_config::Duration::from_secs(30),
        steering,
        addresses: Vec::new(),
        database: (steering == Steering::Geo).then(|| "countries.mmdb".into()),
        latency: None,
        health_port: 9901,
        health_path: "/readyz".into(),
    }
}

/// The file `config` without what all have in common, and the others.
fn rendered(steering: Steering, latencies: Option<&Latencies>) -> (String, Vec<File>) {
    let (dns, pops) = (dns(steering), pops());
    let plan = Plan { dns: &dns, pops: &pops, labels: &[], latencies };
    let mut files = configuration(&plan, &Machine::default());
    let config = files.pop().expect("a configuration");
    assert_eq!(config.path, "config");
    let (_, plugins) = config.text.split_once("plugins => {\n").expect("plugins");
    (plugins.to_owned(), files)
}

#[test]
fn every_address_in_each_answer() {
    let (text, more) = rendered(Steering::All, None);
    let expected = "  multifo => {\n    service_types => ready\n    up_thresh => 0.01\n    cdn => { \
        addrs_v4 => { \"fra-1\" => \"192.0.2.1\", \"fra-2\" => \"192.0.2.2\", \"nyc-1\" => \"192.0.2.11\", \"s.in-1\" => \"192.0.2.21\" }, \
        addrs_v6 => { \"fra-1\" => \"2001:db8::1\", \"s.in-1\" => \"2001:db8::21\" } }\n  }\n}\n";
    assert_eq!((text.as_str(), more), (expected, Vec::new()));
}

#[test]
fn a_pop_by_its_weight_however_many_addresses_it_has() {
    let (text, _) = rendered(Steering::Weighted, None);
    for line in [
        "\"fra\" => { \"1\" => [ \"192.0.2.1\", 1260 ], \"2\" => [ \"192.0.2.2\", 1260 ] }",
        "\"nyc\" => { \"1\" => [ \"192.0.2.11\", 840 ] }",
        "\"fra\" => { \"1\" => [ \"2001:db8::1\", 2520 ] }",
        "\"s.in\" => { \"1\" => [ \"2001:db8::21\", 840 ] }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn the_first_that_is_up() {
    let (text, _) = rendered(Steering::Failover, None);
    assert!(text.contains("datacenters => [ \"fra\", \"nyc\", \"s.in\" ]\n"), "{text}");
    assert!(text.contains("\"nyc\" => { addrs_v4 => { \"nyc-1\" => \"192.0.2.11\" } }\n"), "{text}");
}

#[test]
fn where_clients_are() {
    let (text, _) = rendered(Steering::Geo, None);
    let expected = "        geoip2_db => \"countries.mmdb\"
        map => {
          AF => [ \"fra\", \"nyc\", \"s.in\" ]
          AS => [ \"s.in\", \"fra\", \"nyc\" ]
          EU => {
            default => [ \"fra\", \"nyc\", \"s.in\" ]
            GB => [ \"nyc\", \"fra\", \"s.in\" ]
          }
          NA => {
            default => [ \"nyc\", \"fra\", \"s.in\" ]
            US => {
              HI => [ \"s.in\", \"nyc\", \"fra\" ]
            }
          }
          SA => [ \"nyc\", \"fra\", \"s.in\" ]
        }\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_was_measured() {
    let latencies = Latencies::parse("192.0.2.0/24,nyc,9\n2001:db8::/32,s.in,3\n", &pops()).expect("a table");
    let (text, more) = rendered(Steering::Latency, Some(&latencies));
    assert!(text.contains("nets => \"latency.nets\"") && !text.contains("geoip2_db"), "{text}");
    let nets = "192.0.2.0/24 => [ \"nyc\", \"fra\", \"s.in\" ]\n2001:db8::/32 => [ \"s.in\", \"fra\", \"nyc\" ]\n";
    assert_eq!(more, [File { path: "geoip/latency.nets".into(), text: nets.into() }]);
}

#[test]
fn the_zone_and_its_serial() {
    let (dns, pops) = (dns(Steering::Weighted), pops());
    let labels = ["blog", "shop"].map(str::to_owned);
    let plan = Plan { dns: &dns, pops: &pops, labels: &labels, latencies: None };
    let fixed = ["192.0.2.99".parse().expect("an address"), "2001:db8::99".parse().expect("an address")];
    let File { path, text } = zone(&plan, &fixed, 7);
    assert_eq!((path.as_str(), serial_of(&text)), ("zones/cdn.example.net", Some(7)));
    let lines = "$TTL 3600\n@ 30 SOA ns1.example.org. host\\.master.example.net. ( 7 7200 1800 1209600 30 )\n\
        @ NS ns1.example.org.\n@ NS ns2.cdn.example.net.\nns2.cdn.example.net. A 192.0.2.53\n\
        ns2.cdn.example.net. AAAA 2001:db8::53\nblog 30/30 DYNA weighted!cdn\nshop 30/30 DYNA weighted!cdn\n";
    assert!(text.ends_with(lines) && text.contains("\n;   AAAA 2001:db8::99\n"), "{text}");
    assert_eq!(["", "@ SOA a. b. ( x 1 )", "; none"].map(serial_of), [None; 3]);
}

#[test]
fn what_the_machine_says_of_itself() {
    let (dns, pops) = (dns(Steering::All), pops());
    let plan = Plan { dns: &dns, pops: &pops, labels: &[], latencies: None };
    let machine = Machine {
        listen: vec!["127.0.0.1:53".into(), "[::1]:53".into()],
        run_dir: Some("/run/a \"b\"".into()),
        state_dir: None,
    };
    let files = configuration(&plan, &machine);
    let text = &files.last().expect("a configuration").text;
    let options = "options => {\n  listen => [ \"127.0.0.1:53\", \"[::1]:53\" ]\n  run_dir => \"/run/a \\\"b\\\"\"\n  \
                   edns_client_subnet => true\n  min_ttl => 1\n}\n";
    assert!(text.contains(options), "{text}");
}
