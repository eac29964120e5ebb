//! Origins that have names: each address is one, and what the names resolve to is followed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::deadline::until;
use cache_tests::name_server::{Data, NameServer};
use cache_tests::node::{Node, NodeOptions, free_port};
use cache_tests::origin::{Origin, nobody_listens};
use cache_tests::table::{Table, same, that};

const FRESH: &str = "Cache-Control: max-age=60";
const PATIENCE: Duration = Duration::from_secs(10);

/// Origins on one port, each at an address of its own from 127.0.0.2 on.
fn on_one_port(count: u8) -> (Vec<Origin>, u16) {
    // The port is free at the first address, and all but surely at the others.
    let first = Origin::start_at(SocketAddr::from(([127, 0, 0, 2], 0)));
    let port = first.address().port();
    let others = (1..count).map(|number| Origin::start_at(SocketAddr::from(([127, 0, 0, 2 + number], port))));
    let origins: Vec<Origin> = std::iter::once(first).chain(others).collect();
    for origin in &origins {
        origin.serve("/p", Answer::ok(origin.address().to_string()).field(FRESH));
    }
    (origins, port)
}

async fn before(names: &NameServer, origins: &str, more: &str) -> Node {
    let table = names.table();
    let text = format!("{table}[site.main]\nhosts = [\"*\"]\norigins = [{origins}]\n{more}\n");
    NodeOptions::configured_before(&nobody_listens(), &text).start().await
}

/// Misses, each of another URL; all are answered.
async fn ask(node: &Node, what: &str, count: usize) {
    for number in 0..count {
        assert_eq!(node.get(&format!("/p?{what}{number}")).await.status, 200, "{what} {number}");
    }
}

/// Has `node` asked for one URL after the other until the origin gets some of it.
async fn is_asked(node: &Node, origin: &Origin, what: &str) {
    let before = origin.heads();
    let number = std::sync::atomic::AtomicUsize::new(0);
    until(PATIENCE, &format!("{} is asked", origin.address()), || async {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let status = node.get(&format!("/p?{what}-{number}")).await.status;
        assert_eq!(status, 200, "{what} {number}");
        if origin.heads() > before { Ok(()) } else { Err(format!("{number} requests, none of them there")) }
    })
    .await;
}

#[tokio::test]
async fn the_addresses_of_a_name_share_its_weight_and_are_followed() {
    let (origins, port) = on_one_port(3);
    let alone = Origin::start();
    alone.serve("/p", Answer::ok("alone").field(FRESH));
    let names = NameServer::start();
    names.set_loopback("origin.test", 1, &[2, 3]);
    let list = format!("{{ url = \"http://origin.test:{port}\", weight = 3 }}, \"{}\"", alone.url());
    let node = before(&names, &list, "").await;
    let mut table = Table::new("a name");
    // Until it is resolved the other one has everything.
    until(PATIENCE, "the name is resolved", || async {
        let up = node.metrics().await.sum("littoral_origin_up", &[]);
        if up == 3.0 { Ok(()) } else { Err(format!("{up} are up")) }
    })
    .await;
    ask(&node, "first", 80).await;
    let asked = [&origins[0], &origins[1], &origins[2], &alone].map(Origin::heads);
    table.row("two addresses", same("asked", asked, [30, 30, 0, 20]));
    let host = origins[0].requests()[0].field("host");
    table.row("two addresses", same("the host", host, Some(format!("origin.test:{port}"))));
    let up = node.metrics().await.sum("littoral_origin_up", &[("origin", &format!("origin.test:{port}"))]);
    table.row("two addresses", same("up", up, 2.0));

    names.set_loopback("origin.test", 1, &[3, 4]);
    is_asked(&node, &origins[2], "changed").await;
    let before = [&origins[0], &origins[1], &origins[2]].map(Origin::heads);
    ask(&node, "second", 80).await;
    let after = [&origins[0], &origins[1], &origins[2]].map(Origin::heads);
    let asked: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let is_shared = asked[0] == 0 && [asked[1], asked[2]].iter().all(|count| (28..=32).contains(count));
    table.row("another answer", that(is_shared, || format!("{asked:?} of 80 asked, expected 0, 30, 30")));

    // An answer that takes everything away, and none at all.
    for (what, has_answers) in [("there is no such name", true), ("no answer", false)] {
        names.set("origin.test", 1, Vec::new());
        names.silence(!has_answers);
        let questions = names.questions("origin.test");
        until(PATIENCE, "it is asked for again", || async {
            let asked = names.questions("origin.test") - questions;
            if asked >= 4 { Ok(()) } else { Err(format!("{asked} questions")) }
        })
        .await;
        let before = [&origins[1], &origins[2]].map(Origin::heads);
        ask(&node, what.split(' ').next().unwrap_or_default(), 40).await;
        let asked = [origins[1].heads() - before[0], origins[2].heads() - before[1]];
        let is_as_before = asked.iter().all(|count| (13..=17).contains(count));
        table.row(what, that(is_as_before, || format!("{asked:?} of 40 asked, expected 15 each")));
    }
    table.finish();
}

