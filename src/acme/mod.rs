//! Certificates of an authority, by ACME (RFC 8555), for the hosts of sites that no other certificate is for.
//!
//! All nodes know the same notes (`purge::nats::board`): which site has claimed a host and whether its name leads here, what the
//! authority is to be shown, and the certificates. One node at a time orders, the one that holds the lease; every node answers the
//! authority, and does handshakes with what was issued.
//!
//! - [`notes`]: the notes. Pure. [`kept`]: those with keys, sealed and opened.
//! - [`plan`]: what is to be done for a host. Pure. [`lease`]: who does it. Pure.
//! - [`keeper`]: follows the notes on every node, and does what is to be done on the one.
//! - [`issuer`]: what that one does for one host. [`order`]: an order with an authority.

pub mod issuer;
pub mod keeper;
pub mod kept;
pub mod lease;
pub mod notes;
pub mod order;
pub mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::section::acme::Acme;

use crate::front::tls::sealed::StoreKey;

/// What the configuration in force says of certificates.
#[derive(Debug, Default)]
pub struct View {
    /// None: nothing is ordered here.
    pub acme: Option<Acme>,
    /// None: no key can be opened.
    pub key: Option<Arc<StoreKey>>,
    pub hosts: BTreeMap<String, HostView>,
    /// Where the names of hosts may lead.
    pub addresses: Vec<IpAddr>,
}

impl View {
    /// Whether somebody is to look where names of hosts lead, or to order certificates for them.
    pub fn looks_after_hosts(&self) -> bool {
        let orders = self.acme.is_some() && self.key.is_some();
        orders || !self.addresses.is_empty() || self.hosts.values().any(|host| host.target.is_some())
    }
}

/// A host of a site, in lower case; a wildcard as `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    pub site: String,
    /// The name of the site in our zone.
    pub target: Option<String>,
    /// There is a certificate that was brought.
    pub is_covered: bool,
}
