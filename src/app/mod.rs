//! The composition root: the only place that knows every concrete type.
//!
//! - [`source`]: where a configuration comes from, and comes from again when it is reloaded.
//! - [`copy`]: the last good copy of what the hub has of it.
//! - [`node`]: a configuration made into the parts of a node.
//! - [`control`]: what the operator can do with a running node.
//! - [`adoption`]: putting in force what the hub has of the configuration.
//! - [`certificates`]: those of files and those that sites have brought, kept and put in force.
//! - [`issuing`]: certificates of an authority.
//! - [`stapling`]: what goes with handshakes: asking whether certificates are revoked.
//! - [`storage`]: what outlives the process.
//! - [`identity`]: what makes a node the same one after a start.
//! - [`reclaimer`]: the memory of what was purged.
//! - [`dev`]: a small CDN on loopback.
//! - [`dns`]: the files of name servers.
//! - [`hub`]: what an operator does with what many nodes share.
//! - [`doorway`]: the sockets it listens on.
//! - [`upgrade`]: another process in the place of this one.
//! - [`life`]: from the first listener to the last answer.

pub mod adoption;
pub mod certificates;
pub mod control;
pub mod copy;
pub mod dev;
pub mod dns;
pub mod doorway;
pub mod hub;
pub mod identity;
pub mod issuing;
pub mod life;
pub mod node;
pub mod reclaimer;
pub mod source;
pub mod stapling;
pub mod storage;
pub mod upgrade;

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use edge_config::Config;
use edge_config::section::origin::{Origin, OriginScheme};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;

