//! What would become of a request, by the functions that decide it.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use crate::pipeline::Pipeline;
use crate::pipeline::decide::{Decision, FillSharing, Plan, range_of};
use crate::pipeline::request::{Method, Request};
use crate::semantics::cache_status::{CacheStatus, Reason};
use crate::semantics::directives::ResponseDirectives;
use crate::semantics::freshness::lifetime;
use crate::semantics::http_date;
use crate::semantics::range::RangePlan;
use crate::semantics::reuse::Freshness;
use crate::semantics::time::UnixMs;
use crate::semantics::validation::{Precondition, precondition, validators};
use crate::store::admission::{Admission, Facts, admission};
use crate::store::body::chunks_of;
use crate::store::disk::frame::FrameKey;
use crate::store::key::CacheKey;
use crate::store::memory::Entry;
use crate::store::persist::Label;
use crate::store::record::StoredResponse;
use crate::store::tiers::{Lookup, READS_MAX};

/// What a request would get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stored response, and nobody is asked.
    Hit,
    /// The stored response, and an origin is asked to renew it for the next one.
    HitThenRefresh,
    /// The stored response, and an origin is asked for the bytes of it that are missing.
    Complete,
    /// An origin is asked, with the validators of what is stored.
    Revalidate,
    /// An origin is asked.
    Fetch,
    /// 504: it wants a stored response or none.
    NothingStored,
    /// 503: what is stored may have been purged.
    Isolated,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitThenRefresh => "hit-then-refresh",
            Self::Complete => "complete",
            Self::Revalidate => "revalidate",
            Self::Fetch => "fetch",
            Self::NothingStored => "nothing-stored",
            Self::Isolated => "isolated",
        }
    }
}

/// What would become of a request, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The status of the answer, where it is known before anybody is asked.
    pub status: Option<u16>,
    /// What `Cache-Status` would say: of a fetch what is known of it now.
    pub cache_status: CacheStatus,
    pub sharing: Option<FillSharing>,
    /// What is stored for this request.
    pub stored: Option<Stored>,
    /// Where it was and is.
    pub places: Option<Places>,
    /// The fields that select among what is stored for the URL.
    pub vary: Vec<String>,
    /// Why the last answer was not stored, if that is known.
    pub not_stored: Option<Reason>,
}

/// What is stored for a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stored {
    pub status: u16,
    pub body_bytes: u64,
    /// Of a body that stands apart from its head: its chunks of 256 KiB, and how many of them are there.
    pub chunks: Option<Chunks>,
    pub age: u64,
    pub lifetime: u64,
    pub lifetime_source: &'static str,
    /// Freshness left; negative when stale.
    pub ttl: i64,
    /// When it came, or was last validated: an HTTP date.
    pub response_time: String,
    pub stale_while_revalidate: u64,
    pub stale_if_error: u64,
    pub must_revalidate: bool,
    pub no_cache: bool,
    /// A soft purge has cut its freshness short.
    pub purged_softly: bool,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Surrogate keys it can be purged by.
    pub surrogate_keys: usize,
    /// What it costs in memory.
    pub memory_bytes: usize,
}

/// The chunks of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ChunksThere)]
pub struct Chunks {
    pub all: u32,
    pub there: u32,
}

/// Where a stored response is, as far as that can be known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// `memory`, or `disk (PATH)` where it had to be read from there first: since then its head is in memory.
    pub tier: String,
    /// The disk its body is on, if that is on a disk alone.
    pub body_on_disk: Option<String>,
    /// The disk that has it, or will have it.
    pub on_disk: Option<String>,
    /// Why no disk has it, in the tokens of `littoral_store_admissions_total`, where that is known.
    pub not_on_disk: Option<&'static str>,
}

/// What the store knows a request by.
#[derive(Clone, Debug)]
pub struct Named {
    pub key: CacheKey,
    pub label: Label,
    /// Its field lines.
    pub fields: Vec<u8>,
}

/// A request that somebody might send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    pub host: String,
    /// Path and query.
    pub target: String,
    /// `Name: value`, as a client would send them.
    pub fields: Vec<String>,
    pub client: IpAddr,
}

impl Pipeline {
    /// Decides as the data path does, and says why. What that has to read from a disk is read; no origin is asked, and no
    /// use is counted.
    pub async fn explain(&self, request: &Request<'_>) -> Explanation {
        let mut request = *request;
        let mut read = Vec::new();
        while let Decision::Read(key) = self.decide(&request) {
            // What cannot be read is not there.
            request.disk = read.len() < READS_MAX && self.store.read(&key).await;
            read.push(key);
        }
        self.explain_known(&request, &read)
    }

