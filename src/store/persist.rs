//! What is kept in memory, as the bytes of a frame, and back. Pure.
//!
//! The payload of a response is its block, as it is sent to clients, then what is needed to judge it and the field lines that
//! name its surrogate keys, then how long these are: a response is written without a copy of it, and read into the place it stays in.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::purge::position::{LogPosition, Position};
use crate::purge::selector::{Selectors, SiteId};
use crate::semantics::no_vary_search::{NoVarySearch, Params};
use crate::semantics::reuse::Freshness;
use crate::semantics::time::{DeltaSeconds, UnixMs};
use crate::store::body::Sparse;
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
    bytes.extend_from_slice(stored.tags().unwrap_or_default());
    let length = u32::try_from(bytes.len()).ok()?;
    bytes.extend_from_slice(&length.to_le_bytes());
    Some(Payload::Response { stored: stored.clone(), meta: bytes.into() })
}

/// A response and its label, read back. `on_disk` makes what finds its chunks; `distrusted_since`: it has to be
/// validated before it is used.
pub fn read_response(
    payload: Vec<u8>,
    distrusted_since: Option<UnixMs>,
    on_disk: impl FnOnce(u64) -> Sparse,
) -> Option<(StoredResponse, Label)> {
    let (rest, length) = payload.split_last_chunk::<END>()?;
    let block_len = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    let (meta, tags): (Meta<'_>, _) = postcard::take_from_bytes(rest.get(block_len..)?).ok()?;
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
        tags: Some(tags).filter(|tags| !tags.is_empty()),
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
        Entry::Response(_) | Entry::Chunk(_) => return None,
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;
    use crate::purge::ledger::Ledger;
    use crate::semantics::directives::ResponseDirectives;
    use crate::store::body::Chunks;
    use crate::store::disk::frame::FrameKey;

    /// Has nothing.
    struct Nowhere;

    impl Chunks for Nowhere {
        fn covered_to(&self, _: &FrameKey, within: Range<u32>) -> u32 {
            within.start
        }

        fn gap_to(&self, _: &FrameKey, within: Range<u32>) -> u32 {
            within.end
        }

        fn load(&self, _: FrameKey, _: Range<u32>) -> BoxFuture<'_, Option<Bytes>> {
            Box::pin(std::future::ready(None))
        }
    }

    fn on_disk(generation: u64) -> Sparse {
        let chunks: Arc<dyn Chunks> = Arc::new(Nowhere);
        Sparse { chunks, key: CacheKey::from_bytes([3; 16]), generation }
    }

    fn bytes(payload: Option<Payload>) -> Vec<u8> {
        payload.expect("it can be written").pieces().concat()
    }

    fn label() -> Label {
        let text = str::to_owned;
        Label { site: text("shop"), scheme: text("https"), host: text("a.example"), target: text("/a?b") }
    }

    fn stored(upstream_status: Option<&[u8]>, browser: Option<&Browser>, chunks: Option<u64>) -> Arc<StoredResponse> {
        let selectors = Selectors {
            site: SiteId::of("shop"),
            host: 7,
            url: 8,
            path: b"/a",
            keys: &[1, 2, 3, 4],
            groups: &[5, 6, 7, 8],
        };
        let freshness = Freshness::new(UnixMs(77_000), 1_000, DeltaSeconds(60), &ResponseDirectives::default());
        let fill_pos = Ledger::default().applied();
        let fields = b"etag: \"a\"\r\n";
        // Few have any.
        let tags = browser.map(|_| &b"surrogate-key: a b\r\n"[..]);
        let parts = Parts { status: 203, fields, freshness, fill_pos, upstream_status, browser, tags, selectors };
        Arc::new(match chunks {
            None => StoredResponse::new(&parts, &[Bytes::from_static(b"hello")]),
            Some(generation) => StoredResponse::of_chunks(&parts, &[vec![7; 300_000].into()], generation),
        })
    }

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let browser = Browser { ttl: DeltaSeconds(9), replaced: (*b"cache-control: no-cache\r\n").into() };
        for (upstream, browser, chunks) in [
            (None, None, None),
            (Some(&b"other; hit"[..]), Some(&browser), None),
            (None, None, Some(5)),
            (Some(b"other; hit"), Some(&browser), Some(u64::MAX)),
        ] {
            let before = stored(upstream, browser, chunks);
            let (after, of) = read_response(bytes(response(&before, &label())), None, on_disk).expect("just written");
            assert_eq!(of, label());
            assert_eq!((after.status(), after.freshness()), (before.status(), before.freshness()));
            assert_eq!(after.wire_block(), before.wire_block());
            assert_eq!(after.wire_head(), before.wire_head());
            assert_eq!((after.body_len(), after.fill_pos()), (before.body_len(), before.fill_pos()));
            assert_eq!((after.upstream_status(), after.browser()), (upstream, browser));
            assert_eq!(after.tags(), before.tags());
            let keys = |stored: &StoredResponse| stored.selectors().keys().collect::<Vec<_>>();
            assert_eq!((keys(&after), after.selectors().path), (keys(&before), &b"/a"[..]));
            assert_eq!(after.sparse().map(|body| body.generation), chunks);
        }
    }

    #[test]
    fn a_doubtful_response_is_validated_before_it_is_used() {
        let written = bytes(response(&stored(None, None, None), &label()));
        let (read, _) = read_response(written, Some(UnixMs(80_000)), on_disk).expect("just written");
        assert!(!read.freshness().is_fresh(UnixMs(80_000)) && read.freshness().must_revalidate());
    }

    #[test]
    fn chunks_that_are_in_memory_alone_are_not_written() {
        let parts = Parts {
            status: 200,
            fields: b"",
            freshness: Freshness::new(UnixMs(0), 0, DeltaSeconds(60), &ResponseDirectives::default()),
            fill_pos: Ledger::default().applied(),
            upstream_status: None,
            browser: None,
            tags: None,
            selectors: Selectors::default(),
        };
        let alone = Arc::new(StoredResponse::new(&parts, &[vec![7; 300_000].into()]));
        assert!(response(&alone, &label()).is_none());
        let elsewhere = alone.with_generation(4).map(Arc::new).expect("it has chunks");
        assert!(response(&elsewhere, &label()).is_some());
    }

    #[test]
    fn hints_are_read_as_they_were_written() {
        let rule = |params| NoVarySearch { key_order: true, params };
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let rules = [Params::None, Params::All, Params::AllExcept(names()), Params::Only(names())].map(rule).to_vec();
        let Some(Entry::Searches(read)) = read_hint(&bytes(hint(&Entry::Searches(Arc::new(rules.clone()))))) else {
            panic!("not what was written");
        };
        assert_eq!(*read, rules);
        let variants = Variants { field_sets: vec![vec!["accept".into()], vec![]] };
        let Some(Entry::Variants(read)) = read_hint(&bytes(hint(&Entry::Variants(Arc::new(variants))))) else {
            panic!("not what was written");
        };
        assert_eq!(read.field_sets.len(), 2);
        assert!(hint(&Entry::Response(stored(None, None, None))).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(noise in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..400, bit in 0u8..8) {
            let _ = read_hint(&noise);
            let _ = read_response(noise, None, on_disk);
            let mut written = bytes(response(&stored(Some(b"x"), None, Some(5)), &label()));
            let at = at % written.len();
            written[at] ^= 1 << bit;
            if let Some((read, _)) = read_response(written, None, on_disk) {
                let _ = (read.wire_head().len(), read.body_len(), read.fields().first("etag"), read.selectors().path.len());
            }
        }
    }
}
