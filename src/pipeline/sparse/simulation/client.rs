//! A client of a simulated run: what it asks for, and what it gets.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;

use super::judge::{Got, Seen};
use super::truth::{CHUNK, date_of, length_of, tag_of};
use super::{Mood, Scene};
use crate::clock;
use crate::exchange::{BodyLength, Exchange, StoredPart};
use crate::pipeline::Pipeline;
use crate::pipeline::decide::Decision;
use crate::pipeline::request::{Forwarded, Method, Request};
use crate::pipeline::simulation::schedule::give_way;
use crate::pipeline::simulation::{URLS, pause, url_key};
use crate::routing::{GroupIndex, Site};
use crate::semantics::directives::RequestDirectives;
use crate::semantics::fields::Fields;
use crate::store::record::StoredResponse;

/// Requests of one client, one after the other.
const REQUESTS: usize = 2;

/// What is asked for.
pub(super) struct Ask {
    pub(super) url: usize,
    pub(super) is_head: bool,
    /// What `Range` says, in its order; none of it: no such field.
    pub(super) wanted: Vec<Spec>,
    /// The field lines, those of this client alone included.
    pub(super) fields: String,
    /// The lines that go with a fetch for everybody.
    shared: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Spec {
    From(u64, Option<u64>),
    Suffix(u64),
}

impl Ask {
    fn draw(scene: &Scene) -> Self {
        let url = scene.below(URLS);
        let version = scene.world.lock().versions[url];
        let spec = |which: usize| match which {
            0..6 => {
                let (first, length) = (scene.place(url, version), [1, 1_000, CHUNK, 300_000, 700_000][scene.below(5)]);
                Spec::From(first, Some(first + length - 1))
            }
            6 | 7 => Spec::From(scene.place(url, version), None),
            _ => Spec::Suffix([0, 1, 50_000, CHUNK, 400_000, 9_000_000][scene.below(6)]),
        };
        let (is_head, wanted) = match scene.below(14) {
            13 => (true, vec![]),
            12 => (false, vec![]),
            11 => (false, (0..2 + scene.below(2)).map(|_| spec(scene.below(9))).collect()),
            which => (false, vec![spec(which)]),
        };
        let mut shared = format!("accept-language: {}\r\n", ["en", "de"][scene.below(2)]);
        shared += if scene.one_in(16) { "authorization: Basic eDp5\r\n" } else { "" };
        shared += match scene.below(24) {
            0 | 1 => "cache-control: no-cache\r\n",
            2 => "cache-control: no-store\r\n",
            3 | 4 => "cache-control: only-if-cached\r\n",
            5 => "cache-control: max-stale\r\n",
            _ => "",
        };
        let mut own = String::new();
        if !wanted.is_empty() {
            let specs: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            own += &format!("range: bytes={}\r\n", specs.join(","));
        }
        let strong = |version: u64| if scene.dated { date_of(version) } else { tag_of(url, version) };
        if !wanted.is_empty() && scene.one_in(4) {
            let validator = match scene.below(6) {
                0 => "\"wrong\"".to_owned(),
                1 => format!("W/{}", tag_of(url, version)),
                2 => strong(version - 2),
                _ => strong(version),
            };
            own += &format!("if-range: {validator}\r\n");
        }
        if scene.one_in(16) {
            own += &format!("if-none-match: {}\r\n", tag_of(url, version));
        }
        let fields = shared.clone() + &own;
        Self { url, is_head, wanted, fields, shared }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        Fields::new(self.fields.as_bytes()).contains(name)
    }

    pub(super) fn says(&self, directive: &str) -> bool {
        self.fields.contains(directive)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first, Some(last)) => write!(out, "{first}-{last}"),
            Self::From(first, None) => write!(out, "{first}-"),
            Self::Suffix(length) => write!(out, "-{length}"),
        }
    }
}

impl Scene {
    /// Where somebody may begin to read.
    fn place(&self, url: usize, version: u64) -> u64 {
        let length = length_of(url, version);
        match self.below(8) {
            0..3 => self.below((length / CHUNK) as usize + 1) as u64 * CHUNK,
            3 => (self.below((length / CHUNK) as usize) as u64 + 1) * CHUNK - 1,
            4 if self.one_in(4) => length + self.below(3) as u64,
            _ => self.below(length as usize) as u64,
        }
    }
}

/// What a client has of its answer.
struct Recorder {
    scene: Arc<Scene>,
    got: Got,
    /// It is gone once it has so much of the body.
    leaves_at: Option<usize>,
}

impl Exchange for Recorder {
    async fn stored(&mut self, response: &Arc<StoredResponse>, part: StoredPart, dynamic: &[u8]) -> io::Result<()> {
        let length = match part {
            StoredPart::Head => BodyLength::None,
            StoredPart::Whole => BodyLength::Known(response.body_len()),
        };
        self.head(response.status(), &[dynamic, response.fields().as_bytes()], length);
        if part == StoredPart::Whole {
            let slices: Vec<&[u8]> = response.slices(0..response.body_len()).collect();
            self.body(&slices).await?;
        }
        self.finish().await
    }

