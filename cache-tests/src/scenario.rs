//! A scenario as data: what the origin answers, what clients ask, what they must get, and when the clock moves.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::answer::Answer;
use crate::client::{Client, HOST};
use crate::deadline::PATIENCE;
use crate::node::Node;
use crate::origin::Origin;
use crate::recorded::Recorded;
use crate::response::Response;
use crate::table::{Table, same, that};

/// One row of a table of semantics.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub section: &'static str,
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub enum Step {
    /// The origin answers in this order for the scenario's path with this suffix; the last answer goes on.
    Serve(&'static str, Vec<Answer>),
    Ask(Ask),
    /// Like `Ask`, again and again until it holds: for work in the background.
    Eventually(Ask),
    Advance(u64),
    /// The origin was asked so many times for the path with this suffix, at least or exactly now.
    Reached(&'static str, usize),
    Saw(&'static str, usize),
    /// The request of this number (from 1) had this in this field; `None` is no such field.
    Sent(usize, &'static str, Option<&'static str>),
}

/// A request and what its response must be.
#[derive(Debug)]
pub struct Ask {
    method: &'static str,
    suffix: &'static str,
    fields: Vec<&'static str>,
    expectations: Vec<Expectation>,
}

#[derive(Debug)]
enum Expectation {
    Status(u16),
    Body(&'static str),
    Hit,
    Forwarded,
    Because(&'static str),
    Detail(&'static str),
    NotFromCache,
    Stale,
    Age(RangeInclusive<u64>),
    Field(&'static str, Option<&'static str>),
}

pub fn row(name: &'static str, section: &'static str, steps: impl Into<Vec<Step>>) -> Scenario {
    Scenario { name, section, steps: steps.into() }
}

pub fn serve(answer: Answer) -> Step {
    Step::Serve("", vec![answer])
}

pub fn serve_in_turn(answers: impl Into<Vec<Answer>>) -> Step {
    Step::Serve("", answers.into())
}

pub fn get() -> Ask {
    method("GET")
}

pub fn method(method: &'static str) -> Ask {
    Ask { method, suffix: "", fields: Vec::new(), expectations: Vec::new() }
}

/// Moves the clock by seconds.
pub fn advance(seconds: u64) -> Step {
    Step::Advance(seconds)
}

/// The origin was asked exactly so many times.
pub fn saw(count: usize) -> Step {
    Step::Saw("", count)
}

/// Waits until the origin was asked so many times.
pub fn reached(count: usize) -> Step {
    Step::Reached("", count)
}

pub fn sent(number: usize, name: &'static str, value: Option<&'static str>) -> Step {
    Step::Sent(number, name, value)
}

pub fn eventually(ask: Ask) -> Step {
    Step::Eventually(ask)
}

impl Ask {
    /// With a field line. A line `Host` in place of the usual one is not for here.
    pub fn with(mut self, line: &'static str) -> Self {
        self.fields.push(line);
        self
    }

    /// For the scenario's path with `suffix`.
    pub fn at(mut self, suffix: &'static str) -> Self {
        self.suffix = suffix;
        self
    }

    pub fn status(self, status: u16) -> Self {
        self.expecting(Expectation::Status(status))
    }

    pub fn body(self, body: &'static str) -> Self {
        self.expecting(Expectation::Body(body))
    }

    /// Answered from the cache alone.
    pub fn hit(self) -> Self {
        self.expecting(Expectation::Hit)
    }

    /// The origin had a part in the answer, and the response says so.
    pub fn forwarded(self) -> Self {
        self.expecting(Expectation::Forwarded)
    }

    /// Forwarded for this reason.
    pub fn because(self, reason: &'static str) -> Self {
        self.expecting(Expectation::Because(reason))
    }

    pub fn detail(self, detail: &'static str) -> Self {
        self.expecting(Expectation::Detail(detail))
    }

    /// A gateway's own error, with its reason, and nothing out of the cache.
    pub fn refused_for_want_of_an_origin(self) -> Self {
        self.expecting(Expectation::NotFromCache)
    }

    /// Served although no longer fresh, and the response says so.
    pub fn stale(self) -> Self {
        self.expecting(Expectation::Stale)
    }

    /// Age is `seconds`, or up to two more: dates have whole seconds and tests take time.
    pub fn age(self, seconds: u64) -> Self {
        self.expecting(Expectation::Age(seconds..=seconds + 2))
    }

    pub fn has(self, name: &'static str, value: &'static str) -> Self {
        self.expecting(Expectation::Field(name, Some(value)))
    }

    pub fn lacks(self, name: &'static str) -> Self {
        self.expecting(Expectation::Field(name, None))
    }

    fn expecting(mut self, expectation: Expectation) -> Self {
        self.expectations.push(expectation);
        self
    }

    async fn check(&self, node: &Node, path: &str) -> Result<(), String> {
        let target = format!("{path}{}", self.suffix);
        let mut client = Client::connect(node.address()).await;
        let length = if matches!(self.method, "GET" | "HEAD") { None } else { Some("Content-Length: 0") };
        let fields: Vec<&str> = self.fields.iter().copied().chain(length).collect();
        client.ask(self.method, &target, &fields).await;
        let response = client.response(self.method).await.map_err(|end| format!("no response: {end:?}"))?;
        let outcome = self.expectations.iter().try_for_each(|expectation| expectation.check(&response));
        outcome.and_then(|()| that(response.end.is_clean(), || format!("the end is {:?}", response.end))).map_err(
            |problem| {
                let cache_status = response.field("cache-status").unwrap_or_default();
                format!(
                    "{problem} (status {}, body {:?}, Cache-Status {cache_status:?})",
                    response.status,
                    response.text()
                )
            },
        )
    }
}

impl From<Ask> for Step {
    fn from(ask: Ask) -> Self {
        Self::Ask(ask)
    }
}

impl Expectation {
    fn check(&self, response: &Response) -> Result<(), String> {
        match self {
            Self::Status(status) => same("the status", response.status, *status),
            Self::Body(body) => same("the body", response.text().as_str(), body),
            Self::Hit => that(response.cache_status()?.hit, || "no hit".to_owned()),
            Self::Forwarded => that(response.cache_status()?.fwd.is_some(), || "not forwarded".to_owned()),
            Self::Because(reason) => same("fwd", response.cache_status()?.fwd.as_deref(), Some(reason)),
            Self::Detail(detail) => same("detail", response.cache_status()?.detail.as_deref(), Some(detail)),
            Self::NotFromCache => {
                let status = response.cache_status()?;
                that(!status.hit && status.detail.is_some(), || "no reason".to_owned())?;
                that(matches!(response.status, 502 | 504), || "neither 502 nor 504".to_owned())
            }
            Self::Stale => {
                let status = response.cache_status()?;
                let stale_hit = status.hit && status.ttl.is_some_and(|ttl| ttl <= 0);
                that(stale_hit || status.fwd.as_deref() == Some("stale"), || "not said to be stale".to_owned())
            }
            Self::Age(ages) => {
                let age = response.field("age").ok_or("no Age")?;
                let in_range = age.parse().is_ok_and(|age| ages.contains(&age));
                that(in_range, || format!("Age is {age}, not in {ages:?}"))
            }
            Self::Field(name, value) => same(name, response.field(name).as_deref(), *value),
        }
    }
}

/// Plays every scenario, one after another, each with a path of its own, and tells all failures at once.
pub async fn play(name: &'static str, node: &Node, origin: &Origin, scenarios: Vec<Scenario>) {
    let mut table = Table::new(name);
    for (number, scenario) in scenarios.iter().enumerate() {
        let path = format!("/scenario-{number}");
        let mut outcome = Ok(());
        for (at, step) in scenario.steps.iter().enumerate() {
            outcome = step.play(node, origin, &path).await.map_err(|problem| format!("step {}: {problem}", at + 1));
            if outcome.is_err() {
                break;
            }
        }
        table.row(&format!("{} (RFC {})", scenario.name, scenario.section), outcome);
    }
    table.finish();
}

impl Step {
    async fn play(&self, node: &Node, origin: &Origin, path: &str) -> Result<(), String> {
        match self {
            Self::Serve(suffix, answers) => {
                let site = format!("http://{HOST}{path}");
                // `{path}` and `{url}` in a field line stand for the scenario's own.
                let answers = answers.iter().map(|answer| answer.located(path, &site)).collect();
                origin.serve_in_turn(&format!("{path}{suffix}"), answers);
            }
            Self::Ask(ask) => ask.check(node, path).await?,
            Self::Eventually(ask) => {
                let attempts = async {
                    while ask.check(node, path).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                };
                if tokio::time::timeout(PATIENCE, attempts).await.is_err() {
                    ask.check(node, path).await.map_err(|problem| format!("not even after {PATIENCE:?}: {problem}"))?;
                }
            }
            Self::Advance(seconds) => {
                let by = Duration::from_secs(*seconds);
                node.advance_clock(by).await;
                origin.advance(by);
            }
            Self::Reached(suffix, count) => origin.arrived(&format!("{path}{suffix}"), *count).await,
            Self::Saw(suffix, count) => {
                same("the number of requests at the origin", origin.count(&format!("{path}{suffix}")), *count)?;
            }
            Self::Sent(number, name, value) => {
                let requests = origin.requests_for(path);
                let request: &Recorded = requests.get(number - 1).ok_or("no such request at the origin")?;
                same(&format!("{name} of request {number}"), request.field(name).as_deref(), *value)?;
            }
        }
        Ok(())
    }
}
