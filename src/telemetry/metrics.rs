//! The metrics, in the Prometheus text format.
//!
//! The table below is the one source: a row is a field to count with, the name and labels of the family, and a comment
//! that is also its help text. A family with labels shows only what has happened: no sample is there before its event.
//! What every request touches is a handle found by index; the rest is looked up by label.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::tally::Tallies;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

macro_rules! families {
    ($(#[doc = $help:literal] $field:ident: $kind:ident = $name:literal [$($label:literal),*];)*) => {
        /// Handles to every family.
        struct Families {
            $(#[doc = $help] $field: $kind,)*
        }

        impl Families {
            fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self { $($field: register(registry, $name, $help, &[$($label),*])?,)* })
            }
        }

        /// The rows: name, labels and help.
        #[cfg(test)]
        const TABLE: &[(&str, &[&str], &str)] = &[$(($name, &[$($label),*], $help)),*];
    };
}

families! {
    /// Requests that ended, by what the cache did for them.
    requests: IntCounterVec = "littoral_requests_total" ["site", "cache", "status"];
    /// Bytes of response bodies sent to clients.
    response_bytes: IntCounterVec = "littoral_response_bytes_total" ["site", "cache"];
    /// Seconds from the last byte of a request's head to the first byte of the answer.
    ttfb: HistogramVec = "littoral_ttfb_seconds" ["cache"];
    /// Connections and requests that were refused.
    refusals: IntCounterVec = "littoral_refusals_total" ["reason"];
    /// TLS handshakes with clients that succeeded.
    tls_handshakes: IntCounterVec = "littoral_tls_handshakes_total" ["version", "resumed"];
    /// When each certificate ends, in seconds since 1970; those that a site has brought itself have its name.
    certificate_expiry: IntGaugeVec = "littoral_certificate_expiry_seconds" ["certificate", "site"];
    /// Orders of certificates with an authority, by what became of them.
    certificate_orders: IntCounterVec = "littoral_certificate_orders_total" ["outcome"];
    /// Questions to OCSP responders whether a certificate is revoked, by what came of them: good, revoked or failed.
    ocsp_requests: IntCounterVec = "littoral_ocsp_requests_total" ["outcome"];
    /// Certificates whose handshakes carry the word of an OCSP responder now.
    ocsp_staples: IntGauge = "littoral_ocsp_staples" [];
    /// The configuration in force; counts up from 1 with every reload, and with every change that the hub brings.
    config_version: IntGauge = "littoral_config_version" [];
    /// Configurations that were refused, the ones before them still in force: files, and versions that the hub has.
    config_rejects: IntCounter = "littoral_config_rejects_total" [];
    /// Connections from clients that are open now.
    connections: IntGauge = "littoral_connections" [];
    /// Requests sent to origins, by what became of them.
    origin_requests: IntCounterVec = "littoral_origin_requests_total" ["site", "origin", "outcome"];
    /// 1 where an origin gets requests, 0 where its checks or its answers say that it is not up.
    origin_up: IntGaugeVec = "littoral_origin_up" ["site", "origin", "address"];
    /// 1 where an origin is being taken out: it gets no new sessions, and after its time nothing.
    origin_draining: IntGaugeVec = "littoral_origin_draining" ["site", "origin", "address"];
    /// Requests to an origin that are under way, their bodies included.
    origin_in_flight: IntGaugeVec = "littoral_origin_in_flight" ["site", "origin", "address"];
    /// Requests that wait now because every origin of their group has as many as it may.
    origin_queue: IntGaugeVec = "littoral_origin_queue" ["site", "group"];
    /// Requests that no origin had room for, nor the queue.
    origin_rejected: IntCounterVec = "littoral_origin_rejected_total" ["site", "group"];
    /// Times an origin was to be left alone because requests failed: ejected, or withheld as too many are out already.
    origin_ejections: IntCounterVec = "littoral_origin_ejections_total" ["site", "origin", "outcome"];
    /// Second requests for what an origin had not begun to answer: won, when the second origin was faster, or lost.
    origin_hedges: IntCounterVec = "littoral_origin_hedges_total" ["site", "outcome"];
    /// Seconds from asking an origin to the head of its answer.
    origin_seconds: Histogram = "littoral_origin_seconds" [];
    /// Copies of requests sent to groups that nobody waits for, by what became of them.
    mirrored: IntCounterVec = "littoral_mirror_requests_total" ["site", "group", "outcome"];
    /// Requests that were to be copied and were not.
    mirror_dropped: IntCounterVec = "littoral_mirror_dropped_total" ["site", "group", "reason"];
    /// Requests that wait now for a response another request is fetching.
    fill_waiters: IntGauge = "littoral_fill_waiters" [];
    /// Bytes of memory taken now by responses that are arriving.
    fill_bytes: IntGauge = "littoral_fill_bytes" [];
    /// Requests sent to other nodes, by what those were asked as and what became of it.
    node_requests: IntCounterVec = "littoral_node_requests_total" ["role", "outcome"];
    /// Times an origin broke off an answer and it went on with the rest from a further request.
    fills_resumed: IntCounterVec = "littoral_fills_resumed_total" ["site"];
    /// Bytes of stored responses.
    store_bytes: IntGaugeVec = "littoral_store_bytes" ["tier"];
    /// Stored responses.
    store_objects: IntGaugeVec = "littoral_store_objects" ["tier"];
    /// Stored responses that made room for others.
    store_evictions: IntCounterVec = "littoral_store_evictions_total" ["tier", "reason"];
    /// Storable responses, by whether they were stored.
    store_admissions: IntCounterVec = "littoral_store_admissions_total" ["tier", "outcome"];
    /// Frames of stored responses that a disk did not take, or lost: it was too slow, full or broken.
    lost_writes: IntCounterVec = "littoral_store_lost_writes_total" ["reason"];
    /// 1 where a disk of the cache is in use, 0 where it is not.
    disk_up: IntGaugeVec = "littoral_disk_up" ["disk"];
    /// Bytes written to the disks of the cache.
    disk_written: IntCounter = "littoral_disk_written_bytes_total" [];
    /// Frames read from disks that were not what had been written. Each was a miss.
    disk_damaged: IntCounter = "littoral_disk_damaged_total" [];
    /// Seconds a frame took to be read from a disk, or from the system's memory of it.
    disk_read: Histogram = "littoral_disk_read_seconds" [];
    /// Seconds some frames took to be written.
    disk_write: Histogram = "littoral_disk_write_seconds" [];
    /// The position in the purge log up to which everything is applied.
    purge_applied_seq: IntGauge = "littoral_purge_applied_seq" [];
    /// Records of the purge log that are not applied yet, as far as the node knows: what it catches up with.
    purge_lag: IntGauge = "littoral_purge_lag_records" [];
    /// Purges asked for on this node that wait for the hub.
    purge_pending: IntGauge = "littoral_purges_pending" [];
    /// 1 while the node knows every purge there is; 0 when it is isolated and validates what it has stored before it is used.
    current: IntGauge = "littoral_current" [];
    /// Things that purges asked for on this node named, by site, kind and what becomes of what they name.
    purges: IntCounterVec = "littoral_purges_total" ["site", "kind", "mode"];
    /// Seconds from the acceptance of a purge until it was on disk and in force.
    purge_seconds: Histogram = "littoral_purge_apply_seconds" [];
    /// Stored responses that were taken out because they had been purged.
    reclaimed: IntCounter = "littoral_store_reclaimed_total" [];
    /// Times the purge log was lost, and with it everything that was stored before.
    floor_resets: IntCounter = "littoral_floor_resets_total" [];
    /// Access-log records that were lost because their target did not take them.
    access_log_dropped: IntCounter = "littoral_access_log_dropped_total" [];
    /// Always 1; the labels say which build this is.
    build_info: IntGaugeVec = "littoral_build_info" ["version"];
}

