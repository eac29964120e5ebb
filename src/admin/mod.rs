//! The operator's side, on an address of its own.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 when clients can be served; 503 while starting and while draining |
//! | `GET /announcez` | 200 while routers are to lead clients here; 503 while starting, and when the time to drain is over |
//! | `GET /currentz` | 200 while the node knows every purge there is; 503 when it is isolated |
//! | `GET /metrics` | Prometheus text format; for a token of some sites what is theirs alone |
//! | `GET /v1/statistics` | what each of the token's sites did since the node was started; `site` names one; [`statistics::Statistics`] |
//! | `GET /v1/stat` | JSON: what the node does now, in short |
//! | `POST /v1/purge` | purges what the JSON names: 200 with a receipt; [`purge::PurgeRequest`] |
//! | `GET /v1/purges/{id}` | the receipt of a purge, and how far each node is |
//! | `GET /v1/nodes` | the nodes that follow the same log, and how far each is; [`nodes::NodeState`] |
//! | `POST /v1/nodes/forget` | takes a node that is no more out of that list; [`nodes::ForgetRequest`] |
//! | `GET /v1/explain?url=URL` | what would become of a request; `method`, `header` and `client` may be said too |
//! | `GET /v1/cache/object?url=URL` | everything stored for a URL, and where; `header` may be said too |
//! | `GET /v1/cache/objects?site=NAME` | what is stored of a site, a page of it; `prefix`, `limit` and `cursor` may be said too |
//! | `POST /v1/cache/verify?url=URL` | reads what disks have of a URL: whether it is what was written, chunk by chunk |
//! | `POST /v1/cache/verify?all=1` | 202; begins to read everything there is on disks, at `rate` MiB a second |
//! | `GET /v1/cache/verify` | how far that is, and what it has found |
//! | `GET /v1/origins` | how the origins of the token's sites stand; [`origins::OriginState`] |
//! | `POST /v1/origins/drain` | takes out the origin that the JSON names; [`origins::DrainRequest`] |
//! | `POST /v1/origins/undrain` | has it get requests again |
//! | `GET /v1/certificates` | the certificates of the token's sites, never a key; [`certificates::CertificateState`] |
//! | `POST /v1/certificates` | puts a certificate in force for a site, on all nodes; [`certificates::AddRequest`] |
//! | `POST /v1/certificates/delete` | takes one out of force; [`certificates::DeleteRequest`] |
//! | `POST /v1/certificates/account/forget` | has another account with the authority made for the next order |
//! | `GET /v1/sites` | the token's sites: what their hosts are to be a CNAME of, whether they are, and their certificates; [`sites::SiteState`] |
//! | `POST /v1/sites` | publishes a new site; [`sites::SiteRequest`] |
//! | `POST /v1/sites/delete` | takes one away; [`sites::SiteDeletion`] |
//! | `POST /v1/hosts` | adds a host to a site; [`sites::HostRequest`] |
//! | `POST /v1/hosts/delete` | takes one away |
//! | `POST /v1/hosts/revoke` | has no certificate ordered for one any more, and none used that was issued |
//! | `POST /v1/hosts/allow` | has it looked at anew |
//! | `GET /v1/openapi.json` | these routes, for programs |
//! | `GET /v1/config` | what the hub has of the configuration, and what is in force here and elsewhere; [`config::Documents`] |
//! | `GET /v1/config/history?site=NAME` | the versions of a site, or with `node=1` of the settings for all nodes; `version` gives the text of one |
//! | `POST /v1/config/push` | publishes a version: 200, 409 when another one is the latest, or 422 with every error; [`config::PushRequest`] |
//! | `POST /v1/config/rollback` | publishes an earlier version again; [`config::RollbackRequest`] |
//! | `POST /v1/config/diff` | how a text differs from the latest version; [`config::DiffRequest`] |
//! | `POST /v1/config/reload` | reads the configuration again: 200 with its version, or 422 with every error |
//! | `POST /v1/drain` | 202; the node says that it is not ready, finishes what it does, and ends |
//! | `POST /v1/upgrade` | has another process of the node take over: 200 when it serves, 422 with the reason when it does not |
//! | `POST /test/clock?advance_ms=N` | moves the wall clock; only with `--unsafe-test-clock` |
//!
//! Where the configuration has tokens, `/v1/` and `/metrics` want one in `Authorization: Bearer`; see [`access`]. The same table, with what
//! each wants, is [`routes::ROUTES`].

