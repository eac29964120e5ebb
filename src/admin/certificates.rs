//! `/v1/certificates`: the certificates of sites, and bringing and removing them.
//!
//! A private key comes in with a request and goes out with nothing.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::access::{Caller, Detail};
use super::asked::Asked;
use super::reply::Reply;
use crate::clock;
use crate::purge::nats::documents::{Document, Which};
use crate::purge::nats::shelf::{HubError, Shelf};

/// How many changes a site may make in a second: each is for all nodes, which sort out the names of all sites anew.
pub const CHANGES_PER_SECOND: u32 = 5;
/// How often a change is tried again when another one of the site was faster.
const ATTEMPTS: usize = 3;
/// How long it is waited for what this node makes of a change.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// A certificate and its private key, both PEM.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// The site, by name. A token for one site means that one.
    pub site: Option<String>,
    /// The certificate chain, the site's own first.
    pub chain: String,
    pub key: String,
}

/// A certificate that is to be used no more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// The site, by name. A token for one site means that one.
    pub site: Option<String>,
    /// SHA-256, in hexadecimal digits, with colons or without.
    pub fingerprint: String,
}

/// What becomes of the certificates of a site.
pub enum Change {
    Add { chain: String, key: String },
    Remove { fingerprint: String },
}

/// Why nothing has become of them.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    #[error("{0}")]
    NotGood(String),
    #[error("{0}")]
    NotNow(String),
    #[error("{0}")]
    Unknown(String),
    #[error("this node's disk does not keep it; nothing is changed")]
    Storage,
}

/// What was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct CertificateChanged {
    pub site: String,
    pub fingerprint: String,
    /// On the node that was asked: `in force`; `refused`; or `on its way`.
    pub here: &'static str,
}

/// What there is on the node that was asked.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Held {
    pub certificates: Vec<CertificateState>,
    /// Sites whose latest certificates cannot be used on this node; those from before still are, if there were some.
    pub unusable: Vec<Unusable>,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CertificateState {
    /// None: it is for no host of any site.
    pub site: Option<String>,
    /// Its names that are for hosts of the site.
    pub names: Vec<String>,
    /// Other names of it, for which it is not used.
    pub unused: Vec<String>,
    pub issuer: String,
    /// In seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256, in hexadecimal digits.
    pub fingerprint: String,
    /// `api`: the site has brought it; `file`: the operator has; `acme`: an authority has issued it to this CDN.
    pub from: &'static str,
}

/// Certificates of a site that cannot be used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Unusable {
    pub site: String,
    pub why: String,
    /// The certificates of the document, which can be removed.
    pub fingerprints: Vec<String>,
}

impl Admin {
    /// The certificates of the caller's sites.
    pub(super) fn certificates(&self, caller: &Caller) -> Reply {
        let mut held = self.node.certificates();
        if caller.detail() == Detail::OwnSite {
            held.certificates.retain(|state| state.site.as_deref().is_some_and(|site| caller.may(site)));
            held.unusable.retain(|unusable| caller.may(&unusable.site));
        }
        Reply::json(StatusCode::OK, &held)
    }

    /// Puts a certificate in force for a site, on all nodes.
    pub(super) async fn add_certificate(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let AddRequest { site, chain, key } = read(&asked.body().await?)?;
        self.change_certificates(&caller, site, Change::Add { chain, key }).await
    }

    /// Takes a certificate of a site out of force.
    pub(super) async fn delete_certificate(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let DeleteRequest { site, fingerprint } = read(&asked.body().await?)?;
        self.change_certificates(&caller, site, Change::Remove { fingerprint }).await
    }

    /// Has another account with the authority made.
    pub(super) async fn forget_account(&self) -> Result<Reply, Reply> {
        let forgotten = self.node.forget_account().await;
        forgotten.map_err(|why| Reply::error(StatusCode::SERVICE_UNAVAILABLE, why))?;
        Ok(Reply::json(StatusCode::OK, &serde_json::json!({ "forgotten": true })))
    }

