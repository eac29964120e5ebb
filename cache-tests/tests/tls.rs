//! TLS: certificates by name, versions, protocols, resumption, certificates that change, and handshakes that fail.

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, Socket};
use cache_tests::configuration::{CERTIFICATE, KEY};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::metrics::Sample;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};
use cache_tests::tls::{H2, HTTP_1_1, Identity, TLS12, TLS13, Tls};

const SHOP: &str = "shop.example.test";

/// With what follows in `[tls]`.
async fn site(tls: &str) -> (Origin, Node) {
    let origin = origin();
    let node = NodeOptions::configured(&origin, &one_certificate(tls)).start().await;
    (origin, node)
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=600"));
    origin
}

fn one_certificate(more: &str) -> String {
    format!("[tls]\ncertificates = [{{ certificate = \"{CERTIFICATE}\", key = \"{KEY}\" }}]\n{more}\n")
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on() {
    let (_origin, node) = site("").await;
    let mut table = Table::new("versions and protocols");
    for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        for (offered, expected) in [
            (&[H2][..], Some(H2)),
            (&[HTTP_1_1], Some(HTTP_1_1)),
            (&[H2, HTTP_1_1], Some(H2)),
            (&[HTTP_1_1, H2], Some(H2)),
            (&["spdy/3", HTTP_1_1], Some(HTTP_1_1)),
            (&[], None),
        ] {
            let agreed = Tls::with_versions(&[version], offered).agree(node.tls_address()).await;
            let found = agreed.map(|agreed| (agreed.version.and_then(|version| version.as_str()), agreed.alpn));
            let expected = (Some(name), expected.map(str::to_owned));
            let found = found.map_err(|error| error.to_string());
            table.row(&format!("{name} {offered:?}"), same("what is agreed on", found, Ok(expected)));
        }
        // RFC 7301 section 3.2: no_application_protocol.
        let agreed = Tls::with_versions(&[version], &["spdy/3"]).agree(node.tls_address()).await;
        table.row(name, that(agreed.is_err(), || "agreed on spdy/3".to_owned()));
    }
    // Whoever says nothing speaks HTTP/1.
    let stream = Tls::offering(&[]).connect(node.tls_address()).await.expect("a handshake");
    table.row("no ALPN", same("the page", Client::on(stream).get("/page").await.text().as_str(), "page"));
    table.finish();
}

#[tokio::test]
async fn a_minimum_version_is_one() {
    let (_origin, node) = site("minimum_version = \"1.3\"").await;
    let old = Tls::with_versions(&[&TLS12], &[]).agree(node.tls_address()).await;
    let alert = old.expect_err("TLS 1.2 is refused").to_string();
    assert!(alert.contains("ProtocolVersion") || alert.contains("HandshakeFailure"), "{alert}");
    let new = Tls::with_versions(&[&TLS13], &[]).agree(node.tls_address()).await;
    assert!(new.is_ok(), "{new:?}");
}

#[tokio::test]
async fn what_is_older_than_tls_1_2_is_refused() {
    let (_origin, node) = site("").await;
    let mut table = Table::new("old versions");
    for minor in 0..=2 {
        let mut client = Client::connect(node.tls_address()).await;
        client.send(old_client_hello(minor)).await.expect("the node reads");
        let (answer, end) = client.closed().await;
        let name = format!("version 3.{minor}");
        table.row(&name, that(end.is_closed(), || format!("{end:?}")));
        // An alert, or nothing; a ServerHello would be 0x16.
        table.row(&name, that(answer.first().is_none_or(|first| *first == 0x15), || answer.escape_ascii().to_string()));
    }
    table.finish();
}

/// Without extensions, for SSL 3.0 (0), TLS 1.0 (1) or TLS 1.1 (2).
fn old_client_hello(minor: u8) -> Vec<u8> {
    let ciphers = [0x00, 0x2f, 0x00, 0x35, 0xc0, 0x13, 0xc0, 0x14];
    let mut body = vec![3, minor];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 8]);
    body.extend_from_slice(&ciphers);
    body.extend_from_slice(&[1, 0]);
    let length = u8::try_from(body.len()).expect("a short hello");
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
}

