//! What this node alone has invalidated, kept beyond the process: one number a bucket, written in place.
//!
//! A number is written before anybody is told of the invalidation, into a file of some megabytes that the system holds in
//! memory: what was invalidated does not come back from a disk, also after the process was killed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ledger::{BUCKETS, Journal};

const FILE: &str = "invalidations";
/// What the file begins with; the numbers follow.
const HEAD: [u8; 16] = *b"littoral-inval-1";
/// Buckets at most: 32 MiB.
const BUCKETS_MAX: usize = 1 << 22;

/// The file.
pub struct Invalidations(File);

/// What a file held.
pub struct Opened {
    pub file: Invalidations,
    pub buckets: Vec<u64>,
    /// It was not there, or was not one: what it had to say is lost.
    pub is_new: bool,
}

/// How many buckets a node has that may store so many frames: an invalidation makes about one other a miss.
pub fn buckets_for(frames: u64) -> usize {
    usize::try_from(frames).unwrap_or(BUCKETS_MAX).next_power_of_two().clamp(BUCKETS, BUCKETS_MAX)
}

impl Invalidations {
    /// Opens the file in a directory, or makes it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(directory: &Path, buckets: usize) -> io::Result<Opened> {
        let path: PathBuf = directory.join(FILE);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let length = (HEAD.len() + buckets * 8) as u64;
        let mut bytes = vec![0; HEAD.len() + buckets * 8];
        let is_ours = file.metadata()?.len() == length && {
            file.read_exact_at(&mut bytes, 0)?;
            bytes.starts_with(&HEAD)
        };
        if !is_ours {
            bytes = vec![0; HEAD.len() + buckets * 8];
            bytes[..HEAD.len()].copy_from_slice(&HEAD);
            file.set_len(0)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
        }
        let numbers = bytes[HEAD.len()..].as_chunks::<8>().0;
        let buckets = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Ok(Opened { file: Self(file), buckets, is_new: !is_ours })
    }
}

impl Journal for Invalidations {
    fn invalidated(&self, bucket: usize, at: u64) {
        if let Err(error) = self.0.write_all_at(&at.to_le_bytes(), (HEAD.len() + bucket * 8) as u64) {
            tracing::error!(%error, "an invalidation is not kept beyond this process");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::ledger::{Gone, Ledger, Verdict};
    use crate::purge::selector::Naming;
    use crate::purge::selector::Selectors;

    #[test]
    fn an_invalidation_is_known_to_the_next_process() {
        let directory = std::env::temp_dir().join(format!("littoral-invalidations-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let ledger = || {
            let Opened { file, buckets, is_new } = Invalidations::open(&directory, BUCKETS).expect("usable");
            (Ledger::restored(0, Naming::new([3; 32]), buckets, Box::new(file)), is_new)
        };
        let (before, is_new) = ledger();
        let began = before.applied();
        let url = |url| Selectors { url, ..Selectors::default() };
        before.invalidate(77);
        let after_it = before.applied();
        assert!(is_new);
        let (after, is_new) = ledger();
        assert!(!is_new);
        assert_eq!(after.applied(), after_it);
        assert_eq!(after.judge(&url(77), began).verdict, Verdict::Gone(Gone::Invalidated));
        assert_eq!(after.judge(&url(78), began).verdict, Verdict::Live);
        assert_eq!(after.judge(&url(77), after_it).verdict, Verdict::Live);
        std::fs::write(directory.join(FILE), b"cut").expect("writable");
        assert!(ledger().1);
        std::fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn there_are_as_many_buckets_as_frames_within_bounds() {
        assert_eq!([0, 1 << 16, (1 << 16) + 1, u64::MAX >> 1].map(buckets_for), [1 << 16, 1 << 16, 1 << 17, 1 << 22]);
    }
}
