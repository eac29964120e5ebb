//! What is right of an answer, and of what is stored.

use std::sync::Arc;

use super::client::{Ask, Spec};
use super::truth::{CHUNK, Evidence, tag_of};
use super::{Mood, Scene};
use crate::pipeline::Pipeline;
use crate::pipeline::decide::Decision;
use crate::pipeline::request::Outcome;
use crate::semantics::cache_status::Reason;
use crate::semantics::content_range::{content_range, unsatisfied_total};
use crate::semantics::fields::Fields;
use crate::semantics::validation::strong_validator;
use crate::store::body::chunks_of;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::CacheOutcome;

/// What a client got.
#[derive(Default)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) fields: Vec<u8>,
    /// How long the body is to be, if that was said.
    pub(super) length: Option<u64>,
    pub(super) body: Vec<u8>,
    pub(super) clean: bool,
}

impl Got {
    /// Judges an answer; `outcome`: none for a client that has left.
    pub(super) fn judge(
        &self,
        scene: &Scene,
        ask: &Ask,
        (promised, softly): (u64, u64),
        outcome: Option<&Outcome>,
    ) -> Result<(), String> {
        self.may_be(scene, ask, outcome)?;
        let fields = Fields::new(&self.fields);
        let announced = self.length.filter(|_| !ask.is_head);
        let received = self.body.len() as u64;
        if announced.is_some_and(|length| if self.clean { received != length } else { received > length }) {
            return Err(format!("{received} bytes where {announced:?} were announced"));
        }
        let evidence = match self.status {
            200 => {
                let said =
                    fields.first("content-length").and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
                let received = Some(received).filter(|_| self.clean && !ask.is_head);
                Evidence { fields, total: announced.or(said).or(received), parts: vec![(0, &self.body)] }
            }
            206 => match content_range(fields) {
                Some(said) => {
                    if announced.is_some_and(|length| length != said.len()) {
                        return Err(format!("{said:?}, but {announced:?} bytes are announced"));
                    }
                    if self.clean && received != said.len() {
                        return Err(format!("{said:?}, but {received} bytes"));
                    }
                    self.is_asked_for(scene, ask, said.first, said.last, said.total)?;
                    Evidence { fields, total: said.total, parts: vec![(said.first, &self.body)] }
                }
                None => parts_of(fields, &self.body, self.clean)?,
            },
            416 => {
                let total = unsatisfied_total(fields).ok_or("416 without a length")?;
                let is_there = |spec: &Spec| spec.within(total).is_some();
                if ask.wanted.iter().any(is_there) {
                    return Err(format!("some of {:?} is within {total}", ask.wanted));
                }
                Evidence { fields, total: Some(total), parts: vec![] }
            }
            _ => return Ok(()),
        };
        let versions = evidence.versions(ask.url)?;
        // Stale answers may be older than a soft purge; hits, and what was fetched for this request, may not.
        let is_stale = ask.says("max-stale") || outcome.is_none_or(|outcome| outcome.cache == CacheOutcome::Stale);
        let floor = if is_stale { promised } else { promised.max(softly) };
        if versions.iter().all(|version| *version < floor) {
            return Err(format!("version {versions:?}, but {floor} is promised"));
        }
        Ok(())
    }

    /// Whether an origin in this mood leaves no better answer.
    fn may_be(&self, scene: &Scene, ask: &Ask, outcome: Option<&Outcome>) -> Result<(), String> {
        match self.status {
            304 if !ask.has("if-none-match") => return Err("nobody asked whether it is modified".into()),
            206 if ask.wanted.is_empty() || ask.is_head => return Err("nobody asked for a part".into()),
            504 if ask.says("only-if-cached") => {}
            200 | 206 | 304 | 416 => {}
            _ if scene.mood == Mood::Wild => {}
            _ => return Err("nothing was wrong with the origin".into()),
        }
        if outcome.is_none_or(|outcome| outcome.complete) {
            return Ok(());
        }
        match scene.mood {
            Mood::Calm => Err("cut off for no reason".into()),
            // Without room a run keeps nothing for who is behind another reader.
            Mood::Orderly if self.body.is_empty() && !scene.is_tight => Err("cut off before anything was sent".into()),
            Mood::Orderly | Mood::Wild => Ok(()),
        }
    }

