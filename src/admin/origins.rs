//! `GET /v1/origins`, `POST /v1/origins/drain` and `POST /v1/origins/undrain`: how origins stand, and taking one out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::access::Caller;
use super::asked::Asked;
use super::purge::Wrong;
use super::reply::Reply;
use crate::clock;
use crate::origin::drains::{Drain, is_called};
use crate::origin::group::Group;
use crate::origin::roster::Placed;
use crate::routing::Site;

/// One address of an origin, and how it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OriginState {
    pub site: String,
    /// What it is called: its host and port, behind the name of its group if that is not the site's own.
    pub origin: String,
    /// None: nobody knows one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// `up`, `ejected`, `down`, `unresolved`; or `draining`, and `drained` when nothing of it is under way any more and no
    /// session has a request sent there.
    pub state: &'static str,
    /// Whether it is up, also while it drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<&'static str>,
    /// Requests that are under way.
    pub requests: u32,
    /// Who has it drained: `configuration` or `operator`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drained_by: Vec<&'static str>,
    /// For how long its sessions still go there; none while that has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_seconds_left: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OriginStates {
    pub origins: Vec<OriginState>,
}

/// Which origin is to be taken out, or not any more.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    pub site: String,
    /// What it is called: `host:port` in all groups of the site, `group/host:port` in that one; or one of its addresses.
    pub origin: String,
    /// For how long its sessions still go there, as in `10m`. Absent: as long as they last.
    #[serde(rename = "for")]
    pub time: Option<String>,
}

/// The origins of a site and how they stand.
pub fn states_of(site: &Site) -> Vec<OriginState> {
    let now = clock::monotonic();
    let of_group = |group: &Group| {
        let unknown = |label: &str| OriginState {
            site: site.name.clone(),
            origin: label.to_owned(),
            address: None,
            state: "unresolved",
            health: None,
            requests: 0,
            drained_by: Vec::new(),
            drain_seconds_left: None,
        };
        let roster = group.roster();
        let known = roster.iter().map(|placed| state_of(&site.name, group, placed, now));
        known.chain(group.without_address().map(unknown)).collect::<Vec<_>>()
    };
    site.backings.all().flat_map(|backing| of_group(&backing.group)).collect()
}

fn state_of(site: &str, group: &Group, placed: &Placed, now: Instant) -> OriginState {
    let drains = group.drains(placed);
    let by = ["configuration", "operator"].into_iter().zip(&drains).filter(|(_, drain)| drain.is_some());
    let until = drains.iter().flatten().filter_map(|drain| drain.until).min();
    OriginState {
        site: site.to_owned(),
        origin: placed.member.peer.label().to_owned(),
        address: Some(placed.member.target().address),
        state: group.state(placed, now),
        health: Some(placed.member.standing(now).as_str()),
        requests: placed.member.in_flight(),
        drained_by: by.map(|(who, _)| who).collect(),
        // Rounded up: nothing is left only when nothing is.
        drain_seconds_left: until.map(|until| until.saturating_duration_since(now).as_millis().div_ceil(1_000) as u64),
    }
}

impl Admin {
    /// How the origins of the caller's sites stand.
    pub(super) fn origins(&self, caller: &Caller) -> Reply {
        let snapshot = self.node.snapshot();
        let sites = snapshot.sites().iter().filter(|site| caller.may(&site.name));
        let origins = sites.flat_map(|site| states_of(site)).collect();
        Reply::json(StatusCode::OK, &OriginStates { origins })
    }

    /// Begins to take an origin out.
    pub(super) async fn drain_origin(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let request = read_request(asked).await?;
        let time = request.time.as_deref().map(str::parse::<edge_config::Duration>).transpose();
        let time: Option<Duration> =
            time.map_err(|error| wrong("for", error.to_string()))?.map(edge_config::Duration::get);
        self.with_origin(&caller, &request, |site, members| {
            if let Some((group, _)) = members.first() {
                let drain = Drain::lasting(time, clock::monotonic());
                group.origins.drains.begin(&site.name, &request.origin, drain);
                let seconds = time.map(|time| time.as_secs());
                tracing::info!(site = site.name, origin = request.origin, seconds, by = caller.name, "origin drains");
            }
            Ok(())
        })
    }

    /// Has an origin get requests again.
    pub(super) async fn undrain_origin(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let request = read_request(asked).await?;
        if request.time.is_some() {
            return Err(wrong("for", "an origin is drained for a time, and undrained at once"));
        }
        self.with_origin(&caller, &request, |site, members| {
            let ended = members.iter().filter(|(group, placed)| {
                let (label, address) = (placed.member.peer.label(), placed.member.target().address);
                group.origins.drains.end(&site.name, label, address)
            });
            let ended = ended.count() > 0;
            let is_drained = |(group, placed): &(&Group, Placed)| group.drains(placed).iter().any(Option::is_some);
            if members.iter().any(is_drained) {
                let message = "the configuration has it drained: take `drain` out there, and reload";
                return Err(Reply::error(StatusCode::CONFLICT, message));
            }
            if !ended {
                return Err(Reply::error(StatusCode::CONFLICT, format!("{} is not drained", request.origin)));
            }
            tracing::info!(
                site = site.name,
                origin = request.origin,
                by = caller.name,
                "origin does not drain any more"
            );
            Ok(())
        })
    }

    /// Does something with the members a request names, and says how they stand then.
    fn with_origin(
        &self,
        caller: &Caller,
        request: &DrainRequest,
        change: impl FnOnce(&Site, &[(&Group, Placed)]) -> Result<(), Reply>,
    ) -> Result<Reply, Reply> {
        if !caller.may(&request.site) {
            return Err(Reply::error(StatusCode::FORBIDDEN, "the token is not for this site"));
        }
        let snapshot = self.node.snapshot();
        let Some(site) = snapshot.sites().iter().find(|site| site.name == request.site) else {
            let names = snapshot.sites().iter().map(|site| site.name.as_str());
            let known: Vec<&str> = names.filter(|name| caller.may(name)).collect();
            return Err(unknown("site", format!("there is no site {}; known: {}", request.site, known.join(", "))));
        };
        let (mut members, mut labels) = (Vec::new(), Vec::new());
        for backing in site.backings.all() {
            for placed in backing.group.roster().iter() {
                let (label, address) = (placed.member.peer.label(), placed.member.target().address);
                labels.push(label.to_owned());
                if is_called(&request.origin, label, address) {
                    members.push((backing.group.as_ref(), placed.clone()));
                }
            }
        }
        if members.is_empty() {
            labels.dedup();
            let known = labels.join(", ");
            return Err(unknown("origin", format!("{} has no origin {}; known: {known}", site.name, request.origin)));
        }
        change(site, &members)?;
        let now = clock::monotonic();
        let origins = members.iter().map(|(group, placed)| state_of(&site.name, group, placed, now)).collect();
        Ok(Reply::json(StatusCode::OK, &OriginStates { origins }))
    }
}

async fn read_request(asked: &mut Asked) -> Result<DrainRequest, Reply> {
    let body = asked.body().await?;
    serde_json::from_slice(&body).map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error.to_string()))
}

fn wrong(key: &str, message: impl Into<String>) -> Reply {
    Reply::errors(StatusCode::BAD_REQUEST, &[Wrong { key: key.into(), message: message.into() }])
}

fn unknown(key: &str, message: String) -> Reply {
    Reply::errors(StatusCode::NOT_FOUND, &[Wrong { key: key.into(), message }])
}
