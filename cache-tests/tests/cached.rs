//! What the operator sees of what is stored: one URL, a site a page at a time, and whether disks hold what was written.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::HOST;
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::disk::opened;
use cache_tests::node::{Node, NodeOptions, run_to_the_end};
use cache_tests::origin::Origin;
use cache_tests::table::{Table, same, that};
use serde_json::{Value, json};

const FRESH: &str = "Cache-Control: max-age=600";
const CHUNK: usize = 256 << 10;
const DISK: &str = "[cache]\nmemory = \"64MiB\"\ndisk = [{ path = \"disk\", size = \"256MiB\" }]\n";
/// More than one chunk, and the last is not full.
const LARGE: usize = 3 * CHUNK + 1_000;

/// A node whose disk is open: what is fetched before that is not on it.
async fn node(origin: &Origin, more: &str) -> Node {
    opened(NodeOptions::configured(origin, &format!("{DISK}{more}"))).await
}

/// Asks for it, and waits until a disk has it.
async fn stored(node: &Node, target: &str) {
    assert_eq!(node.get(target).await.status, 200, "{target}");
    until(PATIENCE, "everything is written", || async {
        let stat = node.admin_get("/v1/stat").await?.json();
        let waits = stat.pointer("/store/writes/used_bytes").cloned();
        if waits == Some(json!(0)) { Ok(()) } else { Err(format!("{waits:?} bytes wait")) }
    })
    .await;
}

fn url(target: &str) -> String {
    format!("http://{HOST}{target}")
}

async fn shown(node: &Node, target: &str, more: &str) -> Value {
    let path = format!("/v1/cache/object?url={}{more}", url(target));
    let response = node.admin_get(&path).await.expect("an answer");
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()
}

async fn verified(node: &Node, target: &str) -> Value {
    let path = format!("/v1/cache/verify?url={}", url(target));
    let response = node.admin_post(&path).await.expect("an answer");
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()
}

/// Changes one byte of the disk, somewhere in what begins with `beginning`.
fn damage(node: &Node, beginning: &[u8]) {
    let path = node.path("disk/littoral.cache");
    let bytes = fs::read(&path).expect("the disk can be read");
    let at = bytes.windows(beginning.len()).position(|window| window == beginning).expect("it is there");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the disk can be written");
    file.write_all_at(&[!bytes[at + 5]], at as u64 + 5).expect("a byte can be written");
}

fn command(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = node.admin().to_string();
    run_to_the_end(&[&["cache"], arguments, &["--admin", &admin]].concat())
}

#[tokio::test]
async fn one_url_is_shown_with_everything_that_is_stored() {
    let origin = Origin::start();
    let body = pattern(LARGE, 1);
    origin.serve("/page", Answer::ok("body").field(FRESH).field("ETag: \"e\"").field("Surrogate-Key: a b"));
    origin.serve("/large", Answer::ok(body).field(FRESH).field("Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"));
    origin.serve("/vary", Answer::ok("body").field(FRESH).field("Vary: X-Kind"));
    origin.serve("/private", Answer::ok("body").field("Cache-Control: private"));
    let node = node(&origin, "").await;
    for target in ["/page", "/large", "/vary"] {
        stored(&node, target).await;
    }
    node.client().await.exchange("GET", "/vary", &["X-Kind: one"]).await;
    node.get("/private").await;
    let mut table = Table::new("what is stored");
    for (target, count, pointer, expected) in [
        ("/page", 1, "/records/0/primary", json!(true)),
        ("/page", 1, "/records/0/memory", json!(true)),
        ("/page", 1, "/records/0/status", json!(200)),
        ("/page", 1, "/records/0/body_bytes", json!(4)),
        ("/page", 1, "/records/0/etag", json!("\"e\"")),
        ("/page", 1, "/records/0/surrogate_keys", json!(2)),
        ("/page", 1, "/records/0/lifetime", json!(600)),
        ("/page", 1, "/records/0/chunks", json!(null)),
        ("/page", 1, "/records/0/ledger", json!("live")),
        ("/page", 1, "/records/0/doubtful", json!(false)),
        ("/large", 1, "/records/0/chunks", json!({ "all": 4, "there": 4 })),
        ("/large", 1, "/records/0/body_bytes", json!(LARGE)),
        ("/large", 1, "/records/0/last_modified", json!("Mon, 01 Jan 2024 00:00:00 GMT")),
        ("/vary", 2, "/vary", json!(["x-kind"])),
        ("/vary", 2, "/records/0/primary", json!(false)),
    ] {
        let object = shown(&node, target, "").await;
        table.row(target, same("records", object["records"].as_array().map(Vec::len), Some(count)));
        table.row(target, same(pointer, object.pointer(pointer), Some(&expected)));
        let path = object.pointer("/records/0/disk/path").and_then(Value::as_str).unwrap_or_default();
        table.row(target, that(path.ends_with("disk"), || format!("{object} is on no disk")));
    }
    for (query, status, said) in [
        (format!("url={}", url("/nothing")), 404, "nothing is stored for"),
        (format!("url={}", url("/private")), 404, "nothing is stored for"),
        ("url=nonsense".into(), 400, "is not a URL"),
        (String::new(), 400, "url is missing"),
    ] {
        let response = node.admin_get(&format!("/v1/cache/object?{query}")).await.expect("an answer");
        table.row(&query, same("the status", response.status, status));
        table.row(&query, that(response.text().contains(said), || response.text()));
    }
    node.purge(&json!({ "urls": [url("/page")], "mode": "invalidate" })).await;
    let object = shown(&node, "/page", "").await;
    table.row("a soft purge", same("the ledger", object.pointer("/records/0/ledger"), Some(&json!("stale"))));
    node.purge(&json!({ "urls": [url("/page")] })).await;
    let object = shown(&node, "/page", "").await;
    table.row("a purge", same("the ledger", object.pointer("/records/0/gone"), Some(&json!("purged"))));
    let (code, said) = command(&node, &["show", &url("/large")]);
    table.row("the command", same("the code", code, Some(0)));
    table.row("the command", that(said.contains("4 of 4, all there"), || said.clone()));
    let (code, said) = command(&node, &["show", &url("/nothing")]);
    table.row("the command, of nothing", same("the code", code, Some(1)));
    table.row("the command, of nothing", that(said.contains("nothing is stored for"), || said.clone()));
    table.finish();
}

