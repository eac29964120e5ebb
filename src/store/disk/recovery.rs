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

/// The segments in use, newest first, and their epochs.
///
/// # Errors
/// The disk failed.
pub fn segments<M: Media>(log: &Log<M>) -> io::Result<Vec<(u32, u64)>> {
    let mut used = Vec::new();
    for segment in 0..log.geometry.segments {
        let mut head = [0; HEAD];
        log.media.read(&mut head, u64::from(segment) * log.geometry.segment_bytes)?;
        used.extend(read_segment_head(&head).filter(|epoch| *epoch != 0).map(|epoch| (segment, epoch)));
    }
    used.sort_unstable_by_key(|(_, epoch)| std::cmp::Reverse(*epoch));
    Ok(used)
}

/// Where writing goes on, given what the newest segment holds. `anew`: not in that segment, whose end is not certain.
pub fn resume<M: Media>(log: &Log<M>, newest: Option<(u32, u64)>, anew: bool) -> io::Result<Resume> {
    let full = log.geometry.segment_bytes;
    let Some((segment, epoch)) = newest else {
        return Ok(Resume { segment: 0, epoch: 0, offset: full, rows: Vec::new() });
    };
    let contents = read_segment(log, segment, epoch)?;
    enter(log, segment, epoch, &contents.rows);
    let goes_on = !contents.is_full && !contents.damaged && !anew;
    if contents.damaged {
        log.distrust(epoch);
    }
    let offset = if goes_on { contents.end } else { full };
    // A segment that is full has its table; of one that is left as it is, the table is written now.
    let rows = if contents.is_full { Vec::new() } else { contents.rows };
    Ok(Resume { segment, epoch, offset, rows })
}

/// Has the index know what a segment holds, unless that was cleared meanwhile.
///
/// # Errors
/// The disk failed.
pub fn recover<M: Media>(log: &Log<M>, segment: u32, epoch: u64) -> io::Result<()> {
    let contents = read_segment(log, segment, epoch)?;
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
        log.index.put_older(row.hash, Location::new(segment, row.offset, bytes, row.kind));
        *segments.sites[segment as usize].entry(row.site).or_default() += bytes as u64;
    }
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
            row.offset as usize % ALIGN == 0 && row.length as usize <= PAYLOAD_MAX && end <= bytes
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
        let head = FrameHead::read(window.head(at)?).filter(|head| head.epoch == epoch);
        let Some(head) = head else {
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
