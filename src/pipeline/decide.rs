//! What to do with a request, given what is stored.

use std::sync::Arc;

use edge_config::section::limits::REJOINS_MAX;
use edge_config::section::site::Isolated;

use crate::pipeline::Pipeline;
use crate::pipeline::isolation::Isolation;
use crate::pipeline::request::{Method, Request};
use crate::pipeline::sparse::asked::Asked;
use crate::pipeline::sparse::serve::lacks;
use crate::purge::ledger::{Gone, Verdict};
use crate::purge::record::host_number;
use crate::purge::selector::{OwnedSelectors, url_of};
use crate::routing::{GroupIndex, Site};
use crate::semantics::cache_key::{KeyParts, canonical_host};
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::semantics::no_vary_search::NoVarySearch;
use crate::semantics::range::{RangePlan, Wanted, plan, surest_wanted};
use crate::semantics::reuse::{Reuse, Why, reuse};
use crate::semantics::validation::{Precondition, precondition};
use crate::store::key::CacheKey;
use crate::store::marks::Mark;
use crate::store::record::StoredResponse;
use crate::store::searches::Searched;
use crate::store::tiers::Lookup;

/// What to do with a request.
pub enum Decision {
    /// Answer from the store.
    Hit { stored: Arc<StoredResponse>, status: CacheStatus },
    /// Answer from the store, and refresh it for the next one.
    HitThenRefresh { stored: Arc<StoredResponse>, status: CacheStatus, refresh: Plan },
    /// Answer from the store, and fetch what is missing of it.
    Complete { stored: Arc<StoredResponse>, status: CacheStatus },
    /// Read what stands under this key from its disk, and decide again.
    Read(CacheKey),
    /// Ask the origin.
    Fetch(Plan),
    /// The client wants a stored response or none.
    NothingStored,
    /// What is stored may have been purged, and the site wants nothing like that to be used.
    Isolated,
}

/// How the origin is to be asked.
#[derive(Clone)]
pub struct Plan {
    /// What one fill for all such requests is known by.
    pub fill_key: CacheKey,
    /// The stored response this one is to renew or replace.
    pub stale: Option<Arc<StoredResponse>>,
    pub sharing: FillSharing,
    /// The part of it to ask for.
    pub asked: Option<Asked>,
    pub forward: Forward,
    pub detail: Option<Reason>,
}

/// Whether a request shares its fill with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillSharing {
    /// One fill for all who ask for the same.
    Shared,
    /// A fill of its own, whose answer may be stored.
    Alone,
    /// A fill of its own with the request as it is: its answer is for this client, conditions and range included.
    AsIs,
}

