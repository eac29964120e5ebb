//! Sites: which host is whose, and what is set for one site alone.

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::response::Response;
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";
const NO_STORE: &str = "Cache-Control: no-store";

/// One site for everyone, with this in its table.
async fn one_site(origin: &Origin, more: &str) -> Node {
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n{more}\n");
    NodeOptions::configured(origin, &text).start().await
}

async fn ask(node: &Node, host: &str, target: &str) -> Response {
    let mut client = node.client().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.expect("the node reads");
    client.response("GET").await.unwrap_or_else(|end| panic!("{host}{target}: {end:?}"))
}

#[tokio::test]
async fn hosts_belong_to_the_site_that_names_them_best() {
    let origins = [Origin::start(), Origin::start(), Origin::start()];
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/page", Answer::ok(number.to_string()).field(FRESH));
    }
    let site = |name: &str, hosts: &str, origin: &Origin| {
        format!("[site.{name}]\nhosts = [{hosts}]\norigins = [\"{}\"]\n", origin.url())
    };
    let some = site("exact", "\"www.example.test\", \"shop.example.test\"", &origins[0])
        + &site("below", "\"*.example.test\"", &origins[1]);
    let everyone = some.clone() + &site("any", "\"*\"", &origins[2]);
    let mut table = Table::new("hosts");
    for (text, others) in [(&some, (421, None)), (&everyone, (200, Some("2")))] {
        let node = NodeOptions::configured(&origins[0], text).start().await;
        for (host, expected) in [
            (HOST, (200, Some("0"))),
            ("WWW.Example.Test", (200, Some("0"))),
            ("www.example.test:8080", (200, Some("0"))),
            ("shop.example.test", (200, Some("0"))),
            ("eu.example.test", (200, Some("1"))),
            ("a.b.eu.example.test", (200, Some("1"))),
            ("x.www.example.test", (200, Some("1"))),
            ("example.test", others),
            ("evilexample.test", others),
            ("www.example.test.evil", others),
            ("127.0.0.1", others),
            ("[::1]", others),
        ] {
            let response = ask(&node, host, "/page").await;
            let body = response.text();
            let found = (response.status, (response.status == 200).then_some(body.as_str()));
            table.row(host, same("the answer", found, expected));
        }
        let h2 = node.h2().await.to("other.example");
        table.row("HTTP/2", same("the status", h2.get("/page").await.status, others.0));
    }
    table.finish();
}

#[tokio::test]
async fn an_unknown_host_is_told_why() {
    let origin = Origin::start();
    let text = "[site.main]\nhosts = [\"www.example.test\"]\norigins = [\"{origin}\"]\n";
    let node = NodeOptions::configured(&origin, text).start().await;
    let response = ask(&node, "other.example.test", "/page").await;
    assert_eq!(response.status, 421);
    let reason = response.cache_status().expect("Cache-Status").detail;
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("host")), "{reason:?}");
    let record = &node.log_lines(1).await[0];
    assert_eq!(record["status"], 421, "{record}");
    // Neither another method nor a body makes a difference.
    let mut client = node.client().await;
    client
        .send("POST /page HTTP/1.1\r\nHost: other.example.test\r\nContent-Length: 4\r\n\r\nbody")
        .await
        .expect("the node reads");
    assert_eq!(client.response("POST").await.map(|response| response.status), Ok(421));
    assert_eq!(origin.heads(), 0);
}

#[tokio::test]
async fn sites_do_not_share_what_is_stored() {
    let origins = [Origin::start(), Origin::start()];
    let mut text = String::new();
    for (number, origin) in origins.iter().enumerate() {
        origin.serve("/page", Answer::ok(number.to_string()).field(FRESH));
        text += &format!("[site.s{number}]\nhosts = [\"{number}.example.test\"]\norigins = [\"{}\"]\n", origin.url());
    }
    let node = NodeOptions::configured(&origins[0], &text).start().await;
    for _ in 0..2 {
        assert_eq!(ask(&node, "0.example.test", "/page").await.text(), "0");
        assert_eq!(ask(&node, "1.example.test", "/page").await.text(), "1");
    }
    assert_eq!(origins.map(|origin| origin.count("/page")), [1, 1]);
}

#[tokio::test]
async fn http_is_redirected_where_a_site_says_so() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH));
    let node = one_site(&origin, "https_only = true").await;
    let mut table = Table::new("https_only");
    for (method, target) in
        [("GET", "/page?x=1&y=%20"), ("HEAD", "/page"), ("POST", "/page"), ("GET", "//evil.example/")]
    {
        let fields: &[&str] = if method == "POST" { &["Content-Length: 0"] } else { &[] };
        let response = node.client().await.exchange(method, target, fields).await;
        table.row(method, same("the status", response.status, 308));
        let expected = format!("https://{HOST}{target}");
        table.row(method, same("Location", response.field("location").as_deref(), Some(expected.as_str())));
    }
    // About the server as a whole: no URL has a `*` behind its host.
    let server = node.client().await.exchange("OPTIONS", "*", &[]).await;
    let expected = format!("https://{HOST}/");
    table.row("OPTIONS *", same("Location", server.field("location").as_deref(), Some(expected.as_str())));
    table.row("origin", same("requests", origin.heads(), 0));
    table.row("TLS", same("the status", node.tls_client().await.get("/page").await.status, 200));
    table.row("HTTP/2", same("the status", node.h2().await.get("/page").await.status, 200));
    table.finish();
}

