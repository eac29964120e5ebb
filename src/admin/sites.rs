//! `/v1/sites` and `/v1/hosts`: the sites that the hub has, and how their hosts stand.

use edge_config::edit::{new_site, with_host, without_host};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::access::Caller;
use super::asked::Asked;
use super::config::handle::{Push, conflict, hub_error, read};
use super::reply::Reply;
use crate::purge::nats::documents::{Heard, Which};

/// Hosts and origins of a new site, at most.
const MANY: usize = 100;

/// A site that is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteRequest {
    /// Its name.
    pub site: String,
    /// The hosts it answers for, as in `www.example.com` or `*.example.com`.
    pub hosts: Vec<String>,
    /// URLs, each with `http` or `https`, a host and perhaps a port.
    pub origins: Vec<String>,
    /// Requests in the clear are answered too; absent: they are redirected to HTTPS.
    #[serde(default)]
    pub allow_http: bool,
}

/// A site that is not to be any more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteDeletion {
    pub site: String,
}

/// A host of a site.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRequest {
    pub site: String,
    pub host: String,
}

/// What is to become of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// Nothing is ordered for it any more, and what was issued is used no more.
    Revoke,
    /// It is looked at anew.
    Allow,
}

/// The sites of the token, as the node that was asked has them.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sites {
    pub sites: Vec<SiteState>,
}

/// A site and its hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SiteState {
    pub site: String,
    /// What its hosts are to be a CNAME of. None: no zone is configured.
    pub target: Option<String>,
    /// The addresses for hosts that cannot be a CNAME.
    pub addresses: Vec<String>,
    pub hosts: Vec<HostState>,
}

/// How a host stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostState {
    pub host: String,
    /// `waiting` until its name leads here; `proven`; `revoked`; or `configured` where nobody looks.
    pub state: &'static str,
    /// How it was proven, or what is missing.
    pub said: String,
    /// A TXT record that proves it before its name leads here.
    pub txt: Option<TxtRecord>,
    pub certificate: Option<HostCertificate>,
    /// Clients are served: its name leads here, and where there is TLS it has a certificate.
    pub live: bool,
}

/// A record for DNS.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TxtRecord {
    pub name: String,
    pub value: String,
}

/// The certificate of a host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostCertificate {
    /// `acme`: it was issued to this CDN; `brought`: by the operator or the site.
    pub from: &'static str,
    /// In seconds since 1970; none of one that was brought, which `/v1/certificates` has.
    pub not_after: Option<u64>,
    /// When it is renewed.
    pub renew_at: Option<u64>,
}

impl Admin {
    /// The sites of the token.
    pub(super) fn sites(&self, caller: &Caller) -> Reply {
        let mut sites = self.node.site_states();
        sites.retain(|site| caller.may(&site.site));
        Reply::json(StatusCode::OK, &Sites { sites })
    }

    /// Publishes a new site, on all nodes. Its hosts are reserved by that: no other site can have them.
    pub(super) async fn add_site(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let SiteRequest { site, hosts, origins, allow_http } = read(asked).await?;
        for (what, list) in [("hosts", &hosts), ("origins", &origins)] {
            if list.is_empty() || list.len() > MANY {
                return Err(Reply::error(StatusCode::BAD_REQUEST, format!("expected 1 to {MANY} {what}")));
            }
        }
        let hosts: Vec<String> = hosts.iter().map(|host| canonical(host)).collect();
        let text = new_site(&site, &hosts, &origins, !allow_http);
        let which = document(&site)?;
        let shelf = self.shelf().map_err(|refused| if self.node.shelf().is_none() { alone(&text) } else { refused })?;
        if self.node.snapshot().sites().iter().any(|known| known.name == site) {
            return Err(conflict(format!(
                "there is a site {site} already: add hosts to it with littoral site host add"
            )));
        }
        let latest = shelf.latest(&which).await.map_err(|error| hub_error(&error))?;
        let push = Push { which, text, share: 100, note: "added".to_owned(), expected: None };
        self.publish(&caller, &shelf, push, latest).await
    }

    /// Takes a site away, on all nodes.
    pub(super) async fn delete_site(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let SiteDeletion { site } = read(asked).await?;
        let shelf = self.shelf()?;
        let (which, latest) = (document(&site)?, self.known(&site).await?);
        let push = Push { which, text: String::new(), share: 100, note: "removed".to_owned(), expected: None };
        self.publish(&caller, &shelf, push, Some(latest)).await
    }

    /// Adds a host to a site.
    pub(super) async fn add_host(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let HostRequest { site, host } = read(asked).await?;
        self.change_hosts(&caller, &site, |text| with_host(&site, text, &canonical(&host)), &host).await
    }

    /// Takes a host of a site away; what was issued for it is used no more.
    pub(super) async fn delete_host(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let HostRequest { site, host } = read(asked).await?;
        self.change_hosts(&caller, &site, |text| without_host(&site, text, &canonical(&host)), &host).await
    }

    async fn change_hosts(
        &self,
        caller: &Caller,
        site: &str,
        change: impl Fn(&str) -> Option<String>,
        host: &str,
    ) -> Result<Reply, Reply> {
        let shelf = self.shelf()?;
        let latest = self.known(site).await?;
        let text = latest.document.as_ref().map(|document| document.text.clone()).unwrap_or_default();
        let nothing = || Reply::error(StatusCode::NOT_FOUND, format!("the site {site} has no host {host} in a list"));
        let (which, text) = (document(site)?, change(&text).ok_or_else(nothing)?);
        let expected = Some(latest.version);
        let push = Push { which, text, share: 100, note: format!("hosts: {host}"), expected };
        self.publish(caller, &shelf, push, Some(latest)).await
    }

    /// Revokes a host, or has it looked at anew.
    pub(super) async fn judge_host(&self, asked: &mut Asked, change: HostChange) -> Result<Reply, Reply> {
        let HostRequest { site, host } = read(asked).await?;
        let host = canonical(&host);
        let state = self.node.judge_host(&site, &host, change).await;
        state.map(|state| Reply::json(StatusCode::OK, &state)).map_err(conflict)
    }

    /// The latest version of a site that the hub has.
    async fn known(&self, site: &str) -> Result<Heard, Reply> {
        let latest = self.shelf()?.latest(&document(site)?).await.map_err(|error| hub_error(&error))?;
        let has_text = |heard: &Heard| heard.document.as_ref().is_ok_and(|document| !document.text.trim().is_empty());
        let missing = || Reply::error(StatusCode::NOT_FOUND, format!("the hub has no site {site}"));
        latest.filter(has_text).ok_or_else(missing)
    }
}

fn document(site: &str) -> Result<Which, Reply> {
    Which::named(site)
        .ok_or_else(|| Reply::error(StatusCode::BAD_REQUEST, format!("{site:?} cannot be the name of a site")))
}

/// A host as configurations have it.
fn canonical(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// What an operator does whose node follows no hub.
fn alone(text: &str) -> Reply {
    let message = "this node follows no hub: put the site into its configuration, and reload it";
    let error = serde_json::json!({ "errors": [{ "message": format!("{message}\n\n{text}") }], "text": text });
    Reply::json(StatusCode::CONFLICT, &error)
}
