//! `littoral dev`: a small CDN on this machine, as its banner says it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::machine::Machine;
use cache_tests::node::binary;
use cache_tests::process::{Process, Scratch};

/// What a GET is told: `hit` or not.
async fn is_hit(address: SocketAddr) -> bool {
    let response = Client::connect(address).await.get("/").await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.is_hit()
}

/// The addresses in the banner that stand behind a word.
fn addresses(said: &str, before: &str) -> Vec<SocketAddr> {
    let found = said.split(before).skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    });
    found.collect()
}

#[tokio::test]
async fn a_small_cdn_does_what_its_banner_says() {
    let _machine = Machine::shared();
    let mut command = Command::new(binary());
    command.args(["dev", "--nodes", "2", "--data", "dev"]);
    let mut dev = Process::start("littoral dev", command, Scratch::new("dev"));
    let (nodes, admins) = until(Duration::from_secs(30), "a banner", || {
        assert!(dev.ended().is_none(), "{}", dev.said());
        let said = dev.said();
        let found = (addresses(&said, "clients http://"), addresses(&said, "admin http://"));
        let is_whole = said.contains("littoral node list") && found.0.len() == 2 && found.1.len() == 2;
        async move { if is_whole { Ok(found) } else { Err(said) } }
    })
    .await;
    for node in &nodes {
        until(PATIENCE, "a hit", || async { if is_hit(*node).await { Ok(()) } else { Err("no hit".to_owned()) } })
            .await;
    }
    let admin = admins[0].to_string();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).args(["--admin", &admin]).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // They may not have heard of one another yet.
    until(PATIENCE, "two nodes", || {
        let said = run(&["node", "list"]);
        let is_whole = said.matches(": current").count() == 2;
        async move { if is_whole { Ok(()) } else { Err(said) } }
    })
    .await;
    let said = run(&["purge", "--site", "demo", "--wait", "all"]);
    assert!(said.contains("applied on every node"), "{said}");
    for node in &nodes {
        assert!(!is_hit(*node).await, "{node} serves what was purged: {said}");
    }
    // When it is told to end, everything it has started ends.
    dev.signal("TERM");
    assert!(dev.end_within(Duration::from_secs(20)).await.success(), "{}", dev.said());
    for node in nodes {
        assert!(tokio::net::TcpStream::connect(node).await.is_err(), "{node} still listens");
    }
}