#[tokio::test]
async fn errors_have_the_pages_of_the_site() {
    let text = format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [\"{}\"]\n\
         timeouts = {{ first_byte = \"500ms\" }}\n\
         error_pages = {{ \"502\" = \"errors/502.html\", \"5xx\" = \"errors/5xx.txt\", \"4xx\" = \"errors/4xx.json\" }}\n",
        nobody_listens()
    );
    let origin = Origin::start();
    let node = NodeOptions::configured(&origin, &text)
        .file("errors/502.html", "<h1>Back soon</h1>")
        .file("errors/5xx.txt", "server trouble")
        .file("errors/4xx.json", "{\"error\":true}")
        .start()
        .await;
    let mut table = Table::new("error pages");
    let page = "<h1>Back soon</h1>";
    for (name, response) in [
        ("HTTP", node.get("/page").await),
        ("HTTP/1 over TLS", node.tls_client().await.get("/page").await),
        ("HTTP/2", node.h2().await.get("/page").await),
        ("POST", node.client().await.exchange("POST", "/page", &["Content-Length: 0"]).await),
        ("HEAD", node.client().await.exchange("HEAD", "/page", &[]).await),
    ] {
        let body = if name == "HEAD" { "" } else { page };
        table.row(name, same("the answer", (response.status, response.text().as_str()), (502, body)));
        let kind = response.field("content-type").unwrap_or_default();
        table.row(name, that(kind.starts_with("text/html"), || format!("Content-Type: {kind}")));
        table.row(name, that(!response.is_hit(), || "a hit".to_owned()));
    }
    let mut client = node.client().await;
    client.ask("GET", "/page", &["Content-Length: 4"]).await;
    let refused = client.response("GET").await.expect("an answer");
    let kind = refused.field("content-type");
    table.row("a class", same("the answer", (refused.status, refused.text().as_str()), (400, "{\"error\":true}")));
    table.row("a class", same("Content-Type", kind.as_deref(), Some("application/json")));
    // An origin's own errors are its own.
    origin.serve("/gone", Answer::status(502).piece("the origin's own"));
    let text = text.replace(&nobody_listens(), &origin.url());
    table.row("reload", same("the status", node.reload(&text).await.status, 200));
    origin.serve("/silent", Answer::silent());
    let silent = node.get("/silent").await;
    table.row("another status", same("the answer", (silent.status, silent.text().as_str()), (504, "server trouble")));
    table.row("the origin's own", same("the body", node.get("/gone").await.text().as_str(), "the origin's own"));
    table.finish();
}

#[tokio::test]
async fn cache_status_can_be_kept_from_clients() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(FRESH).field("Cache-Status: behind; hit"));
    let node = one_site(&origin, "cache_status = false").await;
    for _ in 0..2 {
        for response in [node.get("/page").await, node.h2().await.get("/page").await] {
            assert_eq!((response.status, response.field("cache-status")), (200, None));
        }
        let passed = node.client().await.exchange("POST", "/page", &["Content-Length: 0"]).await;
        assert_eq!(passed.field("cache-status"), None);
    }
}

#[tokio::test]
async fn a_site_has_its_own_trust_and_its_own_ways() {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field(NO_STORE));
    let site = |name: &str, host: &str, more: &str| {
        format!(
            "[site.{name}]\nhosts = [\"{host}\"]\norigins = [{{ url = \"{{origin}}\", host = \"client\" }}]\n{more}\n"
        )
    };
    let text = site("trusting", "a.example.test", "trust = [\"127.0.0.0/8\"]\nget_body = \"pass\"")
        + &site("careful", "b.example.test", "");
    let node = NodeOptions::configured(&origin, &text).start().await;
    let mut table = Table::new("settings of a site");
    for (host, forwarded, body) in [("a.example.test", "9.9.9.9", 200), ("b.example.test", "127.0.0.1", 400)] {
        let mut client: Client = node.client().await;
        let head = format!("GET /page HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 9.9.9.9\r\n");
        client.send(format!("{head}\r\n")).await.expect("the node reads");
        client.response("GET").await.expect("an answer");
        let seen = origin.requests().pop().expect("a request at the origin");
        let said = seen.field("x-forwarded-for").unwrap_or_default();
        table.row(host, that(said.starts_with(forwarded), || format!("X-Forwarded-For: {said}")));
        table.row(host, same("Host", seen.field("host").as_deref(), Some(host)));
        client.send(format!("{head}Content-Length: 4\r\n\r\nbody")).await.expect("the node reads");
        table
            .row(host, same("GET with a body", client.response("GET").await.map(|response| response.status), Ok(body)));
    }
    table.finish();
}
