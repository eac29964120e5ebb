//! The routes below `/v1/cache/`. What waits for disks runs on threads that may.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{
    CachedObject, CachedObjects, Chunks, DiskPlace, FillPlace, InMemoryAlone, Listed, Listing, Record, Verified,
    VerifiedRecord, Verifying, read_listing, read_verifying,
};
use crate::admin::access::Caller;
use crate::admin::asked::Asked;
use crate::admin::purge::Refused;
use crate::admin::purge::handle::place;
use crate::admin::reply::Reply;
use crate::admin::{Admin, explain};
use crate::clock;
use crate::pipeline::Pipeline;
use crate::pipeline::explain::{Named, Question, Stored, date};
use crate::purge::ledger::{Gone, Verdict};
use crate::semantics::fields::Fields;
use crate::semantics::time::UnixMs;
use crate::store::Store;
use crate::store::body::chunks_of;
use crate::store::disk::frame::FrameKey;
use crate::store::inventory::{Cursor, DiskRecord, Kept};
use crate::store::persist::Label;
use crate::store::verify::ChunkState;

/// How long one page of a listing may take.
const PAGE_WITHIN: Duration = Duration::from_secs(1);

impl Admin {
    /// Everything stored for one URL.
    pub(in crate::admin) async fn cache_object(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let question =
            explain::read(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        let named = self.named(&caller, &question)?;
        let object = self.blocking(move |pipeline| object(&pipeline.store, &named, clock::wall())).await?;
        match object.records.is_empty() && object.unreadable.is_empty() {
            true => Err(nothing_stored(&object.url)),
            false => Ok(Reply::json(StatusCode::OK, &object)),
        }
    }

    /// What is stored of a site, a page of it.
    pub(in crate::admin) async fn cache_objects(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let listing = read_listing(asked.query(), &self.node.snapshot(), &caller).map_err(|refused| match refused {
            Refused::Wrong(wrong) => Reply::errors(StatusCode::BAD_REQUEST, &wrong),
            Refused::NotAllowed(denied) => Reply::errors(StatusCode::FORBIDDEN, &denied),
        })?;
        let mut objects = self.blocking(move |pipeline| objects(&pipeline.store, listing, clock::wall())).await?;
        if !caller.may_everything() {
            // How much else there is on the disks is of other sites.
            (objects.looked, objects.unreadable) = (objects.objects.len() + objects.gone, 0);
        }
        Ok(Reply::json(StatusCode::OK, &objects))
    }

    /// Verifies what is stored for one URL, or begins to verify everything.
    pub(in crate::admin) async fn cache_verify(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let verifying =
            read_verifying(asked.query()).map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        let question = match verifying {
            Verifying::One(question) => question,
            Verifying::Everything { mib_per_second } => {
                everything(&caller)?;
                let begun = self.verification.start(self.pipeline.store.disks.clone(), mib_per_second);
                return begun
                    .map(|progress| Reply::json(StatusCode::ACCEPTED, &progress))
                    .map_err(|busy| Reply::error(StatusCode::CONFLICT, busy.to_string()));
            }
        };
        let named = self.named(&caller, &question)?;
        let verified = self.blocking(move |pipeline| verified(&pipeline.store, &named)).await?;
        match verified.records.is_empty() && verified.unreadable.is_empty() {
            true => Err(Reply::error(StatusCode::NOT_FOUND, format!("nothing is on a disk for {}", verified.url))),
            false => Ok(Reply::json(StatusCode::OK, &verified)),
        }
    }

    /// How far the verification of everything is.
    pub(in crate::admin) fn cache_verification(&self, caller: &Caller) -> Result<Reply, Reply> {
        everything(caller)?;
        Ok(Reply::json(StatusCode::OK, &self.verification.progress()))
    }

    /// What the store knows a request by, for who may ask about its site.
    fn named(&self, caller: &Caller, question: &Question) -> Result<Named, Reply> {
        let named = self.node.named(question).map_err(|refusal| Reply::error(StatusCode::BAD_REQUEST, refusal))?;
        match named {
            Some(named) if caller.may(&named.label.site) => Ok(named),
            None if caller.may_everything() => {
                Err(Reply::error(StatusCode::NOT_FOUND, format!("no site answers for {}", question.host)))
            }
            // It tells nothing about whether the site exists.
            _ => Err(Reply::error(StatusCode::FORBIDDEN, "the token is not for this")),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Pipeline>) -> T + Send + 'static,
    ) -> Result<T, Reply> {
        let pipeline = self.pipeline.clone();
        let done = tokio::task::spawn_blocking(move || work(pipeline)).await;
        done.map_err(|error| Reply::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

/// Everything is not for who may ask about some sites.
fn everything(caller: &Caller) -> Result<(), Reply> {
    let denied = || Reply::error(StatusCode::FORBIDDEN, "the token is not for every site");
    caller.may_everything().then_some(()).ok_or_else(denied)
}

fn nothing_stored(url: &str) -> Reply {
    let message = format!("nothing is stored for {url} that can be found with these fields");
    Reply::error(StatusCode::NOT_FOUND, message)
}

fn url_of(label: &Label) -> String {
    format!("{}://{}{}", label.scheme, label.host, label.target)
}

/// `Kept`s of a URL, and what cannot be read of it.
fn all_of(store: &Store, named: &Named) -> (Vec<Kept>, Vec<String>) {
    let kept = store.all_of(&named.key, &named.label.site, Fields::new(&named.fields));
    let trouble = |kept: &Kept| kept.trouble.as_ref().map(|why| format!("{:016x}: {why}", kept.half.swap_bytes()));
    let unreadable = kept.iter().filter_map(trouble).collect();
    (kept, unreadable)
}

fn object(store: &Store, named: &Named, now: UnixMs) -> CachedObject {
    let (kept, unreadable) = all_of(store, named);
    CachedObject {
        url: url_of(&named.label),
        site: named.label.site.clone(),
        vary: store.field_sets(&named.key).iter().map(|names| names.join(", ")).collect(),
        records: kept.iter().filter_map(|kept| record(store, named, kept, now)).collect(),
        unreadable,
    }
}

fn record(store: &Store, named: &Named, kept: &Kept, now: UnixMs) -> Option<Record> {
    let primary = kept.half == named.key.low_u64();
    let key = kept.disk.as_ref().map(|disk| disk.key).or(primary.then_some(named.key));
    // What is in memory is what would answer.
    let stored = kept.memory.as_deref().or(kept.disk.as_ref().map(|disk| &disk.stored))?;
    let verdict = store.ledger.judge(&stored.selectors(), stored.fill_pos()).verdict;
    let (freshness, ledger, stale_since, gone) = match verdict {
        Verdict::Live => (stored.freshness(), "live", None, None),
        Verdict::StaleSince(at) => (stored.freshness().stale_since(at), "stale", Some(date(at)), None),
        Verdict::Gone(Gone::Purged) => (stored.freshness(), "gone", None, Some("purged")),
        Verdict::Gone(Gone::Invalidated) => (stored.freshness(), "gone", None, Some("invalidated")),
    };
    let key = stored.sparse().map(|body| body.key).or(key);
    let chunks = stored.generation().map(|generation| {
        let length = stored.body_len();
        let there = match stored.chunks().is_empty() {
            true => key.map_or(0, |key| store.sparse(key, generation).count(length)),
            // All of them are in the record; on a disk as well is what counts.
            false => key.map_or(0, |key| {
                let is_there = |index: &u32| store.disks.contains(&FrameKey::chunk(key, generation, *index));
                u32::try_from((0..chunks_of(length)).filter(is_there).count()).unwrap_or(u32::MAX)
            }),
        };
        Chunks { all: chunks_of(length), there }
    });
    let position = stored.fill_pos();
    Some(Record {
        // As the log has keys: the half is their beginning.
        key: key.map_or_else(|| format!("{:016x}", kept.half.swap_bytes()), |key| format!("{:032x}", key.as_u128())),
        primary,
        memory: kept.memory.is_some(),
        disk: kept.disk.as_ref().map(disk_place),
        response: Stored::of(stored, freshness, now),
        body: if stored.sparse().is_some() { "apart" } else { "memory" },
        fill_position: FillPlace { log: place(position.log), local: position.local },
        generation: stored.generation().map(|generation| format!("{generation:016x}")),
        chunks,
        doubtful: kept.disk.as_ref().is_some_and(|disk| disk.doubtful),
        ledger,
        stale_since,
        gone,
    })
}

fn disk_place(record: &DiskRecord) -> DiskPlace {
    DiskPlace {
        path: record.disk.path.display().to_string(),
        segment: record.location.segment(),
        offset: record.location.offset(),
        bytes: record.location.bytes() as u64,
    }
}

fn objects(store: &Store, listing: Listing, now: UnixMs) -> CachedObjects {
    let Listing { wanted, limit, cursor } = listing;
    let page = store.page(&wanted, cursor, limit, clock::monotonic() + PAGE_WITHIN);
    let in_memory = store.memory.holds();
    let all = page.records.len();
    let listed = page.records.iter().filter_map(|record| {
        let freshness = record.stored.judge(&store.ledger).ok()?;
        Some(Listed {
            url: url_of(&record.label),
            status: record.stored.status(),
            bytes: record.stored.body_len(),
            age: u64::from(freshness.age_seconds(now).0),
            ttl: freshness.ttl_seconds(now),
            tier: if in_memory(record.key.low_u64()) { "memory" } else { "disk" },
            disk: record.disk.path.display().to_string(),
        })
    });
    let listed: Vec<Listed> = listed.collect();
    let alone = (cursor == Cursor::default()).then(|| store.in_memory_alone(&wanted));
    CachedObjects {
        site: wanted.site,
        gone: all - listed.len(),
        objects: listed,
        next: page.next.map(|cursor| cursor.to_string()),
        looked: page.looked,
        unreadable: page.unreadable,
        in_memory_alone: alone.map(|alone| InMemoryAlone { objects: alone.objects, at_least: alone.at_least }),
    }
}

fn verified(store: &Store, named: &Named) -> Verified {
    let (kept, unreadable) = all_of(store, named);
    let records: Vec<VerifiedRecord> = kept
        .iter()
        .filter_map(|kept| kept.disk.as_ref())
        .map(|record| {
            let chunks = store.verify(record);
            let all = record.stored.sparse().map_or(0, |_| chunks_of(record.stored.body_len()));
            let right = chunks.iter().filter(|state| **state == ChunkState::Right).count() as u64;
            VerifiedRecord {
                key: format!("{:032x}", record.key.as_u128()),
                disk: record.disk.path.display().to_string(),
                bytes: record.location.bytes() as u64
                    + record.stored.body_len().min(right * edge_config::section::limits::CHUNK_BYTES as u64)
                        * u64::from(all > 0),
                left: all.saturating_sub(u32::try_from(chunks.len()).unwrap_or(u32::MAX)),
                chunks,
            }
        })
        .collect();
    let is_right = |record: &VerifiedRecord| record.chunks.iter().all(|state| *state == ChunkState::Right);
    Verified {
        url: url_of(&named.label),
        right: unreadable.is_empty() && records.iter().all(is_right),
        records,
        unreadable,
    }
}
