//! What crosses the node and what never does: hop-by-hop fields, fields named by Connection, and the fields by which
//! proxies tell who asked.

use cache_tests::answer::Answer;
use cache_tests::client::{HOST, request};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::recorded::Recorded;
use cache_tests::table::{Table, same, that};

/// Both ways through the node: by the pipeline and by the pass path.
const METHODS: [&str; 2] = ["GET", "POST"];

/// Fields only a proxy may write (and those applications take for such).
const FORWARDED: [&str; 11] = [
    "Forwarded: for=9.9.9.9",
    "X-Forwarded-For: 9.9.9.9",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Port: 99",
    "X-Forwarded-Server: evil.example",
    "X-Forwarded-Prefix: /evil",
    "X-Host: evil.example",
    "X-Original-URL: /evil",
    "X-Rewrite-URL: /evil",
    "X-Real-IP: 9.9.9.9",
];

#[tokio::test]
async fn hop_by_hop_fields_stay_on_the_clients_side() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("request fields that end here");
    for method in METHODS {
        let target = format!("/{method}");
        origin.serve(&target, Answer::ok("seen").field("Cache-Control: no-store"));
        let mut client = node.client().await;
        let fields = [
            "Connection: keep-alive, X-Named, X-Other",
            "Connection: x-second",
            "X-Named: 1",
            "X-Other: 2",
            "X-Second: 3",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: gzip",
            "Trailer: X-Late",
            "Upgrade: something/1",
            "Proxy-Authorization: Basic YTpi",
            "X-Kept: yes",
            "Content-Length: 0",
        ];
        // A GET has no length at all.
        let fields = if method == "GET" { &fields[..fields.len() - 1] } else { &fields[..] };
        let response = client.exchange(method, &target, fields).await;
        table.row(method, same("the status", response.status, 200));
        let request = the_request(&origin, &target);
        for name in ["X-Named", "X-Other", "X-Second", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade"] {
            table.row(&format!("{method} {name}"), same("at the origin", request.field(name), None));
        }
        table.row(&format!("{method} X-Kept"), same("at the origin", request.field("X-Kept").as_deref(), Some("yes")));
        let connection = request.field("Connection").unwrap_or_default().to_ascii_lowercase();
        table.row(method, that(!connection.contains("x-"), || format!("Connection: {connection}")));
    }
    table.finish();
}

#[tokio::test]
async fn connection_cannot_take_away_what_matters() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).preserve_host().start().await;
    let mut table = Table::new("fields Connection cannot name away");
    for method in METHODS {
        for (name, line, value) in [
            ("Host", "Accept: */*", HOST),
            ("Cache-Control", "Cache-Control: max-age=7", "max-age=7"),
            ("Authorization", "Authorization: Basic YTpi", "Basic YTpi"),
            ("Cookie", "Cookie: a=b", "a=b"),
        ] {
            let target = format!("/{method}/{name}");
            origin.serve(&target, Answer::ok("seen").field("Cache-Control: no-store"));
            let named = format!("Connection: close, {name}");
            let mut fields = vec![named.as_str(), line];
            if method == "POST" {
                fields.push("Content-Length: 0");
            }
            let response = node.client().await.exchange(method, &target, &fields).await;
            // To refuse such a request is as good as to ignore the name.
            let outcome = if response.status == 400 {
                same("requests at the origin", origin.count(&target), 0)
            } else {
                same(name, the_request(&origin, &target).field(name).as_deref(), Some(value))
            };
            table.row(&target, outcome);
        }
        // CVE-2022-45059: a named Content-Length turned the body into the next request.
        let target = format!("/{method}/length");
        origin.serve(&target, Answer::ok("seen"));
        let wire = request("POST", &target, &["Connection: close, Content-Length", "Content-Length: 5"]) + "hello";
        let mut client = node.client().await;
        client.send(wire).await.expect("the node reads");
        let status = client.response("POST").await.expect("an answer").status;
        let bodies: Vec<_> = origin.requests_for(&target).into_iter().map(|request| request.body).collect();
        table.row(&target, that(status == 400 || bodies == ["hello"], || format!("{status}, bodies {bodies:?}")));
    }
    table.finish();
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_the_origins_side() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("response fields that end here");
    for (name, cache_control) in [("stored", "Cache-Control: max-age=60"), ("not stored", "Cache-Control: no-store")] {
        for method in METHODS {
            let target = format!("/{method}/{}", name.replace(' ', "-"));
            let answer = Answer::ok("seen").field(cache_control).field("Connection: X-Named, x-other");
            let answer = answer.field("X-Named: 1").field("X-Other: 2").field("Keep-Alive: timeout=5");
            let answer = answer.field("Proxy-Connection: keep-alive").field("Upgrade: h2c").field("X-Kept: yes");
            origin.serve(&target, answer.field("Proxy-Authenticate: Basic"));
            // The second time, a stored one comes from the cache.
            for round in ["first", "second"] {
                let fields: &[&str] = if method == "POST" { &["Content-Length: 0"] } else { &[] };
                let response = node.client().await.exchange(method, &target, fields).await;
                let row = |what: &str| format!("{method} {name} {round} {what}");
                table.row(&row("body"), same("the body", response.text().as_str(), "seen"));
                for field in ["X-Named", "X-Other", "Proxy-Connection", "Upgrade"] {
                    table.row(&row(field), same("at the client", response.field(field), None));
                }
                let kept = response.field("X-Kept");
                table.row(&row("X-Kept"), same("at the client", kept.as_deref(), Some("yes")));
            }
        }
    }
    table.finish();
}

