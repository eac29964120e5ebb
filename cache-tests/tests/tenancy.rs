//! Tenancy: what the token of a site is told, and what it changes, is of that site alone.

use std::time::{Duration, Instant};

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST};
use cache_tests::configuration::{CERTIFICATE, KEY};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::fleet::{body, called, connected, following, live_within, site};
use cache_tests::hub::Hub;
use cache_tests::machine::Machine;
use cache_tests::metrics::Metrics;
use cache_tests::node::{Node, NodeOptions, binary};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{HTTP_1_1, Identity, Tls};
use serde_json::{Value, json};

const SHOP: &str = "shop.test";
const BLOG: &str = "blog.test";
const STORE_KEY: &str = "store.key";

fn token(name: &str, site: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let verbs = r#"["purge", "explain", "observe", "certificates", "configure", "operate"]"#;
    format!("[[admin.tokens]]\nname = \"{name}\"\nhash = \"{hash}\"\nsites = \"{site}\"\nverbs = {verbs}\n")
}

/// A token of each of two sites, called after them, and `root` for all.
fn tokens() -> String {
    [token("shop", "shop"), token("blog", "blog"), token("root", "*")].concat()
}

/// A certificate of the operator's, for [`HOST`], and a key for those of sites.
fn tls() -> String {
    format!(
        "[tls]\nstore_key = \"{STORE_KEY}\"\ncertificates = [{{ certificate = \"{CERTIFICATE}\", key = \"{KEY}\" }}]\n"
    )
}

