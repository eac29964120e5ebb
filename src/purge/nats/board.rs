//! Small things that all nodes know by name, such as certificates that were issued: of each the last that was put there.
//!
//! With a hub they are a bucket of it, and a node keeps those that must outlive it in a directory, one file each, so that it starts
//! without the hub. A node without a hub has the directory alone.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::link::Link;
use super::streams::BOARD;

/// How soon the bucket is looked at again when that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const SUFFIX: &str = ".note";

/// What is known.
pub struct Board {
    /// None: nothing outlives the process.
    directory: Option<PathBuf>,
    /// There is a hub, which has the last word.
    shared: bool,
    link: ArcSwapOption<Link>,
    state: Mutex<State>,
    /// All that the hub has was heard once.
    complete: watch::Sender<bool>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    notes: BTreeMap<String, Note>,
    /// What was put or removed since it was asked for last.
    changed: HashSet<String>,
    /// Of a node alone: the revision it gave last.
    last: u64,
}

/// Something, and the number it was put there under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub revision: u64,
    pub value: Bytes,
}

/// Why something is not there now.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("the hub cannot be reached")]
    Away,
    #[error("somebody else was faster")]
    Outdated,
    #[error("the hub does not answer: {0}")]
    Unanswered(String),
    #[error("it cannot be kept: {0}")]
    Disk(#[from] io::Error),
}

fn unanswered(error: impl std::fmt::Display) -> BoardError {
    BoardError::Unanswered(error.to_string())
}

/// What has to outlive a node. The rest is of this moment.
fn is_kept(key: &str) -> bool {
    ["account", "certificate.", "claim."].iter().any(|kept| key.starts_with(kept))
}

