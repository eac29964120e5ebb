//! `/v1/cache/...`: what is stored, and whether it is what was written.

pub mod handle;

use serde::Serialize;
use utoipa::ToSchema;

use super::access::Caller;
use super::explain;
use super::purge::{LogPlace, Refused, Wrong};
use crate::pipeline::explain::{Question, Stored};
use crate::routing::Snapshot;
use crate::store::inventory::{Cursor, Wanted};
use crate::store::verify::ChunkState;

/// Responses one page of a listing has, if nothing is said, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// MiB that a verification of everything reads in a second, if nothing is said, and at most: what a disk can do.
const MIB_PER_SECOND: u32 = 64;
const MIB_PER_SECOND_MAX: u32 = 16_384;

/// Everything stored for one URL.
#[derive(Debug, Serialize, ToSchema)]
pub struct CachedObject {
    pub url: String,
    pub site: String,
    /// The fields that select among what is stored for the URL, one set an entry. What is on a disk alone is found for the
    /// fields that were asked with.
    pub vary: Vec<String>,
    pub records: Vec<Record>,
    /// What cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// One stored response.
#[derive(Debug, Serialize, ToSchema)]
pub struct Record {
    /// Half of its key, or all of it where that is known.
    pub key: String,
    /// Whether it stands under the key of the URL itself; it is selected by fields, or a part of a representation, if not.
    pub primary: bool,
    pub memory: bool,
    pub disk: Option<DiskPlace>,
    #[serde(flatten)]
    pub response: Stored,
    /// Where its body is: in `memory` with its head, or `apart` in chunks, each in memory, on a disk or still with the origin.
    pub body: &'static str,
    /// The place its fill began at: a later purge of it makes it gone.
    pub fill_position: FillPlace,
    /// What its chunks are known by.
    pub generation: Option<String>,
    pub chunks: Option<Chunks>,
    /// A later response may have been lost with what a disk has lost: it is validated before it is used.
    pub doubtful: bool,
    /// `live`, `stale` after a soft purge, or `gone`.
    pub ledger: &'static str,
    /// Since when it is stale: an HTTP date.
    pub stale_since: Option<String>,
    /// Why it is gone: `purged` or `invalidated`.
    pub gone: Option<&'static str>,
}

/// Where a frame is.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiskPlace {
    pub path: String,
    pub segment: u32,
    /// From the beginning of the segment.
    pub offset: u32,
    /// Of the frame.
    pub bytes: u64,
}

/// A place in the order of purges and invalidations.
#[derive(Debug, Serialize, ToSchema)]
pub struct FillPlace {
    pub log: LogPlace,
    /// Of what this node alone has invalidated.
    pub local: u64,
}

/// The pieces of a body.
#[derive(Debug, Serialize, ToSchema)]
pub struct Chunks {
    pub all: u32,
    /// How many of them are on the disk; of a body that stands apart, in memory or on the disk.
    pub there: u32,
}

/// Stored responses of a site, a page of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct CachedObjects {
    pub site: String,
    pub objects: Vec<Listed>,
    /// To go on with: `cursor`. Absent: that was all.
    pub next: Option<String>,
    /// Records on disks that were looked at for this page; for a token that is not for all sites those of the site.
    pub looked: usize,
    /// Records that are on disks, but purged.
    pub gone: usize,
    pub unreadable: usize,
    /// With the first page: what is in memory alone, which has no URL and is not among the objects.
    pub in_memory_alone: Option<InMemoryAlone>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct InMemoryAlone {
    pub objects: u64,
    /// Not everything in memory was looked at: there may be more.
    pub at_least: bool,
}

/// One of many stored responses.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed {
    pub url: String,
    pub status: u16,
    pub bytes: u64,
    pub age: u64,
    /// Freshness left; negative when stale.
    pub ttl: i64,
    /// `memory` where it would be answered from there, else `disk`.
    pub tier: &'static str,
    pub disk: String,
}

/// What was found of the response or responses of one URL.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verified {
    pub url: String,
    /// Everything that was read is what was written.
    pub right: bool,
    pub records: Vec<VerifiedRecord>,
    /// What cannot be read, and why. What was damaged is forgotten.
    pub unreadable: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VerifiedRecord {
    pub key: String,
    pub disk: String,
    /// Head and chunks that were read.
    pub bytes: u64,
    /// In their order. None: the body stands with the head, which was read.
    pub chunks: Vec<ChunkState>,
    /// Chunks that were not read: there are more than one request reads.
    pub left: u32,
}

