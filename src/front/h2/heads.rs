//! Heads of stored responses as the `h2` crate wants them, kept for those that are asked for again and again.
//!
//! Making one takes longer than copying one. Each worker keeps a few, by where the response is in memory; the weak handle
//! keeps that place from being anybody else's, and nothing of the response but its handful of bytes of bookkeeping.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::semantics::fields::Fields;
use crate::store::record::StoredResponse;

/// Heads a worker keeps: at some 1 KiB each, a quarter of a MiB.
const KEPT: usize = 256;
/// Larger heads are made anew each time, so that the bound above is one.
const FIELD_BYTES_MAX: usize = 2 << 10;
/// Fields that are added to a head: `age`, `cache-status`, what browsers are told.
const ADDED: usize = 3;

thread_local! {
    static HEADS: RefCell<Vec<Slot>> = RefCell::new((0..KEPT).map(|_| Slot::default()).collect());
}

#[derive(Default)]
struct Slot {
    kept: Option<(Weak<StoredResponse>, HeaderMap)>,
    /// Where the response was that had no place here last; when it comes again it gets one.
    asked: usize,
}

/// The fields of a stored response, `content-length` included.
pub fn head_of(response: &Arc<StoredResponse>) -> HeaderMap {
    let place = Arc::as_ptr(response) as usize;
    // Allocations of this size are 64 bytes and more apart.
    let slot = (place >> 6) % KEPT;
    HEADS.with_borrow_mut(|heads| {
        let Some(slot) = heads.get_mut(slot) else { return made(response.fields()) };
        if let Some((known, head)) = &slot.kept
            && Weak::as_ptr(known) as usize == place
        {
            return head.clone();
        }
        let head = made(response.fields());
        if slot.asked == place && response.fields().as_bytes().len() <= FIELD_BYTES_MAX {
            slot.kept = Some((Arc::downgrade(response), head.clone()));
        }
        slot.asked = place;
        head
    })
}

fn made(fields: Fields<'_>) -> HeaderMap {
    let mut head = HeaderMap::with_capacity(fields.lines().count() + ADDED);
    append(fields, &mut head);
    head
}

/// Appends field lines. What is no field is left out, which cannot happen: the lines were checked when they came.
pub fn append(fields: Fields<'_>, head: &mut HeaderMap) {
    for line in fields.lines() {
        let Some(name) = name(line.name) else { continue };
        let Ok(value) = HeaderValue::from_bytes(line.value) else { continue };
        head.append(name, value);
    }
}

/// A field's name. Those of every hit are not made anew each time.
fn name(bytes: &[u8]) -> Option<HeaderName> {
    static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
    match bytes {
        b"age" => Some(header::AGE),
        b"cache-status" => Some(CACHE_STATUS.clone()),
        other => HeaderName::from_bytes(other).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::directives::ResponseDirectives;
    use crate::semantics::reuse::Freshness;
    use crate::semantics::time::{DeltaSeconds, UnixMs};
    use crate::store::record::Parts;

    fn response(etag: &str) -> Arc<StoredResponse> {
        let fields = format!("etag: {etag}\r\nset-cookie: a\r\nset-cookie: b\r\n");
        let freshness = Freshness::new(UnixMs(0), 0, DeltaSeconds(60), &ResponseDirectives::default());
        let parts = Parts {
            status: 200,
            fields: fields.as_bytes(),
            freshness,
            fill_pos: crate::purge::ledger::Ledger::default().applied(),
            upstream_status: None,
            browser: None,
        };
        Arc::new(StoredResponse::new(&parts, &[]))
    }

    #[test]
    fn a_head_is_its_responses_own_however_often_it_is_asked_for() {
        for round in 0..2_000 {
            let etag = format!("\"{round}\"");
            let response = response(&etag);
            for _ in 0..3 {
                let head = head_of(&response);
                assert_eq!(head.get("etag").map(HeaderValue::as_bytes), Some(etag.as_bytes()));
                assert_eq!(head.get_all("set-cookie").iter().count(), 2);
                assert_eq!(head.get("content-length").map(HeaderValue::as_bytes), Some(&b"0"[..]));
            }
        }
    }

    #[test]
    fn what_is_kept_does_not_keep_the_response() {
        let response = response("\"x\"");
        (0..3).for_each(|_| drop(head_of(&response)));
        assert_eq!(Arc::strong_count(&response), 1);
    }
}
