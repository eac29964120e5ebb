//! Many clients that ask for parts, and what became of all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{CHUNK, Got, Ranged, Wanted};
use crate::client::{Client, Socket, address_of};
use crate::deadline::until;
use crate::random::Random;

/// How long each read may take when hundreds of clients want something at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A right answer, and when it was there.
#[derive(Clone, Debug)]
pub struct Answer {
    pub of: Ranged,
    pub version: u64,
    pub part: Range<u64>,
    pub is_hit: bool,
    pub began: Instant,
    pub ended: Instant,
}

impl Answer {
    /// The chunks that it has something of.
    pub fn chunks(&self) -> Range<u64> {
        self.part.start / CHUNK..self.part.end.div_ceil(CHUNK)
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answers: Vec<Answer>,
    /// Broke off, and said so; what came was right.
    pub resets: u64,
    /// No answer, because the node was gone.
    pub unanswered: u64,
    /// The whole instead of a part.
    pub wholes: u64,
    pub wrong: Vec<String>,
}

impl Tally {
    pub fn count(&self) -> usize {
        self.answers.len() + self.wrong.len() + (self.resets + self.unanswered) as usize
    }

    pub fn bytes(&self) -> u64 {
        self.answers.iter().map(|answer| answer.part.end - answer.part.start).sum()
    }

    pub fn hits(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_hit).count()
    }

    /// How many answers were of each version.
    pub fn versions(&self) -> BTreeMap<u64, usize> {
        let mut versions = BTreeMap::new();
        self.answers.iter().for_each(|answer| *versions.entry(answer.version).or_default() += 1);
        versions
    }

    /// Answers of versions that were out of date when they were asked for, if each of `known` was to be known from that
    /// moment on.
    pub fn outdated(&self, known: &[(Instant, u64)]) -> usize {
        let is_outdated =
            |answer: &&Answer| known.iter().any(|(since, version)| answer.began > *since && answer.version < *version);
        self.answers.iter().filter(is_outdated).count()
    }

    /// The chunks that answers touched, each once, by the target of the object.
    pub fn chunks(&self, counts: impl Fn(&Answer) -> bool) -> BTreeMap<(String, u64), Ranged> {
        let answers = self.answers.iter().filter(|answer| counts(answer));
        answers
            .flat_map(|answer| answer.chunks().map(|chunk| ((answer.of.target(), chunk), answer.of.clone())))
            .collect()
    }

    fn note(&mut self, of: &Ranged, began: Instant, outcome: Result<Got, String>) {
        match outcome {
            Ok(got) if got.is_whole() => {
                self.wholes += u64::from(got.status == 200);
                let is_hit = got.is_hit();
                let (version, part, ended) = (got.version, got.part, Instant::now());
                self.answers.push(Answer { of: of.clone(), version, part, is_hit, began, ended });
            }
            Ok(_) => self.resets += 1,
            Err(wrong) => self.wrong.push(wrong),
        }
    }
}

/// Clients at work, each with a connection of its own that is made again when it breaks.
#[derive(Debug)]
pub struct Load {
    tasks: JoinSet<()>,
    tally: Arc<Mutex<Tally>>,
}

impl Load {
    /// So many clients that make so many requests each, as `choose` has them.
    pub fn start(
        node: SocketAddr,
        clients: usize,
        requests_each: usize,
        random: &mut Random,
        choose: impl Fn(&mut Random) -> (Ranged, Wanted) + Clone + Send + 'static,
    ) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (tally, choose, mut random) = (Arc::clone(&tally), choose.clone(), Random::seeded(random.number()));
            let socket = Socket { from: Some(address_of(number)), ..Socket::default() };
            tasks.spawn(async move {
                let mut client = None;
                for _ in 0..requests_each {
                    let connected = match client.take() {
                        Some(client) => Ok(client),
                        None => Client::connect_with(node, socket).await.map(|client| client.patient(PATIENCE)),
                    };
                    let Ok(mut connected) = connected else {
                        // The node is gone, and this client with it.
                        locked(&tally).unanswered += 1;
                        return;
                    };
                    let (object, wanted) = choose(&mut random);
                    let began = Instant::now();
                    let outcome = match object.begin_or_lose(&mut connected, &wanted).await {
                        Some(Ok(reading)) => reading.rest(&mut connected).await,
                        Some(Err(wrong)) => Err(wrong),
                        None => {
                            locked(&tally).unanswered += 1;
                            continue;
                        }
                    };
                    if outcome.as_ref().is_ok_and(Got::is_whole) {
                        client = Some(connected);
                    }
                    locked(&tally).note(&object, began, outcome);
                }
            });
        }
        Self { tasks, tally }
    }

    pub fn count(&self) -> usize {
        locked(&self.tally).count()
    }

    /// Waits until so many requests have come to an end.
    pub async fn reached(&self, count: usize, limit: Duration) {
        until(limit, &format!("{count} requests"), || async {
            let now = self.count();
            if now >= count { Ok(()) } else { Err(format!("{now} so far")) }
        })
        .await;
    }

    /// Waits for the last of them.
    ///
    /// # Panics
    /// When a client does.
    pub async fn finish(mut self) -> Tally {
        while let Some(outcome) = self.tasks.join_next().await {
            outcome.expect("a client does not panic");
        }
        std::mem::take(&mut *locked(&self.tally))
    }
}

impl Ranged {
    /// A part of it at random, for a [`Load`]: as many of a few bytes as of a megabyte.
    pub fn anywhere(&self) -> impl Fn(&mut Random) -> (Self, Wanted) + Clone + Send + use<> {
        let object = self.clone();
        move |random| {
            let most = (1_u64 << random.within(1..22)).min(object.length() / 2);
            let count = random.within(most / 2..most).max(1);
            let first = random.below(object.length() - count);
            (object.clone(), Wanted::part(first, count))
        }
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().expect("nobody panics with the tally in hand")
}
