//! A node that is upgraded: the processes that follow one another, and clients that would notice.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::client::Client;
use crate::h2::polite::Polite;
use crate::node::Node;
use crate::response::{End, Response};

/// A node, and every process that it has been. Dropping it ends them all.
#[derive(Debug)]
pub struct Succession {
    pub node: Node,
    later: Processes,
}

impl Succession {
    pub fn of(node: Node) -> Self {
        Self { node, later: Processes::default() }
    }

    /// Has the next process take over: its id.
    ///
    /// # Errors
    /// The status and what was said instead.
    pub async fn upgrade(&self) -> Result<u32, (u16, String)> {
        let response = self.node.admin_json("POST", "/v1/upgrade", &Value::Null, None).await;
        if response.status != 200 {
            return Err((response.status, response.text()));
        }
        let id = response.json()["pid"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id");
        self.later.add(id);
        Ok(id)
    }

    /// The process that serves.
    pub async fn serving(&self) -> u32 {
        let response = self.node.admin_get("/v1/stat").await.unwrap_or_else(|error| panic!("{error}"));
        let id = response.json()["pid"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id");
        if id != self.node.id() {
            self.later.add(id);
        }
        id
    }

    /// Purges a path; asks again where a process that hands over says so.
    ///
    /// # Errors
    /// The answer that is no receipt.
    pub async fn purge(&self, url: &str) -> Result<u32, String> {
        for asked in 1..=200 {
            let body = json!({ "site": "main", "urls": [url] });
            let response = self.node.admin_json("POST", "/v1/purge", &body, None).await;
            match response.status {
                200 => return Ok(asked),
                503 => tokio::time::sleep(Duration::from_millis(5)).await,
                status => return Err(format!("{status}: {}", response.text())),
            }
        }
        Err("the node takes no purge".to_owned())
    }
}

/// Ends a process at once. Of one that the test has started, or that one of its nodes has.
pub fn kill(id: u32) {
    let _ = Command::new("sh").arg("-c").arg(format!("kill -KILL {id}")).status();
}

/// Whether a process is there that runs the program under test.
pub fn is_running(id: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let is_zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    !state.is_empty() && !is_zombie
}

/// Processes that are not children of the test.
#[derive(Debug, Default)]
struct Processes(Mutex<Vec<(u32, PathBuf)>>);

impl Processes {
    fn add(&self, id: u32) {
        let program = std::fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
        let mut known = self.0.lock().expect("nobody panics in here");
        if !known.iter().any(|(other, _)| *other == id) {
            known.push((id, program));
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let Ok(known) = self.0.lock() else { return };
        for (id, program) in known.iter() {
            // Another process may have its number by now.
            let is_it = std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|now| now == *program);
            if is_it && is_running(*id) {
                kill(*id);
            }
        }
    }
}

/// What clients have seen.
#[derive(Debug, Default)]
pub struct Tally {
    pub answers: AtomicU64,
    pub hits: AtomicU64,
    pub connections: AtomicU64,
    /// HTTP/2 requests that were not taken by a connection that had said goodbye: they are sent again (RFC 9113 section 6.8).
    pub again: AtomicU64,
    /// The longest time anybody waited for an answer.
    pub slowest_us: AtomicU64,
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection for every request.
    New,
    NewTls,
    Kept,
    KeptTls,
    Http2,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::New, Self::NewTls, Self::Kept, Self::KeptTls, Self::Http2];
}

/// What a client asks for, and what it minds.
#[derive(Clone, Debug)]
pub struct Visits {
    pub kind: Kind,
    pub every: Duration,
    pub targets: Vec<String>,
    /// So many of them, the first, are purged: none may be older than `floor` was when it was asked for.
    pub purged: usize,
    pub floor: Arc<AtomicU64>,
    pub tally: Arc<Tally>,
    pub stopped: watch::Receiver<bool>,
}

enum Connection {
    Http1(Client),
    Http2(Polite),
}

impl Visits {
    /// Asks until it is told to stop.
    ///
    /// # Errors
    /// The first thing a client would complain of.
    pub async fn run(self, node: Arc<Succession>) -> Result<(), String> {
        let mut beat = interval(self.every);
        let (mut connection, mut number) = (None, 0_usize);
        while !*self.stopped.borrow() {
            beat.tick().await;
            number += 1;
            let index = number % self.targets.len();
            let target = &self.targets[index];
            let (floor, began) = (self.floor.load(Ordering::SeqCst), Instant::now());
            let wrong = |what: String| format!("{:?}, request {number}, {target}: {what}", self.kind);
            let response = self.ask(&node.node, &mut connection, target).await.map_err(wrong)?;
            let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.tally.slowest_us.fetch_max(us, Ordering::Relaxed);
            if response.status != 200 || !response.end.is_clean() {
                return Err(wrong(format!("{} {:?} {}", response.status, response.end, response.text())));
            }
            let version: u64 = response.text().rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            if index < self.purged && version < floor {
                let said = response.head.field("cache-status");
                return Err(wrong(format!("version {version}, and {floor} was the least: {said:?}")));
            }
            self.tally.answers.fetch_add(1, Ordering::Relaxed);
            self.tally.hits.fetch_add(u64::from(response.is_hit()), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ask(&self, node: &Node, kept: &mut Option<Connection>, target: &str) -> Result<Response, String> {
        for _ in 0..4 {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.connect(node).await,
            };
            match &mut connection {
                Connection::Http1(client) => {
                    let close = matches!(self.kind, Kind::New | Kind::NewTls);
                    client.ask("GET", target, if close { &["Connection: close"] } else { &[] }).await;
                    let response = client.response("GET").await.map_err(|end| format!("no answer: {end:?}"))?;
                    let goes_on = response.head.field("connection").is_none_or(|said| said != "close");
                    *kept = (goes_on && !close).then_some(connection);
                    return Ok(response);
                }
                Connection::Http2(client) => match client.begin("GET", target, &[], None).await {
                    Ok(begun) => {
                        let response = begun.whole().await;
                        *kept = Some(connection);
                        return Ok(response);
                    }
                    // What was not taken is sent again; everything else is an error.
                    Err(End::Whole | End::Cut | End::StreamReset(7)) => {
                        self.tally.again.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(end) => return Err(format!("no answer: {end:?}")),
                },
            }
        }
        Err("no connection takes it".to_owned())
    }

    async fn connect(&self, node: &Node) -> Connection {
        self.tally.connections.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            Kind::New | Kind::Kept => Connection::Http1(node.client().await),
            Kind::NewTls | Kind::KeptTls => Connection::Http1(node.tls_client().await),
            Kind::Http2 => Connection::Http2(node.h2().await),
        }
    }
}
