//! Heads of stored responses as the `h2` crate wants them, kept for those that are asked for again and again.
//!
//! Making one takes longer than copying one. Each worker keeps a few, by where the response is in memory; the weak handle
//! keeps that place from being anybody else's, and nothing of the response but its handful of bytes of bookkeeping. What
//! is added to a stored head, its age and `cache-status`, is the same for all hits of a second, so it is kept too.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::semantics::fields::Fields;
use crate::store::record::StoredResponse;

/// Heads a worker keeps: at some 2 KiB each, half a MiB.
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
    kept: Option<Kept>,
    /// Where the response was that had no place here last; when it comes again it gets one.
    asked: usize,
}

struct Kept {
    response: Weak<StoredResponse>,
    stored: HeaderMap,
    /// What was added last, and what became of it.
    added: Vec<u8>,
    whole: HeaderMap,
}

impl Kept {
    fn new(response: &Arc<StoredResponse>, added: Fields<'_>) -> Self {
        let stored = made(response.fields());
        let whole = with(&stored, added);
        Self { response: Arc::downgrade(response), stored, added: added.as_bytes().to_vec(), whole }
    }

    fn head(&mut self, added: Fields<'_>) -> HeaderMap {
        if self.added != added.as_bytes() {
            self.whole = with(&self.stored, added);
            self.added.clear();
            self.added.extend_from_slice(added.as_bytes());
        }
        self.whole.clone()
    }
}

/// The fields of a stored response, `content-length` included, and those `added`.
pub fn head_of(response: &Arc<StoredResponse>, added: Fields<'_>) -> HeaderMap {
    let place = Arc::as_ptr(response) as usize;
    // Allocations of this size are 64 bytes and more apart.
    let slot = (place >> 6) % KEPT;
    HEADS.with_borrow_mut(|heads| {
        let Some(slot) = heads.get_mut(slot) else { return whole(response, added) };
        if let Some(kept) = slot.kept.as_mut().filter(|kept| Weak::as_ptr(&kept.response) as usize == place) {
            return kept.head(added);
        }
        if slot.asked == place && response.fields().as_bytes().len() <= FIELD_BYTES_MAX {
            return slot.kept.insert(Kept::new(response, added)).whole.clone();
        }
        slot.asked = place;
        whole(response, added)
    })
}

fn whole(response: &StoredResponse, added: Fields<'_>) -> HeaderMap {
    let mut head = made(response.fields());
    append(added, &mut head);
    head
}

fn made(fields: Fields<'_>) -> HeaderMap {
    let mut head = HeaderMap::with_capacity(fields.lines().count() + ADDED);
    append(fields, &mut head);
    head
}

fn with(stored: &HeaderMap, added: Fields<'_>) -> HeaderMap {
    let mut head = stored.clone();
    append(added, &mut head);
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
            tags: None,
            selectors: crate::purge::selector::Selectors::default(),
        };
        Arc::new(StoredResponse::new(&parts, &[]))
    }

    #[test]
    fn a_head_is_its_responses_own_however_often_it_is_asked_for() {
        for round in 0..2_000 {
            let etag = format!("\"{round}\"");
            let response = response(&etag);
            for age in [0, 0, 0, 1, 1, 2] {
                let added = format!("age: {age}\r\n");
                let head = head_of(&response, Fields::new(added.as_bytes()));
                assert_eq!(head.get_all("age").iter().collect::<Vec<_>>(), [&age.to_string()]);
                assert_eq!(head.get("etag").map(HeaderValue::as_bytes), Some(etag.as_bytes()));
                assert_eq!(head.get_all("set-cookie").iter().count(), 2);
                assert_eq!(head.get("content-length").map(HeaderValue::as_bytes), Some(&b"0"[..]));
            }
        }
    }

    #[test]
    fn what_is_kept_does_not_keep_the_response() {
        let response = response("\"x\"");
        (0..3).for_each(|_| drop(head_of(&response, Fields::new(b""))));
        assert_eq!(Arc::strong_count(&response), 1);
    }
}