#[tokio::test]
async fn a_site_is_listed_page_by_page() {
    let origin = Origin::start();
    let node = node(&origin, "").await;
    for number in 0..23 {
        let target = format!("/{}/{number}", if number < 13 { "a" } else { "b" });
        origin.serve(&target, Answer::ok("body").field(FRESH));
        stored(&node, &target).await;
    }
    origin.serve(
        "/part",
        Answer::status(206).piece("bo").field(FRESH).field("Content-Range: bytes 0-1/4").field("ETag: \"e\""),
    );
    node.client().await.exchange("GET", "/part", &["Range: bytes=-2"]).await;
    let mut table = Table::new("listings");
    for (name, query, expected) in [
        ("everything", String::new(), 23),
        ("a site", "site=main".into(), 23),
        ("a path", "prefix=/a/".into(), 13),
        ("a host", format!("prefix={HOST}/b"), 10),
        ("a URL", format!("prefix={}", url("/a/1")), 4),
        ("another scheme", format!("prefix=https://{HOST}/"), 0),
        ("another host", "prefix=elsewhere.test/".into(), 0),
    ] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/v1/cache/objects?limit=5&{query}{cursor}");
            let page = node.admin_get(&path).await.expect("an answer").json();
            let objects = page["objects"].as_array().cloned().unwrap_or_default();
            table.row(name, that(objects.len() <= 5, || format!("{} objects of 5", objects.len())));
            table.row(name, same("the first page has what is in memory", page["in_memory_alone"].is_null(), pages > 0));
            if pages == 0 && expected == 23 {
                let alone = json!({ "objects": 1, "at_least": false });
                table.row(name, same("in memory alone", &page["in_memory_alone"], &alone));
            }
            seen.extend(objects.iter().filter_map(|object| object["url"].as_str().map(str::to_owned)));
            pages += 1;
            match page["next"].as_str() {
                Some(next) if pages < 50 => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        table.row(name, same("objects", seen.len(), expected));
        seen.sort_unstable();
        seen.dedup();
        table.row(name, same("different objects", seen.len(), expected));
    }
    for (query, status) in [("site=none", 400), ("prefix=nonsense", 400), ("cursor=x", 400), ("limit=0", 400)] {
        let response = node.admin_get(&format!("/v1/cache/objects?{query}")).await.expect("an answer");
        table.row(query, same("the status", response.status, status));
    }
    node.purge(&json!({ "prefixes": ["/a/"] })).await;
    let (code, said) = command(&node, &["ls", "--site", "main"]);
    table.row("after a purge", same("the code", code, Some(0)));
    table.row("after a purge", that(said.contains("10 responses on disks for the site main."), || said.clone()));
    let (code, said) = command(&node, &["ls", "--prefix", "/b/", "--limit", "3", "--json"]);
    table.row("a limit", same("the code", code, Some(0)));
    let listed: Value = serde_json::from_str(&said).unwrap_or_default();
    table.row("a limit", same("objects", listed["objects"].as_array().map(Vec::len), Some(3)));
    table.finish();
}

