//! The fetch of a run: the origin is asked for it, and what comes goes to its readers and into the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use edge_config::section::limits::{CHUNK_BYTES, READ_AHEAD_MAX};

use super::asked::Asked;
use super::run::{Broken, Run};
use crate::origin::resume::{Rest, Resuming};
use crate::origin::{Failure, OriginBody, OriginRequest};
use crate::pipeline::Pipeline;
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::routing::{GroupIndex, Site};
use crate::semantics::content_range::{ContentRange, content_range};
use crate::semantics::fields::Fields;
use crate::semantics::validation::{same_strongly, strong_validator};
use crate::store::Store;
use crate::store::body::Sparse;
use crate::store::chunks::WholeChunk;
use crate::store::record::StoredResponse;
use crate::telemetry::metrics::Metrics;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// Answers that may bring one run: an origin may give less than it was asked for, but not for ever.
const ANSWERS_MAX: usize = 8;

/// An answer that has begun: its body, and where that ends.
pub type BegunAnswer = (Box<dyn OriginBody>, u64);

/// The fetch of one run. It belongs to no client, and always comes to its end: it is short.
pub struct Fetching {
    pub site: Arc<Site>,
    /// Who of it is asked.
    pub group: GroupIndex,
    /// What is asked, without a range.
    pub request: OriginRequest,
    /// What the bytes are of.
    pub stored: Arc<StoredResponse>,
    pub body: Sparse,
    pub run: Arc<Run>,
}

impl Fetching {
    /// `begun`: an answer that is there already.
    pub async fn run(self, pipeline: Arc<Pipeline>, begun: Option<BegunAnswer>) {
        let mut late = Vec::new();
        let end = self.fetch(&pipeline, begun, &mut late).await;
        #[cfg(test)]
        let end = if planted(Planted::BrokenRunEndsCleanly) { Ok(()) } else { end };
        if matches!(end, Err(Broken::Changed | Broken::NoRanges)) {
            // Before anybody is told: whoever looks again finds that it is gone.
            pipeline.store.outdated(&self.body);
        }
        pipeline.runs.leave(&self.body, &self.run);
        self.run.end(end);
        for chunk in late {
            pipeline.store.put_chunk_late(chunk, &self.site.name).await;
        }
    }

    async fn fetch(
        &self,
        pipeline: &Pipeline,
        mut begun: Option<BegunAnswer>,
        late: &mut Vec<WholeChunk>,
    ) -> Result<(), Broken> {
        // Without room for the chunk that comes and the one that is read, bytes are passed on as they come, and not stored.
        let mut room = pipeline.store.budget.fills.reservation();
        let gathers = room.grow(2 * CHUNK);
        let ahead = if gathers && room.grow(READ_AHEAD_MAX) { READ_AHEAD_MAX } else { 0 };
        // What was purged is for those who read it, and for nobody after them: no disk is to have it.
        let keeps = self.stored.is_live(&pipeline.store.ledger);
        let mut at = self.run.range.start;
        for _ in 0..ANSWERS_MAX {
            let (body, end) = match begun.take() {
                Some(begun) => begun,
                None => self.ask(at, &pipeline.metrics).await?,
            };
            self.run.begin(end, ahead, !gathers);
            let received = if gathers {
                self.receive(&pipeline.store, body, at..end, keeps, late).await?
            } else {
                self.pass(body, at..end).await?
            };
            match received {
                Some(to) if to < self.run.range.end => at = to,
                _ => return Ok(()),
            }
        }
        Err(Broken::Failed(Failure::Malformed))
    }

    /// Asks for what is missing from `at` on; gives the body, and where it ends.
    async fn ask(&self, at: u64, metrics: &Arc<Metrics>) -> Result<BegunAnswer, Broken> {
        let (stored, length) = (self.stored.fields(), self.stored.body_len());
        let Some(validator) = strong_validator(stored) else { return Err(Broken::Changed) };
        let to = self.run.range.end;
        let asked = Asked::Span(at..if to == length { u64::MAX } else { to });
        let mut request = self.request.clone();
        asked.write(&mut request.fields);
        request.fields.extend_from_slice(&[b"if-range: ", validator, b"\r\n"].concat());
        let answer = self.site.upstream(self.group).open(&request, &|_, _| {}).await.map_err(Broken::Failed)?;
        let fields = Fields::new(&answer.fields);
        let is_same = same_strongly(stored, fields);
        #[cfg(test)]
        let is_same = is_same || planted(Planted::RunValidatorNotCompared);
        match answer.status {
            206 if !is_same => return Err(Broken::Changed),
            206 => {}
            // Of what has not changed it gives no part.
            200 if is_same => return Err(Broken::NoRanges),
            429 | 500.. => return Err(Broken::Refused(answer.status)),
            _ => return Err(Broken::Changed),
        }
        let is_answer = |said: &ContentRange| asked.is_answered_by(said, answer.length) && said.total == Some(length);
        #[cfg(test)]
        let is_answer = |said: &ContentRange| {
            is_answer(said)
                || planted(Planted::RunBeginsAnywhere) && said.range().end <= to && said.total == Some(length)
                || planted(Planted::RunTotalNotCompared) && asked.is_answered_by(said, answer.length)
        };
        let said = content_range(fields).filter(is_answer).ok_or(Broken::NoRanges)?;
        let end = said.range().end;
        let rest = Rest {
            upstream: self.site.upstream(self.group).clone(),
            request: self.request.clone(),
            fields: answer.fields,
            origin: answer.origin,
            at,
            end: Some(end),
            total: Some(length),
            site: self.site.index,
            metrics: metrics.clone(),
        };
        Ok((Resuming::over(answer.body, rest), end))
    }

