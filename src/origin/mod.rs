//! Who answers, and asking them.
//!
//! [`Upstream`] is what a fill asks; [`fetch`] is the real one, on Pingora's connector. Everything that can go wrong on
//! the way is a [`Failure`].
//!
//! - [`balance`], [`health`], [`ejection`], [`retry`]: who is asked, who is up, and how often one tries again. Pure.
//! - [`peer`]: one origin as Pingora connects to it; [`credentials`]: the files it takes, [`announce`]: connections that begin
//!   with the PROXY protocol.
//! - [`prepare`]: what a request gets on its way to one origin; [`sigv4`]: signatures. The latter is pure.
//! - [`member`], [`roster`], [`group`]: one address of an origin, all there are at one moment, and the origins of a site
//!   together; [`company`]: how members see one another.
//! - [`session`]: sessions that stay with one of them, and their cookies. Pure. [`drains`]: those that are being taken out.
//! - [`dns`]: what the names of origins resolve to.
//! - [`queue`]: those that wait until one has room.
//! - [`resume`]: a body that goes on where it broke off.
//! - [`probe`]: active checks; [`serving`]: the question and the answer of those of gRPC. The latter is pure.
//! - [`validations`]: what is asked because the node is isolated.
//! - [`mirror`], [`fuse`]: copies of requests that nobody waits for, and when none are sent.
//! - [`demo`]: the built-in demonstration origin of a node that has no other.

pub mod announce;
pub mod balance;
pub mod company;
pub mod credentials;
pub mod demo;
pub mod dns;
pub mod drains;
pub mod ejection;
pub mod fetch;
pub mod fuse;
pub mod group;
pub mod health;
pub mod hedge;
pub mod member;
pub mod mirror;
pub mod peer;
pub mod prepare;
pub mod probe;
pub mod queue;
pub mod resume;
pub mod retry;
pub mod roster;
pub mod serving;
pub mod session;
pub mod sigv4;
pub mod validations;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use self::session::Session;
use crate::purge::position::LogPosition;
use crate::semantics::cache_status::Reason;
use crate::semantics::time::UnixMs;

/// What a fill asks its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRequest {
    /// `GET` or `HEAD`.
    pub method: &'static str,
    /// Path and query, byte for byte what the cache key was made of.
    pub target: Vec<u8>,
    /// The `Host` the client sent.
    pub host: Vec<u8>,
    /// Field lines, without `host`.
    pub fields: Vec<u8>,
    /// Who asks: the first, where many wait for the answer.
    pub client: Option<IpAddr>,
    /// The index of the member of the group that broke off an answer to this; another one is asked, if one is up. Such a
    /// request is a retry, and taken from their budget.
    pub avoid: Option<usize>,
    /// The session of whoever asks.
    pub session: Session,
    /// What another node is told that may be asked in the place of an origin; none: none may.
    pub through: Option<Arc<Through>>,
}

/// What it takes to ask another node: it decides by itself what the origin is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// Path and query as the client asks for them.
    pub target: Vec<u8>,
    /// Whether the client's scheme is https.
    pub secure: bool,
    /// The position of whoever asks: what was purged until then must not come back.
    pub began: LogPosition,
    /// An answer that was judged before this position cannot be put beside what is there.
    pub needs: Option<LogPosition>,
    /// What this node is to whoever asked it, if that was a node.
    pub asked_as: Option<Role>,
}

/// What a node is to the one that asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one of its PoP that has this object.
    Owner,
    /// Between others and the origins.
    Shield,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Shield => "shield",
        }
    }
}

/// What another node says about its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What that is to this one.
    pub by: Role,
    /// Up to where in the log purges do not concern it. None: nobody here can say what purges it.
    pub at: Option<LogPosition>,
    /// Stale since then at the latest, whatever its fields say.
    pub stale_since: Option<UnixMs>,
}

