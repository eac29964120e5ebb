//! What both protocols do with a request once its head is accepted.

use std::io;
use std::sync::{Arc, OnceLock};

use edge_config::section::rule::Reply;
use edge_config::section::site::GetBody;

use crate::exchange::{BodyLength, Exchange};
use crate::front::Front;
use crate::front::gate::{Forwarding, Head, Interest, Keep, Method as GateMethod, Refusal, write_forward_fields};
use crate::front::log::{RequestId, Seen};
use crate::front::mirroring::Pending;
use crate::origin::session::{Session, without_cookies};
use crate::pipeline::deliver::write_dynamic;
use crate::pipeline::failure;
use crate::pipeline::request::{Forwarded, Method, Outcome, Request};
use crate::routing::rule::{Facts, Matched};
use crate::routing::snapshot::without_port;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::semantics::cdn_loop::{CdnId, is_loop};
use crate::semantics::directives::RequestDirectives;
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::store::key::CacheKey;

/// Whether the cache has to do with a request: GET or HEAD, without a body, on this protocol.
pub fn is_cached(head: &Head<'_>) -> bool {
    let method = matches!(head.method, GateMethod::Get | GateMethod::Head);
    method && !head.framing.has_body() && !head.asks_for_websocket()
}

/// What is well-formed but not served.
pub fn refusal(head: &Head<'_>, site: &Site, own: &CdnId) -> Option<(u16, Reason)> {
    match head.method {
        _ if head.interest.has(Interest::CDN_LOOP) && is_loop(head.fields, own) => Some((508, Reason::Loop)),
        // No tunnels; and TRACE would show a client what others added to its request.
        GateMethod::Other("CONNECT" | "TRACE") => Some((405, Reason::Method)),
        GateMethod::Get | GateMethod::Head if head.framing.has_body() && site.get_body == GetBody::Refuse => {
            Some((400, Reason::RequestBody))
        }
        _ => None,
    }
}

/// The method of an answer of our own: only HEAD makes a difference.
pub fn answered_method(head: &Head<'_>) -> Method {
    if head.method == GateMethod::Head { Method::Head } else { Method::Get }
}

/// What a request is called in the log: what its origin was told, so a trusted proxy's own name for it comes first.
pub fn name_of(seen: &Seen<'_>, id: RequestId) -> String {
    let given = seen.head.fields.first("x-request-id").filter(|_| seen.trusted());
    given.map_or_else(|| id.text(), |given| String::from_utf8_lossy(given).into_owned())
}

/// A request's name, made when somebody needs it: a hit does not.
#[derive(Default)]
pub struct LazyId(OnceLock<RequestId>);

impl LazyId {
    /// The name in the log, if there is one.
    pub fn trace(&self, seen: &Seen<'_>) -> Option<String> {
        self.0.get().map(|id| name_of(seen, *id))
    }
}

/// Answers what is no request. Gives the length of the body.
///
/// # Errors
/// The client could not be written to.
pub async fn answer_refusal<E: Exchange>(refusal: Refusal, exchange: &mut E) -> io::Result<u64> {
    let body = format!("{}\n", refusal.sentence());
    let mut fields = Vec::with_capacity(128);
    let detail = Some(Reason::MalformedRequest);
    write_dynamic(None, None, None, &CacheStatus { detail, ..CacheStatus::default() }, &mut fields);
    fields.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\n");
    exchange.head(refusal.status(), &[&fields], BodyLength::Known(body.len() as u64));
    exchange.body(&[body.as_bytes()]).await?;
    exchange.finish().await?;
    Ok(body.len() as u64)
}

/// What is answered without a look at what is stored, and without an origin.
#[derive(Debug)]
pub enum Own<'r> {
    /// What an authority that issues certificates asks for.
    Challenge(String),
    /// The same URL under TLS.
    Https,
    /// What a rule says.
    Reply(&'r Reply),
}