/// The two tiers.
const MEMORY: &str = "memory";
const DISK: &str = "disk";
/// Why a stored response is gone: its place was needed.
const CAPACITY: &str = "capacity";

/// From a hit in memory (0.1 ms) to an origin that all but timed out (10 s), in seconds.
const BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The statuses with three digits; one more place counts the rest, so that an origin cannot make up labels.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;
const OTHER_STATUS: usize = 500;
const _: () = assert!(*STATUSES.end() as usize - *STATUSES.start() as usize + 1 == OTHER_STATUS);

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// Answered from the store.
    Hit,
    /// Answered from the store with a response that is no longer fresh.
    Stale,
    /// Answered from the store after the origin said that nothing had changed.
    Revalidated,
    /// Fetched for this request.
    Miss,
    /// Fetched for another request that asked for the same.
    Collapsed,
    /// Not for the cache: the origin's answer as it came.
    Pass,
    /// An answer of our own, because there was no other.
    Error,
}

impl CacheOutcome {
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Stale, Self::Revalidated, Self::Miss, Self::Collapsed, Self::Pass, Self::Error];

    /// The label in metrics and the value in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Error => "error",
        }
    }
}

/// What is read when metrics are asked for, and not counted before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub store_bytes: u64,
    pub store_objects: u64,
    pub fill_bytes: u64,
    pub purge_applied_seq: u64,
    /// Records of the log that are not applied, as far as is known.
    pub purge_lag: u64,
    /// Purges that wait for the hub.
    pub purge_pending: u64,
    /// What is stored can be trusted.
    pub is_current: bool,
    /// None: there is no disk.
    pub disk: Option<DiskLevels>,
}

