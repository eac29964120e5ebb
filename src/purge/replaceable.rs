//! A log in the place of another: a process that gave its log to another one, which then failed, opens it anew.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use ulid::Ulid;

use super::log::{LogError, Member, PurgeLog, Purged, Wait};
use super::record::PurgeRecord;

/// The log as everybody has it.
pub struct Replaceable(ArcSwap<Arc<dyn PurgeLog>>);

impl Replaceable {
    pub fn new(log: Arc<dyn PurgeLog>) -> Self {
        Self(ArcSwap::from_pointee(log))
    }

    /// Puts another log in its place. The one before has been closed.
    pub fn replace(&self, log: Arc<dyn PurgeLog>) {
        self.0.store(Arc::new(log));
    }
}

#[async_trait]
impl PurgeLog for Replaceable {
    async fn append(&self, record: PurgeRecord, wait: Wait) -> Result<Purged, Arc<LogError>> {
        let log = self.0.load_full();
        log.append(record, wait).await
    }

    fn find(&self, id: Ulid) -> Result<Option<Purged>, LogError> {
        self.0.load().find(id)
    }

    fn members(&self) -> Vec<Member> {
        self.0.load().members()
    }

    fn made(&self) -> u64 {
        self.0.load().made()
    }

    async fn forget_member(&self, name: &str) -> Result<bool, String> {
        let log = self.0.load_full();
        log.forget_member(name).await
    }

    fn pending(&self) -> u64 {
        self.0.load().pending()
    }

    fn lag(&self) -> u64 {
        self.0.load().lag()
    }

    fn close(&self) {
        self.0.load_full().close();
    }
}
