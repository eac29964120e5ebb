//! A log of immutable frames in segments: what a disk is used as. One writer, any number of readers.
//!
//! Frames are appended to the current segment. When it is full its table is written, the oldest segment is cleared, and
//! writing goes on in the one that was cleared before: one is always free, so that what is worth keeping of the oldest can
//! be appended again without being held in memory. Nothing is changed in place, and nothing that is read is trusted: a frame
//! counts if its checksums are right and it is the one that was asked for.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::clearing::{Keep, oldest};
use super::frame::{
    FrameHead, FrameKey, HEAD, Kind, PAYLOAD_MAX, Row, checksum, checksum_of, frame_bytes, table_bytes,
    write_segment_head, write_table,
};
use super::index::{Index, Location};
use super::media::Media;
#[cfg(test)]
use super::model::{Planted, is_planted};

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub segment_bytes: u64,
    pub segments: u32,
}

impl Geometry {
    fn at(self, segment: u32, offset: u64) -> u64 {
        u64::from(segment) * self.segment_bytes + offset
    }

    pub fn bytes(self) -> u64 {
        self.at(self.segments, 0)
    }
}

/// A frame as it was read, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: FrameHead,
    pub payload: Vec<u8>,
    /// A later frame of the same key may have been lost with what was damaged.
    pub doubtful: bool,
}

/// What was found where a frame is said to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    Frame(Frame),
    /// It is not there, or not any more.
    Nothing,
    /// It was not what was written, and is forgotten.
    Damaged,
}

impl Looked {
    /// The frame, which counts as wanted from now on.
    fn wanted<M>(self, log: &Log<M>, hash: u64, location: Location) -> Option<Frame> {
        let Self::Frame(frame) = self else { return None };
        log.index.touch(hash, location);
        Some(frame)
    }
}

/// A frame to be appended.
pub struct Item<'a> {
    pub key: FrameKey,
    pub kind: Kind,
    pub site: u32,
    pub pieces: Vec<&'a [u8]>,
}

impl Item<'_> {
    pub fn payload_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }
}

/// What has happened on a disk.
#[derive(Debug, Default)]
pub struct Counts {
    pub written_bytes: AtomicU64,
    /// Frames appended again because they were wanted.
    pub kept: AtomicU64,
    /// Frames forgotten because their segment was needed.
    pub evicted: AtomicU64,
    /// Frames that were not what was written.
    pub damaged: AtomicU64,
    /// Bytes of payloads that wait to be written now.
    pub queued_bytes: AtomicU64,
}

/// One disk's frames, as readers and the writer share them.
pub struct Log<M> {
    pub(super) media: M,
    pub(super) geometry: Geometry,
    pub index: Index,
    pub counts: Counts,
    pub(super) segments: Mutex<Segments>,
    /// Frames of this epoch and before may be older than what was lost with a damaged segment.
    doubt: AtomicU64,
    /// Every segment has been used: what is written now takes the place of something.
    full: AtomicBool,
    /// Frames the index may know.
    entries_max: AtomicU64,
}

/// What is known of each segment.
pub(super) struct Segments {
    /// Zero: never used, or cleared.
    pub(super) epochs: Vec<u64>,
    /// Bytes of each site in each segment.
    pub(super) sites: Vec<HashMap<u32, u64>>,
    /// Used before this start, and not in the index yet.
    pub(super) unread: Vec<u32>,
    /// There is no room for what is older than what the index knows.
    pub(super) no_older: bool,
}

impl<M: Media> Log<M> {
    pub fn new(media: M, geometry: Geometry) -> Self {
        let count = geometry.segments as usize;
        Self {
            media,
            geometry,
            index: Index::default(),
            counts: Counts::default(),
            segments: Mutex::new(Segments {
                epochs: vec![0; count],
                sites: vec![HashMap::new(); count],
                unread: Vec::new(),
                no_older: false,
            }),
            doubt: AtomicU64::new(0),
            full: AtomicBool::new(false),
            entries_max: AtomicU64::new(u64::MAX),
        }
    }

    /// Frames of `epoch` and before are to be looked at with suspicion. What is begun from now on has a later epoch, and
    /// says so to those that start after this one.
    ///
    /// After a loss of power this has to be an epoch no segment has had, the lost ones among them: the milliseconds since
    /// 1970, or the newest that is found if that is more.
    pub fn distrust(&self, epoch: u64) {
        #[cfg(test)]
        if is_planted(Planted::DoubtForgotten) {
            return;
        }
        self.doubt.fetch_max(epoch, Ordering::AcqRel);
    }

    pub fn distrusted(&self) -> u64 {
        self.doubt.load(Ordering::Acquire)
    }

