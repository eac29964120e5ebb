//! An origin that does as it is told, and a body whose rest it is asked for.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::super::*;
use super::{ETAG, TEXT};
use crate::origin::Interims;
use crate::origin::session::Session;
use crate::telemetry::metrics::Levels;

/// What an origin does when it is asked.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Says {
        status: u16,
        fields: String,
        pieces: Vec<Vec<u8>>,
        end: Result<(), Failure>,
        length: Option<u64>,
        origin: usize,
    },
    Fails(Failure),
    /// Nothing, the first time it is waited for; whoever waits on finds the next answer.
    Waits,
}

impl Answer {
    /// The part of `TEXT` from `range`, of `total`.
    pub(super) fn part(range: Range<usize>, total: &str) -> Self {
        let of = format!("content-range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
        Self::of(206, &(of + ETAG), &TEXT[range])
    }

    pub(super) fn of(status: u16, fields: &str, bytes: &[u8]) -> Self {
        let pieces = vec![bytes.to_vec()];
        Self::Says { status, fields: fields.to_owned(), pieces, end: Ok(()), length: None, origin: 0 }
    }

    /// The same, broken off after `count` bytes.
    pub(super) fn broken(mut self, count: usize) -> Self {
        if let Self::Says { pieces, end, .. } = &mut self {
            let mut bytes = pieces.concat();
            bytes.truncate(count);
            (*pieces, *end) = (vec![bytes], Err(Failure::Closed));
        }
        self
    }
}

/// Gives one answer after the other, and remembers what it was asked.
#[derive(Default)]
pub(super) struct Script {
    pub(super) answers: Mutex<VecDeque<Answer>>,
    pub(super) asked: Mutex<Vec<OriginRequest>>,
}

pub(super) struct Body {
    pub(super) pieces: VecDeque<Vec<u8>>,
    pub(super) end: Result<(), Failure>,
    pub(super) due: Option<Instant>,
}

#[async_trait]
impl OriginBody for Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.pieces.pop_front() {
            Some(piece) => Ok(Some(piece.into())),
            None => self.end.map(|()| None),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[async_trait]
impl Upstream for Script {
    async fn open(&self, request: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        self.asked.lock().push(request.clone());
        let answer = self.answers.lock().pop_front();
        match answer.ok_or(Failure::Unreachable)? {
            Answer::Says { status, fields, pieces, end, length, origin } => {
                let body = Box::new(Body { pieces: pieces.into(), end, due: None });
                Ok(OriginResponse { status, fields: fields.into(), length, body, retries: 0, origin, judged: None })
            }
            Answer::Fails(failure) => Err(failure),
            Answer::Waits => std::future::pending().await,
        }
    }
}

/// A body, and who is asked for its rest.
pub(super) struct Case {
    pub(super) script: Arc<Script>,
    pub(super) fields: String,
    pub(super) end: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) at: u64,
    pub(super) due: Option<Instant>,
    pub(super) metrics: Arc<Metrics>,
}

impl Case {
    pub(super) fn new(answers: Vec<Answer>) -> Self {
        let script = Arc::new(Script { answers: Mutex::new(answers.into()), asked: Mutex::default() });
        let metrics = Metrics::new("resume");
        metrics.site("s");
        Self { script, fields: ETAG.into(), end: None, total: Some(TEXT.len() as u64), at: 0, due: None, metrics }
    }

    /// The first body: some pieces and how it ends.
    pub(super) fn over(&self, pieces: Vec<Vec<u8>>, end: Result<(), Failure>) -> Box<dyn OriginBody> {
        let fields = "accept: */*\r\nRange: bytes=0-1\r\nif-none-match: \"x\"\r\n".into();
        let request = OriginRequest {
            method: "GET",
            target: "/".into(),
            host: "h".into(),
            fields,
            client: None,
            avoid: None,
            session: Session::default(),
            through: None,
        };
        let rest = Rest {
            upstream: self.script.clone(),
            request,
            fields: self.fields.clone().into(),
            origin: 7,
            at: self.at,
            end: self.end,
            total: self.total,
            site: 0,
            metrics: self.metrics.clone(),
        };
        Resuming::over(Box::new(Body { pieces: pieces.into(), end, due: self.due }), rest)
    }

    pub(super) fn read(&self, pieces: Vec<Vec<u8>>, end: Result<(), Failure>) -> (Vec<u8>, Result<(), Failure>) {
        read(self.over(pieces, end).as_mut())
    }

    /// Reads `TEXT` up to `cut`, where it is closed, and what comes then.
    pub(super) fn broken_at(&self, cut: usize) -> (Vec<u8>, Result<(), Failure>) {
        self.read(vec![TEXT[self.at as usize..cut].to_vec()], Err(Failure::Closed))
    }

    /// The ranges that were asked for, and whom to avoid.
    pub(super) fn asked(&self) -> Vec<(String, Option<usize>)> {
        let asked = self.script.asked.lock();
        let range = |request: &OriginRequest| {
            let fields = Fields::new(&request.fields);
            assert_eq!(fields.only("if-range"), strong_validator(Fields::new(self.fields.as_bytes())));
            assert_eq!(fields.lines().count(), 3, "{fields:?}");
            String::from_utf8_lossy(fields.only("range").expect("one range")).into_owned()
        };
        asked.iter().map(|request| (range(request), request.avoid)).collect()
    }

    pub(super) fn resumed(&self) -> bool {
        self.metrics.encode(&Levels::default()).contains("littoral_fills_resumed_total{site=\"s\"}")
    }
}

/// Everything a body gives, and how it ends; it ends the same way when it is asked again.
pub(super) fn read(body: &mut dyn OriginBody) -> (Vec<u8>, Result<(), Failure>) {
    let mut bytes = Vec::new();
    loop {
        let end = match at_once(body.next()).expect("nothing waits") {
            Ok(Some(piece)) => {
                bytes.extend_from_slice(&piece);
                continue;
            }
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        assert_eq!(at_once(body.next()).expect("nothing waits").map(|piece| assert_eq!(piece, None)), end);
        return (bytes, end);
    }
}

pub(super) fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