#[tokio::test]
async fn what_is_damaged_is_found_and_forgotten() {
    let origin = Origin::start();
    let body = pattern(LARGE, 2);
    origin.serve("/large", Answer::ok(body.clone()).field(FRESH));
    origin.serve("/small", Answer::ok("a small body that is found").field(FRESH));
    origin.serve("/sound", Answer::ok("sound").field(FRESH));
    let node = node(&origin, "").await;
    for target in ["/large", "/small", "/sound"] {
        stored(&node, target).await;
    }
    let mut table = Table::new("verifications");
    let before = verified(&node, "/large").await;
    table.row("sound", same("right", &before["right"], &json!(true)));
    let right = json!(["right", "right", "right", "right"]);
    table.row("sound", same("chunks", before.pointer("/records/0/chunks"), Some(&right)));
    table.row("sound", same("the code", command(&node, &["verify", &url("/sound")]).0, Some(0)));
    damage(&node, &body[2 * CHUNK..2 * CHUNK + 64]);
    let (code, said) = command(&node, &["verify", &url("/large")]);
    table.row("a damaged chunk", same("the code", code, Some(1)));
    table.row("a damaged chunk", that(said.contains("chunk 2 is damaged"), || said.clone()));
    let object = shown(&node, "/large", "").await;
    table.row("afterwards", same("the disk", object.pointer("/records/0/disk"), Some(&json!(null))));
    table.row("afterwards", same("chunks", object.pointer("/records/0/chunks/there"), Some(&json!(3))));
    table.row("afterwards", that(node.get("/large").await.body == body, || "another body".into()));
    damage(&node, b"a small body that is found");
    let (code, said) = command(&node, &["verify", "--all", "--rate", "1000", "--wait", "--json"]);
    table.row("everything", same("the code", code, Some(1)));
    let answer: Value = serde_json::from_str(said.lines().next().unwrap_or_default()).unwrap_or_default();
    table.row("everything", same("damaged", &answer["damaged"], &json!(1)));
    table.row("everything", that(answer["right"].as_u64() >= Some(4), || answer.to_string()));
    let again = command(&node, &["verify"]);
    table.row("how far it is", that(again.1.contains("1 damaged and forgotten"), || again.1.clone()));
    let response = node.admin_post(&format!("/v1/cache/verify?url={}", url("/small"))).await.expect("an answer");
    table.row("forgotten", same("the status", response.status, 404));
    let (code, said) = command(&node, &["verify", "--all", "--wait"]);
    table.row("a second time", same("the code", code, Some(0)));
    table.row("a second time", that(said.contains("none damaged"), || said.clone()));
    let stat = node.admin_get("/v1/stat").await.expect("an answer").json();
    table.row("stat", same("damaged", stat.pointer("/store/disk/0/damaged"), Some(&json!(2))));
    table.row("stat", same("up", stat.pointer("/store/disk/0/up"), Some(&json!(true))));
    table.finish();
}

#[tokio::test]
async fn one_verification_of_everything_at_a_time_and_no_faster_than_it_may() {
    let origin = Origin::start();
    origin.serve("/large", Answer::ok(pattern(4 << 20, 3)).field(FRESH));
    let node = node(&origin, "").await;
    stored(&node, "/large").await;
    let nothing = node.admin_get("/v1/cache/verify").await.expect("an answer").json();
    assert_eq!((&nothing["running"], &nothing["started_at"]), (&json!(false), &json!(null)));
    let begun = node.admin_post("/v1/cache/verify?all=1&rate=1").await.expect("an answer");
    assert_eq!(begun.status, 202);
    let other = node.admin_post("/v1/cache/verify?all=1").await.expect("an answer");
    assert_eq!(other.status, 409, "{}", other.text());
    let done = until(Duration::from_secs(30), "the verification ends", || async {
        let progress = node.admin_get("/v1/cache/verify").await?.json();
        if progress["running"] == json!(false) { Ok(progress) } else { Err(progress.to_string()) }
    })
    .await;
    let seconds = done["seconds"].as_f64().unwrap_or_default();
    assert!(seconds > 3.9, "4 MiB at 1 MiB a second took {seconds} s: {done}");
}

