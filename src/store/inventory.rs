//! What is stored, looked at without being used: everything of one URL, or of a site a page at a time.
//!
//! Everything here waits for disks: it is for threads that may.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::purge::record::host_number;
use crate::purge::selector::{SiteId, url_of};
use crate::semantics::cache_key::canonical_host;
use crate::semantics::fields::Fields;
use crate::semantics::vary::selecting_key;
use crate::store::Store;
use crate::store::disk::device::Disk;
use crate::store::disk::frame::Kind;
use crate::store::disk::index::Location;
use crate::store::disk::log::Looked;
use crate::store::key::CacheKey;
use crate::store::memory::Entry;
use crate::store::persist::{self, Label};
use crate::store::record::StoredResponse;

/// Records one page may look at: with the largest there are, what a disk reads in a second.
pub const LOOKED_MAX: usize = 2_000;
/// Responses in memory that are looked at for a page: a few milliseconds.
const IN_MEMORY_LOOKED_MAX: usize = 200_000;
/// Looked at under one lock.
const AT_ONCE: usize = 1_000;

/// A response as it stands on a disk.
pub struct DiskRecord {
    pub disk: Arc<Disk>,
    pub location: Location,
    pub key: CacheKey,
    /// A later one may have been lost: it is validated before it is used.
    pub doubtful: bool,
    pub stored: StoredResponse,
    pub label: Label,
}

/// What stands under one key.
pub struct Kept {
    /// The half of the key that places it.
    pub half: u64,
    pub memory: Option<Arc<StoredResponse>>,
    pub disk: Option<DiskRecord>,
    /// Why what a disk has of it cannot be read.
    pub trouble: Option<String>,
}

/// Which responses are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub site: String,
    pub scheme: Option<String>,
    /// With its port, if that is not the scheme's own.
    pub host: Option<String>,
    /// The beginning of path and query.
    pub target: String,
}

impl Wanted {
    pub fn is(&self, label: &Label) -> bool {
        let host = self
            .host
            .as_ref()
            .is_none_or(|host| *canonical_host(host.as_bytes(), &label.scheme) == *label.host.as_bytes());
        let scheme = self.scheme.as_ref().is_none_or(|scheme| *scheme == label.scheme);
        label.site == self.site && scheme && host && label.target.starts_with(&self.target)
    }
}

/// Where a listing goes on: a disk, a shard of its index, and the number of the next record there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub disk: usize,
    pub shard: usize,
    pub from: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.disk, self.shard, self.from)
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a cursor that this node has given")]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.split('.');
        let mut next = || parts.next().filter(|part| part.chars().all(|c| c.is_ascii_hexdigit())).ok_or(NoCursor);
        let (disk, shard, from) = (next()?, next()?, next()?);
        let cursor = Self {
            disk: disk.parse().map_err(|_| NoCursor)?,
            shard: shard.parse().map_err(|_| NoCursor)?,
            from: u64::from_str_radix(from, 16).map_err(|_| NoCursor)?,
        };
        parts.next().is_none().then_some(cursor).ok_or(NoCursor)
    }
}

/// Some of what is on disks.
pub struct Page {
    pub records: Vec<DiskRecord>,
    /// Where it goes on. None: that was all.
    pub next: Option<Cursor>,
    pub looked: usize,
    /// Records that could not be read.
    pub unreadable: usize,
}

/// Responses in memory that are on no disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InMemoryAlone {
    pub objects: u64,
    /// Not everything in memory was looked at: there may be more.
    pub at_least: bool,
}