#[tokio::test]
async fn the_certificate_is_that_of_the_name() {
    let origin = origin();
    let (www, shop) = (Identity::of(&[HOST, "alias.example.test"]), Identity::of(&[SHOP, "*.shop.example.test"]));
    let mut table = Table::new("certificates by name");
    for unknown in ["refuse", "first"] {
        let text = format!(
            "[tls]\nunknown_name = \"{unknown}\"\n\
             certificates = [{{ certificate = \"a.pem\", key = \"a.key\" }}, {{ certificate = \"b.pem\", key = \"b.key\" }}]\n"
        );
        let node = NodeOptions::configured(&origin, &text)
            .file("a.pem", &www.certificate_pem)
            .file("a.key", &www.key_pem)
            .file("b.pem", &shop.certificate_pem)
            .file("b.key", &shop.key_pem)
            .start()
            .await;
        let tls = Tls::offering(&[H2]).trusting_anyone();
        for (name, expected) in [
            (HOST, Some(&www)),
            ("WWW.Example.Test", Some(&www)),
            ("alias.example.test", Some(&www)),
            (SHOP, Some(&shop)),
            ("eu.shop.example.test", Some(&shop)),
            // RFC 9525 section 6.3: a wildcard is one label.
            ("a.eu.shop.example.test", None),
            ("example.test", None),
            ("other.example.test", None),
        ] {
            let agreed = tls.to(name).agree(node.tls_address()).await;
            let row = format!("{unknown} {name}");
            let expected = expected.or((unknown == "first").then_some(&www));
            match (expected, agreed) {
                (Some(identity), Ok(agreed)) => {
                    table.row(
                        &row,
                        that(agreed.certificate == identity.certificate, || "another certificate".to_owned()),
                    );
                }
                (Some(_), Err(error)) => table.row(&row, Err(error.to_string())),
                (None, agreed) => {
                    let alert = agreed.err().map(|error| error.to_string()).unwrap_or_default();
                    table.row(&row, that(alert.contains("UnrecognisedName"), || format!("no such alert: {alert:?}")));
                }
            }
        }
        let nameless = Tls::offering(&[H2]).trusting_anyone().nameless().agree(node.tls_address()).await;
        let well = match nameless {
            Ok(agreed) => unknown == "first" && agreed.certificate == www.certificate,
            Err(error) => unknown == "refuse" && error.to_string().contains("UnrecognisedName"),
        };
        table.row(&format!("{unknown} no name"), that(well, || "another certificate, or another alert".to_owned()));
    }
    table.finish();
}

#[tokio::test]
async fn sessions_are_resumed() {
    let (_origin, node) = site("").await;
    for version in [&TLS12, &TLS13] {
        for alpn in [&[H2][..], &[HTTP_1_1]] {
            let tls = Tls::with_versions(&[version], alpn);
            let resumed = [visit(&tls, &node).await, visit(&tls, &node).await, visit(&tls, &node).await];
            assert_eq!(resumed, [false, true, true], "{version:?} {alpn:?}");
        }
    }
}

#[tokio::test]
async fn nodes_with_one_key_accept_each_others_tickets() {
    let origin = origin();
    let identity = Identity::of(&[HOST]);
    let key: Vec<u8> = (0..64).collect();
    let other_key: Vec<u8> = (1..65).collect();
    let start = async |key: Option<&[u8]>| {
        let text = one_certificate(key.map_or("", |_| "ticket_keys = \"tickets.key\""));
        let node = NodeOptions::configured(&origin, &text)
            .file(CERTIFICATE, &identity.certificate_pem)
            .file(KEY, &identity.key_pem)
            .file("tickets.key", key.unwrap_or_default());
        node.start().await
    };
    let (one, two) = (start(Some(&key)).await, start(Some(&key)).await);
    let (stranger, random) = (start(Some(&other_key)).await, start(None).await);
    let mut table = Table::new("tickets of another node");
    for (version, name) in [(&TLS12, "TLS 1.2"), (&TLS13, "TLS 1.3")] {
        for (other, node, expected) in
            [("its twin", &two, true), ("another key", &stranger, false), ("no key", &random, false)]
        {
            let tls = Tls::with_versions(&[version], &[HTTP_1_1]);
            let resumed = (visit(&tls, &one).await, visit(&tls, node).await);
            table.row(&format!("{name}, {other}"), same("resumed", resumed, (false, expected)));
        }
    }
    table.finish();
}