#[tokio::test]
async fn explain_says_which_disk_answers() {
    let origin = Origin::start();
    let node = node(&origin, "").await;
    // Twice what the memory tier holds.
    for number in 0..64 {
        let target = format!("/{number}");
        origin.serve(&target, Answer::ok(pattern(1 << 20, number)).field(FRESH));
        stored(&node, &target).await;
    }
    let mut on_disk = 0;
    for number in 0..16 {
        let object = shown(&node, &format!("/{number}"), "").await;
        let is_on_disk_alone = object.pointer("/records/0/memory") == Some(&json!(false));
        let path = format!("/v1/explain?url={}", url(&format!("/{number}")));
        let answer = node.admin_get(&path).await.expect("an answer").json();
        assert_eq!(answer["outcome"], json!("hit"), "{answer}");
        let tier = answer.pointer("/places/tier").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(tier.starts_with("disk ("), is_on_disk_alone, "{answer}");
        if is_on_disk_alone {
            on_disk += 1;
            assert!(answer["sentences"].to_string().contains("bytes is stored on the disk "), "{answer}");
            assert!(answer["sentences"].to_string().contains("Its body stands apart, on the disk "), "{answer}");
        }
    }
    assert!(on_disk > 0, "everything is in memory");
}

#[tokio::test]
async fn a_token_sees_its_own_site_alone() {
    let origin = Origin::start();
    let body = Answer::ok("body").field(FRESH);
    origin.serve("/page", body);
    let hash = |token: &str| blake3::hash(token.as_bytes()).to_hex().to_string();
    let text = format!(
        "[[admin.tokens]]\nname = \"shop\"\nhash = \"{}\"\nsites = \"shop\"\nverbs = [\"explain\", \"operate\"]\n\
         [[admin.tokens]]\nname = \"all\"\nhash = \"{}\"\nsites = \"*\"\nverbs = [\"explain\", \"operate\"]\n\
         [[admin.tokens]]\nname = \"purger\"\nhash = \"{}\"\nsites = \"*\"\nverbs = \"purge\"\n\
         [site.shop]\nhosts = \"{HOST}\"\norigins = \"{{origin}}\"\n\
         [site.blog]\nhosts = \"blog.test\"\norigins = \"{{origin}}\"\n",
        hash("s"),
        hash("a"),
        hash("p"),
    );
    let node = node(&origin, &text).await;
    node.get("/page").await;
    let mut table = Table::new("tokens");
    let (shop, blog) = (url("/page"), "http://blog.test/page");
    let object = |url: &str| format!("/v1/cache/object?url={url}");
    for (name, method, target, token, status) in [
        ("no token", "GET", object(&shop), None, 401),
        ("another verb", "GET", object(&shop), Some("p"), 403),
        ("its own URL", "GET", object(&shop), Some("s"), 200),
        ("another's URL", "GET", object(blog), Some("s"), 403),
        ("nobody's URL", "GET", object("http://elsewhere.test/"), Some("s"), 403),
        ("nobody's URL, for all", "GET", object("http://elsewhere.test/"), Some("a"), 404),
        ("its own site", "GET", "/v1/cache/objects".into(), Some("s"), 200),
        ("another's site", "GET", "/v1/cache/objects?site=blog".into(), Some("s"), 403),
        ("another's prefix", "GET", "/v1/cache/objects?prefix=blog.test/".into(), Some("s"), 403),
        ("no site's", "GET", "/v1/cache/objects?prefix=elsewhere.test/".into(), Some("s"), 403),
        ("a site, for all", "GET", "/v1/cache/objects?site=blog".into(), Some("a"), 200),
        ("which site?", "GET", "/v1/cache/objects".into(), Some("a"), 400),
        ("verify another's", "POST", format!("/v1/cache/verify?url={blog}"), Some("s"), 403),
        ("verify everything", "POST", "/v1/cache/verify?all=1".into(), Some("s"), 403),
        ("how far that is", "GET", "/v1/cache/verify".into(), Some("s"), 403),
        ("verify everything, for all", "POST", "/v1/cache/verify?all=1".into(), Some("a"), 202),
        ("another method", "DELETE", "/v1/cache/verify".into(), Some("a"), 405),
    ] {
        let response = node.admin_json(method, &target, &Value::Null, token).await;
        table.row(name, same("the status", response.status, status));
    }
    table.finish();
}
