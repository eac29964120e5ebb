//! A stored response: one block of bytes, ready to be sent, and what is needed to judge it.
//!
//! The block holds the field lines (end-to-end fields only, without `Age`), then `content-length`, the blank line and,
//! for a body of at most one chunk, the body. A hit on a small object is therefore one status line, the fields that
//! change with time, and this block: nothing is assembled, nothing is copied twice. It is our own copy: no network
//! buffer stays pinned by it. What the response can be purged by is packed beside it.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use crate::purge::ledger::{Gone, Judged, Ledger, Verdict};
use crate::purge::position::Position;
use crate::purge::selector::{Selectors, SiteId};
use crate::semantics::fields::Fields;
use crate::semantics::reuse::Freshness;
use crate::semantics::surrogate::KEYS_MAX;
use crate::semantics::time::DeltaSeconds;
use crate::semantics::validation::strong_validator;
use crate::store::body::Sparse;

/// A response as it is kept. Immutable but for the memory of its last judgement.
pub struct StoredResponse {
    block: Box<[u8]>,
    /// What it is purged by: see [`pack`].
    selectors: Box<[u8]>,
    fields_len: u32,
    status: u16,
    /// Where the memory tier keeps track of it.
    slot: AtomicU32,
    /// As [`Freshness::encode`] has it: seven bytes less.
    freshness: [u8; Freshness::ENCODED_LENGTH],
    fill_pos: Position,
    /// The version of the ledger at which this record was last found live; saves the look-up while nothing is purged. Its
    /// low half: the reclaimer looks at every record long before as many versions have passed as would make it wrong.
    judged: AtomicU32,
    /// How often it was used, as far as that matters: see [`StoredResponse::is_used_again`].
    uses: AtomicU8,
    rest: Option<Box<Rest>>,
}

/// What few records have.
#[derive(Default)]
struct Rest {
    /// A body of more than one chunk, and its length.
    body: Body,
    length: u64,
    /// What caches behind us said in `Cache-Status`; ours is appended to it (RFC 9211 section 2).
    upstream_status: Option<Box<[u8]>>,
    /// What a rule of the site has browsers told.
    browser: Option<Browser>,
    /// The field lines that name its surrogate keys, for nodes that ask this one.
    tags: Option<Box<[u8]>>,
}

/// Where a body of more than one chunk is.
#[derive(Clone, Default)]
enum Body {
    /// It is no larger, and stands in the block.
    #[default]
    Inline,
    /// In memory; and its chunks on a disk, if they have a generation.
    Chunks(Box<[Bytes]>, Option<u64>),
    Sparse(Sparse),
}

/// What browsers are told in place of what the origin said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browser {
    /// The lifetime that is left for them.
    pub ttl: DeltaSeconds,
    /// The field lines of the origin that said otherwise, for when the response is renewed.
    pub replaced: Box<[u8]>,
}

/// The parts a record is made of.
pub struct Parts<'a> {
    pub status: u16,
    /// End-to-end field lines, without `age`, `content-length` and `transfer-encoding`.
    pub fields: &'a [u8],
    pub freshness: Freshness,
    pub fill_pos: Position,
    /// The `Cache-Status` of caches behind us.
    pub upstream_status: Option<&'a [u8]>,
    pub browser: Option<&'a Browser>,
    /// The field lines that name its surrogate keys; none where no other node asks for it.
    pub tags: Option<&'a [u8]>,
    /// What it is purged by.
    pub selectors: Selectors<'a>,
}

impl StoredResponse {
    /// Makes a record over a complete body, given in order.
    pub fn new(parts: &Parts<'_>, body: &[Bytes]) -> Self {
        let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
        if length <= CHUNK_BYTES as u64 {
            return Self::assemble(parts, length, body.iter().map(Bytes::as_ref), Body::Inline);
        }
        Self::assemble(parts, length, std::iter::empty(), Body::Chunks(body.into(), None))
    }

    /// The same over chunks that are on a disk too.
    pub fn of_chunks(parts: &Parts<'_>, chunks: &[Bytes], generation: u64) -> Self {
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self::assemble(parts, length, std::iter::empty(), Body::Chunks(chunks.into(), Some(generation)))
    }

    /// A record over a body that stands apart from it.
    pub fn of_sparse(parts: &Parts<'_>, length: u64, body: Sparse) -> Self {
        Self::assemble(parts, length, std::iter::empty(), Body::Sparse(body))
    }

