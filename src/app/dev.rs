//! A small CDN on loopback: a hub and some nodes, for people to try, with a demonstration site behind them.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::listening::Service;
use tokio::signal::unix::{SignalKind, signal};

use super::hub::HubError;
use crate::cli::dev::Dev;
use crate::clock;
use crate::origin::demo::DemoOrigin;
use crate::purge::nats::link::{Hub, Link};
use crate::purge::nats::streams;

/// How long the hub and the nodes may take until they listen.
const START_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long they may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Where Debian puts servers, which is not on everybody's path.
const SERVERS: [&str; 2] = ["/usr/sbin/nats-server", "/usr/local/sbin/nats-server"];

/// Why there is none.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DevError {
    #[error("nats-server cannot be started: {0}")]
    #[diagnostic(help("on Debian: apt-get install nats-server; elsewhere: https://nats.io/download"))]
    Server(std::io::Error),
    #[error("{0} cannot be written: {1}")]
    Directory(PathBuf, std::io::Error),
    #[error("{0} does not listen on {1} in time; it said:\n{2}")]
    Silent(String, SocketAddr, String),
    #[error("there is no free port: {0}")]
    Port(std::io::Error),
    #[error("there are no random bytes for the key of the nodes: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hub(#[from] HubError),
    #[error("a node cannot be started: {0}")]
    Node(std::io::Error),
    #[error("{0} has ended by itself")]
    Ended(String),
}

/// The PoPs, and how many nodes the second has.
const EDGE: &str = "edge";
const SHIELD: &str = "shield";
const SHIELDS: u16 = 2;
/// The file of the key of all nodes.
const KEY: &str = "node.key";

/// A node that is to be.
struct Planned {
    name: String,
    pop: &'static str,
    http: SocketAddr,
    admin: SocketAddr,
    /// It asks others, and they ask it.
    asks: bool,
}

impl Planned {
    /// `port`: how far its ports are from the usual ones.
    fn new(pop: &'static str, number: u16, port: u16, asks: bool) -> Result<Self, DevError> {
        let (http, admin) = (free_port(Some(8080 + port))?, free_port(Some(9900 + port))?);
        Ok(Self { name: format!("{pop}-{number}"), pop, http, admin, asks })
    }
}

/// A process of ours, and what it is called.
struct Started {
    name: String,
    child: Child,
    said: PathBuf,
}

/// All of them. Dropping them ends them.
#[derive(Default)]
struct All(Vec<Started>);

impl Drop for All {
    fn drop(&mut self) {
        // Nodes before their hub.
        for started in self.0.iter_mut().rev() {
            if let Some(id) = rustix::process::Pid::from_raw(i32::try_from(started.child.id()).unwrap_or(0)) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            }
            let until = clock::monotonic() + END_WITHIN;
            while matches!(started.child.try_wait(), Ok(None)) && clock::monotonic() < until {
                std::thread::park_timeout(LOOK_EVERY);
            }
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

/// Runs one until it is told to stop.
///
/// # Errors
/// Why it does not start, or what of it ended.
pub fn run(options: &Dev) -> Result<(), DevError> {
    let directory = &options.data;
    std::fs::create_dir_all(directory.join("hub")).map_err(|error| DevError::Directory(directory.clone(), error))?;
    let mut all = All::default();
    let hub = start_hub(options, &mut all)?;
    let demo = free_port(None)?;
    let origin = options.origin.clone().unwrap_or_else(|| format!("http://{demo}"));
    let nodes = planned(options)?;
    if options.shield {
        write_key(directory)?;
    }
    for node in &nodes {
        let file = directory.join(format!("{}.toml", node.name));
        let text = configuration(node, hub, &origin);
        std::fs::write(&file, text).map_err(|error| DevError::Directory(file.clone(), error))?;
        let program = std::env::current_exe().map_err(DevError::Node)?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(format!("{}.toml", node.name)).current_dir(directory);
        all.start(&node.name, command, directory).map_err(DevError::Node)?;
    }
    for node in &nodes {
        all.await_up(&node.name, node.admin, || is_ready(node.admin))?;
    }
    let shown = options.clone();
    // What it says can be tried at once: the origin has to be there too, which begins last.
    std::thread::spawn(move || {
        while TcpStream::connect(demo).is_err() {
            std::thread::park_timeout(LOOK_EVERY);
        }
        banner(&shown, hub, &nodes);
    });
    let all = Arc::new(Mutex::new(all));
    let ended = Arc::new(Mutex::new(None));
    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        },
    );
    server.bootstrap();
    let mut service = Service::new("demo".into(), DemoOrigin::default());
    service.threads = Some(1);
    service.add_tcp(&demo.to_string());
    server.add_service(service);
    server.run(RunArgs { shutdown_signal: Box::new(Watch { all: all.clone(), ended: ended.clone() }) });
    drop(all);
    match ended.lock().take() {
        Some(name) => Err(DevError::Ended(name)),
        None => Ok(()),
    }
}

