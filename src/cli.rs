//! The command line.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments here are the command's help, where brackets are brackets"
)]

pub mod announce;
pub mod cache;
pub mod certificate;
pub mod config;
pub mod dev;
pub mod dns;
pub mod hub;
pub mod node;
pub mod origin;
pub mod purge;
pub mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_config::load::processors;
use edge_config::section::admin::default_admin;
use edge_config::section::cache::{Cache, Disk};
use edge_config::section::limits::Limits;
use edge_config::section::listener::{Listen, every_address};
use edge_config::section::node::NodeSettings;
use edge_config::section::origin::{HostHeader, Origin, OriginTimeouts};
use edge_config::section::purge::Purge;
use edge_config::section::resolver::Resolver;
use edge_config::section::site::{GetBody, Network, SetCookie, Site};
use edge_config::section::telemetry::AccessLog;
use edge_config::section::tls::{CertificateFiles, Tls, UnknownName};
use edge_config::units::UnitError;
use edge_config::{ByteSize, Config, ConfigError, Duration};

/// A caching CDN edge node that anyone can run.
#[derive(Debug, Parser)]
#[command(name = "littoral", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node. Without --config and --origin it serves a built-in demonstration origin.
    Run(Box<Run>),
    /// Check a configuration file and everything it names; exit code 78 when something is wrong
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a running node does
    Stat {
        #[command(flatten)]
        admin: AdminAddress,
        /// JSON, as the admin API gives it
        #[arg(long)]
        json: bool,
    },
    /// Show what the sites of a node did since it was started: requests, bytes, hits, origins, purges
    Statistics {
        /// Of this site alone
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
        #[command(flatten)]
        asked: cache::Asked,
    },
    /// Have a running node read its configuration again
    Reload {
        #[command(flatten)]
        admin: AdminAddress,
        /// JSON, as the admin API gives it
        #[arg(long)]
        json: bool,
    },
    /// Purge what a node has stored; when it returns, nothing of it is served any more
    Purge(Box<purge::PurgeArgs>),
    /// Say what would become of a request to a node, and why
    Explain {
        /// The URL, as a client would ask for it
        #[arg(value_name = "URL")]
        url: String,
        /// A field of the request, as in curl; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        /// The method
        #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
        method: String,
        /// The address of the client, for rules that look at it
        #[arg(long, value_name = "ADDR")]
        client: Option<std::net::IpAddr>,
        #[command(flatten)]
        admin: AdminAddress,
        /// JSON, as the admin API gives it
        #[arg(long)]
        json: bool,
    },
    /// Look at what a node has stored
    #[command(subcommand)]
    Cache(cache::Cache),
    /// See how the origins of a node stand, and take one out
    #[command(subcommand)]
    Origin(origin::Origin),
    /// Add sites and hosts for all nodes, and see whether clients are served
    #[command(subcommand)]
    Site(site::Site),
    /// See the certificates of sites, and bring and remove one
    #[command(subcommand)]
    Certificate(certificate::Certificate),
    /// See and change the configuration that the hub has for all nodes
    #[command(subcommand)]
    Config(config::Config),
    /// Tell name servers where the nodes are, and see what names are to be
    #[command(subcommand)]
    Dns(dns::Dns),
    /// Run a small CDN on loopback: a hub and some nodes, to try what many nodes do
    Dev(dev::Dev),
    /// See how the nodes of a CDN stand
    #[command(subcommand)]
    Node(node::Node),
    /// Set up the hub that the nodes of a CDN share
    #[command(subcommand)]
    Hub(hub::Hub),
    /// Have BIRD announce a prefix while the node is to be announced, and withdraw it otherwise
    Announce(announce::Announce),
    /// Make a token for the admin API: prints it, and the line for the configuration
    Token {
        /// What it is called in receipts
        #[arg(long)]
        name: String,
        /// A site it is for; may be repeated [default: all]
        #[arg(long = "site", value_name = "SITE")]
        sites: Vec<String>,
        /// What it may do: purge, explain, observe, certificates, operate or configure; may be repeated [default: purge]
        #[arg(long = "verb", value_enum)]
        verbs: Vec<VerbArg>,
    },
    /// Have another process of a running node take over: of the program as it is installed now, and with the configuration as
    /// it is now. No connection is refused. Waits until it serves; exit code 1 when it does not, and then nothing has changed
    Upgrade {
        #[command(flatten)]
        admin: AdminAddress,
        /// JSON, as the admin API gives it
        #[arg(long)]
        json: bool,
    },
    /// Have a running node finish what it does and end; waits until it has
    Drain {
        #[command(flatten)]
        admin: AdminAddress,
    },
}

/// Where the admin API of a running node is.
#[derive(Args, Clone, Debug)]
pub struct AdminAddress {
    /// The admin address of the node
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    pub admin: SocketAddr,
    /// A token, where the node wants one; better in the environment than on a command line that others see
    #[arg(long, value_name = "TOKEN", env = "LITTORAL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerbArg {
    Purge,
    Explain,
    Observe,
    Certificates,
    Operate,
    Configure,
}

