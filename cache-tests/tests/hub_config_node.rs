//! One node and the configuration of its hub: when the hub is away, beside its own file, for whom, and from the command line.

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::fleet::{body, called, connected, following, live, post, push, site, start};
use cache_tests::hub::{Hub, Wire};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, binary};
use cache_tests::process::Scratch;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

#[tokio::test]
async fn a_node_starts_without_the_hub_with_what_it_had() {
    let (one, two) = (called("one"), called("two"));
    let mut hub = Hub::start().await;
    let machine = Machine::shared();
    let wire = Wire::to(hub.address()).await;
    let data = Scratch::new("kept");
    let node =
        || following(&wire.url(), "edge", "").with("--data", data.path().to_str().expect("UTF-8")).within(&machine);
    let first = node().start().await;
    connected(std::slice::from_ref(&first)).await;
    push(&first, &site("shop", "shop.test", &one)).await;
    let settings = json!({ "node": true, "text": "[limits]\nconnections_per_client = 77\n[purge]\nrate = 7\n" });
    assert_eq!(post(&first, "push", settings, None).await.status, 200);
    live(&first, "shop.test", "one").await;
    first.kill().await;
    hub.kill().await;
    let again = node().start().await;
    let mut table = Table::new("without the hub");
    table.row("the last good copy", same("served", body(&again, "shop.test").await, "one".into()));
    let response = post(&again, "push", json!({ "site": "shop", "text": "" }), None).await;
    table.row("a push", same("status", response.status, 503));
    table.row(
        "a reload",
        same("status", again.admin_post("/v1/config/reload").await.map(|reply| reply.status), Ok(200)),
    );
    table.row("a reload", same("served", body(&again, "shop.test").await, "one".into()));
    let many: Vec<String> = (0..20).map(|number| format!("tag-{number}")).collect();
    let purge = json!({ "site": "shop", "tags": many });
    again.admin_json("POST", "/v1/purge", &purge, None).await;
    let purged = again.admin_json("POST", "/v1/purge", &purge, None).await.status;
    table.row("settings for all nodes", same("purges above the rate", purged, 429));
    hub.start_again().await;
    connected(std::slice::from_ref(&again)).await;
    push(&again, &site("shop", "shop.test", &two)).await;
    live(&again, "shop.test", "two").await;
    // A hub that was made anew has lost what there was: nothing of it is taken away.
    hub.client().await.delete_stream("CONFIG").await.expect("it is deleted");
    hub.init();
    let response = until(PATIENCE, "a hub that takes the first version", || async {
        let body = json!({ "site": "news", "text": site("news", "news.test", &one), "expected_version": 0 });
        let response = post(&again, "push", body, None).await;
        if response.status < 300 { Ok(response) } else { Err(response.text()) }
    })
    .await;
    table.row("a hub made anew", that(response.status < 300, || response.text()));
    live(&again, "news.test", "one").await;
    table.row("a hub made anew", same("what it has lost", body(&again, "shop.test").await, "two".into()));
    table.finish();
}

#[tokio::test]
async fn what_a_nodes_own_file_has_the_hub_does_not_change() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let own = format!("{}[limits]\nidle_timeout = \"50s\"\n", site("own", "own.test", &one));
    let (_machine, nodes) = start(&hub, 1, &own).await;
    let node = &nodes[0];
    let mut table = Table::new("both");
    for (name, body, expected) in [
        (
            "a site of the file",
            json!({ "site": "own", "text": site("own", "other.test", &two) }),
            "the site `own` is there twice",
        ),
        (
            "a table of the file",
            json!({ "node": true, "text": "[limits]\nhead_timeout = \"9s\"\n" }),
            "[limits] is both in",
        ),
        ("a host of the file", json!({ "site": "shop", "text": site("shop", "own.test", &two) }), "belongs to both"),
    ] {
        let response = post(node, "push", body, None).await;
        table.row(name, same("status", response.status, 422));
        table.row(name, that(response.text().contains(expected), || response.text()));
    }
    // What stands in the file and was not reloaded does not come with what the hub has.
    let text = |host: &str| {
        format!("[node]\nname = \"edge-0\"\n[purge]\nlog = {{ nats = \"{}\" }}\n{}", hub.url(), site("own", host, &one))
    };
    node.write_configuration(&text("late.test"));
    push(node, &site("shop", "shop.test", &two)).await;
    live(node, "shop.test", "two").await;
    table.row("a file that was not reloaded", that(body(node, "late.test").await != "one", || "it is in force".into()));
    table.row("a reload", same("status", node.reload(&text("late.test")).await.status, 200));
    live(node, "late.test", "one").await;
    table.row("a reload", same("the hub's site", body(node, "shop.test").await, "two".into()));
    table.row("a reload that takes the hub's host", same("status", node.reload(&text("shop.test")).await.status, 422));
    table.row("and then", same("the hub's site", body(node, "shop.test").await, "two".into()));
    table.finish();
}

