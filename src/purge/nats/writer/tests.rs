use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::*;
use crate::purge::ledger::{Gone, Ledger, Verdict};
use crate::purge::position::Position;
use crate::purge::record::{Kind, PurgeMode, Selector};
use crate::purge::selector::{Named, Naming, OwnedSelectors, SiteId};
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// What a node keeps, and the thread that writes it.
struct Node {
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("littoral-writer-{}-{number}", std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Node {
    fn start(directory: &Directory, generation: u16) -> Self {
        let ledger = Arc::new(Ledger::named(1 << 20, Naming::new([5; 32])));
        let keyer = Keyer::new([5; 32]);
        let kept = Kept::open(Some(&directory.0), "log.redb", ledger.clone(), keyer, UnixMs(1), generation);
        let writer = Writer::new(kept.expect("a file")).expect("a writer");
        let seen = writer.seen.clone();
        let (work, asked) = sync_channel(64);
        let thread = std::thread::spawn(move || writer.run(&asked));
        Self { ledger, seen, work: Some(work), thread: Some(thread) }
    }

    fn send(&self, work: Work) {
        self.work.as_ref().expect("it runs").send(work).expect("it takes work");
    }

    fn apply(&self, records: Vec<(u64, PurgeRecord)>) {
        let (done, applied) = oneshot::channel();
        self.send(Work::Apply { records, done });
        applied.blocking_recv().expect("it is applied");
    }

    fn adopt(&self, created: u64, last: Option<(u64, PurgeRecord)>) {
        let (done, adopted) = oneshot::channel();
        self.send(Work::Adopt { created, last, done });
        adopted.blocking_recv().expect("it answers").expect("it is adopted");
    }

    fn take(&self, record: PurgeRecord) {
        let (done, taken) = oneshot::channel();
        self.send(Work::Take { record, done });
        taken.blocking_recv().expect("it answers").expect("it is taken");
    }

    fn position(&self) -> (u16, u64) {
        let position = *self.seen.applied.borrow();
        assert_eq!(self.ledger.applied().log, position);
        (position.generation(), position.seq())
    }

    fn judge(&self, key: &str, began: (u16, u64)) -> Verdict {
        let mut selectors = OwnedSelectors { site: SiteId::of("shop"), ..OwnedSelectors::default() };
        selectors.add_key(self.ledger.name(Named::Key, key.as_bytes()));
        let log = LogPosition::new(began.0, began.1);
        self.ledger.judge(&selectors.get(), Position { log, local: 1 }).verdict
    }

    fn pending(&self) -> Vec<u128> {
        self.seen.pending.lock().keys().map(|id| id.0).collect()
    }

    fn end(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends well");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn tag(id: u128, key: &str) -> PurgeRecord {
    let selectors = vec![Selector::new("shop", Kind::Tag, key)];
    PurgeRecord::new(Ulid::from(id), clock::wall(), selectors, PurgeMode::Delete, "test")
}

const GONE: Verdict = Verdict::Gone(Gone::Purged);

/// I1, I2: records are applied in order, once, and what a restart finds is where it was.
#[test]
fn records_are_applied_once_and_kept_with_their_position() {
    let directory = Directory::new();
    let mut node = Node::start(&directory, 1);
    node.adopt(77, None);
    assert_eq!(node.position(), (2, 0));
    node.apply(vec![(1, tag(1, "a")), (2, tag(2, "b"))]);
    assert_eq!((node.position(), node.judge("a", (2, 0)), node.judge("a", (2, 1))), ((2, 2), GONE, Verdict::Live));
    // Again, and from before: nothing changes.
    node.apply(vec![(1, tag(1, "a")), (2, tag(2, "b"))]);
    assert_eq!((node.position(), node.judge("b", (2, 2))), ((2, 2), Verdict::Live));
    node.end();
    let again = Node::start(&directory, 1);
    assert_eq!((again.position(), again.judge("a", (2, 0)), again.judge("b", (2, 2))), ((2, 2), GONE, Verdict::Live));
    let followed = *again.seen.followed.lock();
    assert_eq!((followed.created, followed.applied), (77, Some((2, Ulid::from(2_u128)))));
}

/// I7: another log is of a later generation, whatever its numbers are, and all that was stored before is gone.
#[test]
fn another_log_makes_everything_before_it_gone() {
    let directory = Directory::new();
    let mut node = Node::start(&directory, 1);
    node.adopt(77, Some((500, tag(9, "x"))));
    assert_eq!(node.judge("y", (2, 500)), Verdict::Live);
    node.adopt(78, Some((3, tag(10, "x"))));
    assert_eq!((node.position(), node.judge("y", (2, 500)), node.judge("y", (3, 3))), ((3, 3), GONE, Verdict::Live));
    // What its last record purged was purged before anything was stored under it.
    assert_eq!(node.judge("x", (3, 3)), Verdict::Live);
    node.end();
    let again = Node::start(&directory, 1);
    assert_eq!((again.position(), again.judge("y", (2, 500))), ((3, 3), GONE));
    assert_eq!(again.seen.followed.lock().applied, Some((3, Ulid::from(10_u128))));
}

/// I9, I13: what was taken is there after a restart until the hub has it, and is sent again when the log was lost.
#[test]
fn what_was_taken_is_sent_until_the_hub_has_it_and_again_when_it_has_lost_it() {
    let directory = Directory::new();
    let mut node = Node::start(&directory, 1);
    node.adopt(77, None);
    for id in [1, 2, 3] {
        node.seen.pending.lock().insert(Ulid::from(id), tag(id, "a"));
        node.take(tag(id, "a"));
    }
    node.send(Work::Acknowledged(Ulid::from(2_u128), 8));
    node.end();
    let mut again = Node::start(&directory, 1);
    assert_eq!(again.pending(), [1, 3]);
    assert_eq!(again.seen.followed.lock().acknowledged, Some((8, Ulid::from(2_u128))));
    again.adopt(78, None);
    assert_eq!(again.pending(), [1, 2, 3]);
    again.end();
    assert_eq!(Node::start(&directory, 1).pending(), [1, 2, 3]);
}
