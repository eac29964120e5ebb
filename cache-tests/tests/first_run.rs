//! What a newcomer sees: the second request of a page is a hit with the same bytes, in front of the demonstration
//! origin, of nginx and of a program run by Node.js.

use std::path::{Path, PathBuf};

use cache_tests::node::{Node, NodeOptions};
use cache_tests::peer::{Peer, skipped_without};
use cache_tests::table::{Table, same, that};

/// Enough documents to be more than luck, few enough for any image.
const DOCUMENTS: usize = 5;

#[tokio::test]
async fn the_demonstration_origin_shows_hits_without_any_setting() {
    let node = NodeOptions::embedded().start().await;
    let mut table = Table::new("the demonstration origin");
    for page in ["/", "/style.css", "/large.bin"] {
        table.row(page, second_is_hit(&node, page).await);
    }
    table.row("/slow", second_is_hit(&node, "/slow").await);
    table.row("/uncacheable", never_hit(&node, "/uncacheable").await);
    table.finish();
}

#[tokio::test]
async fn the_node_says_where_to_look() {
    let node = NodeOptions::embedded().start().await;
    let said = node.said();
    for expected in [node.address().to_string(), node.admin().to_string(), "curl".to_owned()] {
        assert!(said.contains(&expected), "{expected} is not in what the node said:\n{said}");
    }
}

#[tokio::test]
async fn documents_served_by_nginx_are_hits() {
    let root = Path::new("/usr/share/doc");
    let Some(nginx) = Peer::nginx(root).await else { return skipped_without("nginx") };
    let node = NodeOptions::before_url(&nginx.url()).start().await;
    let mut table = Table::new("documents served by nginx");
    for document in documents(root) {
        let target = format!("/{}", document.strip_prefix(root).expect("found below the root").display());
        let content = std::fs::read(&document).expect("a document can be read");
        let outcome = match second_is_hit(&node, &target).await {
            Ok(()) => same("the content", node.get(&target).await.body.to_vec() == content, true),
            problem => problem,
        };
        table.row(&target, outcome);
    }
    table.row("no such page", never_hit_with(&node, "/no/such/page", 404).await);
    table.finish();
}

#[tokio::test]
async fn pages_of_a_node_js_program_are_hits_where_allowed() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/origin.mjs");
    let Some(program) = Peer::node_js(&script).await else { return skipped_without("node") };
    let node = NodeOptions::before_url(&program.url()).start().await;
    let mut table = Table::new("pages of a Node.js program");
    for page in ["/page", "/chunked", "/slow", "/slow-chunks", "/large", "/empty", "/gone"] {
        table.row(page, second_is_hit(&node, page).await);
    }
    table.row("/uncacheable", never_hit(&node, "/uncacheable").await);
    table.row("/failing", never_hit_with(&node, "/failing", 500).await);
    table.row("/abrupt", abrupt(&node).await);
    // After all that, the node and the program still talk.
    table.row("/page again", same("a hit", node.get("/page").await.is_hit(), true));
    table.finish();
}

async fn second_is_hit(node: &Node, target: &str) -> Result<(), String> {
    let (first, second) = (node.get(target).await, node.get(target).await);
    same("the end of the first", first.end.is_clean(), true)?;
    that(!first.is_hit(), || "the first is a hit".to_owned())?;
    that(second.cache_status()?.hit, || format!("the second is no hit: {:?}", second.field("cache-status")))?;
    same("the second's status", second.status, first.status)?;
    same("the end of the second", second.end.is_clean(), true)?;
    same("the content type", second.field("content-type"), first.field("content-type"))?;
    let (found, expected) = (second.body.len(), first.body.len());
    that(second.body == first.body, || format!("the bodies differ ({found} and {expected} bytes)"))
}

async fn never_hit(node: &Node, target: &str) -> Result<(), String> {
    never_hit_with(node, target, 200).await?;
    let (first, second) = (node.get(target).await, node.get(target).await);
    that(first.body != second.body, || "two answers have the same bytes".to_owned())
}

async fn never_hit_with(node: &Node, target: &str, status: u16) -> Result<(), String> {
    for _ in 0..3 {
        let response = node.get(target).await;
        same("the status", response.status, status)?;
        let cache_status = response.cache_status()?;
        that(!cache_status.hit, || "a hit".to_owned())?;
        that(cache_status.fwd.is_some(), || "no reason".to_owned())?;
    }
    Ok(())
}

async fn abrupt(node: &Node) -> Result<(), String> {
    for _ in 0..2 {
        let response = node.get("/abrupt").await;
        // The head may already be on its way, or not: but never a clean 200.
        that(response.status == 502 || !response.end.is_clean(), || format!("{} {:?}", response.status, response.end))?;
        that(!response.is_hit(), || "a hit".to_owned())?;
    }
    Ok(())
}

/// Some documents of a reasonable size, in the order of their names.
fn documents(root: &Path) -> Vec<PathBuf> {
    let mut packages: Vec<PathBuf> =
        root.read_dir().expect("a directory of documents").flatten().map(|entry| entry.path()).collect();
    packages.sort();
    let copyrights = packages.into_iter().map(|package| package.join("copyright"));
    let plain = |path: &PathBuf| path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    let found: Vec<PathBuf> = copyrights.filter(plain).take(DOCUMENTS).collect();
    assert!(!found.is_empty(), "no document below {}", root.display());
    found
}