    fn explain_known(&self, request: &Request<'_>, read: &[CacheKey]) -> Explanation {
        let decision = self.decide(request);
        let (stored, places) = match self.look_up(request) {
            Lookup::Found { stored, key, freshness } => {
                let places = self.places(&stored, key, read.contains(&key));
                (Some(Stored::of(&stored, freshness, request.now)), Some(places))
            }
            Lookup::UriMiss { .. } | Lookup::VaryMiss { .. } | Lookup::OnDisk { .. } => (None, None),
        };
        let vary = match self.store.memory.lookup(&request.key) {
            Some(Entry::Variants(variants)) => {
                variants.field_sets.iter().map(|names| names.join(", ")).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let known = Explanation {
            outcome: Outcome::NothingStored,
            status: Some(504),
            cache_status: CacheStatus { detail: Some(Reason::OnlyIfCached), ..CacheStatus::default() },
            sharing: None,
            stored,
            places,
            vary,
            not_stored: self.mark(request).map(|mark| mark.reason),
        };
        match decision {
            Decision::Hit { stored, status } => Explanation {
                outcome: Outcome::Hit,
                status: Some(status_of(request, &stored)),
                cache_status: status,
                ..known
            },
            Decision::HitThenRefresh { stored, status, .. } => Explanation {
                outcome: Outcome::HitThenRefresh,
                status: Some(status_of(request, &stored)),
                cache_status: status,
                ..known
            },
            Decision::Complete { stored, status } => Explanation {
                outcome: Outcome::Complete,
                status: Some(status_of(request, &stored)),
                cache_status: status,
                ..known
            },
            Decision::Fetch(Plan { stale, sharing, forward, detail, .. }) => Explanation {
                outcome: if stale.is_some() { Outcome::Revalidate } else { Outcome::Fetch },
                status: None,
                cache_status: CacheStatus { forward: Some(forward), detail, ..CacheStatus::default() },
                sharing: Some(sharing),
                ..known
            },
            Decision::Isolated => Explanation {
                outcome: Outcome::Isolated,
                status: Some(503),
                cache_status: CacheStatus { detail: Some(Reason::Isolated), ..CacheStatus::default() },
                ..known
            },
            // What had to be read has been.
            Decision::NothingStored | Decision::Read(_) => known,
        }
    }

    fn places(&self, stored: &StoredResponse, key: CacheKey, was_read: bool) -> Places {
        let (disks, frame) = (&self.store.disks, FrameKey::of(key));
        let path = disks.disk_of(&frame).map(|disk| disk.path.display().to_string());
        let is_there = disks.contains(&frame);
        // A disk with room takes everything: what a full one has not taken was wanted once.
        let facts = Facts { bytes: stored.weight() as u64, full: disks.is_full(&frame), seen: false, crowds: false };
        let refused = Some(admission(facts)).filter(|verdict| !is_there && *verdict != Admission::Write);
        Places {
            tier: match &path {
                Some(path) if was_read => format!("disk ({path})"),
                _ => "memory".into(),
            },
            body_on_disk: path.clone().filter(|_| stored.sparse().is_some()),
            on_disk: path.filter(|_| is_there),
            not_on_disk: refused.map(Admission::as_str),
        }
    }
}

/// The status a stored response is answered with.
fn status_of(request: &Request<'_>, stored: &StoredResponse) -> u16 {
    let response_time = stored.freshness().response_time();
    let not_modified = request.conditional
        && precondition(request.fields, stored.status(), stored.fields(), response_time) == Precondition::NotModified;
    if not_modified {
        return 304;
    }
    match range_of(request, stored) {
        RangePlan::Whole => stored.status(),
        RangePlan::One(_) | RangePlan::Many(_) if request.method == Method::Get => 206,
        RangePlan::One(_) | RangePlan::Many(_) => stored.status(),
        RangePlan::Unsatisfiable => 416,
    }
}

/// An HTTP date.
pub fn date(at: UnixMs) -> String {
    let mut date = Vec::new();
    http_date::write(at, &mut date);
    String::from_utf8_lossy(&date).into_owned()
}

impl Stored {
    /// `freshness`: what purges have left of it.
    pub fn of(stored: &StoredResponse, freshness: Freshness, now: UnixMs) -> Self {
        let fields = stored.fields();
        let kept = stored.freshness();
        let (stated, source) =
            lifetime(stored.status(), fields, &ResponseDirectives::parse(fields), kept.response_time());
        let found = validators(fields);
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Self {
            status: stored.status(),
            body_bytes: stored.body_len(),
            chunks: stored.sparse().map(|body| {
                let length = stored.body_len();
                Chunks { all: chunks_of(length), there: body.count(length) }
            }),
            age: u64::from(freshness.age_seconds(now).0),
            lifetime: u64::from(freshness.lifetime().0),
            // Or a targeted field that clients do not see any more.
            lifetime_source: if stated == kept.lifetime() { source.as_str() } else { "rule" },
            ttl: freshness.ttl_seconds(now),
            response_time: date(kept.response_time()),
            stale_while_revalidate: u64::from(freshness.stale_while_revalidate().0),
            stale_if_error: u64::from(freshness.stale_if_error().0),
            must_revalidate: freshness.must_revalidate(),
            no_cache: freshness.no_cache(),
            purged_softly: freshness != kept,
            etag: found.etag.map(text),
            last_modified: found.last_modified.map(text),
            surrogate_keys: stored.selectors().keys().count(),
            memory_bytes: stored.weight(),
        }
    }
}
