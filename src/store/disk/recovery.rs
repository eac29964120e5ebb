//! What a disk holds when a node starts, read from the disk itself.
//!
//! The newest segment is where writing goes on; the others follow, newest first, while the node already serves: the first
//! place found for a frame is the latest. A full segment has a table; one without is read head by head.

use std::io;

use super::frame::{
    ALIGN, FrameHead, HEAD, PAYLOAD_MAX, ROW, Row, TABLE_END, frame_bytes, read_rows, read_segment_head, read_table_end,
};
use super::index::Location;
use super::log::{Log, Resume};
use super::media::Media;
#[cfg(test)]
use super::model::{Planted, is_planted};

/// Read at a time while heads are looked for.
const LOOK_BYTES: usize = 1 << 20;

/// What one segment holds.
#[derive(Debug, Default)]
pub struct Contents {
    pub rows: Vec<Row>,
    /// Where the last frame ends.
    pub end: u64,
    /// It has a table: nothing more is appended.
    pub is_full: bool,
    /// Something between its frames cannot be read.
    pub damaged: bool,
}

/// The segments in use, newest first, and their epochs. What an earlier start distrusted is distrusted again.
///
/// # Errors
/// The disk failed.
pub fn segments<M: Media>(log: &Log<M>) -> io::Result<Vec<(u32, u64)>> {
    let (mut used, mut lost) = (Vec::new(), Vec::new());
    for segment in 0..log.geometry.segments {
        let mut head = [0; HEAD];
        log.media.read(&mut head, u64::from(segment) * log.geometry.segment_bytes)?;
        match read_segment_head(&head) {
            Some((epoch, distrusted)) => {
                log.distrust(distrusted);
                used.push((segment, epoch));
            }
            None if head == [0; HEAD] => {}
            None => lost.push(segment),
        }
    }
    used.sort_unstable_by_key(|(_, epoch)| std::cmp::Reverse(*epoch));
    let newest = used.first().map_or(0, |(_, epoch)| *epoch);
    for segment in lost {
        log.distrust(latest_epoch(log, segment)?.max(newest));
    }
    Ok(used)
}

/// Where writing goes on, given what the newest segment holds. `anew`: not in that segment, whose end is not certain.
///
/// A loss of power has to be remembered, and `anew` said again, until [`Writer::epoch`](super::log::Writer::epoch) is past
/// [`Log::distrusted`]: only then does the disk itself know.
pub fn resume<M: Media>(log: &Log<M>, newest: Option<(u32, u64)>, anew: bool) -> io::Result<Resume> {
    let full = log.geometry.segment_bytes;
    let Some((segment, epoch)) = newest else {
        return Ok(Resume { segment: 0, epoch: 0, offset: full, rows: Vec::new() });
    };
    let contents = read_segment(log, segment, epoch)?;
    enter(log, segment, epoch, &contents.rows);
    if contents.damaged {
        log.distrust(epoch);
    }
    let goes_on = !contents.is_full && !contents.damaged && !anew && epoch > log.distrusted();
    let offset = if goes_on { contents.end } else { full };
    // A segment that is full has its table; of one that is left as it is, the table is written now. One that is damaged
    // never has one, so that it is found to be whenever it is read.
    let rows = if contents.is_full || contents.damaged { Vec::new() } else { contents.rows };
    Ok(Resume { segment, epoch, offset, rows })
}

/// Has the index know what a segment holds, unless that was cleared meanwhile.
///
/// # Errors
/// The disk failed: what is older is distrusted.
pub fn recover<M: Media>(log: &Log<M>, segment: u32, epoch: u64) -> io::Result<()> {
    let contents = read_segment(log, segment, epoch).inspect_err(|_| {
        log.distrust(epoch);
        log.is_read(&mut log.segments.lock(), segment);
    })?;
    if contents.damaged || !contents.is_full {
        // What is missing may have replaced something older.
        log.distrust(epoch);
    }
    enter(log, segment, epoch, &contents.rows);
    Ok(())
}

/// Says which segments are in use, before anything is written.
pub fn claim<M: Media>(log: &Log<M>, used: &[(u32, u64)]) {
    let mut segments = log.segments.lock();
    for (segment, epoch) in used {
        segments.epochs[*segment as usize] = *epoch;
        segments.unread.push(*segment);
    }
    if !used.is_empty() {
        log.index.begin_recovery();
    }
    if segments.epochs.iter().filter(|epoch| **epoch == 0).count() <= 1 {
        log.set_full();
    }
}