/// Starts the hub and sets it up.
fn start_hub(options: &Dev, all: &mut All) -> Result<SocketAddr, DevError> {
    let address = free_port(Some(4222))?;
    let known = SERVERS.into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(known.unwrap_or("nats-server"));
    command.args(["-a", "127.0.0.1", "-p", &address.port().to_string(), "-js", "-sd", "hub"]);
    command.current_dir(&options.data);
    all.start("hub", command, &options.data).map_err(DevError::Server)?;
    all.await_up("hub", address, || TcpStream::connect(address).is_ok())?;
    let hub = Hub { servers: vec![format!("nats://{address}")], name: "littoral dev".into(), ..Hub::default() };
    let runtime = tokio::runtime::Runtime::new().map_err(HubError::Runtime)?;
    runtime.block_on(async {
        let link = Link::connect(&hub).await.map_err(HubError::Link)?;
        streams::init(&link.context, 1).await.map_err(HubError::Init)
    })?;
    Ok(address)
}

/// The nodes there are to be: edges first.
fn planned(options: &Dev) -> Result<Vec<Planned>, DevError> {
    let shields = if options.shield { SHIELDS } else { 0 };
    let edges = (1..=options.nodes).map(|number| (EDGE, number));
    let all = edges.chain((1..=shields).map(|number| (SHIELD, number)));
    (1..).zip(all).map(|(port, (pop, number))| Planned::new(pop, number, port, options.shield)).collect()
}

/// Makes the key by which the nodes of this run know one another.
fn write_key(directory: &Path) -> Result<(), DevError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(DevError::Random)?;
    let file = directory.join(KEY);
    let failed = |error| DevError::Directory(file.clone(), error);
    // What was there has the rights it had.
    let _ = std::fs::remove_file(&file);
    let mut opened =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    opened.write_all(&key).map_err(failed)
}

/// `hub`: where it listens; `origin`: the URL of what is behind.
fn configuration(node: &Planned, hub: SocketAddr, origin: &str) -> String {
    let Planned { name, pop, http, admin, asks } = node;
    let (placed, shield) = match asks {
        false => (String::new(), String::new()),
        true => (
            format!("pop = \"{pop}\"\naddress = \"http://{http}\"\nkey_file = \"{KEY}\"\n"),
            format!("shield = \"{SHIELD}\"\n"),
        ),
    };
    format!(
        "workers = 1\n\n[node]\nname = \"{name}\"\n{placed}\n[listen]\nhttp = \"{http}\"\n\n[admin]\nlisten = \"{admin}\"\n\n\
         [cache]\nmemory = \"64MiB\"\n\n[purge]\nlog = {{ nats = \"nats://{hub}\" }}\ndata = \"{name}\"\n\n\
         [telemetry]\naccess_log = \"{name}.log\"\n\n[site.demo]\nhosts = \"*\"\norigins = \"{origin}\"\n{shield}"
    )
}

/// A port of loopback, this one if it is free.
fn free_port(wanted: Option<u16>) -> Result<SocketAddr, DevError> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = match wanted.map(|port| TcpListener::bind(at(port))) {
        Some(Ok(listener)) => listener,
        _ => TcpListener::bind(at(0)).map_err(DevError::Port)?,
    };
    listener.local_addr().map_err(DevError::Port)
}

impl All {
    fn start(&mut self, name: &str, mut command: Command, directory: &Path) -> std::io::Result<()> {
        let said = directory.join(format!("{name}.out"));
        let output = std::fs::File::create(&said)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn()?;
        self.0.push(Started { name: name.to_owned(), child, said });
        Ok(())
    }