    /// Makes a record again of what was written of it, once its block is there.
    pub fn restored(
        parts: &Parts<'_>,
        fields_len: u32,
        chunks: Option<(Sparse, u64)>,
    ) -> impl FnOnce(Box<[u8]>) -> Self + use<> {
        let is_inline = chunks.is_none();
        let (body, length) = chunks.map_or((Body::Inline, 0), |(body, length)| (Body::Sparse(body), length));
        let mut record = Self::assemble(parts, length, std::iter::empty(), body);
        record.fields_len = fields_len;
        // What is read from a disk is used by the request that had it read.
        record.uses = AtomicU8::new(0);
        move |block| {
            if is_inline && let Some(rest) = &mut record.rest {
                rest.length = (block.len() as u64).saturating_sub(u64::from(fields_len) + 2);
            }
            record.block = block;
            record
        }
    }

    /// The same record over chunks that have been read into memory.
    pub fn with_chunks(&self, chunks: Box<[Bytes]>) -> Option<Self> {
        match &self.rest.as_ref()?.body {
            Body::Sparse(Sparse { generation, .. }) => self.with_body(Body::Chunks(chunks, Some(*generation))),
            _ => None,
        }
    }

    /// The same record over the same chunks, which are on a disk too by now.
    pub fn with_generation(&self, generation: u64) -> Option<Self> {
        match &self.rest.as_ref()?.body {
            Body::Chunks(chunks, None) => self.with_body(Body::Chunks(chunks.clone(), Some(generation))),
            _ => None,
        }
    }

    fn with_body(&self, body: Body) -> Option<Self> {
        let Rest { length, upstream_status, browser, tags, .. } = self.rest.as_deref()?;
        let (upstream_status, browser, tags) = (upstream_status.clone(), browser.clone(), tags.clone());
        let rest = Rest { body, length: *length, upstream_status, browser, tags };
        Some(Self {
            block: self.block.clone(),
            selectors: self.selectors.clone(),
            fields_len: self.fields_len,
            status: self.status,
            slot: AtomicU32::new(NO_SLOT),
            freshness: self.freshness,
            fill_pos: self.fill_pos,
            judged: AtomicU32::new(0),
            uses: AtomicU8::new(USES_MAX),
            rest: Some(Box::new(rest)),
        })
    }

    /// The same body under freshened fields (RFC 9111 section 4.3.4).
    pub fn freshened(&self, parts: &Parts<'_>) -> Self {
        match self.rest.as_ref().map(|rest| &rest.body) {
            None | Some(Body::Inline) => {
                Self::assemble(parts, self.body_len(), std::iter::once(self.inline_body()), Body::Inline)
            }
            Some(body) => Self::assemble(parts, self.body_len(), std::iter::empty(), body.clone()),
        }
    }

