//! The PROXY protocol: load balancers that tell the node whose a connection is, and origins that are told by the node.

use std::net::{IpAddr, Ipv4Addr};

use cache_tests::answer::Answer;
use cache_tests::client::{Client, Socket};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::h2::polite::Polite;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::stream::Stream;
use cache_tests::table::{Table, same, that};
use cache_tests::talker::{Manner, Said, Talker};
use cache_tests::tls::{H2, HTTP_1_1, Tls};

/// Where the load balancer of these tests is; others are next to it.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1));

const FROM: &str = "[listen.proxy_protocol]\nfrom = [\"127.0.9.0/24\"]\n";

fn v2(rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", rest].concat()
}

fn from(address: IpAddr) -> Socket {
    Socket { from: Some(address), ..Socket::default() }
}

async fn refusals(node: &Node, reason: &str) -> f64 {
    node.metrics().await.sum("littoral_refusals_total", &[("reason", reason)])
}

/// A connection is closed before it is counted.
async fn counted(node: &Node, reason: &str, expected: f64) {
    until(PATIENCE, &format!("{expected} of {reason}"), || async {
        let count = refusals(node, reason).await;
        if count == expected { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;
}

/// The address the origin is told in the last request.
fn told(origin: &Origin) -> Option<String> {
    origin.requests().last().and_then(|request| request.field("x-forwarded-for"))
}

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: no-store"));
    let node = NodeOptions::configured(&origin, FROM).start().await;
    let tcp4 = b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb";
    let tlv = b"\x21\x11\x00\x13\xc0\x00\x02\x02\xc6\x33\x64\x02\x04\x00\x01\xbb\x02\x00\x04name";
    let rows: &[(&str, IpAddr, Vec<u8>, &str)] = &[
        ("v1", BALANCER, b"PROXY TCP4 192.0.2.7 198.51.100.2 1024 443\r\n".to_vec(), "192.0.2.7"),
        ("v1 of IPv6", BALANCER, b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(), "2001:db8::1"),
        ("v1 of nobody", BALANCER, b"PROXY UNKNOWN\r\n".to_vec(), "127.0.9.1"),
        ("v2", BALANCER, v2(tcp4), "192.0.2.1"),
        ("v2 with more", BALANCER, v2(tlv), "192.0.2.2"),
        ("v2 of the balancer", BALANCER, v2(b"\x20\x00\x00\x00"), "127.0.9.1"),
        ("somebody else", Ipv4Addr::new(127, 0, 8, 1).into(), vec![], "127.0.8.1"),
    ];
    let mut table = Table::new("headers");
    let mut lines = 0;
    for (name, address, header, client) in rows {
        let mut clear = Client::connect_with(node.address(), from(*address)).await.expect("a connection");
        // The header and the request in one piece, and byte by byte.
        let request = [&header[..], b"GET /page HTTP/1.1\r\nHost: www.example.test\r\n\r\n"].concat();
        clear.send(&request).await.expect("it is sent");
        let response = clear.response("GET").await;
        table.row(name, same("status", response.map_or(0, |response| response.status), 200));
        table.row(name, same("told", told(&origin).as_deref(), Some(*client)));
        table.row(name, same("on the same connection", clear.get("/page").await.status, 200));
        let mut slow = Client::connect_with(node.address(), from(*address)).await.expect("a connection");
        for byte in &request {
            slow.send([*byte]).await.expect("it is sent");
        }
        table.row(name, same("bytewise", slow.response("GET").await.map_or(0, |response| response.status), 200));
        table.row(name, same("told bytewise", told(&origin).as_deref(), Some(*client)));

        let (https, socket) = (node.tls_address(), from(*address));
        let tls = async |alpn| Tls::offering(&[alpn]).connect_behind(https, socket, header).await;
        let stream = tls(HTTP_1_1).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        table.row(name, same("over TLS", Client::on(stream).get("/page").await.status, 200));
        table.row(name, same("told over TLS", told(&origin).as_deref(), Some(*client)));
        let stream: Stream = tls(H2).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let http2 = Polite::open(stream).await.expect("HTTP/2");
        table.row(name, same("over HTTP/2", http2.exchange("POST", "/page", &[], None).await.status, 200));
        table.row(name, same("told over HTTP/2", told(&origin).as_deref(), Some(*client)));
        lines += 5;
        let logged = node.log_lines(lines).await;
        let clients: Vec<_> = logged[lines - 5..].iter().map(|line| line["client"].clone()).collect();
        table.row(name, same("in the log", clients, vec![serde_json::json!(client); 5]));
    }
    table.finish();
}

#[tokio::test]
async fn what_does_not_begin_with_a_header_is_closed() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: no-store"));
    let node = NodeOptions::configured(&origin, &format!("{FROM}[limits]\nhead_timeout = \"300ms\"\n")).start().await;
    let mut table = Table::new("no header");
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("a request", b"GET /page HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_vec(), "proxy-header"),
        ("another family", b"PROXY UDP4 192.0.2.7 198.51.100.2 1024 443\r\n".to_vec(), "proxy-header"),
        ("too long", [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(), "proxy-header"),
        ("v2, too long", v2(b"\x21\x11\xff\xff"), "proxy-header"),
        ("nothing", vec![], "proxy-header-timeout"),
        ("half of one", b"PROXY TCP4 192.0.2.7".to_vec(), "proxy-header-timeout"),
    ];
    for (name, bytes, reason) in rows {
        for address in [node.address(), node.tls_address()] {
            let before = refusals(&node, reason).await;
            let mut client = Client::connect_with(address, from(BALANCER)).await.expect("a connection");
            client.send(bytes).await.expect("it is sent");
            let (answer, end) = client.closed().await;
            table.row(name, that(answer.is_empty(), || format!("{} {end:?}", answer.escape_ascii())));
            counted(&node, reason, before + 1.0).await;
        }
    }
    // Who only looks whether somebody listens is not counted.
    let before = refusals(&node, "proxy-header").await;
    drop(Client::connect_with(node.address(), from(BALANCER)).await.expect("a connection"));
    table.row("a look", same("refusals", refusals(&node, "proxy-header").await, before));
    table.row("requests", same("at the origin", origin.requests().len(), 0));

    // A reload changes who is believed.
    let reloaded = node.reload("").await;
    table.row("off", same("reload", reloaded.status, 200));
    let mut client = Client::connect_with(node.address(), from(BALANCER)).await.expect("a connection");
    table.row("off", same("status", client.get("/page").await.status, 200));
    client = Client::connect_with(node.address(), from(BALANCER)).await.expect("a connection");
    client.send(b"PROXY UNKNOWN\r\nGET /page HTTP/1.1\r\nHost: www.example.test\r\n\r\n").await.expect("it is sent");
    let refused = client.response("GET").await.map_or(0, |response| response.status);
    table.row("off", same("a header is no request", refused, 400));
    table.finish();
}

#[tokio::test]
async fn limits_are_those_of_the_client_that_is_told() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: no-store"));
    let limits = format!("{FROM}[limits]\nconnections_per_client = 2\n");
    let node = NodeOptions::configured(&origin, &limits).start().await;
    let mut open = Vec::new();
    // Many clients behind one balancer, each within its limit.
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"] {
        let mut connection = Client::connect_with(node.address(), from(BALANCER)).await.expect("a connection");
        connection.send(format!("PROXY TCP4 {client} 198.51.100.2 1 2\r\n")).await.expect("it is sent");
        assert_eq!(connection.get("/page").await.status, 200, "{client}");
        open.push(connection);
    }
    let mut third = Client::connect_with(node.address(), from(BALANCER)).await.expect("a connection");
    third.send("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n").await.expect("it is sent");
    assert!(third.closed().await.0.is_empty());
    counted(&node, "connections-per-client", 1.0).await;
}