impl<'r> Own<'r> {
    pub fn of(front: &Front, seen: &Seen<'_>, site: &'r Site, routed: &Routed) -> Option<Self> {
        // It comes in the clear, whatever the site wants of others.
        if let Some(answer) = front.issued.answer(without_port(seen.head.host), seen.head.target) {
            return Some(Self::Challenge(answer));
        }
        if site.https_only && seen.peer.tls.is_none() {
            return Some(Self::Https);
        }
        routed.matched.as_ref().and_then(|matched| site.rules.reply(matched)).map(Self::Reply)
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Challenge(_) => 200,
            Self::Https => 308,
            Self::Reply(Reply::Status(status)) => *status,
            Self::Reply(Reply::Redirect(redirect)) => redirect.status,
        }
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Challenge(_) => Reason::Challenge,
            Self::Https => Reason::HttpsOnly,
            Self::Reply(_) => Reason::Rule,
        }
    }

    /// Answers.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn answer<E: Exchange>(self, seen: &Seen<'_>, site: &Site, exchange: &mut E) -> io::Result<Outcome> {
        let head = seen.head;
        // `OPTIONS *` is about the server as a whole, and no URL says that: its root stands for it.
        let target = if head.target == b"*" { b"/" } else { head.target };
        let (host, method) = (without_port(head.host), answered_method(head));
        let cache_status = CacheStatus { detail: Some(self.reason()), ..CacheStatus::default() };
        let status = self.status();
        let location = match self {
            Self::Challenge(answer) => {
                return failure::challenge(site, answer.as_bytes(), method, cache_status, exchange).await;
            }
            Self::Https => [b"https://", host, target].concat(),
            Self::Reply(Reply::Redirect(redirect)) => redirect.location(host, target),
            Self::Reply(Reply::Status(status)) => {
                return failure::answer(Some(site), *status, method, cache_status, exchange).await;
            }
        };
        failure::redirect(site, status, &location, method, cache_status, exchange).await
    }
}

/// What the rules of the site make of a request.
#[derive(Debug, Default)]
pub struct Routed {
    pub matched: Option<Matched>,
    /// Who is asked, if anybody.
    pub group: GroupIndex,
    /// The target, where it is not what the client sent.
    target: Option<Vec<u8>>,
    /// What is asked for, where it is not the target.
    asked: Option<Vec<u8>>,
    /// Its session with an origin.
    pub session: Session,
    /// The field lines without what only the node has to know, where there is something of that.
    fields: Option<Vec<u8>>,
}

impl Routed {
    pub fn new(seen: &Seen<'_>, site: &Site) -> Self {
        let mut routed = Self::by_rules(seen, site);
        let fields = seen.head.fields;
        routed.session = site.backing(routed.group).group.session(fields, seen.peer.client);
        routed.fields = without_cookies(fields, &site.session_cookies);
        routed
    }

    fn by_rules(seen: &Seen<'_>, site: &Site) -> Self {
        if site.rules.is_empty() {
            return Self::default();
        }
        let head = seen.head;
        let facts = Facts {
            target: head.target,
            host: head.host,
            method: head.method.as_str(),
            fields: head.fields,
            client: seen.peer.client,
            geo: site.geo.as_ref(),
        };
        let Some(matched) = site.rules.request(&facts) else { return Self::default() };
        let target = site.rules.target(&matched, head.target);
        let asked = site.rules.asked(&matched, target.as_deref().unwrap_or(head.target));
        let group = site.rules.group(&matched, &facts).map_or(GroupIndex::OWN, |name| site.backings.index_of(name));
        Self { matched: Some(matched), group, target, asked, ..Self::default() }
    }

    /// The head as it goes on to an origin that is asked for this request alone.
    pub fn head<'a>(&'a self, head: &Head<'a>) -> Head<'a> {
        Head { target: self.asked(head), fields: self.fields(head), ..*head }
    }

    /// The field lines that an origin sees, and that an answer is selected by.
    pub fn fields<'a>(&'a self, head: &Head<'a>) -> Fields<'a> {
        self.fields.as_deref().map_or(head.fields, Fields::new)
    }

