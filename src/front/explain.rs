//! `GET /v1/explain`: what would become of a request, in sentences and for programs.
//!
//! The request is written as a client would send it and goes through the gate, the rules and the decision that a client's
//! goes through; only nobody is asked, and nothing is answered.

mod path;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use self::path::HopAt;
use crate::clock;
use crate::fleet::choosing;
use crate::front::gate::{Head, Refusal, Verdict, gate};
use crate::front::log::Seen;
use crate::front::request::{Own, Routed, is_cached, pipeline_request, refusal};
use crate::front::{Front, Peer};
use crate::origin::roster::Placed;
use crate::pipeline::explain::{Chunks, Explanation, Named, Places, Question, Stored};
use crate::pipeline::request::Forwarded;
use crate::routing::rule::Matched;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_key::canonical_host;
use crate::semantics::cache_status::{CacheStatus, Reason};

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// `hit`, `hit-then-refresh`, `complete`, `revalidate`, `fetch`, `nothing-stored`, `pass` or `refused`.
    pub outcome: &'static str,
    /// The status of the answer, where it is known before an origin is asked.
    pub status: Option<u16>,
    /// What `Cache-Status` would say, as far as it is known now.
    pub cache_status: String,
    /// The reason's token.
    pub reason: Option<&'static str>,
    pub site: Option<String>,
    /// The group of origins that the rules send it to, where it is not the site's own.
    pub group: Option<String>,
    pub key: Option<Key>,
    /// The rules that match the request, in order.
    pub rules: Vec<RuleAt>,
    pub stored: Option<Stored>,
    /// Where that is.
    pub places: Option<Places>,
    /// The fields that select among what is stored for the URL, one set an entry.
    pub vary: Vec<String>,
    /// Why the last answer was not stored, where that is known.
    pub last_not_stored: Option<&'static str>,
    /// The nodes that are asked before an origin is, where there are other nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<HopAt>,
    /// Who may be asked, in the order of the configuration.
    pub origins: Vec<OriginAt>,
    /// The origin that the client's session is with, where a cookie says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How one of them is chosen, in words.
    #[serde(skip)]
    pub balance: &'static str,
    /// All of it in words.
    pub sentences: Vec<String>,
}

/// What the response is stored under, and what that is made of.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    pub digest: String,
    pub site: String,
    pub scheme: &'static str,
    pub host: String,
    pub path_and_query: String,
    /// The group of origins, where it is not the site's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What the origin is asked for, where it is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
}

/// A rule, and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct RuleAt {
    pub file: String,
    pub line: u32,
    /// Whether it is looked at again when an origin has answered.
    pub for_responses: bool,
}

/// An origin, and whether it is asked.
#[derive(Clone, Debug, Serialize)]
pub struct OriginAt {
    pub origin: String,
    /// One of those its name resolves to. None: nobody knows one.
    pub address: Option<SocketAddr>,
    pub state: &'static str,
    pub tier: u8,
    pub weight: u32,
    /// Requests to it that are under way.
    pub requests: u32,
}

impl Front {
    /// What the store knows a request by. None: no site answers for its host.
    ///
    /// # Errors
    /// It is no request that a client could send.
    pub fn named(&self, question: &Question) -> Result<Option<Named>, Refusal> {
        let head = head_of(question);
        let head = gated(&head)?;
        let snapshot = self.snapshots.load();
        let Some(site) = snapshot.site(head.host) else { return Ok(None) };
        let tls = (question.scheme == "https").then_some("TLSv1.3");
        let peer = Peer { client: question.client, tls, relayed: false };
        let seen = Seen { peer, site: Some(site), head: &head, started: clock::monotonic(), proto: "HTTP/1.1" };
        let routed = Routed::new(&seen, site);
        let key = self.key(&seen, site, &routed, &mut Vec::new());
        let forward = |_: Forwarded, _: &mut Vec<u8>| {};
        let label = pipeline_request(&seen, site, &routed, key, clock::wall(), &forward).label();
        Ok(Some(Named { key, label, fields: routed.fields(&head).as_bytes().to_vec() }))
    }