    fn assemble<'b>(parts: &Parts<'_>, length: u64, inline: impl Iterator<Item = &'b [u8]>, body: Body) -> Self {
        let is_inline = matches!(body, Body::Inline);
        let inline_len = if is_inline { usize::try_from(length).unwrap_or(0) } else { 0 };
        let mut block = Vec::with_capacity(parts.fields.len() + CONTENT_LENGTH_LINE_MAX + inline_len);
        block.extend_from_slice(parts.fields);
        if has_content_length(parts.status) {
            write_content_length(length, &mut block);
        }
        let fields_len = block.len();
        block.extend_from_slice(b"\r\n");
        inline.for_each(|piece| block.extend_from_slice(piece));
        let rest = Rest {
            body,
            length,
            upstream_status: parts.upstream_status.map(Into::into),
            browser: parts.browser.cloned(),
            tags: parts.tags.map(Into::into),
        };
        let needs_rest = !is_inline || rest.upstream_status.is_some() || rest.browser.is_some() || rest.tags.is_some();
        Self {
            block: block.into_boxed_slice(),
            selectors: pack(&parts.selectors),
            fields_len: u32::try_from(fields_len).unwrap_or(u32::MAX),
            status: parts.status,
            slot: AtomicU32::new(NO_SLOT),
            freshness: parts.freshness.encode(),
            fill_pos: parts.fill_pos,
            judged: AtomicU32::new(0),
            uses: AtomicU8::new(1),
            rest: needs_rest.then(|| Box::new(rest)),
        }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// The field lines, `content-length` included.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(self.block.get(..self.fields_len as usize).unwrap_or_default())
    }

    /// Field lines, blank line and inline body in one piece, as they go to a client that gets the whole response.
    pub fn wire_block(&self) -> &[u8] {
        &self.block
    }

    /// What it is purged by.
    pub fn selectors(&self) -> Selectors<'_> {
        unpack(&self.selectors).unwrap_or_default()
    }

    /// Where the memory tier keeps track of it; none before it is there.
    pub fn slot(&self) -> Option<usize> {
        Some(self.slot.load(Ordering::Relaxed)).filter(|slot| *slot != NO_SLOT).map(|slot| slot as usize)
    }

    pub fn set_slot(&self, slot: usize) {
        self.slot.store(u32::try_from(slot).unwrap_or(NO_SLOT), Ordering::Relaxed);
    }

    /// Field lines and blank line, for a response to HEAD.
    pub fn wire_head(&self) -> &[u8] {
        self.block.get(..self.body_at()).unwrap_or_default()
    }

    /// The `Cache-Status` of caches behind us.
    pub fn upstream_status(&self) -> Option<&[u8]> {
        self.rest.as_ref()?.upstream_status.as_deref()
    }

    /// What browsers are told in place of what the origin said.
    pub fn browser(&self) -> Option<&Browser> {
        self.rest.as_ref()?.browser.as_ref()
    }

    /// The field lines that name its surrogate keys, where they were kept.
    pub fn tags(&self) -> Option<&[u8]> {
        self.rest.as_ref()?.tags.as_deref()
    }

    /// As it was when it came; [`Self::judge`] says what purges have left of it.
    pub fn freshness(&self) -> Freshness {
        Freshness::decode(&self.freshness)
    }

    pub fn fill_pos(&self) -> Position {
        self.fill_pos
    }

    pub fn body_len(&self) -> u64 {
        match &self.rest {
            Some(rest) => rest.length,
            None => self.inline_body().len() as u64,
        }
    }

    /// Behind the field lines and the blank line.
    fn body_at(&self) -> usize {
        self.fields_len as usize + 2
    }

    fn inline_body(&self) -> &[u8] {
        self.block.get(self.body_at()..).unwrap_or_default()
    }

    /// The chunks of a body that is in memory, but not in the block.
    pub fn chunks(&self) -> &[Bytes] {
        match self.rest.as_ref().map(|rest| &rest.body) {
            Some(Body::Chunks(chunks, _)) => chunks,
            _ => &[],
        }
    }

    /// Whether the body stands in the block.
    pub fn is_inline(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| matches!(rest.body, Body::Inline))
    }

    /// Where the body is, if it stands apart.
    pub fn sparse(&self) -> Option<&Sparse> {
        match &self.rest.as_ref()?.body {
            Body::Sparse(sparse) => Some(sparse),
            _ => None,
        }
    }

    /// Whether bytes of it that are missing can be asked for and put beside those that are there (RFC 9111 section 3.4).
    pub fn can_be_completed(&self) -> bool {
        self.status == 200 && strong_validator(self.fields()).is_some()
    }

    /// What its chunks on a disk are known by, if there are any.
    pub fn generation(&self) -> Option<u64> {
        match &self.rest.as_ref()?.body {
            Body::Inline => None,
            Body::Chunks(_, generation) => *generation,
            Body::Sparse(sparse) => Some(sparse.generation),
        }
    }

    /// Counts a use. True once: with the first after the one it was stored, or read from a disk, for.
    pub fn is_used_again(&self) -> bool {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
        uses + 1 == USES_MAX
    }

    /// The bytes of the body in `range`, piece by piece, without a copy.
    pub fn slices(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = &[u8]> {
        let inline = self.is_inline().then(|| self.inline_body());
        let mut at = 0u64;
        inline.into_iter().chain(self.chunks().iter().map(Bytes::as_ref)).filter_map(move |piece| {
            let from = at;
            at += piece.len() as u64;
            let start = usize::try_from(range.start.saturating_sub(from)).ok()?;
            let end = usize::try_from(range.end.min(at).saturating_sub(from)).ok()?;
            piece.get(start..end).filter(|slice| !slice.is_empty())
        })
    }

    /// What the ledger leaves of this record: its freshness, cut short by soft purges. One atomic compare while nothing
    /// is purged.
    ///
    /// # Errors
    /// It must not be used any more.
    pub fn judge(&self, ledger: &Ledger) -> Result<Freshness, Gone> {
        let version = ledger.version() as u32;
        // Zero is what a record begins with.
        if version != 0 && self.judged.load(Ordering::Relaxed) == version {
            return Ok(self.freshness());
        }
        let Judged { verdict, version } = ledger.judge(&self.selectors(), self.fill_pos);
        match verdict {
            Verdict::Live => {
                self.judged.store(version as u32, Ordering::Relaxed);
                Ok(self.freshness())
            }
            Verdict::StaleSince(at) => Ok(self.freshness().stale_since(at)),
            Verdict::Gone(gone) => Err(gone),
        }
    }

    /// Whether it may be used at all, if only to be validated.
    pub fn is_live(&self, ledger: &Ledger) -> bool {
        self.judge(ledger).is_ok()
    }

    /// What the record costs in memory, allocator rounding and the cache's own entry included.
    pub fn weight(&self) -> usize {
        let chunks: usize = self.chunks().iter().map(|c| allocation(c.len()) + size_of::<Bytes>() + BYTES_SHARED).sum();
        let rest = self.rest.as_ref().map_or(0, |rest| {
            let browser = rest.browser.as_ref().map_or(0, |browser| allocation(browser.replaced.len()));
            let status = rest.upstream_status.as_ref().map_or(0, |status| allocation(status.len()));
            let tags = rest.tags.as_ref().map_or(0, |tags| allocation(tags.len()));
            allocation(size_of::<Rest>()) + browser + status + tags
        });
        let record =
            allocation(self.block.len()) + allocation(self.selectors.len()) + allocation(size_of::<Self>() + 16);
        record + rest + chunks + ENTRY_OVERHEAD
    }
}

