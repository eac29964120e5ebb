use super::*;
use crate::semantics::directives::ResponseDirectives;
use crate::semantics::time::{DeltaSeconds, UnixMs};

fn record(pieces: &[&[u8]]) -> StoredResponse {
    let body: Vec<Bytes> = pieces.iter().map(|p| Bytes::copy_from_slice(p)).collect();
    let freshness = Freshness::new(UnixMs(0), 0, DeltaSeconds(60), &ResponseDirectives::default());
    let fill_pos = Ledger::default().applied();
    StoredResponse::new(
        &Parts {
            status: 200,
            fields: b"etag: \"a\"\r\n",
            freshness,
            fill_pos,
            upstream_status: None,
            browser: None,
            tags: None,
            selectors: Selectors::default(),
        },
        &body,
    )
}

#[test]
fn a_small_response_is_one_block() {
    let stored = record(&[b"hello ", b"world"]);
    assert_eq!(stored.wire_block(), b"etag: \"a\"\r\ncontent-length: 11\r\n\r\nhello world");
    assert_eq!(stored.wire_head(), b"etag: \"a\"\r\ncontent-length: 11\r\n\r\n");
    assert_eq!(stored.fields().first("content-length"), Some(&b"11"[..]));
}

#[test]
fn selectors_come_out_as_they_went_in() {
    let mut owned = crate::purge::selector::OwnedSelectors {
        site: SiteId::of("shop"),
        host: 7,
        url: u32::MAX,
        path: (*b"/a/b").into(),
        ..Default::default()
    };
    for round in 0..3 {
        let packed = pack(&owned.get());
        let unpacked = unpack(&packed).map(|found| crate::purge::selector::OwnedSelectors::of(&found));
        assert_eq!(unpacked.as_ref(), Some(&owned));
        owned.add_key(round);
        owned.add_group(!round);
    }
    assert!(unpack(&[0; 10]).is_none());
    assert!(unpack(&[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0]).is_none());
}

#[test]
fn slices_are_the_bytes_of_the_range() {
    let big = vec![7u8; CHUNK_BYTES];
    for (stored, whole) in [
        (record(&[b"hello ", b"world"]), b"hello world".to_vec()),
        (record(&[&big, b"tail"]), [&big[..], b"tail"].concat()),
    ] {
        let n = whole.len() as u64;
        for range in [0..n, 0..0, 1..3, n - 6..n - 1, n - 1..n, n..n, 2..n] {
            let got: Vec<u8> = stored.slices(range.clone()).flatten().copied().collect();
            assert_eq!(got, whole[range.start as usize..range.end as usize], "{range:?}");
        }
        assert_eq!(stored.body_len(), n);
    }
}

#[test]
fn allocations_are_rounded_as_the_allocator_does() {
    for (bytes, want) in [(1, 16), (128, 128), (129, 160), (1025, 1280), (1280, 1280), (1300, 1536), (262_144, 262_144)]
    {
        assert_eq!(allocation(bytes), want, "{bytes}");
    }
}
