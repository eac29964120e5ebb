//! What a request is to the pipeline, and what became of it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::origin::session::Session;
use crate::pipeline::nodes::ByNode;
use crate::routing::rule::Matched;
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_key::canonical_host;
use crate::semantics::cache_status::Reason;
use crate::semantics::directives::RequestDirectives;
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::store::key::CacheKey;
use crate::store::persist::Label;
use crate::telemetry::metrics::CacheOutcome;

/// The methods the cache answers; everything else is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
}

/// A GET or HEAD without a body, as the front accepted it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub site: &'a Arc<Site>,
    /// The rules of the site that match.
    pub matched: Option<&'a Matched>,
    pub method: Method,
    pub scheme: &'static str,
    /// Path and query as the client asks for them, without parameters that make no difference.
    pub target: &'a [u8],
    /// What the origin is asked for: that, or another path.
    pub asked: &'a [u8],
    /// Who is asked.
    pub group: GroupIndex,
    pub host: &'a [u8],
    /// Who asks.
    pub client: Option<IpAddr>,
    /// Its session with an origin.
    pub session: Session,
    pub fields: Fields<'a>,
    pub key: CacheKey,
    pub directives: RequestDirectives,
    /// Any of `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`.
    pub conditional: bool,
    /// `Range` or `If-Range`.
    pub range: bool,
    pub authorization: bool,
    pub now: UnixMs,
    /// Whether a disk may be asked; not any more where one has failed it.
    pub disk: bool,
    /// How often what was to answer it turned out to have been replaced at the origin.
    pub rounds: u32,
    /// The origin gives no ranges of it: all of it is asked for.
    pub in_full: bool,
    /// Another node asks.
    pub by_node: Option<ByNode>,
    /// What it is told in lines of its own.
    pub told: &'a [u8],
    /// Writes the field lines an origin gets for this request.
    pub forward: &'a (dyn Fn(Forwarded, &mut Vec<u8>) + Sync),
}

impl Request<'_> {
    /// What a response to it is called where disks are looked at.
    pub fn label(&self) -> Label {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let host = canonical_host(self.host, self.scheme);
        Label {
            site: self.site.name.clone(),
            scheme: self.scheme.to_owned(),
            host: text(&host),
            target: text(self.target),
        }
    }
}

/// Which fields of the request go to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// What a response for everybody may depend on: no conditions, no range.
    Shared,
    /// All of it: the answer is for this request alone.
    Own,
}

/// What became of a request: the material of its log record and its metrics.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub status: u16,
    pub cache: CacheOutcome,
    pub reason: Option<Reason>,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    pub ttl: Option<i64>,
    pub age: Option<u64>,
    /// The client got everything it was promised; otherwise its connection must not look as if it had.
    pub complete: bool,
    /// The origins that are asked for such requests.
    pub group: GroupIndex,
    /// The index among them of the one that answered this request, if it is known.
    pub origin: Option<usize>,
    /// Origins that failed before one answered.
    pub retries: u32,
    /// Some of what it was answered with was read from a disk.
    pub from_disk: bool,
}

impl Outcome {
    /// The client could not be written to. 499 is what nginx calls "client closed request": in the log only, nobody is
    /// there to receive it.
    pub fn client_gone() -> Self {
        Self { complete: false, ..Self::new(499, CacheOutcome::Error, None) }
    }

    pub fn new(status: u16, cache: CacheOutcome, reason: Option<Reason>) -> Self {
        Self {
            status,
            cache,
            reason,
            bytes: 0,
            ttl: None,
            age: None,
            complete: true,
            group: GroupIndex::OWN,
            origin: None,
            retries: 0,
            from_disk: false,
        }
    }
}