fn enter<M: Media>(log: &Log<M>, segment: u32, epoch: u64, rows: &[Row]) {
    // Under the lock: a segment is not cleared while it is entered.
    let mut segments = log.segments.lock();
    if segments.epochs[segment as usize] != epoch {
        return;
    }
    for row in rows.iter().rev() {
        let bytes = frame_bytes(row.length as usize);
        let location = Location::new(segment, row.offset, bytes, row.kind);
        *segments.sites[segment as usize].entry(row.site).or_default() += bytes as u64;
        #[cfg(test)]
        if is_planted(Planted::OlderAccepted) {
            log.index.put(row.hash, location);
            continue;
        }
        // What there is no room for must not be found in an older place either.
        segments.no_older |= !log.has_room();
        if !segments.no_older {
            log.index.put_older(row.hash, location);
        }
    }
    log.is_read(&mut segments, segment);
}

/// What a segment holds: by its table, or head by head.
fn read_segment<M: Media>(log: &Log<M>, segment: u32, epoch: u64) -> io::Result<Contents> {
    let begin = u64::from(segment) * log.geometry.segment_bytes;
    let bytes = log.geometry.segment_bytes;
    let mut end = [0; TABLE_END];
    log.media.read(&mut end, begin + bytes - TABLE_END as u64)?;
    if let Some((count, sum)) = read_table_end(&end, epoch)
        && count as u64 <= bytes / ROW as u64
    {
        let mut table = vec![0; count * ROW];
        log.media.read(&mut table, begin + bytes - (TABLE_END + count * ROW) as u64)?;
        let sound = |row: &Row| {
            let end = u64::from(row.offset) + frame_bytes(row.length as usize) as u64;
            (row.offset as usize).is_multiple_of(ALIGN) && row.length as usize <= PAYLOAD_MAX && end <= bytes
        };
        if let Some(rows) = read_rows(&table, sum).filter(|rows| rows.iter().all(sound)) {
            return Ok(Contents { rows, end: bytes, is_full: true, damaged: false });
        }
    }
    walk(log, begin, epoch)
}

/// Looks for frames head by head. Behind one that is damaged it goes on at the next that is not.
fn walk<M: Media>(log: &Log<M>, begin: u64, epoch: u64) -> io::Result<Contents> {
    let bytes = log.geometry.segment_bytes;
    let mut contents = Contents { end: HEAD as u64, ..Contents::default() };
    let mut window = Window { log, begin, from: 0, bytes: Vec::new() };
    let (mut at, mut gap) = (HEAD as u64, false);
    while at + HEAD as u64 <= bytes {
        let bytes_here = window.head(at)?;
        let head = FrameHead::read(bytes_here).filter(|head| is_of(head, epoch));
        let Some(head) = head else {
            // The last one leaves no gap before another.
            contents.damaged |= at == contents.end && FrameHead::is_broken(bytes_here, epoch);
            gap = true;
            at += ALIGN as u64;
            continue;
        };
        let frame = frame_bytes(head.length as usize) as u64;
        if at + frame > bytes {
            break;
        }
        contents.damaged |= gap;
        gap = false;
        let offset = u32::try_from(at).unwrap_or(u32::MAX);
        contents.rows.push(Row {
            hash: head.key.hash(),
            offset,
            length: head.length,
            site: head.site,
            kind: head.kind,
        });
        at += frame;
        contents.end = at;
    }
    Ok(contents)
}

fn is_of(head: &FrameHead, epoch: u64) -> bool {
    #[cfg(test)]
    if is_planted(Planted::EpochNotCompared) {
        return true;
    }
    head.epoch == epoch
}

/// The latest epoch of any frame in a segment whose own head is lost. Zero: there is none.
fn latest_epoch<M: Media>(log: &Log<M>, segment: u32) -> io::Result<u64> {
    let begin = u64::from(segment) * log.geometry.segment_bytes;
    let mut window = Window { log, begin, from: 0, bytes: Vec::new() };
    let mut latest = 0;
    for at in (HEAD as u64..=log.geometry.segment_bytes - HEAD as u64).step_by(ALIGN) {
        latest = FrameHead::read(window.head(at)?).map_or(latest, |head| latest.max(head.epoch));
    }
    Ok(latest)
}

/// Heads of a segment, read many at a time.
struct Window<'a, M> {
    log: &'a Log<M>,
    begin: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<M: Media> Window<'_, M> {
    fn head(&mut self, at: u64) -> io::Result<&[u8; HEAD]> {
        let is_there = at >= self.from && at + HEAD as u64 <= self.from + self.bytes.len() as u64;
        if !is_there {
            let left = self.log.geometry.segment_bytes - at;
            let bytes = usize::try_from(left).unwrap_or(LOOK_BYTES).min(LOOK_BYTES);
            self.bytes.resize(bytes, 0);
            self.log.media.read(&mut self.bytes, self.begin + at)?;
            self.from = at;
        }
        let from = usize::try_from(at - self.from).unwrap_or(usize::MAX);
        self.bytes.get(from..).and_then(|rest| rest.first_chunk()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