#[tokio::test]
async fn the_token_of_a_site_changes_its_rules_alone() {
    let origin = called("one");
    let hub = Hub::start().await;
    let hash = |token: &str| blake3::hash(token.as_bytes()).to_hex().to_string();
    let tokens = format!(
        "[[admin.tokens]]\nname = \"shop\"\nhash = \"{}\"\nsites = \"shop\"\nverbs = \"configure\"\n\
         [[admin.tokens]]\nname = \"all\"\nhash = \"{}\"\nsites = \"*\"\nverbs = [\"configure\", \"operate\"]\n",
        hash("shop-secret"),
        hash("root-secret"),
    );
    let machine = Machine::shared();
    let node = following(&hub.url(), "edge", &tokens).within(&machine).start().await;
    until(PATIENCE, "a current node", || async {
        let response = node.admin_get("/currentz").await?;
        if response.status == 200 { Ok(()) } else { Err(response.text()) }
    })
    .await;
    let text = site("shop", "shop.test", &origin);
    let blog = site("blog", "blog.test", &origin);
    let rules = format!("{text}[[site.shop.rule]]\nthen = {{ cache = false }}\n");
    let mut table = Table::new("tokens");
    for (name, body, token, status) in [
        ("no token", json!({ "site": "shop", "text": text }), None, 401),
        ("a new site", json!({ "site": "shop", "text": text }), Some("shop-secret"), 403),
        ("a new site, by the operator", json!({ "site": "shop", "text": text }), Some("root-secret"), 200),
        ("another one", json!({ "site": "blog", "text": blog }), Some("root-secret"), 200),
        ("rules", json!({ "text": rules }), Some("shop-secret"), 200),
        (
            "rules that are none",
            json!({ "site": "shop", "text": format!("{text}rule = 1\n") }),
            Some("shop-secret"),
            422,
        ),
        ("hosts", json!({ "site": "shop", "text": rules.replace("shop.test", "all.test") }), Some("shop-secret"), 403),
        (
            "origins",
            json!({ "site": "shop", "text": rules.replace("127.0.0.1", "127.0.0.2") }),
            Some("shop-secret"),
            403,
        ),
        (
            "a file",
            json!({ "site": "shop", "text": format!("{text}error_pages = {{ 502 = \"/etc/passwd\" }}\n") }),
            Some("shop-secret"),
            403,
        ),
        ("its removal", json!({ "site": "shop", "text": "" }), Some("shop-secret"), 403),
        ("another site", json!({ "site": "blog", "text": blog }), Some("shop-secret"), 403),
        ("settings for all nodes", json!({ "node": true, "text": "" }), Some("shop-secret"), 403),
    ] {
        let response = post(&node, "push", body, token).await;
        table.row(name, same("status", (response.status, response.text().contains("blog")), (status, false)));
    }
    for (target, status) in [
        ("/v1/config/history?site=shop", 200),
        ("/v1/config/history?site=blog", 403),
        ("/v1/config/history?node=1", 403),
        ("/v1/config", 200),
    ] {
        let response = node.admin_json("GET", target, &Value::Null, Some("shop-secret")).await;
        table.row(target, same("status", (response.status, response.text().contains("blog")), (status, false)));
    }
    table.row("back", same("status", post(&node, "rollback", json!({}), Some("shop-secret")).await.status, 200));
    table.finish();
}

/// What the command says, on either of its outputs, and its exit code.
fn command(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.arg("20").arg(binary()).arg("config").args(arguments).args(["--admin", &node.admin().to_string()]);
    let output =
        command.env("NO_COLOR", "1").output().unwrap_or_else(|error| panic!("littoral does not start: {error}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.code(), said.concat())
}

#[tokio::test]
async fn the_command_line_does_all_of_it() {
    let (one, two) = (called("one"), called("two"));
    let hub = Hub::start().await;
    let (_machine, nodes) = start(&hub, 1, "").await;
    let node = &nodes[0];
    let (first, second) = (site("shop", "shop.test", &one), site("shop", "shop.test", &two));
    let files = Scratch::new("files");
    for (name, text) in [("first", first.as_str()), ("second", &second), ("bad", "[site.shop]\nhost = \"a\"\n")] {
        files.write(&format!("{name}.toml"), text.as_bytes());
    }
    let path = |name: &str| files.path().join(format!("{name}.toml")).to_str().expect("UTF-8").to_owned();
    let mut table = Table::new("commands");
    for (arguments, code, expected) in [
        (vec!["show"], 0, "the hub has no configuration"),
        (
            vec!["push", &path("first"), "--site", "shop", "--note", "a start"],
            0,
            "is published for all nodes; here it is in force",
        ),
        (vec!["show"], 0, "in force here\nnode edge-0: current"),
        (vec!["show", "--site", "shop"], 0, "[site.shop]"),
        (vec!["diff", &path("first"), "--site", "shop"], 0, "no difference from version"),
        (vec!["diff", &path("second"), "--site", "shop"], 0, "\n+origins = "),
        (vec!["push", &path("bad"), "--site", "shop"], 78, "bad.toml:2:1"),
        (vec!["push", &path("bad"), "--site", "shop"], 78, "did you mean `hosts`?"),
        (vec!["push", &path("second"), "--site", "shop", "--expect", "0"], 1, "was expected, and the latest one is"),
        (
            vec!["push", &path("second"), "--site", "shop", "--share", "50"],
            0,
            "for 50% of the nodes; here it is in force",
        ),
        (vec!["history", "--site", "shop"], 0, "for 50% of the nodes\nversion 1 by admin on "),
        (vec!["rollback", "--site", "shop"], 0, "is published for all nodes"),
        (vec!["history", "--site", "shop"], 0, "back to version 1"),
        (vec!["push", &path("none"), "--site", "shop"], 1, "none.toml cannot be read"),
    ] {
        let (found, said) = command(node, &arguments);
        table.row(&arguments.join(" "), same("exit code", found, Some(code)));
        table.row(&arguments.join(" "), that(said.contains(expected), || said));
    }
    live(node, "shop.test", "one").await;
    table.finish();
}
