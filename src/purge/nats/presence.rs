//! What a node says of itself that others decide.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::documents::{Texts, digest};

/// What is to be said.
#[derive(Debug, Default)]
pub struct Presence {
    draining: AtomicBool,
    ended: AtomicBool,
    config: AtomicU64,
    documents: Mutex<String>,
    changed: Notify,
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

    /// It says nothing of itself any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// What it says is of a process that goes on after all.
    pub fn begin_again(&self) {
        self.ended.store(false, Ordering::Release);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A configuration is in force. `documents`: those of the hub. `serves`: the sites that are served also when the node is isolated.
    pub fn configured(&self, documents: &Texts, serves: Vec<String>) {
        *self.serves.lock() = serves;
        *self.documents.lock() = digest(documents);
        let last = documents.values().map(|text| text.version).max().unwrap_or(0);
        self.config.store(last, Ordering::Release);
        self.changed.notify_one();
    }

    /// Resolves when there is something else to say.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn documents(&self) -> String {
        self.documents.lock().clone()
    }

    pub fn config(&self) -> u64 {
        self.config.load(Ordering::Acquire)
    }

    pub fn serves(&self) -> Vec<String> {
        self.serves.lock().clone()
    }
}
