//! The container image: made from nothing, under its size, and running as its user.

use std::path::Path;
use std::process::Command;

use cache_tests::node::binary;
use cache_tests::process::Scratch;

#[test]
fn an_image_is_made_and_runs() {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/build");
    // Images of the test's own, so that none of the machine's is replaced.
    let store = Scratch::new("images");
    let at = |name: &str| store.path().join(name).display().to_string();
    std::fs::write(store.path().join("storage.conf"), storage(&at("root"), &at("run"))).expect("a file can be written");
    let mut command = Command::new("timeout");
    command.arg("120").arg(build).args(["--check", "--tag", "littoral:test"]).arg(binary());
    let output = command.env("CONTAINERS_STORAGE_CONF", at("storage.conf")).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("a clean stop, as user"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().last(), Some("littoral:test"), "{said}");
}

fn storage(root: &str, run: &str) -> String {
    format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n")
}