    /// Explains what would become of a request.
    ///
    /// # Errors
    /// It is no request that a client could send.
    pub async fn explain(&self, question: &Question) -> Result<Answer, Refusal> {
        let head = head_of(question);
        let head = gated(&head)?;
        let snapshot = self.snapshots.load();
        let site = snapshot.site(head.host);
        let tls = (question.scheme == "https").then_some("TLSv1.3");
        let peer = Peer { client: question.client, tls, relayed: false };
        let seen = Seen { peer, site, head: &head, started: clock::monotonic(), proto: "HTTP/1.1" };
        let Some(site) = site else { return Ok(Answer::short("refused", Some(421), Reason::UnknownHost, None)) };
        if let Some((status, reason)) = refusal(&head, site, &self.cdn) {
            return Ok(Answer::short("refused", Some(status), reason, Some((site, GroupIndex::OWN))));
        }
        let routed = Routed::new(&seen, site);
        if let Some(own) = Own::of(self, &seen, site, &routed) {
            let mut answer = Answer::short("refused", Some(own.status()), own.reason(), Some((site, GroupIndex::OWN)));
            answer.rules = rules_of(site, routed.matched.as_ref());
            answer.tell();
            return Ok(answer);
        }
        let mut answer = if is_cached(&head) {
            let mut scratch = Vec::new();
            let key = self.key(&seen, site, &routed, &mut scratch);
            let forward = |_: Forwarded, _: &mut Vec<u8>| {};
            let request = pipeline_request(&seen, site, &routed, key, clock::wall(), &forward);
            let explained = self.pipeline.explain(&request).await;
            let mut answer = Answer::of(&explained, site, routed.group);
            if let Some(fleet) = self.fleet.as_ref().filter(|_| !site.backing(routed.group).group.is_sticky()) {
                let object = choosing::key(&site.name, question.scheme == "https", head.host, routed.target(&head));
                let hops = fleet.path(site.shield.as_deref(), object);
                answer.path = hops.into_iter().map(HopAt::from).collect();
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            answer.key = Some(Key {
                digest: format!("{:032x}", key.as_u128()),
                site: site.name.clone(),
                scheme: peer.scheme(),
                host: text(&canonical_host(head.host, peer.scheme())),
                path_and_query: text(routed.target(&head)),
                group: site.backing(routed.group).name.clone(),
                asked: Some(routed.asked(&head)).filter(|asked| *asked != routed.target(&head)).map(text),
            });
            answer
        } else {
            let reason = match (head.asks_for_websocket(), head.framing.has_body()) {
                (true, _) => Reason::PassUpgrade,
                (false, true) if head.method.is_safe() => Reason::RequestBody,
                _ => Reason::Method,
            };
            Answer::short("pass", None, reason, Some((site, routed.group)))
        };
        answer.rules = rules_of(site, routed.matched.as_ref());
        answer.session = site.backing(routed.group).group.session_origin(routed.session);
        answer.tell();
        Ok(answer)
    }
}

/// The head of a request as a client would send it.
fn head_of(question: &Question) -> String {
    let fields: String = question.fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", question.method, question.target, question.host)
}

fn gated(head: &str) -> Result<Head<'_>, Refusal> {
    match gate(head.as_bytes()) {
        Verdict::Accepted(head) => Ok(head),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::Incomplete => Err(Refusal::MalformedTarget),
    }
}

fn rules_of(site: &Site, matched: Option<&Matched>) -> Vec<RuleAt> {
    let rules = matched.into_iter().flat_map(|matched| site.rules.matching(matched));
    rules
        .map(|rule| RuleAt {
            file: rule.place.file.display().to_string(),
            line: rule.place.line,
            for_responses: rule.when.response.is_some(),
        })
        .collect()
}

impl Answer {
    fn short(
        outcome: &'static str,
        status: Option<u16>,
        reason: Reason,
        site: Option<(&Arc<Site>, GroupIndex)>,
    ) -> Self {
        let cache_status = CacheStatus { detail: Some(reason), ..CacheStatus::default() };
        let mut answer = Self {
            outcome,
            status,
            cache_status: text_of(&cache_status),
            reason: Some(reason.as_str()),
            site: site.map(|(site, _)| site.name.clone()),
            group: site.map(|(site, group)| site.backing(group).name.clone()).filter(|name| !name.is_empty()),
            key: None,
            rules: Vec::new(),
            stored: None,
            places: None,
            vary: Vec::new(),
            last_not_stored: None,
            path: Vec::new(),
            origins: site.map(|(site, group)| origins_of(site, group)).unwrap_or_default(),
            balance: site.map(|(site, group)| site.backing(group).group.balance().words()).unwrap_or_default(),
            session: None,
            sentences: Vec::new(),
        };
        if outcome == "refused" {
            answer.tell();
        }
        answer
    }

