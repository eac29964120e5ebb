//! The routes below `/v1/config`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use similar::TextDiff;

use super::{
    Diff, DiffRequest, DocumentState, Documents, NodeConfig, Published, PushRequest, RollbackRequest, Version,
    Versions, denied, read_asking, which, wrong_with,
};
use crate::admin::Admin;
use crate::admin::access::{Caller, Detail};
use crate::admin::asked::Asked;
use crate::admin::reply::Reply;
use crate::clock;
use crate::purge::nats::documents::{Document, Heard, Which, before_latest};
use crate::purge::nats::shelf::{HubError, Shelf};

/// How long it is waited for what this node makes of a version.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// How often a version is validated anew because something else was published meanwhile.
const TRIES: u32 = 5;
/// How long a difference is looked for; then it is told as larger than it is.
const DIFF_WITHIN: Duration = Duration::from_millis(200);

/// A version that is to be published.
pub(in crate::admin) struct Push {
    pub which: Which,
    pub text: String,
    pub share: u8,
    pub note: String,
    /// The version it is to take the place of.
    pub expected: Option<u64>,
}

impl Admin {
    /// What the hub has, and what is in force here and on other nodes.
    pub(in crate::admin) fn config(&self, caller: &Caller) -> Result<Reply, Reply> {
        // Certificates have routes of their own.
        let may = |which: &Which| match which {
            Which::Node => caller.may_everything(),
            Which::Site(site) => caller.may(site),
            Which::Certificates(_) => false,
        };
        let standings = self.node.shelf().map(|shelf| shelf.standings()).unwrap_or_default();
        let documents = standings.iter().filter(|standing| may(&standing.which));
        let documents = documents.map(|standing| DocumentState::of(standing, caller.detail())).collect();
        let members = if caller.may_everything() { self.log.members() } else { Vec::new() };
        let node = |member: crate::purge::log::Member| NodeConfig {
            id: member.id,
            name: member.name,
            state: member.state,
            config: member.config,
            documents: member.documents,
        };
        Ok(Reply::json(StatusCode::OK, &Documents { documents, nodes: members.into_iter().map(node).collect() }))
    }