    /// Whether a part is what was asked for; of an origin that gives something else clients of its own get that.
    fn is_asked_for(&self, scene: &Scene, ask: &Ask, first: u64, last: u64, total: Option<u64>) -> Result<(), String> {
        let is = |spec: &Spec| {
            total.and_then(|total| spec.within(total)).is_some_and(|(from, to)| from == first && last <= to)
        };
        if scene.mood != Mood::Wild && !ask.wanted.iter().any(is) {
            return Err(format!("{first}-{last}/{total:?} is not what was asked for: {:?}", ask.wanted));
        }
        let asked = Fields::new(ask.fields.as_bytes());
        match asked.first("if-range") {
            Some(held) if scene.mood != Mood::Wild && strong_validator(Fields::new(&self.fields)) != Some(held) => {
                Err("a part of something else than If-Range names".into())
            }
            _ => Ok(()),
        }
    }
}

impl Spec {
    /// First and last byte in a representation so long.
    fn within(self, length: u64) -> Option<(u64, u64)> {
        let last = length.checked_sub(1)?;
        match self {
            Self::From(first, asked) if first <= last => Some((first, asked.map_or(last, |asked| asked.min(last)))),
            Self::Suffix(suffix) if suffix > 0 => Some((length.saturating_sub(suffix), last)),
            Self::From(..) | Self::Suffix(_) => None,
        }
    }
}