pub mod access;
pub mod asked;
pub mod cached;
pub mod certificates;
pub mod config;
pub mod explain;
pub mod nodes;
pub mod openapi;
pub mod origins;
pub mod purge;
pub mod reply;
pub mod routes;
pub mod serve;
pub mod sites;
pub mod statistics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::access::{Access, Caller, Detail};
use self::asked::Asked;
use self::certificates::{CHANGES_PER_SECOND, Change, Held, NotChanged};
use self::purge::handle::place;
use self::reply::Reply;
use self::sites::{HostChange, HostState, SiteState};
use crate::clock;
use crate::pipeline::Pipeline;
use crate::pipeline::explain::{Named, Question};
use crate::purge::limit::Limits;
use crate::purge::log::PurgeLog;
use crate::purge::nats::documents::Which;
use crate::purge::nats::shelf::Shelf;
use crate::routing::Snapshot;
use crate::store::disk::stat::DiskStat;
use crate::store::verify::Verification;
use crate::telemetry::metrics::Levels;

/// How long the node gives its own front to accept a connection before it says it is not ready.
const FRONT_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Why no other process of the node has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUpgraded {
    /// The node is not in a state for that.
    NotTried(String),
    /// The other process does not serve; this one goes on.
    Failed(String),
}

/// What the operator may have the node do.
#[async_trait]
pub trait Operate: Send + Sync {
    /// Puts the configuration in force anew. Both answers are for a program.
    ///
    /// # Errors
    /// Everything that is wrong with it; the one before it stays.
    fn reload(&self) -> Result<Value, Value>;

    /// What the hub has of the configuration. None: the node follows no hub.
    fn shelf(&self) -> Option<Arc<Shelf>>;

    /// Whether a text of a document makes a good configuration with all else that is in force here; nothing is changed. Reads
    /// files. The answer is for a program.
    ///
    /// # Errors
    /// Everything that is wrong with it, in this detail.
    fn try_document(&self, which: &Which, text: &str, detail: Detail) -> Result<(), Value>;

    /// The certificates there are, and those that cannot be used.
    fn certificates(&self) -> Held;

    /// The text of the document with a site's certificates after a change, made of the latest text there is, and the fingerprint of
    /// the certificate that the change is about. Nothing is put in force.
    ///
    /// # Errors
    /// Why the change cannot be.
    fn change_certificates(&self, site: &str, latest: &str, change: &Change) -> Result<(String, String), NotChanged>;

    /// The sites in force, and how their hosts stand.
    fn site_states(&self) -> Vec<SiteState>;

    /// Decides about a host of a site. Gives how it stands then.
    ///
    /// # Errors
    /// Why it is as before.
    async fn judge_host(&self, site: &str, host: &str, change: HostChange) -> Result<HostState, String>;

    /// Has another account with the authority made for the next order, for all nodes.
    ///
    /// # Errors
    /// Why the one there is stays.
    async fn forget_account(&self) -> Result<(), String>;

    /// Changes the certificates of a site on a node that follows no hub: on its disk, and in force. Gives the fingerprint of the
    /// certificate that the change is about.
    ///
    /// # Errors
    /// Why the change cannot be.
    fn change_certificates_here(&self, site: &str, change: &Change) -> Result<String, NotChanged>;

    /// Begins to drain.
    fn drain(&self);

    fn is_draining(&self) -> bool;