    /// What a response is known and purged by: what the client asks for, without what makes no difference.
    pub fn target<'a>(&'a self, head: &Head<'a>) -> &'a [u8] {
        self.target.as_deref().unwrap_or(head.target)
    }

    /// What the origin is asked for.
    pub fn asked<'a>(&'a self, head: &Head<'a>) -> &'a [u8] {
        self.asked.as_deref().unwrap_or_else(|| self.target(head))
    }

    /// What the response is stored under.
    pub fn key_parts<'a>(&'a self, seen: &Seen<'a>, site: &'a Site, host: &'a [u8]) -> KeyParts<'a> {
        let of_url = KeyParts::of_url(&site.name, seen.peer.scheme(), host, self.target(seen.head));
        KeyParts { group: &site.backing(self.group).name, asked: self.asked.as_deref(), ..of_url }
    }
}

impl Front {
    /// What a request is known by in the store.
    pub fn key(&self, seen: &Seen<'_>, site: &Site, routed: &Routed, scratch: &mut Vec<u8>) -> CacheKey {
        let host = canonical_host(seen.head.host, seen.peer.scheme());
        self.pipeline.store.keyer.primary(&routed.key_parts(seen, site, &host), scratch)
    }

    /// Sends a copy of a request without a body, if a rule wants one.
    pub fn mirror(&self, seen: &Seen<'_>, site: &Site, routed: &Routed, id: &LazyId) {
        let pending = Pending::of(seen, site, routed, |out| self.forward(seen, routed, id, Forwarded::Own, out));
        pending.and_then(Pending::send_if_complete).into_iter().for_each(Pending::give_up);
    }

    /// What an origin is told about a request.
    pub fn forwarding<'a>(&'a self, seen: &Seen<'_>, request_id: &'a str) -> Forwarding<'a> {
        Forwarding {
            client: seen.peer.client,
            trusted: seen.trusted(),
            relayed: seen.peer.relayed,
            secure: seen.peer.tls.is_some(),
            received: seen.proto.strip_prefix("HTTP/").unwrap_or("1.1"),
            request_id,
            cdn: &self.cdn,
        }
    }

    /// Writes the field lines an origin gets for a request.
    pub fn forward(&self, seen: &Seen<'_>, routed: &Routed, id: &LazyId, forwarded: Forwarded, out: &mut Vec<u8>) {
        let id = id.0.get_or_init(|| self.log.next_id()).text();
        let keep = match forwarded {
            Forwarded::Shared => Keep::Nothing,
            Forwarded::Own => Keep::RangeAndConditionals,
        };
        write_forward_fields(&routed.head(seen.head), &self.forwarding(seen, &id), keep, out);
    }
}

/// A request as the pipeline takes it.
pub fn pipeline_request<'a>(
    seen: &Seen<'a>,
    site: &'a Arc<Site>,
    routed: &'a Routed,
    key: CacheKey,
    now: UnixMs,
    forward: &'a (dyn Fn(Forwarded, &mut Vec<u8>) + Sync),
) -> Request<'a> {
    let head = seen.head;
    let mut directives = match head.interest.has(Interest::CACHE_CONTROL) {
        true => RequestDirectives::parse(head.fields),
        false => RequestDirectives::NONE,
    };
    // What the origin does not get to see it cannot answer by: stored under a variant selected by such a field, its answer
    // would be another's.
    directives.no_store |= head.interest.has(Interest::NAMES_FIELDS);
    Request {
        site,
        matched: routed.matched.as_ref(),
        method: answered_method(head),
        scheme: seen.peer.scheme(),
        target: routed.target(head),
        asked: routed.asked(head),
        group: routed.group,
        host: head.host,
        client: Some(seen.peer.client),
        session: routed.session,
        fields: routed.fields(head),
        key,
        directives,
        conditional: head.interest.has(Interest::CONDITIONAL),
        range: head.interest.has(Interest::RANGE),
        authorization: head.interest.has(Interest::AUTHORIZATION),
        now,
        disk: true,
        rounds: 0,
        in_full: false,
        by_node: None,
        told: b"",
        forward,
    }
}
