//! The composition root: the only place that knows every concrete type.

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use edge_config::Config;
use edge_config::section::origin::Origin;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::listening::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Admin;
use crate::cli::Run;
use crate::clock;
use crate::front::log::Log;
use crate::front::pass::Pass;
use crate::front::registry::Registry;
use crate::front::tls::certificates::{CertificateError, Certificates, server_config};
use crate::front::tls::tickets::Tickets;
use crate::front::tls::{Settings, Tls};
use crate::front::{Doors, Front};
use crate::origin::demo::DemoOrigin;
use crate::origin::fetch::Fetch;
use crate::origin::peer::OriginPeer;
use crate::pipeline::Pipeline;
use crate::routing::{Site, Snapshot, Snapshots};
use crate::store::Store;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// Why a node does not start.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StartError {
    #[error("the configuration is not usable:\n{}", .0.iter().map(|e| format!("  {e}")).collect::<Vec<_>>().join("\n"))]
    Config(Vec<edge_config::ConfigError>),
    #[error("cannot listen on {address}: {error}")]
    #[diagnostic(help("is another process listening there? choose another address with --listen or --admin"))]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("cannot open the access log: {0}")]
    #[diagnostic(help("give a writable file with --access-log, or - for standard output"))]
    AccessLog(std::io::Error),
    #[error("TLS: {0}")]
    Tls(CertificateError),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl StartError {
    /// 78 for configuration (as `sysexits` has it), 1 for the rest.
    pub fn exit_code(&self) -> i32 {
        if matches!(self, Self::Config(_) | Self::Tls(_)) { 78 } else { 1 }
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it does not start.
pub fn run(options: &Run) -> Result<(), StartError> {
    let demo = match options.origin {
        Some(_) => None,
        None => Some(free_loopback_address()?),
    };
    let origin = match (&options.origin, demo) {
        (Some(origin), _) => origin.clone(),
        (None, Some(address)) => loopback_origin(address),
        (None, None) => return Err(StartError::Config(vec![])),
    };
    let config = options.config(origin).map_err(StartError::Config)?;
    raise_descriptor_limit();
    for address in config.listen.addresses().chain([&config.admin]) {
        TcpListener::bind(address).map_err(|error| StartError::Listen { address: *address, error })?;
    }
    let mut random = [0; 40];
    getrandom::fill(&mut random).map_err(StartError::Random)?;
    let (secret, node) = random.split_at(32);
    let secret: [u8; 32] = secret.try_into().unwrap_or_default();
    let node = node.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));

    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let access_log = AccessLog::open(&config.access_log, metrics.clone()).map_err(StartError::AccessLog)?;
    let conf = Arc::new(server_conf(&config));
    let node = build(&config, secret, node, &conf, metrics, access_log.clone())?;

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
    server.bootstrap();
    let doors = Doors { front: node.front, tls: node.tls, listen: config.listen.clone() };
    let mut front = Service::new("front".into(), doors);
    front.threads = Some(config.workers);
    for address in config.listen.addresses() {
        // The front has buffers of its own; Pingora's would be 64 KiB for each connection.
        front.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::unbuffered()));
    }
    server.add_service(front);
    let mut admin = Service::new("admin".into(), node.admin);
    admin.threads = Some(1);
    admin.add_tcp(&config.admin.to_string());
    server.add_service(admin);
    if let Some(address) = demo {
        let mut demo = Service::new("demo".into(), DemoOrigin::default());
        demo.threads = Some(1);
        demo.add_tcp(&address.to_string());
        server.add_service(demo);
    }
    banner(&config, demo.is_some());
    let drain = Drain {
        registry: node.registry,
        draining: node.draining,
        access_log,
        deadline: config.limits.drain_timeout.get(),
    };
    server.run(RunArgs { shutdown_signal: Box::new(drain) });
    Ok(())
}

struct Node {
    front: Arc<Front>,
    tls: Option<Arc<Tls>>,
    admin: Admin,
    registry: Arc<Registry>,
    draining: Arc<AtomicBool>,
}

