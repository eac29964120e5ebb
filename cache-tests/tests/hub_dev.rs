//! `littoral dev`: a small CDN on this machine, as its banner says it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::machine::Machine;
use cache_tests::node::binary;
use cache_tests::process::{Process, Scratch};

/// Two that look for free ports at the same time find the same.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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

/// Where clients and operators reach the nodes, once all of it is said.
async fn banner(dev: &mut Process, nodes: usize) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    until(Duration::from_secs(30), "a banner", || {
        assert!(dev.ended().is_none(), "{}", dev.said());
        let said = dev.said();
        let found = (addresses(&said, "clients http://"), addresses(&said, "admin http://"));
        let is_whole = said.contains("littoral node list") && found.0.len() == nodes && found.1.len() == nodes;
        async move { if is_whole { Ok(found) } else { Err(said) } }
    })
    .await
}

/// What a command of a shell prints, as the banner has it.
fn run(line: &str) -> String {
    let line = line.replacen("littoral ", &format!("{} ", binary().display()), 1);
    let output = Command::new("sh").args(["-c", &line]).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_small_cdn_with_a_shield_does_what_its_banner_says() {
    let (_machine, _one) = (Machine::shared(), ONE.lock().await);
    let mut command = Command::new(binary());
    command.args(["dev", "--nodes", "3", "--shield", "--data", "dev"]);
    let mut dev = Process::start("littoral dev", command, Scratch::new("dev"));
    let (nodes, _) = banner(&mut dev, 5).await;
    let said = dev.said();
    let lines = |with: &str| -> Vec<String> {
        said.lines()
            .filter(|line| line.starts_with("  ") && line.contains(with))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let (curls, purges, lists) = (lines("curl -i"), lines("littoral purge"), lines("littoral node list"));
    assert_eq!((curls.len(), purges.len(), lists.len()), (3, 1, 1), "{said}");
    until(PATIENCE, "five nodes", || {
        let listed = run(&lists[0]);
        async move { if listed.matches(": current").count() == 5 { Ok(()) } else { Err(listed) } }
    })
    .await;
    // They look at one another now and then: what is asked for before that is forgotten again.
    until(PATIENCE, "a miss through a shield", || {
        let found = run(&curls[0]);
        let purged = run(&purges[0]);
        assert!(purged.contains("applied on every node"), "{purged}");
        async move { if found.matches("uri-miss").count() >= 2 { Ok(()) } else { Err(found) } }
    })
    .await;
    let caches = |answer: &str| {
        answer
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("cache-status"))
            .map(str::to_owned)
            .collect::<String>()
    };
    let first = caches(&run(&curls[0]));
    assert!(first.matches("uri-miss").count() >= 2, "{first}");
    let second = caches(&run(&curls[1]));
    assert!(second.contains("hit"), "{second}");
    // What is on its way into stores of its own still is gone after the purge.
    let purged = run(&purges[0]);
    assert!(purged.contains("applied on every node"), "{purged}");
    let third = caches(&run(&curls[2]));
    assert!(third.matches("uri-miss").count() >= 2 && !third.contains("hit"), "{third}");
    let counted = run(&lines("littoral_node_requests_total")[0]);
    assert!(counted.contains("outcome=\"ok\""), "{counted}");
    assert!(lines("tail ")[0].ends_with("/shield-1.log"), "{said}");
    dev.signal("TERM");
    assert!(dev.end_within(Duration::from_secs(20)).await.success(), "{}", dev.said());
    for node in nodes {
        assert!(tokio::net::TcpStream::connect(node).await.is_err(), "{node} still listens");
    }
}

#[tokio::test]
async fn a_small_cdn_does_what_its_banner_says() {
    let (_machine, _one) = (Machine::shared(), ONE.lock().await);
    let mut command = Command::new(binary());
    command.args(["dev", "--nodes", "2", "--data", "dev"]);
    let mut dev = Process::start("littoral dev", command, Scratch::new("dev"));
    let (nodes, admins) = banner(&mut dev, 2).await;
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