    /// The versions of a document.
    pub(in crate::admin) async fn config_history(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let asking = read_asking(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        let which = which(asking.site.as_deref(), asking.node, &caller)?;
        let mut versions = self.shelf()?.history(&which).await.map_err(|error| hub_error(&error))?;
        if let Some(version) = asking.version {
            versions.retain(|heard| heard.version == version);
            if versions.is_empty() {
                return Err(Reply::error(StatusCode::NOT_FOUND, format!("the hub has no version {version} of it")));
            }
        }
        let versions = versions.iter().map(|heard| Version::of(heard, asking.version.is_some())).collect();
        Ok(Reply::json(StatusCode::OK, &Versions { versions }))
    }

    /// Publishes a version.
    pub(in crate::admin) async fn config_push(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let request: PushRequest = read(asked).await?;
        let which = which(request.site.as_deref(), request.node, &caller)?;
        if let Some(wrong) = wrong_with(&request) {
            return Err(Reply::errors(StatusCode::BAD_REQUEST, &[wrong]));
        }
        let shelf = self.shelf()?;
        let latest = shelf.latest(&which).await.map_err(|error| hub_error(&error))?;
        let PushRequest { text, share, note, expected_version: expected, .. } = request;
        let push = Push { which, text, share: share.unwrap_or(100), note, expected };
        self.publish(&caller, &shelf, push, latest).await
    }

    /// Publishes the text of an earlier version as a new one.
    pub(in crate::admin) async fn config_rollback(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let request: RollbackRequest = read(asked).await?;
        let which = which(request.site.as_deref(), request.node, &caller)?;
        let shelf = self.shelf()?;
        let versions = shelf.history(&which).await.map_err(|error| hub_error(&error))?;
        let found = match request.version {
            None => before_latest(&versions),
            // What that version has, also where it was for some nodes alone.
            Some(version) => versions.iter().find(|heard| heard.version == version).and_then(|heard| {
                let text = heard.document.as_ref().ok()?.text.clone();
                Some(crate::purge::nats::documents::Text { version, text })
            }),
        };
        let nowhere = || Reply::error(StatusCode::NOT_FOUND, "the hub has no such version of it");
        let back = found.ok_or_else(nowhere)?;
        let note = format!("back to version {}", back.version);
        let push = Push { which, text: back.text, share: 100, note, expected: None };
        self.publish(&caller, &shelf, push, versions.into_iter().next_back()).await
    }

    /// Compares a text with the latest version.
    pub(in crate::admin) async fn config_diff(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let request: DiffRequest = read(asked).await?;
        let which = which(request.site.as_deref(), request.node, &caller)?;
        let latest = self.shelf()?.latest(&which).await.map_err(|error| hub_error(&error))?;
        let version = latest.as_ref().map_or(0, |latest| latest.version);
        let before = latest.and_then(|latest| latest.document.ok()).map(|document| document.text).unwrap_or_default();
        let diff = TextDiff::configure().timeout(DIFF_WITHIN).diff_lines(&before, &request.text);
        let diff = diff.unified_diff().header(&format!("version {version}"), "new").to_string();
        Ok(Reply::json(StatusCode::OK, &Diff { version, diff }))
    }

    /// Publishes what the caller may, if it is good and nobody was faster.
    pub(in crate::admin) async fn publish(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        push: Push,
        latest: Option<Heard>,
    ) -> Result<Reply, Reply> {
        let Push { which, text, share, note, expected } = push;
        let version = latest.as_ref().map_or(0, |latest| latest.version);
        if let Some(expected) = expected.filter(|expected| *expected != version) {
            return Err(conflict(format!("version {expected} was expected, and the latest one is {version}")));
        }
        if share < 100 && latest.as_ref().is_some_and(|latest| latest.document.is_err()) {
            let message = "the latest version cannot be read, so that nobody knows what other nodes are to have";
            return Err(conflict(format!("{message}: publish one for all of them first")));
        }
        if let Some(site) = which.site().filter(|_| !caller.may_everything())
            && let Some(why) = denied(site, latest.as_ref(), &text)
        {
            return Err(Reply::error(StatusCode::FORBIDDEN, why));
        }
        let document = |text: &str| {
            Document::new(text.to_owned(), clock::wall().0, &caller.name, note.clone(), share, latest.as_ref())
        };
        let mut tries = TRIES;
        let published = loop {
            let last = shelf.all_heard().await.map_err(|error| hub_error(&error))?;
            self.validate(&which, &text, caller.detail()).await?;
            match shelf.publish(&which, &document(&text), version, last).await {
                // Another document may have come between, and what is good beside it is to be seen. If it was another version of
                // this one, the next try finds that too.
                Err(HubError::Outdated) if tries > 0 => tries -= 1,
                published => break published.map_err(|error| hub_error(&error))?,
            }
        };
        tracing::info!(document = %which, version = published, share, by = caller.name, "configuration is published");
        let is_settled = shelf.settled(published, SETTLES_WITHIN).await;
        let standing = shelf.standings().into_iter().find(|standing| standing.which == which);
        let has = standing.as_ref().and_then(|standing| standing.in_force.as_ref()).map(|text| text.version);
        let refused = standing.as_ref().and_then(|standing| standing.refused.as_ref()).map(|refusal| refusal.version);
        let here = match (has, refused) {
            (Some(has), _) if has == published => "in force",
            (_, Some(refused)) if refused == published => "refused",
            _ if is_settled && share < 100 => "on other nodes",
            _ => "on its way",
        };
        let status = if is_settled { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(Reply::json(status, &Published { version: published, share, here }))
    }

    async fn validate(&self, which: &Which, text: &str, detail: Detail) -> Result<(), Reply> {
        let (node, which, text) = (self.node.clone(), which.clone(), text.to_owned());
        let tried = tokio::task::spawn_blocking(move || node.try_document(&which, &text, detail)).await;
        let tried: Result<(), Value> =
            tried.unwrap_or_else(|error| Err(json!({ "errors": [{ "message": error.to_string() }] })));
        tried.map_err(|errors| Reply::json(StatusCode::UNPROCESSABLE_ENTITY, &errors))
    }

    pub(in crate::admin) fn shelf(&self) -> Result<Arc<Shelf>, Reply> {
        let message = "this node follows no hub: [purge] log is \"local\"";
        self.node.shelf().ok_or_else(|| conflict(message.to_owned()))
    }
}

pub(in crate::admin) async fn read<T: DeserializeOwned>(asked: &mut Asked) -> Result<T, Reply> {
    let body = asked.body().await?;
    serde_json::from_slice(&body).map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error.to_string()))
}

pub(in crate::admin) fn conflict(message: String) -> Reply {
    Reply::error(StatusCode::CONFLICT, message)
}

pub(in crate::admin) fn hub_error(error: &HubError) -> Reply {
    match error {
        HubError::Outdated => conflict(error.to_string()),
        HubError::Away | HubError::Unanswered(_) => {
            Reply { retry_after: Some(1), ..Reply::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()) }
        }
    }
}
