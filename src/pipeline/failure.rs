//! Answers of our own: when nothing stored and nobody else can answer.

use std::io;

use crate::exchange::{BodyLength, Exchange};
use crate::pipeline::deliver::write_dynamic;
use crate::pipeline::request::{Method, Outcome};
use crate::semantics::cache_status::CacheStatus;
use crate::telemetry::metrics::CacheOutcome;

/// Sends a short answer with a status and the reason in words.
///
/// # Errors
/// The client could not be written to.
pub async fn answer<E: Exchange>(
    status: u16,
    method: Method,
    cache_status: CacheStatus,
    exchange: &mut E,
) -> io::Result<Outcome> {
    let mut dynamic = Vec::with_capacity(128);
    write_dynamic(None, None, &cache_status, &mut dynamic);
    let name = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
    let sentence = cache_status.detail.map_or("", |reason| reason.sentence());
    let body = format!("{status} {name}\n{sentence}\n");
    dynamic.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n");
    exchange.head(status, &[&dynamic], BodyLength::Known(body.len() as u64));
    let mut outcome = Outcome::new(status, CacheOutcome::Error, cache_status.detail);
    if method == Method::Get {
        exchange.body(&[body.as_bytes()]).await?;
        outcome.bytes = body.len() as u64;
    }
    exchange.finish().await?;
    Ok(outcome)
}
