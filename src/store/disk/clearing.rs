//! Which frames go when their segment is needed, and which are appended again.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

use super::frame::Kind;
use super::log::{Frame, Item, Writer};
use super::media::Media;
#[cfg(test)]
use super::model::{Planted, is_planted};

/// What of a cleared segment may be appended again: writing always gains on it.
const KEEP_SHARE: u64 = 2;

/// What decides over frames whose segment is needed.
pub trait Keep: Send + Sync {
    /// It is wanted apart from what the disk knows: it stands in memory.
    fn is_wanted(&self, hash: u64) -> bool;

    /// What part of the disk a site may keep while another has more than its part.
    fn share(&self, site: u32) -> f64;
}

impl<K: Keep + ?Sized> Keep for std::sync::Arc<K> {
    fn is_wanted(&self, hash: u64) -> bool {
        K::is_wanted(self, hash)
    }

    fn share(&self, site: u32) -> f64 {
        K::share(self, site)
    }
}

impl<M: Media> Writer<M> {
    /// Frees the oldest segment for the next turn. What is worth it is appended again.
    pub(super) fn clear_oldest(&mut self) -> io::Result<()> {
        let (victim, epoch) = {
            let segments = self.log.segments.lock();
            oldest(&segments.epochs, self.segment)
        };
        if epoch == 0 {
            return Ok(());
        }
        self.log.set_full();
        let crowded = self.crowded();
        let mut kept_bytes = 0;
        // Where a site has too much, the next segments have enough to give.
        let keep_max = self.log.geometry.segment_bytes / if crowded.is_some() { 1 } else { KEEP_SHARE };
        let mut standing = self.log.index.in_segment(victim);
        standing.sort_unstable_by_key(|(_, location)| location.offset());
        let full = !self.log.has_room();
        for (hash, location) in standing {
            let room = !full && kept_bytes + location.bytes() as u64 <= keep_max;
            let wanted = location.is_hot() || (location.kind() != Some(Kind::Chunk) && self.keep.is_wanted(hash));
            if room && (wanted || crowded.is_some()) {
                let frame = self.log.read(hash).ok().flatten();
                // A site with more than its part gives way first, wanted or not.
                let is_crowded = |site| crowded.as_ref().is_some_and(|sites| sites.contains(&site));
                // Appended again, a doubtful one would be trusted. A chunk is of one body, however old.
                let is_certain = |frame: &Frame| !frame.doubtful || frame.head.kind == Kind::Chunk;
                if let Some(frame) = frame.filter(|frame| !is_crowded(frame.head.site) && is_certain(frame)) {
                    let item = Item {
                        key: frame.head.key,
                        kind: frame.head.kind,
                        site: frame.head.site,
                        pieces: vec![&frame.payload],
                    };
                    if !self.fits(std::slice::from_ref(&item)) {
                        self.log.index.remove_at(hash, location);
                        continue;
                    }
                    self.write(&[item], Some(location))?;
                    kept_bytes += location.bytes() as u64;
                    self.log.counts.kept.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            self.log.index.remove_at(hash, location);
            self.log.counts.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let mut segments = self.log.segments.lock();
        segments.sites[victim as usize].clear();
        segments.epochs[victim as usize] = 0;
        self.log.is_read(&mut segments, victim);
        Ok(())
    }

    /// The sites that have more than their part, if any has.
    fn crowded(&self) -> Option<Vec<u32>> {
        let mut all: HashMap<u32, u64> = HashMap::new();
        for (site, bytes) in self.log.segments.lock().sites.iter().flatten() {
            *all.entry(*site).or_default() += bytes;
        }
        if all.len() < 2 {
            return None;
        }
        let whole = self.log.geometry.bytes() as f64;
        let too_much = |(site, bytes): &(u32, u64)| *bytes as f64 > self.keep.share(*site) * whole;
        let sites: Vec<u32> = all.into_iter().filter(too_much).map(|(site, _)| site).collect();
        (!sites.is_empty()).then_some(sites)
    }

    pub(super) fn forget(&self, segment: u32) {
        for (hash, location) in self.log.index.in_segment(segment) {
            self.log.index.remove_at(hash, location);
        }
    }
}

/// The segment that is cleared next, and its epoch; never the current one.
pub(super) fn oldest(epochs: &[u64], current: u32) -> (u32, u64) {
    let others = (0u32..).zip(epochs).filter(|(segment, _)| *segment != current);
    #[cfg(test)]
    if is_planted(Planted::NewestCleared) && epochs.iter().filter(|epoch| **epoch == 0).count() == 0 {
        return others.max_by_key(|(_, epoch)| **epoch).map_or((current, 0), |(segment, epoch)| (segment, *epoch));
    }
    others.min_by_key(|(_, epoch)| **epoch).map_or((current, 0), |(segment, epoch)| (segment, *epoch))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::disk::frame::FrameKey;
    use crate::store::disk::log::{Geometry, Log};
    use crate::store::disk::model::disk_without_faults;
    use crate::store::disk::recovery;
    use crate::store::key::CacheKey;

    /// Shares of two sites; nothing stands in memory.
    struct Shares;

    impl Keep for Shares {
        fn is_wanted(&self, _: u64) -> bool {
            false
        }

        fn share(&self, _: u32) -> f64 {
            0.5
        }
    }

    #[test]
    fn one_site_cannot_displace_another_below_its_share() {
        let geometry = Geometry { segment_bytes: 256 << 10, segments: 8 };
        let log = Arc::new(Log::new(disk_without_faults(geometry.bytes()), geometry));
        let resume = recovery::resume(&log, None, false).expect("an empty disk");
        let mut writer = Writer::new(log.clone(), Box::new(Shares), resume, 1 << 20);
        let key = |site: u8, n: u32| {
            let mut key = [site; 16];
            key[..4].copy_from_slice(&n.to_le_bytes());
            FrameKey::of(CacheKey::from_bytes(key))
        };
        let payload = vec![7; 4000];
        let mut append = |site: u8, n: u32| {
            let item = Item { key: key(site, n), kind: Kind::Record, site: u32::from(site), pieces: vec![&payload] };
            writer.append(&[item]).expect("a sound disk");
        };
        // A fifth of the disk, and never read; then ten times the disk of the other site, half of it read at once.
        (0..100).for_each(|n| append(1, n));
        for n in 0..5_000 {
            append(2, n);
            if n % 2 == 0 {
                assert!(log.read(key(2, n).hash()).is_ok_and(|frame| frame.is_some()));
            }
        }
        assert_eq!((0..100).filter(|n| log.is_known(key(1, *n).hash())).count(), 100);
        let others = (0..5_000).filter(|n| log.is_known(key(2, *n).hash())).count();
        assert!((200..400).contains(&others), "{others}");
        assert!(log.used_bytes() <= geometry.bytes());
    }
}
