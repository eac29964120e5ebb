//! The origin of a simulated run: what it answers, and how it fails to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::truth::{CHUNK, bytes_of, date_of, length_of, tag_of};
use super::{Mood, Scene};
use crate::clock;
use crate::origin::{Failure, Interims, OriginBody, OriginRequest, OriginResponse, Upstream};
use crate::pipeline::simulation::pause;
use crate::semantics::fields::Fields;
use crate::semantics::http_date;

pub(super) struct RangedOrigin(pub(super) Arc<Scene>);

struct RangedBody {
    scene: Arc<Scene>,
    pieces: VecDeque<Bytes>,
    end: Result<(), Failure>,
    at_once: bool,
}

#[async_trait]
impl Upstream for RangedOrigin {
    async fn open(&self, request: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        pause(&self.0.world).await;
        let answer = self.answer(request);
        pause(&self.0.world).await;
        answer
    }
}

#[async_trait]
impl OriginBody for RangedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.at_once {
            pause(&self.scene.world).await;
        }
        match self.pieces.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.end.map(|()| None),
        }
    }
}

/// A request as an origin reads it.
struct Asked<'a> {
    url: usize,
    fields: Fields<'a>,
    is_head: bool,
    /// It is the rest of an answer that broke off.
    is_rest: bool,
    /// What its client said goes with it: its answer is for that client alone.
    is_own: bool,
}

/// What an origin has decided on.
struct Told {
    status: u16,
    fields: String,
    length: Option<u64>,
    /// Of the version it has.
    bytes: Range<u64>,
}

impl RangedOrigin {
    /// Fixes the version, and everything else about the answer.
    fn answer(&self, request: &OriginRequest) -> Result<OriginResponse, Failure> {
        let (scene, wild) = (&self.0, self.0.mood == Mood::Wild);
        let asked = Asked {
            url: usize::from(request.target[1] - b'0'),
            fields: Fields::new(&request.fields),
            is_head: request.method == "HEAD",
            is_rest: request.avoid.is_some(),
            is_own: Fields::new(&request.fields).contains("x-own"),
        };
        if wild && scene.one_in(16) {
            return Err(Failure::Unreachable);
        }
        let version = scene.world.lock().versions[asked.url];
        let told = self.tell(&asked, version);
        let Told { status, mut fields, length, bytes } = told;
        let mut pieces = self.cut(asked.url, version, bytes);
        let mut end = Ok(());
        let breaks = match scene.mood {
            Mood::Wild => scene.one_in(5),
            // What nobody else may have of a part is not asked for again.
            Mood::Calm => !(asked.is_own || fields.contains("no-store")) && scene.one_in(4) && scene.mishap(),
            Mood::Orderly => false,
        };
        if breaks && !pieces.is_empty() {
            let kept = scene.below(pieces.len());
            pieces.truncate(kept);
            end = match scene.below(if wild { 4 } else { 2 }) {
                0 if status == 206 && length.is_none() => Ok(()),
                2 => Err(Failure::BetweenBytesTimeout),
                3 => Err(Failure::Malformed),
                _ => Err(Failure::Closed),
            };
        }
        if status >= 500 {
            pieces = VecDeque::from([Bytes::from_static(b"error")]);
        }
        if scene.varies && status < 300 {
            fields += "vary: accept-language\r\n";
        }
        let body = Box::new(RangedBody { scene: scene.clone(), pieces, end, at_once: scene.one_in(4) });
        Ok(OriginResponse {
            status,
            fields: fields.into(),
            length,
            body,
            retries: 0,
            origin: scene.below(2),
            judged: None,
        })
    }