impl Store {
    /// Everything of a URL that can be found: what is in memory, and on disks what stands under its key, under that of
    /// the variant for these fields, and beside what is in memory. Other variants on a disk alone have keys that only a
    /// request for them makes.
    pub fn all_of(&self, primary: &CacheKey, site: &str, fields: Fields<'_>) -> Vec<Kept> {
        let mut halves = vec![primary.low_u64()];
        for names in self.field_sets(primary) {
            let mut values = Vec::new();
            selecting_key(names.iter().map(AsRef::as_ref), fields, &mut values);
            halves.push(self.keyer.variant(primary, &values).low_u64());
        }
        let (site, url) = (SiteId::of(site), url_of(primary));
        let mut here = Vec::new();
        let mut from = Some((0, 0));
        while let Some(at) = from {
            let (some, next) = self.memory.some(at, AT_ONCE);
            here.extend(some.into_iter().filter(|(_, stored)| {
                let selectors = stored.selectors();
                selectors.site == site && (selectors.url == url || selectors.groups().any(|number| number == url))
            }));
            from = next;
        }
        halves.extend(here.iter().map(|(half, _)| half.low_u64()));
        let mut seen = std::collections::HashSet::new();
        halves.retain(|half| seen.insert(*half));
        let kept = halves.into_iter().map(|half| {
            let memory = here.iter().find(|(other, _)| other.low_u64() == half).map(|(_, stored)| stored.clone());
            let (mut disk, mut trouble) = (None, None);
            for one in self.disks.all() {
                match self.record_at(one, half) {
                    Ok(found) => disk = disk.or(found),
                    Err(error) => trouble = Some(error.to_string()),
                }
            }
            Kept { half, memory, disk, trouble }
        });
        kept.filter(|kept| kept.memory.is_some() || kept.disk.is_some() || kept.trouble.is_some()).collect()
    }

    /// The sets of fields that select among what is stored for a URL.
    pub fn field_sets(&self, primary: &CacheKey) -> Vec<Vec<Box<str>>> {
        let known = self.memory.lookup(primary).or_else(|| {
            let hint = |disk: &Arc<Disk>| match disk.log()?.look(primary.low_u64()).ok()? {
                Looked::Frame(frame) if frame.head.kind == Kind::Hint && frame.head.key.key == *primary => {
                    persist::read_hint(&frame.payload)
                }
                _ => None,
            };
            self.disks.all().iter().find_map(hint)
        });
        match known {
            Some(Entry::Variants(variants)) => variants.field_sets.clone(),
            _ => Vec::new(),
        }
    }

    /// The record a disk knows by a number.
    ///
    /// # Errors
    /// The disk failed, or it is not what was written.
    fn record_at(&self, disk: &Arc<Disk>, half: u64) -> io::Result<Option<DiskRecord>> {
        let Some(log) = disk.log().filter(|_| !disk.is_out()) else { return Ok(None) };
        let Some(location) = log.index.get(half).filter(|at| at.kind() == Some(Kind::Record)) else { return Ok(None) };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged, and forgotten");
        let frame = match log.look(half)? {
            Looked::Frame(frame) if frame.head.kind == Kind::Record => frame,
            Looked::Frame(_) | Looked::Nothing => return Ok(None),
            Looked::Damaged => return Err(damaged()),
        };
        let (key, doubtful) = (frame.head.key.key, frame.doubtful);
        let since = if doubtful { disk.opened_at() } else { None };
        let read = persist::read_response(frame.payload, since, |generation| self.sparse(key, generation));
        let (stored, label) = read.ok_or_else(damaged)?;
        Ok(Some(DiskRecord { disk: disk.clone(), location, key, doubtful, stored, label }))
    }

