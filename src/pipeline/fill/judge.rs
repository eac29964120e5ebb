//! What becomes of an answer, judged by its head: may it be stored, under which conditions, and is there room.

use std::sync::Arc;

use crate::origin::Judged;
use crate::pipeline::Pipeline;
use crate::pipeline::edits::{remove, without, without_withheld};
use crate::pipeline::ruled::Ruled;
use crate::purge::ledger::Ledger;
use crate::purge::selector::{Named, OwnedSelectors};
use crate::routing::Site;
use crate::routing::rule::Matched;
use crate::semantics::cache_status::Reason;
use crate::semantics::content_range::ContentRange;
use crate::semantics::deception::contradicts;
use crate::semantics::directives::{RequestDirectives, ResponseDirectives};
use crate::semantics::fields::{Fields, Line};
use crate::semantics::freshness::lifetime;
use crate::semantics::reuse::{self, Freshness, may_serve_on_error};
use crate::semantics::storable::{NotStored, RequestFacts, storable};
use crate::semantics::surrogate::{self, Kind, surrogate_keys};
use crate::semantics::time::UnixMs;
use crate::semantics::vary::{Vary, selecting_key};
use crate::store::budget::Reservation;
use crate::store::fill::{Selecting, Sharing};
use crate::store::key::CacheKey;
use crate::store::record::{Browser, GROUPS_MAX, StoredResponse};

/// What an answer is judged with.
pub struct Judge<'a> {
    pub site: &'a Site,
    /// The rules of the site that match the request.
    pub matched: Option<&'a Matched>,
    /// The field lines of the request: what a `Vary` selects by.
    pub selecting: &'a [u8],
    /// What the answer will be purged by, its surrogate keys apart.
    pub selectors: &'a OwnedSelectors,
    /// The stored response it is to renew or replace.
    pub stale: Option<&'a Arc<StoredResponse>>,
    /// A part may be stored, for those who ask for exactly this one.
    pub part: bool,
    /// Its body is kept part by part: there need not be room for all of it.
    pub stands_apart: bool,
    /// Where another node answered.
    pub judged: Option<Judged>,
    /// The key of its URL, where a body that memory is too small for may go to a disk.
    pub spills: Option<&'a CacheKey>,
}

/// A head that has been judged.
pub struct Head {
    pub status: u16,
    pub fields: Vec<u8>,
    /// What is stored where `no-cache="field"` withholds fields from everybody but this request's client.
    pub withheld: Option<Vec<u8>>,
    pub sharing: Sharing,
    /// Room for the body while it arrives; none: it is not kept in memory.
    pub reservation: Option<Reservation>,
    /// What its chunks on a disk are known by, where memory is too small for it.
    pub spill: Option<u64>,
    /// A body that turns out to be longer is not stored.
    pub bytes_max: Option<u64>,
    /// What caches behind us said.
    pub upstream_status: Option<Box<[u8]>>,
    pub browser: Option<Browser>,
    /// The lines that name its surrogate keys, for nodes that ask this one.
    pub tags: Option<Box<[u8]>>,
    /// Which part of the representation it is of, where it was asked for by us and is passed on alone.
    pub part: Option<ContentRange>,
}