#[tokio::test]
async fn who_asked_is_said_by_us_alone() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("an untrusted client");
    for method in METHODS {
        let request = through(&origin, &node, method).await;
        for (name, expected) in
            [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", HOST)]
        {
            table.row(&format!("{method} {name}"), same(name, request.field(name).as_deref(), Some(expected)));
        }
        for line in FORWARDED {
            let (name, value) = line.split_once(": ").expect("a field line");
            let found = request.field(name).unwrap_or_default();
            table.row(&format!("{method} {name}"), that(!found.contains(value), || format!("the client's {found:?}")));
        }
        let via = request.field("Via").unwrap_or_default();
        table.row(&format!("{method} Via"), that(via.contains("1.1 "), || format!("{via:?}")));
        let id = request.field("X-Request-Id").unwrap_or_default();
        table.row(&format!("{method} X-Request-Id"), that(id.len() >= 8, || format!("{id:?}")));
    }
    let ids: Vec<_> = origin.requests().iter().map(|request| request.field("X-Request-Id")).collect();
    table.row("X-Request-Id", that(ids[0] != ids[1], || format!("not unique: {ids:?}")));
    table.finish();
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).with("--trust", "127.0.0.0/8").start().await;
    let mut table = Table::new("a trusted client");
    for method in METHODS {
        let request = through(&origin, &node, method).await;
        let chain = request.field("X-Forwarded-For").unwrap_or_default();
        let hops: Vec<&str> = chain.split(',').map(str::trim).collect();
        table.row(method, same("X-Forwarded-For", hops, vec!["9.9.9.9", "127.0.0.1"]));
        for (name, value) in [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "gopher")] {
            table.row(method, same(name, request.field(name).as_deref(), Some(value)));
        }
        let forwarded = request.field("Forwarded").unwrap_or_default();
        table.row(method, that(forwarded.contains("for=9.9.9.9"), || format!("Forwarded: {forwarded:?}")));
    }
    table.finish();
}

#[tokio::test]
async fn trust_in_others_is_no_trust_in_us() {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).with("--trust", "10.0.0.0/8").start().await;
    let request = through(&origin, &node, "GET").await;
    assert_eq!(request.field("X-Forwarded-For").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn forwarded_fields_cannot_poison_the_cache() {
    let origin = Origin::start();
    let answer = Answer::ok("").echoing("X-Forwarded-Host").field("Cache-Control: max-age=60");
    origin.serve("/page", answer);
    let node = NodeOptions::before(&origin).start().await;
    let poisoned = node.client().await.exchange("GET", "/page", &FORWARDED).await;
    assert_eq!(poisoned.text(), HOST);
    assert_eq!(node.get("/page").await.text(), HOST);
}

/// What the origin sees of a request with every field a client should not send.
async fn through(origin: &Origin, node: &Node, method: &str) -> Recorded {
    let target = format!("/{method}");
    origin.serve(&target, Answer::ok("seen").field("Cache-Control: no-store"));
    let mut fields = FORWARDED.to_vec();
    if method == "POST" {
        fields.push("Content-Length: 0");
    }
    node.client().await.exchange(method, &target, &fields).await;
    the_request(origin, &target)
}

#[tokio::test]
async fn early_hints_reach_the_client_that_is_waited_for() {
    let origin = Origin::start();
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage";
    let gate = Gate::closed();
    // The second comes long before the page, the first in one piece with it.
    origin.serve("/at-once", Answer::raw(format!("{hint}{last}")));
    origin.serve("/early", Answer::raw(hint).hold(&gate).piece(last));
    let node = NodeOptions::before(&origin).start().await;
    let mut table = Table::new("103");
    for target in ["/at-once", "/early"] {
        let mut client = node.client().await;
        client.ask("GET", target, &[]).await;
        let early = client.any_head("GET").await.expect("a head");
        gate.open();
        let told = (early.status, early.field("link").as_deref() == Some("</style.css>; rel=preload"));
        table.row(target, same("the interim answer", told, (103, true)));
        table.row(target, same("a hop-by-hop field", early.field("x-hop"), None));
        let page = client.response("GET").await.expect("an answer");
        table.row(target, same("the page", (page.status, page.text().as_str()), (200, "page")));
        client_asks_again(&node, target, &mut table).await;
    }
    let mut old = node.client().await;
    old.send(format!("GET /at-once?old HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await.expect("the node reads");
    table.row("HTTP/1.0", same("the first head", old.any_head("GET").await.map(|head| head.status), Ok(200)));
    table.finish();
}

/// A hit has no hints: what it links to is in its own fields.
async fn client_asks_again(node: &Node, target: &str, table: &mut Table) {
    let mut client = node.client().await;
    client.ask("GET", target, &[]).await;
    table.row(target, same("the hit", client.any_head("GET").await.map(|head| head.status), Ok(200)));
}

fn the_request(origin: &Origin, target: &str) -> Recorded {
    origin.requests_for(target).pop().unwrap_or_else(|| panic!("{target} never reached the origin"))
}