    fn tell(&self, asked: &Asked<'_>, version: u64) -> Told {
        let (scene, wild) = (&self.0, self.0.mood == Mood::Wild);
        let text = |name| String::from_utf8_lossy(asked.fields.first(name).unwrap_or_default()).into_owned();
        let nothing = |status, fields| Told { status, fields, length: None, bytes: 0..0 };
        if wild && scene.one_in(16) {
            return nothing(503, String::new());
        }
        let (tag, date) = (tag_of(asked.url, version), date_of(version));
        let strong = if scene.dated { &date } else { &tag };
        let named = match (scene.dated, if wild && !asked.is_head { scene.below(12) } else { 2 }) {
            (_, 0) => String::new(),
            (false, 1) => format!("etag: W/{tag}\r\n"),
            (false, _) => format!("etag: {tag}\r\n"),
            (true, _) => format!("last-modified: {date}\r\n"),
        };
        let mut now = Vec::new();
        http_date::write(clock::wall(), &mut now);
        let now = String::from_utf8_lossy(&now);
        let fields = format!("date: {now}\r\nsurrogate-key: all u{}\r\n{}", asked.url, self.lifetime());
        let is_held = match scene.dated {
            true => text("if-modified-since") == date && !asked.fields.contains("if-none-match"),
            false => text("if-none-match").trim_start_matches("W/") == tag,
        };
        if is_held && !(wild && scene.one_in(8)) {
            return nothing(304, fields + &named);
        }
        let fields = fields + &named;
        let length = length_of(asked.url, version);
        let whole = |fields: String| {
            let is_said = asked.is_head || scene.has_twins || !scene.one_in(6);
            Told { status: 200, fields, length: is_said.then_some(length), bytes: 0..length }
        };
        if asked.is_head {
            return Told { bytes: 0..0, ..whole(fields) };
        }
        let Some(wanted) = one_range(&text("range"), length) else { return whole(fields) };
        let is_run = asked.fields.contains("if-range") && !asked.is_own;
        let holds = !asked.fields.contains("if-range") || text("if-range") == *strong;
        if !(holds || wild && scene.one_in(3)) {
            return whole(fields);
        }
        if wild && scene.one_in(8) {
            scene.note_if(is_run, "asked for a part, gave all");
            return whole(fields);
        }
        if wanted.is_empty() {
            return nothing(416, fields + &format!("content-range: bytes */{length}\r\n"));
        }
        if is_run && !asked.is_rest {
            scene.note_if(wanted.end % CHUNK > 0 && wanted.end < length, "gap before what is off the grid");
            let evicted = scene.notes.lock().evicted.iter().any(|(url, of, chunk)| {
                (*url, *of) == (asked.url, version) && wanted.contains(&(u64::from(*chunk) * CHUNK))
            });
            scene.note_if(evicted, "evicted and fetched again");
        }
        scene.note_if(asked.is_rest, "resumed");
        self.tell_part(asked, (fields, length), wanted)
    }

    /// A 206, mostly with what was asked for.
    fn tell_part(&self, asked: &Asked<'_>, (fields, total): (String, u64), wanted: Range<u64>) -> Told {
        let (scene, wild) = (&self.0, self.0.mood == Mood::Wild);
        let mut bytes = wanted;
        let gives_less = match scene.mood {
            Mood::Wild => scene.one_in(5),
            Mood::Calm => !asked.is_own && scene.one_in(5) && scene.mishap(),
            Mood::Orderly => !asked.is_own && scene.one_in(2) && scene.mishap(),
        };
        if gives_less {
            bytes.end = bytes.start + 1 + scene.below((bytes.end - bytes.start) as usize) as u64;
            if scene.mood == Mood::Orderly && scene.one_in(3) {
                // Before anybody asks for the rest.
                scene.change(asked.url);
            }
        }
        let mut of = total.to_string();
        if wild && scene.one_in(8) {
            match scene.below(4) {
                0 => bytes.start = scene.below(bytes.end as usize) as u64,
                1 => bytes.end = total,
                // Whose rest is not said to be of another length could be of the other version.
                2 if !scene.has_twins => of = "*".into(),
                _ => {
                    bytes.start = scene.below(total as usize) as u64;
                    bytes.end = bytes.start + 1 + scene.below((total - bytes.start) as usize) as u64;
                }
            }
        }
        let line = format!("content-range: bytes {}-{}/{of}\r\n", bytes.start, bytes.end - 1);
        let is_said = !scene.one_in(4);
        Told { status: 206, fields: fields + &line, length: is_said.then_some(bytes.end - bytes.start), bytes }
    }

    /// How long an answer may be used.
    fn lifetime(&self) -> String {
        let scene = &self.0;
        let cached = match scene.below(if scene.one_in(10) { 5 } else { 4 }) {
            0 => "max-age=50, stale-while-revalidate=600",
            1 => "max-age=50, stale-if-error=600",
            4 => "no-store",
            _ => "max-age=6000",
        };
        let age = if scene.one_in(5) { "age: 100\r\n" } else { "" };
        let public = if scene.one_in(2) { ", public" } else { "" };
        format!("cache-control: {cached}{public}\r\n{age}")
    }

    /// The pieces some bytes arrive in: few, of any size.
    fn cut(&self, url: usize, version: u64, bytes: Range<u64>) -> VecDeque<Bytes> {
        let length = (bytes.end - bytes.start) as usize;
        let mut cuts: Vec<u64> =
            (0..self.0.below(5)).map(|_| bytes.start + self.0.below(length.max(1)) as u64).collect();
        cuts.extend([bytes.start, bytes.end]);
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2).map(|pair| bytes_of(url, version, pair[0]..pair[1])).collect()
    }
}

/// The one range a request asks for, empty if there is nothing of it; none if there is not exactly one.
fn one_range(value: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = value.strip_prefix("bytes=").filter(|set| !set.contains(','))?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    Some(if range.start < range.end { range } else { 0..0 })
}