    fn of(explained: &Explanation, site: &Site, group: GroupIndex) -> Self {
        Self {
            outcome: explained.outcome.as_str(),
            status: explained.status,
            cache_status: text_of(&explained.cache_status),
            reason: explained.cache_status.detail.map(Reason::as_str),
            site: Some(site.name.clone()),
            group: Some(site.backing(group).name.clone()).filter(|name| !name.is_empty()),
            key: None,
            rules: Vec::new(),
            stored: explained.stored.clone(),
            places: explained.places.clone(),
            vary: explained.vary.clone(),
            last_not_stored: explained.not_stored.map(Reason::as_str),
            path: Vec::new(),
            origins: origins_of(site, group),
            balance: site.backing(group).group.balance().words(),
            session: None,
            sentences: Vec::new(),
        }
    }

    /// Puts it into words.
    fn tell(&mut self) {
        let reason = |token: Option<&str>| {
            let reason = Reason::ALL.iter().find(|reason| Some(reason.as_str()) == token);
            reason.map_or(String::new(), |reason| format!(" {}", reason.sentence()))
        };
        let why = reason(self.reason);
        let mut said = vec![match self.outcome {
            "hit" => {
                format!("The stored response answers it with {}, and nobody is asked.{why}", self.status.unwrap_or(0))
            }
            "hit-then-refresh" => format!(
                "The stored response answers it with {} although it is stale, and an origin is asked to renew it.{why}",
                self.status.unwrap_or(0)
            ),
            "complete" => format!(
                "The stored response answers it with {}, and an origin is asked for the bytes that are missing.{why}",
                self.status.unwrap_or(0)
            ),
            "revalidate" => format!("An origin is asked whether the stored response may still be used.{why}"),
            "fetch" => format!("An origin is asked.{why}"),
            "nothing-stored" => format!("It is answered with 504.{why}"),
            "pass" => format!("The cache has nothing to do with it: an origin answers.{why}"),
            _ => format!("It is answered with {} by the node itself.{why}", self.status.unwrap_or(0)),
        }];
        said.push(match &self.site {
            Some(site) => format!("The site is {site}."),
            None => "No site has this host.".into(),
        });
        said.extend(self.group.as_ref().map(|group| format!("Rules send it to the group {group}.")));
        if let Some(key) = &self.key {
            said.push(format!(
                "The key is made of the site {}, {}, the host {} and {}.",
                key.site, key.scheme, key.host, key.path_and_query
            ));
            match (&key.asked, key.group.as_str()) {
                (Some(asked), "") => said.push(format!("{asked} is asked for instead, which is part of the key too.")),
                (Some(asked), _) => {
                    said.push(format!("{asked} is asked for instead; that and the group are part of the key too."));
                }
                (None, "") => {}
                (None, _) => said.push("The group is part of the key too.".into()),
            }
        }
        for rule in &self.rules {
            let when = if rule.for_responses { ", as far as it is about requests" } else { "" };
            said.push(format!("The rule at {}:{} matches{when}.", rule.file, rule.line));
        }
        match &self.stored {
            Some(stored) => said.extend(sentences_of(stored, self.places.as_ref())),
            None if self.key.is_some() => said.push("Nothing is stored that could answer it.".into()),
            None => {}
        }
        self.vary.iter().for_each(|names| said.push(format!("What is stored for the URL is selected by {names}.")));
        if let Some(token) = self.last_not_stored {
            said.push(format!("The last answer was not stored.{}", reason(Some(token))));
        }
        if !matches!(self.outcome, "hit" | "refused" | "nothing-stored") {
            said.extend(
                self.session
                    .as_ref()
                    .map(|origin| format!("The client's session is with {origin}, which is asked if it can be.")),
            );
            said.extend(self.path.iter().map(HopAt::sentence));
            for origin in self.origins.iter().filter(|origin| origin.state.starts_with("drain")) {
                said.push(format!("{} is {}: it gets no new sessions.", origin.origin, origin.state));
            }
            let up: Vec<&OriginAt> = self.origins.iter().filter(|origin| origin.state == "up").collect();
            let first = up.iter().map(|origin| origin.tier).min();
            let asked: Vec<&OriginAt> = up.into_iter().filter(|origin| Some(origin.tier) == first).collect();
            let mut names: Vec<&str> = asked.iter().map(|origin| origin.origin.as_str()).collect();
            names.dedup();
            said.push(match (names.as_slice(), asked.len()) {
                ([], _) => "No origin is up, or none that does not drain; one of them is asked all the same.".into(),
                ([only], 1) => format!("{only} is asked."),
                ([only], addresses) => format!("One of {addresses} addresses of {only} is asked, {}.", self.balance),
                (several, _) => format!("One of {} is asked, {}.", several.join(", "), self.balance),
            });
        }
        self.sentences = said;
    }
}

