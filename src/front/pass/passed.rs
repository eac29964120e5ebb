//! One request on the pass path: what the proxy does not see of it, who is asked, and what became of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_config::section::limits::Limits;
use parking_lot::Mutex;
use pingora::http::RequestHeader;

use super::kept::Kept;
use super::patience::{Patience, upload_of};
use crate::clock;
use crate::front::gate::{Forwarding, Framing, Head, Keep, write_forward_fields};
use crate::front::log::Seen;
use crate::front::mirroring::Pending;
use crate::front::request::Routed;
use crate::origin::Changed;
use crate::origin::Failure;
use crate::origin::group::{Choice, Group, Member, Wanted};
use crate::origin::prepare::Payload;
use crate::origin::retry::is_failure;
use crate::origin::session::Session;
use crate::purge::position::Position;
use crate::routing::rule::Matched;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_status::Reason;
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::telemetry::metrics::Metrics;

/// What the proxy does not see of a request, and what it says about it.
pub(super) struct Passed {
    pub(super) site: Arc<Site>,
    pub(super) limits: Limits,
    /// The rules of the site that match.
    pub(super) matched: Option<Matched>,
    /// Who of the site is asked.
    pub(super) group: GroupIndex,
    pub(super) scheme: &'static str,
    pub(super) method: String,
    pub(super) host: Vec<u8>,
    /// What the client asks for, without what makes no difference.
    pub(super) target: Vec<u8>,
    /// What the origin is asked for.
    pub(super) asked_for: Vec<u8>,
    /// The field lines of the request.
    pub(super) fields: Vec<u8>,
    pub(super) client: IpAddr,
    /// Its session with an origin.
    pub(super) session: Session,
    pub(super) payload: Payload,
    /// What the node knew of purges when the request began, and when that was.
    pub(super) began: Position,
    pub(super) request_time: UnixMs,
    /// The answer, where it is kept.
    pub(super) kept: Mutex<Option<Kept>>,
    /// What it has changed, until other nodes are told.
    pub(super) changed: Mutex<Option<Changed>>,
    pub(super) wants_trailers: bool,
    pub(super) reason: Reason,
    pub(super) result: Mutex<PassResult>,
    pub(super) asked: Mutex<Asked>,
    pub(super) patience: Patience,
    /// A copy of the request, while its body comes.
    copy: Mutex<Option<Pending>>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct PassResult {
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) failure: Option<Failure>,
    pub(super) complete: bool,
    pub(super) retries: u32,
}

/// Who has been asked for a request.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) tried: Vec<usize>,
    pub(super) choice: Option<Choice>,
    /// Chosen when the one before failed, and paid for from the budget.
    pub(super) next: Option<Choice>,
}

impl Passed {
    /// `arrived`: bytes of the body that are here already.
    pub(super) fn new(
        seen: &Seen<'_>,
        site: &Arc<Site>,
        routed: &Routed,
        limits: Limits,
        began: Position,
        arrived: usize,
    ) -> Arc<Self> {
        let head = seen.head;
        Arc::new(Self {
            site: site.clone(),
            limits,
            matched: routed.matched.clone(),
            group: routed.group,
            scheme: seen.peer.scheme(),
            method: head.method.as_str().to_owned(),
            host: head.host.to_vec(),
            wants_trailers: head.fields.first("te").is_some_and(|te| te.eq_ignore_ascii_case(b"trailers")),
            target: routed.target(head).to_vec(),
            asked_for: routed.asked(head).to_vec(),
            fields: routed.fields(head).as_bytes().to_vec(),
            client: seen.peer.client,
            session: routed.session,
            payload: if head.framing.has_body() { Payload::Streamed } else { Payload::Empty },
            began,
            request_time: clock::wall(),
            kept: Mutex::default(),
            changed: Mutex::default(),
            reason: match (head.asks_for_websocket(), head.method.is_safe()) {
                (true, _) => Reason::PassUpgrade,
                (false, true) if matches!(head.method.as_str(), "GET" | "HEAD") => Reason::RequestBody,
                (false, _) => Reason::Method,
            },
            result: Mutex::default(),
            asked: Mutex::default(),
            patience: Patience::new(upload_of(head, arrived)),
            copy: Mutex::default(),
        })
    }
}

impl Passed {
    /// Has a copy sent when all of the body is there.
    pub(super) fn copy(&self, pending: Option<Pending>) {
        *self.copy.lock() = pending.and_then(Pending::send_if_complete);
    }

    pub(super) fn copy_body(&self, piece: &[u8], ends: bool) {
        let mut copy = self.copy.lock();
        *copy = copy.take().and_then(|pending| pending.push(piece, ends));
    }