impl Pipeline {
    /// Looks up and decides. The only place that weighs a request against the store.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if request.matched.is_some_and(|matched| matched.bypass) {
            // Who wants nothing but what is stored is not to be answered by an origin (RFC 9111 section 5.2.1.7).
            if request.directives.only_if_cached {
                return Decision::NothingStored;
            }
            let (sharing, forward, detail) = (FillSharing::AsIs, Forward::Bypass, Some(Reason::Rule));
            return Decision::Fetch(Plan { fill_key: request.key, stale: None, sharing, asked: None, forward, detail });
        }
        if request.rounds > REJOINS_MAX {
            // It changes faster than it can be put together.
            let (sharing, forward) = (FillSharing::AsIs, Forward::Miss);
            return Decision::Fetch(Plan {
                fill_key: request.key,
                stale: None,
                sharing,
                asked: None,
                forward,
                detail: None,
            });
        }
        let (fill_key, found, forward, gone) = match self.look_up(request) {
            Lookup::Found { stored, key, freshness } => (key, Some((stored, freshness)), Forward::Stale, None),
            Lookup::UriMiss { gone } => (request.key, None, Forward::UriMiss, gone),
            Lookup::VaryMiss { key, gone } => (key, None, Forward::VaryMiss, gone),
            Lookup::OnDisk { key } => return Decision::Read(key),
        };
        let own = |sharing, forward, detail| Plan { fill_key, stale: None, sharing, asked: None, forward, detail };
        let Some((stored, freshness)) = found else {
            if !self.wants_newer(request)
                && let Some((stored, ttl)) = self.stored_part(request)
            {
                let status = CacheStatus { hit: true, ttl: Some(ttl), ..CacheStatus::default() };
                return Decision::Hit { stored, status };
            }
            if request.directives.only_if_cached {
                return Decision::NothingStored;
            }
            let mut plan = self.plan_miss(request, &own, forward);
            plan.detail = plan.detail.or(gone.map(reason_of));
            return Decision::Fetch(plan);
        };
        if request.directives.no_store {
            return Decision::Fetch(own(FillSharing::AsIs, Forward::Request, Some(Reason::RequestNoStore)));
        }
        if request.conditional {
            let response_time = stored.freshness().response_time();
            if precondition(request.fields, stored.status(), stored.fields(), response_time) == Precondition::Failed {
                // RFC 9111 section 4.3.2: not ours to refuse; the origin may hold the representation that was meant.
                return Decision::Fetch(own(FillSharing::AsIs, Forward::Request, None));
            }
        }
        let isolation = self.doubts(request);
        let freshness = match isolation {
            Some(Isolation { mode: Isolated::Fail, .. }) => return Decision::Isolated,
            Some(Isolation { mode: Isolated::Revalidate, since }) => freshness.doubtful(since.min(request.now)),
            Some(Isolation { mode: Isolated::Serve, .. }) | None => freshness,
        };
        let ttl = freshness.ttl_seconds(request.now);
        let detail = isolation.map(|_| Reason::Isolated);
        let hit = CacheStatus { hit: true, ttl: Some(ttl), detail, ..CacheStatus::default() };
        // A soft purge is why it is stale, where it would be fresh without.
        let purged = freshness != stored.freshness() && stored.freshness().is_fresh(request.now);
        let stale = if purged { Reason::Purged } else { Reason::Stale };
        let lacks = lacks(request, &stored);
        let must_ask = isolation.is_some_and(|isolation| isolation.mode == Isolated::Revalidate);
        let why = match reuse(&request.directives, &freshness, request.now) {
            Reuse::Revalidate(why) if why != Why::Stale => why,
            _ if must_ask => Why::Isolated,
            Reuse::Fresh if lacks => return self.plan_rest(request, stored, hit, &own),
            Reuse::Fresh => return Decision::Hit { stored, status: hit },
            Reuse::StaleByRequest if !lacks => {
                return Decision::Hit { stored, status: CacheStatus { detail: Some(stale), ..hit } };
            }
            Reuse::StaleByRequest => Why::Stale,
            Reuse::StaleWhileRevalidate if lacks => Why::Stale,
            Reuse::StaleWhileRevalidate => {
                let status = CacheStatus { detail: Some(stale), ..hit };
                let refresh = self.plan_renewal(request, fill_key, &stored, Why::Stale);
                return Decision::HitThenRefresh { stored, status, refresh };
            }
            Reuse::Revalidate(why) => why,
        };
        if request.directives.only_if_cached {
            return Decision::NothingStored;
        }
        let mut plan = self.plan_renewal(request, fill_key, &stored, why);
        if why == Why::Stale {
            plan.detail = Some(stale);
        }
        Decision::Fetch(plan)
    }

    fn plan_miss(
        &self,
        request: &Request<'_>,
        own: &impl Fn(FillSharing, Forward, Option<Reason>) -> Plan,
        forward: Forward,
    ) -> Plan {
        if request.directives.no_store {
            return own(FillSharing::AsIs, Forward::Request, Some(Reason::RequestNoStore));
        }
        if request.method == Method::Head {
            return own(FillSharing::AsIs, forward, None);
        }
        let wanted = wanted_of(request);
        if self.mark(request).is_some() {
            // Nobody else has anything of it: not a byte more than the client wants.
            let sharing = if wanted.is_some() { FillSharing::AsIs } else { FillSharing::Alone };
            return own(sharing, forward, Some(Reason::HitForMiss));
        }
        match wanted {
            // The origin may have to say that nothing has changed; or what it says is hardly for others.
            Some(_) if request.conditional || request.authorization => own(FillSharing::AsIs, forward, None),
            Some(Wanted::Suffix { length: 0 }) => own(FillSharing::AsIs, forward, None),
            wanted => Plan { asked: wanted.map(Asked::chunks_around), ..own(FillSharing::Shared, forward, None) },
        }
    }

    /// What is stored is fresh, but not all of what is wanted is there.
    fn plan_rest(
        &self,
        request: &Request<'_>,
        stored: Arc<StoredResponse>,
        hit: CacheStatus,
        own: &impl Fn(FillSharing, Forward, Option<Reason>) -> Plan,
    ) -> Decision {
        let can_complete = self.can_complete(request, &stored);
        if !can_complete && let Some((stored, ttl)) = self.stored_part(request) {
            return Decision::Hit { stored, status: CacheStatus { ttl: Some(ttl), ..hit } };
        }
        if request.directives.only_if_cached {
            return Decision::NothingStored;
        }
        let forward = Forward::Partial;
        if !can_complete {
            // Nothing can be put beside what is there: all of it is fetched.
            return Decision::Fetch(own(FillSharing::Shared, forward, None));
        }
        Decision::Complete { stored, status: CacheStatus { hit: false, forward: Some(forward), stored: true, ..hit } }
    }

    /// What is stored for a request: for its URL, or for one that differs in what does not matter.
    pub fn look_up(&self, request: &Request<'_>) -> Lookup {
        let found = self.store.lookup(&request.key, request.fields, request.disk);
        if !request.site.no_vary_search || matches!(found, Lookup::Found { .. } | Lookup::OnDisk { .. }) {
            return found;
        }
        let (key, rule) = match self.store.find_search(&self.path_key(request), request.target, request.disk) {
            Searched::Found(key, rule) => (key, rule),
            Searched::OnDisk(key) => return Lookup::OnDisk { key },
            Searched::Nothing => return found,
        };
        match self.store.lookup(&key, request.fields, request.disk) {
            // It may have changed its mind since.
            Lookup::Found { stored, key, freshness } if NoVarySearch::of(stored.fields()) == rule => {
                Lookup::Found { stored, key, freshness }
            }
            Lookup::OnDisk { key } => Lookup::OnDisk { key },
            _ => found,
        }
    }

    /// The key of a request's URL without its query.
    pub fn path_key(&self, request: &Request<'_>) -> CacheKey {
        let end = memchr::memchr(b'?', request.target).unwrap_or(request.target.len());
        let host = canonical_host(request.host, request.scheme);
        let path_and_query = request.target.get(..end).unwrap_or_default();
        let of_url = KeyParts::of_url(&request.site.name, request.scheme, &host, path_and_query);
        let asked = request.asked.split(|byte| *byte == b'?').next().filter(|_| request.asked != request.target);
        let parts = KeyParts { group: &request.site.backing(request.group).name, asked, ..of_url };
        self.store.keyer.primary(&parts, &mut Vec::new())
    }

    /// What is stored for exactly this range, if it is fresh, and how long it is that.
    fn stored_part(&self, request: &Request<'_>) -> Option<(Arc<StoredResponse>, i64)> {
        let (stored, freshness) = self.store.lookup_part(&self.part_key(request)?)?;
        let fresh = reuse(&request.directives, &freshness, request.now) == Reuse::Fresh && !request.directives.no_store;
        fresh.then(|| (stored, freshness.ttl_seconds(request.now)))
    }

    /// The key of the part a request asks for, if nothing but its `Range` says which.
    pub fn part_key(&self, request: &Request<'_>) -> Option<CacheKey> {
        if !request.range
            || request.conditional
            || request.method == Method::Head
            || request.fields.contains("if-range")
        {
            return None;
        }
        let range = request.fields.only("range")?;
        Some(self.store.keyer.part(&request.key, range))
    }

    /// What is known of the last answer, if that could not be stored and nothing was purged since.
    pub fn mark(&self, request: &Request<'_>) -> Option<Mark> {
        let mark = self.store.marks.get(&request.key)?;
        let judged = self.store.ledger.judge(&self.selectors(request).get(), mark.fill_pos);
        (!matches!(judged.verdict, Verdict::Gone(_))).then_some(mark)
    }

    /// What a response to a request will be purged by, its surrogate keys apart.
    pub fn selectors(&self, request: &Request<'_>) -> OwnedSelectors {
        let is_plain = request.group == GroupIndex::OWN && request.asked == request.target;
        let url = if is_plain { request.key } else { self.url_key(request) };
        self.selectors_of(request.site, request.host, request.target, &url, &request.key)
    }

    /// What a request is purged by: its URL, whatever group and path are asked.
    fn url_key(&self, request: &Request<'_>) -> CacheKey {
        let host = canonical_host(request.host, request.scheme);
        let parts = KeyParts::of_url(&request.site.name, request.scheme, &host, request.target);
        self.store.keyer.primary(&parts, &mut Vec::new())
    }

    /// What is stored under `key` is purged by `url`, the key of the client's URL. What takes the place of it under its own
    /// key alone is told by that key's number.
    pub fn selectors_of(
        &self,
        site: &Site,
        host: &[u8],
        target: &[u8],
        url: &CacheKey,
        key: &CacheKey,
    ) -> OwnedSelectors {
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        let mut selectors = OwnedSelectors {
            site: site.id,
            host: host_number(&self.store.ledger, host),
            url: url_of(url),
            path: target.get(..end).unwrap_or_default().into(),
            ..OwnedSelectors::default()
        };
        if url != key {
            selectors.add_group(url_of(key));
        }
        selectors
    }

    fn plan_renewal(&self, request: &Request<'_>, fill_key: CacheKey, stored: &Arc<StoredResponse>, why: Why) -> Plan {
        let from_request = matches!(why, Why::RequestNoCache | Why::RequestMaxAge | Why::RequestMinFresh);
        let forward = if from_request { Forward::Request } else { Forward::Stale };
        if request.method == Method::Head {
            let (sharing, detail) = (FillSharing::AsIs, Some(why.reason()));
            return Plan { fill_key, stale: None, sharing, asked: None, forward, detail };
        }
        // A response that needs validation for every use satisfies nobody but the one who asked.
        let never_fresh = stored.freshness().no_cache() || stored.freshness().lifetime().0 == 0;
        let sharing = if from_request || never_fresh { FillSharing::Alone } else { FillSharing::Shared };
        // If it has changed, the part that is wanted is as good as all of it.
        let asked = wanted_of(request).map(Asked::chunks_around);
        Plan { fill_key, stale: Some(stored.clone()), sharing, asked, forward, detail: Some(why.reason()) }
    }
}

/// Why nothing is left of what was stored.
fn reason_of(gone: Gone) -> Reason {
    match gone {
        Gone::Purged => Reason::Purged,
        Gone::Invalidated => Reason::Invalidated,
    }
}

/// Which part of a representation a request asks for, whatever its length.
pub fn wanted_of(request: &Request<'_>) -> Option<Wanted> {
    (request.range && request.method == Method::Get && !request.in_full).then(|| surest_wanted(request.fields))?
}

/// Which part of a stored response answers a request.
pub fn range_of(request: &Request<'_>, stored: &StoredResponse) -> RangePlan {
    if !request.range || request.method == Method::Head {
        return RangePlan::Whole;
    }
    plan(request.fields, stored.fields(), stored.status(), stored.body_len())
}
