//! Where DNS sends clients, by a real gdnsd: how PoPs are chosen, and what becomes of those that are gone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, Socket};
use cache_tests::countries::database;
use cache_tests::deadline::until;
use cache_tests::gdnsd::Gdnsd;
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions, binary, free_port};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;

const SHOP: &str = "shop.cdn.example.test";
const POPS: [&str; 3] = ["fra", "nyc", "sin"];

/// Three PoPs of a node each, at one port of addresses of their own, and an origin behind them.
struct Cdn {
    nodes: Vec<Option<Node>>,
    port: u16,
    health: u16,
    files: Scratch,
    _origin: Origin,
    _machine: Machine,
}

/// The address of a PoP.
fn of(pop: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 60, 10 + u8::try_from(pop).expect("it is small"))
}

/// A machine without IPv6 is tested without it.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn words(pops: &[usize]) -> Vec<String> {
    pops.iter().map(|pop| of(*pop).to_string()).collect()
}

impl Cdn {
    async fn start() -> Self {
        let machine = Machine::shared();
        let origin = Origin::start();
        origin.serve("/", Answer::ok("hello").field("Cache-Control: max-age=600"));
        let (port, health) = (free_port(of(0).into()), free_port(of(0).into()));
        let mut nodes = Vec::new();
        for pop in 0..POPS.len() {
            let mut listened = vec![SocketAddr::from((of(pop), health))];
            if pop == 0 && has_ipv6() {
                listened.push(SocketAddr::from((Ipv6Addr::LOCALHOST, health)));
            }
            let text = "[limits]\ndrain_grace = \"30s\"\n";
            let options = NodeOptions::configured(&origin, text).at(SocketAddr::from((of(pop), port)), &listened);
            nodes.push(Some(options.within(&machine).start().await));
        }
        Self { nodes, port, health, files: Scratch::new("steering"), _origin: origin, _machine: machine }
    }

    /// A configuration that name servers are told: this in `[dns]`, and in `[pop.NAME]`.
    fn configuration(&self, dns: &str, pop: impl Fn(&str) -> String) -> PathBuf {
        let mut text = format!(
            "[listen]\nhttp = \":80\"\nhealth = \":{}\"\n[dns]\nzone = \"cdn.example.test\"\n\
             nameservers = [\"ns1.example.test\", {{ name = \"ns2.cdn.example.test\", addresses = \"127.0.0.1\" }}]\n\
             contact = \"host.master@example.test\"\n{dns}\n",
            self.health
        );
        for (index, name) in POPS.iter().enumerate() {
            let v6 = if index == 0 && has_ipv6() { ", \"::1\"" } else { "" };
            text += &format!("[pop.{name}]\naddresses = [\"{}\"{v6}]\n{}\n", of(index), pop(name));
        }
        text += &format!("[site.shop]\nhosts = \"{HOST}\"\norigins = \"http://127.0.0.1:1\"\n");
        self.files.write("edge.toml", text.as_bytes());
        self.files.path().join("edge.toml")
    }

    /// A name server that runs with that.
    async fn steered(&self, dns: &str, pop: impl Fn(&str) -> String) -> Gdnsd {
        let mut gdnsd = Gdnsd::new();
        let countries = [("192.0.2.0/24", "EU/DE"), ("198.51.100.0/24", "NA/US"), ("2001:db8::/32", "AS/SG")];
        gdnsd.write("geoip/countries.mmdb", &database(&countries));
        gdnsd.render(&self.configuration(dns, pop), &[]);
        gdnsd.start().await;
        gdnsd
    }

    fn node(&self, pop: usize) -> &Node {
        self.nodes[pop].as_ref().expect("it runs")
    }
}

