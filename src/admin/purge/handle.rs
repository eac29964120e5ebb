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
use crate::purge::local::LogError;
use crate::purge::position::LogPosition;
use crate::purge::record::{EVERY_SITE, PurgeRecord};

impl Admin {
    /// Purges what the body names.
    pub(in crate::admin) async fn purge(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        read_wait(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
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
        let (position, record) =
            self.log.append(record).await.map_err(|error| log_error(&error, "nothing is purged"))?;
        self.pipeline.metrics.purge_applied(clock::monotonic().duration_since(started).as_secs_f64());
        for selector in &record.selectors {
            self.pipeline.metrics.purged(selector.kind.as_str(), request.mode.as_str());
        }
        Ok(Reply::json(StatusCode::OK, &self.receipt(position, record)))
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

    fn receipt(&self, position: LogPosition, record: PurgeRecord) -> Receipt {
        let applied = self.pipeline.store.ledger.applied().log;
        let node = NodePlace { node: self.name.clone(), position: place(applied), applied: applied >= position };
        Receipt {
            id: record.id.to_string(),
            position: place(position),
            at: record.at,
            mode: record.mode,
            selectors: record.selectors,
            by: record.by,
            applied: node.applied,
            nodes: vec![node],
        }
    }

    /// The receipt of a purge. It is read from the disk: a slow one must not hold up who asks for something else.
    pub(in crate::admin) async fn find_purge(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let unknown = || Reply::error(StatusCode::NOT_FOUND, "no purge of that id is known");
        let id = asked.path().strip_prefix("/v1/purges/").and_then(|id| id.parse::<Ulid>().ok()).ok_or_else(unknown)?;
        let log = self.log.clone();
        let found = tokio::task::spawn_blocking(move || log.find(id)).await;
        let found = found.map_err(|error| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let found = found.map_err(|error| log_error(&error, "the log cannot be read"))?;
        let (position, record) = found.ok_or_else(unknown)?;
        let mut sites = record.sites().into_iter();
        let may = sites.all(|site| if site == EVERY_SITE { caller.may_everything() } else { caller.may(site) });
        if !may {
            return Err(unknown());
        }
        Ok(Reply::json(StatusCode::OK, &self.receipt(position, record)))
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
