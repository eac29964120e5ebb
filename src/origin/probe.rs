//! Active checks: a GET over a connection of its own, from start to start in the interval.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora::http::RequestHeader;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::fetch::{send_head, target_for};
use super::group::{Member, Origins};

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
        ticks.tick().await;
        let Some(member) = member.upgrade() else { return };
        let Some((health, _)) = member.check_settings() else { return };
        let limit = health.timeout.get();
        let result = timeout(limit, check(&member, limit, &origins)).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())));
        member.checked(result, &origins.metrics);
    }
}

async fn check(member: &Member, limit: Duration, origins: &Origins) -> Result<(), String> {
    let Some((health, host)) = member.check_settings() else { return Ok(()) };
    let mut peer = member.peer.resolve(limit).await.map_err(|failure| failure.to_string())?;
    peer.group_key ^= GROUP;
    // One stream to a connection, so that there is no connection the next check could find.
    peer.options.max_h2_streams = 1;
    let host = host.map_or_else(Vec::new, |host| host.as_bytes().to_vec());
    let host = match health.host.as_deref() {
        Some(host) => host.as_bytes(),
        None => member.peer.host_header(&host),
    };
    let connected = origins.connector.get_http_session(&peer).await;
    let (mut session, _) = connected.map_err(|error| {
        member.peer.turn();
        format!("no connection: {}", error.etype().as_str())
    })?;
    let header = || {
        let mut header = RequestHeader::build("GET", health.path.as_bytes(), Some(2)).ok()?;
        header.insert_header(http::header::HOST, http::HeaderValue::from_bytes(host).ok()?).ok()?;
        header.insert_header(http::header::USER_AGENT, concat!("littoral/", env!("CARGO_PKG_VERSION"))).ok()?;
        Some(header)
    };
    let header = target_for(&session, &peer, header().ok_or("the check cannot be written")?).ok_or("no such host")?;
    let closed = |error: pingora::BError| format!("no answer: {}", error.etype().as_str());
    send_head(&mut session, header).await.map_err(closed)?;
    session.read_response_header().await.map_err(closed)?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    // The connection ends with the check: its body is not read.
    session.shutdown().await;
    if health.status.iter().any(|range| range.contains(status)) { Ok(()) } else { Err(format!("status {status}")) }
}
