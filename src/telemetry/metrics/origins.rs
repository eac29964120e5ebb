//! What is counted and said about origins.

use std::net::SocketAddr;

use prometheus::IntCounter;

use super::Metrics;

impl Metrics {
    /// Counts a request to an origin; `outcome` is `ok`, `status-5xx`, `connect`, `timeout`, `closed`, `malformed`, `busy`,
    /// `session-refused` or `abandoned`.
    pub fn origin_request(&self, site: usize, origin: &str, outcome: &'static str) {
        self.families.origin_requests.with_label_values(&[self.site_name(site).as_str(), origin, outcome]).inc();
    }

    /// Forgets which origins get requests: those that are still there say so again.
    pub fn forget_origins(&self) {
        self.families.origin_up.reset();
        self.families.origin_draining.reset();
        self.families.origin_in_flight.reset();
        self.families.origin_queue.reset();
    }

    /// Says whether an address of an origin gets requests.
    pub fn origin_up(&self, site: usize, origin: &str, address: SocketAddr, up: bool) {
        let (site, address) = (self.site_name(site), address.to_string());
        self.families.origin_up.with_label_values(&[site.as_str(), origin, &address]).set(i64::from(up));
    }

    /// Says whether an address of an origin is being taken out.
    pub fn origin_draining(&self, site: usize, origin: &str, address: SocketAddr, drains: bool) {
        let (site, address) = (self.site_name(site), address.to_string());
        self.families.origin_draining.with_label_values(&[site.as_str(), origin, &address]).set(i64::from(drains));
    }

    /// Says how many requests to an address of an origin are under way.
    pub fn origin_in_flight(&self, site: usize, origin: &str, address: SocketAddr, requests: u32) {
        let (site, address) = (self.site_name(site), address.to_string());
        self.families.origin_in_flight.with_label_values(&[site.as_str(), origin, &address]).set(i64::from(requests));
    }

    /// Says how many requests wait for an origin of a site.
    pub fn origin_queue(&self, site: usize, group: &str, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.families.origin_queue.with_label_values(&[self.site_name(site).as_str(), group]).set(waiting);
    }

    /// Counts a request that no origin had room for.
    pub fn origin_rejected(&self, site: usize, group: &str) {
        self.families.origin_rejected.with_label_values(&[self.site_name(site).as_str(), group]).inc();
    }

    /// Counts an origin that is to be left alone; `outcome` is `ejected` or `withheld`.
    pub fn origin_ejection(&self, site: usize, origin: &str, outcome: &'static str) {
        self.families.origin_ejections.with_label_values(&[self.site_name(site).as_str(), origin, outcome]).inc();
    }

    /// Counts a copy of a request; `outcome` is `answered`, `connect`, `timeout`, `closed` or `malformed`.
    pub fn mirrored(&self, site: usize, group: &str, outcome: &'static str) {
        self.families.mirrored.with_label_values(&[self.site_name(site).as_str(), group, outcome]).inc();
    }

    /// What counts the requests that are not copied; `reason` is `busy`, `down`, `body-too-long` or `body-incomplete`.
    pub fn mirror_dropped(&self, site: usize, group: &str, reason: &'static str) -> IntCounter {
        self.families.mirror_dropped.with_label_values(&[self.site_name(site).as_str(), group, reason])
    }

    /// Counts a second request for what an origin had not answered; `is_won`: it was the faster one.
    pub fn origin_hedged(&self, site: usize, is_won: bool) {
        let outcome = if is_won { "won" } else { "lost" };
        self.families.origin_hedges.with_label_values(&[self.site_name(site).as_str(), outcome]).inc();
    }

    /// Observes the seconds until the head of an origin's answer.
    pub fn origin_seconds(&self, seconds: f64) {
        self.families.origin_seconds.observe(seconds);
    }
}