    /// Its time to drain is over: routers are to lead nobody here.
    fn is_withdrawn(&self) -> bool;

    /// Another process is about to take over: what is changed would be lost.
    fn is_frozen(&self) -> bool;

    /// Has another process of the node take over, and gives its id when that serves.
    ///
    /// # Errors
    /// Why not.
    async fn upgrade(&self) -> Result<u32, NotUpgraded>;

    /// Who may do what.
    fn access(&self) -> Arc<Access>;

    /// The sites there are.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// How many selectors a site may purge in a second.
    fn purge_rate(&self) -> u32;

    /// What would become of a request.
    ///
    /// # Errors
    /// It is no request that a client could send.
    async fn explain(&self, question: &Question) -> Result<Value, String>;

    /// What the store knows a request by. None: no site answers for its host.
    ///
    /// # Errors
    /// It is no request that a client could send.
    fn named(&self, question: &Question) -> Result<Option<Named>, String>;

    /// What the node is and does.
    fn describe(&self) -> Value;

    /// Brings metrics up to date that change by time alone.
    fn tell(&self);
}

/// The admin API.
pub struct Admin {
    pipeline: Arc<Pipeline>,
    node: Arc<dyn Operate>,
    log: Arc<dyn PurgeLog>,
    limits: Mutex<Limits>,
    certificate_limits: Mutex<Limits>,
    verification: Arc<Verification>,
    /// Where clients connect: ready means that somebody listens there.
    listen: Vec<SocketAddr>,
    test_clock: bool,
    listening: AtomicBool,
}

impl Admin {
    pub fn new(
        pipeline: Arc<Pipeline>,
        node: Arc<dyn Operate>,
        log: Arc<dyn PurgeLog>,
        listen: Vec<SocketAddr>,
        test_clock: bool,
    ) -> Self {
        Self {
            pipeline,
            limits: Mutex::new(Limits::new(node.purge_rate())),
            certificate_limits: Mutex::new(Limits::new(CHANGES_PER_SECOND)),
            verification: Arc::default(),
            node,
            log,
            listen,
            test_clock,
            listening: AtomicBool::new(false),
        }
    }

    /// Files are read for it: a slow disk must not hold up who asks for something else.
    async fn reload(&self) -> Result<Reply, Reply> {
        let node = self.node.clone();
        let reloaded = tokio::task::spawn_blocking(move || node.reload()).await;
        let reloaded = reloaded.unwrap_or_else(|error| Err(json!({ "errors": [{ "message": error.to_string() }] })));
        reloaded
            .map(|done| Reply::json(StatusCode::OK, &done))
            .map_err(|errors| Reply::json(StatusCode::UNPROCESSABLE_ENTITY, &errors))
    }

