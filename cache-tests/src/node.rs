//! A Littoral node under test: started like an operator starts it, seen through what an operator sees.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, Socket};
use crate::configuration::{Addresses, Configuration, FILE};
use crate::deadline::{PATIENCE, until};
use crate::h2::polite::Polite;
use crate::h2::raw::Raw;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::process::{Process, Scratch};
pub use crate::program::{binary, free_port, run_to_the_end};
use crate::response::Response;
use crate::tls::{H2, HTTP_1_1, Tls};

/// How long a node may take to be ready.
const START: Duration = Duration::from_secs(30);

/// Has the configuration file read again.
const RELOAD: &str = "/v1/config/reload";

const ACCESS_LOG: &str = "access.log";

/// The command line of a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    configuration: Option<Configuration>,
    listen: IpAddr,
    /// Where it speaks HTTP. None: on a free port.
    http: Option<SocketAddr>,
    locking: Locking,
    /// What is done first, as a shell has it.
    before: Option<String>,
    program: Option<PathBuf>,
}

/// What a node has of the [`Machine`].
#[derive(Clone, Copy, Debug)]
enum Locking {
    None,
    Shared,
    Alone,
}

impl NodeOptions {
    /// In front of `origin`, with the settings most tests want.
    pub fn before(origin: &Origin) -> Self {
        Self::before_url(&origin.url())
    }

    pub fn before_url(origin: &str) -> Self {
        Self::embedded()
            .with("--origin", origin)
            .with("--memory", "256MiB")
            .with("--disk", "off")
            .with("--workers", "2")
            .with("--access-log", ACCESS_LOG)
    }

    /// What a newcomer has: no origin, no setting.
    pub fn embedded() -> Self {
        let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            configuration: None,
            listen,
            http: None,
            locking: Locking::Shared,
            before: None,
            program: None,
        }
    }

    /// With a configuration file of this content, see [`Configuration::new`]: HTTP, TLS and the admin address.
    pub fn configured(origin: &Origin, text: &str) -> Self {
        Self::configured_before(&origin.url(), text)
    }

    pub fn configured_before(origin: &str, text: &str) -> Self {
        Self { configuration: Some(Configuration::new(origin, text)), ..Self::embedded() }
    }

    /// Adds a file beside the configuration file.
    pub fn file(mut self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        self.configuration.as_mut().expect("a configured node").add(name, contents.as_ref());
        self
    }

    /// Sets `option`, in place of an earlier value.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        match self.arguments.iter().position(|argument| argument == option) {
            Some(at) => value.clone_into(&mut self.arguments[at + 1]),
            None => self.arguments.extend([option.to_owned(), value.to_owned()]),
        }
        self
    }

    /// Sets a variable of the node's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the test move the node's clock.
    pub fn test_clock(mut self) -> Self {
        self.arguments.push("--unsafe-test-clock".to_owned());
        self
    }

    /// Sends the origin the client's `Host`.
    pub fn preserve_host(mut self) -> Self {
        self.arguments.push("--preserve-host".to_owned());
        self
    }

    pub fn listening_on(mut self, address: IpAddr) -> Self {
        self.listen = address;
        self
    }

    /// It speaks HTTP there, and says there how it stands.
    ///
    /// # Panics
    /// When the node has no configuration file.
    pub fn at(mut self, http: SocketAddr, health: &[SocketAddr]) -> Self {
        (self.listen, self.http) = (http.ip(), Some(http));
        self.configuration.as_mut().expect("a configured node").answer_health(health);
        self
    }

    /// Starts the node behind a command of the shell that sees it as root of file systems of its own (a user namespace):
    /// what is mounted there is for this node alone.
    pub fn behind(mut self, command: &str) -> Self {
        self.before = Some(command.to_owned());
        self
    }

    /// Starts this program in place of [`binary`]: a copy of it that a test can replace.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// No other node runs beside this one: for tests that measure.
    pub fn alone(mut self) -> Self {
        self.locking = Locking::Alone;
        self
    }

    /// For a test that holds the machine itself, for several nodes.
    pub fn within(mut self, _machine: &Machine) -> Self {
        self.locking = Locking::None;
        self
    }

    /// # Panics
    /// When the node is not ready in time; the message has what it said.
    pub async fn start(self) -> Node {
        Node::start(self).await
    }
}

/// A running node. Dropping it ends it.
#[derive(Debug)]
pub struct Node {
    pub(crate) process: Process,
    addresses: Addresses,
    configuration: Option<Configuration>,
    machine: Option<Machine>,
}

