//! The access log: one JSON object a line.
//!
//! A record is formatted where its request was served, into a buffer that threads seldom share, and written by one
//! thread of its own. Recording never waits for the target: what does not fit is dropped and counted. Records of
//! different threads can be out of order by as much as `WAKE_EVERY`; their `ts` says when they were.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use edge_config::section::telemetry::AccessLog as Target;
use parking_lot::Mutex;

use super::thread_index;
use crate::clock;
use crate::semantics::http_date;
use crate::semantics::time::UnixMs;
use crate::telemetry::metrics::Metrics;

/// Buffers for threads to share: twice as many as most nodes have workers.
const SHARDS: usize = 16;
/// What a buffer holds at most: some 3,000 records, a tenth of a second of one busy worker. 16 MiB in all, and 1 MiB
/// more in the writer's hands.
const SHARD_BYTES_MAX: usize = 1 << 20;
/// A buffer with this much is written without waiting for [`WAKE_EVERY`].
const WAKE_BYTES: usize = 64 << 10;
const _: () = assert!(WAKE_BYTES * 8 <= SHARD_BYTES_MAX, "there is room while the writer wakes up");
const WAKE_EVERY: Duration = Duration::from_millis(100);
const WARN_EVERY: Duration = Duration::from_secs(60);
/// How long the end of the node waits for a target that takes nothing.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What is said of one request. What is absent or empty is left out.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub ts: UnixMs,
    pub site: &'a str,
    pub client: Option<IpAddr>,
    /// Where that is, if there is a database that knows it.
    pub country: Option<&'a str>,
    pub method: &'a str,
    pub host: &'a [u8],
    /// Path and query, as the client sent them.
    pub target: &'a [u8],
    pub status: u16,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    pub cache: &'a str,
    pub reason: Option<&'a str>,
    pub key: Option<u128>,
    /// Seconds of freshness that are left; negative when stale.
    pub ttl: Option<i64>,
    /// Seconds.
    pub age: Option<u64>,
    pub ttfb_us: Option<u64>,
    pub total_us: u64,
    /// The group of origins, where it is not the site's own.
    pub group: &'a str,
    pub origin: Option<&'a str>,
    pub retries: u32,
    pub proto: &'a str,
    /// The version of TLS.
    pub tls: Option<&'a str>,
    pub trace_id: Option<&'a str>,
    pub tier: Option<&'a str>,
}

impl Record<'_> {
    /// Appends the record as one JSON object, without the end of the line.
    ///
    /// Whatever a client sent, the line is valid JSON in ASCII: a byte that is not is read as the character of its
    /// number (ISO 8859-1).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"ts\":\"");
        timestamp(self.ts, out);
        out.push(b'"');
        text(b",\"site\":\"", self.site.as_bytes(), out);
        if let Some(client) = self.client {
            out.extend_from_slice(b",\"client\":\"");
            address(client, out);
            out.push(b'"');
        }
        token(b",\"country\":\"", self.country, out);
        token(b",\"method\":\"", Some(self.method), out);
        text(b",\"host\":\"", self.host, out);
        let query = memchr::memchr(b'?', self.target).and_then(|at| self.target.split_at_checked(at));
        let (path, query) = query.unwrap_or((self.target, b""));
        text(b",\"path\":\"", path, out);
        text(b",\"query\":\"", query.strip_prefix(b"?").unwrap_or_default(), out);
        number(b",\"status\":", self.status, out);
        number(b",\"bytes\":", self.bytes, out);
        token(b",\"cache\":\"", Some(self.cache), out);
        token(b",\"reason\":\"", self.reason, out);
        if let Some(key) = self.key {
            out.extend_from_slice(b",\"key\":\"");
            let mut digits = [[0; 2]; 16];
            for (pair, byte) in digits.iter_mut().zip(key.to_be_bytes()) {
                *pair = HEX_PAIRS[usize::from(byte)];
            }
            out.extend_from_slice(digits.as_flattened());
            out.push(b'"');
        }
        optional_number(b",\"ttl\":", self.ttl, out);
        optional_number(b",\"age\":", self.age, out);
        token(b",\"tier\":\"", self.tier, out);
        text(b",\"group\":\"", self.group.as_bytes(), out);
        text(b",\"origin\":\"", self.origin.unwrap_or_default().as_bytes(), out);
        optional_number(b",\"ttfb_us\":", self.ttfb_us, out);
        number(b",\"total_us\":", self.total_us, out);
        number(b",\"retries\":", self.retries, out);
        token(b",\"proto\":\"", Some(self.proto), out);
        token(b",\"tls\":\"", self.tls, out);
        text(b",\"trace_id\":\"", self.trace_id.unwrap_or_default().as_bytes(), out);
        out.push(b'}');
    }
}

