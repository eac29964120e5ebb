//! A body as one client reads it: what is there, and runs for what is not.

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use edge_config::section::limits::{CHUNK_BYTES, RUN_BYTES_FIRST, RUN_BYTES_MAX};
use futures_util::StreamExt;

use super::fetching::Fetching;
use super::run::{Broken, Next, Run, RunReader};
use super::runs::Joined;
use crate::exchange::Exchange;
use crate::origin::{Failure, OriginRequest};
use crate::pipeline::Pipeline;
use crate::pipeline::fetch::through;
use crate::pipeline::request::{Forwarded, Request};
#[cfg(test)]
use crate::pipeline::simulation::{Planted, planted};
use crate::semantics::range::{Wanted, first_wanted};
use crate::store::body::Sparse;
use crate::store::record::StoredResponse;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// How far before a gap its fetch begins, so that the client does not wait for it.
const LOOK_AHEAD: u64 = 4 * CHUNK;
/// How often bytes may be fetched and be gone again before their client has taken one of them.
const ROUNDS_MAX: u32 = 3;

/// The body of a stored response, for one client.
pub struct Source<'a> {
    pipeline: &'a Arc<Pipeline>,
    request: &'a Request<'a>,
    stored: &'a Arc<StoredResponse>,
    body: &'a Sparse,
    /// What is missing can be asked for.
    can_be_completed: bool,
    /// What is fetched next, at most: more and more while a client goes on reading.
    window: u64,
    /// Gaps before this have been seen to.
    ahead: u64,
    /// The run that comes next: who reads it keeps it going, and no faster than is read.
    next: Option<RunReader>,
    /// Why it ended before its time.
    pub broken: Option<Broken>,
}

/// How the first byte that is wanted comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is there.
    There,
    /// It is fetched for this client.
    Fetched,
    /// It is fetched for another one too.
    Joined,
}

impl<'a> Source<'a> {
    pub fn new(
        pipeline: &'a Arc<Pipeline>,
        request: &'a Request<'a>,
        stored: &'a Arc<StoredResponse>,
        body: &'a Sparse,
    ) -> Self {
        // Who says where it ends reads to there; who does not may be looking for something.
        let is_open = !matches!(
            first_wanted(request.fields).filter(|_| request.range),
            Some(Wanted::From { last: Some(_), .. } | Wanted::Suffix { .. })
        );
        Self {
            pipeline,
            request,
            stored,
            body,
            can_be_completed: stored.can_be_completed(),
            window: if is_open { RUN_BYTES_FIRST } else { RUN_BYTES_MAX },
            ahead: 0,
            next: None,
            broken: None,
        }
    }