/// What the disks together have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLevels {
    pub bytes: u64,
    pub objects: u64,
    pub written_bytes: u64,
    pub evicted: u64,
    pub damaged: u64,
}

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// Names of sites, found by index; one that was is never forgotten, so that its counts go on when it comes back.
    sites: RwLock<Vec<String>>,
    tallies: Tallies,
    /// Requests that wait now for a response another request is fetching.
    pub fill_waiters: IntGauge,
    /// Connections from clients that are open now.
    pub connections: IntGauge,
    /// Stored responses that made room for others, in memory.
    pub store_evictions: StoreEvictions,
    /// Access-log records that were lost because their target did not take them.
    pub access_log_dropped: IntCounter,
}

/// A count of evictions that is not shown before the first one.
pub struct StoreEvictions {
    family: IntCounterVec,
    memory: OnceLock<IntCounter>,
}

/// How a site, an outcome and a status make one number of a tally: statuses stand for themselves, 0 for any other.
const OUTCOMES: u32 = CacheOutcome::ALL.len() as u32;
const STATUS_NUMBERS: u32 = 1_000;
const BYTES_NUMBER: u32 = 999;
const _: () = assert!(*STATUSES.end() < 999);

impl Metrics {
    pub fn new(version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let families = Families::register(&registry).expect("the names in the table are valid and differ");
        families.build_info.with_label_values(&[version]).set(1);
        Arc::new(Self {
            sites: RwLock::default(),
            tallies: Tallies::default(),
            fill_waiters: families.fill_waiters.clone(),
            connections: families.connections.clone(),
            store_evictions: StoreEvictions { family: families.store_evictions.clone(), memory: OnceLock::new() },
            access_log_dropped: families.access_log_dropped.clone(),
            registry,
            families,
        })
    }

    /// The index a site is counted by.
    pub fn site(&self, name: &str) -> usize {
        let mut sites = self.sites.write();
        sites.iter().position(|site| site == name).unwrap_or_else(|| {
            sites.push(name.to_owned());
            sites.len() - 1
        })
    }

    fn site_name(&self, index: usize) -> String {
        self.sites.read().get(index).cloned().unwrap_or_default()
    }

    /// Counts a request that ended, and the `bytes` of the body that were sent.
    pub fn request(&self, site: usize, cache: CacheOutcome, status: u16, bytes: u64) {
        let known = STATUSES.contains(&status);
        let index = if known { u32::from(status) } else { 0 };
        let number = (u32::try_from(site).unwrap_or(0) * OUTCOMES + cache as u32) * STATUS_NUMBERS;
        self.tallies.add(number + index, 1, || {
            let digits = status.to_string();
            let status = if known { digits.as_str() } else { "other" };
            self.families.requests.with_label_values(&[self.site_name(site).as_str(), cache.as_str(), status])
        });
        if bytes > 0 {
            self.tallies.add(number + BYTES_NUMBER, bytes, || {
                self.families.response_bytes.with_label_values(&[self.site_name(site).as_str(), cache.as_str()])
            });
        }
    }

    /// Observes the seconds to the first byte of an answer.
    pub fn ttfb(&self, cache: CacheOutcome, seconds: f64) {
        self.tallies.observe(cache as u32, seconds, || self.families.ttfb.with_label_values(&[cache.as_str()]));
    }

    /// Counts something a purge named.
    pub fn purged(&self, site: &str, kind: &str, mode: &str) {
        self.families.purges.with_label_values(&[site, kind, mode]).inc();
    }

    /// Observes the seconds a purge took.
    pub fn purge_applied(&self, seconds: f64) {
        self.families.purge_seconds.observe(seconds);
    }

    /// Counts stored responses that were taken out because they had been purged.
    pub fn reclaimed(&self, count: u64) {
        self.families.reclaimed.inc_by(count);
    }

    /// The purge log was lost.
    pub fn floor_reset(&self) {
        self.families.floor_resets.inc();
    }

