//! What failed, whether it is tried again, and what the client is told.

use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{BError, Error, ErrorType};

use super::passed::Passed;
use super::response::append_cache_status;
use crate::origin::Failure;
use crate::pipeline::failure::{RETRY_AFTER_SECONDS, page, passes};
use crate::semantics::cache_status::{CacheStatus, Reason};

/// The error when every origin has as many requests as it may.
pub(super) const BUSY: &str = "OriginBusy";

/// The error when the origin of a session cannot be asked, and no other may be.
pub(super) const REFUSED: &str = "SessionRefused";

/// The error for an answer that another origin may better.
pub(super) const BETTERED: &str = "Bettered";

/// Whether a request may be sent once more: it is idempotent, all of it is still there, and nothing has been answered.
pub(super) fn is_repeatable(session: &Session) -> bool {
    session.req_header().method.is_idempotent()
        && !session.as_ref().retry_buffer_truncated()
        && session.response_written().is_none()
}

/// Answers instead of an origin.
pub(super) async fn respond(
    session: &mut Session,
    passed: Option<&Passed>,
    status: u16,
    cache_status: &CacheStatus,
) -> Result<(), BError> {
    let site = passed.map(|passed| passed.site.as_ref());
    let (content_type, body) = page(site, status, cache_status);
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    response.insert_header(http::header::CONTENT_TYPE, content_type)?;
    response.insert_header(http::header::CACHE_CONTROL, "no-store")?;
    if cache_status.detail.is_some_and(passes) {
        response.insert_header(http::header::RETRY_AFTER, RETRY_AFTER_SECONDS)?;
    }
    if cache_status.detail == Some(Reason::SessionRefused)
        && let Some(cookie) = passed.and_then(Passed::last_cookie)
    {
        response.insert_header(http::header::SET_COOKIE, cookie)?;
    }
    if site.is_none_or(|site| site.cache_status) {
        append_cache_status(&mut response, cache_status, "")?;
    }
    session.set_keepalive(None);
    session.write_response_header(Box::new(response), false).await?;
    session.write_response_body(Some(body.into_owned().into()), true).await
}

/// A body that breaks its own framing is the client's fault, and it is still there to be told.
pub(super) fn is_client_fault(error: &Error) -> bool {
    !matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed)
}

/// What an error of the proxy is to us.
pub(super) fn failure_of(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::Custom(BUSY) => Failure::Busy,
        ErrorType::Custom(REFUSED) => Failure::SessionRefused,
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::ConnectProxyFailure
        | ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert => Failure::Unreachable,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::FirstByteTimeout,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Failure::Closed,
        _ => Failure::Malformed,
    }
}