/// A page over a new connection; whether its session was resumed. Tickets of TLS 1.3 come after the handshake.
async fn visit(tls: &Tls, node: &Node) -> bool {
    let stream = tls.connect(node.tls_address()).await.expect("a handshake");
    let agreed = stream.agreed();
    let page = if agreed.alpn.as_deref() == Some(H2) {
        cache_tests::h2::polite::Polite::open(stream).await.expect("HTTP/2").get("/page").await
    } else {
        Client::on(stream).get("/page").await
    };
    assert_eq!(page.text(), "page");
    agreed.resumed
}

#[tokio::test]
async fn certificates_change_without_a_restart() {
    let (_origin, node) = site("").await;
    let text = one_certificate("");
    let (open, mut old) = (node.h2().await, node.tls_client().await);
    let before = Tls::offering(&[]).agree(node.tls_address()).await.expect("a handshake").certificate;
    let renewed = Identity::of(&[HOST]);
    node.write_file(CERTIFICATE, &renewed.certificate_pem);
    // A certificate that does not fit its key changes nothing.
    let answer = node.reload(&text).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let served = Tls::offering(&[]).agree(node.tls_address()).await.expect("a handshake").certificate;
    assert!(served == before);
    node.write_file(KEY, &renewed.key_pem);
    let answer = node.reload(&text).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let served = Tls::offering(&[]).agree(node.tls_address()).await.expect("a handshake").certificate;
    assert!(served == renewed.certificate && served != before);
    // Connections that were open go on.
    assert_eq!((open.get("/page").await.status, old.get("/page").await.status), (200, 200));
    // What is no certificate changes nothing either.
    node.write_file(CERTIFICATE, "no PEM at all");
    assert_eq!(node.reload(&text).await.status, 422);
    let served = Tls::offering(&[]).agree(node.tls_address()).await.expect("a handshake").certificate;
    assert!(served == renewed.certificate);
}

#[tokio::test]
async fn what_is_no_tls_is_closed() {
    let (origin, node) = site("").await;
    let mut table = Table::new("no TLS");
    let mut large = vec![0x16, 3, 1, 0xff, 0xff];
    large.extend(vec![0; 70_000]);
    for (name, bytes) in [
        ("HTTP", b"GET /page HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("zeros", vec![0; 1_000]),
        ("letters", vec![b'x'; 100_000]),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
        ("application data", [&[0x17, 3, 3, 0, 100][..], &[0; 100]].concat()),
        ("a record that is too large", large),
        ("a ClientHello of nothing", vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
        ("a ServerHello", vec![0x16, 3, 3, 0, 4, 2, 0, 0, 0]),
    ] {
        let mut client = Client::connect(node.tls_address()).await;
        let _ = client.send(bytes).await;
        let (answer, end) = client.closed().await;
        table.row(name, that(end.is_closed(), || format!("{end:?}")));
        // An alert, nothing, or a word to those who speak HTTP.
        let told = answer.first().is_none_or(|first| *first == 0x15) || answer.starts_with(b"HTTP/1.1 400 ");
        table.row(name, that(told, || answer.escape_ascii().to_string()));
    }
    table.row("origin", same("requests", origin.heads(), 0));
    table.finish();
}

#[tokio::test]
async fn failed_handshakes_are_counted_and_not_told_one_by_one() {
    let (_origin, node) = site("").await;
    let told = node.said().lines().count();
    let (unknown, good) = (Tls::offering(&[H2]).to("other.example.test"), node.h2().await);
    for number in 0..2_000 {
        if number % 100 == 0 {
            assert!(unknown.agree(node.tls_address()).await.is_err());
            assert_eq!(good.get("/page").await.status, 200, "after {number}");
        } else {
            let mut client =
                Client::connect_with(node.tls_address(), Socket::default()).await.expect("the node accepts");
            let _ = client.send(b"no TLS at all\r\n\r\n").await;
            assert!(client.closed().await.1.is_closed());
        }
    }
    let refused = |sample: &&Sample| sample.labels.get("reason").is_some_and(|reason| reason.contains("tls"));
    until(PATIENCE, "2,000 failed handshakes in the metrics", || async {
        let metrics = node.metrics().await;
        let named: Vec<_> = metrics.named("littoral_refusals_total", &[]).filter(refused).cloned().collect();
        let count: f64 = named.iter().map(|sample| sample.value).sum();
        if count >= 2_000.0 { Ok(()) } else { Err(format!("{named:?}")) }
    })
    .await;
    let more = node.said().lines().count() - told;
    assert!(more <= 10, "{more} lines about failed handshakes:\n{}", node.said());
}
