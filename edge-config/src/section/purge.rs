//! `[purge]`: the log of purges.

use std::path::PathBuf;

use super::secret::{Secret, text_or_file};
use super::tls::CertificateFiles;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};

/// The log of purges, and how fast it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Who keeps the log.
    pub log: Log,
    /// The directory the log is in. None: what `STATE_DIRECTORY` of the environment says, else `.littoral`.
    pub data: Option<PathBuf>,
    /// What a site may purge in a second, and at once.
    pub rate: u32,
}

/// Who keeps the log of purges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Log {
    /// This node, on its own disk.
    #[default]
    Local,
    /// A hub that many nodes follow.
    Nats(Box<Hub>),
}

/// A hub: servers of NATS with JetStream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hub {
    pub servers: Vec<String>,
    /// A file with the node's JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Authorities that may vouch for it, beside those of the system.
    pub ca: Option<PathBuf>,
    /// What the node shows it.
    pub certificate: Option<CertificateFiles>,
}

/// Servers of one hub.
const SERVERS_MAX: usize = 32;

/// Selectors a second: a site that purges each of its pages as they change stays far below.
const RATE: u32 = 2_000;
pub(crate) const RATE_MAX: u32 = 1_000_000;

impl Default for Purge {
    fn default() -> Self {
        Self { log: Log::Local, data: None, rate: RATE }
    }
}

impl Purge {
    /// The directory where the node keeps what must outlive it.
    pub fn directory(&self) -> PathBuf {
        // systemd separates several by colons; the first is the unit's own.
        let state = || {
            let all = std::env::var("STATE_DIRECTORY").ok()?;
            all.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        self.data.clone().or_else(state).unwrap_or_else(|| ".littoral".into())
    }
}

section! {
    /// The log of purges.
    PURGE = "[purge]" {
        /// Where the log is: "local", on this node's own disk, or a hub that all nodes of a CDN follow.
        LOG = "log": Kind::Any(&[Kind::Choice(&["local"]), Kind::Table(&HUB)]), "local";
        /// The directory the log is in. Absent: STATE_DIRECTORY of the environment, which systemd sets, else .littoral in the
        /// directory the node was started in. Only one node may use it.
        DATA = "data": Kind::Text("a directory");
        /// How many selectors a site may purge in a second, and at once after a pause.
        RATE_KEY = "rate": Kind::Integer(1, RATE_MAX), "2000";
    }
}

section! {
    /// The hub that all nodes follow: servers of NATS (2.9 or later) with JetStream. `littoral hub init` sets one up.
    HUB = "a hub" {
        /// Its servers, nats://HOST:PORT each, or tls://HOST:PORT. Any of them will do at any time.
        NATS = "nats": Kind::Many(&Kind::Text("a URL, nats://host:port or tls://host:port"));
        /// The file with this node's JWT and seed, as `nsc` makes it.
        CREDENTIALS = "credentials": Kind::Text("a file");
        /// The name this node is known by to the hub, where that knows names and passwords.
        USER = "user": Kind::Text("a name");
        /// The password of that name.
        PASSWORD = "password": Kind::Any(&[Kind::Text("a password"), Kind::Table(&super::secret::SECRET_FILE)]);
        /// A PEM file of authorities that may vouch for the hub, beside those of the system.
        CA = "ca": Kind::Text("a file");
        /// A PEM file of the certificate this node shows the hub.
        CERTIFICATE = "certificate": Kind::Text("a file");
        /// A PEM file of the key of that certificate.
        KEY = "key": Kind::Text("a file");
    }
}

impl Log {
    fn read(table: &Table<'_>, reader: &mut Reader) -> Self {
        let Some(value) = table.value(&LOG) else { return Self::Local };
        if value.entries().is_none() {
            let () = reader.choice(&LOG, value, &[("local", ())]).unwrap_or_default();
            return Self::Local;
        }
        Hub::read(value, reader).map_or(Self::Local, |hub| Self::Nats(Box::new(hub)))
    }
}

impl Hub {
    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Self> {
        let table = reader.as_table(&LOG, &HUB, "a hub".into(), value)?;
        let servers = table.many(reader, &NATS, |reader, value| server(reader, value));
        table.required(reader, &NATS, servers.is_empty());
        if servers.len() > SERVERS_MAX {
            let message = format!("{} servers, expected at most {SERVERS_MAX}", servers.len());
            reader.wrong(&table.span, message, "too many", NATS.summary());
        }
        let user = table.parsed::<String>(reader, &USER).map(|user| user.value);
        let password = table.value(&PASSWORD).and_then(|value| text_or_file(reader, &PASSWORD, value));
        if user.is_some() != table.value(&PASSWORD).is_some() {
            let help = "name both, or `credentials` in place of them";
            reader.wrong(&table.span, "`user` and `password` go together", "one of them is missing", help);
        }
        let hub = Self {
            servers,
            credentials: table.required_if_there(reader, &CREDENTIALS, "BEGIN NATS USER JWT"),
            user,
            password,
            ca: table.required_if_there(reader, &CA, "BEGIN CERTIFICATE"),
            certificate: super::talking::certificate_of(&table, reader, &CERTIFICATE, &KEY),
        };
        table.finish(reader);
        Some(hub)
    }
}

fn server(reader: &mut Reader, value: Value<'_>) -> Option<String> {
    let text = reader.parse::<String>(&NATS, value)?;
    let rest = text.value.strip_prefix("nats://").or_else(|| text.value.strip_prefix("tls://"));
    let authority = rest.map(|rest| rest.trim_end_matches('/'));
    let is_server = |authority: &str| {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "4222"));
        !host.is_empty() && !authority.contains(['/', '@', '?', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match authority {
        Some(authority) if is_server(authority) => Some(text.value.trim_end_matches('/').to_owned()),
        _ => {
            let message = format!("\"{}\" is no server of a hub", text.value);
            reader.wrong(&text.span, message, "expected nats://host:port or tls://host:port", NATS.summary());
            None
        }
    }
}

impl Purge {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let Some(table) = table else { return Self::default() };
        let log = Log::read(&table, reader);
        let data = table.parsed::<PathBuf>(reader, &DATA).map(|data| reader.beside(&data.value));
        let rate = table.integer(reader, &RATE_KEY, 1..=RATE_MAX);
        table.finish(reader);
        Self { log, data, rate: rate.unwrap_or(RATE) }
    }
}
