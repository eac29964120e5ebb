use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::purge::kept::COMPACT_EVERY;
use crate::purge::ledger::{Gone, Judged, Verdict};
use crate::purge::position::Position;
use crate::purge::record::{Kind, PurgeMode, Selector};
use crate::purge::selector::{Named, OwnedSelectors, SiteId};

/// A directory of its own, gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("littoral-purge-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open_at(directory: Option<&Path>) -> (LocalLog, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let log = LocalLog::open(directory, "node", ledger.clone(), Keyer::new([3; 32]), UnixMs(1), FIRST_GENERATION)
        .expect("a log");
    (log, ledger)
}

fn tag(id: u128, key: &str, mode: PurgeMode) -> PurgeRecord {
    PurgeRecord::new(Ulid::from(id), UnixMs(id as u64), vec![Selector::new("shop", Kind::Tag, key)], mode, "test")
}

fn judge(ledger: &Ledger, key: &str, began: LogPosition) -> Verdict {
    let mut selectors = OwnedSelectors { site: SiteId::of("shop"), ..OwnedSelectors::default() };
    selectors.add_key(ledger.name(Named::Key, key.as_bytes()));
    let Judged { verdict, .. } = ledger.judge(&selectors.get(), Position { log: began, local: 1 });
    verdict
}

#[tokio::test]
async fn everything_is_there_again_in_another_process() {
    let directory = Directory::new();
    let first = LogPosition::new(1, 0);
    let id;
    {
        let (log, ledger) = open_at(Some(&directory.0));
        assert_eq!(ledger.applied().log, first);
        let written = log.write(tag(7, "a", PurgeMode::Delete)).await.expect("it is written");
        assert_eq!((written.0, written.1.at), (LogPosition::new(1, 1), 7));
        id = written.1.id;
        assert_eq!(judge(&ledger, "a", first), Verdict::Gone(Gone::Purged));
        log.write(tag(8, "b", PurgeMode::Invalidate)).await.expect("it is written");
    }
    let (log, ledger) = open_at(Some(&directory.0));
    assert_eq!(ledger.applied().log, LogPosition::new(1, 2));
    assert_eq!(judge(&ledger, "a", first), Verdict::Gone(Gone::Purged));
    assert_eq!(judge(&ledger, "b", first), Verdict::StaleSince(UnixMs(8)));
    assert_eq!(judge(&ledger, "c", first), Verdict::Live);
    let found = log.find(id).expect("it can be read").expect("it is known");
    assert_eq!(
        (found.position, found.record),
        (Some(LogPosition::new(1, 1)), PurgeRecord { id, ..tag(7, "a", PurgeMode::Delete) })
    );
    for unknown in [Ulid::from(9_u128), Ulid::from(id.0 ^ (1 << 70)), Ulid::from(id.0 ^ (1 << 100))] {
        assert_eq!(log.find(unknown).expect("it can be read"), None, "{unknown}");
    }
}

#[tokio::test]
async fn purges_at_once_have_positions_of_their_own() {
    let (log, ledger) = open_at(None);
    let all = (0..300_u128).map(|id| log.write(tag(id, &id.to_string(), PurgeMode::Delete)));
    let positions = futures_util::future::join_all(all).await;
    let mut seen: Vec<u64> = positions.into_iter().map(|written| written.expect("it is written").0.seq()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    assert_eq!(ledger.applied().log.seq(), 300);
    for id in [0, 150, 299] {
        assert_eq!(judge(&ledger, &id.to_string(), LogPosition::new(1, 0)), Verdict::Gone(Gone::Purged));
    }
    log.close();
    let refused = log.write(tag(999, "late", PurgeMode::Delete)).await.expect_err("it is closed");
    assert!(matches!(*refused, LogError::Closed));
}

#[tokio::test]
async fn what_is_not_compacted_is_replayed_and_what_is_stays() {
    let directory = Directory::new();
    let count = u128::from(COMPACT_EVERY) + 50;
    {
        let (log, _) = open_at(Some(&directory.0));
        let all = (0..count).map(|id| log.write(tag(id, &format!("{}", id % 3_000), PurgeMode::Delete)));
        futures_util::future::join_all(all).await.into_iter().for_each(|written| drop(written.expect("it is written")));
        // As after a kill: nothing is closed.
        std::mem::forget(log);
        std::fs::copy(directory.0.join(FILE), directory.0.join("copy")).expect("the file as it is");
    }
    let copied = Directory::new();
    std::fs::rename(directory.0.join("copy"), copied.0.join(FILE)).expect("the copy");
    let (_log, ledger) = open_at(Some(&copied.0));
    assert_eq!(ledger.applied().log, LogPosition::new(1, count as u64));
    assert_eq!(ledger.len(), 3_000);
    for key in [0, 1, 1_500, 2_999] {
        assert_eq!(judge(&ledger, &key.to_string(), LogPosition::new(1, 1_000)), Verdict::Gone(Gone::Purged), "{key}");
    }
}

#[test]
fn a_log_is_for_one_process_and_a_file_that_is_none_is_an_error() {
    let directory = Directory::new();
    let open = || {
        LocalLog::open(
            Some(&directory.0),
            "node",
            Arc::new(Ledger::default()),
            Keyer::new([3; 32]),
            UnixMs(1),
            FIRST_GENERATION,
        )
    };
    let first = open().expect("a log");
    assert!(matches!(open(), Err(OpenError::InUse(_))));
    drop(first);
    std::fs::write(directory.0.join(FILE), b"something else entirely").expect("a file");
    assert!(matches!(open(), Err(OpenError::Unusable(..))));
    let file = directory.0.join(FILE);
    let below = LocalLog::open(
        Some(&file),
        "node",
        Arc::new(Ledger::default()),
        Keyer::new([3; 32]),
        UnixMs(1),
        FIRST_GENERATION,
    );
    assert!(matches!(below, Err(OpenError::Directory(..))));
}
