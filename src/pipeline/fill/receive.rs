//! An answer between its head and its end: kept for the store, passed on, or both.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use super::judge::Head;
use super::spool::Spool;
use super::{Job, is_the_requests};
use crate::clock;
use crate::origin::{Failure, OriginBody};
use crate::pipeline::Pipeline;
use crate::pipeline::nodes::for_nodes;
use crate::purge::position::Position;
use crate::purge::selector::OwnedSelectors;
use crate::semantics::cache_status::Reason;
use crate::semantics::fields::Fields;
use crate::semantics::reuse::Freshness;
use crate::semantics::validation::strong_validator;
use crate::store::collector::Collector;
use crate::store::commit::new_generation;
use crate::store::fill::{FillHead, Room, Selecting, Sharing};
use crate::store::marks::Mark;
use crate::store::record::{Browser, Parts, StoredResponse, has_content_length};

/// A response between its head and its end.
pub(super) struct Receiving<'a> {
    pub(super) job: &'a Job,
    pub(super) pipeline: &'a Pipeline,
    /// The head, until it is published: a body that is there at once is published together with it.
    pub(super) unpublished: Option<Head>,
    pub(super) held: Vec<Bytes>,
    /// The body that is being kept, and what it takes to store it.
    pub(super) body: Option<Keeping>,
    pub(super) length: Option<u64>,
    /// The fill's position, and so the record's.
    pub(super) fill_pos: Position,
    /// Connections that failed before this answer.
    pub(super) retries: u32,
    pub(super) origin: usize,
    /// How long a disk has held up somebody who waited.
    pub(super) held_up: Duration,
}

/// How often a fill looks whether a disk takes a chunk, how long it does, and how long its readers may be held up by that
/// altogether.
const DISK_PAUSE: Duration = Duration::from_millis(2);
const DISK_WITHIN: Duration = Duration::from_secs(10);
const HELD_UP_MAX: Duration = Duration::from_millis(100);

pub(super) struct Keeping {
    collector: Collector,
    /// Whole chunks are collected in memory.
    in_memory: bool,
    spool: Spool,
    bytes_max: Option<u64>,
    status: u16,
    fields: Vec<u8>,
    freshness: Freshness,
    selecting: Option<Selecting>,
    selectors: Arc<OwnedSelectors>,
    upstream_status: Option<Box<[u8]>>,
    browser: Option<Browser>,
    tags: Option<Box<[u8]>>,
}

impl Keeping {
    fn parts(&self, fill_pos: Position) -> Parts<'_> {
        Parts {
            status: self.status,
            fields: &self.fields,
            freshness: self.freshness,
            fill_pos,
            upstream_status: self.upstream_status.as_deref(),
            browser: self.browser.as_ref(),
            tags: self.tags.as_deref(),
            selectors: self.selectors.get(),
        }
    }
}

