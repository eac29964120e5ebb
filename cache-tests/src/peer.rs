//! Real servers as origins: nginx from Debian, and programs run by Node.js.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::{Client, HOST};
use crate::deadline::until;
use crate::node::free_port;
use crate::process::{Process, Scratch};
use crate::tls::Identity;

const START: Duration = Duration::from_secs(10);

/// A real server. Dropping it ends it.
#[derive(Debug)]
pub struct Peer {
    port: u16,
    process: Process,
}

impl Peer {
    /// nginx serving the files below `root`, configured as plainly as can be; none when it is not installed.
    pub async fn nginx(root: &Path) -> Option<Self> {
        if !installed("nginx", "-v") {
            return None;
        }
        Some(Self::nginx_in(Scratch::new("nginx"), "", root).await)
    }

    /// nginx serving the files below `root` over TLS, HTTP/2 and HTTP/1.1; none when it is not installed.
    pub async fn nginx_with_tls(root: &Path) -> Option<Self> {
        if !installed("nginx", "-v") {
            return None;
        }
        let identity = Identity::of(&[HOST]);
        let scratch = Scratch::new("nginx-tls");
        scratch.write("server.pem", identity.certificate_pem.as_bytes());
        scratch.write("server.key", identity.key_pem.as_bytes());
        let server = "ssl http2; ssl_certificate server.pem; ssl_certificate_key server.key; \
                      ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on";
        Some(Self::nginx_in(scratch, server, root).await)
    }

    /// `script` run by Node.js with a port as its argument; none when Node.js is not installed.
    pub async fn node_js(script: &Path) -> Option<Self> {
        if !installed("node", "--version") {
            return None;
        }
        let port = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut command = Command::new("node");
        command.arg(script).arg(port.to_string());
        Some(Self::started("node", command, Scratch::new("node-js"), port).await)
    }

    /// Ends it with SIGKILL: it says goodbye to nobody.
    pub fn kill(&self) {
        self.process.signal("KILL");
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn nginx_in(scratch: Scratch, listen_and_more: &str, root: &Path) -> Self {
        let port = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let here = scratch.path().display();
        let configuration = format!(
            "daemon off; pid {here}/pid; error_log stderr; worker_processes 1; events {{}}\n\
             http {{ access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             server {{ listen 127.0.0.1:{port} {listen_and_more}; root {}; autoindex on; }} }}\n",
            root.display()
        );
        scratch.write("nginx.conf", configuration.as_bytes());
        let mut command = Command::new("nginx");
        command.arg("-p").arg(scratch.path()).arg("-c").arg(scratch.path().join("nginx.conf"));
        Self::started("nginx", command, scratch, port).await
    }

    async fn started(name: &str, command: Command, scratch: Scratch, port: u16) -> Self {
        let mut process = Process::start(name, command, scratch);
        until(START, &format!("{name} listens"), || {
            if let Some(status) = process.ended() {
                panic!("{name} ended: {status}\n{}", process.said());
            }
            async move {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                Client::connect_with(address, Default::default()).await.map(drop).map_err(|error| error.to_string())
            }
        })
        .await;
        Self { port, process }
    }
}

/// Says loudly that a test did nothing because `program` is missing.
///
/// # Panics
/// Under CI, where nothing may be missing.
pub fn skipped_without(program: &str) {
    assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI must not skip its test");
    eprintln!("=====================================================================");
    eprintln!("SKIPPED, NOTHING TESTED: {program} is not installed");
    eprintln!("=====================================================================");
}

fn installed(program: &str, question: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(question).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
