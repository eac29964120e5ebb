//! `POST /v1/purge` and `GET /v1/purges/{id}`: from what a customer names to a record of the log, and back.

pub mod handle;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use crate::purge::record::{EVERY_SITE, Kind, PurgeMode, Selector};
use crate::routing::rule::Facts;
use crate::routing::{Site, Snapshot};
use crate::semantics::fields::Fields;
use crate::semantics::surrogate::KEY_BYTES_MAX;

/// Things one request may name.
pub const SELECTORS_MAX: usize = 500;
/// How long one waits for every node, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long one may wait for every node.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What to purge. Everything named is purged by one record: all of it or nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// The site that `tags` and prefixes without a host are of. Not needed where there is, or the token is for, only one.
    pub site: Option<String>,
    /// Absolute URLs, all variants of each, over HTTP and HTTPS.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Surrogate keys.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Beginnings of paths: `/path`, or `host/path`.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Hosts, on every port.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Whole sites, by name.
    #[serde(default)]
    pub sites: Vec<String>,
    /// All sites at once.
    #[serde(default)]
    pub everything: bool,
    /// `delete`: gone at once, never served again. `invalidate`: stale at once, so that it is validated before it is used
    /// again.
    #[serde(default)]
    pub mode: PurgeMode,
}

/// What became of a purge.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// To ask `GET /v1/purges/{id}` with.
    pub id: String,
    /// Its place in the log. None: it waits for the log, which cannot be reached; it is applied when that can.
    pub position: Option<LogPlace>,
    /// When it was asked for, in milliseconds of Unix time.
    pub at: u64,
    pub mode: PurgeMode,
    pub selectors: Vec<Selector>,
    /// The name of the token it was asked for with.
    pub by: String,
    /// Whether every node has applied it: none serves what it purged.
    pub applied: bool,
    /// Each node, and how far it is.
    pub nodes: Vec<NodePlace>,
}

/// A place in the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogPlace {
    /// Grows when a log is lost.
    pub generation: u16,
    pub seq: u64,
}

/// How far a node is.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodePlace {
    pub node: String,
    /// The last record it has applied. None: it follows another log.
    pub position: Option<LogPlace>,
    /// It serves nothing of what was purged: it has applied the purge, or cannot take itself for current without having it.
    pub applied: bool,
    /// It has been cut off from the log for longer than it may trust what it stored.
    pub isolated: bool,
}

/// Something wrong with a request.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Wrong {
    /// Where, as in `urls[2]`.
    pub key: String,
    pub message: String,
}

/// Why a request is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// What is asked for makes no sense; everything that is wrong with it.
    Wrong(Vec<Wrong>),
    /// It is about something the token is not for. It tells nothing about whether that exists.
    NotAllowed(Vec<Wrong>),
}

/// Reads a request as selectors.
pub struct Reading<'a> {
    pub snapshot: &'a Snapshot,
    pub caller: &'a Caller,
    wrong: Vec<Wrong>,
    denied: Vec<Wrong>,
    selectors: Vec<Selector>,
}

impl PurgeRequest {
    /// What it names, for who may ask for it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn selectors(&self, snapshot: &Snapshot, caller: &Caller) -> Result<Vec<Selector>, Refused> {
        let mut reading = Reading { snapshot, caller, wrong: Vec::new(), denied: Vec::new(), selectors: Vec::new() };
        reading.read(self);
        let Reading { wrong, denied, mut selectors, .. } = reading;
        if !denied.is_empty() {
            return Err(Refused::NotAllowed(denied));
        }
        if !wrong.is_empty() {
            return Err(Refused::Wrong(wrong));
        }
        let mut seen = std::collections::HashSet::new();
        selectors.retain(|selector| seen.insert(selector.clone()));
        Ok(selectors)
    }

    fn named(&self) -> usize {
        let lists = [&self.urls, &self.tags, &self.prefixes, &self.hosts, &self.sites];
        lists.iter().map(|list| list.len()).sum::<usize>() + usize::from(self.everything)
    }
}

