//! The operator's side, on an address of its own.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 when clients can be served; 503 while starting and while draining |
//! | `GET /metrics` | Prometheus text format |
//! | `POST /test/clock?advance_ms=N` | moves the wall clock; only with `--unsafe-test-clock` |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::clock;
use crate::pipeline::Pipeline;
use crate::telemetry::metrics::Levels;

/// How long the node gives its own front to accept a connection before it says it is not ready.
const FRONT_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The admin API.
pub struct Admin {
    pub pipeline: Arc<Pipeline>,
    /// Where clients connect: ready means that somebody listens there.
    pub listen: Vec<SocketAddr>,
    pub draining: Arc<AtomicBool>,
    pub test_clock: bool,
    listening: AtomicBool,
}

impl Admin {
    pub fn new(pipeline: Arc<Pipeline>, listen: Vec<SocketAddr>, draining: Arc<AtomicBool>, test_clock: bool) -> Self {
        Self { pipeline, listen, draining, test_clock, listening: AtomicBool::new(false) }
    }

    async fn ready(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Acquire) {
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
        let store = &self.pipeline.store;
        self.pipeline.metrics.encode(&Levels {
            store_bytes: store.memory.bytes() as u64,
            store_objects: store.memory.objects() as u64,
            fill_bytes: store.budget.fills.used(),
            purge_applied_seq: store.ledger.applied().as_u64(),
        })
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
fn reachable(address: SocketAddr) -> SocketAddr {
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
        let (status, body) = match (path.as_str(), &method) {
            ("/livez", &Method::GET) => (StatusCode::OK, "ok\n".to_owned()),
            ("/readyz", &Method::GET) => match self.ready().await {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            ("/metrics", &Method::GET) => (StatusCode::OK, self.metrics()),
            ("/test/clock", &Method::POST) => self.advance_clock(query.as_deref()),
            ("/livez" | "/readyz" | "/metrics" | "/test/clock", _) => {
                (StatusCode::METHOD_NOT_ALLOWED, "this path knows another method\n".to_owned())
            }
            _ => (StatusCode::NOT_FOUND, "paths: /livez /readyz /metrics\n".to_owned()),
        };
        let kind = if path == "/metrics" { "text/plain; version=0.0.4" } else { "text/plain; charset=utf-8" };
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len())
            .body(body.into_bytes());
        response.unwrap_or_default()
    }
}
