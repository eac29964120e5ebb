//! An authority that issues certificates by ACME: Let's Encrypt's `pebble`, from Debian, which asks one node at one name server.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::client::Client;
use crate::deadline::until;
use crate::name_server::NameServer;
use crate::node::{Node, free_port};
use crate::process::{Process, Scratch};
use crate::tls::{HTTP_1_1, Identity, Tls};

const START: Duration = Duration::from_secs(10);

/// Where it will listen, for nodes that start before it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    directory: SocketAddr,
    management: SocketAddr,
}

impl Default for Place {
    fn default() -> Self {
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST.into())));
        Self { directory: free(), management: free() }
    }
}

impl Place {
    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.directory)
    }
}

/// A running authority.
#[derive(Debug)]
pub struct Pebble {
    place: Place,
    process: Process,
}

impl Pebble {
    /// Starts it. `node`: whose ports it asks at, wherever a name leads.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub async fn start(place: Place, node: &Node, names: &NameServer) -> Self {
        let scratch = Scratch::new("pebble");
        let identity = Identity::of(&["127.0.0.1"]);
        scratch.write("cert.pem", identity.certificate_pem.as_bytes());
        scratch.write("key.pem", identity.key_pem.as_bytes());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": place.directory.to_string(),
            "managementListenAddress": place.management.to_string(),
            "certificate": "cert.pem",
            "privateKey": "key.pem",
            "httpPort": node.address().port(),
            "tlsPort": node.tls_address().port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        } });
        scratch.write("pebble.json", config.to_string().as_bytes());
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json", "-dnsserver", &names.address().to_string()]);
        // It neither waits before it looks, nor takes an earlier look for a new one.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let pebble = Self { place, process: Process::start("pebble", command, scratch) };
        until(START, "pebble listens", || async {
            tokio::net::TcpStream::connect(place.management).await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
        pebble
    }

    /// What it vouches with.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn root(&self) -> CertificateDer<'static> {
        let tls = Tls::offering(&[HTTP_1_1]).trusting_anyone().to("localhost");
        let stream = tls.connect(self.place.management).await.expect("pebble speaks TLS");
        let mut client = Client::on(stream);
        let response = client.get("/roots/0").await;
        CertificateDer::from_pem_slice(&response.body).expect("a certificate in PEM")
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        self.process.said().matches("Issued certificate serial").count()
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        self.process.said()
    }
}
