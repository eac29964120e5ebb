//! Certificates of a real authority: from `site add` to hits under TLS on all nodes, renewal, who orders, and who gets none.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::fleet::following;
use cache_tests::hub::Hub;
use cache_tests::machine::Machine;
use cache_tests::name_server::{Data, NameServer};
use cache_tests::node::{Node, NodeOptions, binary};
use cache_tests::origin::Origin;
use cache_tests::pebble::{Pebble, Place};
use cache_tests::process::Scratch;
use cache_tests::tls::{HTTP_1_1, Tls, authority_pem};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// How soon a new host is served, from `site add` on.
const LIVE_WITHIN: Duration = Duration::from_secs(60);
/// How soon another node orders when the one that did is no more: its lease is over after 10 s.
const REPLACED_WITHIN: Duration = Duration::from_secs(40);
const HOST: &str = "www.shop.test";

/// Nodes, the authority that asks the last of them, and the name server of everybody.
struct Cdn {
    nodes: Vec<Node>,
    pebble: Pebble,
    names: NameServer,
    origin: Origin,
    root: CertificateDer<'static>,
    hub: Hub,
    _machine: Machine,
}

impl Cdn {
    async fn start(count: usize, acme: &str) -> Self {
        let machine = Machine::shared();
        let (hub, names, place) = (Hub::start().await, NameServer::start(), Place::default());
        names.set_loopback("shop.cdn.test", 0, &[1]);
        names.set_loopback("blog.cdn.test", 0, &[1]);
        let origin = Origin::start();
        origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=31536000"));
        let text = format!(
            "{}[dns]\nzone = \"cdn.test\"\nnameservers = [\"ns.other.test\"]\ncontact = \"ops@cdn.test\"\n\
             addresses = [\"127.0.0.1\", \"::1\"]\n[pop.one]\naddresses = [\"127.0.0.1\"]\n\
             [tls]\nstore_key = \"store.key\"\n\
             [acme]\naccept_terms = true\ndirectory = \"{}\"\nca = \"ca.pem\"\ncontact = \"ops@cdn.test\"\n{acme}",
            names.table(),
            place.directory(),
        );
        let mut nodes = Vec::new();
        for number in 0..count {
            let options = following(&hub.url(), &format!("edge-{number}"), &text).within(&machine).test_clock();
            nodes.push(with_files(options).start().await);
        }
        let pebble = Pebble::start(place, nodes.last().expect("a node"), &names).await;
        let root = pebble.root().await;
        Self { nodes, pebble, names, origin, root, hub, _machine: machine }
    }