    async fn interim(&mut self, _: u16, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength) {
        (self.got.status, self.got.fields) = (status, fields.concat());
        self.got.length = match length {
            BodyLength::Known(length) => Some(length),
            BodyLength::None | BodyLength::Unknown => None,
        };
    }

    async fn body(&mut self, slices: &[&[u8]]) -> io::Result<()> {
        slices.iter().for_each(|slice| self.got.body.extend_from_slice(slice));
        pause(&self.scene.world).await;
        match self.leaves_at {
            Some(at) if self.got.body.len() >= at => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.body(&[]).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        pause(&self.scene.world).await;
        self.got.clean = true;
        Ok(())
    }

    async fn gone(&mut self) {
        if self.leaves_at.is_none_or(|at| self.got.body.len() < at) {
            pending::<()>().await;
        }
        pause(&self.scene.world).await;
    }
}

/// Some requests, each from its arrival to the judgement of its answer.
pub(super) async fn client(id: usize, pipeline: Arc<Pipeline>, site: Arc<Site>, scene: Arc<Scene>) {
    let starts = scene.below(40 * (id + 1));
    give_way(starts).await;
    for _ in 0..REQUESTS {
        request(&pipeline, &site, &scene).await.unwrap_or_else(|wrong| {
            scene.world.lock().wrong.get_or_insert(format!("client {id}: {wrong}"));
        });
        give_way(scene.below(60)).await;
    }
}

async fn request(pipeline: &Arc<Pipeline>, site: &Arc<Site>, scene: &Arc<Scene>) -> Result<(), String> {
    let ask = Ask::draw(scene);
    let forward = |what, out: &mut Vec<u8>| {
        let own = ask.fields.clone() + "x-own: 1\r\n";
        out.extend_from_slice(if what == Forwarded::Own { &own } else { &ask.shared }.as_bytes());
    };
    let target = format!("/{}", ask.url);
    let asked = Fields::new(ask.fields.as_bytes());
    let request = Request {
        client: None,
        disk: true,
        session: crate::origin::session::Session::default(),
        rounds: 0,
        in_full: false,
        by_node: None,
        told: b"",
        matched: None,
        site,
        method: if ask.is_head { Method::Head } else { Method::Get },
        scheme: "http",
        target: target.as_bytes(),
        asked: target.as_bytes(),
        group: GroupIndex::OWN,
        host: b"simulated",
        fields: asked,
        key: url_key(ask.url),
        directives: RequestDirectives::parse(asked),
        conditional: ask.has("if-none-match"),
        range: ask.has("range") || ask.has("if-range"),
        authorization: ask.has("authorization"),
        now: clock::wall(),
        forward: &forward,
    };
    let leaves_at = (scene.mood == Mood::Wild && scene.one_in(12)).then(|| scene.below(2 * CHUNK as usize));
    let mut recorder = Recorder { scene: scene.clone(), got: Got::default(), leaves_at };
    let promised = {
        let world = scene.world.lock();
        (world.promised[ask.url], world.softly[ask.url])
    };
    let decision = pipeline.decide(&request);
    let seen = Seen::of(&decision);
    if let Some(body) = decided_on(&decision).and_then(|stored| Some((stored.sparse()?, stored))) {
        scene.notes.lock().known.push((ask.url, body.0.clone(), body.1.clone()));
    }
    // On a node with many threads anything may happen here.
    pause(&scene.world).await;
    let answered = pipeline.answer(&request, decision, &mut recorder).await;
    let got = recorder.got;
    let wrong = |wrong: String| {
        let Ask { url, fields, .. } = &ask;
        let head = String::from_utf8_lossy(&got.fields);
        format!("/{url} {fields:?}: {wrong}: {} {head:?} {answered:?}, decided {seen:?}", got.status)
    };
    match &answered {
        Err(_) if leaves_at.is_some() => return got.judge(scene, &ask, promised, None).map_err(wrong),
        Err(error) => return Err(wrong(format!("nothing was wrong with the client: {error}"))),
        Ok(outcome) if outcome.complete != got.clean => return Err(wrong(format!("ended cleanly: {}", got.clean))),
        Ok(outcome) => got.judge(scene, &ask, promised, Some(outcome)).map_err(wrong)?,
    }
    if let Ok(outcome) = &answered {
        seen.note(scene, &ask, &got, outcome);
    }
    Ok(())
}

/// The stored response a decision is about.
fn decided_on(decision: &Decision) -> Option<&Arc<StoredResponse>> {
    match decision {
        Decision::Hit { stored, .. } | Decision::HitThenRefresh { stored, .. } | Decision::Complete { stored, .. } => {
            Some(stored)
        }
        Decision::Fetch(plan) => plan.stale.as_ref(),
        Decision::Read(_) | Decision::NothingStored | Decision::Isolated => None,
    }
}