    /// What of the body has not come by now is not copied.
    pub(super) fn no_more_of_the_body(&self) {
        self.copy.lock().take().into_iter().for_each(Pending::give_up);
    }

    /// Who is asked now. Waits where every origin has as many requests as it may.
    pub(super) async fn choose(&self) -> Result<(Arc<Member>, Duration), Failure> {
        let (tried, next) = {
            let mut asked = self.asked.lock();
            if asked.choice.is_none() {
                self.group().begin();
            }
            (asked.tried.clone(), asked.next.take())
        };
        let choice = match next {
            Some(next) => next,
            None => self.group().choose(Wanted { tried: &tried, ..self.wanted() }).await?,
        };
        let chosen = (choice.member.clone(), choice.connect);
        self.patience.asked(chosen.0.peer.origin());
        self.asked.lock().choice = Some(choice);
        // Whoever is asked gets the body from its beginning.
        self.copy.lock().as_mut().into_iter().for_each(Pending::again);
        Ok(chosen)
    }

    pub(super) fn group(&self) -> &Group {
        &self.site.backing(self.group).group
    }

    fn wanted(&self) -> Wanted<'_> {
        let key = self.group().key(&self.host, &self.asked_for, Fields::new(&self.fields), Some(self.client));
        Wanted { key, session: self.session, ..Wanted::default() }
    }

    /// The `Set-Cookie` of an answer with this status, which keeps the session with whoever gave it.
    pub(super) fn cookie(&self, status: u16) -> Option<String> {
        let is_final = status >= 200 || status == 101;
        let index = self.asked.lock().choice.as_ref().map(|choice| choice.index)?;
        let wanted = is_final && !is_failure(self.group().retry(), status);
        wanted.then(|| self.group().cookie(self.session, index, self.scheme == "https")).flatten()
    }

    /// The `Set-Cookie` of an answer that refuses the session.
    pub(super) fn last_cookie(&self) -> Option<String> {
        self.group().last_cookie(self.session, self.scheme == "https")
    }

    /// Who was asked last, and since when.
    fn asked(&self) -> Option<(Arc<Member>, Instant)> {
        self.asked.lock().choice.as_ref().map(|choice| (choice.member.clone(), choice.began))
    }

    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.asked.lock().choice.as_ref().map(|choice| choice.member.clone())
    }

    pub(super) fn succeeded(&self, metrics: &Metrics) {
        if let Some((member, began)) = self.asked() {
            member.succeeded(began, metrics);
        }
    }

    pub(super) fn failed(&self, metrics: &Metrics) {
        if let Some((member, began)) = self.asked() {
            member.failed(began, metrics);
        }
    }

    /// Whether another origin may be asked; it is chosen then.
    pub(super) fn may_try_again(&self) -> bool {
        let mut asked = self.asked.lock();
        let failed = asked.choice.as_ref().map(|choice| choice.index);
        asked.tried.extend(failed);
        asked.next = self.group().choose_again(Wanted { tried: &asked.tried, ..self.wanted() });
        if asked.next.is_some() {
            self.result.lock().retries += 1;
        }
        asked.next.is_some()
    }

    /// Has the same origin asked on another connection.
    pub(super) fn ask_the_same_again(&self) -> bool {
        let mut asked = self.asked.lock();
        asked.next = asked.choice.clone();
        true
    }
}

/// The request of an HTTP/2 stream as the proxy takes it: what the gate understood, not what the client sent.
pub(super) fn request_header(head: &Head<'_>, forwarding: &Forwarding<'_>) -> Option<RequestHeader> {
    let mut fields = Vec::with_capacity(head.fields.as_bytes().len() + 256);
    write_forward_fields(head, forwarding, Keep::RangeAndConditionals, &mut fields);
    let mut request = RequestHeader::build(head.method.as_str(), head.target, None).ok()?;
    // The proxy writes the body to an HTTP/1 origin as its framing needs; it does so for this version only.
    request.set_version(http::Version::HTTP_2);
    request.insert_header(http::header::HOST, http::HeaderValue::from_bytes(head.host).ok()?).ok()?;
    for line in Fields::new(&fields).lines() {
        let name = http::HeaderName::from_bytes(line.name).ok()?;
        request.append_header(name, http::HeaderValue::from_bytes(line.value).ok()?).ok()?;
    }
    if let Framing::Length(length) = head.framing {
        request.insert_header(http::header::CONTENT_LENGTH, length).ok()?;
    }
    for name in ["te", "expect"] {
        if let Some(value) = head.fields.first(name) {
            request.insert_header(name, http::HeaderValue::from_bytes(value).ok()?).ok()?;
        }
    }
    Some(request)
}
