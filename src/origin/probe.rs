//! Active checks: each over a connection of its own, from start to start in the interval, or in half of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use edge_config::section::health::{CHECKED_BODY_MAX, Check, HttpCheck};
use pingora::BError;
use pingora::http::RequestHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::fetch::{send_head, target_for};
use super::group::{Member, Origins};
use super::prepare::{Payload, prepare};
use super::serving;
use crate::clock;

/// Kept apart from the connections of requests: a check that found one in the pool would say nothing about new ones.
const GROUP: u64 = 0x6865_616c_7468;

/// Checks a member until nobody has it any more.
pub async fn watch(member: Weak<Member>, origins: Arc<Origins>) {
    let Some(every) = member.upgrade().and_then(|member| Some(member.check_settings()?.0.interval.get())) else {
        return;
    };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let started = ticks.tick().await;
        let Some(member) = member.upgrade() else { return };
        let Some((health, _)) = member.check_settings() else { return };
        let limit = health.timeout.get();
        let result = timeout(limit, check(&member, limit, &origins)).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())));
        let pause = member.checked(result, every, &origins.metrics);
        if pause < every {
            // In the past when the check took longer: then it is time.
            ticks.reset_at(started + pause);
        }
    }
}

async fn check(member: &Member, limit: Duration, origins: &Origins) -> Result<(), String> {
    let Some((health, host)) = member.check_settings() else { return Ok(()) };
    let mut peer = member.to_connect(limit, None);
    peer.group_key ^= GROUP;
    // One stream to a connection, so that there is no connection the next check could find.
    peer.options.max_h2_streams = 1;
    match &health.check {
        Check::Http(_) | Check::Tls => {}
        Check::Tcp => (peer.scheme, peer.options.alpn) = (Scheme::HTTP, ALPN::H1),
        // Whatever requests use.
        Check::Grpc { .. } => peer.options.alpn = ALPN::H2,
    }
    let connected = origins.connector.get_http_session(&peer).await;
    let (mut session, _) = connected.map_err(|error| format!("no connection: {}", error.etype().as_str()))?;
    if !member.peer.accepts(session.digest()) {
        return Err("no connection: an older version of TLS than may be spoken".into());
    }
    let host = match health.host() {
        Some(host) => host.as_bytes().to_vec(),
        None => member.host_header(host.unwrap_or_default().as_bytes()),
    };
    let result = match &health.check {
        Check::Tcp | Check::Tls => Ok(()),
        Check::Http(asked) => {
            let header = head(member, "GET", &asked.path, &host, Payload::Empty, &[]);
            http(&mut session, &peer, header, asked).await
        }
        Check::Grpc { service, .. } => {
            let fields = [("content-type", "application/grpc"), ("te", "trailers")];
            let header = head(member, "POST", serving::PATH, &host, Payload::Streamed, &fields);
            grpc(&mut session, &peer, header, service).await
        }
    };
    // The connection ends with the check: the rest of a body is not read.
    session.shutdown().await;
    result
}

/// Asks for a path. The status has to be one of those that pass, and the body to contain what it should.
async fn http(
    session: &mut HttpSession,
    peer: &HttpPeer,
    header: Option<RequestHeader>,
    asked: &HttpCheck,
) -> Result<(), String> {
    let header = target_for(session, peer, header.ok_or("the check cannot be written")?).ok_or("no such host")?;
    send_head(session, header).await.map_err(|error| unanswered(&error))?;
    let status = status(session).await?;
    if !asked.status.iter().any(|range| range.contains(status)) {
        return Err(format!("status {status}"));
    }
    let Some(text) = asked.body.as_deref() else { return Ok(()) };
    let mut body = Vec::new();
    loop {
        let piece = session.read_response_body().await.map_err(|error| unanswered(&error))?;
        let Some(piece) = piece else { break };
        let looked_at = body.len().saturating_sub(text.len());
        body.extend_from_slice(piece.get(..CHECKED_BODY_MAX - body.len()).unwrap_or(&piece));
        if body.get(looked_at..).is_some_and(|new| memchr::memmem::find(new, text.as_bytes()).is_some()) {
            return Ok(());
        }
        if body.len() == CHECKED_BODY_MAX {
            break;
        }
    }
    Err(format!("status {status}, and not the text in the first {} bytes of its body", body.len()))
}

/// Asks whether a service serves.
async fn grpc(
    session: &mut HttpSession,
    peer: &HttpPeer,
    header: Option<RequestHeader>,
    service: &str,
) -> Result<(), String> {
    let header = target_for(session, peer, header.ok_or("the check cannot be written")?).ok_or("no such host")?;
    let HttpSession::H2(stream) = session else { return Err("no HTTP/2".into()) };
    stream.write_request_header(Box::new(header), false).map_err(|error| unanswered(&error))?;
    let question = serving::question(service).into();
    stream.write_request_body(question, true).await.map_err(|error| unanswered(&error))?;
    stream.read_response_header().await.map_err(|error| unanswered(&error))?;
    let head = stream.response_header().map(|head| (head.status.as_u16(), grpc_status(&head.headers)));
    let (status, early) = head.unwrap_or_default();
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let mut answer = Vec::new();
    while let Some(piece) = stream.read_response_body().await.map_err(|error| unanswered(&error))? {
        answer.extend_from_slice(&piece);
        if answer.len() > serving::ANSWER_MAX {
            return Err("too long an answer".into());
        }
    }
    // One that has nothing to say puts it where the head is.
    let status = match early {
        Some(status) => Some(status),
        None => stream.read_trailers().await.ok().flatten().and_then(|trailers| grpc_status(&trailers)),
    };
    match status.as_deref() {
        Some("0") => serving::verdict(&answer).map_err(str::to_owned),
        Some(status) => Err(format!("grpc-status {status}")),
        None => Err("no grpc-status".into()),
    }
}

/// The head of a check, with all that requests to this origin get.
fn head(
    member: &Member,
    method: &str,
    path: &str,
    host: &[u8],
    payload: Payload,
    fields: &[(&'static str, &'static str)],
) -> Option<RequestHeader> {
    let mut header = RequestHeader::build(method, path.as_bytes(), Some(4)).ok()?;
    header.insert_header(http::header::USER_AGENT, concat!("littoral/", env!("CARGO_PKG_VERSION"))).ok()?;
    for (name, value) in fields {
        header.insert_header(*name, *value).ok()?;
    }
    prepare(member, host, payload, clock::wall(), &mut header)?;
    Some(header)
}

/// The status of the final response.
async fn status(session: &mut HttpSession) -> Result<u16, String> {
    session.read_response_header().await.map_err(|error| unanswered(&error))?;
    Ok(session.response_header().map_or(0, |head| head.status.as_u16()))
}

fn grpc_status(fields: &http::HeaderMap) -> Option<String> {
    fields.get("grpc-status").map(|status| String::from_utf8_lossy(status.as_bytes()).into_owned())
}

fn unanswered(error: &BError) -> String {
    format!("no answer: {}", error.etype().as_str())
}