#[tokio::test]
async fn a_dead_address_costs_nobody_an_answer() {
    let (mut origins, port) = on_one_port(3);
    let names = NameServer::start();
    names.set_loopback("origin.test", 600, &[2, 3, 4]);
    let checks = "health = { path = \"/p\", interval = \"50ms\", timeout = \"50ms\" }";
    let node = before(&names, &format!("\"http://origin.test:{port}\""), checks).await;
    ask(&node, "well", 9).await;
    origins[1].stop();
    ask(&node, "dead", 100).await;
    until(PATIENCE, "it is down", || async {
        let dead = [("address", format!("127.0.0.3:{port}"))];
        let dead: Vec<(&str, &str)> = dead.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let metrics = node.metrics().await;
        let up = (metrics.sum("littoral_origin_up", &dead), metrics.sum("littoral_origin_up", &[]));
        if up == (0.0, 2.0) { Ok(()) } else { Err(format!("{up:?} up")) }
    })
    .await;
}

#[tokio::test]
async fn srv_records_say_where_and_how_much() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start()).collect();
    let names = NameServer::start();
    let service = |number: usize, priority, weight| Data::Service {
        priority,
        weight,
        port: origins[number].address().port(),
        target: format!("host-{number}.test."),
    };
    let records = vec![service(0, 10, 3), service(1, 10, 1), service(2, 20, 5)];
    names.set("_http._tcp.origin.test", 600, records);
    for (number, origin) in origins.iter().enumerate() {
        names.set(&format!("host-{number}.test"), 600, vec![Data::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))]);
        origin.serve("/p", Answer::ok("well").field(FRESH));
    }
    let url = "{ url = \"http://_http._tcp.origin.test\", resolve = \"srv\" }";
    let node = before(&names, url, "eject = { failures = 1, for = \"1m\" }").await;
    ask(&node, "srv", 40).await;
    let mut table = Table::new("SRV");
    let asked: Vec<usize> = origins.iter().map(Origin::heads).collect();
    table.row("all up", same("asked", asked, vec![30, 10, 0]));
    let host = origins[0].requests()[0].field("host");
    let expected = format!("host-0.test:{}", origins[0].address().port());
    table.row("all up", same("the host", host, Some(expected)));
    table.finish();
}

#[tokio::test]
async fn who_asks_before_there_is_an_answer_waits_for_it() {
    let (origins, port) = on_one_port(1);
    let names = NameServer::start();
    names.silence(true);
    names.set_loopback("origin.test", 600, &[2]);
    let node = before(&names, &format!("\"http://origin.test:{port}\""), "timeouts = { connect = \"20s\" }").await;
    let address = node.address();
    let asks = tokio::spawn(async move { cache_tests::client::Client::connect(address).await.get("/p").await });
    until(PATIENCE, "the name is asked for", || async {
        if names.questions("origin.test") > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    assert!(!asks.is_finished());
    names.silence(false);
    assert_eq!(asks.await.expect("no panic").status, 200);
    assert_eq!(origins[0].heads(), 1);
}

#[tokio::test]
async fn a_name_that_is_not_there_is_told_at_once_and_found_when_it_comes() {
    let (origins, port) = on_one_port(1);
    let names = NameServer::start();
    let node = before(&names, &format!("\"http://origin.test:{port}\""), "").await;
    let refused = node.get("/p").await;
    assert_eq!(refused.status, 502);
    let stat = node.admin_get("/v1/stat").await.expect("an answer").json();
    assert_eq!(stat["origins"][0]["state"], "unresolved", "{stat}");
    names.set_loopback("origin.test", 600, &[2]);
    until(PATIENCE, "it is found", || async {
        let status = node.get("/p").await.status;
        if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
    })
    .await;
    assert_eq!(origins[0].heads(), 1);
}

#[tokio::test]
async fn addresses_of_both_families_are_asked_or_those_of_one() {
    let Ok(listener) = std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("skipped: there is no IPv6 on loopback");
        return;
    };
    drop(listener);
    // A port that nobody and no outgoing connection has at either address.
    let port = free_port(Ipv4Addr::LOCALHOST.into());
    let v6 = Origin::start_at((std::net::Ipv6Addr::LOCALHOST, port).into());
    let v4 = Origin::start_at((Ipv4Addr::LOCALHOST, port).into());
    let mut table = Table::new("families");
    for (resolve, up, share) in [("addresses", 2.0, [10, 10]), ("ipv4", 1.0, [20, 0]), ("ipv6", 1.0, [0, 20])] {
        for origin in [&v4, &v6] {
            origin.serve("/p", Answer::ok("well").field(FRESH));
        }
        let names = NameServer::start();
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
        names.set("origin.test", 600, addresses.map(Data::Address).to_vec());
        let url = format!("{{ url = \"http://origin.test:{port}\", resolve = \"{resolve}\" }}");
        let node = before(&names, &url, "").await;
        until(PATIENCE, "the name is resolved", || async {
            let found = node.metrics().await.sum("littoral_origin_up", &[]);
            if found == up { Ok(()) } else { Err(format!("{found} are up")) }
        })
        .await;
        let before = [&v4, &v6].map(Origin::heads);
        ask(&node, resolve, 20).await;
        let asked = [v4.heads() - before[0], v6.heads() - before[1]];
        table.row(resolve, same("IPv4 and IPv6", asked, share));
    }
    table.finish();
}
