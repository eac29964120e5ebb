//! The log of one disk against a model of it, over a disk that tears, reorders, fails and forgets.
//!
//! One number decides everything: what is stored, read and forgotten, when the process is killed and where in a write, what
//! a loss of power leaves, which bits flip. A run that fails prints it. Bugs are planted by name, to show that each is found.

mod machine;
mod media;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use machine::Machine;

use crate::fuzz::Random;

/// What can be wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// A record is appended before the chunks it speaks of.
    RecordBeforeChunks,
    /// What an older segment holds takes the place of what a newer one does.
    OlderAccepted,
    ChecksumNotLookedAt,
    /// What an earlier use of a segment left is taken for frames of it.
    EpochNotCompared,
    /// The newest segment is cleared, and older ones stay.
    NewestCleared,
    /// Nothing is ever suspicious.
    DoubtForgotten,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

pub(super) fn is_planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// A disk in memory that does as it is told.
pub(super) fn disk_without_faults(bytes: u64) -> impl super::media::Media {
    media::FaultyMedia::new(bytes, Random(0))
}

fn simulate(seed: u64) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| Machine::new(Random(seed)).run())).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "it panics: {}",
            said.or(panic.downcast_ref().map(|said: &&str| (*said).into())).unwrap_or_default()
        ))
    })
}

fn seeds() -> u64 {
    std::env::var("LITTORAL_SEEDS").map_or(300, |n| n.parse().expect("LITTORAL_SEEDS is a number"))
}

#[test]
fn what_a_disk_gives_back_is_what_it_was_given() {
    let next = std::sync::atomic::AtomicU64::new(0);
    let run = || {
        std::iter::from_fn(|| {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (seed < seeds()).then(|| Some((seed, simulate(seed).err()?)))
        })
        .flatten()
        .collect::<Vec<_>>()
    };
    let mut wrong = std::thread::scope(|scope| {
        let others: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        others.into_iter().flat_map(|other| other.join().expect("panics are caught")).collect::<Vec<_>>()
    });
    wrong.sort_unstable();
    let count = wrong.len();
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{count} of {} seeds fail, the first: {wrong:#?}", seeds());
}

macro_rules! planted {
    ($($name:ident: $bug:ident within $seeds:literal,)+) => {
        $(#[test]
        fn $name() {
            assert_caught(Planted::$bug, $seeds);
        })+
    };
}

planted! {
    a_record_before_its_chunks_is_caught: RecordBeforeChunks within 300,
    an_older_frame_that_is_accepted_is_caught: OlderAccepted within 300,
    a_checksum_that_is_not_looked_at_is_caught: ChecksumNotLookedAt within 300,
    an_epoch_that_is_not_compared_is_caught: EpochNotCompared within 300,
    the_newest_segment_cleared_is_caught: NewestCleared within 300,
    a_doubt_that_is_forgotten_is_caught: DoubtForgotten within 300,
}

fn assert_caught(bug: Planted, seeds: u64) {
    PLANTED.set(Some(bug));
    let caught = (0..seeds).find_map(|seed| Some((seed, simulate(seed).err()?)));
    PLANTED.set(None);
    let (seed, wrong) = caught.unwrap_or_else(|| panic!("no schedule of {seeds} shows {bug:?}"));
    println!("{bug:?}: seed {seed}: {wrong}");
}