impl VerbArg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Explain => "explain",
            Self::Observe => "observe",
            Self::Certificates => "certificates",
            Self::Operate => "operate",
            Self::Configure => "configure",
        }
    }
}

#[derive(Args, Clone, Debug, Default)]
pub struct Run {
    /// The configuration; only --listen, --https, --admin, --data, --workers, --access-log and --unsafe-test-clock go with it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["origin", "memory", "disk", "preserve_host",
        "set_cookie", "get_body", "trust", "certificate", "key", "head_timeout", "idle_timeout", "write_timeout", "drain_timeout",
        "connections_per_client", "connect_timeout", "first_byte_timeout", "between_bytes_timeout"])]
    pub config: Option<PathBuf>,
    /// The origin: http://host[:port] or https://host[:port]
    #[arg(long, value_name = "URL")]
    pub origin: Option<Origin>,
    /// Where clients connect; may be repeated [default: [::]:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// Where clients connect with TLS, HTTP/2 and HTTP/1.1; may be repeated; needs certificates
    #[arg(long, value_name = "ADDR")]
    pub https: Vec<SocketAddr>,
    /// The certificate chain for --https, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Where the operator connects: /metrics, /livez, /readyz [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// The whole memory budget: objects, fills, buffers [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// The disk cache: SIZE bytes in the directory `cache` below --data, or off [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<DiskCache>,
    /// Where the node keeps its log of purges and, without --config, its disk cache [default: $STATE_DIRECTORY, else .littoral]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Worker threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Access log, JSON lines: a file, "-" for standard output, or "off" [default: -]
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<AccessLog>,
    /// Send the client's Host to the origin instead of the origin's own
    #[arg(long)]
    pub preserve_host: bool,
    /// Responses with Set-Cookie: "refuse" stores them only with explicit permission, "rfc9111" like any other
    #[arg(long, value_enum, default_value_t)]
    pub set_cookie: SetCookieArg,
    /// GET and HEAD requests with a body: "refuse" answers 400, "pass" hands them to the origin uncached
    #[arg(long, value_enum, default_value_t)]
    pub get_body: GetBodyArg,
    /// Believe X-Forwarded-* and similar fields of these clients; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub trust: Vec<Network>,
    /// From the first byte of a request head to its last [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub head_timeout: Option<Duration>,
    /// Between requests of a connection, and between pieces of a request body [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<Duration>,
    /// How long a client may take nothing of its answer [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub write_timeout: Option<Duration>,
    /// How long a stopping node waits for requests in flight [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<Duration>,
    /// Connections from one client address, or one IPv6 /64, at a time [default: 4096]
    #[arg(long, value_name = "N")]
    pub connections_per_client: Option<u32>,
    /// For an origin to accept a connection [default: 3s]
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<Duration>,
    /// From the request to the end of the origin's response head [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub first_byte_timeout: Option<Duration>,
    /// Between two pieces of an origin's response body [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub between_bytes_timeout: Option<Duration>,
    /// For tests: POST /test/clock on the admin address moves the wall clock; every address must be on loopback
    #[arg(long)]
    pub unsafe_test_clock: bool,
}

/// Where clients connect, if nothing else is said.
const DEFAULT_PORT: u16 = 8080;

/// The disk cache of a node without a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCache {
    Off,
    Of(ByteSize),
}

impl Default for DiskCache {
    fn default() -> Self {
        Self::Of(ByteSize::mib(256))
    }
}

/// A text that is neither a size nor `off`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, or off")]
pub struct DiskCacheError(UnitError);

impl FromStr for DiskCache {
    type Err = DiskCacheError;