#[tokio::test]
async fn how_pops_are_chosen() {
    let cdn = Cdn::start().await;

    let all = cdn.steered("steering = \"all\"\nttl = \"7s\"", |_| String::new()).await;
    assert_eq!(all.dig(SHOP, "A", None), words(&[0, 1, 2]));
    let v6: &[&str] = if has_ipv6() { &["::1"] } else { &[] };
    assert_eq!(all.dig(SHOP, "AAAA", None), v6, "the others have no such address");
    assert_eq!(all.resolve(SHOP).await.map(|answer| answer.seconds), Some(7));
    assert_eq!(all.dig("ns2.cdn.example.test", "A", None), ["127.0.0.1"], "glue");
    assert_eq!(all.dig("cdn.example.test", "NS", None), ["ns1.example.test.", "ns2.cdn.example.test."]);
    let soa = all.dig("cdn.example.test", "SOA", None).concat();
    assert!(soa.starts_with("ns1.example.test. host\\.master.example.test. ") && soa.ends_with(" 7"), "{soa}");
    assert_eq!(all.resolve("blog.cdn.example.test").await, None);
    drop(all);

    let failover = cdn.steered("steering = \"failover\"", |_| String::new()).await;
    assert_eq!(failover.dig(SHOP, "A", None), words(&[0]));
    drop(failover);

    let near = |pop: &str| match pop {
        "fra" => "near = \"EU\"".to_owned(),
        "nyc" => "near = [\"NA\", \"EU/GB\"]".to_owned(),
        _ => "near = \"AS/SG\"".to_owned(),
    };
    let geo = cdn.steered("steering = \"geo\"\ndatabase = \"countries.mmdb\"", near).await;
    let rows = [("192.0.2.0/24", 0), ("198.51.100.0/24", 1), ("2001:db8::/48", 2), ("203.0.113.0/24", 0)];
    for (client, pop) in rows {
        assert_eq!(geo.dig(SHOP, "A", Some(client)), words(&[pop]), "{client}");
    }
    drop(geo);

    let measured = "192.0.2.0/24,fra,90\n192.0.2.0/24,sin,12.5\n127.0.0.0/8,nyc,1\n2001:db8::/32,nyc,3\n";
    cdn.files.write("latency.csv", measured.as_bytes());
    let dns = "steering = \"latency\"\nlatency = \"latency.csv\"\ndatabase = \"countries.mmdb\"";
    let latency = cdn.steered(dns, near).await;
    assert_eq!(latency.dig(SHOP, "A", None), words(&[1]), "who asks for itself is its own client");
    let rows = [("192.0.2.0/24", 2), ("2001:db8:1::/48", 1), ("198.51.100.0/24", 1), ("203.0.113.0/24", 0)];
    for (client, pop) in rows {
        assert_eq!(latency.dig(SHOP, "A", Some(client)), words(&[pop]), "{client}");
    }
}

#[tokio::test]
async fn shares_are_as_weights_say() {
    const ASKED: u32 = 3_000;
    let cdn = Cdn::start().await;
    let weight = |pop: &str| {
        format!(
            "weight = {}",
            if pop == "fra" {
                6
            } else if pop == "nyc" {
                3
            } else {
                1
            }
        )
    };
    let weighted = cdn.steered("steering = \"weighted\"", weight).await;
    let mut counts: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for _ in 0..ASKED {
        let answer = weighted.resolve(SHOP).await.expect("the name is there");
        assert_eq!(answer.addresses.len(), 1);
        *counts.entry(answer.addresses[0]).or_default() += 1;
    }
    for (pop, share) in [(0, 0.6), (1, 0.3), (2, 0.1)] {
        let count = f64::from(counts.get(&IpAddr::from(of(pop))).copied().unwrap_or(0));
        let expected = f64::from(ASKED) * share;
        // Five standard deviations: less than once in a million runs by chance.
        let bound = 5.0 * (expected * (1.0 - share)).sqrt();
        println!("{}: {count} of {ASKED}, expected {expected} within {bound:.0}", POPS[pop]);
        assert!((count - expected).abs() <= bound, "{}: {count}, expected {expected} within {bound}", POPS[pop]);
    }
}

