//! A body that goes on where it broke off: the rest is asked for again, with `Range` and `If-Range`.
//!
//! What comes is passed on byte for byte, and nothing but the rest of the very same representation is put behind it. Where
//! that cannot be had, the body fails as it would have failed without this: loudly, never with a clean end.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use edge_config::section::limits::CHUNK_BYTES;

use super::fetch::within;
use super::{Failure, OriginBody, OriginRequest, OriginResponse, Upstream};
use crate::clock;
use crate::semantics::content_range::{ContentRange, content_range};
use crate::semantics::fields::{Fields, Line};
use crate::semantics::validation::{same_strongly, strong_validator};
use crate::telemetry::metrics::Metrics;

/// How often the rest is asked for while hardly anything comes; every [`CHUNK_BYTES`] that came allow it anew. So a body
/// costs at most three more requests a chunk, whatever its origin does.
pub const RESUMES_MAX: u32 = 3;

/// Fields of a request that would say something about the rest: it is asked for in our own words.
const SELECTING: [&str; 6] =
    ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];

/// What it takes to ask for the rest of a body.
pub struct Rest {
    pub upstream: Arc<dyn Upstream>,
    /// What was asked; ranges and conditions in it are left out.
    pub request: OriginRequest,
    /// The fields of the representation that is arriving: its strong validator is sent, its content coding compared.
    pub fields: Vec<u8>,
    /// The member of the group that answered.
    pub origin: usize,
    /// Where in the representation the next byte stands.
    pub at: u64,
    /// Where what was asked for ends, if not with the representation; not behind that.
    pub end: Option<u64>,
    /// How long the representation is, if that is known.
    pub total: Option<u64>,
    /// The label index of the site in the metrics.
    pub site: usize,
    pub metrics: Arc<Metrics>,
}

/// A body that asks for its rest when it breaks off.
pub struct Resuming {
    state: State,
    rest: Rest,
    /// Where the bytes of the answer that is being read end, if it said so.
    answer_end: Option<u64>,
    /// How often the rest was asked for since `counted_from`.
    resumes: u32,
    counted_from: u64,
    /// When the whole response is due, further requests included.
    due: Option<Instant>,
}

enum State {
    Reading(Box<dyn OriginBody>),
    /// It broke off, and the rest has to be asked for.
    Broken(Failure),
    Ended(Result<(), Failure>),
}

impl Resuming {
    /// Has `body` go on should it break off. As it is, if nothing says which representation it is of: there is no strong
    /// validator; or if there is nothing to read, as for HEAD.
    pub fn over(body: Box<dyn OriginBody>, mut rest: Rest) -> Box<dyn OriginBody> {
        if rest.request.method != "GET" || strong_validator(Fields::new(&rest.fields)).is_none() {
            return body;
        }
        rest.request.fields = without_selecting(&rest.request.fields);
        let (due, counted_from) = (body.due(), rest.at);
        Box::new(Self { state: State::Reading(body), rest, answer_end: None, resumes: 0, counted_from, due })
    }

    /// The rest of a body that has broken off by now. None where it cannot be asked for: see [`Self::over`], and what failed may
    /// be nothing that another attempt mends. `due`: when the whole response is.
    pub fn broken(failure: Failure, due: Option<Instant>, mut rest: Rest) -> Option<Box<dyn OriginBody>> {
        let is_known_again = strong_validator(Fields::new(&rest.fields)).is_some();
        if rest.request.method != "GET" || !is_known_again || !may_be_mended(failure) {
            return None;
        }
        rest.request.fields = without_selecting(&rest.request.fields);
        let (counted_from, state) = (rest.at, State::Ended(Err(failure)));
        let mut resuming = Self { state, rest, answer_end: None, resumes: 0, counted_from, due };
        resuming.state = resuming.after(failure);
        Some(Box::new(resuming))
    }

    /// What to do after a failure: nothing is missing, the rest can be asked for, or it is over.
    fn after(&self, failure: Failure) -> State {
        let is_overdue = || self.due.is_some_and(|due| clock::monotonic() >= due);
        match may_be_mended(failure) {
            true if self.rest.goal() == Some(self.rest.at) => State::Ended(Ok(())),
            true if !is_overdue() => State::Broken(failure),
            _ => State::Ended(Err(failure)),
        }
    }

    /// Counts a piece; an error if it does not belong there.
    fn take(&mut self, piece: &Bytes) -> Result<(), Failure> {
        let at = self.rest.at.checked_add(piece.len() as u64).ok_or(Failure::Malformed)?;
        if [self.rest.goal(), self.answer_end].into_iter().flatten().any(|end| at > end) {
            return Err(Failure::Malformed);
        }
        self.rest.at = at;
        if at - self.counted_from >= CHUNK_BYTES as u64 {
            (self.counted_from, self.resumes) = (at, 0);
        }
        Ok(())
    }

