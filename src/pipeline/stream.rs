//! A response that is arriving, to one client: all of it, or the range it asked for as that passes.

use std::io;
use std::ops::Range;

use crate::exchange::{BodyLength, Exchange};
use crate::origin::Failure;
use crate::pipeline::deliver::{not_modified, with_content_length, write_browser_ttl, write_dynamic};
use crate::pipeline::request::{Method, Outcome, Request};
use crate::pipeline::session::write_cookie;
use crate::semantics::cache_status::CacheStatus;
use crate::semantics::fields::Fields;
use crate::semantics::range::{RangePlan, Wanted, plan};
use crate::semantics::time::DeltaSeconds;
use crate::semantics::validation::{Precondition, precondition};
use crate::store::fill::reader::{Next, Reader};
use crate::store::fill::{FillHead, Sharing};
use crate::telemetry::metrics::CacheOutcome;

/// Where the first byte of what is wanted stands, if that can be said without the length of the whole.
pub fn first_byte(wanted: Wanted) -> Option<u64> {
    match wanted {
        Wanted::From { first, .. } => Some(first),
        Wanted::Suffix { .. } => None,
    }
}

/// Whether a response that nobody else may have is not what its request wants: only a part came of what it needs in full,
/// or of which it needs another part.
pub fn must_ask_alone(request: &Request<'_>, head: &FillHead) -> bool {
    let Some(part) = &head.part else { return false };
    match range_of(request, head) {
        RangePlan::One(range) => !part.range().contains(&range.start),
        RangePlan::Whole | RangePlan::Many(_) => true,
        RangePlan::Unsatisfiable => false,
    }
}

/// Which bytes of a response that is arriving answer a request; all of them while its length is not known.
fn range_of(request: &Request<'_>, head: &FillHead) -> RangePlan {
    let (status, length) = match &head.part {
        Some(part) => (200, part.total),
        None => (head.status, head.length),
    };
    match length {
        Some(length) if request.range && request.method == Method::Get => {
            plan(request.fields, Fields::new(&head.fields), status, length)
        }
        _ => RangePlan::Whole,
    }
}

/// Passes the body on as it arrives.
///
/// # Errors
/// The client could not be written to.
pub async fn stream<E: Exchange>(
    request: &Request<'_>,
    mut reader: Reader,
    head: &FillHead,
    status: CacheStatus,
    cache: CacheOutcome,
    exchange: &mut E,
) -> io::Result<Outcome> {
    let fields = Fields::new(&head.fields);
    let age = match &head.sharing {
        Sharing::Stored { freshness, .. } => {
            Some(u64::from(freshness.age_seconds(request.now).0)).filter(|age| *age > 0)
        }
        Sharing::NotStored(_) => None,
    };
    let mut dynamic = Vec::with_capacity(128);
    write_dynamic(Some((request.site, request.group)), age, head.upstream_status.as_deref(), &status, &mut dynamic);
    write_cookie(request, head, &mut dynamic);
    dynamic.extend_from_slice(request.told);
    if let Some(ttl) = head.browser_ttl.filter(|_| request.by_node.is_none()) {
        // What is not stored goes on with the `Age` it came with.
        let told = || fields.first("age").and_then(DeltaSeconds::parse).map(|age| u64::from(age.0));
        write_browser_ttl(ttl, age.or_else(told), &mut dynamic);
    }
    let mut outcome = Outcome::new(head.status, cache, status.detail);
    outcome.age = age;

    if request.conditional {
        let verdict = precondition(request.fields, head.status, fields, request.now);
        if verdict == Precondition::NotModified {
            outcome.status = 304;
            not_modified(fields, &dynamic, exchange).await?;
            return Ok(outcome);
        }
    }
    if request.method == Method::Head || matches!(head.status, 204 | 304) {
        let length = head.length.filter(|_| request.method == Method::Head);
        let block = with_content_length(&head.fields, length);
        exchange.head(head.status, &[&dynamic, &block], BodyLength::None);
        exchange.finish().await?;
        return Ok(outcome);
    }
    let (first, total) = head.part.map_or((0, head.length), |part| (part.first, part.total));
    let wanted = match (range_of(request, head), total) {
        (RangePlan::One(range), Some(total)) => {
            let range = range.start..range.end.min(head.part.map_or(u64::MAX, |part| part.range().end));
            let line = format!("content-range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
            outcome.status = 206;
            let length = BodyLength::Known(range.end - range.start);
            exchange.head(206, &[&dynamic, &head.fields, line.as_bytes()], length);
            Some(range.start - first..range.end - first)
        }
        (RangePlan::Unsatisfiable, Some(total)) => {
            outcome.status = 416;
            let line = format!("content-range: bytes */{total}\r\n");
            exchange.head(416, &[&dynamic, line.as_bytes()], BodyLength::Known(0));
            exchange.finish().await?;
            return Ok(outcome);
        }
        // A set of ranges of what is still arriving: RFC 9110 section 14.2 lets us send all of it.
        _ => {
            let length = head.length.map_or(BodyLength::Unknown, BodyLength::Known);
            exchange.head(head.status, &[&dynamic, &head.fields], length);
            None
        }
    };
    let passed = pass(&mut reader, wanted, &mut outcome.bytes, exchange).await?;
    match passed {
        Ok(()) => exchange.finish().await?,
        Err(failure) => {
            // What the client has must not look complete: no last chunk, and the connection goes.
            exchange.flush().await?;
            outcome.complete = false;
            outcome.reason = Some(failure.reason());
        }
    }
    Ok(outcome)
}

/// Passes on what a fill brings, or these bytes of it.
async fn pass<E: Exchange>(
    reader: &mut Reader,
    wanted: Option<Range<u64>>,
    bytes: &mut u64,
    exchange: &mut E,
) -> io::Result<Result<(), Failure>> {
    let mut left = wanted.as_ref().map_or(u64::MAX, |range| range.end - range.start);
    if let Some(range) = &wanted {
        reader.skip_to(range.start);
    }
    while left > 0 {
        let piece = match reader.try_next() {
            Ok(Next::Piece(piece)) => piece,
            Ok(Next::OnDisk(on_disk)) => match reader.read(&on_disk).await {
                Ok(piece) => piece,
                Err(failure) => return Ok(Err(failure)),
            },
            Ok(Next::NotYet) => {
                exchange.flush().await?;
                tokio::select! {
                    biased;
                    () = reader.ready() => {}
                    () = exchange.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
                }
                continue;
            }
            Ok(Next::End) if wanted.is_some() => return Ok(Err(Failure::Closed)),
            Ok(Next::End) => break,
            Err(failure) => return Ok(Err(failure)),
        };
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        exchange.body(&[piece.get(..fits).unwrap_or_default()]).await?;
        *bytes += fits as u64;
        left -= fits as u64;
    }
    Ok(Ok(()))
}