    /// Responses on disks that are wanted, from a cursor on: no more than `limit`, and no longer than until `deadline`.
    pub fn page(&self, wanted: &Wanted, from: Cursor, limit: usize, deadline: Instant) -> Page {
        let mut page = Page { records: Vec::new(), next: None, looked: 0, unreadable: 0 };
        let mut at = from;
        while let Some(disk) = self.disks.all().get(at.disk) {
            let places = disk.log().and_then(|log| log.index.record_places(at.shard, at.from, LOOKED_MAX));
            let Some(places) = places else {
                at = Cursor { disk: at.disk + 1, ..Cursor::default() };
                continue;
            };
            let is_all_of_shard = places.len() < LOOKED_MAX;
            for (half, _) in places {
                if page.records.len() == limit || page.looked == LOOKED_MAX || clock::monotonic() >= deadline {
                    return Page { next: Some(Cursor { from: half, ..at }), ..page };
                }
                page.looked += 1;
                match self.record_at(disk, half) {
                    Ok(Some(record)) if wanted.is(&record.label) => page.records.push(record),
                    Ok(_) => {}
                    Err(_) => page.unreadable += 1,
                }
                at.from = half.saturating_add(1);
            }
            if is_all_of_shard {
                at = Cursor { shard: at.shard + 1, from: 0, ..at };
            }
        }
        page
    }

    /// How many responses that are wanted are in memory alone. These have no URL, but a site, a host and a path.
    pub fn in_memory_alone(&self, wanted: &Wanted) -> InMemoryAlone {
        let site = SiteId::of(&wanted.site);
        let host = wanted.host.as_ref().map(|host| host_number(&self.ledger, host.as_bytes()));
        let (path, query) =
            wanted.target.split_once('?').map_or((&*wanted.target, None), |(path, query)| (path, Some(query)));
        let is_wanted = |stored: &StoredResponse| {
            let selectors = stored.selectors();
            let below = match query {
                Some(_) => selectors.path == path.as_bytes(),
                None => selectors.path.starts_with(path.as_bytes()),
            };
            selectors.site == site && host.is_none_or(|host| selectors.host == host) && below
        };
        let on_disk = |half: u64| self.disks.all().iter().filter_map(|disk| disk.log()).any(|log| log.is_known(half));
        let (mut alone, mut looked, mut from) = (InMemoryAlone::default(), 0, Some((0, 0)));
        while let Some(at) = from {
            if looked >= IN_MEMORY_LOOKED_MAX {
                return InMemoryAlone { at_least: true, ..alone };
            }
            let (some, next) = self.memory.some(at, AT_ONCE);
            looked += some.len();
            let count = some.iter().filter(|(half, stored)| is_wanted(stored) && !on_disk(half.low_u64())).count();
            alone.objects += count as u64;
            from = next;
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_out_as_they_went_in_and_nothing_else_does() {
        for cursor in [Cursor::default(), Cursor { disk: 3, shard: 63, from: u64::MAX }] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "1", "1.2", "1.2.", "1.2.g", "1.2.+3", "-1.2.3", "1.2.3.4", "1.2.10000000000000000", "a.2.3"] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
    }

    #[test]
    fn what_is_wanted_is_below_what_is_named() {
        let label = |scheme: &str, host: &str| Label {
            site: "shop".into(),
            scheme: scheme.into(),
            host: host.into(),
            target: "/a/b?c".into(),
        };
        let wanted = |scheme: Option<&str>, host: Option<&str>, target: &str| Wanted {
            site: "shop".into(),
            scheme: scheme.map(str::to_owned),
            host: host.map(str::to_owned),
            target: target.into(),
        };
        for (wanted, of_http, of_https) in [
            (wanted(None, None, ""), true, true),
            (wanted(None, None, "/a/b?"), true, true),
            (wanted(None, None, "/b"), false, false),
            (wanted(None, Some("WWW.example.com:80"), "/a"), true, false),
            (wanted(None, Some("www.example.com"), "/a"), true, true),
            (wanted(Some("https"), Some("www.example.com"), "/a"), false, true),
            (wanted(None, Some("example.com"), "/a"), false, false),
            (Wanted { site: "other".into(), ..Wanted::default() }, false, false),
        ] {
            let found = ["http", "https"].map(|scheme| wanted.is(&label(scheme, "www.example.com")));
            assert_eq!(found, [of_http, of_https], "{wanted:?}");
        }
    }
}