    /// The origin says that this is the end: of everything only if nothing is known to be missing.
    fn at_the_end(&self) -> State {
        match self.rest.goal() {
            Some(goal) if self.rest.at < goal => self.after(Failure::Closed),
            _ => State::Ended(Ok(())),
        }
    }

    /// Asks for the rest once.
    async fn ask(&mut self, failure: Failure) -> State {
        if self.resumes >= RESUMES_MAX {
            return State::Ended(Err(failure));
        }
        // Counted before anything waits: who drops this halfway has asked all the same.
        self.resumes += 1;
        let Some(request) = self.rest.request() else { return State::Ended(Err(failure)) };
        match within(self.due, self.rest.upstream.open(&request, &|_, _| {})).await {
            Some(Ok(response)) => {
                let Some(part) = self.rest.accept(&response) else { return State::Ended(Err(failure)) };
                self.rest.metrics.fill_resumed(self.rest.site);
                self.answer_end = Some(part.range().end);
                self.rest.origin = response.origin;
                self.rest.total = self.rest.total.or(part.total);
                State::Reading(response.body)
            }
            Some(Err(again)) if may_be_mended(again) => State::Broken(failure),
            Some(Err(_)) | None => State::Ended(Err(failure)),
        }
    }
}

#[async_trait]
impl OriginBody for Resuming {
    /// Dropped halfway and called again, it goes on: a request for the rest is made anew.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            self.state = match &mut self.state {
                State::Ended(result) => return result.map(|()| None),
                State::Broken(failure) => {
                    let failure = *failure;
                    self.ask(failure).await
                }
                State::Reading(body) => match within(self.due, body.next()).await {
                    Some(Ok(Some(piece))) if piece.is_empty() => continue,
                    Some(Ok(Some(piece))) => match self.take(&piece) {
                        Ok(()) => return Ok(Some(piece)),
                        Err(failure) => State::Ended(Err(failure)),
                    },
                    Some(Ok(None)) => self.at_the_end(),
                    Some(Err(failure)) => self.after(failure),
                    None => self.after(Failure::BetweenBytesTimeout),
                },
            };
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Rest {
    /// Where it is over, if that is known.
    fn goal(&self) -> Option<u64> {
        match (self.end, self.total) {
            (Some(end), Some(total)) => Some(end.min(total)),
            (end, total) => end.or(total),
        }
    }

    /// The request for the rest.
    fn request(&self) -> Option<OriginRequest> {
        let mut request = OriginRequest { avoid: Some(self.origin), ..self.request.clone() };
        let range = match self.end {
            // Not empty: what has arrived completely is not asked for.
            Some(end) => format!("bytes={}-{}", self.at, end.checked_sub(1)?),
            None => format!("bytes={}-", self.at),
        };
        let validator = strong_validator(Fields::new(&self.fields))?;
        for (name, value) in [(&b"range"[..], range.as_bytes()), (b"if-range", validator)] {
            Line { name, value }.write(&mut request.fields);
        }
        Some(request)
    }

    /// The part an answer carries, if it is what was asked for (RFC 9110 sections 14.4 and 15.3.7.3): it begins with the
    /// byte that is missing, does not go beyond what was asked for, and is of the same representation.
    fn accept(&self, response: &OriginResponse) -> Option<ContentRange> {
        let (ours, theirs) = (Fields::new(&self.fields), Fields::new(&response.fields));
        let part = content_range(theirs).filter(|_| response.status == 206)?;
        let is_the_rest = part.first == self.at
            && response.length.is_none_or(|length| length == part.len())
            && self.goal().is_none_or(|goal| part.range().end <= goal);
        let is_the_same =
            same_strongly(ours, theirs) && self.total.zip(part.total).is_none_or(|(ours, theirs)| ours == theirs);
        // Where nobody knows the end, this may be some of the rest, and would look like all of it.
        let has_an_end = self.end.or(self.total).or(part.total).is_some();
        (is_the_rest && is_the_same && has_an_end).then_some(part)
    }
}

/// Whether another attempt may bring what this one did not. An origin that took its time has used up the client's, too.
fn may_be_mended(failure: Failure) -> bool {
    matches!(failure, Failure::Closed | Failure::BetweenBytesTimeout | Failure::Unreachable)
}

fn without_selecting(fields: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(fields.len() + 128);
    let lines = Fields::new(fields).lines().filter(|line| !SELECTING.iter().any(|name| line.is(name)));
    lines.for_each(|line| line.write(&mut kept));
    kept
}

#[cfg(test)]
mod tests;