fn two_sites(origin: &Origin) -> String {
    let site = |name: &str, hosts: &str| format!("[site.{name}]\nhosts = {hosts}\norigins = \"{}\"\n", origin.url());
    tls()
        + &tokens()
        + &site("shop", r#"["shop.test", "*.shop.test"]"#)
        + &site("blog", r#"["blog.test", "blog.shop.test"]"#)
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=600"));
    origin
}

async fn alone(origin: &Origin) -> Node {
    NodeOptions::configured(origin, &two_sites(origin)).file(STORE_KEY, [7; 32]).start().await
}

async fn ask(node: &Node, target: &str, token: &str) -> Response {
    node.admin_json("GET", target, &Value::Null, Some(token).filter(|token| !token.is_empty())).await
}

async fn add(node: &Node, site: &str, identity: &Identity, token: &str) -> Response {
    let body = json!({ "site": site, "chain": identity.certificate_pem, "key": identity.key_pem });
    node.admin_json("POST", "/v1/certificates", &body, Some(token)).await
}

/// All of a body: what is not to be in it may stand at its end.
fn whole(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

async fn scrape(node: &Node, token: &str) -> Metrics {
    let text = whole(&ask(node, "/metrics", token).await);
    Metrics::parse(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// The certificate a node shows for a name.
async fn shown(node: &Node, name: &str) -> Result<Vec<u8>, String> {
    let agreed = Tls::offering(&[HTTP_1_1]).trusting_anyone().to(name).agree(node.tls_address()).await;
    agreed.map(|agreed| agreed.certificate).map_err(|error| error.to_string())
}

#[tokio::test]
async fn statistics_and_metrics_are_of_ones_own_sites() {
    let origin = origin();
    let node = alone(&origin).await;
    let mut table = Table::new("statistics and metrics");
    for (host, count) in [(SHOP, 3), (BLOG, 2)] {
        for _ in 0..count {
            body(&node, host).await;
        }
    }
    node.admin_json("POST", "/v1/purge", &json!({ "tags": ["a"] }), Some("shop")).await;
    // Requests are counted when they have ended.
    let shop = until(PATIENCE, "three requests in the statistics", || async {
        let answer = ask(&node, "/v1/statistics", "shop").await.json();
        if answer["sites"][0]["requests"] == 3 { Ok(answer) } else { Err(answer.to_string()) }
    })
    .await;
    let counted = |answer: &Value| {
        let site = &answer["sites"][0];
        let count = |key: &str, of: &str| site[key][of].as_u64();
        let counts =
            [("cache", "hit"), ("cache", "miss"), ("status", "200"), ("origin_requests", "ok"), ("purges", "tag")];
        (answer["sites"].as_array().map(Vec::len), counts.map(|(key, of)| count(key, of)))
    };
    table.row("shop", same("counts", counted(&shop), (Some(1), [Some(2), Some(1), Some(3), Some(1), Some(1)])));
    table.row("shop", same("bytes of hits", shop["sites"][0]["response_bytes"]["hit"].as_u64(), Some(8)));
    let all = ask(&node, "/v1/statistics", "root").await.json();
    let names: Vec<_> = all["sites"].as_array().into_iter().flatten().map(|site| site["site"].clone()).collect();
    table.row("root", same("sites", names, vec![json!("blog"), json!("shop")]));
    for (target, token, status) in [
        ("/v1/statistics", "", 401),
        ("/v1/statistics?site=shop", "shop", 200),
        ("/v1/statistics?site=blog", "shop", 403),
        ("/v1/statistics?site=none", "shop", 403),
        ("/v1/statistics?site=none", "root", 404),
        ("/metrics", "", 401),
        ("/metrics", "guess", 401),
        ("/metrics", "shop", 200),
        ("/metrics", "root", 200),
    ] {
        let answer = ask(&node, target, token).await;
        table.row(target, same(token, answer.status, status));
        let tells =
            token == "shop" && (whole(&answer).contains("site=\"blog\"") || whole(&answer).contains("blog.test"));
        table.row(target, that(!tells, || whole(&answer)));
    }
    let own = scrape(&node, "shop").await;
    let is_own =
        |labels: &std::collections::BTreeMap<String, String>| labels.get("site").is_some_and(|site| site == "shop");
    table.row("/metrics", that(own.samples.iter().all(|sample| is_own(&sample.labels)), || format!("{own:?}")));
    table.row("/metrics", same("of shop", own.sum("littoral_requests_total", &[]), 3.0));
    let all = scrape(&node, "root").await;
    table.row("/metrics", same("of all", all.sum("littoral_requests_total", &[]), 5.0));
    table.row("/metrics", that(all.named("littoral_build_info", &[]).count() == 1, || "no build".to_owned()));

    let (code, said) = command(&node, &["statistics", "--site", "shop"], "shop");
    table.row("the command", same("exit code", code, Some(0)));
    table.row("the command", that(said.contains("shop: 3 requests, 66.7 % from the store"), || said));
    let (code, _) = command(&node, &["statistics", "--site", "blog"], "shop");
    table.row("the command, for another site", same("exit code", code, Some(1)));
    table.finish();
}

#[tokio::test]
async fn without_tokens_metrics_are_open() {
    let origin = origin();
    let node = NodeOptions::before(&origin).start().await;
    assert_eq!(ask(&node, "/metrics", "").await.status, 200);
    assert_eq!(ask(&node, "/v1/statistics", "").await.status, 200);
}

#[tokio::test]
async fn a_certificate_is_for_hosts_of_its_site_and_survives_a_restart() {
    let origin = origin();
    let data = Scratch::new("kept");
    let with = |text: &str, key: u8| {
        NodeOptions::configured(&origin, text)
            .file(STORE_KEY, [key; 32])
            .with("--data", data.path().to_str().expect("UTF-8"))
    };
    let text = two_sites(&origin);
    let node = with(&text, 7).start().await;
    let mut table = Table::new("certificates");
    // It says that it is for hosts of the other site too.
    let shop = Identity::of(&[SHOP, "*.shop.test", BLOG, "blog.shop.test", HOST]);
    let blog = Identity::of(&[BLOG]);
    table.row("before", that(shown(&node, SHOP).await.is_err(), || "a handshake".to_owned()));
    for (name, site, identity, token, status) in [
        ("another site", "blog", &blog, "shop", 403),
        ("hosts of another site", "shop", &blog, "shop", 422),
        ("a site that is not there", "none", &blog, "root", 404),
        ("its own", "shop", &shop, "shop", 200),
    ] {
        let begun = Instant::now();
        let answer = add(&node, site, identity, token).await;
        table.row(name, same("status", answer.status, status));
        table.row(
            name,
            that(token == "root" || site == "blog" || !whole(&answer).contains("`blog`"), || whole(&answer)),
        );
        table.row(name, that(begun.elapsed() < live_within(), || format!("{:?}", begun.elapsed())));
    }
    let another = Identity::of(&[SHOP]);
    let mixed = json!({ "site": "shop", "chain": shop.certificate_pem, "key": another.key_pem });
    let answer = node.admin_json("POST", "/v1/certificates", &mixed, Some("shop")).await;
    table.row("the key of another", same("status", answer.status, 422));

    let names = [(SHOP, true), ("www.shop.test", true), (BLOG, false), ("blog.shop.test", false), (HOST, false)];
    for (name, is_shops) in names {
        let found = shown(&node, name).await;
        table.row(name, same("the site's certificate", found.as_ref() == Ok(&shop.certificate), is_shops));
    }
    // A handshake that believes nobody but the authority, and a request.
    let stream = Tls::offering(&[HTTP_1_1]).to(SHOP).connect(node.tls_address()).await.expect("a handshake");
    let mut client = Client::on(stream);
    client.send(format!("GET /page HTTP/1.1\r\nHost: {SHOP}\r\n\r\n")).await.expect("it is sent");
    table.row("a request", same("status", client.response("GET").await.expect("an answer").status, 200));

    let own = ask(&node, "/v1/certificates", "shop").await;
    let certificate = &own.json()["certificates"][0];
    table.row("the list", same("from", certificate["from"].clone(), json!("api")));
    table.row("the list", same("names", certificate["names"].clone(), json!([SHOP, "*.shop.test"])));
    let secret = shop.key_pem.lines().nth(1).expect("a line of base64");
    for (name, text) in [
        ("the list", whole(&own)),
        ("what the node says", node.said()),
        ("the configuration", whole(&ask(&node, "/v1/config", "root").await)),
        ("the copy", std::fs::read_to_string(data.path().join("hub-config.json")).expect("a copy")),
    ] {
        table.row(name, that(!text.contains(secret), || text.clone()));
        table.row(name, that(name == "the copy" || !text.contains("\"key\""), || text.clone()));
    }
    let others = whole(&ask(&node, "/v1/certificates", "blog").await);
    table.row("the list, for another", that(!others.contains("shop"), || others.clone()));
    let metrics = scrape(&node, "shop").await;
    let ends = metrics.sum("littoral_certificate_expiry_seconds", &[("certificate", SHOP), ("site", "shop")]);
    table.row("the metric", same("its end", Some(ends as u64), certificate["not_after"].as_u64()));
    // A reload reads files, and leaves what sites have brought.
    let reload = node.admin_json("POST", "/v1/config/reload", &Value::Null, Some("root")).await.status;
    table.row("a reload", same("status", reload, 200));
    table.row("a reload", same("shown", shown(&node, SHOP).await, Ok(shop.certificate.clone())));

    node.kill().await;
    let again = with(&text, 7).start().await;
    for (name, is_shops) in names {
        let found = shown(&again, name).await;
        table.row("after a restart", same(name, found == Ok(shop.certificate.clone()), is_shops));
    }
    again.kill().await;
    // With another key the node starts, says so, and has none of them; what is kept is left as it is.
    let another_key = with(&text, 8).start().await;
    table.row("another store key", that(shown(&another_key, SHOP).await.is_err(), || "a handshake".to_owned()));
    let metrics = scrape(&another_key, "root").await;
    table.row("another store key", same("rejects", metrics.sum("littoral_config_rejects_total", &[]), 1.0));
    let listed = whole(&ask(&another_key, "/v1/certificates", "shop").await);
    table.row("another store key", that(listed.contains("another `store_key`"), || listed.clone()));
    let answer = add(&another_key, "blog", &blog, "blog").await;
    table.row("another store key", same("a site without certificates", answer.status, 200));
    table.row("another store key", same("shown", shown(&another_key, BLOG).await, Ok(blog.certificate.clone())));
    another_key.kill().await;
    // What cannot be opened can be taken away, one by one, and then others are taken.
    let third = with(&text, 9).start().await;
    let unusable = ask(&third, "/v1/certificates", "blog").await.json()["unusable"][0].clone();
    let fingerprint = &unusable["fingerprints"][0];
    table.row("a third store key", same("add", add(&third, "blog", &blog, "blog").await.status, 409));
    let remove = json!({ "fingerprint": fingerprint });
    let removed = third.admin_json("POST", "/v1/certificates/delete", &remove, Some("blog")).await;
    table.row("a third store key", same("remove", (removed.status, whole(&removed).contains("blog")), (200, true)));
    table.row("a third store key", same("add again", add(&third, "blog", &blog, "blog").await.status, 200));
    table.row("a third store key", same("shown", shown(&third, BLOG).await, Ok(blog.certificate.clone())));
    third.kill().await;
    let back = with(&text, 7).start().await;
    table.row("the key again", same("shown", shown(&back, SHOP).await, Ok(shop.certificate.clone())));
    table.finish();
}

#[tokio::test]
async fn the_command_line_brings_and_removes_certificates() {
    let origin = origin();
    let node = alone(&origin).await;
    let shop = Identity::of(&[SHOP, BLOG]);
    let files = Scratch::new("files");
    files.write("shop.pem", shop.certificate_pem.as_bytes());
    files.write("shop.key", shop.key_pem.as_bytes());
    let path = |name: &str| files.path().join(name).to_str().expect("UTF-8").to_owned();
    let (chain, key) = (path("shop.pem"), path("shop.key"));
    let mut table = Table::new("commands");
    let (code, said) =
        command(&node, &["certificate", "add", "--site", "shop", "--chain", &chain, "--key", &key], "shop");
    table.row(
        "add",
        same("exit code", (code, said.contains("of shop is added; that is in force here")), (Some(0), true)),
    );
    let (code, said) = command(&node, &["certificate", "list"], "shop");
    table.row("list", same("exit code", code, Some(0)));
    table.row(
        "list",
        that(said.contains("shop: shop.test, until ") && said.contains("not used for blog.test"), || said.clone()),
    );
    let listed = ask(&node, "/v1/certificates", "shop").await.json();
    let fingerprint = listed["certificates"][0]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    table.row("add", same("shown", shown(&node, SHOP).await, Ok(shop.certificate.clone())));
    let (code, _) = command(&node, &["certificate", "remove", "--site", "shop", &fingerprint], "blog");
    table.row("remove, by another", same("exit code", code, Some(1)));
    let (code, said) = command(&node, &["certificate", "remove", "--site", "shop", &fingerprint], "shop");
    table.row("remove", same("exit code", (code, said.contains("is removed")), (Some(0), true)));
    table.row("remove", that(shown(&node, SHOP).await.is_err(), || "a handshake".to_owned()));
    let (code, said) = command(&node, &["certificate", "remove", "--site", "shop", &fingerprint], "shop");
    table.row("remove, again", same("exit code", (code, said.contains("no certificate with this")), (Some(1), true)));
    table.finish();
}

#[tokio::test]
async fn without_a_store_key_sites_bring_no_certificates() {
    let origin = origin();
    let text = two_sites(&origin).replace(&format!("store_key = \"{STORE_KEY}\"\n"), "");
    let node = NodeOptions::configured(&origin, &text).start().await;
    let answer = add(&node, "shop", &Identity::of(&[SHOP]), "shop").await;
    assert_eq!((answer.status, whole(&answer).contains("`store_key` in [tls]")), (409, true), "{}", whole(&answer));
}

/// What a certificate that was brought on one node is worth on others: with the same key, and with another one.
#[tokio::test]
async fn a_certificate_brought_on_one_node_is_shown_by_the_others() {
    let page = called("page");
    let hub = Hub::start().await;
    let machine = Machine::shared();
    let root = tokens();
    let start = async |name: &str, key: u8| {
        let more = format!("{}{root}", tls());
        following(&hub.url(), name, &more).file(STORE_KEY, [key; 32]).within(&machine).start().await
    };
    let nodes = [start("edge-0", 7).await, start("edge-1", 7).await, start("edge-2", 8).await];
    for node in &nodes {
        until(PATIENCE, "a current node", || async {
            let response = node.admin_get("/currentz").await?;
            if response.status == 200 { Ok(()) } else { Err(whole(&response)) }
        })
        .await;
    }
    for (name, host) in [("shop", SHOP), ("blog", BLOG)] {
        let push = json!({ "site": name, "text": site(name, host, &page) });
        let answer = nodes[0].admin_json("POST", "/v1/config/push", &push, Some("root")).await;
        assert_eq!(answer.status, 200, "{}", whole(&answer));
        for node in &nodes {
            until(PATIENCE, "the site", || async {
                let found = body(node, host).await;
                if found == "page" { Ok(()) } else { Err(found) }
            })
            .await;
        }
    }
    let mut table = Table::new("many nodes");
    let config = async |node: &Node| ask(node, "/v1/config", "root").await.json()["documents"].clone();
    let before = config(&nodes[0]).await;
    let mut took = Vec::new();
    let mut certificates = Vec::new();
    for number in 0..3 {
        let identity = Identity::of(&[SHOP, BLOG]);
        let begun = Instant::now();
        let answer = add(&nodes[0], "shop", &identity, "shop").await;
        table.row("brought", same("status", answer.status, 200));
        for node in &nodes[..2] {
            until(PATIENCE, "the certificate", || async {
                let found = shown(node, SHOP).await;
                if found.as_ref() == Ok(&identity.certificate) {
                    Ok(())
                } else {
                    Err(format!("{number}: {:?}", found.err()))
                }
            })
            .await;
        }
        took.push(begun.elapsed());
        certificates.push(identity);
    }
    println!("from the request to handshakes on both nodes: {took:?}");
    table.row("both nodes", that(took.iter().all(|took| *took < live_within()), || format!("{took:?}")));
    for node in &nodes[..2] {
        table.row("another site", that(shown(node, BLOG).await.is_err(), || "a handshake".to_owned()));
    }
    // It is no part of the configuration, and its history is not told.
    table.row("the configuration", same("documents", config(&nodes[0]).await, before));
    let history = ask(&nodes[0], "/v1/config/history?site=shop", "root").await.json();
    table.row("the configuration", same("versions", history["versions"].as_array().map(Vec::len), Some(1)));
    // A node with another key refuses it, says so, and goes on.
    // Of versions that come together it may have seen the last one alone.
    until(PATIENCE, "a refusal", || async {
        let count = scrape(&nodes[2], "root").await.sum("littoral_config_rejects_total", &[]);
        if count >= 1.0 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    table.row("another key", that(shown(&nodes[2], SHOP).await.is_err(), || "a handshake".to_owned()));
    let said = whole(&ask(&nodes[2], "/v1/certificates", "shop").await);
    table.row("another key", that(said.contains("another `store_key`"), || said));
    let others = whole(&ask(&nodes[2], "/v1/certificates", "blog").await);
    table.row("another key, for another site", that(!others.contains("shop"), || others.clone()));
    table.row("another key", same("sites", body(&nodes[2], SHOP).await, "page".into()));
    let answer = add(&nodes[2], "shop", &Identity::of(&[SHOP]), "shop").await;
    table.row("another key", same("bringing one there", answer.status, 409));
    // The configuration of the site is changed beside it.
    let push = json!({ "site": "shop", "text": format!("{}https_only = false\n", site("shop", SHOP, &page)) });
    let answer = nodes[1].admin_json("POST", "/v1/config/push", &push, Some("root")).await;
    table.row("a push beside it", same("status", answer.status, 200));
    let last = certificates.last().expect("some").certificate.clone();
    table.row("a push beside it", same("shown", shown(&nodes[1], SHOP).await, Ok(last.clone())));
    // Removed on one node, the one before is shown by the other.
    let listed = ask(&nodes[1], "/v1/certificates", "shop").await.json();
    let fingerprints: Vec<_> = listed["certificates"].as_array().into_iter().flatten().collect();
    table.row("the list", same("certificates", fingerprints.len(), 3));
    let fingerprint = fingerprints.last().map(|last| last["fingerprint"].clone());
    let remove = json!({ "site": "shop", "fingerprint": fingerprint });
    let answer = nodes[1].admin_json("POST", "/v1/certificates/delete", &remove, Some("shop")).await;
    table.row("removed", same("status", answer.status, 200));
    until(PATIENCE, "the one before", || async {
        let found = shown(&nodes[0], SHOP).await;
        if found.as_ref() == Ok(&certificates[1].certificate) { Ok(()) } else { Err(format!("{:?}", found.err())) }
    })
    .await;
    table.finish();
}

#[tokio::test]
async fn a_node_starts_without_the_hub_with_certificates_it_had() {
    let page = called("page");
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let data = Scratch::new("kept");
    let node = || {
        following(&hub.url(), "edge", &tls())
            .file(STORE_KEY, [7; 32])
            .with("--data", data.path().to_str().expect("UTF-8"))
            .within(&machine)
    };
    let first = node().start().await;
    connected(std::slice::from_ref(&first)).await;
    let push = json!({ "site": "shop", "text": site("shop", SHOP, &page) });
    assert_eq!(first.admin_json("POST", "/v1/config/push", &push, None).await.status, 200);
    let shop = Identity::of(&[SHOP]);
    let answer = add(&first, "shop", &shop, "").await;
    assert_eq!(answer.status, 200, "{}", whole(&answer));
    let options = node();
    first.kill().await;
    hub.kill().await;
    let again = options.start().await;
    assert_eq!(shown(&again, SHOP).await, Ok(shop.certificate));
    let answer = add(&again, "shop", &Identity::of(&[SHOP]), "").await;
    assert_eq!(answer.status, 503, "{}", whole(&answer));
}

/// A host that is another site's is told to be taken, and not whose it is.
#[tokio::test]
async fn a_conflict_with_another_site_does_not_name_it() {
    let page = called("page");
    let hub = Hub::start().await;
    let machine = Machine::shared();
    let own = format!("{}{}", tokens(), site("hidden", SHOP, &page));
    let node = following(&hub.url(), "edge", &own).within(&machine).start().await;
    until(PATIENCE, "a current node", || async {
        let response = node.admin_get("/currentz").await?;
        if response.status == 200 { Ok(()) } else { Err(whole(&response)) }
    })
    .await;
    // As another node, whose own file has no such site, has published it.
    let text = site("shop", SHOP, &page);
    let document = json!({ "v": 1, "text": text, "at": 1, "by": "x", "share": 100 }).to_string();
    hub.client().await.publish("config.site.shop", document.into()).await.expect("sent").await.expect("published");
    let refused = until(PATIENCE, "a refusal", || async {
        let answer = ask(&node, "/v1/config", "shop").await;
        let refused = answer.json()["documents"][0]["refused"].as_str().map(str::to_owned);
        refused.ok_or_else(|| whole(&answer))
    })
    .await;
    let mut table = Table::new("a conflict");
    table.row("refused", that(!refused.contains("hidden"), || refused.clone()));
    let push = json!({ "site": "shop", "text": text });
    for (token, names_it) in [("shop", false), ("root", true)] {
        let answer = node.admin_json("POST", "/v1/config/push", &push, Some(token)).await;
        table.row(token, same("status", answer.status, 422));
        table.row(token, same("names it", whole(&answer).contains("hidden"), names_it));
        let is_said = whole(&answer).contains(if names_it { "belongs to both" } else { "`shop.test` is not free" });
        table.row(token, that(is_said, || whole(&answer)));
    }
    let drain = json!({ "site": "shop", "origin": "x" });
    let answer = node.admin_json("POST", "/v1/origins/drain", &drain, Some("shop")).await;
    table.row("a drain", same("names it", (answer.status, whole(&answer).contains("hidden")), (404, false)));
    table.finish();
}

/// What the command says, on either of its outputs, and its exit code.
fn command(node: &Node, arguments: &[&str], token: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.arg(Duration::from_secs(20).as_secs().to_string()).arg(binary()).args(arguments);
    command.args(["--admin", &node.admin().to_string()]).env("LITTORAL_TOKEN", token).env("NO_COLOR", "1");
    let output = command.output().unwrap_or_else(|error| panic!("littoral does not start: {error}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.code(), said.concat())
}