use self::doorway::{Doorway, Inherited, Served};
use self::identity::IdentityError;
use self::life::Life;
use self::node::{Node, TicketKeys};
use self::source::Source;
use self::storage::Begin;
use self::upgrade::predecessor::Predecessor;
use self::upgrade::successor::Program;
use self::upgrade::{State, Upgrades};
use crate::admin::serve::{Api, Health};
use crate::cli::Run;
use crate::front::Doors;
use crate::front::tls::certificates::CertificateError;
use crate::origin::credentials::CredentialError;
use crate::origin::demo::DemoOrigin;
use crate::purge::log::OpenError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StartError {
    #[error("the configuration is not usable:\n{}", .0.iter().map(|e| format!("  {e}")).collect::<Vec<_>>().join("\n"))]
    Options(Vec<edge_config::ConfigError>),
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] edge_config::Problems),
    #[error("cannot listen on {address}: {error}")]
    #[diagnostic(help("is another process listening there? choose another address"))]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("cannot open the access log: {0}")]
    #[diagnostic(help("give a writable file, or - for standard output"))]
    AccessLog(std::io::Error),
    #[error(transparent)]
    #[diagnostic(help("the node reads its certificates when it starts and whenever it reloads"))]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    #[diagnostic(help(
        "`ca` names a PEM file of the authorities that may vouch for an origin, `certificate` and `key` what the node shows it"
    ))]
    Credential(#[from] CredentialError),
    #[error("the purge log cannot be opened: {0}")]
    #[diagnostic(help("give each node a directory of its own that it may write: --data DIR, or data in [purge]"))]
    PurgeLog(#[from] OpenError),
    #[error(transparent)]
    #[diagnostic(help(
        "the file is what finds everything on the disks of the cache: restore it, or remove it and start with an empty cache"
    ))]
    Identity(#[from] IdentityError),
    #[error("{0}: {1}")]
    #[diagnostic(help(
        "key_file of [node] is what nodes sign their requests to one another with: the same bytes on all of them"
    ))]
    NodeKey(std::path::PathBuf, std::io::Error),
    #[error("it does not take over from the process before it: {0}")]
    Upgrade(String),
    #[error("no thread can be started: {0}")]
    Runtime(std::io::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl StartError {
    /// What is wrong, in a line, for a log.
    pub fn summary(&self) -> String {
        match self {
            Self::File(problems) => problems.summary(),
            error => error.to_string(),
        }
    }

    /// 78 for configuration (as `sysexits` has it), 1 for the rest.
    pub fn exit_code(&self) -> i32 {
        if matches!(self, Self::Options(_) | Self::File(_) | Self::Certificate(_) | Self::Credential(_)) {
            78
        } else {
            1
        }
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it does not start.
pub fn run(options: &Run) -> Result<(), StartError> {
    let (mut predecessor, inherited) = Predecessor::find()?.unzip();
    run_after(options, &mut predecessor, inherited.unwrap_or_default()).inspect_err(|error| {
        if let Some(predecessor) = &predecessor {
            predecessor.fail(error);
        }
    })
}

fn run_after(options: &Run, predecessor: &mut Option<Predecessor>, mut inherited: Inherited) -> Result<(), StartError> {
    let program = Program::own().map_err(|error| StartError::Upgrade(error.to_string()))?;
    let demo = match options.has_origin() {
        true => None,
        false => Some(free_loopback_address()?),
    };
    let source = match (&options.config, demo) {
        (Some(path), _) => Source::File { path: path.clone(), options: Box::new(options.clone()) },
        (None, Some(address)) => {
            Source::Options(Box::new(options.config(demo_origin(address)).map_err(StartError::Options)?))
        }
        (None, None) => Source::Options(Box::new(options.config_of_origin().map_err(StartError::Options)?)),
    };
    let start = source.start()?;
    let config = start.config.clone();
    raise_descriptor_limit();
    let front = Doorway::open(config.listen.addresses(), &mut inherited)?;
    let admin = Doorway::open([&config.admin].into_iter(), &mut inherited)?;
    let health = Doorway::open(config.listen.health.iter(), &mut inherited)?;
    let conf = Arc::new(server_conf(&config));
    let (begin, tickets) = match &*predecessor {
        Some(predecessor) => {
            node::read_files(&config)?;
            let unused: Vec<SocketAddr> = inherited.into_keys().collect();
            predecessor.take_over(&unused)?;
            // Until it is known what was purged, clients wait rather than be served as by an isolated node.
            front.shut();
            (Begin::AfterAnother, TicketKeys::of(predecessor.tickets))
        }
        None => (Begin::Alone, TicketKeys::new()?),
    };
    let random = tickets.random();
    let node = Node::new(source, start, &conf, begin, tickets)?;
    if let Some(predecessor) = &*predecessor {
        predecessor.hear(node.pipeline.store.ledger.clone())?;
    }

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
    server.bootstrap();
    let doors = Doors { front: node.front, tls: node.tls, listen: config.listen.clone() };
    server.add_service(Served::new("front", doors, &front, config.workers));
    server.add_service(Served::new("admin", Api(node.admin.clone()), &admin, 1));
    if !config.listen.health.is_empty() {
        server.add_service(Served::new("health", Health::new(node.admin), &health, 1));
    }
    if let Some(address) = demo {
        let mut demo = Service::new("demo".into(), DemoOrigin::default());
        demo.threads = Some(1);
        demo.add_tcp(&address.to_string());
        server.add_service(demo);
    }
    banner(&config, demo.is_some(), options.config.as_deref());
    let upgrades = Arc::new(Upgrades {
        program,
        doorways: vec![front.clone(), admin.clone(), health],
        control: node.control.clone(),
        log: node.log.clone(),
        pipeline: node.pipeline.clone(),
        record: node.record,
        again: node.again,
        tickets: random,
        state: State::default(),
    });
    node.control.replaced_by(&upgrades);
    let life = Life {
        front,
        admin,
        upgrades,
        predecessor: predecessor.take().into(),
        control: node.control,
        access_log: node.access_log,
        log: node.log.clone(),
        pipeline: node.pipeline.clone(),
    };
    server.run(RunArgs { shutdown_signal: Box::new(life) });
    node.log.close();
    node.pipeline.store.close();
    drop(node.reclaimer);
    drop(node.checks);
    Ok(())
}

/// Checks a configuration file, the certificates it names included. Gives what to say about it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(path: &Path) -> Result<String, StartError> {
    let config = edge_config::load(path)?;
    node::read_files(&config)?;
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let rules = config.sites.iter().map(|site| site.rules.len()).sum();
    let origins = config.sites.iter().map(|site| site.origins.members.len()).sum();
    Ok(format!(
        "{}: ok: {}, {}, {}, {}",
        path.display(),
        plural(config.sites.len(), "site"),
        plural(origins, "origin"),
        plural(rules, "rule"),
        plural(config.tls.certificates.len(), "certificate"),
    ))
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

fn free_loopback_address() -> Result<SocketAddr, StartError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = |error| StartError::Listen { address: any, error };
    TcpListener::bind(any).map_err(listen)?.local_addr().map_err(listen)
}

fn demo_origin(address: SocketAddr) -> Origin {
    use edge_config::section::origin::{HostHeader, OriginTimeouts, Resolve};
    use edge_config::section::talking::Talking;
    Origin {
        scheme: OriginScheme::Http,
        host: address.ip().to_string(),
        port: address.port(),
        resolve: Resolve::default(),
        host_header: HostHeader::Client,
        sni: None,
        ca: None,
        verify: true,
        http2: false,
        talking: Talking::default(),
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

fn banner(config: &Config, demo: bool, file: Option<&Path>) {
    let http = config.listen.http.iter().map(|address| format!("http://{}", shown(*address)));
    let https = config.listen.https.iter().map(|address| format!("https://{}", shown(*address)));
    let listen: Vec<String> = http.chain(https).collect();
    let bold = |text: &str| {
        if std::io::stderr().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    };
    eprintln!("{} {}", bold("littoral"), env!("CARGO_PKG_VERSION"));
    if let Some(file) = file {
        eprintln!("  config   {}", file.display());
    }
    eprintln!("  clients  {}", listen.join(", "));
    for site in &config.sites {
        let origins =
            site.origins.members.iter().map(|member| format!("{}:{}", member.origin.host, member.origin.port));
        let origins = match demo {
            true => "the built-in demonstration site (use --origin URL for your own)".to_owned(),
            false => origins.collect::<Vec<_>>().join(", "),
        };
        if file.is_some() {
            eprintln!("  site     {}: {origins}", site.name);
        } else {
            eprintln!("  origin   {origins}");
        }
    }
    eprintln!("  admin    http://{}/metrics  /livez  /readyz  /v1/purge", config.admin);
    for address in &config.listen.health {
        eprintln!("  health   http://{}/readyz", shown(*address));
    }
    eprintln!("  data     {}", node::data_directory(config).display());
    eprintln!("  memory   {}, {} workers", config.cache.memory, config.workers);
    for disk in &config.cache.disks {
        eprintln!("  disk     {}, {}", disk.path.display(), disk.size);
    }
    if file.is_some() {
        return;
    }
    let Some(first) = listen.first() else { return };
    let curl = if first.starts_with("https") { "curl -k" } else { "curl" };
    eprintln!("Try, twice, and look at Cache-Status:");
    eprintln!("  {curl} -i {first}/");
    if demo {
        eprintln!("  {curl} -i {first}/slow");
        eprintln!("  {curl} -i {first}/uncacheable");
        eprintln!("  {curl} -s -o /dev/null -w '%{{speed_download}}\\n' {first}/large.bin");
    }
}

fn shown(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}