/// What an origin answered.
pub struct OriginResponse {
    pub status: u16,
    /// End-to-end field lines, without `content-length`.
    pub fields: Vec<u8>,
    /// The length the origin promised.
    pub length: Option<u64>,
    pub body: Box<dyn OriginBody>,
    /// Origins that failed before this one answered.
    pub retries: u32,
    /// The index of the member of the group that answered.
    pub origin: usize,
    /// Where another node answered.
    pub judged: Option<Judged>,
}

/// Takes interim responses as they come.
pub type Interims<'a> = &'a (dyn Fn(u16, Vec<u8>) + Send + Sync);

/// Somebody who can be asked for a response.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends the request and waits for the head of the final response. Interim responses go to `interim`: their status
    /// and end-to-end field lines.
    async fn open(&self, request: &OriginRequest, interim: Interims<'_>) -> Result<OriginResponse, Failure>;

    /// Something was changed by way of this node: whoever stands between it and an origin is told. Not for long: who cannot be
    /// told may answer with what was there before.
    async fn changed(&self, _: &Changed) {}
}

/// What an unsafe request has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub host: Vec<u8>,
    /// Paths and queries.
    pub targets: Vec<Vec<u8>>,
    pub secure: bool,
    /// The lines that name cache groups (RFC 9875 section 3).
    pub fields: Vec<u8>,
}

/// Nobody, for tests of what comes before anybody is asked.
#[cfg(test)]
pub struct Nobody;

#[cfg(test)]
#[async_trait]
impl Upstream for Nobody {
    async fn open(&self, _: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        Err(Failure::Unreachable)
    }
}

/// A response body on its way.
#[async_trait]
pub trait OriginBody: Send {
    /// The next piece; `None` once the body is complete, and only then.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure>;

    /// When all of it is due, if it has a deadline.
    fn due(&self) -> Option<Instant> {
        None
    }
}

/// Why there is no complete answer from an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no connection to the origin")]
    Unreachable,
    #[error("the origin did not answer in time")]
    FirstByteTimeout,
    #[error("the origin stopped sending in the middle of its answer")]
    BetweenBytesTimeout,
    #[error("the origin closed the connection before its answer was complete")]
    Closed,
    #[error("the origin's answer was not well-formed")]
    Malformed,
    #[error("every origin has as many requests as it may, and too many wait")]
    Busy,
    #[error("the origin of the client's session cannot be asked, and no other may be")]
    SessionRefused,
    #[error("the node is isolated, and its origins validate as much as they may")]
    Isolated,
    #[error("nobody waits for the answer any more")]
    Abandoned,
    #[error("the client fell too far behind an answer that is not stored")]
    ReaderTooSlow,
}

impl Failure {
    /// The status of the answer when nothing else can be said.
    pub fn status(self) -> u16 {
        match self {
            Self::FirstByteTimeout | Self::BetweenBytesTimeout => 504,
            Self::Busy | Self::SessionRefused | Self::Isolated => 503,
            _ => 502,
        }
    }

    pub fn reason(self) -> Reason {
        match self {
            Self::Unreachable => Reason::OriginUnreachable,
            Self::FirstByteTimeout | Self::BetweenBytesTimeout => Reason::OriginTimeout,
            Self::Malformed => Reason::MalformedResponse,
            Self::Busy => Reason::OriginBusy,
            Self::Isolated => Reason::Isolated,
            Self::SessionRefused => Reason::SessionRefused,
            Self::Closed | Self::Abandoned | Self::ReaderTooSlow => Reason::FillFailed,
        }
    }

    /// The label of the origin metrics.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Unreachable => "connect",
            Self::FirstByteTimeout | Self::BetweenBytesTimeout => "timeout",
            Self::Malformed => "malformed",
            Self::Closed => "closed",
            Self::Busy => "busy",
            Self::Isolated => "isolated",
            Self::SessionRefused => "session-refused",
            Self::Abandoned | Self::ReaderTooSlow => "abandoned",
        }
    }
}