impl Reading<'_> {
    fn wrong(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.wrong.push(Wrong { key: key.into(), message: message.into() });
    }

    fn read(&mut self, request: &PurgeRequest) {
        match request.named() {
            0 => return self.wrong("", "nothing is named: give urls, tags, prefixes, hosts, sites or everything"),
            named if named > SELECTORS_MAX => {
                return self.wrong("", format!("{named} things are named, at most {SELECTORS_MAX} fit one request"));
            }
            _ => {}
        }
        if request.everything {
            match self.caller.may_everything() {
                true => self.selectors.push(Selector::new(EVERY_SITE, Kind::Everything, "")),
                false => self.deny("everything"),
            }
        }
        for (index, name) in request.sites.iter().enumerate() {
            let key = format!("sites[{index}]");
            if let Some(site) = self.named_site(&key, name) {
                self.selectors.push(Selector::new(&site, Kind::Site, ""));
            }
        }
        for (index, host) in request.hosts.iter().enumerate() {
            let key = format!("hosts[{index}]");
            if host.is_empty() || host.contains(['/', ' ', '@']) {
                self.wrong(key, format!("`{host}` is not a host"));
            } else if let Some(site) = self.site_of_host(&key, host) {
                self.selectors.push(Selector::new(&site, Kind::Host, host.to_ascii_lowercase()));
            }
        }
        for (index, url) in request.urls.iter().enumerate() {
            self.url(&format!("urls[{index}]"), url);
        }
        let needs_site = !request.tags.is_empty() || request.prefixes.iter().any(|prefix| prefix.starts_with('/'));
        let site = if needs_site { self.site(request.site.as_deref()) } else { None };
        for (index, tag) in request.tags.iter().enumerate() {
            if tag.is_empty() || tag.len() > KEY_BYTES_MAX {
                self.wrong(format!("tags[{index}]"), format!("a surrogate key has 1 to {KEY_BYTES_MAX} bytes"));
            } else if let Some(site) = &site {
                self.selectors.push(Selector::new(site, Kind::Tag, tag.clone()));
            }
        }
        for (index, prefix) in request.prefixes.iter().enumerate() {
            self.prefix(&format!("prefixes[{index}]"), prefix, site.as_deref());
        }
    }

    /// The site of what has no host.
    fn site(&mut self, named: Option<&str>) -> Option<String> {
        let only = match self.snapshot.sites() {
            [site] => Some(site.name.clone()),
            _ => None,
        };
        match named.map(str::to_owned).or_else(|| self.caller.only_site().map(str::to_owned)).or(only) {
            Some(site) => self.named_site("site", &site),
            None => {
                self.wrong("site", "tags and prefixes without a host are of a site, and there are several: name it");
                None
            }
        }
    }

    fn named_site(&mut self, key: &str, name: &str) -> Option<String> {
        if !self.caller.may(name) {
            self.deny(key);
            return None;
        }
        if !self.snapshot.sites().iter().any(|site| site.name == name) {
            self.wrong(key, format!("no site is called {name}"));
            return None;
        }
        Some(name.to_owned())
    }

    fn site_of_host(&mut self, key: &str, host: &str) -> Option<String> {
        let site = self.snapshot.site(host.as_bytes()).cloned();
        match site {
            Some(site) if self.caller.may(&site.name) => Some(site.name.clone()),
            None if self.caller.may_everything() => {
                self.wrong(key, format!("no site answers for {host}"));
                None
            }
            _ => {
                self.deny(key);
                None
            }
        }
    }

    fn deny(&mut self, key: &str) {
        self.denied.push(Wrong { key: key.to_owned(), message: "the token is not for this".into() });
    }

    fn url(&mut self, key: &str, text: &str) {
        let uri = text.parse::<http::Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.authority()?.as_str()))) else {
            return self.wrong(key, format!("`{text}` is not a URL: expected http:// or https://, a host and a path"));
        };
        if self.site_of_host(key, host).is_none() {
            return;
        }
        let Some(site) = self.snapshot.site(host.as_bytes()).cloned() else { return };
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if site.no_vary_search {
            // What is stored for a URL of another query may be what this one is answered with.
            let path = target.split('?').next().unwrap_or_default();
            self.selectors.push(Selector::new(&site.name, Kind::Prefix, format!("{host}{path}")));
        }
        let ruled = target_by_rules(&site, host, target);
        for scheme in ["http", "https"] {
            for target in [Some(target), ruled.as_deref()].into_iter().flatten() {
                self.selectors.push(Selector::new(&site.name, Kind::Url, format!("{scheme}://{host}{target}")));
            }
        }
    }

    fn prefix(&mut self, key: &str, text: &str, site: Option<&str>) {
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        if bare.contains('?') || !bare.contains('/') {
            return self.wrong(key, format!("`{text}` is not the beginning of a path: expected /path or host/path"));
        }
        if bare.starts_with('/') {
            if let Some(site) = site {
                self.selectors.push(Selector::new(site, Kind::Prefix, bare));
            }
            return;
        }
        let host = bare.split('/').next().unwrap_or_default();
        if let Some(site) = self.site_of_host(key, host) {
            self.selectors.push(Selector::new(&site, Kind::Prefix, bare));
        }
    }
}

/// The target a GET of it is stored under, where rules of the site make it another.
fn target_by_rules(site: &Site, host: &str, target: &str) -> Option<String> {
    let facts = Facts {
        target: target.as_bytes(),
        host: host.as_bytes(),
        method: "GET",
        fields: Fields::new(b""),
        client: std::net::Ipv4Addr::UNSPECIFIED.into(),
        geo: None,
    };
    let matched = site.rules.request(&facts)?;
    String::from_utf8(site.rules.target(&matched, target.as_bytes())?).ok()
}

/// What `?wait=all&timeout=2s` asks for: how long to wait for every node, if at all.
///
/// # Errors
/// What is wrong with it.
pub fn read_wait(query: Option<&str>) -> Result<Option<Duration>, Wrong> {
    let (mut waits, mut timeout) = (false, TIMEOUT);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let message = match name {
            "wait" if value == "all" => {
                waits = true;
                continue;
            }
            "wait" => "expected wait=all".to_owned(),
            "timeout" => match value.parse::<edge_config::Duration>() {
                Ok(time) if time.get() <= TIMEOUT_MAX => {
                    timeout = time.get();
                    continue;
                }
                _ => format!("expected a time as in 2s, at most {}s", TIMEOUT_MAX.as_secs()),
            },
            _ => "expected wait and timeout".to_owned(),
        };
        return Err(Wrong { key: name.to_owned(), message });
    }
    Ok(waits.then_some(timeout))
}

/// How much of each site's rate a purge takes.
pub fn cost(selectors: &[Selector]) -> BTreeMap<&str, u32> {
    let mut cost = BTreeMap::new();
    selectors.iter().for_each(|selector| *cost.entry(selector.site.as_str()).or_default() += 1);
    cost
}

#[cfg(test)]
pub mod tests;