impl Judge<'_> {
    /// A rule keeps the request from the store: its answer is neither stored nor says anything about what is.
    pub fn bypasses(&self) -> bool {
        self.matched.is_some_and(|matched| matched.bypass)
    }

    /// Judges a head. `length`: of the body, if it was said.
    pub fn head(
        &self,
        pipeline: &Pipeline,
        status: u16,
        mut fields: Vec<u8>,
        length: Option<u64>,
        facts: &RequestFacts,
    ) -> Head {
        let ruled = Ruled::apply(self.site, self.matched, status, &mut fields);
        let directives = ruled.directives(ResponseDirectives::parse(Fields::new(&fields)));
        let tags = self.tags(&ruled, Fields::new(&fields));
        let selectors = self.with_keys(&pipeline.store.ledger, &ruled, &mut fields);
        let mut reservation = pipeline.store.budget.fills.reservation();
        let mut spill = None;
        let bytes_max = ruled.max_size();
        let storable = match self.bypasses() {
            true => Err(Reason::Rule),
            false => {
                // RFC 9111 section 3.3: a part is stored as what it is, on the terms of the whole.
                let judged = if self.part && is_lasting_part(status, Fields::new(&fields), &directives, facts) {
                    200
                } else {
                    status
                };
                storable(facts, judged, Fields::new(&fields), &directives, self.site.set_cookie)
                    .map_err(NotStored::reason)
            }
        };
        let storable = storable.and_then(|freshness| self.placed(freshness));
        let verdict = storable.and_then(|freshness| match length {
            _ if ruled.forbids() => Err(Reason::Rule),
            _ if self.is_deceived(Fields::new(&fields)) => Err(Reason::ContentTypeMismatch),
            _ if ruled.gives_lifetime() && self.has_better_than(pipeline, status, facts.response_time) => {
                Err(Reason::OriginError)
            }
            Some(length) if bytes_max.is_some_and(|max| length > max) => Err(Reason::TooLarge),
            _ if self.stands_apart => Ok((freshness, selectors?)),
            Some(length) if length > pipeline.store.memory.object_bytes_max() || !reservation.grow(length) => {
                let selectors = selectors?;
                spill = self.spills.and_then(|key| pipeline.store.admits_chunks(key, Some(length)));
                match spill {
                    Some(_) => Ok((freshness, selectors)),
                    None if length > pipeline.store.memory.object_bytes_max() => {
                        pipeline.metrics.admission("too-large");
                        Err(Reason::TooLarge)
                    }
                    None => {
                        pipeline.metrics.admission("memory-full");
                        Err(Reason::MemoryFull)
                    }
                }
            }
            _ => Ok((freshness, selectors?)),
        });
        // Before what names these fields may be taken out.
        let mut withheld = directives.no_cache_fields.then(|| without_withheld(&fields, &directives));
        if let Some(withheld) = &mut withheld {
            ruled.browser(&directives, withheld);
        }
        let browser = ruled.browser(&directives, &mut fields);
        match verdict {
            Ok((freshness, selectors)) => {
                let selecting = self.selecting(Fields::new(&fields));
                remove(&mut fields, "age");
                let sharing = Sharing::Stored { freshness, selecting, selectors: Arc::new(selectors) };
                let reservation = Some(reservation).filter(|_| spill.is_none());
                Head {
                    status,
                    fields,
                    withheld,
                    sharing,
                    reservation,
                    spill,
                    bytes_max,
                    upstream_status: None,
                    browser,
                    tags,
                    part: None,
                }
            }
            Err(reason) => {
                let sharing = Sharing::NotStored(reason);
                let (withheld, reservation, spill, upstream_status, part) = (None, None, None, None, None);
                Head {
                    status,
                    fields,
                    withheld,
                    sharing,
                    reservation,
                    spill,
                    bytes_max,
                    upstream_status,
                    browser,
                    tags,
                    part,
                }
            }
        }
    }

    /// What another node's answer is stored as: stale where that says so.
    ///
    /// # Errors
    /// Nobody can say what purges it.
    pub fn placed(&self, freshness: Freshness) -> Result<Freshness, Reason> {
        match self.judged {
            None => Ok(freshness),
            Some(Judged { at: None, .. }) => Err(Reason::Unplaced),
            Some(Judged { stale_since: Some(since), .. }) => Ok(freshness.stale_since(since)),
            Some(_) => Ok(freshness),
        }
    }

    /// The lines that name its surrogate keys, those that rules add among them, if other nodes may ask for it.
    pub fn tags(&self, ruled: &Ruled<'_>, fields: Fields<'_>) -> Option<Box<[u8]>> {
        if !self.site.is_asked_by_nodes {
            return None;
        }
        let mut tags = Vec::new();
        let named = fields.lines().filter(|line| surrogate::FIELDS.iter().any(|name| line.is(name)));
        named.for_each(|line| line.write(&mut tags));
        for key in ruled.surrogate_keys() {
            Line { name: b"surrogate-key", value: key.as_bytes() }.write(&mut tags);
        }
        (!tags.is_empty()).then(|| tags.into_boxed_slice())
    }

    /// What the answer is purged by. The fields that say so are for us; a site may want them passed on.
    ///
    /// # Errors
    /// It has more surrogate keys than are stored with one response.
    pub fn with_keys(
        &self,
        ledger: &Ledger,
        ruled: &Ruled<'_>,
        fields: &mut Vec<u8>,
    ) -> Result<OwnedSelectors, Reason> {
        let mut selectors = self.selectors.clone();
        let keys = surrogate_keys(Fields::new(fields)).map_err(|_| Reason::TagsOverLimit).and_then(|keys| {
            if keys.iter().filter(|key| key.kind == Kind::Group).count() > GROUPS_MAX {
                return Err(Reason::TagsOverLimit);
            }
            for key in keys {
                // The operator purges groups as any key; the origin invalidates those of its own host.
                selectors.add_key(ledger.name(Named::Key, &key.value));
                if key.kind == Kind::Group {
                    selectors.add_group(group_number(ledger, selectors.host, &key.value));
                }
            }
            ruled.surrogate_keys().for_each(|key| selectors.add_key(ledger.name(Named::Key, key.as_bytes())));
            Ok(())
        });
        if !self.site.keep_surrogate_keys {
            *fields = without(fields, &surrogate::FIELDS);
        }
        keys.map(|()| selectors)
    }

    /// What a `Vary` selects the answer by.
    pub fn selecting(&self, response: Fields<'_>) -> Option<Selecting> {
        let Vary::On(names) = Vary::of(response) else { return None };
        let mut values = Vec::with_capacity(128);
        selecting_key(names.iter().map(AsRef::as_ref), Fields::new(self.selecting), &mut values);
        Some(Selecting { names, values })
    }

    /// Whether the answer is something else than its path makes believe: somebody's page under the name of an image.
    fn is_deceived(&self, response: Fields<'_>) -> bool {
        self.site.deception_armour && contradicts(&self.selectors.path, response.first("content-type"))
    }

    /// Whether this answer is an error that the response to renew may stand in for. A rule's lifetime is for all answers,
    /// but one bad moment of an origin must not take the place of what `stale-if-error` keeps for it.
    fn has_better_than(&self, pipeline: &Pipeline, status: u16, now: UnixMs) -> bool {
        let left = self.stale.and_then(|stale| stale.judge(&pipeline.store.ledger).ok());
        left.zip(reuse::Failure::of_status(status))
            .is_some_and(|(freshness, error)| may_serve_on_error(&RequestDirectives::NONE, &freshness, now, error))
    }
}

/// Whether an answer is one part of a representation, the same for everybody, and says how long it lasts.
fn is_lasting_part(status: u16, response: Fields<'_>, directives: &ResponseDirectives, facts: &RequestFacts) -> bool {
    let one = response.only("content-range").is_some_and(|range| range.starts_with(b"bytes "));
    let explicit = lifetime(status, response, directives, facts.response_time).1.is_explicit();
    status == 206 && one && explicit && Vary::of(response) == Vary::No
}

/// The number of a cache group (RFC 9875 section 2.1: groups are of one origin).
pub fn group_number(ledger: &Ledger, host: u32, group: &[u8]) -> u32 {
    ledger.name(Named::Group, &[&host.to_le_bytes(), group].concat())
}
