//! A request's log record and metrics: written once, when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_config::section::geo::Country;

use crate::clock;
use crate::front::Peer;
use crate::front::gate::{Head, Refusal};
use crate::pipeline::request::Outcome;
use crate::routing::Site;
use crate::store::key::CacheKey;
use crate::telemetry::access_log::{AccessLog, Record};
use crate::telemetry::metrics::{CacheOutcome, Metrics};

/// What is known of a request before it is answered.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub peer: Peer,
    /// None: no site answers for the host.
    pub site: Option<&'a Arc<Site>>,
    pub head: &'a Head<'a>,
    pub started: Instant,
    pub proto: &'static str,
}

/// When an answer began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// None: nothing was sent, or it is not known.
    pub first_byte: Option<Instant>,
    pub ended: Instant,
}

impl Times {
    /// Of an answer that ends now.
    pub fn ended(first_byte: Option<Instant>) -> Self {
        Self { first_byte, ended: clock::monotonic() }
    }
}

impl Seen<'_> {
    /// Whether what the client says of itself in `X-Forwarded-*` and the like is believed.
    pub fn trusted(&self) -> bool {
        self.peer.relayed || self.site.is_some_and(|site| site.trusts(self.peer.client))
    }
}

/// Where records and counts go.
pub struct Log {
    access_log: Arc<AccessLog>,
    metrics: Arc<Metrics>,
    /// Request ids: unique to this process by its random half, in order by the other.
    node: u64,
    next: AtomicU64,
}

/// A request id, not yet written out: most requests never need it.
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    node: u64,
    number: u64,
}

impl RequestId {
    /// 32 hexadecimal digits, as a trace id is written.
    pub fn text(self) -> String {
        format!("{:016x}{:016x}", self.node, self.number)
    }
}

impl Log {
    pub fn new(access_log: Arc<AccessLog>, metrics: Arc<Metrics>, node: u64) -> Self {
        Self { access_log, metrics, node, next: AtomicU64::new(1) }
    }

    pub fn next_id(&self) -> RequestId {
        RequestId { node: self.node, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Records a request that is over.
    pub fn write(
        &self,
        seen: &Seen<'_>,
        outcome: &Outcome,
        times: Times,
        key: Option<CacheKey>,
        trace_id: Option<&str>,
    ) {
        let since = |at: Instant| at.saturating_duration_since(seen.started);
        let total = since(times.ended);
        // Answers of one go begin as they end.
        let ttfb = times.first_byte.map(|at| if at == times.ended { total } else { since(at) });
        if let Some(site) = seen.site {
            self.metrics.request(site.index, outcome.cache, outcome.status, outcome.bytes);
        }
        if let Some(ttfb) = ttfb {
            self.metrics.ttfb(outcome.cache, ttfb.as_secs_f64());
        }
        if self.access_log.is_off() {
            return;
        }
        let country = seen.site.and_then(|site| site.geo.as_ref()?.country(seen.peer.client));
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let backing = seen.site.map(|site| site.backing(outcome.group));
        let origin = backing.and_then(|backing| backing.group.label_of(outcome.origin?));
        self.access_log.record(&Record {
            ts: clock::wall_at(times.ended),
            site: seen.site.map_or("", |site| &site.name),
            client: Some(seen.peer.client),
            country: country.as_ref().map(Country::as_str),
            method: seen.head.method.as_str(),
            host: seen.head.host,
            target: seen.head.target,
            status: outcome.status,
            bytes: outcome.bytes,
            cache: outcome.cache.as_str(),
            reason: outcome.reason.map(|reason| reason.as_str()),
            key: key.map(|key| key.as_u128()),
            ttl: outcome.ttl,
            age: outcome.age,
            ttfb_us: ttfb.map(us),
            total_us: us(total),
            group: backing.map_or("", |backing| &backing.name),
            origin: origin.as_deref(),
            retries: outcome.retries,
            proto: seen.proto,
            tls: seen.peer.tls,
            trace_id,
            tier: (outcome.cache == CacheOutcome::Hit).then_some(if outcome.from_disk { "disk" } else { "memory" }),
        });
    }

    /// Records bytes that were no request.
    pub fn refused(&self, peer: Peer, proto: &str, refusal: Refusal, bytes: u64, started: Instant) {
        self.metrics.refusal(refusal.as_str());
        if self.access_log.is_off() {
            return;
        }
        let total = clock::monotonic().saturating_duration_since(started);
        self.access_log.record(&Record {
            ts: clock::wall(),
            site: "",
            client: Some(peer.client),
            method: "",
            host: b"",
            target: b"",
            status: refusal.status(),
            bytes,
            cache: CacheOutcome::Error.as_str(),
            reason: Some(refusal.as_str()),
            key: None,
            ttl: None,
            age: None,
            ttfb_us: None,
            total_us: u64::try_from(total.as_micros()).unwrap_or(u64::MAX),
            group: "",
            country: None,
            origin: None,
            retries: 0,
            proto,
            tls: peer.tls,
            trace_id: None,
            tier: None,
        });
    }

    /// Counts a well-formed request that is not served.
    pub fn count_refusal(&self, reason: &'static str) {
        self.metrics.refusal(reason);
    }

    /// Counts a handshake that succeeded.
    pub fn handshake(&self, version: &'static str, resumed: bool) {
        self.metrics.handshake(version, resumed);
    }

    /// Counts a connection that was closed without an answer.
    pub fn dropped(&self, reason: &'static str) {
        self.metrics.refusal(reason);
    }
}