/// Ports tried for one node.
const STARTS_MAX: u32 = 5;

impl Node {
    /// # Panics
    /// When the node is not ready in time; the message has what it said.
    pub async fn start(options: NodeOptions) -> Self {
        let mut machine = match options.locking {
            Locking::None => None,
            Locking::Shared => Some(Machine::shared()),
            Locking::Alone => Some(Machine::alone()),
        };
        let mut left = STARTS_MAX;
        loop {
            let free = |ip: IpAddr| SocketAddr::new(ip, free_port(ip));
            let (http, https) = (options.http.unwrap_or_else(|| free(options.listen)), free(options.listen));
            let addresses = Addresses { http, https, admin: free(Ipv4Addr::LOCALHOST.into()) };
            let scratch = Scratch::new("node");
            let mut command = match &options.before {
                None => Command::new(options.program.clone().unwrap_or_else(binary)),
                Some(before) => {
                    let mut shell = Command::new("unshare");
                    shell.args(["-rm", "sh", "-c", &format!("{before} && exec \"$@\""), "sh"]).arg(binary());
                    shell
                }
            };
            command.arg("run").args(&options.arguments).envs(options.environment.iter().cloned());
            match &options.configuration {
                Some(configuration) => {
                    configuration.write(&scratch, addresses);
                    command.args(["--config", FILE]);
                }
                None => {
                    command.args(["--listen", &http.to_string(), "--admin", &addresses.admin.to_string()]);
                }
            }
            let process = Process::start("littoral", command, scratch);
            let mut node = Self { process, addresses, configuration: options.configuration.clone(), machine };
            left -= 1;
            if node.ready(left > 0).await {
                return node;
            }
            machine = node.give_up();
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Where a configured node speaks TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.addresses.https
    }

    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// A new connection to the node.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A new connection for HTTP/1 over TLS.
    ///
    /// # Panics
    /// When there is no handshake.
    pub async fn tls_client(&self) -> Client {
        let stream = Tls::offering(&[HTTP_1_1]).connect(self.tls_address()).await;
        Client::on(stream.unwrap_or_else(|error| panic!("TLS to {}: {error}", self.tls_address())))
    }

    /// A new connection of a good client of HTTP/2.
    ///
    /// # Panics
    /// When the node does not speak it.
    pub async fn h2(&self) -> Polite {
        let stream = Tls::offering(&[H2]).connect(self.tls_address()).await;
        let stream = stream.unwrap_or_else(|error| panic!("TLS to {}: {error}", self.tls_address()));
        Polite::open(stream).await.unwrap_or_else(|error| panic!("HTTP/2 to {}: {error}", self.tls_address()))
    }

    /// A new connection of a client of HTTP/2 that does as it likes, with these settings.
    ///
    /// # Panics
    /// When there is no handshake.
    pub async fn raw_h2(&self, settings: &[(u16, u32)]) -> Raw {
        let stream = Tls::offering(&[H2]).connect(self.tls_address()).await;
        let stream = stream.unwrap_or_else(|error| panic!("TLS to {}: {error}", self.tls_address()));
        Raw::open(stream, settings).await.unwrap_or_else(|error| panic!("{}: {error}", self.tls_address()))
    }

    /// GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        self.client().await.get(target).await
    }

