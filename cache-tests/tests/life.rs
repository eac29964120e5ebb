//! A node's life as its operator has it in hand: the commands that ask a running node, the drain, and systemd.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::Client;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::h2::frame::GOAWAY;
use cache_tests::node::{NodeOptions, run_to_the_end};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::table::{Table, same, that};
use serde_json::Value;

fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=60"));
    origin
}

#[tokio::test]
async fn stat_says_what_a_node_does() {
    let origin = origin();
    let node = NodeOptions::configured(&origin, "").start().await;
    for _ in 0..4 {
        node.get("/page").await;
    }
    let admin = node.admin().to_string();
    let (code, json) = run_to_the_end(&["stat", "--admin", &admin, "--json"]);
    let stat: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let (code_in_words, words) = run_to_the_end(&["stat", "--admin", &admin]);
    let mut table = Table::new("stat");
    table.row("exit codes", same("the codes", (code, code_in_words), (Some(0), Some(0))));
    table.row("hits", same("the number", stat["requests"]["hit"].as_u64(), Some(3)));
    table.row("misses", same("the number", stat["requests"]["miss"].as_u64(), Some(1)));
    table.row("objects", same("the number", stat["store"]["memory"]["objects"].as_u64(), Some(1)));
    let up = |stat: &Value| stat["origins"][0]["state"].as_str().map(str::to_owned);
    table.row("the origin", same("its state", up(&stat), Some("up".to_owned())));
    for expected in ["75.0 % from the store", &origin.address().to_string(), "configuration 1"] {
        table.row("in words", that(words.contains(expected), || format!("no {expected:?} in: {words}")));
    }
    table.finish();
}

#[test]
fn nobody_to_ask_is_said_so() {
    for command in ["stat", "reload", "drain"] {
        let (code, said) = run_to_the_end(&[command, "--admin", "127.0.0.1:1"]);
        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(said.contains("no node answers on 127.0.0.1:1"), "{command}: {said}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_explained_by_reload() {
    let node = NodeOptions::configured(&origin(), "").start().await;
    let admin = node.admin().to_string();
    let (code, said) = run_to_the_end(&["reload", "--admin", &admin]);
    assert_eq!((code, said.trim()), (Some(0), "configuration 2 is in force"));
    node.write_configuration("[limits]\nhed_timeout = \"1s\"\n");
    let (code, said) = run_to_the_end(&["reload", "--admin", &admin]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("hed_timeout") && said.contains("head_timeout"), "{said}");
}

#[tokio::test]
async fn a_draining_node_takes_new_clients_until_its_grace_is_over() {
    let origin = origin();
    let gate = Gate::closed();
    origin.serve("/slow", Answer::ok("slow").after(&gate));
    let mut node = NodeOptions::configured(&origin, "[limits]\ndrain_grace = \"2s\"\n").start().await;
    let mut busy = node.client().await;
    busy.ask("GET", "/slow", &[]).await;
    origin.arrived("/slow", 1).await;
    assert_eq!(node.admin_post("/v1/drain").await.map(|response| response.status), Ok(202));
    until(PATIENCE, "the node says that it is not ready", || async {
        match node.admin_get("/readyz").await {
            Ok(response) if response.status == 503 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let within = node.get("/page").await;
    let said = within.head.field("connection");
    assert_eq!((within.status, said.as_deref()), (200, Some("close")), "within its grace, for one request");
    assert_eq!(node.admin_get("/announcez").await.map(|response| response.status), Ok(200), "for nobody to withdraw");
    until(PATIENCE, "new connections are refused", || async {
        let Ok(mut client) = Client::connect_with(node.address(), Default::default()).await else { return Ok(()) };
        client.ask("GET", "/page", &[]).await;
        match client.response("GET").await {
            Err(_) => Ok(()),
            Ok(response) => Err(format!("still answers {}", response.status)),
        }
    })
    .await;
    gate.open();
    assert_eq!(busy.response("GET").await.expect("an answer").text(), "slow");
    assert_eq!(node.end_within(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn whoever_is_connected_is_told_at_once_that_a_node_drains() {
    let origin = origin();
    let gate = Gate::closed();
    origin.serve("/slow", Answer::ok("slow").after(&gate));
    let node = NodeOptions::configured(&origin, "[limits]\ndrain_grace = \"20s\"\n").start().await;
    let (mut kept, mut idle) = (node.client().await, node.client().await);
    kept.get("/page").await;
    idle.get("/page").await;
    let mut http2 = node.raw_h2(&[]).await;
    let busy = node.h2().await;
    let slow = async {
        origin.arrived("/slow", 1).await;
        assert_eq!(node.admin_post("/v1/drain").await.map(|response| response.status), Ok(202));
        let last = kept.get("/page").await;
        assert_eq!(last.head.field("connection").as_deref(), Some("close"));
        assert!(idle.closed().await.1.is_closed(), "an idle connection");
        let goaway = http2.frame_of(GOAWAY).await.expect("GOAWAY");
        assert_eq!(goaway.number(4), 0, "NO_ERROR");
        gate.open();
    };
    let (answer, ()) = tokio::join!(busy.get("/slow"), slow);
    assert_eq!(answer.text(), "slow", "a stream under way");
    assert!(busy.begin("GET", "/page", &[], None).await.is_err(), "a connection that has said goodbye");
    assert_eq!(node.get("/page").await.status, 200, "a new connection, within the grace");
}

#[tokio::test]
async fn drain_waits_until_the_node_has_ended() {
    let mut node = NodeOptions::configured(&origin(), "").start().await;
    let (code, said) = run_to_the_end(&["drain", "--admin", &node.admin().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(node.end_within(Duration::from_secs(1)).await.code(), Some(0));
}

#[tokio::test]
async fn systemd_is_told() {
    let scratch = Scratch::new("systemd");
    let path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let node = NodeOptions::configured(&origin(), "")
        .variable("NOTIFY_SOCKET", &path.display().to_string())
        .variable("WATCHDOG_USEC", "400000")
        .start()
        .await;
    let mut seen = Vec::new();
    while seen.iter().filter(|message| *message == "WATCHDOG=1").count() < 3 {
        seen.push(told());
    }
    assert!(seen.contains(&"READY=1".to_owned()), "{seen:?}");
    node.hang_up();
    let next = || {
        loop {
            match told() {
                message if message == "WATCHDOG=1" => {}
                message => return message,
            }
        }
    };
    assert!(next().contains("RELOADING=1"));
    assert!(next().contains("READY=1"));
    node.terminate();
    assert!(next().contains("STOPPING=1"));
}
