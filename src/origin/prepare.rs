//! What a request gets on its way to one origin and no other: its host, the origin's secrets, its signature.
//!
//! Whatever asks an origin comes through here: fetches, what is passed on, and checks.

use edge_config::section::talking::Signing;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::member::Member;
use super::sigv4::{self, EMPTY_PAYLOAD, Signed, UNSIGNED_PAYLOAD};
use crate::semantics::time::UnixMs;

/// Whether a body follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Empty,
    /// It is not there yet, or not all of it.
    Streamed,
}

/// Makes the head of a request that of one to this origin, which is asked as `host`. None: it cannot be one.
///
/// Each attempt is prepared for itself: another origin has other secrets, and a signature is not valid for long.
pub fn prepare(member: &Member, host: &[u8], payload: Payload, now: UnixMs, header: &mut RequestHeader) -> Option<()> {
    header.insert_header(HOST, HeaderValue::from_bytes(host).ok()?).ok()?;
    let talking = &member.peer.origin().talking;
    for (name, secret) in &talking.fields {
        let mut value = HeaderValue::from_bytes(secret.expose().as_bytes()).ok()?;
        value.set_sensitive(true);
        header.insert_header(HeaderName::from_bytes(name.as_bytes()).ok()?, value).ok()?;
    }
    match &talking.signing {
        Some(signing) => sign(signing, payload, now, header),
        None => Some(()),
    }
}

fn sign(signing: &Signing, payload: Payload, now: UnixMs, header: &mut RequestHeader) -> Option<()> {
    // What a client says in these is a command to the service, and would be signed as the node's own.
    let of_client: Vec<HeaderName> =
        header.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned().collect();
    of_client.iter().for_each(|name| _ = header.remove_header(name));
    header.remove_header(&AUTHORIZATION);

    let target = sigv4::normal(header.raw_path(), &signing.service);
    header.set_raw_path(target.as_bytes()).ok()?;
    let stamp = sigv4::stamp(now);
    let payload = if payload == Payload::Empty { EMPTY_PAYLOAD } else { UNSIGNED_PAYLOAD };
    header.insert_header(HeaderName::from_static("x-amz-date"), stamp.as_str()).ok()?;
    header.insert_header(HeaderName::from_static("x-amz-content-sha256"), payload).ok()?;
    if let Some(token) = &signing.session_token {
        header.insert_header(HeaderName::from_static("x-amz-security-token"), token.expose()).ok()?;
    }
    let is_signed = |name: &HeaderName| *name == HOST || *name == CONTENT_TYPE || name.as_str().starts_with("x-amz-");
    let fields: Vec<(&str, &[u8])> = header
        .headers
        .iter()
        .filter(|(name, _)| is_signed(name))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let request = Signed { method: header.method.as_str(), target: &target, fields: &fields, payload, stamp: &stamp };
    let authorization = sigv4::authorization(signing, &request);
    let mut value = HeaderValue::from_str(&authorization).ok()?;
    value.set_sensitive(true);
    header.insert_header(AUTHORIZATION, value).ok()
}
