//! Certificates of an authority: what the configuration in force says of them, and the task that has them issued.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_config::Config;
use edge_config::section::site::{HostPattern, Site};
use tokio::runtime::Handle;
use ulid::Ulid;

use super::certificates::Loaded;
use super::control::Control;
use crate::acme::keeper::{Parts, keep};
use crate::acme::notes::{self, CERTIFICATE, CLAIM, Claim, Held, State, key};
use crate::acme::plan::text_name;
use crate::acme::{HostView, View};
use crate::admin::sites::{HostCertificate, HostChange, HostState, SiteState, TxtRecord};
use crate::clock;
use crate::purge::nats::board::BoardError;

/// How often a decision about a host is tried again when somebody else was faster, and after which time.
const ATTEMPTS: u32 = 10;
const HEARD_WITHIN: Duration = Duration::from_millis(50);

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
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(valid) && !label.starts_with('-') && !label.ends_with('-')
    };
    // It is part of the name of a file.
    name.contains('.') && name.parse::<IpAddr>().is_err() && name.len() <= 230 && name.split('.').all(is_label)
}

impl Control {
    /// The sites in force, and how their hosts stand.
    pub(super) fn states_of_sites(&self) -> Vec<SiteState> {
        let view = self.views.borrow().clone();
        let config = self.config();
        let addresses: Vec<String> = view.addresses.iter().map(ToString::to_string).collect();
        let site = |site: &Site| SiteState {
            site: site.name.clone(),
            target: config.dns.as_ref().map(|dns| dns.target(&site.name)),
            addresses: addresses.clone(),
            hosts: site.hosts.iter().map(|host| self.state_of_host(&view, &host_name(host))).collect(),
        };
        config.sites.iter().map(site).collect()
    }

    fn state_of_host(&self, view: &View, host: &str) -> HostState {
        let read = |kind: &str| self.issuer.board.get(&key(kind, host));
        let of_view = view.hosts.get(host);
        let claim = read(CLAIM).and_then(|note| notes::read::<Claim>(&note.value));
        let is_its = |claim: &Claim| of_view.is_some_and(|view| view.site == claim.site);
        let claim = claim.filter(|claim| claim.state == State::Revoked || is_its(claim));
        let is_covered = of_view.is_some_and(|view| view.is_covered);
        let is_looked_at = of_view.is_some() && view.looks_after_hosts();
        let unknown = if is_looked_at { State::Waiting.as_str() } else { "configured" };
        let state = claim.as_ref().map_or(unknown, |claim| claim.state.as_str());
        let held = read(CERTIFICATE).and_then(|note| notes::read::<Held>(&note.value));
        let certificate = match held.filter(|_| state != State::Revoked.as_str()) {
            _ if is_covered => Some(HostCertificate { from: "brought", not_after: None, renew_at: None }),
            Some(held) => Some(HostCertificate {
                from: "acme",
                not_after: Some(held.ends / 1_000),
                renew_at: Some(held.renew / 1_000),
            }),
            None => None,
        };
        let is_here = matches!(state, "configured" | "proven");
        let live = is_here && (self.tls.is_none() || certificate.is_some());
        let is_waiting = claim.as_ref().is_some_and(|claim| claim.state == State::Waiting);
        let txt = claim.as_ref().filter(|_| is_waiting);
        let txt = txt.map(|claim| TxtRecord { name: text_name(host), value: claim.token.clone() });
        let said = claim.map(|claim| claim.said).unwrap_or_default();
        HostState { host: host.to_owned(), state, said, txt, certificate, live }
    }

    /// Decides about a host of a site.
    pub(super) async fn judge(&self, site: &str, host: &str, change: HostChange) -> Result<HostState, String> {
        let view = self.views.borrow().clone();
        if view.hosts.get(host).is_none_or(|view| view.site != site) {
            return Err(format!("the site {site} has no host {host} that a certificate could be for"));
        }
        let board = &self.issuer.board;
        let state = if change == HostChange::Revoke { State::Revoked } else { State::Waiting };
        let said = if change == HostChange::Revoke { "revoked by the operator" } else { "" };
        let mut left = ATTEMPTS;
        loop {
            let note = board.get(&key(CLAIM, host));
            let known = note.as_ref().and_then(|note| notes::read::<Claim>(&note.value));
            let known = known.ok_or_else(|| format!("nothing is known of {host} yet"))?;
            let (site, said, since) = (site.to_owned(), said.to_owned(), clock::wall().0);
            let claim = Claim { site, state, said, since, failures: 0, not_before: 0, ..known };
            let over = note.map_or(0, |note| note.revision);
            match board.put(&key(CLAIM, host), notes::write(&claim), Some(over)).await {
                Ok(_) => break,
                // The node that orders has just had something to say of it; that is heard soon.
                Err(BoardError::Outdated) if left > 0 => left -= 1,
                Err(error) => return Err(error.to_string()),
            }
            tokio::time::sleep(HEARD_WITHIN).await;
        }
        tracing::info!(host, site, state = state.as_str(), "a host is decided about");
        if change == HostChange::Revoke {
            self.take_back(&view, host).await;
        }
        Ok(self.state_of_host(&view, host))
    }

    /// Nobody uses a certificate any more, and its authority is told so.
    async fn take_back(&self, view: &View, host: &str) {
        let name = key(CERTIFICATE, host);
        let held = self.issuer.board.get(&name).and_then(|note| notes::read::<Held>(&note.value));
        if let Err(error) = self.issuer.board.remove(&name).await {
            tracing::warn!(host, %error, "the certificate of a revoked host is kept, and not used");
        }
        let (Some(held), Some(acme), Some(store_key)) = (held, view.acme.clone(), view.key.clone()) else { return };
        let (issuer, host) = (self.issuer.clone(), host.to_owned());
        self.origins.checks.spawn(async move {
            match issuer.revoke(&acme, &store_key, &held).await {
                Ok(()) => tracing::info!(host, "its authority has revoked the certificate"),
                Err(error) => tracing::warn!(host, %error, "its authority has not revoked the certificate"),
            }
        });
    }
}

/// A host as it is written.
fn host_name(host: &HostPattern) -> String {
    match host {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Below(name) => format!("*.{name}"),
        HostPattern::Exact(name) => name.clone(),
    }
}