    /// Begins to add a site as an operator does, at a node; the command ends when clients are served.
    fn add(&self, at: &Node, site: &str, host: &str) -> Adding {
        let mut command = Command::new(binary());
        command.args(["site", "add", site, "--host", host, "--origin", &self.origin.url(), "--timeout", "60s"]);
        command.args(["--admin", &at.admin().to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        Adding(Some(command.spawn().expect("littoral starts")))
    }

    /// The certificate a node shows for a host, that the authority vouches for.
    async fn shown(&self, node: &Node, host: &str) -> Result<Vec<u8>, String> {
        let tls = Tls::offering(&[HTTP_1_1]).trusting(&self.root).to(host);
        tls.agree(node.tls_address()).await.map(|agreed| agreed.certificate).map_err(|error| error.to_string())
    }

    /// What a client of a host gets under TLS.
    async fn hit(&self, node: &Node, host: &str) -> Result<String, String> {
        let tls = Tls::offering(&[HTTP_1_1]).trusting(&self.root).to(host);
        let stream = tls.connect(node.tls_address()).await.map_err(|error| error.to_string())?;
        let mut client = Client::on(stream);
        let sent = client.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        sent.map_err(|error| error.to_string())?;
        let response = client.response("GET").await.map_err(|end| format!("{end:?}"))?;
        let cache = response.field("cache-status").unwrap_or_default();
        if response.status == 200 && cache.contains("; hit") {
            Ok(cache)
        } else {
            Err(format!("{} {cache}", response.status))
        }
    }

    async fn hits_everywhere(&self, host: &str, within: Duration) {
        for node in &self.nodes {
            until(within, "a hit under TLS", || self.hit(node, host)).await;
        }
    }

    /// What a node says of a host.
    async fn state(&self, node: &Node, host: &str) -> Value {
        let sites = node.admin_json("GET", "/v1/sites", &Value::Null, None).await.json();
        let sites = sites["sites"].as_array().cloned().unwrap_or_default();
        let hosts = sites.iter().filter_map(|site| site["hosts"].as_array()).flatten();
        hosts.into_iter().find(|state| state["host"] == host).cloned().unwrap_or_default()
    }

    async fn in_state(&self, node: &Node, host: &str, state: &str) {
        until(PATIENCE, &format!("{host} is {state}"), || async {
            let found = self.state(node, host).await;
            if found["state"] == state { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }

    async fn orders(&self) -> f64 {
        let mut all = 0.0;
        for node in &self.nodes {
            all += node.metrics().await.sum("littoral_certificate_orders_total", &[]);
        }
        all
    }

    async fn advance(&self, by: Duration) {
        for node in &self.nodes {
            let moved = node.admin_post(&format!("/test/clock?advance_ms={}", by.as_millis())).await;
            assert_eq!(moved.expect("an answer").status, 200);
        }
    }
}

fn with_files(options: NodeOptions) -> NodeOptions {
    options.file("store.key", [7; 32]).file("ca.pem", authority_pem())
}

/// A command that adds a site.
struct Adding(Option<Child>);

impl Adding {
    /// Waits for its end. Gives what it said.
    async fn ended(mut self) -> String {
        let mut child = self.0.take().expect("it was started");
        let status = until(LIVE_WITHIN, "littoral site add ends", || {
            let status = child.try_wait().expect("a child can be waited for");
            async move { status.ok_or_else(|| "still running".to_owned()) }
        })
        .await;
        let output = child.wait_with_output().expect("its outputs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(status.success(), "{text}");
        text
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
async fn from_a_command_to_hits_under_tls_and_through_a_life_of_certificates() {
    let mut cdn = Cdn::start(2, "").await;
    let began = Instant::now();
    // The first node to start orders; the authority asks the second.
    let adding = cdn.add(&cdn.nodes[0], "shop", HOST);
    cdn.in_state(&cdn.nodes[1], HOST, "waiting").await;
    assert_eq!(cdn.pebble.issued(), 0, "nothing is ordered for a name that does not lead here");
    assert!(cdn.shown(&cdn.nodes[0], HOST).await.is_err());
    cdn.names.set(HOST, 0, vec![Data::Alias("shop.cdn.test".to_owned())]);
    let said = adding.ended().await;
    for text in ["CNAME  shop.cdn.test.", "not live; waiting", "live; leads here, by its CNAME", "shop is live"] {
        assert!(said.contains(text), "{text} is not in what it said:\n{said}");
    }
    cdn.hits_everywhere(HOST, LIVE_WITHIN.saturating_sub(began.elapsed())).await;
    println!("from site add to a hit under TLS on both nodes: {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < LIVE_WITHIN);

    // A host is of one site alone.
    let taken = json!({ "site": "blog", "hosts": [HOST], "origins": [cdn.origin.url()] });
    let taken = cdn.nodes[0].admin_json("POST", "/v1/sites", &taken, None).await;
    assert_eq!(taken.status, 422, "{}", taken.text());

    // Renewal: at two thirds of its life.
    let first = cdn.shown(&cdn.nodes[0], HOST).await.expect("a certificate");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let certificate = cdn.state(&cdn.nodes[0], HOST).await["certificate"].clone();
    let left = |key: &str| certificate[key].as_u64().expect("a time") - now;
    let share = left("renew_at") as f64 / left("not_after") as f64;
    assert!((share - 2.0 / 3.0).abs() < 0.001, "it is renewed at {share} of its life");
    cdn.advance(Duration::from_secs(left("renew_at") + 60)).await;
    for node in &cdn.nodes {
        until(PATIENCE, "another certificate", || async {
            let second = cdn.shown(node, HOST).await?;
            if second == first { Err("it is the same".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    // An order is counted when it has ended.
    until(PATIENCE, "one order more", || async {
        let orders = cdn.orders().await;
        if orders == 2.0 { Ok(()) } else { Err(orders.to_string()) }
    })
    .await;

    // The node that orders is killed.
    let leads = |node: &Node| node.said().contains("certificates are ordered by this node");
    let leader = usize::from(leads(&cdn.nodes[1]));
    let killed = Instant::now();
    let lost = cdn.nodes.remove(leader);
    lost.kill().await;
    // Where the authority asks, nobody may be any more: then it is enough that there is an order.
    let is_asked_in_vain = leader == 1;
    cdn.names.set("blog.shop.test", 0, vec![Data::Alias("blog.cdn.test".to_owned())]);
    let body = json!({ "site": "blog", "hosts": ["blog.shop.test"], "origins": [cdn.origin.url()] });
    let added = cdn.nodes[0].admin_json("POST", "/v1/sites", &body, None).await;
    assert!(added.status == 200 || added.status == 202, "{}", added.text());
    until(REPLACED_WITHIN, "the other node orders", || async {
        match is_asked_in_vain {
            true if cdn.orders().await >= 1.0 => Ok(()),
            true => Err("no order".to_owned()),
            false => cdn.shown(&cdn.nodes[0], "blog.shop.test").await.map(|_| ()),
        }
    })
    .await;
    println!("after the node that ordered was killed, another did: {:.1} s", killed.elapsed().as_secs_f64());
}

#[tokio::test]
async fn nothing_is_issued_for_who_was_revoked_or_does_not_lead_here() {
    let cdn = Cdn::start(1, "issue = \"on-demand\"\n").await;
    let node = &cdn.nodes[0];
    cdn.names.set(HOST, 0, vec![Data::Alias("shop.cdn.test".to_owned())]);
    // An apex has addresses, all of them ours.
    let ours = ["127.0.0.1", "::1"].map(|address| Data::Address(address.parse().expect("an address")));
    cdn.names.set("shop.test", 0, ours.to_vec());
    let [v4, v6] = ours;
    let foreign = Data::Address("127.0.0.9".parse().expect("an address"));
    cdn.names.set("elsewhere.test", 0, vec![v4, v6, foreign]);
    let hosts = [HOST, "shop.test", "elsewhere.test"];
    let body = json!({ "site": "shop", "hosts": hosts, "origins": [cdn.origin.url()] });
    let added = node.admin_json("POST", "/v1/sites", &body, None).await;
    assert!(added.status == 200 || added.status == 202, "{}", added.text());
    cdn.in_state(node, HOST, "proven").await;
    cdn.in_state(node, "shop.test", "proven").await;
    assert_eq!(cdn.state(node, "shop.test").await["said"], "by its addresses");
    assert_eq!(cdn.pebble.issued(), 0, "nobody has asked for it yet");
    // The first client waits for its certificate.
    cdn.hits_everywhere(HOST, PATIENCE).await;
    assert_eq!(cdn.pebble.issued(), 1);
    // Nobody waits for what does not lead here, or is no host.
    for host in ["elsewhere.test", "unknown.test"] {
        let refused = cdn.shown(node, host).await.expect_err("it does not lead here");
        assert!(refused.contains("UnrecognisedName") || refused.contains("unrecogni"), "{refused}");
    }
    let revoked = node.admin_json("POST", "/v1/hosts/revoke", &json!({ "site": "shop", "host": HOST }), None).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    until(PATIENCE, "no certificate is shown", || async {
        if cdn.shown(node, HOST).await.is_err() { Ok(()) } else { Err("it is".to_owned()) }
    })
    .await;
    let orders = cdn.orders().await;
    for _ in 0..5 {
        cdn.advance(Duration::from_secs(24 * 3_600)).await;
        assert!(cdn.shown(node, HOST).await.is_err());
        assert_eq!(cdn.state(node, HOST).await["state"], "revoked");
    }
    assert_eq!((cdn.orders().await, cdn.pebble.issued()), (orders, 1));
    // The operator changes their mind.
    let allowed = node.admin_json("POST", "/v1/hosts/allow", &json!({ "site": "shop", "host": HOST }), None).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text());
    cdn.in_state(node, HOST, "proven").await;
    cdn.hits_everywhere(HOST, PATIENCE).await;
}

#[tokio::test]
async fn challenges_are_met_under_tls_and_in_dns() {
    let scratch = Scratch::new("hook");
    let texts = scratch.path().join("texts");
    std::fs::create_dir(&texts).expect("a directory can be made");
    let hook = scratch.path().join("hook");
    let text =
        format!("#!/bin/sh\nif [ $1 = set ]; then printf %s \"$3\" > {0}/$2; else rm {0}/$2; fi\n", texts.display());
    scratch.write("hook", text.as_bytes());
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let acme = format!("challenges = [\"tls-alpn-01\", \"dns-01\"]\ndns_hook = {hook:?}\n");
    let cdn = Cdn::start(1, &acme).await;
    cdn.names.texts_in(texts.clone());
    let node = &cdn.nodes[0];
    cdn.names.set(HOST, 0, vec![Data::Alias("shop.cdn.test".to_owned())]);
    let body = json!({ "site": "shop", "hosts": [HOST, "*.wild.test"], "origins": [cdn.origin.url()] });
    let added = node.admin_json("POST", "/v1/sites", &body, None).await;
    assert!(added.status == 200 || added.status == 202, "{}", added.text());
    cdn.hits_everywhere(HOST, PATIENCE).await;
    // All names below one are shown to be ours by a record of the site's token, and by one of the authority's.
    let txt = until(PATIENCE, "a token", || async {
        let state = cdn.state(node, "*.wild.test").await;
        if state["txt"].is_object() { Ok(state["txt"].clone()) } else { Err(state.to_string()) }
    })
    .await;
    assert_eq!(txt["name"], "_littoral.wild.test");
    std::fs::write(texts.join("_littoral.wild.test"), txt["value"].as_str().expect("a text")).expect("writable");
    cdn.hits_everywhere("a.wild.test", LIVE_WITHIN).await;
    let left: Vec<_> = std::fs::read_dir(&texts).expect("it is there").flatten().map(|file| file.file_name()).collect();
    assert_eq!(left, ["_littoral.wild.test"], "what the authority was shown is taken away");
}

#[tokio::test]
async fn a_node_alone_has_certificates_for_what_is_configured_and_keeps_them() {
    let (names, place, origin) = (NameServer::start(), Place::default(), Origin::start());
    names.set_loopback(HOST, 0, &[1]);
    let text = format!(
        "{}[tls]\nstore_key = \"store.key\"\n[acme]\naccept_terms = true\nproof = \"configured\"\n\
         directory = \"{}\"\nca = \"ca.pem\"\n[site.shop]\nhosts = \"{HOST}\"\norigins = \"{{origin}}\"\nhttps_only = true\n",
        names.table(),
        place.directory(),
    );
    let data = Scratch::new("data");
    let options =
        || with_files(NodeOptions::configured(&origin, &text)).with("--data", &data.path().display().to_string());
    let node = options().start().await;
    let pebble = Pebble::start(place, &node, &names).await;
    let root = pebble.root().await;
    let tls = Tls::offering(&[HTTP_1_1]).trusting(&root).to(HOST);
    let first = until(LIVE_WITHIN, "a certificate", || async {
        tls.agree(node.tls_address()).await.map(|agreed| agreed.certificate).map_err(|error| error.to_string())
    })
    .await;
    node.kill().await;
    // It is there at once, whatever has become of the authority.
    drop(pebble);
    let again = options().start().await;
    let second = until(PATIENCE, "what was kept", || async {
        tls.agree(again.tls_address()).await.map(|agreed| agreed.certificate).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(first, second);
    // Under another key nothing opens: a new account orders what is needed anew.
    again.kill().await;
    let other = options().file("store.key", [8; 32]).start().await;
    let pebble = Pebble::start(place, &other, &names).await;
    let trusted = Tls::offering(&[HTTP_1_1]).trusting(&pebble.root().await).to(HOST);
    assert!(trusted.agree(other.tls_address()).await.is_err(), "its key cannot be opened");
    assert_eq!(pebble.issued(), 0, "it may be this node's key that is wrong");
    let forgotten = other.admin_json("POST", "/v1/certificates/account/forget", &Value::Null, None).await;
    assert_eq!(forgotten.status, 200, "{}", forgotten.text());
    until(LIVE_WITHIN, "another certificate", || async {
        trusted.agree(other.tls_address()).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
}

/// The certificate of a host, as the hub has it.
async fn at_the_hub(hub: &Hub) -> Result<Vec<u8>, String> {
    let bucket = hub.client().await.get_key_value("CERTIFICATES").await.map_err(|error| error.to_string())?;
    let found = bucket.get(format!("certificate.{HOST}")).await.map_err(|error| error.to_string())?;
    found.map(|value| value.to_vec()).ok_or_else(|| "there is none".to_owned())
}

#[tokio::test]
async fn a_hub_that_is_away_or_lost_takes_no_certificate_with_it() {
    let mut cdn = Cdn::start(1, "").await;
    let node = &cdn.nodes[0];
    cdn.names.set(HOST, 0, vec![Data::Alias("shop.cdn.test".to_owned())]);
    let body = json!({ "site": "shop", "hosts": [HOST], "origins": [cdn.origin.url()] });
    let added = node.admin_json("POST", "/v1/sites", &body, None).await;
    assert!(added.status == 200 || added.status == 202, "{}", added.text());
    let empty = Scratch::new("empty");
    cdn.hits_everywhere(HOST, PATIENCE).await;
    let kept = until(PATIENCE, "a certificate at the hub", || at_the_hub(&cdn.hub)).await;
    let text = String::from_utf8_lossy(&kept).into_owned();
    assert!(text.contains("\"key\"") && !text.contains("PRIVATE KEY"), "{text}");
    cdn.hub.kill().await;
    cdn.hits_everywhere(HOST, PATIENCE).await;
    // It comes back with nothing, and gets what nodes know.
    cdn.hub.restore(&empty);
    cdn.hub.start_again().await;
    cdn.hub.init();
    let again = until(PATIENCE, "the certificate is given back", || at_the_hub(&cdn.hub)).await;
    assert_eq!(again, kept);
    assert_eq!(cdn.pebble.issued(), 1);
    // What was taken away may come again.
    let bucket = cdn.hub.client().await.get_key_value("CERTIFICATES").await.expect("a bucket");
    for name in ["claim", "certificate"] {
        bucket.purge(format!("{name}.{HOST}")).await.expect("the operator may");
    }
    until(PATIENCE, "another certificate", || async {
        let issued = cdn.pebble.issued();
        if issued == 2 { Ok(()) } else { Err(issued.to_string()) }
    })
    .await;
    cdn.hits_everywhere(HOST, PATIENCE).await;
}