    /// Sees to it that a range can be sent: what is missing at its beginning, or soon after, is on its way.
    ///
    /// A client that would be reset soon would rather hear of another representation at once.
    ///
    /// # Errors
    /// The client is gone, or (inside) the byte cannot be had.
    pub async fn begin<E: Exchange>(
        &mut self,
        range: &Range<u64>,
        exchange: &mut E,
    ) -> io::Result<Result<Begun, Broken>> {
        for _ in 0..ROUNDS_MAX {
            let near = range.start..range.end.min(range.start.saturating_add(RUN_BYTES_MAX));
            let Some(gap) = self.body.gap_in(near, usize::MAX) else { return Ok(Ok(Begun::There)) };
            let (run, begun) = match self.join(gap, range.end) {
                Joined::There => continue,
                Joined::UnderWay(run) => (run, Begun::Joined),
                Joined::New(_, run) => (run, Begun::Fetched),
            };
            let answered = tokio::select! {
                biased;
                answered = run.begun() => answered,
                () = exchange.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            self.next = Some(run);
            return Ok(answered.map(|()| begun));
        }
        Ok(Err(Broken::Failed(Failure::ReaderTooSlow)))
    }

    /// Sends a range. False: it could not be had to its end, and the answer must not look complete.
    ///
    /// # Errors
    /// The client could not be written to.
    pub async fn send<E: Exchange>(
        &mut self,
        range: Range<u64>,
        bytes: &mut u64,
        exchange: &mut E,
    ) -> io::Result<bool> {
        let (mut at, mut rounds) = (range.start, 0);
        while at < range.end {
            let before = at;
            at = self.send_there(at..range.end, bytes, exchange).await?;
            if at < range.end {
                at = self.send_run(at..range.end, bytes, exchange).await?;
            }
            rounds = if at == before { rounds + 1 } else { 0 };
            if rounds > ROUNDS_MAX {
                self.broken.get_or_insert(Broken::Failed(Failure::ReaderTooSlow));
            }
            #[cfg(test)]
            if self.broken.is_some() && planted(Planted::ShortEndsCleanly) {
                return Ok(true);
            }
            if self.broken.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what is there, up to the first gap; gives where that is.
    async fn send_there<E: Exchange>(
        &mut self,
        range: Range<u64>,
        bytes: &mut u64,
        exchange: &mut E,
    ) -> io::Result<u64> {
        let mut at = range.start;
        let mut pieces = pin!(self.body.pieces(range.clone()));
        while let Some(Some(piece)) = pieces.next().await {
            self.look_ahead(at, range.end);
            exchange.body(&[&piece]).await?;
            at += piece.len() as u64;
            *bytes += piece.len() as u64;
        }
        Ok(at)
    }

    /// Sends what a run brings from `range.start` on; gives how far that was.
    async fn send_run<E: Exchange>(&mut self, range: Range<u64>, bytes: &mut u64, exchange: &mut E) -> io::Result<u64> {
        let mut at = range.start;
        if !self.can_be_completed && self.next.is_none() && !self.is_under_way(at) {
            self.broken = Some(Broken::Changed);
            return Ok(at);
        }
        let mut run = match self.next.take_if(|run| run.range().contains(&at)) {
            Some(run) => run,
            None => match self.join(at, range.end) {
                Joined::There => return Ok(at),
                Joined::UnderWay(run) | Joined::New(_, run) => run,
            },
        };
        while at < range.end {
            match run.next(at) {
                Next::Piece(piece) => {
                    let fits = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(piece.len());
                    exchange.body(&[piece.get(..fits).unwrap_or_default()]).await?;
                    at += fits as u64;
                    *bytes += fits as u64;
                    let left = run.range().end.saturating_sub(at);
                    if left <= (run.range().end - run.range().start) / 2 {
                        self.look_ahead(at, range.end);
                    }
                }
                Next::Elsewhere => break,
                Next::NotYet => {
                    exchange.flush().await?;
                    tokio::select! {
                        biased;
                        () = run.ready() => {}
                        () = exchange.gone() => return Err(io::ErrorKind::ConnectionAborted.into()),
                    }
                }
                Next::Broken(broken) => {
                    self.broken = Some(broken);
                    break;
                }
            }
        }
        Ok(at)
    }

    fn is_under_way(&self, at: u64) -> bool {
        self.pipeline.runs.is_under_way(self.body, at)
    }

    /// Begins to fetch the next gap before its client comes to it.
    fn look_ahead(&mut self, at: u64, end: u64) {
        let from = at.max(self.ahead);
        let to = end.min(at + LOOK_AHEAD.max(self.window / 2));
        if !self.can_be_completed || from >= to {
            return;
        }
        let chunks = usize::try_from((to - from) / CHUNK + 2).unwrap_or(usize::MAX);
        match self.body.gap_in(from..to, chunks) {
            Some(gap) => {
                self.ahead = gap;
                if let Joined::UnderWay(run) | Joined::New(_, run) = self.join(gap, end) {
                    self.ahead = run.range().end;
                    self.next = Some(run);
                }
            }
            None => self.ahead = to,
        }
    }

    /// The run that brings the byte at `at`, begun if there is none.
    fn join(&mut self, at: u64, end: u64) -> Joined {
        let from = self.body.gap_from(at);
        let to = from.saturating_add(self.window).min(end).next_multiple_of(CHUNK).min(self.stored.body_len());
        let joined = self.pipeline.runs.join_or_start(self.body, at, from..to);
        if let Joined::New(run, _) = &joined {
            self.window = (self.window * 2).min(RUN_BYTES_MAX);
            self.fetch(run.clone());
        }
        joined
    }

    fn fetch(&self, run: Arc<Run>) {
        let request = self.request;
        let mut fields = Vec::with_capacity(request.fields.as_bytes().len() + 256);
        (request.forward)(Forwarded::Shared, &mut fields);
        let fetching = Fetching {
            site: request.site.clone(),
            group: request.group,
            request: OriginRequest {
                method: "GET",
                target: request.asked.to_vec(),
                host: request.host.to_vec(),
                fields,
                client: request.client,
                avoid: None,
                session: request.session.for_all(),
                through: Some(through(
                    request,
                    self.pipeline.store.ledger.applied().log,
                    Some(self.stored.fill_pos().log),
                )),
            },
            stored: self.stored.clone(),
            body: self.body.clone(),
            run,
        };
        (self.pipeline.spawn)(Box::pin(fetching.run(self.pipeline.clone(), None)));
    }
}