    /// GET on the admin address.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn admin_get(&self, target: &str) -> Result<Response, String> {
        admin_ask(self.admin(), "GET", target).await
    }

    /// POST without a body on the admin address.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn admin_post(&self, target: &str) -> Result<Response, String> {
        admin_ask(self.admin(), "POST", target).await
    }

    /// A request with JSON on the admin address, with a token if there is one.
    ///
    /// # Panics
    /// When nobody answers there.
    pub async fn admin_json(&self, method: &str, target: &str, body: &Value, token: Option<&str>) -> Response {
        let admin = self.admin();
        let mut client = Client::connect(admin).await;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n{token}", body.len());
        let sent = client.send(format!("{head}Connection: close\r\n\r\n{body}")).await;
        sent.unwrap_or_else(|error| panic!("{target}: {error}"));
        client.response(method).await.unwrap_or_else(|end| panic!("{target}: no answer: {end:?}"))
    }

    /// Purges, and gives the receipt.
    ///
    /// # Panics
    /// When the node does not.
    pub async fn purge(&self, body: &Value) -> Value {
        let response = self.admin_json("POST", "/v1/purge", body, None).await;
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        response.json()
    }

    /// Ends the node at once: nothing that it still has in mind is done.
    pub async fn kill(mut self) {
        self.process.signal("KILL");
        self.process.end_within(PATIENCE).await;
    }

    /// # Panics
    /// When the metrics cannot be had or read.
    pub async fn metrics(&self) -> Metrics {
        let response = self.admin_get("/metrics").await.unwrap_or_else(|error| panic!("/metrics: {error}"));
        assert_eq!(response.status, 200, "/metrics");
        let text = String::from_utf8(response.body.to_vec()).expect("metrics are UTF-8");
        Metrics::parse(&text).unwrap_or_else(|error| panic!("/metrics: {error}\n{text}"))
    }

    /// The access log by now, line by line.
    pub fn log_text(&self) -> String {
        self.process.scratch().read(ACCESS_LOG)
    }

    /// Waits until the access log has `count` lines, and gives them all.
    ///
    /// # Panics
    /// When they do not come, or one is not a JSON object.
    pub async fn log_lines(&self, count: usize) -> Vec<Value> {
        let text = until(PATIENCE, &format!("{count} lines in the access log"), || async {
            let text = self.log_text();
            let complete = text.ends_with('\n') || text.is_empty();
            if text.lines().count() >= count && complete { Ok(text) } else { Err(text) }
        })
        .await;
        text.lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(Value::Object(record)) => Value::Object(record),
                other => panic!("no JSON object in the access log: {line:?}: {other:?}"),
            })
            .collect()
    }

    /// Moves the node's clock; needs [`NodeOptions::test_clock`].
    ///
    /// # Panics
    /// When the node does not let us.
    pub async fn advance_clock(&self, by: Duration) {
        let target = format!("/test/clock?advance_ms={}", by.as_millis());
        let response = self.admin_post(&target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
        assert!((200..300).contains(&response.status), "{target}: {} {}", response.status, response.text());
    }

    /// Where a file of the node's is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.process.scratch().path().join(name)
    }

    /// Replaces a file beside the configuration.
    pub fn write_file(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.process.scratch().write(name, contents.as_ref());
    }

    /// Replaces the test's part of the configuration file; the node is not told.
    ///
    /// # Panics
    /// When the node has no configuration file.
    pub fn write_configuration(&self, text: &str) {
        let configuration = self.configuration.as_ref().expect("a configured node");
        self.write_file(FILE, configuration.with_text(text, self.addresses));
    }

    /// Replaces the test's part of the configuration file, and has it read by way of the admin address.
    ///
    /// # Panics
    /// When nobody answers there.
    pub async fn reload(&self, text: &str) -> Response {
        self.write_configuration(text);
        self.admin_post(RELOAD).await.unwrap_or_else(|error| panic!("{RELOAD}: {error}"))
    }

    /// Has the configuration file read, by signal.
    pub fn hang_up(&self) {
        self.process.signal("HUP");
    }

    /// Asks the node to end, and returns at once.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Sends the first process a signal.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// The process that was started first.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub async fn end_within(&mut self, limit: Duration) -> ExitStatus {
        self.process.end_within(limit).await
    }

    /// # Panics
    /// When the node is gone.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.process.ended() {
            panic!("the node ended by itself: {status}\n{}", self.process.said());
        }
    }

    /// Everything the node printed so far.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Resident memory, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {path}"));
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB");
        kib * 1_024
    }

    /// Waits until the node is ready. False: its port was taken, which a test that `may_retry` tries again with others;
    /// a process that is just being started by another test holds a copy of every socket that is open at that moment.
    async fn ready(&mut self, may_retry: bool) -> bool {
        let admin = self.admin();
        until(START, "readiness (GET /readyz on the admin address)", || {
            let taken =
                may_retry && self.process.ended().is_some() && self.process.said().contains("Address already in use");
            if !taken {
                self.assert_alive();
            }
            async move {
                if taken {
                    return Ok(false);
                }
                match admin_ask(admin, "GET", "/readyz").await {
                    Ok(response) if response.status == 200 => Ok(true),
                    Ok(response) => Err(format!("{admin} says {}", response.status)),
                    Err(error) => Err(error),
                }
            }
        })
        .await
    }

    fn give_up(self) -> Option<Machine> {
        self.machine
    }
}

async fn admin_ask(admin: SocketAddr, method: &str, target: &str) -> Result<Response, String> {
    let mut client = Client::connect_with(admin, Socket::default()).await.map_err(|error| error.to_string())?;
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {admin}\r\n{length}Connection: close\r\n\r\n");
    client.send(request).await.map_err(|error| error.to_string())?;
    client.response(method).await.map_err(|end| format!("no answer: {end:?}"))
}