    fn await_up(&mut self, name: &str, address: SocketAddr, is_up: impl Fn() -> bool) -> Result<(), DevError> {
        let until = clock::monotonic() + START_WITHIN;
        while !is_up() {
            if self.ended().is_some() || clock::monotonic() > until {
                let said = self.0.iter().find(|started| started.name == name).map(|started| started.said.clone());
                let said = said.and_then(|said| std::fs::read_to_string(said).ok()).unwrap_or_default();
                return Err(DevError::Silent(name.to_owned(), address, said));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// The first that has ended.
    fn ended(&mut self) -> Option<String> {
        let mut all = self.0.iter_mut();
        all.find_map(|started| matches!(started.child.try_wait(), Ok(Some(_))).then(|| started.name.clone()))
    }
}

/// Whether a node says that it serves clients.
fn is_ready(admin: SocketAddr) -> bool {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(START_WITHIN)).build().into();
    agent.get(format!("http://{admin}/readyz")).call().is_ok()
}

/// Watches over them until they are to end.
struct Watch {
    all: Arc<Mutex<All>>,
    ended: Arc<Mutex<Option<String>>>,
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            return ShutdownSignal::FastShutdown;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => return ShutdownSignal::FastShutdown,
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                () = tokio::time::sleep(LOOK_EVERY * 4) => {}
            }
            let ended = self.all.lock().ended();
            if ended.is_some() {
                *self.ended.lock() = ended;
                return ShutdownSignal::FastShutdown;
            }
        }
    }
}

fn banner(options: &Dev, hub: SocketAddr, nodes: &[Planned]) {
    eprintln!("littoral {}: {} nodes and a hub", env!("CARGO_PKG_VERSION"), nodes.len());
    eprintln!("  hub      nats://{hub}");
    for Planned { name, http, admin, .. } in nodes {
        eprintln!("  {name:<8} clients http://{http}, admin http://{admin}");
    }
    eprintln!("  files    {}", options.data.display());
    let edges: Vec<&Planned> = nodes.iter().filter(|node| node.pop == EDGE).collect();
    if options.shield { banner_of_tiers(options, nodes, &edges) } else { banner_of_edges(&edges) }
}

fn banner_of_edges(edges: &[&Planned]) {
    let [Planned { http: first, admin, .. }, .., Planned { http: last, .. }] = edges else { return };
    eprintln!("Try, twice on each, and look at Cache-Status:");
    eprintln!("  curl -i http://{first}/");
    eprintln!("  curl -i http://{last}/");
    eprintln!("Then purge on one, and look at the other:");
    eprintln!("  littoral purge --site demo --wait all --admin {admin}");
    eprintln!("  curl -i http://{last}/");
    eprintln!("  littoral node list --admin {admin}");
}

/// With one `Host`, or what two edges are asked for is not the same.
fn banner_of_tiers(options: &Dev, nodes: &[Planned], edges: &[&Planned]) {
    let ([first, ..], [.., last]) = (edges, edges) else { return };
    let Some(shield) = nodes.iter().find(|node| node.pop == SHIELD) else { return };
    let (one, other, admin) = (first.http, last.http, first.admin);
    eprintln!(
        "A miss at an edge goes to the edge that owns the object, that asks a shield, and that the origin. Try both, and look at"
    );
    eprintln!("Cache-Status: one member for each node, the one next to the client last. The origin is asked once:");
    eprintln!("  curl -i -H 'Host: demo.test' http://{one}/");
    eprintln!("  curl -i -H 'Host: demo.test' http://{other}/");
    eprintln!("Purge on an edge, and look again: all of them have forgotten it.");
    eprintln!("  littoral purge --site demo --wait all --admin {admin}");
    eprintln!("  curl -i -H 'Host: demo.test' http://{other}/");
    eprintln!("How the nodes stand, how often this one asked others, and what a shield was asked:");
    eprintln!("  littoral node list --admin {admin}");
    eprintln!("  curl -s http://{admin}/metrics | grep littoral_node_requests_total");
    eprintln!("  tail {}/{}.log", options.data.display(), shield.name);
}
