//! One lock on the machine, across processes: a test that measures time or memory runs alone.

use std::fs::File;

/// Held as long as a test uses the machine.
#[derive(Debug)]
pub struct Machine {
    // Dropping the file gives the lock back.
    _lock: File,
}

impl Machine {
    /// Beside other tests.
    pub fn shared() -> Self {
        let lock = lock_file();
        lock.lock_shared().expect("the machine lock can be shared");
        Self { _lock: lock }
    }

    /// With no other test at work.
    pub fn alone() -> Self {
        let lock = lock_file();
        lock.lock().expect("the machine lock can be taken");
        Self { _lock: lock }
    }
}

fn lock_file() -> File {
    let path = std::env::temp_dir().join("littoral-cache-tests.lock");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
