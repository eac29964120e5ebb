//! What a purge log is to the node, whoever keeps it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use ulid::Ulid;

use super::position::LogPosition;
use super::record::PurgeRecord;

/// Why a purge was not taken, or not found.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("too many purges wait for the disk")]
    Overloaded,
    #[error("the purge log cannot be written: {0}")]
    Storage(#[from] redb::Error),
    #[error("a record of the purge log cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("the purge log is closed")]
    Closed,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the directory {0} cannot be made: {1}")]
    Directory(PathBuf, std::io::Error),
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("{0} cannot be used: {1}")]
    Unusable(PathBuf, LogError),
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
}

/// A purge, and what has become of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    pub record: PurgeRecord,
    /// Its place in the log. None: it waits for the log, and will be applied when that can be reached.
    pub position: Option<LogPosition>,
    /// Every node there is, and whether it has applied it.
    pub nodes: Vec<Standing>,
}

/// How far a node is with one purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub node: String,
    /// The last record it has applied, counted as this node counts. None: it follows another log, or has said nothing yet.
    pub position: Option<LogPosition>,
    /// It serves nothing that was purged: it has applied the purge, or it cannot take itself for current any more.
    pub applied: bool,
    /// It is isolated: it has lost the log for longer than it may trust what it stored.
    pub isolated: bool,
}

impl Purged {
    /// No node serves what was purged.
    pub fn is_applied(&self) -> bool {
        self.position.is_some() && self.nodes.iter().all(|node| node.applied)
    }
}

/// A node, as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub name: String,
    /// The point of presence it stands in; empty: it says none.
    pub pop: String,
    /// The URL by which other nodes reach it; empty: they do not.
    pub address: String,
    pub position: Option<LogPosition>,
    /// `current`, `isolated`, `draining` or `silent`: it has said nothing for longer than it may be current.
    pub state: &'static str,
    pub version: String,
    /// The last version of a document of the hub that it runs with; 0: none.
    pub config: u64,
    /// What it has the same of as a node that runs with the same documents.
    pub documents: String,
    /// How long ago it said so, in milliseconds.
    pub heard_ms: u64,
}

/// Whether somebody waits for a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Durable is enough.
    No,
    /// For every node, until then.
    All(Instant),
}

/// A log of purges in a total order.
#[async_trait]
pub trait PurgeLog: Send + Sync {
    /// Takes a purge, and gives it its id. When this returns it is durable.
    ///
    /// # Errors
    /// It is not taken.
    async fn append(&self, record: PurgeRecord, wait: Wait) -> Result<Purged, Arc<LogError>>;

    /// A purge that was taken, if it is still known. Reads from a disk.
    ///
    /// # Errors
    /// The log cannot be read.
    fn find(&self, id: Ulid) -> Result<Option<Purged>, LogError>;

    /// Every node there is.
    fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// When the log was made, as all who follow it know that; 0: nobody else does, or another log is just being adopted. Read after
    /// a position, it is of the same log or of a later one.
    fn made(&self) -> u64 {
        0
    }

    /// Has a node not count any more that is no more. False: none is called that.
    ///
    /// # Errors
    /// Why it counts.
    async fn forget_member(&self, _name: &str) -> Result<bool, String> {
        Ok(false)
    }

    /// Purges that wait for the log.
    fn pending(&self) -> u64 {
        0
    }

    /// How many records there are that this node has not applied, as far as it knows.
    fn lag(&self) -> u64 {
        0
    }

    /// Takes no more purges and writes those that wait.
    fn close(&self);
}