fn build(
    config: &Config,
    secret: [u8; 32],
    node: u64,
    conf: &Arc<ServerConf>,
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLog>,
) -> Result<Node, StartError> {
    let store = Store::new(config.cache.memory.bytes(), secret, metrics.clone());
    let pipeline = Pipeline::new(store, metrics.clone(), |task| {
        tokio::spawn(task);
    });
    let snapshots = Snapshots::new(snapshot(config, 1, &metrics));
    let registry = Registry::new(config.limits.connections_per_client, metrics.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let front = Arc::new(Front {
        pipeline: pipeline.clone(),
        snapshots,
        registry: registry.clone(),
        pass: Pass::new(conf, pipeline.clone()),
        log: Log::new(access_log, metrics.clone(), node),
    });
    let admin = Admin::new(pipeline, config.listen.addresses().copied().collect(), draining.clone(), config.test_clock);
    let tls = match config.listen.https.is_empty() {
        true => None,
        false => Some(Tls::new(tls_settings(config, &metrics)?)),
    };
    Ok(Node { front, tls, admin, registry, draining })
}

/// What requests need of a configuration.
fn snapshot(config: &Config, version: u64, metrics: &Arc<Metrics>) -> Snapshot {
    let sites = config.sites.iter().map(|site| {
        let index = metrics.site(&site.name);
        let peer = Arc::new(OriginPeer::new(site.origins.members[0].origin.clone()));
        let upstream = Arc::new(Fetch::new(peer.clone(), index, metrics.clone()));
        (Arc::new(Site::new(site, index, peer, upstream)), site.hosts.clone())
    });
    Snapshot::new(version, config.limits, sites.collect())
}

/// What handshakes need of a configuration.
fn tls_settings(config: &Config, metrics: &Metrics) -> Result<Settings, StartError> {
    let certificates = Arc::new(Certificates::load(&config.tls).map_err(StartError::Tls)?);
    let secret = match &config.tls.ticket_keys {
        Some(path) => {
            std::fs::read(path).map_err(|error| StartError::Tls(CertificateError::Tickets(path.clone(), error)))?
        }
        None => {
            let mut random = vec![0; 32];
            getrandom::fill(&mut random).map_err(StartError::Random)?;
            random
        }
    };
    let tickets = Arc::new(Tickets::new(&secret));
    let server = server_config(&config.tls, certificates.clone(), tickets).map_err(StartError::Tls)?;
    metrics.certificates(certificates.expiries());
    Ok(Settings { certificates, server, handshake_timeout: config.tls.handshake_timeout.get() })
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.workers,
        // A connection stays on its thread: no queue is shared between workers.
        work_stealing: false,
        // The node drains before Pingora is told to stop.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        max_retries: 2,
        ..ServerConf::default()
    }
}

/// Waits for SIGTERM or SIGINT, then for the requests in flight.
struct Drain {
    registry: Arc<Registry>,
    draining: Arc<AtomicBool>,
    access_log: Arc<AccessLog>,
    deadline: Duration,
}

/// How often a draining node looks whether it is empty.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be watched; the node stops only when it is killed");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => self.end(),
        }
        self.draining.store(true, Ordering::Release);
        self.registry.drain();
        let until = clock::monotonic() + self.deadline;
        while self.registry.connections() > 0 && clock::monotonic() < until {
            tokio::select! {
                () = tokio::time::sleep(DRAIN_CHECK) => {}
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        self.end()
    }
}

impl Drain {
    /// Ends the process: everybody has been served, or the deadline has passed. Pingora's own shutdown would drop the
    /// runtimes under their accept loops and wait for them.
    fn end(&self) -> ! {
        self.access_log.close();
        std::process::exit(0)
    }
}

fn free_loopback_address() -> Result<SocketAddr, StartError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = |error| StartError::Listen { address: any, error };
    TcpListener::bind(any).map_err(listen)?.local_addr().map_err(listen)
}

fn loopback_origin(address: SocketAddr) -> Origin {
    use edge_config::section::origin::{HostHeader, OriginScheme, OriginTimeouts};
    Origin {
        scheme: OriginScheme::Http,
        host: address.ip().to_string(),
        port: address.port(),
        host_header: HostHeader::Client,
        sni: None,
        ca: None,
        verify: true,
        http2: false,
        timeouts: OriginTimeouts::default(),
    }
}

/// Connections are descriptors: take as many as the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::warn!("the limit of open files stays where it is");
    }
}

fn banner(config: &Config, demo: bool) {
    let http = config.listen.http.iter().map(|a| format!("http://{}", shown(*a)));
    let https = config.listen.https.iter().map(|a| format!("https://{}", shown(*a)));
    let listen = http.chain(https).collect::<Vec<_>>().join(", ");
    let first = config.listen.http.first().map(|a| shown(*a)).unwrap_or_default();
    let bold = |text: &str| {
        if std::io::stderr().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    };
    let origin = if demo {
        "the built-in demonstration site (use --origin URL for your own)".to_owned()
    } else {
        {
            let origin = &config.sites[0].origins.members[0].origin;
            format!("{}:{}", origin.host, origin.port)
        }
    };
    eprintln!("{} {}", bold("littoral"), env!("CARGO_PKG_VERSION"));
    eprintln!("  clients  {listen}");
    eprintln!("  origin   {origin}");
    eprintln!("  admin    http://{}/metrics  /livez  /readyz", config.admin);
    eprintln!("  memory   {}, {} workers", config.cache.memory, config.workers);
    eprintln!("Try, twice, and look at Cache-Status:");
    eprintln!("  curl -i http://{first}/");
    if demo {
        eprintln!("  curl -i http://{first}/slow");
        eprintln!("  curl -i http://{first}/uncacheable");
        eprintln!("  curl -s -o /dev/null -w '%{{speed_download}}\\n' http://{first}/large.bin");
    }
}

fn shown(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}
