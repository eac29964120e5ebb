//! How the node speaks to an origin: what it shows in TLS and what it accepts, the secrets it tells, how long it waits.
//! Everything holds for what is cached and for what is passed on, over HTTP/1.1 and HTTP/2.

use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::HOST;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};
use cache_tests::talker::{Asked, Manner, Said, Talker};
use cache_tests::tls::{Identity, TLS12, TLS13, authority_pem};

/// A site for a host with one origin, which is spoken to in this way.
fn site(host: &str, url: &str, manner: &str) -> String {
    let name = host.replace(['*', '.'], "-");
    format!("[site.s{name}]\nhosts = [\"{host}\"]\norigins = [{{ url = \"{url}\", {manner} }}]\n")
}

fn page(_: &Asked) -> Said {
    Said::ok("page").field("cache-control", "no-store")
}

/// The status of a request that is cached, and of one that is passed on.
async fn both(node: &Node) -> (u16, u16) {
    let mut client = node.client().await;
    let cached = client.get("/page").await.status;
    let passed = client.exchange("POST", "/page", &["Content-Length: 0"]).await.status;
    (cached, passed)
}

#[tokio::test]
async fn the_node_shows_its_certificate() {
    let mut table = Table::new("certificates");
    for http2 in [false, true] {
        let manner = if http2 { Manner::answering(page).http2() } else { Manner::answering(page) };
        let talker = Talker::start(manner.in_tls(&[&TLS13, &TLS12], true, HOST)).await;
        let to = format!("sni = \"{HOST}\", ca = \"authority.pem\", http2 = {http2}");
        let shown = format!("{to}, certificate = \"node.pem\", key = \"node.key\"");
        let (first, second) = (Identity::of(&["node.test"]), Identity::of(&["node.test"]));
        let text = site("*", &talker.url(), &shown);
        let node = NodeOptions::configured_before(&nobody_listens(), &text)
            .file("authority.pem", authority_pem())
            .file("node.pem", &first.certificate_pem)
            .file("node.key", &first.key_pem)
            .start()
            .await;
        let name = |what: &str| format!("{what}, http2 = {http2}");
        table.row(&name("shown"), same("statuses", both(&node).await, (200, 200)));
        let certificates: Vec<_> = talker.asked().into_iter().map(|asked| asked.begun.certificate).collect();
        table.row(&name("shown"), same("certificates", certificates, vec![Some(first.certificate.clone()); 2]));

        // Another one, and a key that is not of it: what is in force stays.
        node.write_file("node.pem", &second.certificate_pem);
        let refused = node.reload(&text).await;
        table.row(&name("not its key"), same("status of the reload", refused.status, 422));
        let why = refused.text();
        table.row(&name("not its key"), that(why.contains("not the key of"), || why.clone()));
        table.row(&name("not its key"), same("statuses", both(&node).await, (200, 200)));
        node.write_file("node.key", &second.key_pem);
        table.row(&name("another"), same("status of the reload", node.reload(&text).await.status, 200));
        table.row(&name("another"), same("statuses", both(&node).await, (200, 200)));
        table.row(&name("another"), same("certificate", talker.last().begun.certificate, Some(second.certificate)));

        // The connection that was made with a certificate is not for those who show none.
        let reloaded = node.reload(&site("*", &talker.url(), &to)).await.status;
        table.row(&name("none"), same("status of the reload", reloaded, 200));
        table.row(&name("none"), same("statuses", both(&node).await, (502, 502)));
    }
    table.finish();
}

#[tokio::test]
async fn what_is_too_old_is_not_spoken() {
    let mut table = Table::new("versions of TLS");
    for http2 in [false, true] {
        for (name, versions, modern) in [("1.2", &[&TLS12][..], 502), ("1.2 and 1.3", &[&TLS12, &TLS13], 200)] {
            let manner = if http2 { Manner::answering(page).http2() } else { Manner::answering(page) };
            let talker = Talker::start(manner.in_tls(versions, false, HOST)).await;
            let to = format!("sni = \"{HOST}\", ca = \"authority.pem\", http2 = {http2}");
            let text = site("old.test", &talker.url(), &to)
                + &site("*", &talker.url(), &format!("{to}, tls_minimum = \"1.3\""));
            let node = NodeOptions::configured_before(&nobody_listens(), &text)
                .file("authority.pem", authority_pem())
                .start()
                .await;
            let name = format!("{name}, http2 = {http2}");
            // Whoever may speak it leaves a connection that others must not find.
            let old = node.client().await.send_to("old.test", "/page").await;
            table.row(&name, same("with the site that may", old, 200));
            table.row(&name, same("statuses", both(&node).await, (modern, modern)));
            table.row(&name, same("statuses again", both(&node).await, (modern, modern)));
            let asked = if modern == 200 { 5 } else { 1 };
            table.row(&name, same("requests", talker.asked().len(), asked));
        }
    }
    table.finish();
}

