//! What is kept in memory, as the bytes of a frame, and back. Pure.
//!
//! The payload of a response is its block, as it is sent to clients, then what is needed to judge it, then how long that
//! is: a response is written without a copy of it, and read into the place it stays in.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::purge::position::{LogPosition, Position};
use crate::purge::selector::{Selectors, SiteId};
use crate::semantics::no_vary_search::{NoVarySearch, Params};
use crate::semantics::reuse::Freshness;
use crate::semantics::time::{DeltaSeconds, UnixMs};
use crate::store::body::OnDisk;
use crate::store::disk::value::Payload;
use crate::store::key::CacheKey;
use crate::store::memory::{Entry, Variants};
use crate::store::record::{Browser, Parts, StoredResponse};

/// Of which URL a response is: for those who look at what a disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub site: String,
    pub scheme: String,
    pub host: String,
    /// Path and query.
    pub target: String,
}

#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    site: &'a str,
    scheme: &'a str,
    host_name: &'a str,
    target: &'a str,
    status: u16,
    fields_len: u32,
    freshness: &'a [u8],
    log: u64,
    local: u64,
    host: u32,
    url: u32,
    path: &'a [u8],
    keys: &'a [u8],
    groups: &'a [u8],
    upstream_status: Option<&'a [u8]>,
    browser: Option<(u32, &'a [u8])>,
    /// The generation of its chunks and the length of the body, if that is not in the block.
    chunks: Option<(u64, u64)>,
}

/// The end of a payload: how long what stands before it is.
const END: usize = 4;

/// The payload of a response.
pub fn response(stored: &Arc<StoredResponse>, label: &Label) -> Option<Payload> {
    let selectors = stored.selectors();
    let position = stored.fill_pos();
    let freshness = stored.freshness().encode();
    let meta = Meta {
        site: &label.site,
        scheme: &label.scheme,
        host_name: &label.host,
        target: &label.target,
        status: stored.status(),
        fields_len: u32::try_from(stored.fields().as_bytes().len()).ok()?,
        freshness: &freshness,
        log: position.log.as_u64(),
        local: position.local,
        host: selectors.host,
        url: selectors.url,
        path: selectors.path,
        keys: selectors.keys,
        groups: selectors.groups,
        upstream_status: stored.upstream_status(),
        browser: stored.browser().map(|browser| (browser.ttl.0, &*browser.replaced)),
        chunks: match stored.is_inline() {
            true => None,
            // Chunks that are in memory alone cannot be found again.
            false => Some((stored.generation()?, stored.body_len())),
        },
    };
    let mut bytes = postcard::to_stdvec(&meta).ok()?;
    let length = u32::try_from(bytes.len()).ok()?;
    bytes.extend_from_slice(&length.to_le_bytes());
    Some(Payload::Response { stored: stored.clone(), meta: bytes.into() })
}

/// A response and its label, read back. `on_disk` makes what finds its chunks; `distrusted_since`: it has to be
/// validated before it is used.
pub fn read_response(
    payload: Vec<u8>,
    distrusted_since: Option<UnixMs>,
    on_disk: impl FnOnce(u64) -> OnDisk,
) -> Option<(StoredResponse, Label)> {
    let (rest, length) = payload.split_last_chunk::<END>()?;
    let block_len = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    let meta: Meta<'_> = postcard::from_bytes(rest.get(block_len..)?).ok()?;
    if meta.fields_len as usize + 2 > block_len {
        return None;
    }
    let freshness = Freshness::decode(meta.freshness.first_chunk()?);
    let browser = meta.browser.map(|(ttl, replaced)| Browser { ttl: DeltaSeconds(ttl), replaced: replaced.into() });
    let parts = Parts {
        status: meta.status,
        fields: &[],
        freshness: distrusted_since.map_or(freshness, |since| freshness.distrusted(since)),
        fill_pos: Position { log: LogPosition::from_u64(meta.log), local: meta.local },
        upstream_status: meta.upstream_status,
        browser: browser.as_ref(),
        selectors: Selectors {
            site: SiteId::of(meta.site),
            host: meta.host,
            url: meta.url,
            path: meta.path,
            keys: meta.keys,
            groups: meta.groups,
        },
    };
    let label = Label {
        site: meta.site.to_owned(),
        scheme: meta.scheme.to_owned(),
        host: meta.host_name.to_owned(),
        target: meta.target.to_owned(),
    };
    let chunks = meta.chunks.map(|(generation, length)| (on_disk(generation), length));
    let restored = StoredResponse::restored(&parts, meta.fields_len, chunks);
    let mut block = payload;
    block.truncate(block_len);
    Some((restored(block.into_boxed_slice()), label))
}

/// What leads from one key to another.
#[derive(Serialize, Deserialize)]
enum Hint {
    Variants(Vec<Vec<Box<str>>>),
    Alias([u8; 16]),
    /// For each rule: whether the order of parameters does not matter, which list it has, and the list.
    Searches(Vec<(bool, u8, Vec<String>)>),
}

/// The payload of an entry that is not a response.
pub fn hint(entry: &Entry) -> Option<Payload> {
    let hint = match entry {
        Entry::Response(_) => return None,
        Entry::Variants(variants) => Hint::Variants(variants.field_sets.clone()),
        Entry::Alias(key) => Hint::Alias(key.to_bytes()),
        Entry::Searches(rules) => Hint::Searches(rules.iter().map(of_rule).collect()),
    };
    Some(Payload::Bytes(Bytes::from(postcard::to_stdvec(&hint).ok()?)))
}

pub fn read_hint(payload: &[u8]) -> Option<Entry> {
    Some(match postcard::from_bytes(payload).ok()? {
        Hint::Variants(field_sets) => Entry::Variants(Arc::new(Variants { field_sets })),
        Hint::Alias(key) => Entry::Alias(Arc::new(CacheKey::from_bytes(key))),
        Hint::Searches(rules) => Entry::Searches(Arc::new(rules.into_iter().map(to_rule).collect::<Option<Vec<_>>>()?)),
    })
}

fn of_rule(rule: &NoVarySearch) -> (bool, u8, Vec<String>) {
    let (list, names) = match &rule.params {
        Params::None => (0, Vec::new()),
        Params::All => (1, Vec::new()),
        Params::AllExcept(names) => (2, names.clone()),
        Params::Only(names) => (3, names.clone()),
    };
    (rule.key_order, list, names)
}

fn to_rule((key_order, list, names): (bool, u8, Vec<String>)) -> Option<NoVarySearch> {
    let params = match list {
        0 => Params::None,
        1 => Params::All,
        2 => Params::AllExcept(names),
        3 => Params::Only(names),
        _ => return None,
    };
    Some(NoVarySearch { key_order, params })
}