    async fn readyz(&self) -> Result<Reply, Reply> {
        match self.ready().await {
            Ok(()) => Ok(Reply::text(StatusCode::OK, "ready\n")),
            Err(why) => Err(Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))),
        }
    }

    /// Whether routers are to lead clients here. The hub has nothing to do with it: were it lost, all nodes would be gone.
    async fn announcez(&self) -> Result<Reply, Reply> {
        let announced = match self.node.is_withdrawn() {
            true => Err("drained"),
            false => self.listens().await,
        };
        match announced {
            Ok(()) => Ok(Reply::text(StatusCode::OK, "announce\n")),
            Err(why) => Err(Reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))),
        }
    }

    async fn upgrade(&self) -> Result<Reply, Reply> {
        match self.node.upgrade().await {
            Ok(pid) => Ok(Reply::json(StatusCode::OK, &json!({ "pid": pid, "before": std::process::id() }))),
            Err(NotUpgraded::NotTried(why)) => Err(Reply::error(StatusCode::CONFLICT, why)),
            Err(NotUpgraded::Failed(why)) => Err(Reply::error(StatusCode::UNPROCESSABLE_ENTITY, why)),
        }
    }

    async fn ready(&self) -> Result<(), &'static str> {
        if self.node.is_draining() {
            return Err("draining");
        }
        self.listens().await
    }

    async fn listens(&self) -> Result<(), &'static str> {
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

    fn metrics(&self, caller: &Caller) -> Reply {
        self.node.tell();
        let store = &self.pipeline.store;
        let levels = Levels {
            store_bytes: store.memory.bytes() as u64,
            store_objects: store.memory.objects() as u64,
            fill_bytes: store.budget.fills.used(),
            purge_applied_seq: store.ledger.applied().log.seq(),
            purge_lag: self.log.lag(),
            purge_pending: self.log.pending(),
            is_current: store.ledger.is_current(clock::boot_ms),
            disk: store.disks.levels(),
        };
        let metrics = match caller.may_everything() {
            true => self.pipeline.metrics.encode(&levels),
            false => self.pipeline.metrics.encode_of(&levels, |site| caller.may(site)),
        };
        Reply { kind: "text/plain; version=0.0.4", ..Reply::text(StatusCode::OK, metrics) }
    }

    /// Whether the node knows every purge there is. It is an alarm, not a reason to take the node out: it answers all the same.
    fn currentz(&self) -> Reply {
        match self.pipeline.store.ledger.is_current(clock::boot_ms) {
            true => Reply::text(StatusCode::OK, "current\n"),
            false => Reply::text(StatusCode::SERVICE_UNAVAILABLE, "isolated\n"),
        }
    }

    fn stat(&self) -> Value {
        let mut stat = self.node.describe();
        let store = &self.pipeline.store;
        let more = json!({
            "requests": self.pipeline.metrics.requests_by_outcome().into_iter().collect::<serde_json::Map<_, _>>(),
            "store": {
                "memory": { "bytes": store.memory.bytes(), "objects": store.memory.objects() },
                "disk": store.disks.all().iter().map(|disk| DiskStat::of(disk)).collect::<Vec<_>>(),
                "writes": { "used_bytes": store.budget.writes.used(), "limit_bytes": store.budget.writes.limit() },
            },
            "fill_bytes": store.budget.fills.used(),
            "purge": {
                "position": place(store.ledger.applied().log),
                "entries": store.ledger.len(),
                "current": store.ledger.is_current(clock::boot_ms),
                "lag": self.log.lag(),
                "pending": self.log.pending(),
            },
        });
        if let (Value::Object(stat), Value::Object(more)) = (&mut stat, more) {
            stat.extend(more);
        }
        stat
    }

    fn advance_clock(&self, query: Option<&str>) -> Reply {
        if !self.test_clock {
            return Reply::text(StatusCode::FORBIDDEN, "the node was not started with --unsafe-test-clock\n");
        }
        let ms = query.and_then(|query| query.strip_prefix("advance_ms=")).and_then(|ms| ms.parse().ok());
        match ms {
            Some(ms) => {
                clock::advance_test_clock(Duration::from_millis(ms));
                Reply::text(StatusCode::OK, format!("{}\n", clock::wall().0))
            }
            None => Reply::text(StatusCode::BAD_REQUEST, "expected ?advance_ms=N, a whole number of milliseconds\n"),
        }
    }

    async fn explain(&self, caller: Caller, asked: &Asked) -> Result<Reply, Reply> {
        let question = explain::read(asked.query());
        let question = question.map_err(|wrong| Reply::errors(StatusCode::BAD_REQUEST, &[wrong]))?;
        let snapshot = self.node.snapshot();
        let site = snapshot.site(question.host.as_bytes());
        if !site.map_or(caller.may_everything(), |site| caller.may(&site.name)) {
            return Err(Reply::error(StatusCode::FORBIDDEN, "the token is not for this"));
        }
        let explained = self.node.explain(&question).await;
        explained
            .map(|answer| Reply::json(StatusCode::OK, &answer))
            .map_err(|refusal| Reply::error(StatusCode::BAD_REQUEST, refusal))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.verification.stop();
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
