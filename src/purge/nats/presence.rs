//! What a node says of itself that others decide.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// What is to be said.
#[derive(Debug, Default)]
pub struct Presence {
    draining: AtomicBool,
    config: AtomicU64,
    serves: Mutex<Vec<String>>,
}

impl Presence {
    /// It finishes what it does, and ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A configuration is in force. `serves`: the sites that are served also when the node is isolated.
    pub fn configured(&self, version: u64, serves: Vec<String>) {
        *self.serves.lock() = serves;
        self.config.store(version, Ordering::Release);
    }

    pub fn config(&self) -> u64 {
        self.config.load(Ordering::Acquire)
    }

    pub fn serves(&self) -> Vec<String> {
        self.serves.lock().clone()
    }
}
