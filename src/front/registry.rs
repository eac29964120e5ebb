//! Who is connected: a bound for each client address, and a way to wake idle connections when the node drains.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use crate::telemetry::metrics::Metrics;

/// All connections of the front.
pub struct Registry {
    connections_per_client: AtomicU32,
    /// Connections end with what they do.
    parting: AtomicBool,
    /// There are no new ones.
    closed: AtomicBool,
    next: AtomicU64,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    per_client: HashMap<IpAddr, u32, ahash::RandomState>,
    /// How to wake the connections that wait for a request.
    wakers: HashMap<u64, Option<Waker>, ahash::RandomState>,
}

/// A connection's place in the registry; given back on drop.
pub struct Lease {
    registry: Arc<Registry>,
    id: u64,
    /// Whose connections it counts among; none: nobody's.
    client: Option<IpAddr>,
}

impl Registry {
    pub fn new(connections_per_client: u32, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            connections_per_client: AtomicU32::new(connections_per_client),
            parting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            next: AtomicU64::new(0),
            state: Mutex::default(),
            metrics,
        })
    }

    /// From now on so many connections are allowed; those there are stay.
    pub fn allow(&self, connections_per_client: u32) {
        self.connections_per_client.store(connections_per_client, Ordering::Relaxed);
    }

    /// Admits a connection, unless its address has too many.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Lease> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let client = counted_as(client);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        let count = state.per_client.entry(client).or_insert(0);
        if *count >= self.connections_per_client.load(Ordering::Relaxed) {
            drop(state);
            self.metrics.refusal("connections-per-client");
            return None;
        }
        *count += 1;
        state.wakers.insert(id, None);
        self.metrics.connections.inc();
        Some(Lease { registry: self.clone(), id, client: Some(client) })
    }

    /// From now on nobody is admitted.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    /// Connections stay again.
    pub fn stay(&self) {
        self.parting.store(false, Ordering::Release);
    }

    /// From now on connections end: with the next answer, or when there is nothing to answer. New ones are for one request each.
    pub fn part(&self) {
        self.parting.store(true, Ordering::Release);
        for waker in self.state.lock().wakers.values_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    pub fn connections(&self) -> usize {
        self.state.lock().wakers.len()
    }
}

impl State {
    /// A client has one connection less.
    fn forget(&mut self, client: Option<IpAddr>) {
        let Some(client) = client else { return };
        if let Some(count) = self.per_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
        }
    }
}

impl Lease {
    /// It is another node's, and does not count among those of a client any more.
    pub fn is_a_nodes(&mut self) {
        let client = self.client.take();
        if client.is_some() {
            self.registry.state.lock().forget(client);
        }
    }

    /// Wakes this connection when connections are to end. Once for each connection is enough: a connection is one task.
    pub fn wake_to_part(&self, waker: &Waker) {
        self.registry.state.lock().wakers.insert(self.id, Some(waker.clone()));
    }

    pub fn is_parting(&self) -> bool {
        self.registry.is_parting()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.registry.state.lock();
        state.wakers.remove(&self.id);
        state.forget(self.client);
        drop(state);
        self.registry.metrics.connections.dec();
    }
}

/// One customer usually has a whole /64 of IPv6; an IPv4 address that arrives on an IPv6 socket is that address.
fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_number_of_connections_and_no_more() {
        let registry = Registry::new(2, Metrics::new("test"));
        let client: IpAddr = "192.0.2.1".parse().expect("address");
        let mut first = registry.admit(client).expect("first");
        let _second = registry.admit("::ffff:192.0.2.1".parse().expect("address")).expect("second");
        assert!(registry.admit(client).is_none());
        assert!(registry.admit("192.0.2.2".parse().expect("address")).is_some(), "another address");
        first.is_a_nodes();
        first.is_a_nodes();
        let third = registry.admit(client).expect("a node's connection is no client's");
        drop(first);
        assert!(registry.admit(client).is_none(), "it had given its place back before");
        drop(third);
        assert!(registry.admit(client).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let a = counted_as("2001:db8:1:2::1".parse().expect("address"));
        assert_eq!(a, counted_as("2001:db8:1:2:ffff::9".parse().expect("address")));
        assert_ne!(a, counted_as("2001:db8:1:3::1".parse().expect("address")));
    }
}
