//! A stored response to one client: whole, in part, or as "not modified".

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::pipeline::decide::range_of;
use crate::pipeline::request::{Method, Outcome, Request};
use crate::pipeline::sparse::source::Source;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_status::CacheStatus;
use crate::semantics::fields::Fields;
use crate::semantics::range::RangePlan;
use crate::semantics::time::DeltaSeconds;
use crate::semantics::validation::{Precondition, not_modified_fields, precondition};
use crate::store::record::{StoredResponse, write_content_length};
use crate::telemetry::metrics::CacheOutcome;

/// Writes the field lines that change with time: `age` and `cache-status`. `site`: none before it is known.
pub fn write_dynamic(
    site: Option<(&Site, GroupIndex)>,
    age: Option<u64>,
    upstream: Option<&[u8]>,
    status: &CacheStatus,
    out: &mut Vec<u8>,
) {
    if let Some(age) = age {
        out.extend_from_slice(b"age: ");
        out.extend_from_slice(itoa::Buffer::new().format(age).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if site.is_some_and(|(site, _)| !site.cache_status) {
        return;
    }
    out.extend_from_slice(b"cache-status: ");
    if let Some(upstream) = upstream {
        out.extend_from_slice(upstream);
        out.extend_from_slice(b", ");
    }
    status.write(out);
    if let Some((site, group)) = site.filter(|(_, group)| *group != GroupIndex::OWN) {
        write_group(&site.backing(group).name, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Says in `Cache-Status` which group of origins answers such requests. Its name needs no escapes (RFC 8941 section 3.3.3).
pub fn write_group(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"; littoral.group=\"");
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

/// Writes what a rule has browsers told: so much that `ttl` is left. A browser takes off the `Age` it is shown (RFC 9111
/// section 4.2.3), so that is added.
pub fn write_browser_ttl(ttl: DeltaSeconds, shown_age: Option<u64>, out: &mut Vec<u8>) {
    if ttl == DeltaSeconds::ZERO {
        out.extend_from_slice(b"cache-control: no-cache\r\n");
        return;
    }
    out.extend_from_slice(b"cache-control: max-age=");
    let max_age = u64::from(ttl.0) + shown_age.unwrap_or(0);
    out.extend_from_slice(itoa::Buffer::new().format(max_age).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Answers from a stored response.
///
/// # Errors
/// The client could not be written to.
pub async fn deliver<E: Exchange>(
    request: &Request<'_>,
    stored: &Arc<StoredResponse>,
    status: CacheStatus,
    cache: CacheOutcome,
    exchange: &mut E,
) -> io::Result<Outcome> {
    deliver_from(request, stored, None, status, cache, exchange).await
}

/// The same, where the body may stand apart: `source` has it then.
///
/// # Errors
/// The client could not be written to.
pub async fn deliver_from<E: Exchange>(
    request: &Request<'_>,
    stored: &Arc<StoredResponse>,
    source: Option<&mut Source<'_>>,
    status: CacheStatus,
    cache: CacheOutcome,
    exchange: &mut E,
) -> io::Result<Outcome> {
    let age = u64::from(stored.freshness().age_seconds(request.now).0);
    // A response that was fetched for this request is as old as it says; `age: 0` would only claim it was stored.
    let shown_age = (status.hit || age > 0).then_some(age);
    let mut dynamic = Vec::with_capacity(128);
    write_dynamic(Some((request.site, request.group)), shown_age, stored.upstream_status(), &status, &mut dynamic);
    dynamic.extend_from_slice(request.told);
    let for_any_status = dynamic.len();
    if let Some(browser) = stored.browser().filter(|_| request.by_node.is_none()) {
        write_browser_ttl(browser.ttl, shown_age, &mut dynamic);
    }
    let mut outcome = Outcome::new(stored.status(), cache, status.detail);
    outcome.ttl = status.ttl;
    outcome.age = shown_age;

    if request.conditional {
        let response_time = stored.freshness().response_time();
        let verdict = precondition(request.fields, stored.status(), stored.fields(), response_time);
        if verdict == Precondition::NotModified {
            outcome.status = 304;
            not_modified(stored.fields(), &dynamic, exchange).await?;
            return Ok(outcome);
        }
    }
    // Boxed: what hits in memory do not go through must not make every answer larger.
    match range_of(request, stored) {
        RangePlan::Whole if request.method == Method::Head => {
            exchange.stored(stored, StoredPart::Head, &dynamic).await?;
        }
        RangePlan::Whole => match source {
            None => {
                exchange.stored(stored, StoredPart::Whole, &dynamic).await?;
                outcome.bytes = stored.body_len();
            }
            Some(source) => {
                let (fields, length) = (without_length(stored.fields(), &[]), stored.body_len());
                exchange.head(stored.status(), &[&dynamic, &fields], BodyLength::Known(length));
                outcome.complete = Box::pin(source.send(0..length, &mut outcome.bytes, exchange)).await?;
                end(outcome.complete, exchange).await?;
            }
        },
        RangePlan::One(range) => {
            outcome.status = 206;
            outcome.complete =
                Box::pin(one_part(stored, source, &dynamic, range, &mut outcome.bytes, exchange)).await?;
        }
        RangePlan::Many(ranges) => {
            outcome.status = 206;
            let bytes = &mut outcome.bytes;
            outcome.complete = Box::pin(many_parts(stored, source, &dynamic, &ranges, bytes, exchange)).await?;
        }
        RangePlan::Unsatisfiable => {
            outcome.status = 416;
            let mut fields = dynamic;
            // A browser's lifetime is the representation's, not that of an error.
            fields.truncate(for_any_status);
            fields.extend_from_slice(format!("content-range: bytes */{}\r\n", stored.body_len()).as_bytes());
            exchange.head(416, &[&fields], BodyLength::Known(0));
            exchange.finish().await?;
        }
    }
    Ok(outcome)
}

/// Sends 304 with the fields RFC 9110 section 15.4.5 wants.
///
/// # Errors
/// The client could not be written to.
pub async fn not_modified<E: Exchange>(fields: Fields<'_>, dynamic: &[u8], exchange: &mut E) -> io::Result<()> {
    let mut kept = Vec::with_capacity(256);
    fields.lines().filter(|line| not_modified_fields(line.name)).for_each(|line| line.write(&mut kept));
    exchange.head(304, &[dynamic, &kept], BodyLength::None);
    exchange.finish().await
}

async fn one_part<E: Exchange>(
    stored: &StoredResponse,
    mut source: Option<&mut Source<'_>>,
    dynamic: &[u8],
    range: Range<u64>,
    bytes: &mut u64,
    exchange: &mut E,
) -> io::Result<bool> {
    let mut fields = without_length(stored.fields(), &[]);
    let (first, last) = (range.start, range.end - 1);
    fields.extend_from_slice(format!("content-range: bytes {first}-{last}/{}\r\n", stored.body_len()).as_bytes());
    exchange.head(206, &[dynamic, &fields], BodyLength::Known(range.end - range.start));
    let complete = send_range(stored, &mut source, range, bytes, exchange).await?;
    end(complete, exchange).await?;
    Ok(complete)
}

/// Sends some of a body. False: a part of it could not be read, and the answer must not look complete.
async fn send_range<E: Exchange>(
    stored: &StoredResponse,
    source: &mut Option<&mut Source<'_>>,
    range: Range<u64>,
    bytes: &mut u64,
    exchange: &mut E,
) -> io::Result<bool> {
    if let Some(source) = source {
        return source.send(range, bytes, exchange).await;
    }
    let slices: Vec<&[u8]> = stored.slices(range.clone()).collect();
    exchange.body(&slices).await?;
    *bytes += range.end - range.start;
    Ok(true)
}

/// Ends an answer, or sends what there is of it and leaves it without an end.
async fn end<E: Exchange>(complete: bool, exchange: &mut E) -> io::Result<()> {
    if complete { exchange.finish().await } else { exchange.flush().await }
}

/// RFC 9110 section 15.3.7.2.
async fn many_parts<E: Exchange>(
    stored: &StoredResponse,
    mut source: Option<&mut Source<'_>>,
    dynamic: &[u8],
    ranges: &[Range<u64>],
    bytes: &mut u64,
    exchange: &mut E,
) -> io::Result<bool> {
    // The boundary cannot occur in the body by accident: it is a digest of what is sent.
    let digest = blake3::hash(stored.wire_head()).to_hex();
    let boundary: &str = &digest.as_str()[..32];
    let content_type = stored.fields().first("content-type");
    let length = stored.body_len();
    let heads: Vec<Vec<u8>> = ranges
        .iter()
        .map(|range| {
            let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
            if let Some(content_type) = content_type {
                head.extend_from_slice(b"content-type: ");
                head.extend_from_slice(content_type);
                head.extend_from_slice(b"\r\n");
            }
            let (first, last) = (range.start, range.end - 1);
            head.extend_from_slice(format!("content-range: bytes {first}-{last}/{length}\r\n\r\n").as_bytes());
            head
        })
        .collect();
    let last = format!("\r\n--{boundary}--\r\n");
    let total = heads.iter().map(|h| h.len() as u64).sum::<u64>()
        + ranges.iter().map(|r| r.end - r.start).sum::<u64>()
        + last.len() as u64;
    let mut fields = without_length(stored.fields(), b"content-type");
    fields.extend_from_slice(format!("content-type: multipart/byteranges; boundary={boundary}\r\n").as_bytes());
    exchange.head(206, &[dynamic, &fields], BodyLength::Known(total));
    for (head, range) in heads.iter().zip(ranges) {
        exchange.body(&[head]).await?;
        *bytes += head.len() as u64;
        if !send_range(stored, &mut source, range.clone(), bytes, exchange).await? {
            exchange.flush().await?;
            return Ok(false);
        }
    }
    exchange.body(&[last.as_bytes()]).await?;
    *bytes += last.len() as u64;
    exchange.finish().await?;
    Ok(true)
}

fn without_length(fields: Fields<'_>, also: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(fields.as_bytes().len() + 64);
    for line in fields.lines() {
        if !line.is("content-length") && !line.name.eq_ignore_ascii_case(also) {
            line.write(&mut kept);
        }
    }
    kept
}

/// The field lines of a head answered without a body of its own (HEAD of an unstored response).
pub fn with_content_length(fields: &[u8], length: Option<u64>) -> Vec<u8> {
    let mut block = fields.to_vec();
    if let Some(length) = length {
        write_content_length(length, &mut block);
    }
    block
}