    fn from_str(text: &str) -> Result<Self, DiskCacheError> {
        match text {
            "off" => Ok(Self::Off),
            size => size.parse().map(Self::Of).map_err(DiskCacheError),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SetCookieArg {
    #[default]
    Refuse,
    Rfc9111,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GetBodyArg {
    #[default]
    Refuse,
    Pass,
}

impl Run {
    /// Whether the command line says who answers.
    pub fn has_origin(&self) -> bool {
        self.origin.is_some() || self.config.is_some()
    }

    /// The configuration these options make, for the origin among them.
    ///
    /// # Errors
    /// Everything that does not go together.
    pub fn config_of_origin(&self) -> Result<Config, Vec<ConfigError>> {
        self.origin.clone().map_or(Err(Vec::new()), |origin| self.config(origin))
    }

    /// A configuration from a file with what these options set in its place.
    pub fn over(&self, mut config: Config) -> Config {
        if !self.listen.is_empty() {
            config.listen.http.clone_from(&self.listen);
        }
        if !self.https.is_empty() {
            config.listen.https.clone_from(&self.https);
        }
        config.admin = self.admin.unwrap_or(config.admin);
        config.workers = self.workers.unwrap_or(config.workers);
        config.access_log = self.access_log.clone().unwrap_or(config.access_log);
        config.purge.data = self.data.clone().or(config.purge.data);
        config.test_clock |= self.unsafe_test_clock;
        config
    }

    /// The configuration these options make, for an origin.
    ///
    /// # Errors
    /// Everything that does not go together.
    pub fn config(&self, origin: Origin) -> Result<Config, Vec<ConfigError>> {
        let limits = Limits::default();
        let timeouts = OriginTimeouts::default();
        let mut origin = origin;
        origin.timeouts = OriginTimeouts {
            connect: self.connect_timeout.unwrap_or(timeouts.connect),
            first_byte: self.first_byte_timeout.unwrap_or(timeouts.first_byte),
            between_bytes: self.between_bytes_timeout.unwrap_or(timeouts.between_bytes),
            ..timeouts
        };
        if self.preserve_host {
            origin.host_header = HostHeader::Client;
        }
        let mut site = Site::of_one("default", origin);
        site.set_cookie = match self.set_cookie {
            SetCookieArg::Refuse => SetCookie::Refuse,
            SetCookieArg::Rfc9111 => SetCookie::Rfc9111,
        };
        site.get_body = match self.get_body {
            GetBodyArg::Refuse => GetBody::Refuse,
            GetBodyArg::Pass => GetBody::Pass,
        };
        site.trusted_clients.clone_from(&self.trust);
        let mut tls = Tls { unknown_name: UnknownName::First, ..Tls::default() };
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            tls.certificates.push(CertificateFiles { certificate: certificate.clone(), key: key.clone() });
        }
        let purge = Purge { data: self.data.clone(), ..Purge::default() };
        Config {
            node: NodeSettings::default(),
            listen: Listen {
                http: if self.listen.is_empty() && self.https.is_empty() {
                    vec![every_address(DEFAULT_PORT)]
                } else {
                    self.listen.clone()
                },
                https: self.https.clone(),
                health: Vec::new(),
                proxies: Vec::new(),
            },
            tls,
            acme: None,
            admin: self.admin.unwrap_or_else(default_admin),
            tokens: Vec::new(),
            cache: self.cache(&purge),
            purge,
            resolver: Resolver::default(),
            geo: None,
            dns: None,
            pops: Vec::new(),
            anycast: None,
            workers: self.workers.unwrap_or_else(processors),
            limits: Limits {
                head_timeout: self.head_timeout.unwrap_or(limits.head_timeout),
                idle_timeout: self.idle_timeout.unwrap_or(limits.idle_timeout),
                write_timeout: self.write_timeout.unwrap_or(limits.write_timeout),
                drain_timeout: self.drain_timeout.unwrap_or(limits.drain_timeout),
                connections_per_client: self.connections_per_client.unwrap_or(limits.connections_per_client),
                ..limits
            },
            sites: vec![site],
            access_log: self.access_log.clone().unwrap_or_default(),
            test_clock: self.unsafe_test_clock,
        }
        .validate()
    }

    fn cache(&self, purge: &Purge) -> Cache {
        let disks = match self.disk.unwrap_or_default() {
            DiskCache::Off => Vec::new(),
            DiskCache::Of(size) => vec![Disk { path: purge.directory().join("cache"), size }],
        };
        Cache { memory: self.memory.unwrap_or(Cache::default().memory), disks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_values_are_refused_with_what_was_expected() {
        for (arguments, expected) in [
            (["--memory", "lots"], "is not a size"),
            (["--disk", "lots"], "as in 512MiB, or off"),
            (["--origin", "example.org"], "is not a URL"),
            (["--trust", "10.0.0.0/99"], "is not an address range"),
            (["--head-timeout", "10"], "is not a duration"),
        ] {
            let all = ["littoral", "run"].into_iter().chain(arguments);
            let error = Cli::try_parse_from(all).expect_err("must be refused").to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_node_without_a_file_has_a_disk_cache_unless_it_is_off() {
        let disks = |arguments: &[&str]| {
            let all = ["littoral", "run", "--origin", "http://127.0.0.1:1", "--data", "/data"];
            let cli = Cli::try_parse_from(all.iter().chain(arguments)).expect("a command line");
            let Some(Command::Run(run)) = cli.command else { panic!("not run") };
            run.config_of_origin().map(|config| config.cache.disks)
        };
        let of = |size| Ok(vec![Disk { path: "/data/cache".into(), size }]);
        assert_eq!(disks(&[]), of(ByteSize::mib(256)));
        assert_eq!(disks(&["--disk", "64MiB"]), of(ByteSize::mib(64)));
        assert_eq!(disks(&["--disk", "off"]), Ok(Vec::new()));
        let small = ByteSize::mib(63);
        assert_eq!(disks(&["--disk", "63MiB"]), Err(vec![ConfigError::DiskTooSmall(small)]));
        let with_a_file = ["littoral", "run", "--config", "edge.toml", "--disk", "off"];
        assert!(Cli::try_parse_from(with_a_file).is_err());
    }
}