    /// Takes an answer's body; gives how far it went, or nothing if nobody wanted more.
    async fn receive(
        &self,
        store: &Store,
        mut body: Box<dyn OriginBody>,
        range: Range<u64>,
        keeps: bool,
        late: &mut Vec<WholeChunk>,
    ) -> Result<Option<u64>, Broken> {
        let mut gathered = Gathered::new(range.start);
        let mut store_it = |gathered: &mut Gathered| {
            let (at, bytes) = gathered.finish();
            // Readers that are behind find it in memory.
            #[cfg(test)]
            let at = if planted(Planted::PartMisplaced) { at / CHUNK * CHUNK } else { at };
            let whole = store.keep_part(&self.body, at, bytes.clone(), self.stored.body_len());
            self.run.stored(bytes);
            if let Some(whole) = whole.filter(|_| keeps) {
                late.extend(store.put_whole_chunk(whole, &self.site.name));
            }
        };
        let ended = loop {
            // The end is taken at once: what has come is stored, and the connection is free.
            if gathered.to < range.end && !self.run.may_go_on().await {
                break Ok(None);
            }
            let mut piece = match next_within(&mut *body, gathered.to, range.end).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(Some(gathered.to)),
                Err(failure) => break Err(Broken::Failed(failure)),
            };
            self.run.push(piece.clone());
            while !piece.is_empty() {
                if gathered.take(&mut piece) == 0 {
                    store_it(&mut gathered);
                }
            }
        };
        if gathered.from < gathered.to {
            store_it(&mut gathered);
        }
        ended
    }

    /// The same, where there is no room for anything: what comes goes to who reads it.
    async fn pass(&self, mut body: Box<dyn OriginBody>, range: Range<u64>) -> Result<Option<u64>, Broken> {
        let mut to = range.start;
        loop {
            if to < range.end && !self.run.may_go_on().await {
                return Ok(None);
            }
            match next_within(&mut *body, to, range.end).await {
                Ok(Some(piece)) => {
                    to += piece.len() as u64;
                    self.run.push(piece);
                }
                Ok(None) => return Ok(Some(to)),
                Err(failure) => return Err(Broken::Failed(failure)),
            }
        }
    }
}

/// The next piece of a body that goes on at `at` and ends at `end`, no sooner and no later.
async fn next_within(body: &mut dyn OriginBody, at: u64, end: u64) -> Result<Option<Bytes>, Failure> {
    match body.next().await? {
        Some(piece) if at + piece.len() as u64 > end => Err(Failure::Malformed),
        Some(piece) => Ok(Some(piece)),
        None if at < end => Err(Failure::Closed),
        None => Ok(None),
    }
}

/// Bytes of one chunk, as they come.
struct Gathered {
    from: u64,
    to: u64,
    bytes: BytesMut,
}

impl Gathered {
    fn new(from: u64) -> Self {
        Self { from, to: from, bytes: BytesMut::new() }
    }

    /// Takes of a piece what belongs to the chunk; gives how much of that is missing then.
    fn take(&mut self, piece: &mut Bytes) -> usize {
        let missing = (CHUNK - self.to % CHUNK) as usize;
        if self.bytes.is_empty() {
            self.bytes.reserve(missing);
        }
        let taken = piece.split_to(missing.min(piece.len()));
        self.bytes.extend_from_slice(&taken);
        self.to += taken.len() as u64;
        missing - taken.len()
    }

    /// What was taken, and where it stands; the next chunk begins.
    fn finish(&mut self) -> (u64, Bytes) {
        let from = std::mem::replace(&mut self.from, self.to);
        (from, std::mem::take(&mut self.bytes).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_gathered_by_the_grid() {
        let mut gathered = Gathered::new(CHUNK - 3);
        let mut piece = Bytes::from_static(b"abcdef");
        assert_eq!(gathered.take(&mut piece), 0);
        assert_eq!(gathered.finish(), (CHUNK - 3, Bytes::from_static(b"abc")));
        assert_eq!(gathered.take(&mut piece), CHUNK_BYTES - 3);
        assert!(piece.is_empty());
        assert_eq!(gathered.take(&mut Bytes::from_static(b"g")), CHUNK_BYTES - 4);
        assert_eq!(gathered.finish(), (CHUNK, Bytes::from_static(b"defg")));
        assert_eq!(gathered.from, CHUNK + 4);
    }
}
