//! What is changed in the head of an answer that is passed on.

use pingora::http::ResponseHeader;
use pingora::{BError, Error, ErrorType};

use super::passed::Passed;
use crate::pipeline::deliver::write_group;
use crate::semantics::cache_status::CacheStatus;
use crate::semantics::fields::Fields;

/// RFC 9110 section 7.6.1: neither the hop-by-hop fields nor what `Connection` names crosses.
pub(super) fn strip_hop_by_hop(response: &mut ResponseHeader) {
    use crate::semantics::hop_by_hop::is_hop_by_hop;
    let named: Vec<String> = response
        .headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .filter(|name| !matches!(name.as_str(), "close" | "keep-alive" | "content-length" | "transfer-encoding" | ""))
        .collect();
    for name in named {
        response.remove_header(name.as_str());
    }
    let hop_by_hop: Vec<http::HeaderName> = response
        .headers
        .keys()
        .filter(|name| is_hop_by_hop(name.as_str().as_bytes()) && *name != http::header::TRANSFER_ENCODING)
        .cloned()
        .collect();
    for name in hop_by_hop {
        response.remove_header(&name);
    }
}

/// What the rules of the site do to a response that is not for the store: fields that go, and fields that are set.
pub(super) fn apply_rules(passed: &Passed, response: &mut ResponseHeader) -> Result<(), BError> {
    let Some(matched) = &passed.matched else { return Ok(()) };
    let mut fields = Vec::with_capacity(512);
    for (name, value) in &response.headers {
        fields.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let settings = passed.site.rules.response(matched, response.status.as_u16(), Fields::new(&fields));
    for name in &settings.strip {
        response.remove_header(*name);
    }
    for (name, value) in &settings.set {
        response.insert_header((*name).to_owned(), *value)?;
    }
    Ok(())
}

/// `group`: the name of the group that was asked; empty for the site's own origins.
pub(super) fn append_cache_status(
    response: &mut ResponseHeader,
    status: &CacheStatus,
    group: &str,
) -> Result<(), BError> {
    let mut value = Vec::with_capacity(64);
    status.write(&mut value);
    if !group.is_empty() {
        write_group(group, &mut value);
    }
    let value = http::HeaderValue::from_bytes(&value).map_err(|_| Error::new(ErrorType::InvalidHTTPHeader))?;
    response.append_header("cache-status", value).map(|_| ())
}
