//! Small things that all nodes know by name, such as certificates that were issued: of each the last that was put there.
//!
//! With a hub they are a bucket of it, and a node keeps those that must outlive it in a directory, one file each, so that it starts
//! without the hub. A node without a hub has the directory alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::link::Link;
use super::streams::BOARD;

/// How soon the bucket is looked at again when that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const SUFFIX: &str = ".note";
/// What the hub has lost is given back to it, so many at a time.
const PUT_BACK_AT_ONCE: usize = 32;

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
    /// What is to be written to the directory.
    unwritten: Arc<Unwritten>,
    writer: Option<thread::Thread>,
    /// Another process has the directory now.
    frozen: AtomicBool,
}

/// What is to be written, by name: the revision, and the value unless it was taken away.
type Unwritten = Mutex<BTreeMap<String, (u64, Option<Bytes>)>>;

#[derive(Default)]
struct State {
    notes: BTreeMap<String, Note>,
    /// What was put or removed since it was asked for last.
    changed: HashSet<String>,
    /// Of a node alone: the revision it gave last.
    last: u64,
    /// The last revision of each name that was heard in this watch, also of what was taken away.
    heard: HashMap<String, u64>,
}

/// Who says that something is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Here,
    Hub,
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
    ["account", "certificate.", "claim.", "orders"].iter().any(|kept| key.starts_with(kept))
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
        let unwritten = Arc::default();
        let writer = match directory {
            Some(directory) if shared => Some(writer(directory.to_owned(), &unwritten)?),
            _ => None,
        };
        Ok(Self {
            unwritten,
            writer,
            frozen: AtomicBool::new(false),
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
            // What was taken away has left a mark, which is nothing too.
            Some(0) => store.create(key, value.clone()).await.map_err(|error| match error.kind() {
                CreateErrorKind::AlreadyExists => BoardError::Outdated,
                _ => unanswered(error),
            })?,
            Some(revision) => store.update(key, value.clone(), revision).await.map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => BoardError::Outdated,
                _ => unanswered(error),
            })?,
            None => store.put(key, value.clone()).await.map_err(unanswered)?,
        };
        self.hear(key, sent, Some(value), From::Here);
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
        if self.frozen.load(Ordering::Acquire) {
            return Err(BoardError::Away);
        }
        let mut state = self.state.lock();
        let known = state.notes.get(key).map_or(0, |note| note.revision);
        if over.is_some_and(|over| over != known) {
            return Err(BoardError::Outdated);
        }
        state.last += 1;
        let revision = state.last;
        drop(state);
        if let Some(directory) = self.directory.as_ref().filter(|_| is_kept(key)) {
            keep(directory, key, revision, value.as_ref())?;
            fs::File::open(directory)?.sync_all()?;
        }
        self.hear(key, revision, value, From::Here);
        Ok(revision)
    }

    async fn store(&self) -> Result<Store, BoardError> {
        let link = self.link.load_full().ok_or(BoardError::Away)?;
        link.context.get_key_value(BOARD).await.map_err(unanswered)
    }

    /// This is there now, or nothing is. What the hub says is in its order; what was put here it may have said already, and even
    /// what came after it.
    fn hear(&self, key: &str, revision: u64, value: Option<Bytes>, from: From) {
        let mut state = self.state.lock();
        if from == From::Here && state.heard.get(key).is_some_and(|heard| *heard >= revision) {
            return;
        }
        if self.shared {
            state.heard.insert(key.to_owned(), revision);
        }
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

    /// What the hub said, which is kept here as well, a little later.
    fn hear_and_keep(&self, key: &str, revision: u64, value: Option<Bytes>) {
        if let Some(writer) = self.writer.as_ref().filter(|_| is_kept(key)) {
            self.unwritten.lock().insert(key.to_owned(), (revision, value.clone()));
            writer.unpark();
        }
        self.hear(key, revision, value, From::Hub);
    }

    /// Another process takes the directory over, or has not done so: a node alone changes nothing meanwhile.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// What is there at the hub now, whatever was heard of it.
    ///
    /// # Errors
    /// The hub does not say.
    pub async fn ask(&self, key: &str) -> Result<Option<Bytes>, BoardError> {
        if !self.shared {
            return Ok(self.get(key).map(|note| note.value));
        }
        self.store().await?.get(key).await.map_err(unanswered)
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
        let mut unheard: HashSet<String> = {
            let mut state = self.state.lock();
            state.heard.clear();
            state.notes.keys().cloned().collect()
        };
        let (mut is_all, mut is_first) = (messages == 0, true);
        loop {
            if is_all && std::mem::take(&mut is_first) {
                self.put_back(&store, std::mem::take(&mut unheard)).await?;
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
    async fn put_back(&self, store: &Store, unheard: HashSet<String>) -> Result<(), BoardError> {
        let puts = unheard.into_iter().map(|key| async move {
            let Some(Note { value, .. }) = self.get(&key).filter(|_| is_kept(&key)) else {
                self.hear(&key, 0, None, From::Hub);
                return Ok(());
            };
            match store.update(&key, value, 0).await {
                // It comes back as everything does that is put there; so does what another node was faster with.
                Ok(_) => Ok(()),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(()),
                Err(error) => Err(unanswered(error)),
            }
        });
        futures_util::stream::iter(puts).buffer_unordered(PUT_BACK_AT_ONCE).try_collect().await
    }
}

/// The thread that keeps what the hub says: a disk may be slow, and who hears is waited for by others.
fn writer(directory: PathBuf, unwritten: &Arc<Unwritten>) -> io::Result<thread::Thread> {
    let unwritten = Arc::downgrade(unwritten);
    let thread = thread::Builder::new().name("board".into()).spawn(move || {
        while let Some(notes) = unwritten.upgrade().map(|unwritten| std::mem::take(&mut *unwritten.lock())) {
            let is_some = !notes.is_empty();
            for (key, (revision, value)) in notes {
                if let Err(error) = keep(&directory, &key, revision, value.as_ref()) {
                    tracing::error!(key, %error, "the next start does not know it without the hub");
                }
            }
            if is_some {
                // Without it a name may be lost with the power, and is heard of again.
                let _ = fs::File::open(&directory).and_then(|directory| directory.sync_all());
            } else {
                thread::park_timeout(AGAIN_AFTER);
            }
        }
    })?;
    Ok(thread.thread().clone())
}

fn keep(directory: &Path, key: &str, revision: u64, value: Option<&Bytes>) -> io::Result<()> {
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
