//! All disks of a node: which of them a frame belongs to, and what they hold together.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::clearing::Keep;
use super::device::{Disk, Loaded};
use super::frame::{FrameKey, Kind};
use super::value::Payload;
use crate::store::budget::Reservation;
use crate::telemetry::metrics::DiskLevels;

/// The disks of a node. None at all is a number like any other.
#[derive(Default)]
pub struct Disks(Vec<Arc<Disk>>);

impl Disks {
    pub fn new(disks: Vec<Arc<Disk>>) -> Self {
        Self(disks)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn all(&self) -> &[Arc<Disk>] {
        &self.0
    }

    /// The disk of everything that stands under a key: the same as long as no disk comes or goes, and then only what was
    /// on that one moves (rendezvous hashing, weighted by size).
    pub fn disk_of(&self, key: &FrameKey) -> Option<&Arc<Disk>> {
        if let [only] = self.0.as_slice() {
            return Some(only).filter(|disk| !disk.is_out());
        }
        let score = |disk: &Arc<Disk>| {
            let mixed = (key.key.low_u64() ^ disk.seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // In (0, 1], so that the logarithm is no more than zero.
            let uniform = ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64;
            -(disk.bytes as f64) / uniform.ln()
        };
        let usable = self.0.iter().filter(|disk| !disk.is_out());
        usable.max_by(|one, other| score(one).total_cmp(&score(other)))
    }

    /// Whether a frame seems to be there.
    pub fn contains(&self, key: &FrameKey) -> bool {
        self.disk_of(key).is_some_and(|disk| disk.contains(key))
    }

    /// Whether a disk may hold an earlier frame of a key, for all that is known: not all of it may be known yet.
    pub fn may_hold(&self, key: &FrameKey) -> bool {
        self.disk_of(key).is_some_and(|disk| !disk.is_recovered() || disk.contains(key))
    }

    pub async fn load(&self, key: &FrameKey) -> Option<Loaded> {
        self.disk_of(key)?.load(key).await
    }

    pub fn put(
        &self,
        key: FrameKey,
        kind: Kind,
        site: u32,
        payload: Payload,
        room: Reservation,
    ) -> Option<oneshot::Receiver<bool>> {
        self.disk_of(&key)?.put(key, kind, site, payload, room)
    }

    pub fn remove(&self, key: &FrameKey) {
        self.0.iter().for_each(|disk| disk.remove(key));
    }

    /// Whether what is written for a key takes the place of something else.
    pub fn is_full(&self, key: &FrameKey) -> bool {
        self.disk_of(key).is_some_and(|disk| disk.is_full())
    }

    /// Whether a disk is there for a key.
    pub fn takes(&self, key: &FrameKey) -> bool {
        self.disk_of(key).is_some_and(|disk| disk.log().is_some())
    }

    /// The largest body that is kept: an eighth of the smallest disk.
    pub fn object_bytes_max(&self) -> u64 {
        self.0.iter().filter(|disk| !disk.is_out()).map(|disk| disk.bytes / 8).min().unwrap_or(0)
    }

    pub fn levels(&self) -> Option<DiskLevels> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.0.is_empty() {
            return None;
        }
        let mut levels = DiskLevels::default();
        for log in self.0.iter().filter_map(|disk| disk.log()) {
            levels.bytes += log.used_bytes();
            levels.objects += log.index.records();
            levels.written_bytes += log.counts.written_bytes.load(Relaxed);
            levels.evicted += log.counts.evicted.load(Relaxed);
            levels.damaged += log.counts.damaged.load(Relaxed);
        }
        Some(levels)
    }

    /// Lets another process have them.
    pub fn release(&self) {
        self.0.iter().for_each(|disk| disk.release());
    }

    /// Opens them anew in the background.
    pub fn reopen(&self, run: u64) {
        self.0.iter().for_each(|disk| disk.reopen(run));
    }

    /// Writes what is queued.
    pub fn close(&self) {
        self.0.iter().for_each(|disk| disk.close());
    }
}

/// What part of a disk each site may keep while another has more than its part. By [`site_number`].
#[derive(Default)]
pub struct Shares(ArcSwap<HashMap<u32, f64>>);

impl Shares {
    /// `stated` in percent; sites without share what is left in equal parts.
    pub fn set<'a>(&self, sites: impl Iterator<Item = (&'a str, Option<u8>)> + Clone) {
        let stated: f64 = sites.clone().filter_map(|(_, share)| share).map(|share| f64::from(share) / 100.0).sum();
        let others = sites.clone().filter(|(_, share)| share.is_none()).count();
        // Together no more than the whole.
        let scale = if stated > 1.0 { 1.0 / stated } else { 1.0 };
        let rest = (1.0 - stated).max(0.0) / (others.max(1) as f64);
        let share = |share: Option<u8>| share.map_or(rest, |share| f64::from(share) / 100.0 * scale);
        self.0.store(Arc::new(sites.map(|(name, stated)| (site_number(name), share(stated))).collect()));
    }

    /// Of a site that is no more, nothing is kept. What is of no site takes no part.
    pub fn of(&self, site: u32) -> f64 {
        if site == NO_SITE {
            return 1.0;
        }
        self.0.load().get(&site).copied().unwrap_or(0.0)
    }
}

/// What leads from one key to another is of no site.
pub const NO_SITE: u32 = 0;

/// The number of a site on disks: the same in every run.
pub fn site_number(name: &str) -> u32 {
    (twox_hash::XxHash3_64::oneshot(name.as_bytes()) as u32).max(NO_SITE + 1)
}

/// What decides over frames whose place is needed.
pub struct Keeping<F> {
    /// Whether something stands in memory.
    pub holds: F,
    pub shares: Arc<Shares>,
}

impl<F: Fn(u64) -> bool + Send + Sync> Keep for Keeping<F> {
    fn is_wanted(&self, hash: u64) -> bool {
        (self.holds)(hash)
    }

    fn share(&self, site: u32) -> f64 {
        self.shares.of(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_was_said_and_equal_parts_of_the_rest() {
        let shares = Shares::default();
        for (sites, want) in [
            (&[("a", None), ("b", None)][..], &[0.5, 0.5][..]),
            (&[("a", Some(60)), ("b", None), ("c", None)], &[0.6, 0.2, 0.2]),
            (&[("a", Some(100)), ("b", Some(100))], &[0.5, 0.5]),
            (&[("a", Some(100)), ("b", None)], &[1.0, 0.0]),
        ] {
            shares.set(sites.iter().copied());
            let got: Vec<f64> = sites.iter().map(|(name, _)| shares.of(site_number(name))).collect();
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-9), "{got:?}");
            assert_eq!(shares.of(site_number("gone")), 0.0);
        }
    }
}