#[tokio::test]
async fn secrets_are_for_the_origin_alone() {
    let mut table = Table::new("secrets");
    for http2 in [false, true] {
        let manner = if http2 { Manner::answering(page).http2() } else { Manner::answering(page) };
        let talker = Talker::start(manner).await;
        let secrets = "headers = { X-Origin-Secret = \"in-the-clear\", x-filed = { file = \"filed\" }, \
             authorization = \"Basic Zm9vOmJhcg==\" }";
        let text = site("*", &talker.url(), &format!("http2 = {http2}, {secrets}"))
            + "health = { path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\" }\n";
        let options = NodeOptions::configured_before(&nobody_listens(), &text).file("filed", "first-of-file\n");
        let node = options.variable("RUST_LOG", "debug").start().await;
        let forged = ["X-Origin-Secret: forged", "X-Filed: a", "X-Filed: b", "Authorization: Bearer x"];
        let mut client = node.client().await;
        client.exchange("GET", "/page", &forged).await;
        client.exchange("POST", "/page", &[&forged[..], &["Content-Length: 0"]].concat()).await;
        until(PATIENCE, "a check", || async {
            let checked = talker.asked().iter().any(|asked| asked.target == "/healthz");
            if checked { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        let told = |asked: &Asked| ["x-origin-secret", "x-filed", "authorization"].map(|name| asked.field(name));
        let expected = ["in-the-clear", "first-of-file", "Basic Zm9vOmJhcg=="].map(|value| Some(value.to_owned()));
        for asked in talker.asked() {
            let name = format!("{} {}, http2 = {http2}", asked.method, asked.target);
            table.row(&name, same("fields", told(&asked), expected.clone()));
        }
        node.write_file("filed", "second-of-file");
        table.row("a reload", same("status", node.reload(&text).await.status, 200));
        client.get("/page").await;
        let told: Vec<_> =
            talker.asked().iter().filter(|asked| asked.method == "GET" && asked.target == "/page").map(told).collect();
        table.row(
            "after a reload",
            same("in the file", told.last().and_then(|told| told[1].clone()), Some("second-of-file".into())),
        );

        let explained = node.admin_get("/v1/explain?url=http://www.example.test/page").await.expect("an answer");
        node.log_lines(3).await;
        for (place, text) in [
            ("what it prints", node.said()),
            ("the access log", node.log_text()),
            ("explain", explained.text()),
            ("/v1/stat", node.admin_get("/v1/stat").await.expect("an answer").text()),
            ("metrics", node.admin_get("/metrics").await.expect("an answer").text()),
        ] {
            for secret in ["in-the-clear", "first-of-file", "second-of-file", "Zm9vOmJhcg"] {
                table.row(place, that(!text.contains(secret), || format!("{secret} in {text}")));
            }
        }
    }
    table.finish();
}

#[tokio::test]
async fn each_origin_has_its_own_timeouts() {
    let (hasty, patient) = (Origin::start(), Origin::start());
    let gate = Gate::closed();
    for origin in [&hasty, &patient] {
        origin.serve("/page", Answer::ok("page").field("Cache-Control: no-store").after(&gate));
    }
    let text = format!(
        "{}timeouts = {{ first_byte = \"10s\" }}\n{}timeouts = {{ first_byte = \"100ms\", between_bytes = \"100ms\" }}\n{}",
        site("hasty.test", &hasty.url(), "timeouts = { first_byte = \"100ms\", between_bytes = \"100ms\" }"),
        site("patient.test", &patient.url(), "timeouts = { first_byte = \"10s\" }"),
        site("total.test", &hasty.url(), "timeouts = { total = \"150ms\" }"),
    );
    let node = NodeOptions::configured_before(&nobody_listens(), &text).start().await;
    let waiting = async {
        let mut client = node.client().await;
        client.send_to("patient.test", "/page").await
    };
    let hurried = async {
        let status = node.client().await.send_to("hasty.test", "/page").await;
        let posted = node.client().await.post_to("hasty.test", "/page").await;
        let total = node.client().await.send_to("total.test", "/page").await;
        let broken_off = node.client().await.post_to("total.test", "/page").await;
        gate.open();
        (status, posted, total, broken_off)
    };
    let started = std::time::Instant::now();
    let (patience, hurry) = tokio::join!(waiting, hurried);
    assert_eq!((patience, hurry), (200, (504, 504, 504, 0)));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
