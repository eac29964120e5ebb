//! The two routes of purging: from the request to the log, and from the log to a receipt.

use std::collections::BTreeMap;

use http::StatusCode;
use ulid::Ulid;

use super::{LogPlace, NodePlace, PurgeRequest, Receipt, Refused, cost, read_wait};
use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::asked::Asked;
use crate::admin::reply::Reply;
use crate::clock;
use crate::purge::log::{LogError, Purged, Standing, Wait};
use crate::purge::position::LogPosition;
use crate::purge::record::{EVERY_SITE, PurgeRecord};

impl Admin {
    /// Purges what the body names.
    pub(in crate::admin) async fn purge(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let wait = read_wait(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        let body = asked.body().await?;
        let request: PurgeRequest =
            serde_json::from_slice(&body).map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error.to_string()))?;
        let selectors = request.selectors(&self.node.snapshot(), &caller).map_err(|refused| match refused {
            Refused::Wrong(wrong) => Reply::errors(StatusCode::BAD_REQUEST, &wrong),
            Refused::NotAllowed(denied) => Reply::errors(StatusCode::FORBIDDEN, &denied),
        })?;
        self.within_limits(&cost(&selectors))?;
        let started = clock::monotonic();
        let record = PurgeRecord::new(Ulid::nil(), clock::wall(), selectors, request.mode, &caller.name);
        let wait = wait.map_or(Wait::No, |timeout| Wait::All(started + timeout));
        let purged = self.log.append(record, wait).await.map_err(|error| log_error(&error, "nothing is purged"))?;
        self.pipeline.metrics.purge_applied(clock::monotonic().duration_since(started).as_secs_f64());
        for selector in &purged.record.selectors {
            self.pipeline.metrics.purged(&selector.site, selector.kind.as_str(), request.mode.as_str());
        }
        let status = if purged.is_applied() { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(Reply::json(status, &receipt(purged)))
    }

    fn within_limits(&self, cost: &BTreeMap<&str, u32>) -> Result<(), Reply> {
        let now = clock::monotonic();
        let mut limits = self.limits.lock();
        limits.set_rate(self.node.purge_rate());
        for (site, cost) in cost {
            if let Err(wait) = limits.take(site, *cost, now) {
                let message = format!("{site} purges faster than {} selectors a second", self.node.purge_rate());
                let retry_after = Some(wait.as_secs() + 1);
                return Err(Reply { retry_after, ..Reply::error(StatusCode::TOO_MANY_REQUESTS, message) });
            }
        }
        Ok(())
    }

    /// The receipt of a purge. It is read from the disk: a slow one must not hold up who asks for something else.
    pub(in crate::admin) async fn find_purge(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let unknown = || Reply::error(StatusCode::NOT_FOUND, "no purge of that id is known");
        let id = asked.path().strip_prefix("/v1/purges/").and_then(|id| id.parse::<Ulid>().ok()).ok_or_else(unknown)?;
        let log = self.log.clone();
        let found = tokio::task::spawn_blocking(move || log.find(id)).await;
        let found = found.map_err(|error| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let found = found.map_err(|error| log_error(&error, "the log cannot be read"))?;
        let purged = found.ok_or_else(unknown)?;
        let sites = purged.record.sites();
        let mut sites = sites.into_iter();
        let may = sites.all(|site| if site == EVERY_SITE { caller.may_everything() } else { caller.may(site) });
        if !may {
            return Err(unknown());
        }
        Ok(Reply::json(StatusCode::OK, &receipt(purged)))
    }
}

fn receipt(purged: Purged) -> Receipt {
    let applied = purged.is_applied();
    let Purged { record, position, nodes } = purged;
    let node = |Standing { node, position, applied, isolated }| NodePlace {
        node,
        position: position.map(place),
        applied,
        isolated,
    };
    Receipt {
        id: record.id.to_string(),
        position: position.map(place),
        at: record.at,
        mode: record.mode,
        selectors: record.selectors,
        by: record.by,
        applied,
        nodes: nodes.into_iter().map(node).collect(),
    }
}

pub fn place(position: LogPosition) -> LogPlace {
    LogPlace { generation: position.generation(), seq: position.seq() }
}

fn log_error(error: &LogError, what: &str) -> Reply {
    let status = match error {
        LogError::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        LogError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        LogError::Storage(_) | LogError::Record(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    Reply { retry_after: Some(1), ..Reply::error(status, format!("{what}: {error}")) }
}
