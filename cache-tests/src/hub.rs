//! A hub of a test: a `nats-server` that can be killed, started again and given another store; and a wire to it that can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::deadline::until;
use crate::node::{binary, free_port};
use crate::process::{Process, Scratch};
use crate::tls::{Identity, authority_pem};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// A server and its store.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    store: Scratch,
    process: Option<Process>,
    /// What its configuration says of TLS and users.
    secured: Option<Secured>,
}

/// TLS with a certificate of the test's own, an operator, and a node that may no more than it needs.
#[derive(Debug)]
struct Secured {
    files: Scratch,
    configuration: String,
}

/// The files of a secured hub: the authority that vouches for it.
const CA: &str = "ca.pem";
/// Who sets it up, and with which password.
pub const OPERATOR: &str = "operator:for-operators";
/// The password of the user `node`.
pub const NODE_PASSWORD: &str = "for-nodes";

impl Hub {
    /// A server with an empty store, set up as an operator does it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let mut hub = Self::bare().await;
        hub.init();
        hub.await_listening().await;
        hub
    }

    /// A server without streams.
    pub async fn bare() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST.into())));
        let mut hub = Self { address, store: Scratch::new("hub-store"), process: None, secured: None };
        hub.start_again().await;
        hub
    }

    /// A server that speaks TLS and knows users, set up by its operator.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn secured() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST.into())));
        let (store, files) = (Scratch::new("hub-store"), Scratch::new("hub-files"));
        let identity = Identity::of(&["127.0.0.1"]);
        files.write(CA, authority_pem().as_bytes());
        files.write("hub.pem", identity.certificate_pem.as_bytes());
        files.write("hub.key", identity.key_pem.as_bytes());
        let (certificate, key) = (files.path().join("hub.pem"), files.path().join("hub.key"));
        let configuration = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: {:?} }}\ntls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n\
             authorization {{ users: [\n\
             {{ user: operator, password: \"for-operators\" }},\n\
             {{ user: node, password: \"{NODE_PASSWORD}\", permissions: {{\n\
             publish: [\"purge.>\", \"node.>\", \"config.>\", \"$KV.CERTIFICATES.>\", \"$JS.API.>\", \"_INBOX.>\"], subscribe: [\"_INBOX.>\"] }} }}\n] }}\n",
            store.path()
        );
        let secured = Some(Secured { files, configuration });
        let mut hub = Self { address, store, process: None, secured };
        hub.start_again().await;
        hub.init();
        hub
    }

    /// The authority that vouches for a secured one.
    ///
    /// # Panics
    /// When it is not.
    pub fn ca(&self) -> PathBuf {
        self.secured.as_ref().expect("a secured hub").files.path().join(CA)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        let scheme = if self.secured.is_some() { "tls" } else { "nats" };
        format!("{scheme}://{}", self.address)
    }

    /// Makes the streams.
    ///
    /// # Panics
    /// When `littoral hub init` does not.
    pub fn init(&mut self) {
        let mut command = Command::new("timeout");
        command.arg("20").arg(binary()).args(["hub", "init", "--nats", &self.url()]);
        if self.secured.is_some() {
            command.args(["--user", OPERATOR, "--ca"]).arg(self.ca());
        }
        let output = command.output().unwrap_or_else(|error| panic!("littoral does not start: {error}"));
        assert!(output.status.success(), "hub init: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it at once, if it runs.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("KILL");
            process.end_within(START).await;
        }
    }

    /// Starts it on what it has stored.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub async fn start_again(&mut self) {
        let mut command = Command::new(server());
        match &self.secured {
            Some(secured) => {
                secured.files.write("hub.conf", secured.configuration.as_bytes());
                command.arg("-c").arg(secured.files.path().join("hub.conf"));
            }
            None => {
                command.args(["-a", "127.0.0.1", "-p", &self.address.port().to_string(), "-js", "-sd"]);
                command.arg(self.store.path());
            }
        }
        self.process = Some(Process::start("nats-server", command, Scratch::new("hub")));
        self.await_listening().await;
    }

    async fn await_listening(&mut self) {
        let address = self.address;
        until(START, "a hub that listens", || async move {
            let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.map_err(|error| error.to_string())?;
            if &greeting == b"INFO " { Ok(()) } else { Err(format!("{greeting:?}")) }
        })
        .await;
    }

    /// A copy of what it has stored by now. Kill it first, or it is not whole.
    pub fn saved(&self) -> Scratch {
        let copy = Scratch::new("hub-saved");
        copy_all(self.store.path(), copy.path());
        copy
    }

    /// Puts what was saved in the place of what is stored. Kill it first.
    pub fn restore(&mut self, saved: &Scratch) {
        let _ = std::fs::remove_dir_all(self.store.path());
        copy_all(saved.path(), self.store.path());
    }

    /// A client of the hub, to do what an operator would.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn client(&self) -> Context {
        let client = async_nats::connect(self.url()).await.unwrap_or_else(|error| panic!("{}: {error}", self.url()));
        jetstream::new(client)
    }
}

fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}

fn server() -> PathBuf {
    let known = ["/usr/sbin/nats-server", "/usr/bin/nats-server"].map(PathBuf::from);
    known.into_iter().find(|path| path.is_file()).unwrap_or_else(|| "nats-server".into())
}

/// What becomes of what passes a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It arrives.
    No,
    /// Nothing arrives, and nobody is told: connections stay as they are.
    BlackHole,
    /// Connections end at once, and new ones too.
    Reset,
}

/// A wire to a hub, through which nodes connect. It ends with the test's runtime.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    cut: watch::Sender<Cut>,
}

impl Wire {
    /// # Panics
    /// When there is no port.
    pub async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cut, seen) = watch::channel(Cut::No);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, hub, seen.clone()));
            }
        });
        Self { address, cut }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn cut(&self, cut: Cut) {
        self.cut.send_replace(cut);
    }
}

async fn carry(near: TcpStream, hub: SocketAddr, mut cut: watch::Receiver<Cut>) {
    let mut reset = cut.clone();
    let carried = async {
        if cut.wait_for(|cut| *cut == Cut::No).await.is_err() {
            return;
        }
        let Ok(far) = TcpStream::connect(hub).await else { return };
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let there = pass(near_read, far_write, cut.clone());
        let back = pass(far_read, near_write, cut.clone());
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = reset.wait_for(|cut| *cut == Cut::Reset) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<Cut>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || cut.wait_for(|cut| *cut == Cut::No).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
