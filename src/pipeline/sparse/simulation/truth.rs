//! What an origin has: representations whose every byte follows from URL, version and offset.
//!
//! Two versions share a strong validator, as a careless origin's do; their lengths tell them apart. So validator and
//! length together name one version, and whatever is received can be judged by itself.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use crate::pipeline::simulation::schedule::Rng;
use crate::semantics::fields::Fields;
use crate::semantics::http_date;
use crate::semantics::time::UnixMs;

pub(super) const CHUNK: u64 = CHUNK_BYTES as u64;
/// Where the time of a run begins.
pub(super) const BEGINNING: UnixMs = UnixMs(1_800_000_000_000);
/// Two to five chunks, none of them a multiple.
const LENGTHS: [u64; 5] = [CHUNK + 77_777, 4 * CHUNK + 1, 2 * CHUNK + 3, 3 * CHUNK + 200_001, 5 * CHUNK - 1];
/// More versions than a run gets through.
const VERSIONS: u64 = 64;
/// How far the bytes of two versions are apart in the pool: no divisor of anything.
const APART: u64 = 4_099;

static POOL: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = Rng::of(0);
    (0..5 * CHUNK + APART * VERSIONS * 2).map(|_| rng.below(256) as u8).collect()
});

/// Half of the changes of a validator leave the length as it was; the two versions of one always differ in it.
pub(super) fn length_of(url: usize, version: u64) -> u64 {
    LENGTHS[(url as u64 + version / 4 + version % 2) as usize % LENGTHS.len()]
}

pub(super) fn bytes_of(url: usize, version: u64, range: Range<u64>) -> Bytes {
    let start = (url as u64 * VERSIONS + version % VERSIONS) * APART;
    POOL.slice((start + range.start) as usize..(start + range.end) as usize)
}

/// The strong entity tag of a version.
pub(super) fn tag_of(url: usize, version: u64) -> String {
    format!("\"{url}-{}\"", version / 2)
}

/// The `Last-Modified` of a version.
pub(super) fn date_of(version: u64) -> String {
    let mut date = Vec::new();
    http_date::write(UnixMs(BEGINNING.0 - 100_000_000 + version / 2 * 100_000), &mut date);
    String::from_utf8(date).expect("ASCII")
}

/// What a response has bytes of, by its validator, its length and some of its bytes and where they stand.
pub(super) struct Evidence<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) total: Option<u64>,
    pub(super) parts: Vec<(u64, &'a [u8])>,
}

impl Evidence<'_> {
    /// The versions it can be of.
    pub(super) fn versions(&self, url: usize) -> Result<Vec<u64>, String> {
        let text = |name| self.fields.first(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let (tag, date) = (text("etag"), text("last-modified"));
        let is_named = |version: u64| match (&tag, &date) {
            (Some(tag), _) => tag.trim_start_matches("W/") == tag_of(url, version),
            (None, Some(date)) => *date == date_of(version),
            (None, None) => true,
        };
        let named: Vec<u64> = (0..VERSIONS).filter(|version| is_named(*version)).collect();
        let is_long = |version: &u64| self.total.is_none_or(|total| total == length_of(url, *version));
        let long: Vec<u64> = named.iter().copied().filter(is_long).collect();
        if long.is_empty() {
            return Err(format!("{tag:?} {date:?} of {named:?} is not {:?} long", self.total));
        }
        let has = |version: u64, (at, bytes): &(u64, &[u8])| {
            let end = at + bytes.len() as u64;
            end <= length_of(url, version) && bytes_of(url, version, *at..end) == *bytes
        };
        let right = |version: &u64| self.parts.iter().all(|part| has(*version, part));
        let found: Vec<u64> = long.iter().copied().filter(right).collect();
        if found.is_empty() {
            let parts: Vec<_> = self.parts.iter().map(|part| self.describe(url, part)).collect();
            return Err(format!("bytes that are not of {tag:?} {date:?} {long:?}: {}", parts.join("; ")));
        }
        Ok(found)
    }

    /// Of which versions a part is, chunk by chunk.
    fn describe(&self, url: usize, (at, bytes): &(u64, &[u8])) -> String {
        let is_of = |version: u64, at: u64, bytes: &[u8]| {
            let end = at + bytes.len() as u64;
            end <= length_of(url, version) && bytes_of(url, version, at..end) == *bytes
        };
        let mut said = format!("{} at {at} of {:?}:", bytes.len(), self.total);
        let (mut at, mut rest) = (*at, *bytes);
        while !rest.is_empty() {
            let (first, others) = rest.split_at(rest.len().min((CHUNK - at % CHUNK) as usize));
            let versions: Vec<u64> = (0..VERSIONS).filter(|version| is_of(*version, at, first)).collect();
            said += &format!(" {}-{} {versions:?}", at, at + first.len() as u64);
            (at, rest) = (at + first.len() as u64, others);
        }
        said
    }
}
