//! Certificates of an authority: what the configuration in force says of them, and the task that has them issued.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use edge_config::Config;
use edge_config::section::site::HostPattern;
use tokio::runtime::Handle;
use ulid::Ulid;

use super::certificates::Loaded;
use super::control::Control;
use crate::acme::keeper::{Parts, keep};
use crate::acme::{HostView, View};

/// Has certificates issued as long as the runtime lasts.
pub fn follow(control: &Arc<Control>, node: &str, runtime: &Handle) {
    let parts = Parts {
        board: control.issuer.board.clone(),
        issued: control.issued().clone(),
        origins: control.origins.clone(),
        issuer: control.issuer.clone(),
        node: node.to_owned(),
        holder: Ulid::generate().to_string(),
    };
    runtime.spawn(keep(parts, control.views.subscribe()));
}

/// What a configuration says of certificates.
pub(super) fn view(config: &Config, loaded: &Loaded) -> View {
    let certificates = loaded.certificates(config);
    let mut hosts = BTreeMap::new();
    for site in &config.sites {
        for host in &site.hosts {
            let name = match host {
                HostPattern::Exact(name) if can_be_certified(name) => name.clone(),
                HostPattern::Below(name) if can_be_certified(name) => format!("*.{name}"),
                _ => continue,
            };
            let is_covered = certificates.covers(&name);
            let target = config.dns.as_ref().map(|dns| dns.target(&site.name));
            hosts.insert(name, HostView { site: site.name.clone(), target, is_covered });
        }
    }
    View { acme: config.acme.clone(), key: loaded.key().cloned(), hosts, addresses: config.dns_addresses() }
}

/// Whether an authority could certify a name: one of DNS, with a dot in it.
fn can_be_certified(name: &str) -> bool {
    name.contains('.') && name.parse::<IpAddr>().is_err() && name.len() <= 253
}