    /// What is written now takes the place of something else.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    pub fn is_known(&self, hash: u64) -> bool {
        self.index.get(hash).is_some()
    }

    /// Bytes of live and superseded frames.
    pub fn used_bytes(&self) -> u64 {
        self.segments.lock().sites.iter().flat_map(HashMap::values).sum()
    }

    /// Reads the frame of a number. None: there is none, or it is not what was written, and forgotten.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self, hash: u64) -> io::Result<Option<Frame>> {
        let Some(location) = self.index.get(hash) else { return Ok(None) };
        Ok(self.read_at(hash, location)?.wanted(self, hash, location))
    }

    /// The same for who only looks: the frame does not count as wanted, and it is told from one that is damaged.
    ///
    /// # Errors
    /// The disk failed.
    pub fn look(&self, hash: u64) -> io::Result<Looked> {
        self.index.get(hash).map_or(Ok(Looked::Nothing), |location| self.read_at(hash, location))
    }

    fn read_at(&self, hash: u64, location: Location) -> io::Result<Looked> {
        let mut head = [0; HEAD];
        let mut rest = vec![0; location.bytes().saturating_sub(HEAD)];
        let offset = self.geometry.at(location.segment(), u64::from(location.offset()));
        self.media.read(&mut head, offset)?;
        self.media.read(&mut rest, offset + HEAD as u64)?;
        Ok(self.checked(hash, location, &head, rest))
    }

    /// The same if the disk has not to be waited for; otherwise `Err(())`.
    ///
    /// # Errors
    /// It has to be waited for, or failed.
    #[expect(clippy::result_unit_err, reason = "whoever asks goes on with `read`, whatever it was")]
    pub fn read_at_once(&self, hash: u64) -> Result<Option<Frame>, ()> {
        let Some(location) = self.index.get(hash) else { return Ok(None) };
        let mut head = [0; HEAD];
        let mut rest = vec![0; location.bytes().saturating_sub(HEAD)];
        let offset = self.geometry.at(location.segment(), u64::from(location.offset()));
        match self.media.read_at_once(&mut [&mut head, &mut rest], offset) {
            Ok(true) => Ok(self.checked(hash, location, &head, rest).wanted(self, hash, location)),
            Ok(false) | Err(_) => Err(()),
        }
    }

    fn checked(&self, hash: u64, location: Location, head: &[u8; HEAD], mut payload: Vec<u8>) -> Looked {
        let head = FrameHead::read(head).filter(|head| {
            let length = head.length as usize;
            payload.truncate(length);
            frame_bytes(length) == location.bytes()
                && head.key.hash() == hash
                && payload.len() == length
                && is_sound(&payload, head.checksum)
        });
        let Some(head) = head else {
            // Overwritten since it was looked up, and then the index knows that, or damaged: either way it is no more.
            if !self.index.remove_at(hash, location) {
                return Looked::Nothing;
            }
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
            return Looked::Damaged;
        };
        Looked::Frame(Frame { head, payload, doubtful: head.epoch <= self.distrusted() })
    }

    pub(super) fn set_full(&self) {
        self.full.store(true, Ordering::Release);
    }

    pub(super) fn has_room(&self) -> bool {
        self.index.len() < self.entries_max.load(Ordering::Relaxed)
    }

    /// Nothing more comes from a segment that was there at the start.
    pub(super) fn is_read(&self, segments: &mut Segments, segment: u32) {
        let before = segments.unread.len();
        segments.unread.retain(|unread| *unread != segment);
        if before > 0 && segments.unread.is_empty() {
            self.index.end_recovery();
        }
    }
}

fn is_sound(payload: &[u8], sum: u64) -> bool {
    #[cfg(test)]
    if is_planted(Planted::ChecksumNotLookedAt) {
        return true;
    }
    checksum(payload) == sum
}

/// The one that appends.
pub struct Writer<M> {
    pub(super) log: Arc<Log<M>>,
    pub(super) keep: Box<dyn Keep>,
    pub(super) segment: u32,
    epoch: u64,
    /// Where the next frame goes. At the end of the segment: a new one has to be begun first.
    offset: u64,
    rows: Vec<Row>,
    /// Frames appended so far, those that were kept apart.
    appended: u64,
}

/// Where a writer goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    pub segment: u32,
    pub epoch: u64,
    pub offset: u64,
    pub rows: Vec<Row>,
}

