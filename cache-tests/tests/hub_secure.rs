//! A hub that speaks TLS and knows users: a node with its own rights follows it, one with a wrong password or without the authority
//! that vouches for it does not, and goes on serving.

use cache_tests::hub::{Hub, NODE_PASSWORD};
use cache_tests::machine::Machine;
use cache_tests::many::{current, page, purge_everywhere, version};
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same};

async fn node(origin: &Origin, machine: &Machine, name: &str, log: &str) -> Node {
    let text = format!(
        "[node]\nname = \"{name}\"\n[purge]\nlog = {{ {log} }}\n[site.shop]\nhosts = \"*\"\norigins = \"{{origin}}\"\n"
    );
    NodeOptions::configured(origin, &text).with("--data", "data").within(machine).start().await
}

#[tokio::test]
async fn nodes_have_rights_of_their_own() {
    let origin = Origin::start();
    origin.serve("/page", page());
    let hub = Hub::secured().await;
    let machine = Machine::shared();
    let (url, ca) = (hub.url(), hub.ca());
    let with = |password: &str| format!("nats = \"{url}\", ca = {ca:?}, user = \"node\", password = \"{password}\"");
    let one = node(&origin, &machine, "one", &with(NODE_PASSWORD)).await;
    let other = node(&origin, &machine, "other", &with(NODE_PASSWORD)).await;
    current(&one).await;
    current(&other).await;
    let first = version(&other, "/page").await;
    let (status, receipt) = purge_everywhere(&one, "5s").await;
    assert_eq!(status, 200, "{receipt}");
    assert!(version(&other, "/page").await > first);
    let mut table = Table::new("who may not");
    for (name, log) in [
        ("a wrong password", with("guessed")),
        ("nobody", format!("nats = \"{url}\", ca = {ca:?}")),
        ("nobody vouches for it", format!("nats = \"{url}\", user = \"node\", password = \"{NODE_PASSWORD}\"")),
    ] {
        let node = node(&origin, &machine, "stranger", &log).await;
        table.row(name, same("status", node.get("/page").await.status, 200));
        let state = node.admin_get("/currentz").await.map(|response| response.status);
        table.row(name, same("it is isolated", state, Ok(503)));
        let said = node.said();
        table.row(name, same("its log says so", said.contains("the hub cannot be reached"), true));
    }
    table.finish();
}