impl Board {
    /// With what is kept in a directory. `shared`: there is a hub.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(directory: Option<&Path>, shared: bool) -> io::Result<Self> {
        let mut state = State::default();
        if let Some(directory) = directory {
            fs::create_dir_all(directory)?;
            for file in fs::read_dir(directory)? {
                let path = file?.path();
                let key = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
                let Some(key) = key.filter(|key| is_kept(key)) else { continue };
                match read(&path) {
                    Some(note) => _ = state.notes.insert(key.to_owned(), note),
                    None => tracing::error!(file = %path.display(), "it cannot be read, and is left out"),
                }
            }
        }
        state.last = state.notes.values().map(|note| note.revision).max().unwrap_or(0);
        state.changed = state.notes.keys().cloned().collect();
        let changed = Notify::new();
        changed.notify_one();
        Ok(Self {
            directory: directory.map(Path::to_owned),
            shared,
            link: ArcSwapOption::empty(),
            state: Mutex::new(state),
            complete: watch::Sender::new(!shared),
            changed,
        })
    }

    /// Whether all that the hub has was heard since the node was started, so that what is not known is not there.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    pub fn get(&self, key: &str) -> Option<Note> {
        self.state.lock().notes.get(key).cloned()
    }

    /// Everything whose name begins so; the names without that.
    pub fn below(&self, prefix: &str) -> Vec<(String, Note)> {
        let state = self.state.lock();
        let from = state.notes.range(prefix.to_owned()..);
        let below = from.map_while(|(key, note)| Some((key.strip_prefix(prefix)?.to_owned(), note.clone())));
        below.collect()
    }

    /// Resolves when something has been put or removed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The names of what has been put or removed since this was asked last. One asks.
    pub fn take_changed(&self) -> HashSet<String> {
        std::mem::take(&mut self.state.lock().changed)
    }

    /// Puts something there. `over`: what is there now; 0: nothing; None: whatever it is.
    ///
    /// # Errors
    /// It is not there; or, where the hub does not answer, it may be.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>, over: Option<u64>) -> Result<u64, BoardError> {
        let value: Bytes = value.into();
        if !self.shared {
            return self.put_alone(key, Some(value), over);
        }
        let store = self.store().await?;
        let sent = match over {
            Some(revision) => store.update(key, value.clone(), revision).await.map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => BoardError::Outdated,
                _ => unanswered(error),
            })?,
            None => store.put(key, value.clone()).await.map_err(unanswered)?,
        };
        // What the hub says of it may have been heard already, and even what came after it.
        if self.get(key).is_none_or(|known| known.revision < sent) {
            self.hear(key, sent, Some(value));
        }
        Ok(sent)
    }

    /// Takes something away.
    ///
    /// # Errors
    /// It is still there; or, where the hub does not answer, it may be.
    pub async fn remove(&self, key: &str) -> Result<(), BoardError> {
        if !self.shared {
            return self.put_alone(key, None, None).map(|_| ());
        }
        let store = self.store().await?;
        store.purge(key).await.map_err(unanswered)
    }

    fn put_alone(&self, key: &str, value: Option<Bytes>, over: Option<u64>) -> Result<u64, BoardError> {
        let mut state = self.state.lock();
        let known = state.notes.get(key).map_or(0, |note| note.revision);
        if over.is_some_and(|over| over != known) {
            return Err(BoardError::Outdated);
        }
        state.last += 1;
        let revision = state.last;
        drop(state);
        self.keep(key, revision, value.as_ref())?;
        self.hear(key, revision, value);
        Ok(revision)
    }

    async fn store(&self) -> Result<Store, BoardError> {
        let link = self.link.load_full().ok_or(BoardError::Away)?;
        link.context.get_key_value(BOARD).await.map_err(unanswered)
    }

    /// This is there now, or nothing is.
    fn hear(&self, key: &str, revision: u64, value: Option<Bytes>) {
        let mut state = self.state.lock();
        match value {
            Some(value) => {
                let note = Note { revision, value };
                if state.notes.insert(key.to_owned(), note.clone()) == Some(note) {
                    return;
                }
            }
            None if state.notes.remove(key).is_none() => return,
            None => {}
        }
        state.changed.insert(key.to_owned());
        drop(state);
        self.changed.notify_one();
    }

    /// What the hub said, which is kept here as well.
    fn hear_and_keep(&self, key: &str, revision: u64, value: Option<Bytes>) {
        if let Err(error) = self.keep(key, revision, value.as_ref()) {
            tracing::error!(key, %error, "the next start does not know it without the hub");
        }
        self.hear(key, revision, value);
    }

    fn keep(&self, key: &str, revision: u64, value: Option<&Bytes>) -> io::Result<()> {
        let Some(directory) = self.directory.as_ref().filter(|_| is_kept(key)) else { return Ok(()) };
        let path = directory.join(format!("{key}{SUFFIX}"));
        let Some(value) = value else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        if read(&path).is_some_and(|note| note.value == *value && note.revision == revision) {
            return Ok(());
        }
        // Two processes may do this at once, while one takes the place of the other.
        let new = directory.join(format!("{key}.{}", std::process::id()));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{revision}\n").as_bytes())?;
        file.write_all(value)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    }

    /// There is a connection, or none any more.
    pub(super) fn connected(&self, link: Option<Arc<Link>>) {
        self.link.store(link);
    }

    /// Hears what the hub has as long as a connection lasts. What fails here does not end it.
    pub(super) async fn follow(&self, link: &Link) {
        let mut told = false;
        loop {
            let Err(error) = self.watch(link).await;
            if !told {
                told = true;
                tracing::warn!(%error, "what nodes share of certificates is not heard; it is tried again (littoral hub init makes {BOARD})");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn watch(&self, link: &Link) -> Result<std::convert::Infallible, BoardError> {
        let store = link.context.get_key_value(BOARD).await.map_err(unanswered)?;
        let messages = store.stream.get_info().await.map_err(unanswered)?.state.messages;
        let mut entries = store.watch_with_history(">").await.map_err(unanswered)?;
        let mut unheard: HashSet<String> = self.state.lock().notes.keys().cloned().collect();
        let (mut is_all, mut is_first) = (messages == 0, true);
        loop {
            if is_all && std::mem::take(&mut is_first) {
                self.put_back(&store, std::mem::take(&mut unheard)).await;
                self.complete.send_replace(true);
                self.changed.notify_one();
            }
            let entry = entries.next().await.ok_or_else(|| unanswered("the watch has ended"))?.map_err(unanswered)?;
            unheard.remove(&entry.key);
            let value = (entry.operation == Operation::Put).then_some(entry.value);
            self.hear_and_keep(&entry.key, entry.revision, value);
            is_all = entry.delta == 0;
        }
    }

    /// What this node knows and the hub has never heard of: the hub was lost. What was taken away has left a mark there.
    async fn put_back(&self, store: &Store, unheard: HashSet<String>) {
        for key in unheard {
            let note = self.get(&key).filter(|_| is_kept(&key));
            let Some(Note { value, .. }) = note else {
                self.hear(&key, 0, None);
                continue;
            };
            if let Ok(revision) = store.update(&key, value.clone(), 0).await {
                self.hear_and_keep(&key, revision, Some(value));
            }
        }
    }
}

/// A file of the directory: the revision on a line, then the value.
fn read(path: &Path) -> Option<Note> {
    let bytes = Bytes::from(fs::read(path).ok()?);
    let end = memchr::memchr(b'\n', &bytes)?;
    let revision = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some(Note { revision, value: bytes.slice(end + 1..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_alone_keeps_what_has_to_outlive_it() {
        let directory = std::env::temp_dir().join(format!("littoral-board-{}", std::process::id()));
        let board = Board::open(Some(&directory), false).expect("a directory");
        assert!(board.is_complete());
        let first = board.put("certificate.a.test", "one", Some(0)).await.expect("there is none");
        assert!(matches!(board.put("certificate.a.test", "two", Some(0)).await, Err(BoardError::Outdated)));
        let second = board.put("certificate.a.test", "two", Some(first)).await.expect("as it is");
        board.put("challenge.a.test", "now", None).await.expect("whatever there is");
        board.put("claim.b.test", "gone", None).await.expect("whatever there is");
        board.remove("claim.b.test").await.expect("alone");
        let names = |board: &Board| board.below("certificate.").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&board), ["a.test"]);
        assert_eq!(board.take_changed().len(), 3);
        assert_eq!(board.take_changed().len(), 0);
        let again = Board::open(Some(&directory), false).expect("a directory");
        assert_eq!(again.get("certificate.a.test"), Some(Note { revision: second, value: "two".into() }));
        assert_eq!(again.get("challenge.a.test"), None, "it was of its moment");
        assert_eq!(again.get("claim.b.test"), None);
        assert_eq!(again.take_changed().len(), 1, "what is there is to be looked at");
        assert!(again.put("account", "later", None).await.expect("alone") > second);
        fs::remove_dir_all(&directory).expect("ours");
    }
}
