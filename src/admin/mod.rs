//! The operator's side, on an address of its own.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 when clients can be served; 503 while starting and while draining |
//! | `GET /currentz` | 200 when every purge there is has been applied |
//! | `GET /metrics` | Prometheus text format |
//! | `GET /v1/stat` | JSON: what the node does now, in short |
//! | `POST /v1/config/reload` | reads the configuration again: 200 with its version, or 422 with every error |
//! | `POST /v1/drain` | 202; the node says that it is not ready, finishes what it does, and ends |
//! | `POST /test/clock?advance_ms=N` | moves the wall clock; only with `--unsafe-test-clock` |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::clock;
use crate::pipeline::Pipeline;
use crate::telemetry::metrics::Levels;

/// How long the node gives its own front to accept a connection before it says it is not ready.
const FRONT_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

const PATHS: [&str; 8] =
    ["/livez", "/readyz", "/currentz", "/metrics", "/v1/stat", "/v1/config/reload", "/v1/drain", "/test/clock"];

/// What the operator may have the node do.
pub trait Operate: Send + Sync {
    /// Puts the configuration in force anew. Both answers are for a program.
    ///
    /// # Errors
    /// Everything that is wrong with it; the one before it stays.
    fn reload(&self) -> Result<Value, Value>;

    /// Begins to drain.
    fn drain(&self);

    fn is_draining(&self) -> bool;

    /// What the node is and does.
    fn describe(&self) -> Value;

    /// Brings metrics up to date that change by time alone.
    fn tell(&self);
}

/// The admin API.
pub struct Admin {
    pipeline: Arc<Pipeline>,
    node: Arc<dyn Operate>,
    /// Where clients connect: ready means that somebody listens there.
    listen: Vec<SocketAddr>,
    test_clock: bool,
    listening: AtomicBool,
}

impl Admin {
    pub fn new(pipeline: Arc<Pipeline>, node: Arc<dyn Operate>, listen: Vec<SocketAddr>, test_clock: bool) -> Self {
        Self { pipeline, node, listen, test_clock, listening: AtomicBool::new(false) }
    }

    /// Files are read for it: a slow disk must not hold up who asks for something else.
    async fn reload(&self) -> Result<Value, Value> {
        let node = self.node.clone();
        let reloaded = tokio::task::spawn_blocking(move || node.reload()).await;
        reloaded.unwrap_or_else(|error| Err(json!({ "errors": [{ "message": error.to_string() }] })))
    }

    async fn ready(&self) -> Result<(), &'static str> {
        if self.node.is_draining() {
            return Err("draining");
        }
        if self.listening.load(Ordering::Acquire) {
            return Ok(());
        }
        for address in &self.listen {
            let connect = tokio::net::TcpStream::connect(reachable(*address));
            match tokio::time::timeout(FRONT_ANSWERS_WITHIN, connect).await {
                Ok(Ok(_)) => {}
                _ => return Err("starting"),
            }
        }
        self.listening.store(true, Ordering::Release);
        Ok(())
    }

    fn metrics(&self) -> String {
        self.node.tell();
        let store = &self.pipeline.store;
        self.pipeline.metrics.encode(&Levels {
            store_bytes: store.memory.bytes() as u64,
            store_objects: store.memory.objects() as u64,
            fill_bytes: store.budget.fills.used(),
            purge_applied_seq: store.ledger.applied().as_u64(),
        })
    }

    fn stat(&self) -> Value {
        let mut stat = self.node.describe();
        let store = &self.pipeline.store;
        let more = json!({
            "requests": self.pipeline.metrics.requests_by_outcome().into_iter().collect::<serde_json::Map<_, _>>(),
            "store": { "memory": { "bytes": store.memory.bytes(), "objects": store.memory.objects() } },
            "fill_bytes": store.budget.fills.used(),
            "purge_position": store.ledger.applied().as_u64(),
        });
        if let (Value::Object(stat), Value::Object(more)) = (&mut stat, more) {
            stat.extend(more);
        }
        stat
    }

    fn advance_clock(&self, query: Option<&str>) -> (StatusCode, String) {
        if !self.test_clock {
            return (StatusCode::FORBIDDEN, "the node was not started with --unsafe-test-clock\n".into());
        }
        let ms = query.and_then(|query| query.strip_prefix("advance_ms=")).and_then(|ms| ms.parse().ok());
        match ms {
            Some(ms) => {
                clock::advance_test_clock(Duration::from_millis(ms));
                (StatusCode::OK, format!("{}\n", clock::wall().0))
            }
            None => (StatusCode::BAD_REQUEST, "expected ?advance_ms=N, a whole number of milliseconds\n".into()),
        }
    }
}

/// An address to connect to for an address that is listened on.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    reachable
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let query = head.uri.query().map(str::to_owned);
        let json = |status, value: Value| (status, format!("{value}\n"));
        let (status, body) = match (path.as_str(), &method) {
            ("/livez", &Method::GET) => (StatusCode::OK, "ok\n".to_owned()),
            ("/readyz", &Method::GET) => match self.ready().await {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            // The log is the node's own: what is in it has been applied.
            ("/currentz", &Method::GET) => (StatusCode::OK, "current\n".to_owned()),
            ("/metrics", &Method::GET) => (StatusCode::OK, self.metrics()),
            ("/v1/stat", &Method::GET) => json(StatusCode::OK, self.stat()),
            ("/v1/config/reload", &Method::POST) => match self.reload().await {
                Ok(done) => json(StatusCode::OK, done),
                Err(errors) => json(StatusCode::UNPROCESSABLE_ENTITY, errors),
            },
            ("/v1/drain", &Method::POST) => {
                self.node.drain();
                json(StatusCode::ACCEPTED, json!({ "draining": true }))
            }
            ("/test/clock", &Method::POST) => self.advance_clock(query.as_deref()),
            (path, _) if PATHS.contains(&path) => {
                (StatusCode::METHOD_NOT_ALLOWED, "this path knows another method\n".to_owned())
            }
            _ => (StatusCode::NOT_FOUND, format!("paths: {}\n", PATHS.join(" "))),
        };
        let kind = match path.as_str() {
            "/metrics" => "text/plain; version=0.0.4",
            path if path.starts_with("/v1/") && status != StatusCode::METHOD_NOT_ALLOWED => "application/json",
            _ => "text/plain; charset=utf-8",
        };
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len())
            .body(body.into_bytes());
        response.unwrap_or_default()
    }
}
