//! `GET /v1/statistics`: what sites did since the node was started, as its metrics have counted it.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::access::Caller;
use super::asked::Asked;
use super::purge::Wrong;
use super::reply::Reply;
use crate::telemetry::metrics::sites::SiteCounts;

/// The sites the token is for, or the one that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Statistics {
    pub sites: Vec<SiteStatistics>,
}

/// What a site did on this node since it was started.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteStatistics {
    pub site: String,
    /// Requests that ended.
    pub requests: u64,
    /// The part of them that was answered from the store: `hit`, `stale` and `revalidated`. None: there was none.
    pub hit_ratio: Option<f64>,
    /// Requests by what the cache did for them.
    pub cache: BTreeMap<String, u64>,
    /// Requests by the status they were answered with.
    pub status: BTreeMap<String, u64>,
    /// Bytes of response bodies, by what the cache did.
    pub response_bytes: BTreeMap<String, u64>,
    /// Requests to origins, by what became of them.
    pub origin_requests: BTreeMap<String, u64>,
    /// Things that purges asked for on this node named, by kind.
    pub purges: BTreeMap<String, u64>,
}

impl SiteStatistics {
    fn of(site: &str, counts: SiteCounts) -> Self {
        Self {
            site: site.to_owned(),
            requests: counts.requests(),
            hit_ratio: counts.hit_ratio(),
            cache: counts.cache,
            status: counts.status,
            response_bytes: counts.response_bytes,
            origin_requests: counts.origin,
            purges: counts.purges,
        }
    }
}

impl Admin {
    /// What the caller's sites did, or one of them.
    pub(super) fn statistics(&self, caller: &Caller, asked: &Asked) -> Result<Reply, Reply> {
        let named = read_site(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        if named.as_ref().is_some_and(|named| !caller.may(named)) {
            return Err(Reply::error(StatusCode::FORBIDDEN, "the token is not for this site"));
        }
        let snapshot = self.node.snapshot();
        let is_asked = |site: &str| named.as_ref().map_or(caller.may(site), |named| named == site);
        let sites = snapshot.sites().iter().map(|site| site.name.as_str()).filter(|site| is_asked(site));
        let counts = self.pipeline.metrics.counts_of(sites);
        if let Some(named) = named.filter(|_| counts.is_empty()) {
            return Err(Reply::error(StatusCode::NOT_FOUND, format!("there is no site {named}")));
        }
        let sites = counts.into_iter().map(|(site, counts)| SiteStatistics::of(site, counts)).collect();
        Ok(Reply::json(StatusCode::OK, &Statistics { sites }))
    }
}

/// Reads `site`, which may be absent.
pub(super) fn read_site(query: Option<&str>) -> Result<Option<String>, Wrong> {
    let mut site = None;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "site" => site = Some(value.into_owned()),
            other => return Err(Wrong { key: other.to_owned(), message: "expected site, or nothing".to_owned() }),
        }
    }
    Ok(site)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        for (query, expected) in [
            (None, Some(None)),
            (Some(""), Some(None)),
            (Some("site=a%20b"), Some(Some("a b"))),
            (Some("sites=a"), None),
        ] {
            let read = read_site(query).ok();
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{query:?}");
        }
    }
}