    /// A configuration is in force.
    pub fn configured(&self, version: u64) {
        self.families.config_version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// Counts a configuration that was refused.
    pub fn config_refused(&self) {
        self.families.config_rejects.inc();
    }

    /// Counts a connection or a request that was refused.
    pub fn refusal(&self, reason: &'static str) {
        self.families.refusals.with_label_values(&[reason]).inc();
    }

    /// Counts a request to another node: `ok`, `failed` where the origins have, or why somebody else was asked.
    pub fn node_request(&self, role: &'static str, outcome: &'static str) {
        self.families.node_requests.with_label_values(&[role, outcome]).inc();
    }

    /// Counts an answer that goes on after it broke off.
    pub fn fill_resumed(&self, site: usize) {
        self.families.fills_resumed.with_label_values(&[self.site_name(site).as_str()]).inc();
    }

    /// Counts a storable response; `outcome` is `stored`, `too-large`, `memory-full` or `superseded`.
    pub fn admission(&self, outcome: &'static str) {
        self.families.store_admissions.with_label_values(&[MEMORY, outcome]).inc();
    }

    /// The same for the disk tier; `outcome` is `stored`, `first-time`, `small`, `crowding` or `busy`.
    pub fn disk_admission(&self, outcome: &'static str) {
        self.families.store_admissions.with_label_values(&[DISK, outcome]).inc();
    }

    /// Counts frames that were to be written and are not; `reason` is `busy` or `failed`.
    pub fn disk_lost(&self, reason: &'static str, frames: u64) {
        self.families.lost_writes.with_label_values(&[reason]).inc_by(frames);
    }

    /// Says whether a disk is in use.
    pub fn disk_up(&self, disk: &str, up: bool) {
        self.families.disk_up.with_label_values(&[disk]).set(i64::from(up));
    }

    /// Observes the seconds a frame took to be read.
    pub fn disk_read(&self, seconds: f64) {
        self.families.disk_read.observe(seconds);
    }

    /// Observes the seconds some frames took to be written.
    pub fn disk_write(&self, seconds: f64) {
        self.families.disk_write.observe(seconds);
    }

    /// Requests that ended, by what the cache did for them, all sites together.
    pub fn requests_by_outcome(&self) -> Vec<(String, serde_json::Value)> {
        self.tallies.flush();
        let mut counts = [0.0; CacheOutcome::ALL.len()];
        for family in self.families.requests.collect() {
            for sample in family.get_metric() {
                let of = |outcome: &CacheOutcome| {
                    let mut labels = sample.get_label().iter();
                    labels.any(|label| label.name() == "cache" && label.value() == outcome.as_str())
                };
                if let Some(count) = CacheOutcome::ALL.iter().position(of).and_then(|at| counts.get_mut(at)) {
                    *count += sample.get_counter().get_value();
                }
            }
        }
        let named = CacheOutcome::ALL.iter().zip(counts);
        named.map(|(outcome, count)| (outcome.as_str().to_owned(), (count as u64).into())).collect()
    }

    /// Everything, in the text format 0.0.4.
    pub fn encode(&self, levels: &Levels) -> String {
        self.bring_up_to_date(levels);
        in_text(&self.registry.gather())
    }

    fn bring_up_to_date(&self, levels: &Levels) {
        self.tallies.flush();
        let set = |gauge: &IntGauge, level: u64| gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        set(&self.families.store_bytes.with_label_values(&[MEMORY]), levels.store_bytes);
        set(&self.families.store_objects.with_label_values(&[MEMORY]), levels.store_objects);
        if let Some(disk) = &levels.disk {
            set(&self.families.store_bytes.with_label_values(&[DISK]), disk.bytes);
            set(&self.families.store_objects.with_label_values(&[DISK]), disk.objects);
            let all = |counter: &IntCounter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
            all(&self.families.disk_written, disk.written_bytes);
            all(&self.families.disk_damaged, disk.damaged);
            all(&self.families.store_evictions.with_label_values(&[DISK, CAPACITY]), disk.evicted);
        }
        set(&self.families.fill_bytes, levels.fill_bytes);
        set(&self.families.purge_applied_seq, levels.purge_applied_seq);
        set(&self.families.purge_lag, levels.purge_lag);
        set(&self.families.purge_pending, levels.purge_pending);
        set(&self.families.current, u64::from(levels.is_current));
    }
}

fn in_text(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    let encoded = TextEncoder::new().encode_utf8(families, &mut text);
    debug_assert!(encoded.is_ok(), "{encoded:?}");
    text
}

impl StoreEvictions {
    pub fn inc(&self) {
        self.memory.get_or_init(|| self.family.with_label_values(&[MEMORY, CAPACITY])).inc();
    }
}

/// A kind of family: how one is made.
trait Family: Collector + Clone + Sized + 'static {
    fn make(options: Opts, labels: &[&str]) -> prometheus::Result<Self>;
}

impl Family for IntCounter {
    fn make(options: Opts, _: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(options)
    }
}

impl Family for IntCounterVec {
    fn make(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }
}

impl Family for IntGauge {
    fn make(options: Opts, _: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(options)
    }
}

impl Family for IntGaugeVec {
    fn make(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(options, labels)
    }
}

impl Family for Histogram {
    fn make(options: Opts, _: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::from(options).buckets(BUCKETS.to_vec()))
    }
}

impl Family for HistogramVec {
    fn make(options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(options).buckets(BUCKETS.to_vec()), labels)
    }
}

fn register<F: Family>(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<F> {
    let family = F::make(Opts::new(name, help.trim()), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

mod origins;
pub mod sites;
mod tls;
pub use self::tls::CertificateEnd;
#[cfg(test)]
mod tests;
