//! Answers of our own: when nothing stored and nobody else can answer.

use std::borrow::Cow;
use std::io;

use crate::exchange::{BodyLength, Exchange};
use crate::pipeline::deliver::write_dynamic;
use crate::pipeline::request::{Method, Outcome};
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::telemetry::metrics::CacheOutcome;

/// When to come again, if every origin is busy: what is short of room now may have some in a moment.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// Whether what keeps a request from its origin may be over in a moment.
pub fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::OriginBusy | Reason::SessionRefused | Reason::Isolated)
}

/// Sends a short answer with a status and the reason in words, or the site's page for that status.
///
/// # Errors
/// The client could not be written to.
pub async fn answer<E: Exchange>(
    site: Option<&Site>,
    status: u16,
    method: Method,
    cache_status: CacheStatus,
    exchange: &mut E,
) -> io::Result<Outcome> {
    answer_with(b"", site, status, method, cache_status, exchange).await
}

/// The same, with more field lines.
///
/// # Errors
/// The client could not be written to.
pub async fn answer_with<E: Exchange>(
    more: &[u8],
    site: Option<&Site>,
    status: u16,
    method: Method,
    cache_status: CacheStatus,
    exchange: &mut E,
) -> io::Result<Outcome> {
    let (content_type, body) = page(site, status, &cache_status);
    let mut fields = Vec::with_capacity(128);
    fields.extend_from_slice(more);
    fields.extend_from_slice(format!("content-type: {content_type}\r\ncache-control: no-store\r\n").as_bytes());
    if cache_status.detail.is_some_and(passes) {
        fields.extend_from_slice(format!("retry-after: {RETRY_AFTER_SECONDS}\r\n").as_bytes());
    }
    own(site, status, method, cache_status, &fields, &body, exchange).await
}

/// Sends the client to another URL.
///
/// # Errors
/// The client could not be written to.
pub async fn redirect<E: Exchange>(
    site: &Site,
    status: u16,
    location: &[u8],
    method: Method,
    cache_status: CacheStatus,
    exchange: &mut E,
) -> io::Result<Outcome> {
    let fields = [b"location: ", location, b"\r\n"].concat();
    own(Some(site), status, method, cache_status, &fields, b"", exchange).await
}

/// Answers an authority that issues certificates (RFC 8555 section 8.3).
///
/// # Errors
/// The client could not be written to.
pub async fn challenge<E: Exchange>(
    site: &Site,
    body: &[u8],
    method: Method,
    cache_status: CacheStatus,
    exchange: &mut E,
) -> io::Result<Outcome> {
    own(Some(site), 200, method, cache_status, b"content-type: application/octet-stream\r\n", body, exchange).await
}

/// The body of an answer of our own, and its type.
pub fn page<'s>(site: Option<&'s Site>, status: u16, cache_status: &CacheStatus) -> (&'static str, Cow<'s, [u8]>) {
    if let Some(page) = site.and_then(|site| site.error_page(status)) {
        return (page.content_type, Cow::Borrowed(&page.body));
    }
    let name = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
    let sentence = cache_status.detail.map_or("", |reason| reason.sentence());
    ("text/plain; charset=utf-8", Cow::Owned(format!("{status} {name}\n{sentence}\n").into_bytes()))
}

async fn own<E: Exchange>(
    site: Option<&Site>,
    status: u16,
    method: Method,
    cache_status: CacheStatus,
    fields: &[u8],
    body: &[u8],
    exchange: &mut E,
) -> io::Result<Outcome> {
    let mut dynamic = Vec::with_capacity(128);
    write_dynamic(site.map(|site| (site, GroupIndex::OWN)), None, None, &cache_status, &mut dynamic);
    // RFC 9110 sections 15.3.5 and 15.4.5: these end with their head.
    let (length, body) = match status {
        204 | 304 => (BodyLength::None, &[][..]),
        _ => (BodyLength::Known(body.len() as u64), body),
    };
    exchange.head(status, &[&dynamic, fields], length);
    let mut outcome = Outcome::new(status, CacheOutcome::Error, cache_status.detail);
    if method == Method::Get {
        exchange.body(&[body]).await?;
        outcome.bytes = body.len() as u64;
    }
    exchange.finish().await?;
    Ok(outcome)
}
