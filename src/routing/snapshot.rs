//! One immutable view of everything a request needs. A request uses the one it began with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use edge_config::section::limits::Limits;
use edge_config::section::site::HostPattern;

use super::site::Site;

/// All sites of a node, and the limits requests run into.
pub struct Snapshot {
    /// Counts up with every configuration.
    pub version: u64,
    pub limits: Limits,
    sites: Vec<Arc<Site>>,
    exact: HashMap<Vec<u8>, Arc<Site>, ahash::RandomState>,
    /// By the name that stands behind `*.`.
    below: HashMap<Vec<u8>, Arc<Site>, ahash::RandomState>,
    any: Option<Arc<Site>>,
}

impl Snapshot {
    /// Sites with the hosts each answers for. No two have the same; that is checked where the configuration is read.
    pub fn new(version: u64, limits: Limits, sites: Vec<(Arc<Site>, Vec<HostPattern>)>) -> Self {
        let mut snapshot = Self {
            version,
            limits,
            sites: Vec::new(),
            exact: HashMap::default(),
            below: HashMap::default(),
            any: None,
        };
        for (site, hosts) in sites {
            for host in hosts {
                match host {
                    HostPattern::Any => snapshot.any = Some(site.clone()),
                    HostPattern::Exact(name) => _ = snapshot.exact.insert(name.into_bytes(), site.clone()),
                    HostPattern::Below(name) => _ = snapshot.below.insert(name.into_bytes(), site.clone()),
                }
            }
            snapshot.sites.push(site);
        }
        snapshot
    }

    /// Every site.
    pub fn sites(&self) -> &[Arc<Site>] {
        &self.sites
    }

    /// The site that answers for the value of a `Host` field: by its whole name, else by the longest name it is below,
    /// else the site for any.
    pub fn site(&self, host: &[u8]) -> Option<&Arc<Site>> {
        if self.exact.is_empty() && self.below.is_empty() {
            return self.any.as_ref();
        }
        let mut buffer = [0; NAME_BYTES_MAX];
        let name = without_port(host);
        let Some(lower) = buffer.get_mut(..name.len()) else { return self.any.as_ref() };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let lower: &[u8] = lower.strip_suffix(b".").unwrap_or(lower);
        if let Some(site) = self.exact.get(lower) {
            return Some(site);
        }
        let mut rest = lower;
        while let Some(dot) = memchr::memchr(b'.', rest).filter(|_| !self.below.is_empty()) {
            rest = rest.get(dot + 1..).unwrap_or_default();
            if let Some(site) = self.below.get(rest) {
                return Some(site);
            }
        }
        self.any.as_ref()
    }
}

/// The longest name DNS has is 253 characters; a longer one is nobody's.
const NAME_BYTES_MAX: usize = 256;

/// The host of a `Host` value.
pub fn without_port(host: &[u8]) -> &[u8] {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match host.get(..host.len() - digits) {
        Some([name @ .., b':']) => name,
        _ => host,
    }
}

/// The snapshot in force.
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    version: AtomicU64,
}

impl Snapshots {
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        let version = AtomicU64::new(snapshot.version);
        Arc::new(Self { current: ArcSwap::from_pointee(snapshot), version })
    }

    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Brings a connection's snapshot up to date; costs a comparison while nothing has changed.
    pub fn refresh(&self, snapshot: &mut Arc<Snapshot>) {
        if snapshot.version != self.version.load(Ordering::Acquire) {
            *snapshot = self.load();
        }
    }

    /// Swaps everything at once. Requests in flight finish with what they began with.
    pub fn replace(&self, snapshot: Snapshot) {
        let version = snapshot.version;
        self.current.store(Arc::new(snapshot));
        self.version.store(version, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_part_of_a_name() {
        for (host, name) in [
            ("example.org", "example.org"),
            ("example.org:8080", "example.org"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(without_port(host.as_bytes()), name.as_bytes(), "{host}");
        }
    }
}
