//! A child process that never outlives its test, and the directory it works in.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::deadline::until;

/// How long a child may take to obey SIGTERM when its test is over.
const GRACE: Duration = Duration::from_millis(500);

/// A directory of one test; removed with it unless the test failed.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("littoral-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the directories it is in, in place of what was there.
    pub fn write(&self, file: &str, contents: &[u8]) {
        let path = self.0.join(file);
        let directory = path.parent().unwrap_or(&self.0);
        let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, contents));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What the file holds by now; nothing when it is not there.
    pub fn read(&self, file: &str) -> String {
        std::fs::read(self.0.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for you: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A running child. Dropping it ends it: SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    scratch: Scratch,
}

impl Process {
    /// Runs `command` inside `scratch`, with both outputs kept there.
    pub fn start(name: &str, mut command: Command, scratch: Scratch) -> Self {
        let output = |file: &str| {
            let path = scratch.path().join(file);
            File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        command.current_dir(scratch.path()).stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, scratch }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Both outputs so far, for messages.
    pub fn said(&self) -> String {
        format!("{} said:\n{}{}", self.name, self.scratch.read("stdout"), self.scratch.read("stderr"))
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn signal(&self, signal: &str) {
        send_signal(self.id(), signal);
    }

    /// Waits for the end.
    pub async fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        until(limit, &format!("the end of {name}"), || {
            let ended = self.ended();
            async move { ended.ok_or_else(|| "still running".to_owned()) }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal("TERM");
        // Nobody can be told of a condition while unwinding: look a few times, then insist.
        for _ in 0..GRACE.as_millis() / 5 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signals one process by its id. The shell's own `kill`, because a bare image has no other.
fn send_signal(id: u32, signal: &str) {
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{signal} {id}")).stderr(Stdio::null()).status();
}

/// Lets this process, and the children it starts from now on, have as many open files as the hard limit allows.
/// Gives the limit that now holds.
pub fn raise_open_files_limit() -> u64 {
    let id = std::process::id();
    let script = format!("prlimit --pid {id} --nofile=$(ulimit -Hn):$(ulimit -Hn)");
    let _ = Command::new("sh").arg("-c").arg(script).stderr(Stdio::null()).status();
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux tells the limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line of open files");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}