/// What a listing is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    pub wanted: Wanted,
    pub limit: usize,
    pub cursor: Cursor,
}

/// What is to be verified.
#[derive(Debug, PartialEq, Eq)]
pub enum Verifying {
    Everything { mib_per_second: u32 },
    One(Question),
}

fn wrong(key: &str, message: impl Into<String>) -> Wrong {
    Wrong { key: key.to_owned(), message: message.into() }
}

/// Reads `site`, `prefix`, `limit` and `cursor`, for who may ask for it.
///
/// # Errors
/// What is wrong with it.
pub fn read_listing(query: Option<&str>, snapshot: &Snapshot, caller: &Caller) -> Result<Listing, Refused> {
    let refused = |wrong| Refused::Wrong(vec![wrong]);
    let (mut site, mut wanted) = (None, Wanted::default());
    let (mut limit, mut cursor) = (LIMIT, Cursor::default());
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "site" => site = Some(value.into_owned()),
            "prefix" => wanted = read_prefix(&value).map_err(refused)?,
            "limit" => match value.parse() {
                Ok(number @ 1..=LIMIT_MAX) => limit = number,
                _ => return Err(refused(wrong("limit", format!("expected a number from 1 to {LIMIT_MAX}")))),
            },
            "cursor" => {
                let read = value.parse();
                cursor = read.map_err(|_| refused(wrong("cursor", "expected `next` of an earlier answer")))?;
            }
            other => return Err(refused(wrong(other, "expected site, prefix, limit and cursor"))),
        }
    }
    let of_host = wanted.host.as_ref().map(|host| snapshot.site(host.as_bytes()).map(|site| site.name.clone()));
    let only = match snapshot.sites() {
        [site] => Some(site.name.clone()),
        _ => None,
    };
    let denied = |key: &str| Refused::NotAllowed(vec![wrong(key, "the token is not for this")]);
    let name = match (site, of_host) {
        (Some(site), _) | (None, Some(Some(site))) => site,
        (None, Some(None)) if caller.may_everything() => {
            return Err(refused(wrong("prefix", "no site answers for its host")));
        }
        (None, Some(None)) => return Err(denied("prefix")),
        (None, None) => match caller.only_site().map(str::to_owned).or(only) {
            Some(site) => site,
            None => return Err(refused(wrong("site", "there are several sites: name one, or a prefix with a host"))),
        },
    };
    if !caller.may(&name) {
        return Err(denied("site"));
    }
    if !snapshot.sites().iter().any(|site| site.name == name) {
        return Err(refused(wrong("site", format!("no site is called {name}"))));
    }
    wanted.site = name;
    Ok(Listing { wanted, limit, cursor })
}

/// The beginning of a URL, `host/path` or `/path`.
fn read_prefix(text: &str) -> Result<Wanted, Wrong> {
    let (scheme, bare) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
        _ => (None, text),
    };
    let (host, target) = match bare.find('/') {
        Some(at) => bare.split_at(at),
        None if scheme.is_some() => (bare, ""),
        None => ("", ""),
    };
    if (host.is_empty() && (scheme.is_some() || target.is_empty())) || host.contains(['?', '#', '@', ' ']) {
        let message = format!("`{text}` is not the beginning of a URL: expected http://host/path, host/path or /path");
        return Err(wrong("prefix", message));
    }
    let host = Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty());
    Ok(Wanted { site: String::new(), scheme, host, target: target.to_owned() })
}

/// Reads `all` and `rate`, or what `/v1/explain` reads.
///
/// # Errors
/// What is wrong with it.
pub fn read_verifying(query: Option<&str>) -> Result<Verifying, Wrong> {
    let pairs = || url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if !pairs().any(|(name, _)| name == "all") {
        return explain::read(query).map(Verifying::One).map_err(|error| match pairs().next() {
            None => wrong("url", "nothing is named: give url, or all=1"),
            Some(_) => error,
        });
    }
    let mut mib_per_second = MIB_PER_SECOND;
    for (name, value) in pairs() {
        match &*name {
            "all" if value == "1" => {}
            "all" => return Err(wrong("all", "expected all=1")),
            "rate" => match value.parse() {
                Ok(rate @ 1..=MIB_PER_SECOND_MAX) => mib_per_second = rate,
                _ => return Err(wrong("rate", format!("expected MiB a second, from 1 to {MIB_PER_SECOND_MAX}"))),
            },
            other => return Err(wrong(other, "expected all and rate")),
        }
    }
    Ok(Verifying::Everything { mib_per_second })
}

#[cfg(test)]
mod tests;