// With the counts of an `Arc` it has an allocation of 112 bytes: one byte more would cost 16.
const _: () = assert!(size_of::<StoredResponse>() <= 96);

/// What packed selectors begin with: site and host of 16 bits, URL of 32, and counts of 16 and 8.
const PACKED: usize = 11;
/// Cache groups of one response at most.
pub const GROUPS_MAX: usize = 255;
const _: () = assert!(KEYS_MAX <= u16::MAX as usize);

/// Site, host and URL, how many keys and groups, these, and the path: little-endian, as little memory as they take.
fn pack(selectors: &Selectors<'_>) -> Box<[u8]> {
    let keys = u16::try_from(selectors.keys.len() / 4).unwrap_or(u16::MAX);
    let groups = u8::try_from(selectors.groups.len() / 4).unwrap_or(u8::MAX);
    let lists = [selectors.keys, selectors.groups, selectors.path];
    let mut packed = Vec::with_capacity(PACKED + lists.iter().map(|list| list.len()).sum::<usize>());
    packed.extend_from_slice(&selectors.site.as_u16().to_le_bytes());
    packed.extend_from_slice(&(selectors.host as u16).to_le_bytes());
    packed.extend_from_slice(&selectors.url.to_le_bytes());
    packed.extend_from_slice(&keys.to_le_bytes());
    packed.push(groups);
    lists.into_iter().for_each(|list| packed.extend_from_slice(list));
    packed.into_boxed_slice()
}

fn unpack(packed: &[u8]) -> Option<Selectors<'_>> {
    let (head, lists) = packed.split_first_chunk::<PACKED>()?;
    let [a, b, c, d, e, f, g, h, i, j, groups] = *head;
    let (keys, groups) = (usize::from(u16::from_le_bytes([i, j])), usize::from(groups));
    let (keys, lists) = lists.split_at_checked(keys * 4)?;
    let (groups, path) = lists.split_at_checked(groups * 4)?;
    Some(Selectors {
        site: SiteId::from_u16(u16::from_le_bytes([a, b])),
        host: u32::from(u16::from_le_bytes([c, d])),
        url: u32::from_le_bytes([e, f, g, h]),
        path,
        keys,
        groups,
    })
}

/// Uses that are told apart: none after it was read from a disk, one, more.
const USES_MAX: u8 = 2;
/// No slot yet.
const NO_SLOT: u32 = u32::MAX;
/// `content-length: ` and 20 digits and CRLF.
pub const CONTENT_LENGTH_LINE_MAX: usize = 16 + 20 + 2 + 2;
/// A cache entry beside its value: measured on foyer 0.22.6 (`mem1k` in the benchmarks), ghost queue included; and its place
/// on the roll of what is stored.
const ENTRY_OVERHEAD: usize = 220;
/// The reference-counted header of a `Bytes`.
pub(super) const BYTES_SHARED: usize = 32;

/// Whether a response with this status says how long its body is (RFC 9110 section 8.6).
pub fn has_content_length(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// Appends a `content-length` line.
pub fn write_content_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What an allocation of `bytes` takes: size classes are four to a doubling (jemalloc).
pub(super) fn allocation(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let spacing = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(spacing)
}

#[cfg(test)]
mod tests;