    async fn change_certificates(&self, caller: &Caller, site: Option<String>, change: Change) -> Result<Reply, Reply> {
        let site = site.or_else(|| caller.only_site().map(str::to_owned));
        let site = site.ok_or_else(|| Reply::error(StatusCode::BAD_REQUEST, "expected site"))?;
        if !caller.may(&site) {
            return Err(Reply::error(StatusCode::FORBIDDEN, "the token is not for this site"));
        }
        let removes = matches!(change, Change::Remove { .. });
        let is_known = self.node.snapshot().sites().iter().any(|known| known.name == site);
        // What a site that is no more has left behind can be taken away.
        let which = Which::named(&site).filter(|_| is_known || removes).map(|_| Which::Certificates(site.clone()));
        let which = which.ok_or_else(|| Reply::error(StatusCode::NOT_FOUND, format!("there is no site {site}")))?;
        self.may_change(&site)?;
        let (fingerprint, here) = match self.node.shelf() {
            Some(shelf) => self.change_at_the_hub(caller, &shelf, &which, &site, change).await?,
            None => (self.change_here(site.clone(), change).await?, "in force"),
        };
        let what = if removes { "a certificate is removed" } else { "a certificate is added" };
        tracing::info!(site, fingerprint, by = caller.name, here, "{what}");
        let status = if here == "in force" { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(Reply::json(status, &CertificateChanged { site, fingerprint, here }))
    }

    fn may_change(&self, site: &str) -> Result<(), Reply> {
        self.certificate_limits.lock().take(site, 1, clock::monotonic()).map_err(|wait| {
            let message =
                format!("the certificates of {site} are changed faster than {CHANGES_PER_SECOND} times a second");
            Reply { retry_after: Some(wait.as_secs() + 1), ..Reply::error(StatusCode::TOO_MANY_REQUESTS, message) }
        })
    }

    /// Publishes a change of what the hub has; another one that is faster is changed in turn.
    async fn change_at_the_hub(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        which: &Which,
        site: &str,
        change: Change,
    ) -> Result<(String, &'static str), Reply> {
        for _ in 0..ATTEMPTS {
            let last = shelf.all_heard().await.map_err(|error| hub_error(&error))?;
            let latest = shelf.latest(which).await.map_err(|error| hub_error(&error))?;
            let text = match &latest {
                Some(latest) => latest.document.as_ref().map(|document| document.text.as_str()),
                None => Ok(""),
            };
            let text = text.map_err(|why| Reply::error(StatusCode::CONFLICT, format!("what the hub has: {why}")))?;
            let (text, fingerprint) =
                self.node.change_certificates(site, text, &change).map_err(|refused| not_changed(&refused))?;
            let document = Document::new(text, clock::wall().0, &caller.name, String::new(), 100, latest.as_ref());
            let version = latest.as_ref().map_or(0, |latest| latest.version);
            match shelf.publish(which, &document, version, last).await {
                Ok(published) => return Ok((fingerprint, standing(shelf, which, published).await)),
                Err(HubError::Outdated) => continue,
                Err(error) => return Err(hub_error(&error)),
            }
        }
        Err(hub_error(&HubError::Outdated))
    }

    /// It is written to a disk: a slow one must not hold up who asks for something else.
    async fn change_here(&self, site: String, change: Change) -> Result<String, Reply> {
        let node = self.node.clone();
        let changed = tokio::task::spawn_blocking(move || node.change_certificates_here(&site, &change)).await;
        let changed = changed.map_err(|error| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        changed.map_err(|refused| not_changed(&refused))
    }
}

/// What this node has made of a version.
async fn standing(shelf: &Shelf, which: &Which, published: u64) -> &'static str {
    shelf.settled(published, SETTLES_WITHIN).await;
    let standing = shelf.standings().into_iter().find(|standing| standing.which == *which);
    let has = |version: Option<u64>| version.is_some_and(|version| version >= published);
    match standing {
        Some(standing) if has(standing.in_force.as_ref().map(|text| text.version)) => "in force",
        Some(standing) if has(standing.refused.as_ref().map(|refused| refused.version)) => "refused",
        _ => "on its way",
    }
}

/// A request. What is wrong with one is told without what stands in it: that may be a key.
fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = match error.classify() {
            serde_json::error::Category::Data => "it is JSON, but not of the form that is expected",
            _ => "it is not JSON",
        };
        let expected = "expected site, chain and key, or site and fingerprint";
        Reply::error(StatusCode::BAD_REQUEST, format!("{message}, at {line}:{column}: {expected}"))
    })
}

fn not_changed(refused: &NotChanged) -> Reply {
    let status = match refused {
        NotChanged::NotGood(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NotChanged::NotNow(_) => StatusCode::CONFLICT,
        NotChanged::Unknown(_) => StatusCode::NOT_FOUND,
        NotChanged::Storage => StatusCode::INSUFFICIENT_STORAGE,
    };
    Reply::error(status, refused.to_string())
}

fn hub_error(error: &HubError) -> Reply {
    match error {
        HubError::Outdated => Reply::error(StatusCode::CONFLICT, error.to_string()),
        HubError::Away | HubError::Unanswered(_) => {
            Reply { retry_after: Some(1), ..Reply::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_told_without_what_stands_in_it() {
        for body in [
            r#"{"site":"shop","chain":"c","key":"hush"}"#,
            r#"{"site":"shop","chain":"c","key":["hush"]}"#,
            r#"{"site":"shop","chain":"c","hush":"k"}"#,
            r#"{"site":"shop","chain":"c","key":"hush"#,
            "hush",
        ] {
            let said = read::<AddRequest>(body.as_bytes()).err().map(|reply| (reply.status.as_u16(), reply.body));
            let is_good = serde_json::from_str::<AddRequest>(body).is_ok();
            assert_eq!(said.as_ref().map(|(status, _)| *status), (!is_good).then_some(400), "{body}");
            assert!(!said.unwrap_or_default().1.contains("hush"), "{body}");
        }
    }
}