/// Takes `multipart/byteranges` apart, as far as it has come.
fn parts_of<'a>(fields: Fields<'a>, body: &'a [u8], clean: bool) -> Result<Evidence<'a>, String> {
    let kind = String::from_utf8_lossy(fields.first("content-type").unwrap_or_default()).into_owned();
    let (_, boundary) = kind.split_once("boundary=").ok_or("206 without a range or a boundary")?;
    let (delimiter, end) = (format!("\r\n--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let (mut rest, mut parts, mut total) = (body, vec![], None);
    while !(rest.is_empty() || clean && rest == end.as_bytes()) {
        let Some(part) = rest.strip_prefix(delimiter.as_bytes()) else {
            return if clean { Err("a part does not begin where one should".into()) } else { break };
        };
        let split = memchr::memmem::find(part, b"\r\n\r\n").ok_or("a part's head does not end")?;
        let (head, bytes) = part.split_at(split + 2);
        let said = content_range(Fields::new(head)).ok_or("a part does not say where it is")?;
        if said.total.is_none() || total.is_some_and(|total| said.total != Some(total)) {
            return Err("parts of different wholes".into());
        }
        total = said.total;
        let bytes = &bytes[2..];
        if clean && (bytes.len() as u64) < said.len() {
            return Err("a part is too short".into());
        }
        let (bytes, others) = bytes.split_at(bytes.len().min(said.len() as usize));
        parts.push((said.first, bytes));
        rest = others;
    }
    if clean && rest.is_empty() {
        return Err("no last boundary".into());
    }
    Ok(Evidence { fields, total, parts })
}

/// What a decision led to, for what is to be seen in some run.
#[derive(Debug)]
pub(super) struct Seen {
    what: &'static str,
    /// The strong validator of what stood apart, whole or not.
    validator: Option<Vec<u8>>,
}

impl Seen {
    pub(super) fn of(decision: &Decision) -> Self {
        let (what, stored) = match decision {
            Decision::Hit { stored, .. } | Decision::HitThenRefresh { stored, .. } => ("hit", Some(stored)),
            Decision::Complete { stored, .. } => ("partial", Some(stored)),
            Decision::Fetch(plan) => ("fetch", plan.stale.as_ref()),
            Decision::Read(_) | Decision::NothingStored | Decision::Isolated => ("nothing", None),
        };
        let stored = stored.filter(|stored| stored.sparse().is_some());
        let validator = stored.and_then(|stored| Some(strong_validator(stored.fields())?.to_vec()));
        Self { what, validator }
    }

    pub(super) fn note(&self, scene: &Scene, ask: &Ask, got: &Got, outcome: &Outcome) {
        let fields = Fields::new(&got.fields);
        let status = String::from_utf8_lossy(fields.first("cache-status").unwrap_or_default()).into_owned();
        let says = |what: &str| status.contains(what);
        let has_some = got.clean && !got.body.is_empty() && matches!(got.status, 200 | 206);
        let is_same = self.validator.is_some() && strong_validator(fields) == self.validator.as_deref();
        let is_other = self.validator.is_some() && !is_same;
        let is_partial = self.what == "partial";
        let changed = Fields::new(&got.fields)
            .first("etag")
            .is_some_and(|tag| tag != tag_of(ask.url, scene.world.lock().versions[ask.url]).as_bytes());
        let rows = [
            ("hit", self.what == "hit" && self.validator.is_some() && has_some && outcome.cache == CacheOutcome::Hit),
            ("partial", is_partial && has_some && says("fwd=partial")),
            ("collapsed run", has_some && says("fwd=partial") && says("collapsed")),
            ("changed before the first byte", is_partial && is_other && has_some),
            (
                "changed after the first byte",
                is_partial
                    && !outcome.complete
                    && changed
                    && !got.body.is_empty()
                    && outcome.reason == Some(Reason::FillFailed),
            ),
            ("whole after all", is_partial && is_same && has_some && says("fwd-status=200")),
            (
                "304 kept chunks",
                self.what == "fetch" && has_some && is_same && outcome.cache == CacheOutcome::Revalidated,
            ),
            ("206 beside what was stale", self.what == "fetch" && has_some && is_same && says("fwd-status=206")),
            ("several parts", has_some && got.status == 206 && !fields.contains("content-range")),
            ("unsatisfiable", got.status == 416),
            ("cut off", !outcome.complete),
            ("stale", has_some && outcome.cache == CacheOutcome::Stale),
        ];
        rows.iter().for_each(|(what, is_so)| scene.note_if(*is_so, what));
    }
}

/// Whatever can still be reached is of one version, and kept since the last promise.
pub(super) fn stored_is_right(pipeline: &Pipeline, scene: &Scene) -> Result<(), String> {
    let (listed, _) = pipeline.store.memory.some((0, 0), 10_000);
    for (_, stored) in listed {
        if !stored.is_live(&pipeline.store.ledger) {
            continue;
        }
        let url = usize::from(stored.selectors().path[1] - b'0');
        let what = || {
            format!("stored of /{url}: {} {:?}", stored.status(), String::from_utf8_lossy(stored.fields().as_bytes()))
        };
        let chunks = kept_of(pipeline, &stored);
        let (mut at, total) = match stored.status() {
            206 => content_range(stored.fields()).map(|said| (said.first, said.total)).ok_or_else(what)?,
            _ => (0, Some(stored.body_len())),
        };
        let mut parts: Vec<(u64, &[u8])> = chunks.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
        let from = at;
        for slice in stored.slices(0..stored.body_len()) {
            parts.push((at, slice));
            at += slice.len() as u64;
        }
        if stored.sparse().is_none() && at - from != stored.body_len() {
            return Err(format!("{} has {} bytes", what(), at - from));
        }
        let versions = Evidence { fields: stored.fields(), total, parts }.versions(url);
        let versions = versions.map_err(|wrong| format!("{}: {wrong}", what()))?;
        let promised = scene.world.lock().promised[url];
        if versions.iter().all(|version| *version < promised) {
            return Err(format!("{}: version {versions:?}, but {promised} is promised", what()));
        }
    }
    Ok(())
}

/// What is in memory of a body that stands apart.
fn kept_of(pipeline: &Pipeline, stored: &Arc<StoredResponse>) -> Vec<(u64, bytes::Bytes)> {
    let Some(body) = stored.sparse() else { return vec![] };
    let mut kept = vec![];
    for index in 0..chunks_of(stored.body_len()) {
        let Some(chunk) = pipeline.store.memory.chunk(&body.frame(index)) else { continue };
        let mut at = chunk.parts.next_after(0);
        while let Some(from) = at {
            let to = chunk.parts.covered_to(from);
            kept.extend(chunk.parts.get(from..to).map(|bytes| (u64::from(index) * CHUNK + u64::from(from), bytes)));
            at = chunk.parts.next_after(to);
        }
    }
    kept
}