/// Where records go. Dropping it closes it.
pub struct AccessLog {
    writing: Option<Writing>,
    metrics: Arc<Metrics>,
}

/// What the threads that record and the thread that writes share.
struct Buffers {
    shards: [Shard; SHARDS],
    closing: AtomicBool,
    reopen: AtomicBool,
}

/// A buffer on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Vec<u8>>);

struct Writing {
    buffers: Arc<Buffers>,
    writer: Thread,
    /// Disconnected when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or no thread can be started.
    pub fn open(target: &Target, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        match target {
            Target::Off => Ok(Arc::new(Self { writing: None, metrics })),
            Target::Stdout => Self::start(Box::new(io::stdout()), None, metrics),
            Target::File(path) => Self::start(Box::new(append_to(path)?), Some(path.clone()), metrics),
        }
    }

    fn start(out: Box<dyn Write + Send>, path: Option<PathBuf>, metrics: Arc<Metrics>) -> io::Result<Arc<Self>> {
        let buffers = Arc::new(Buffers {
            shards: Default::default(),
            closing: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let (ending, ended) = sync_channel(0);
        let sink = Sink { out, path, metrics: metrics.clone(), torn: false, warned: None };
        let shared = buffers.clone();
        let thread =
            thread::Builder::new().name("access-log".into()).spawn(move || write_all(&shared, sink, ending))?;
        let writing = Writing { buffers, writer: thread.thread().clone(), ended: Mutex::new(ended) };
        Ok(Arc::new(Self { writing: Some(writing), metrics }))
    }

    /// Whether records go nowhere, so that none need be made.
    pub fn is_off(&self) -> bool {
        self.writing.is_none()
    }

    /// Records a request. Never waits for the target.
    pub fn record(&self, record: &Record<'_>) {
        let Some(Writing { buffers, writer, .. }) = &self.writing else { return };
        let Some(Shard(shard)) = buffers.shards.get(thread_index() % SHARDS) else { return };
        let mut shard = shard.lock();
        let before = shard.len();
        // Under the lock: whoever sees the log open here is heard by the writer's last round.
        let closed = buffers.closing.load(Ordering::Acquire);
        if !closed && before < SHARD_BYTES_MAX {
            record.write_json(&mut shard);
            shard.push(b'\n');
        }
        let after = shard.len();
        if after == before || after > SHARD_BYTES_MAX {
            shard.truncate(before);
            self.metrics.access_log_dropped.inc();
            return;
        }
        drop(shard);
        if before < WAKE_BYTES && after >= WAKE_BYTES {
            writer.unpark();
        }
    }

    /// Opens the file anew, after a rotation. A file that cannot be opened leaves the old one in use.
    pub fn reopen(&self) {
        if let Some(Writing { buffers, writer, .. }) = &self.writing {
            buffers.reopen.store(true, Ordering::Release);
            writer.unpark();
        }
    }

    /// Writes what is left and ends the writer; waits for that, but not for ever. Later records are dropped.
    pub fn close(&self) {
        if let Some(Writing { buffers, writer, ended }) = &self.writing {
            buffers.closing.store(true, Ordering::Release);
            writer.unpark();
            if ended.lock().recv_timeout(CLOSE_MAX) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("the access log's target takes nothing; the last records are lost");
            }
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where the writer writes.
struct Sink {
    out: Box<dyn Write + Send>,
    /// What is opened on a rotation.
    path: Option<PathBuf>,
    metrics: Arc<Metrics>,
    /// The last write ended within a line.
    torn: bool,
    warned: Option<Instant>,
}

/// The writer's life. `_ending` tells by its drop that it is over.
fn write_all(buffers: &Buffers, mut sink: Sink, _ending: SyncSender<()>) {
    let mut lines = Vec::new();
    loop {
        let last_round = buffers.closing.load(Ordering::Acquire);
        if buffers.reopen.swap(false, Ordering::AcqRel) {
            sink.reopen();
        }
        for Shard(shard) in &buffers.shards {
            if !take(&mut shard.lock(), &mut lines) {
                continue;
            }
            sink.write(&lines);
            lines.clear();
        }
        if last_round {
            return;
        }
        thread::park_timeout(WAKE_EVERY);
    }
}

/// Swaps a buffer for an empty one, and tells whether there was anything in it. An idle one gives its memory back.
fn take(shard: &mut Vec<u8>, lines: &mut Vec<u8>) -> bool {
    let filled = !shard.is_empty();
    if filled {
        std::mem::swap(shard, lines);
    } else {
        *shard = Vec::new();
    }
    filled
}

impl Sink {
    /// Writes whole lines; those that the target does not take are counted as dropped.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut rest = lines;
        let result = self.end_torn_line().and_then(|()| self.write_some(&mut rest)).and_then(|()| self.out.flush());
        if let Err(error) = result {
            let written = lines.len() - rest.len();
            self.torn |= lines.get(..written).is_some_and(|written| !written.is_empty() && !written.ends_with(b"\n"));
            let lost = memchr::memchr_iter(b'\n', rest).count();
            self.metrics.access_log_dropped.inc_by(lost as u64);
            self.warn("write", &error);
        }
    }

    /// Writes from the front of `rest`, which keeps what was not written.
    fn write_some(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// After a line that was cut off the next one still begins a line.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.torn {
            self.out.write_all(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        match self.path.as_deref().map(append_to) {
            Some(Ok(file)) => (self.out, self.torn) = (Box::new(file), false),
            Some(Err(error)) => self.warn("reopen", &error),
            None => {}
        }
    }

    fn warn(&mut self, what: &'static str, error: &io::Error) {
        let now = clock::monotonic();
        if self.warned.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
            self.warned = Some(now);
            let dropped = self.metrics.access_log_dropped.get();
            tracing::warn!(%error, dropped, path = ?self.path, what, "the access log cannot be written");
        }
    }
}

/// Opens for appending. Client addresses are personal: others than owner and group do not read them.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// Appends an instant in UTC, as RFC 3339 has it: `1994-11-06T08:49:37.123Z`.
fn timestamp(at: UnixMs, out: &mut Vec<u8>) {
    // Seconds are written once a second; the first is none that a clock shows.
    thread_local!(static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) });
    let (cached, mut second) = SECOND.get();
    if cached != at.seconds() {
        second = format_second(at);
        SECOND.set((at.seconds(), second));
    }
    let ms = at.0 % 1000;
    out.extend_from_slice(&second);
    out.extend([b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
}

/// `1994-11-06T08:49:37`, put together from `Sun, 06 Nov 1994 08:49:37 GMT`.
fn format_second(at: UnixMs) -> [u8; 19] {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut date = Vec::with_capacity(29);
    http_date::write(at, &mut date);
    let part = |from: usize, length: usize| date.get(from..from + length).unwrap_or_default();
    let month = 1 + MONTHS.chunks(3).position(|name| name == part(8, 3)).unwrap_or_default() as u64;
    let mut second = [0; 19];
    let parts = [part(12, 4), b"-", &[digit(month / 10), digit(month)], b"-", part(5, 2), b"T", part(17, 8)];
    for (to, from) in second.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    second
}

fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// The digits of each byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [hex(byte as u8 >> 4), hex(byte as u8)];
        byte += 1;
    }
    pairs
};

const fn hex(nibble: u8) -> u8 {
    let nibble = nibble & 0xf;
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            number(b"", first, out);
            rest.into_iter().for_each(|octet| number(b".", octet, out));
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("a Vec takes everything"),
    }
}

// Names are arrays and these are inlined, so that a name is a few moves and not a call.

#[inline(always)]
fn number<const N: usize>(name: &[u8; N], number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[inline(always)]
fn optional_number<const N: usize>(name: &[u8; N], value: Option<impl itoa::Integer>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        number(name, value, out);
    }
}

/// Appends `name` and a word that needs no escaping: one of our own, or a token (RFC 9110 section 5.6.2).
#[inline(always)]
fn token<const N: usize>(name: &[u8; N], value: Option<&str>, out: &mut Vec<u8>) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return };
    debug_assert!(value.bytes().all(is_plain), "{value}");
    out.extend_from_slice(name);
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

/// Appends `name` and a string, or nothing when it is empty.
#[inline(always)]
fn text<const N: usize>(name: &[u8; N], value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(name);
    // Nearly always: nothing to escape, seen without a branch for each byte.
    if value.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(value);
        out.push(b'"');
    } else {
        escaped(value, out);
    }
}

#[cold]
fn escaped(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&byte| !is_plain(byte)) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = from.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            _ => out.extend([b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Whether a byte stands for itself in a JSON string, in any encoding and on any terminal.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests;
