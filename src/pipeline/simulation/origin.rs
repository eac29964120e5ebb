//! The origin of a simulated run, and what its bodies say of themselves.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Shared, pause};
use crate::origin::{Failure, Interims, OriginBody, OriginRequest, OriginResponse, Upstream};
use crate::semantics::fields::Fields;

/// Enough for six pieces to fill chunks and to outrun `READ_AHEAD_MAX`.
const LARGE_PAD: usize = 300_000;

/// What every piece of a body says of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    url: usize,
    version: u64,
    /// `*`: for every language.
    language: String,
    /// The one client it is for, or `*`.
    only: String,
    pieces: usize,
    pad: usize,
}

impl Mark {
    fn piece(&self, at: usize) -> Vec<u8> {
        let Self { url, version, language, only, pieces, pad } = self;
        let mut piece = format!("{url} {version} {language} {only} {pieces} {pad} {at};").into_bytes();
        piece.resize(piece.len() + pad, b'.');
        piece
    }

    /// Reads the first piece and wants the rest to be exactly what that announces.
    fn of(body: &[u8]) -> Result<Self, String> {
        let start = body.split(|byte| *byte == b';').next().unwrap_or_default();
        let words = String::from_utf8_lossy(start).into_owned();
        let words: Vec<&str> = words.split(' ').collect();
        let [url, version, language, only, pieces, pad, "0"] = words[..] else {
            return Err(format!("no beginning of a body: {words:?}"));
        };
        let number = |word: &str| word.parse::<usize>().map_err(|error| format!("{word}: {error}"));
        let (url, version, pieces, pad) = (number(url)?, number(version)? as u64, number(pieces)?, number(pad)?);
        let mark = Self { url, version, language: language.into(), only: only.into(), pieces, pad };
        let whole: Vec<Vec<u8>> = (0..pieces).map(|at| mark.piece(at)).collect();
        let short = format!("{} bytes that are not all of {mark:?}", body.len());
        if whole.concat() == body { Ok(mark) } else { Err(short) }
    }

    /// Judges a whole body that `client` got, or that is stored for everybody.
    pub(super) fn check(body: &[u8], url: usize, language: &str, client: &str, promised: u64) -> Result<(), String> {
        let mark = Self::of(body)?;
        let rules = [
            (mark.url == url, "another URL"),
            (["*", language].contains(&&*mark.language), "another variant"),
            (["*", client].contains(&&*mark.only), "somebody else's"),
            (mark.version >= promised, "older than an acknowledged invalidation"),
        ];
        let broken = rules.iter().find(|(kept, _)| !kept);
        broken.map_or(Ok(()), |(_, rule)| Err(format!("{rule}: {mark:?}, promised {promised}")))
    }
}

pub(super) struct SimulatedOrigin(pub(super) Shared);

struct SimulatedBody {
    world: Shared,
    pieces: VecDeque<Vec<u8>>,
    fails: bool,
    at_once: bool,
}

#[async_trait]
impl Upstream for SimulatedOrigin {
    async fn open(&self, request: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        pause(&self.0).await;
        let answer = self.answer(request);
        pause(&self.0).await;
        answer
    }
}

#[async_trait]
impl OriginBody for SimulatedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.at_once {
            pause(&self.world).await;
        }
        let piece = self.pieces.pop_front().map(Bytes::from);
        if piece.is_none() && self.fails { Err(Failure::Closed) } else { Ok(piece) }
    }
}

impl SimulatedOrigin {
    /// Fixes the version, and everything else about the answer.
    fn answer(&self, request: &OriginRequest) -> Result<OriginResponse, Failure> {
        let mut world = self.0.lock();
        let asked = Fields::new(&request.fields);
        let text = |name| String::from_utf8_lossy(asked.first(name).unwrap_or(b"*")).into_owned();
        let url = usize::from(request.target[1] - b'0');
        let (version, is_lasting) = (world.versions[url], world.is_lasting);
        let rng = &mut world.rng;
        if rng.one_in(12) {
            return Err(Failure::Unreachable);
        }
        let no_store = rng.one_in(if is_lasting { 12 } else { 3 });
        let public = rng.one_in(2);
        let varies = rng.one_in(6);
        let language = if varies { text("accept-language") } else { "*".into() };
        // A careless origin: eight versions share a validator. Only an invalidation tells them apart.
        let tag = |language: &str| format!("\"{}-{language}\"", version / 8);
        let held = text("if-none-match");
        let unchanged = (held == tag("*") || held == tag(&text("accept-language"))) && !rng.one_in(8);
        let etag = if unchanged { held } else { tag(&language) };
        let mut fields = format!("etag: {etag}\r\nsurrogate-key: all u{url}\r\ncache-control: ");
        fields += match (no_store, rng.below(if is_lasting { 2 } else { 4 })) {
            (true, _) => "no-store",
            (false, 0) => "max-age=50, stale-while-revalidate=600",
            (false, 1) => "max-age=6000",
            (false, _) => "max-age=50, stale-if-error=600",
        };
        fields += if public { ", public\r\n" } else { "\r\n" };
        // With this some are stale from the first moment on.
        fields += if rng.below(4) > if is_lasting { 2 } else { 0 } { "age: 100\r\n" } else { "" };
        fields += if varies && !unchanged { "vary: accept-language\r\n" } else { "" };
        let only = if no_store || (asked.contains("authorization") && !public) { text("x-client") } else { "*".into() };
        let pieces = if unchanged { 0 } else { 1 + rng.below(6) };
        let mark = Mark { url, version, language, only, pieces, pad: if rng.one_in(40) { LARGE_PAD } else { 0 } };
        let mut pieces: VecDeque<_> = (0..pieces).map(|at| mark.piece(at)).collect();
        let length = rng.one_in(2).then(|| pieces.iter().map(|piece| piece.len() as u64).sum());
        let fails = !unchanged && rng.one_in(5);
        if fails {
            pieces.truncate(rng.below(pieces.len()));
        }
        let at_once = rng.one_in(4);
        let status = if unchanged { 304 } else { 200 };
        let body = Box::new(SimulatedBody { world: self.0.clone(), pieces, fails, at_once });
        Ok(OriginResponse { status, fields: fields.into(), length, body, retries: 0, origin: 0, judged: None })
    }
}