impl<M: Media> Writer<M> {
    pub fn new(log: Arc<Log<M>>, keep: Box<dyn Keep>, resume: Resume, entries_max: u64) -> Self {
        let Resume { segment, epoch, offset, rows } = resume;
        log.entries_max.store(entries_max, Ordering::Relaxed);
        let more = usize::try_from(log.index.len().saturating_sub(entries_max)).unwrap_or(usize::MAX);
        let mut standing = log.index.in_segment(segment);
        standing.sort_unstable_by_key(|(_, location)| location.offset());
        for (hash, location) in standing.into_iter().take(more) {
            log.index.remove_at(hash, location);
        }
        Self { log, keep, segment, epoch, offset, rows, appended: 0 }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn counts(&self) -> &Counts {
        &self.log.counts
    }

    /// Frames appended so far: what an append that failed has added are the first of its frames.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Appends frames. When this returns they are where a process that starts after this one was killed finds them.
    ///
    /// # Errors
    /// The disk failed: those that had no room in the segment the first of them went to are not found.
    pub fn append(&mut self, items: &[Item<'_>]) -> io::Result<()> {
        let mut left = items;
        while !left.is_empty() {
            let mut rolled = 0;
            while !self.fits(left) || !self.log.has_room() {
                self.roll()?;
                rolled += 1;
                if rolled > self.log.geometry.segments {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            let (mut end, mut count) = (self.offset, 0);
            for item in left {
                let bytes = frame_bytes(item.payload_bytes()) as u64;
                if end + bytes + table_bytes(self.rows.len() + count + 1) as u64 > self.log.geometry.segment_bytes {
                    break;
                }
                end += bytes;
                count += 1;
            }
            let (now, later) = left.split_at(count);
            self.write(now, None)?;
            self.appended += count as u64;
            left = later;
        }
        Ok(())
    }

    /// Whether the first of some items has room in the current segment.
    pub(super) fn fits(&self, items: &[Item<'_>]) -> bool {
        let bytes = items.first().map_or(0, |item| frame_bytes(item.payload_bytes()) as u64);
        self.offset + bytes + table_bytes(self.rows.len() + 1) as u64 <= self.log.geometry.segment_bytes
    }

    /// Writes frames that have room, in one go. One that is `moved` is not known afterwards unless it was until then.
    pub(super) fn write(&mut self, items: &[Item<'_>], moved: Option<Location>) -> io::Result<()> {
        const PADDING: [u8; HEAD] = [0; HEAD];
        let heads: Vec<[u8; HEAD]> = items.iter().map(|item| self.head(item).write()).collect();
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(items.len() * 4);
        let mut places = Vec::with_capacity(items.len());
        let mut at = self.offset;
        for (item, head) in items.iter().zip(&heads) {
            let length = item.payload_bytes();
            if length > PAYLOAD_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let bytes = frame_bytes(length);
            pieces.push(head);
            pieces.extend(item.pieces.iter().copied());
            pieces.push(&PADDING[..bytes - HEAD - length]);
            places.push((at, bytes));
            at += bytes as u64;
        }
        let offset = self.log.geometry.at(self.segment, self.offset);
        if let Err(error) = self.log.media.write(&pieces, offset) {
            // Who knows what is there now: the rest of the segment is left alone.
            self.offset = self.log.geometry.segment_bytes;
            return Err(error);
        }
        self.offset = at;
        let mut sites: HashMap<u32, u64> = HashMap::new();
        for (item, (at, bytes)) in items.iter().zip(places) {
            let hash = item.key.hash();
            let offset = u32::try_from(at).unwrap_or(u32::MAX);
            let location = Location::new(self.segment, offset, bytes, item.kind);
            match moved {
                Some(before) => _ = self.log.index.put_moved(hash, before, location),
                None => self.log.index.put(hash, location),
            }
            let length = u32::try_from(item.payload_bytes()).unwrap_or(u32::MAX);
            self.rows.push(Row { hash, offset, length, site: item.site, kind: item.kind });
            *sites.entry(item.site).or_default() += bytes as u64;
            self.log.counts.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let mut segments = self.log.segments.lock();
        for (site, bytes) in sites {
            *segments.sites[self.segment as usize].entry(site).or_default() += bytes;
        }
        Ok(())
    }

    fn head(&self, item: &Item<'_>) -> FrameHead {
        FrameHead {
            kind: item.kind,
            key: item.key,
            length: u32::try_from(item.payload_bytes()).unwrap_or(u32::MAX),
            epoch: self.epoch,
            site: item.site,
            checksum: match item.pieces.as_slice() {
                [one] => checksum(one),
                many => checksum_of(many.iter().copied()),
            },
        }
    }

    /// Finishes the current segment, goes on in the one that is free, and frees the oldest.
    fn roll(&mut self) -> io::Result<()> {
        let geometry = self.log.geometry;
        // An empty one has a table too, or it would look like one that has lost something.
        if !self.rows.is_empty() || self.offset < geometry.segment_bytes {
            let table = write_table(self.epoch, &self.rows);
            let at = geometry.at(self.segment + 1, 0) - table.len() as u64;
            // Without it the segment is read frame by frame.
            if let Err(error) = self.log.media.write(&[&table], at) {
                tracing::warn!(%error, "the table of a segment is not written");
            }
        }
        self.rows.clear();
        self.offset = geometry.segment_bytes;
        let (free, epoch) = {
            let mut segments = self.log.segments.lock();
            let (oldest, _) = oldest(&segments.epochs, self.segment);
            let latest = segments.epochs.iter().copied().max().unwrap_or(0).max(self.epoch);
            segments.sites[oldest as usize].clear();
            segments.epochs[oldest as usize] = 0;
            self.log.is_read(&mut segments, oldest);
            // An epoch that was lost is not given again: what is left of it would be taken for what is written now.
            (oldest, latest.max(self.log.distrusted()) + 1)
        };
        // Only after a start does anything stand there.
        self.forget(free);
        let head = write_segment_head(epoch, self.log.distrusted());
        self.log.media.write(&[&head], geometry.at(free, 0))?;
        self.log.segments.lock().epochs[free as usize] = epoch;
        (self.segment, self.epoch, self.offset) = (free, epoch, HEAD as u64);
        self.clear_oldest()
    }
}
