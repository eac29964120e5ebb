//! A gdnsd of a test's own: what `littoral dns render` wrote is what it runs with, and who asks it are `dig` and a resolver here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use crate::deadline::until;
use crate::node::{binary, free_port};
use crate::process::{Process, Scratch};

/// How long it may take to listen: it looks at every node once before.
const START: Duration = Duration::from_secs(15);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// A directory of files, and the server that runs with them.
#[derive(Debug)]
pub struct Gdnsd {
    address: SocketAddr,
    directory: Scratch,
    process: Option<Process>,
}

/// Addresses, and for how many seconds they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub addresses: Vec<IpAddr>,
    pub seconds: u32,
}

impl Gdnsd {
    /// Nothing but a directory yet.
    pub fn new() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST.into())));
        Self { address, directory: Scratch::new("gdnsd"), process: None }
    }

    /// Adds a file, by its path in its directory.
    pub fn write(&self, name: &str, contents: &[u8]) {
        self.directory.write(name, contents);
    }

    pub fn read(&self, name: &str) -> String {
        self.directory.read(name)
    }

    /// Has `littoral` write its files. Gives what was said.
    ///
    /// # Panics
    /// When it does not, or gdnsd does not take them.
    pub fn render(&self, configuration: &Path, more: &[&str]) -> String {
        let output = self.try_render(configuration, more);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let checked = self.command("gdnsd", &["-S", "checkconf"]).output().expect("gdnsd runs");
        assert!(checked.status.success(), "checkconf: {}", String::from_utf8_lossy(&checked.stderr));
        said
    }

    /// The same, whatever comes of it.
    ///
    /// # Panics
    /// When `littoral` does not start.
    pub fn try_render(&self, configuration: &Path, more: &[&str]) -> Output {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new("timeout");
        command.arg("30").arg(binary()).args(["dns", "render", "--for", "gdnsd", "--config"]).arg(configuration);
        command.args(["--out", &path(""), "--listen", &self.address.to_string()]);
        command.args(["--run-dir", &path("run"), "--state-dir", &path("state")]).args(more);
        command.output().unwrap_or_else(|error| panic!("littoral does not start: {error}"))
    }

    /// # Panics
    /// When it does not listen in time.
    pub async fn start(&mut self) {
        let process = Process::start("gdnsd", self.command("gdnsd", &["start"]), Scratch::new("gdnsd-said"));
        let process = self.process.insert(process);
        until(START, "gdnsd to listen", || {
            let said = process.said();
            let ended = process.ended();
            async move {
                assert!(ended.is_none(), "gdnsd ended: {said}");
                if said.contains("DNS listeners started") { Ok(()) } else { Err(said) }
            }
        })
        .await;
    }

    /// Has it do something: `reload-zones`, `replace`.
    ///
    /// # Panics
    /// When it does not.
    pub fn control(&self, action: &str) {
        let output = self.command("gdnsdctl", &[action]).output().expect("gdnsdctl runs");
        assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let installed = ["/usr/sbin", "/usr/bin"].map(|directory| PathBuf::from(directory).join(name));
        let path = installed.into_iter().find(|path| path.is_file()).unwrap_or_else(|| name.into());
        let mut command = Command::new(path);
        command.arg("-c").arg(self.directory.path()).args(arguments);
        command
    }

    /// What `dig` says, line by line: `kind` is A or AAAA, `subnet` the client that a resolver asks for.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn dig(&self, name: &str, kind: &str, subnet: Option<&str>) -> Vec<String> {
        let mut command = Command::new("dig");
        command.args(["+short", "+tries=2", "+time=2", "-p", &self.address.port().to_string()]);
        command.args([&format!("@{}", self.address.ip()), name, kind]);
        if let Some(subnet) = subnet {
            command.arg(format!("+subnet={subnet}"));
        }
        let output = command.output().unwrap_or_else(|error| panic!("dig does not start: {error}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "dig {name} {kind}: {said}");
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Asks for the IPv4 addresses of a name. None: there is no such name.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn resolve(&self, name: &str) -> Option<Answer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
        socket.connect(self.address).await.expect("a socket can be connected");
        let mut question = Message::new(1, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_utf8(format!("{name}.")).expect("a name"), RecordType::A));
        let question = question.to_vec().expect("a question can be written");
        let mut buffer = [0; 4_096];
        // A datagram may be lost.
        let what = format!("an answer about {name}");
        until(ANSWER * 3, &what, || async {
            let sent = socket.send(&question).await;
            sent.map_err(|error| error.to_string())?;
            let received = tokio::time::timeout(ANSWER, socket.readable()).await;
            received.map_err(|_| "nothing came".to_owned())?.map_err(|error| error.to_string())
        })
        .await;
        let length = socket.recv(&mut buffer).await.expect("an answer can be read");
        let answer = Message::from_vec(&buffer[..length]).expect("an answer is a message");
        if answer.metadata.response_code == ResponseCode::NXDomain {
            return None;
        }
        let seconds = answer.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        };
        let addresses = answer.answers.iter().filter_map(|record| address(&record.data)).collect();
        Some(Answer { addresses, seconds })
    }
}

impl Drop for Gdnsd {
    fn drop(&mut self) {
        // One that has replaced itself is no child of ours any more.
        if self.process.is_some() {
            let _ = self.command("gdnsdctl", &["-i", "-t", "5", "stop"]).output();
        }
    }
}

impl Default for Gdnsd {
    fn default() -> Self {
        Self::new()
    }
}