#[tokio::test]
async fn origins_are_told_whose_a_connection_is() {
    let mut table = Table::new("origins");
    for (version, http2) in [("v1", false), ("v2", false), ("v1", true), ("v2", true)] {
        let page = |_: &_| Said::ok("page").field("cache-control", "no-store");
        let manner = Manner::answering(page).proxied();
        let talker = Talker::start(if http2 { manner.http2() } else { manner }).await;
        let text = format!(
            "[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{}\", proxy_protocol = \"{version}\", http2 = {http2} }}]\n\
             timeouts = {{ idle = \"1m\" }}\nhealth = {{ path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\" }}\n",
            talker.url()
        );
        let node = NodeOptions::configured_before(&nobody_listens(), &text).start().await;
        let header = |client: Option<u8>| match (version, client) {
            ("v1", Some(last)) => {
                let port = talker.address().port();
                format!("PROXY TCP4 127.0.9.{last} 127.0.0.1 0 {port}\r\n").into_bytes()
            }
            ("v1", None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (_, Some(last)) => {
                let [high, low] = talker.address().port().to_be_bytes();
                v2(&[0x21, 0x11, 0, 12, 127, 0, 9, last, 127, 0, 0, 1, 0, 0, high, low])
            }
            (_, None) => v2(b"\x20\x00\x00\x00"),
        };
        // One after the other, so that connections could be shared.
        for round in 0..3 {
            for last in [1u8, 2] {
                let address = IpAddr::V4(Ipv4Addr::new(127, 0, 9, last));
                let mut client = Client::connect_with(node.address(), from(address)).await.expect("a connection");
                for method in ["GET", "POST"] {
                    let name = format!("{version}, http2 = {http2}, {method}, round {round}");
                    let response =
                        client.exchange(method, "/page", &["Content-Length: 0"][usize::from(method == "GET")..]).await;
                    table.row(&name, same("status", response.status, 200));
                    let asked = talker.asked().into_iter().rfind(|asked| asked.target == "/page").expect("a request");
                    table.row(
                        &name,
                        same(
                            "header",
                            asked.begun.header.escape_ascii().to_string(),
                            header(Some(last)).escape_ascii().to_string(),
                        ),
                    );
                }
            }
        }
        let pages: Vec<_> = talker.asked().into_iter().filter(|asked| asked.target == "/page").collect();
        let mut connections: Vec<usize> = pages.iter().map(|asked| asked.connection).collect();
        connections.sort_unstable();
        connections.dedup();
        // One that is being put back when the next request comes is not found.
        table.row(version, that(connections.len() < pages.len(), || format!("{connections:?}")));
        until(PATIENCE, "a check", || async {
            let checked = talker.asked().iter().any(|asked| asked.target == "/healthz");
            if checked { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        let checks: Vec<_> = talker.asked().into_iter().filter(|asked| asked.target == "/healthz").collect();
        table.row(
            "checks",
            that(checks.iter().all(|asked| asked.begun.header == header(None)), || format!("{checks:?}")),
        );
    }
    table.finish();
}

/// What came first is what the origin is told, however many wait.
#[tokio::test]
async fn a_fill_asks_in_the_name_of_the_first() {
    let page = |_: &_| Said::ok("page").field("cache-control", "max-age=60");
    let talker = Talker::start(Manner::answering(page).proxied()).await;
    let text = format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{}\", proxy_protocol = \"v1\" }}]\n",
        talker.url()
    );
    let node = NodeOptions::configured_before(&nobody_listens(), &text).start().await;
    for last in [1u8, 2, 3] {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 9, last));
        let mut client = Client::connect_with(node.address(), from(address)).await.expect("a connection");
        assert_eq!(client.get("/page").await.status, 200);
    }
    let asked = talker.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].begun.header.starts_with(b"PROXY TCP4 127.0.9.1 "), "{}", asked[0].begun.header.escape_ascii());
}