fn text_of(status: &CacheStatus) -> String {
    let mut text = Vec::new();
    status.write(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn origins_of(site: &Site, group: GroupIndex) -> Vec<OriginAt> {
    let now = clock::monotonic();
    let group = &site.backing(group).group;
    let origin = |placed: &Placed| OriginAt {
        origin: placed.member.peer.label().to_owned(),
        address: Some(placed.member.target().address),
        state: group.state(placed, now),
        tier: placed.member.tier(),
        weight: placed.member.weight(),
        requests: placed.member.in_flight(),
    };
    let unknown = |label: &str| OriginAt {
        origin: label.to_owned(),
        address: None,
        state: "unresolved",
        tier: 0,
        weight: 0,
        requests: 0,
    };
    let roster = group.roster();
    roster.iter().map(origin).chain(group.without_address().map(unknown)).collect()
}

fn sentences_of(stored: &Stored, places: Option<&Places>) -> Vec<String> {
    let from = match stored.lifetime_source {
        "heuristic" => "a tenth of the time since it was last modified".to_owned(),
        "none" => "nothing, so it is stale from the beginning".to_owned(),
        "rule" => "a rule of the site".to_owned(),
        field => format!("{field} of the origin"),
    };
    let cut = if stored.purged_softly { ", cut short by a soft purge" } else { "" };
    let mut said = vec![
        format!(
            "A response {} of {} bytes is stored {} since {}.",
            stored.status,
            stored.body_bytes,
            places.and_then(|places| places.tier.strip_prefix("disk ")).map_or_else(
                || "in memory".to_owned(),
                |path| format!("on the disk {}", path.trim_matches(['(', ')'])),
            ),
            stored.response_time
        ),
        format!(
            "Its lifetime is {} s, from {from}{cut}; its age is {} s, so that {} s are left.",
            stored.lifetime, stored.age, stored.ttl
        ),
    ];
    match places {
        Some(Places { body_on_disk: Some(path), .. }) => {
            said.push(format!("Its body stands apart, on the disk {path} or in memory: it is read while it is sent."));
        }
        Some(Places { tier, on_disk: Some(path), .. }) if tier == "memory" => {
            said.push(format!("It is on the disk {path} too."));
        }
        Some(Places { not_on_disk: Some(_), .. }) => {
            said.push("It is on no disk: that is full, and takes a response when it is wanted a second time.".into());
        }
        _ => {}
    }
    if let Some(Chunks { all, there }) = stored.chunks {
        let rest = if there < all { "; the others are fetched when they are wanted" } else { "" };
        said.push(format!("{there} of the {all} chunks of its body are there{rest}."));
    }
    if stored.no_cache {
        said.push("It carries no-cache: every use needs validation.".into());
    }
    if stored.must_revalidate {
        said.push("It must not be served stale.".into());
    }
    for (seconds, when) in
        [(stored.stale_while_revalidate, "while it is renewed"), (stored.stale_if_error, "when no origin answers well")]
    {
        if seconds > 0 {
            said.push(format!("For {seconds} s after that it may be served stale {when}."));
        }
    }
    if stored.etag.is_none() && stored.last_modified.is_none() {
        said.push("It has no validator: it can only be fetched anew.".into());
    }
    said
}
