//! Names of origins: what they resolve to, followed for as long as somebody wants to know.
//!
//! - [`known`]: what is known of a name, and when it is asked for again. Pure.
//! - [`resolver`]: asking for it.
//!
//! Each address is an origin of its own. An answer that takes all of them away, or none, changes nothing: a name server that
//! errs must not take a site down.

pub mod known;
pub mod resolver;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use edge_config::section::origin::Resolve;

use self::known::{Known, Limits};
use super::group::Group;

/// Where one origin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// What it calls itself, where an SRV record says so.
    pub name: Option<Arc<str>>,
    /// Lower numbers are asked first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
}

impl Target {
    /// Whether it is the same one, perhaps with another share.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.address, &self.name) == (other.address, &other.name)
    }

    /// One of several that are alike.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, name: None, priority: 0, weight: 1 }
    }
}

/// A name, and what is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub host: String,
    pub port: u16,
    pub resolve: Resolve,
}

/// Asks for a name whenever what is known of it has expired, until nobody has the group any more. `entry`: which origin of the
/// group has the name.
pub async fn follow(group: Weak<Group>, entry: usize, name: Name, known: Vec<Target>) {
    let mut known = Known::new(known);
    let mut last_error = None;
    loop {
        let Some(resolver) = group.upgrade().map(|group| group.origins.resolver.load_full()) else { return };
        let answer = resolver.ask(&name).await;
        let Some(group) = group.upgrade() else { return };
        let next = known.take(answer, Limits { shortest: resolver.ttl_min, longest: resolver.ttl_max });
        if let Some(error) = next.error.as_ref().filter(|error| last_error.as_ref() != Some(*error)) {
            tracing::warn!(
                site = group.site_name(),
                origin = name.host,
                error,
                "the name of an origin is not resolved"
            );
        }
        last_error = next.error;
        group.resolved(entry, next.targets);
        drop(group);
        tokio::time::sleep(next.again_in).await;
    }
}