#[tokio::test]
async fn a_site_that_is_added_later() {
    let cdn = Cdn::start().await;
    let gdnsd = cdn.steered("ttl = \"5s\"", |_| String::new()).await;
    let configuration = cdn.files.path().join("edge.toml");
    let zone = gdnsd.read("zones/cdn.example.test");
    assert_eq!(gdnsd.resolve("my-blog.cdn.example.test").await, None);
    assert_eq!(gdnsd.render(&configuration, &["--check"]), "nothing has changed\n");
    assert_eq!(gdnsd.render(&configuration, &[]), "nothing has changed\n");

    cdn.files.write("sites.d/blog.toml", b"[site.My_Blog]\nhosts = \"blog.test\"\norigins = \"http://127.0.0.1:1\"\n");
    let check = gdnsd.try_render(&configuration, &["--check"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert_eq!(gdnsd.read("zones/cdn.example.test"), zone, "nothing is written");
    let said = gdnsd.render(&configuration, &[]);
    assert!(said.contains("zones/cdn.example.test\n") && said.contains("gdnsdctl reload-zones"), "{said}");
    gdnsd.control("reload-zones");
    let answer = gdnsd.resolve("my-blog.cdn.example.test").await.expect("the name is there");
    assert_eq!(answer.addresses.len(), POPS.len());
    assert!(gdnsd.resolve(SHOP).await.is_some());

    // What a node has besides, of a hub for one: here it is in its own file.
    let admin = cdn.node(1).admin().to_string();
    let said = gdnsd.render(&configuration, &["--admin", &admin]);
    assert!(said.contains("gdnsdctl reload-zones"), "{said}");
    gdnsd.control("reload-zones");
    assert!(gdnsd.resolve("main.cdn.example.test").await.is_some(), "the site of the node");

    // And another way to choose.
    cdn.configuration("steering = \"failover\"\nttl = \"5s\"", |_| String::new());
    let said = gdnsd.render(&configuration, &[]);
    assert!(said.contains("gdnsdctl replace"), "{said}");
    gdnsd.control("replace");
    assert_eq!(gdnsd.dig(SHOP, "A", None), words(&[0]));
    assert_eq!(gdnsd.resolve("main.cdn.example.test").await, None, "nobody asked the node for its sites");
}

/// How long a name server may take to see that a node is gone, beside the time that answers hold.
const NOTICED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_node_that_is_gone_is_not_named_any_more() {
    const TTL: Duration = Duration::from_secs(5);
    let mut cdn = Cdn::start().await;
    let gdnsd = cdn.steered("steering = \"all\"\nttl = \"5s\"", |_| String::new()).await;
    let mut client = Visitor { port: cdn.port, known: None, retried: 0 };
    for _ in 0..20 {
        client.visit(&gdnsd).await;
    }
    assert_eq!(client.retried, 0, "everybody is there");

    let killed = Instant::now();
    cdn.nodes[1].take().expect("it runs").kill().await;
    let (mut not_named, mut visits) = (None, 0);
    // The client goes on until it has been told anew after the name server has noticed.
    let forgotten = loop {
        client.visit(&gdnsd).await;
        visits += 1;
        let named = |addresses: &[IpAddr]| addresses.contains(&of(1).into());
        if not_named.is_none() && !named(&gdnsd.resolve(SHOP).await.expect("the name is there").addresses) {
            not_named = Some(killed.elapsed());
        }
        if not_named.is_some() && client.known.as_ref().is_some_and(|(addresses, _)| !named(addresses)) {
            break killed.elapsed();
        }
        assert!(killed.elapsed() < TTL + NOTICED, "it is still named: {client:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let not_named = not_named.unwrap_or_default();
    println!(
        "not named after {not_named:.1?}, forgotten by a client after {forgotten:.1?} (time to live {TTL:?}); {} of {visits} \
         visits needed a second attempt, none failed",
        client.retried
    );
    assert!(not_named <= NOTICED && forgotten <= TTL + NOTICED, "{not_named:?}, {forgotten:?}");
    assert!(client.retried > 0, "the client has seen that it is gone");
    assert_eq!(gdnsd.dig(SHOP, "A", None), words(&[0, 2]));

    // One that drains goes on serving and is not named.
    let drained = Instant::now();
    assert_eq!(cdn.node(2).admin_post("/v1/drain").await.map(|response| response.status), Ok(202));
    until(NOTICED, "the draining node not to be named", || async {
        let named = gdnsd.dig(SHOP, "A", None);
        if named == words(&[0]) { Ok(()) } else { Err(format!("{named:?}")) }
    })
    .await;
    println!("a draining node is not named after {:.1?}", drained.elapsed());
    assert_eq!(cdn.node(2).get("/").await.status, 200, "it serves who still comes");
}

/// A client that asks a resolver, which keeps answers as long as they hold, and tries a second address when the first fails.
#[derive(Debug)]
struct Visitor {
    port: u16,
    known: Option<(Vec<IpAddr>, Instant)>,
    retried: u32,
}

impl Visitor {
    async fn visit(&mut self, gdnsd: &Gdnsd) {
        if self.known.as_ref().is_none_or(|(_, until)| Instant::now() >= *until) {
            let answer = gdnsd.resolve(SHOP).await.expect("the name is there");
            self.known = Some((answer.addresses, Instant::now() + Duration::from_secs(answer.seconds.into())));
        }
        let (addresses, _) = self.known.as_mut().expect("an answer");
        // As resolvers do.
        addresses.rotate_left(1);
        let (first, second) = (addresses[0], addresses[1 % addresses.len()]);
        if self.get(first).await.is_err() {
            self.retried += 1;
            let second = self.get(second).await;
            assert_eq!(second, Ok(200), "the second attempt failed too");
        }
    }

    async fn get(&self, address: IpAddr) -> Result<u16, String> {
        let connected = Client::connect_with(SocketAddr::new(address, self.port), Socket::default()).await;
        let mut client = connected.map_err(|error| error.to_string())?;
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        client.send(request).await.map_err(|error| error.to_string())?;
        let response = client.response("GET").await.map_err(|end| format!("{end:?}"))?;
        Ok(response.status)
    }
}

/// Where anybody can connect, nothing is told but how the node stands.
#[tokio::test]
async fn health_is_all_that_is_told_there() {
    let cdn = Cdn::start().await;
    let address = SocketAddr::from((of(0), cdn.health));
    for (request, status) in [
        ("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /currentz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST /v1/drain HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        ("POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
    ] {
        let mut client = Client::connect(address).await;
        client.send(request).await.expect("it is taken");
        let response = client.response("GET").await.expect("an answer");
        assert_eq!(response.status, status, "{request:?}");
    }
    cdn.node(0).admin_post("/v1/drain").await.expect("it drains");
    until(NOTICED, "the node not to be ready", || async {
        let mut client = Client::connect(address).await;
        client.send("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.map_err(|error| error.to_string())?;
        let status = client.response("GET").await.map_err(|end| format!("{end:?}"))?.status;
        if status == 503 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

/// What cannot be written is said, and nothing is.
#[test]
fn what_is_wrong_is_said() {
    let (files, gdnsd) = (Scratch::new("steering"), Gdnsd::new());
    let head = format!("[listen]\nhttp = \":80\"\n[site.shop]\nhosts = \"{HOST}\"\norigins = \"http://127.0.0.1:1\"\n");
    let zone = "[dns]\nzone = \"cdn.example.test\"\nnameservers = \"ns1.example.test\"\ncontact = \"a@example.test\"\n";
    let pop = "[pop.fra]\naddresses = \"192.0.2.1\"\n";
    files.write("latency.csv", b"192.0.2.0/24,fra,3\n192.0.2.0/24,nyc,3\n192.0.2.1/24,fra,3\n");
    for (text, code, expected) in [
        (head.clone(), 78, "has no [dns]"),
        (format!("{head}{zone}"), 78, "has no PoP to send clients to"),
        (
            format!("{head}{zone}steering = \"latency\"\nlatency = \"latency.csv\"\n{pop}"),
            78,
            "latency.csv: line 2: there is no [pop.nyc]\n  line 3: 192.0.2.1/24 has bits behind its length: expected 192.0.2.0/24",
        ),
    ] {
        files.write("edge.toml", text.as_bytes());
        let output = gdnsd.try_render(&files.path().join("edge.toml"), &[]);
        // As it is broken into lines is a matter of the terminal.
        let plain = |text: &str| text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let said = plain(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&plain(expected)), "{said}");
        assert_eq!(gdnsd.read("config"), "");
    }
}

#[test]
fn what_names_of_sites_are_to_be() {
    let files = Scratch::new("steering");
    let text = "[listen]\nhttp = \":80\"\n[dns]\nzone = \"cdn.example.test\"\nnameservers = \"ns1.example.test\"\n\
                contact = \"a@example.test\"\naddresses = [\"192.0.2.99\", \"2001:db8::99\"]\n[pop.fra]\naddresses = \"192.0.2.1\"\n\
                [site.My_Shop]\nhosts = [\"www.shop.test\", \"shop.test\"]\norigins = \"http://127.0.0.1:1\"\n";
    files.write("edge.toml", text.as_bytes());
    let names = |more: &[&str]| {
        let mut command = std::process::Command::new(binary());
        let output =
            command.args(["dns", "names", "--config", "edge.toml"]).args(more).current_dir(files.path()).output();
        let output = output.expect("littoral starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let expected = "My_Shop: www.shop.test, shop.test: CNAME my-shop.cdn.example.test.\n\
                    a name that cannot be a CNAME: 192.0.2.99, 2001:db8::99\n";
    assert_eq!(names(&[]), expected);
    let told: serde_json::Value = serde_json::from_str(&names(&["--json"])).expect("JSON");
    assert_eq!(told["sites"][0]["cname"], "my-shop.cdn.example.test");
    assert_eq!(told["addresses"], serde_json::json!(["192.0.2.99", "2001:db8::99"]));
}
