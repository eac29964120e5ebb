//! A node's configuration file: a test writes what it is about, the rest is filled in here.

use std::net::SocketAddr;

use crate::client::HOST;
use crate::process::Scratch;
use crate::tls::Identity;

/// The file, in the node's directory.
pub const FILE: &str = "edge.toml";

/// A certificate for [`HOST`] and every name below `wild.example.test`.
pub const CERTIFICATE: &str = "www.pem";
pub const KEY: &str = "www.key";

/// What a test says, and the files beside it.
#[derive(Clone, Debug)]
pub struct Configuration {
    origin: String,
    text: String,
    files: Vec<(String, Vec<u8>)>,
    /// Where anybody may ask whether the node is ready.
    health: Vec<SocketAddr>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
}

impl Configuration {
    /// `{origin}` in `text` stands for the origin's URL, `{http}` and `{https}` for where the node listens. Without a `[site.*]` the origin is everyone's; without `[tls]`
    /// there is one certificate, in [`CERTIFICATE`] and [`KEY`].
    pub fn new(origin: &str, text: &str) -> Self {
        let identity = Identity::of(&[HOST, "*.wild.example.test"]);
        let files = vec![
            (CERTIFICATE.to_owned(), identity.certificate_pem.into_bytes()),
            (KEY.to_owned(), identity.key_pem.into_bytes()),
        ];
        Self { origin: origin.to_owned(), text: text.to_owned(), files, health: Vec::new() }
    }

    /// Adds a file, by its path relative to the configuration.
    pub fn add(&mut self, name: &str, contents: &[u8]) {
        self.files.push((name.to_owned(), contents.to_vec()));
    }

    /// Listens there for whoever may only ask how the node stands.
    pub fn answer_health(&mut self, addresses: &[SocketAddr]) {
        self.health = addresses.to_vec();
    }

    /// The whole file, with another text of the test's.
    pub fn with_text(&self, text: &str, addresses: Addresses) -> String {
        let Addresses { http, https, admin } = addresses;
        let mut whole = format!("workers = 2\n[listen]\nhttp = \"{http}\"\nhttps = \"{https}\"\n");
        if !self.health.is_empty() {
            let health: Vec<String> = self.health.iter().map(|address| format!("\"{address}\"")).collect();
            whole += &format!("health = [{}]\n", health.join(", "));
        }
        whole += &format!("[admin]\nlisten = \"{admin}\"\n");
        whole += "[telemetry]\naccess_log = \"access.log\"\n";
        for (table, otherwise) in [
            ("[cache]", "memory = \"256MiB\"".to_owned()),
            ("[tls]", format!("certificates = [{{ certificate = \"{CERTIFICATE}\", key = \"{KEY}\" }}]")),
        ] {
            if !text.contains(table) {
                whole += &format!("{table}\n{otherwise}\n");
            }
        }
        whole += text;
        if !text.contains("[site.") {
            whole += "\n[site.main]\nhosts = [\"*\"]\norigins = [\"{origin}\"]\n";
        }
        let listeners = [("{http}", http), ("{https}", https)];
        let whole = whole.replace("{origin}", &self.origin);
        listeners.iter().fold(whole, |whole, (name, address)| whole.replace(name, &address.to_string()))
    }

    /// Writes it and everything beside it.
    pub fn write(&self, scratch: &Scratch, addresses: Addresses) {
        scratch.write(FILE, self.with_text(&self.text, addresses).as_bytes());
        for (name, contents) in &self.files {
            scratch.write(name, contents);
        }
    }
}
