//! The program under test: where it is, and running it to its end.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::SystemTime;

use crate::process::Scratch;

/// Runs `littoral` with these arguments until it ends by itself; for command lines that are wrong.
pub fn run_to_the_end(arguments: &[&str]) -> (Option<i32>, String) {
    let scratch = Scratch::new("command");
    let mut command = Command::new("timeout");
    command.arg("30").arg(binary()).args(arguments).current_dir(scratch.path());
    let output = command.output().unwrap_or_else(|error| panic!("littoral does not start: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A port that nobody listens on now.
pub fn free_port(address: IpAddr) -> u16 {
    // Below the range the system gives to outgoing connections, so that none of them takes the port meanwhile; each
    // process begins elsewhere, and no test gets a port twice.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 500) as u16 * 40;
    for _ in 0..2_000 {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind((address, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on {address}");
}

/// `LITTORAL_BIN`, else the newer of the workspace's two builds.
///
/// # Panics
/// When there is neither.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LITTORAL_BIN") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = ["target/release/littoral", "target/debug/littoral"].map(|path| workspace.join(path));
    let age = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let newest = built.into_iter().filter(|path| path.is_file()).max_by_key(age);
    newest.expect("build the node first (cargo build --release), or set LITTORAL_BIN")
}