impl Receiving<'_> {
    /// Publishes the head, and what has been held back; with the record if that is finished already.
    pub(super) fn publish(&mut self, record: Option<Arc<StoredResponse>>) {
        let Some(head) = self.unpublished.take() else { return };
        let for_nodes = for_nodes(head.tags.as_deref(), head.browser.as_ref());
        let Head { status, fields, withheld, sharing, reservation, spill, bytes_max, upstream_status, .. } = head;
        let (browser, tags, part) = (head.browser, head.tags, head.part);
        if let Sharing::NotStored(reason) = &sharing {
            self.not_shared(status, *reason);
        }
        if let Sharing::Stored { freshness, selecting, selectors } = &sharing {
            let selecting = selecting.as_ref().map(|s| Selecting { names: s.names.clone(), values: s.values.clone() });
            if let Some(selecting) = &selecting {
                self.pipeline.store.note_variants(&self.job.primary, &selecting.names);
            }
            if record.is_none() {
                let stored_fields = withheld.unwrap_or_else(|| fields.clone());
                let (store, primary) = (&self.pipeline.store, &self.job.primary);
                let key = selecting.as_ref().map_or(*primary, |s| store.keyer.variant(primary, &s.values));
                let mut collector = Collector::default();
                if spill.is_some() {
                    collector.pass();
                }
                self.body = Some(Keeping {
                    collector,
                    in_memory: spill.is_none(),
                    spool: Spool::new(key, spill, self.job.judge().spills.is_some()),
                    bytes_max,
                    status,
                    fields: stored_fields,
                    freshness: *freshness,
                    selecting,
                    selectors: selectors.clone(),
                    upstream_status: upstream_status.clone(),
                    browser: browser.clone(),
                    tags,
                });
            }
        }
        let is_whole_after_all = self.job.asked.is_some() && self.job.shared && record.is_none();
        if let (true, Some(whole), Sharing::Stored { .. }) = (is_whole_after_all, &self.job.also, &sharing) {
            self.pipeline.coalesce.enter(whole, &self.job.fill);
        }
        let head = FillHead {
            status,
            fields: fields.into_boxed_slice(),
            upstream_status,
            length: self.length,
            sharing,
            origin_status: status,
            retries: self.retries,
            origin: self.origin,
            browser_ttl: browser.map(|browser| browser.ttl),
            for_nodes,
            part,
            record,
        };
        let on_disk = self.body.as_ref().and_then(|body| body.spool.on_disk(&self.pipeline.store));
        let room = match (reservation, head.record.is_some(), on_disk.filter(|_| spill.is_some())) {
            (_, true, _) => Room::Nothing,
            (_, false, Some(on_disk)) => Room::Spill(on_disk),
            (Some(reservation), false, None) => Room::Keep(reservation),
            (None, false, None) => Room::Pass(self.pipeline.store.budget.fills.reservation()),
        };
        self.job.fill.publish_head(head, room);
        for piece in std::mem::take(&mut self.held) {
            self.accept(piece);
        }
    }

    /// The answer is for one request alone: the others are released, and the next ones do not queue.
    fn not_shared(&self, status: u16, reason: Reason) {
        self.job.leave(self.pipeline);
        if status >= 500 || is_the_requests(reason) || self.job.judge().bypasses() {
            return;
        }
        if self.job.shared {
            self.pipeline.store.marks.set(self.job.primary, Mark { fill_pos: self.job.fill.fill_pos(), reason });
        }
        // A whole answer that must not be stored takes the place of one that was.
        if self.job.origin_request.method == "GET" && !matches!(status, 206 | 304 | 416) {
            self.pipeline.store.supersede(&self.job.primary);
        }
    }

    pub(super) fn accept(&mut self, piece: Bytes) {
        if self.unpublished.is_some() {
            self.held.push(piece);
            let held: usize = self.held.iter().map(Bytes::len).sum();
            if held > CHUNK_BYTES {
                self.publish(None);
            }
            return;
        }
        self.keep_room(piece.len() as u64);
        self.job.fill.push(piece.clone());
        let Some(body) = &mut self.body else { return };
        let Some((chunk, rest)) = body.collector.push(piece) else { return };
        let (store, job) = (&self.pipeline.store, self.job);
        job.fill.seal(chunk.clone(), rest);
        body.spool.put(store, chunk, self.length, &job.label.site);
        if !body.in_memory {
            match body.spool.written() {
                Some(to) => job.fill.spilled(to),
                None => self.give_up("disk-busy"),
            }
        }
    }

    /// Waits with a chunk that a disk is too busy for, as long as that holds up hardly anybody.
    pub(super) async fn settle(&mut self) {
        let until = clock::monotonic() + DISK_WITHIN;
        loop {
            let Some(body) = self.body.as_mut().filter(|body| !body.in_memory) else { return };
            if body.spool.retry(&self.pipeline.store, &self.job.label.site) {
                return;
            }
            if self.job.fill.somebody_waits() {
                self.held_up += DISK_PAUSE;
            }
            if self.held_up > HELD_UP_MAX || clock::monotonic() > until {
                return self.give_up("disk-busy");
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }

    /// Sees to it that there is room for some more of a body whose length was not said.
    fn keep_room(&mut self, bytes: u64) {
        let Some(body) = self.body.as_mut().filter(|_| self.length.is_none()) else { return };
        let store = &self.pipeline.store;
        let total = body.collector.length() + bytes;
        if body.bytes_max.is_some_and(|max| total > max) {
            return self.give_up("too-large");
        }
        if !body.in_memory {
            if total > store.disks.object_bytes_max() {
                self.give_up("too-large");
            }
            return;
        }
        let fits = total <= store.memory.object_bytes_max();
        if fits && self.job.fill.reserve(bytes) {
            return;
        }
        // What is on its way to a disk goes on there alone.
        match body.spool.on_disk(store).zip(body.spool.written()) {
            Some((on_disk, to)) => {
                body.in_memory = false;
                body.spool.be_patient();
                body.collector.pass();
                self.job.fill.spill(on_disk);
                self.job.fill.spilled(to);
            }
            None => self.give_up(if fits { "memory-full" } else { "too-large" }),
        }
    }

    /// The body cannot be kept after all: it is passed on as it comes.
    fn give_up(&mut self, why: &'static str) {
        self.pipeline.metrics.admission(why);
        self.job.leave(self.pipeline);
        self.job.fill.stop_keeping();
        self.body = None;
    }

    /// The body is complete: the record is committed before anybody is told.
    pub(super) async fn finish(mut self) {
        if let Some(head) = &self.unpublished {
            let record = match &head.sharing {
                Sharing::Stored { freshness, selecting, selectors } => {
                    let fields = head.withheld.as_deref().unwrap_or(&head.fields);
                    let parts = Parts {
                        status: head.status,
                        fields,
                        freshness: *freshness,
                        fill_pos: self.fill_pos,
                        upstream_status: head.upstream_status.as_deref(),
                        browser: head.browser.as_ref(),
                        tags: head.tags.as_deref(),
                        selectors: selectors.get(),
                    };
                    let record = Arc::new(StoredResponse::new(&parts, &self.held));
                    self.commit(&record, selecting.as_ref()).await;
                    // This request's own client gets the fields that are withheld from the others.
                    head.withheld.is_none().then_some(record)
                }
                Sharing::NotStored(_) => None,
            };
            let head_status = head.status;
            // A body that is there completely has a length, said or not; the answer to HEAD keeps what was said.
            if self.job.origin_request.method == "GET" && has_content_length(head_status) {
                self.length = Some(self.held.iter().map(|piece| piece.len() as u64).sum());
            }
            if record.is_some() {
                self.held.clear();
            }
            self.publish(record);
            return;
        }
        if let Some(body) = &mut self.body
            && body.collector.length() > CHUNK_BYTES as u64
            && let Some(rest) = body.collector.rest()
        {
            let length = Some(body.collector.length());
            body.spool.put(&self.pipeline.store, rest, length, &self.job.label.site);
        }
        self.settle().await;
        let Some(mut body) = self.body.take() else { return };
        let store = &self.pipeline.store;
        let collector = std::mem::take(&mut body.collector);
        let length = collector.length();
        let parts = body.parts(self.fill_pos);
        let is_late = body.in_memory && body.spool.is_late();
        let generation = body.spool.generation();
        let record = match (body.in_memory, generation) {
            (true, Some(generation)) => StoredResponse::of_chunks(&parts, &collector.finish(), generation),
            (true, None) => StoredResponse::new(&parts, &collector.finish()),
            (false, Some(generation)) => {
                StoredResponse::of_sparse(&parts, length, store.sparse(body.spool.key(), generation))
            }
            // Not all of it is anywhere.
            (false, None) => return self.job.fill.stop_keeping(),
        };
        let record = Arc::new(record);
        self.commit(&record, body.selecting.as_ref()).await;
        if is_late {
            *self.job.late.lock() = Some((body.spool.key(), record));
        }
    }

    /// The body will not be complete: what has come of it is kept, and asked for no more.
    pub(super) async fn keep_what_came(mut self) {
        let (Some(body), Some(length)) = (self.body.take(), self.length) else { return };
        let is_known_again = body.status == 200 && strong_validator(Fields::new(&body.fields)).is_some();
        if !is_known_again || self.job.as_is && self.job.asked.is_some() || body.collector.length() < CHUNK_BYTES as u64
        {
            return;
        }
        let store = &self.pipeline.store;
        let on_disk = body.spool.generation();
        let Some(generation) = on_disk.or_else(new_generation) else { return };
        let sparse = store.sparse(body.spool.key(), generation);
        let mut at = 0;
        for chunk in body.collector.chunks() {
            let bytes = chunk.len() as u64;
            let whole = store.keep_part(&sparse, at, chunk.clone(), length);
            if let Some(whole) = whole.filter(|_| on_disk.is_none()) {
                store.put_whole_chunk(whole, &self.job.label.site);
            }
            at += bytes;
        }
        let parts = body.parts(self.fill_pos);
        let record = Arc::new(StoredResponse::of_sparse(&parts, length, sparse));
        self.job.commit(self.pipeline, body.selecting.as_ref(), &record).await;
    }

    async fn commit(&self, record: &Arc<StoredResponse>, selecting: Option<&Selecting>) {
        let store = &self.pipeline.store;
        match &self.job.part {
            Some(part) if record.status() == 206 => {
                store.commit_part(&self.job.primary, part, record);
                self.job.keep_alone(self.pipeline, record).await;
            }
            _ => {
                self.job.commit(self.pipeline, selecting, record).await;
                self.job.note_search(self.pipeline, record);
            }
        }
    }
}

/// The next piece; if it is not there yet, `waiting` runs once before the wait.
pub(super) async fn next_or_else(body: &mut dyn OriginBody, waiting: impl FnOnce()) -> Result<Option<Bytes>, Failure> {
    let mut next: Pin<Box<_>> = body.next();
    let at_once = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(piece) => piece,
        Poll::Pending => {
            waiting();
            next.await
        }
    }
}
