//! The whole configuration, and what must hold between its sections.

use std::net::{IpAddr, SocketAddr};

use crate::section::acme::Acme;
use crate::section::admin::Token;
use crate::section::anycast::Anycast;
use crate::section::cache::{Cache, DISK_SIZE_MIN, MEMORY_MIN};
use crate::section::dns::Dns;
use crate::section::geo::Geo;
use crate::section::limits::Limits;
use crate::section::listener::Listen;
use crate::section::node::NodeSettings;
use crate::section::pop::Pop;
use crate::section::purge::Purge;
use crate::section::resolver::Resolver;
use crate::section::site::Site;
use crate::section::telemetry::AccessLog;
use crate::section::tls::Tls;
use crate::units::ByteSize;

/// A configuration a node can run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the node is called, and how others reach it.
    pub node: NodeSettings,
    pub listen: Listen,
    pub tls: Tls,
    /// How certificates are had. None: they are brought.
    pub acme: Option<Acme>,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// Who may do what there. None: whoever connects.
    pub tokens: Vec<Token>,
    pub purge: Purge,
    /// In which country an address is. Default: nobody knows.
    pub geo: Option<Geo>,
    /// The zone that sends clients to the nodes. None: somebody else sees to that.
    pub dns: Option<Dns>,
    /// Where nodes stand, in the order of the file.
    pub pops: Vec<Pop>,
    /// How the node leaves whose addresses are those of others too. None: they are its own.
    pub anycast: Option<Anycast>,
    /// Worker threads of the front. Default: one for each processor.
    pub workers: usize,
    pub cache: Cache,
    pub resolver: Resolver,
    pub limits: Limits,
    /// At least one, each with a name of its own.
    pub sites: Vec<Site>,
    pub access_log: AccessLog,
    /// The test clock may be moved through the admin API.
    pub test_clock: bool,
}

/// Values that are fine alone but not together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("no listen address: the node needs at least one, as in --listen 127.0.0.1:8080")]
    NoListener,
    #[error("memory is {0}: at least {MEMORY_MIN} are needed for buffers and a useful number of objects")]
    MemoryTooSmall(ByteSize),
    #[error("the disk cache is {0}: at least {DISK_SIZE_MIN} are needed, or none")]
    DiskTooSmall(ByteSize),
    #[error("workers is 0: at least one thread must serve clients")]
    NoWorkers,
    #[error("{0} is used twice: clients and the admin API need addresses of their own")]
    AddressTwice(SocketAddr),
    #[error("the test clock is for tests: it needs every address on loopback, but {0} is not")]
    TestClockOffLoopback(SocketAddr),
}

impl Config {
    /// The addresses that names must have which cannot be a CNAME: those of `[dns]`, else those of all PoPs, each once.
    pub fn dns_addresses(&self) -> Vec<IpAddr> {
        let own = self.dns.as_ref().map(|dns| dns.addresses.clone()).unwrap_or_default();
        if !own.is_empty() {
            return own;
        }
        self.pops.iter().flat_map(|pop| pop.addresses.iter().copied()).collect()
    }

    /// Checks what must hold between the sections.
    ///
    /// # Errors
    /// All of them at once, in the order of the sections.
    pub fn validate(self) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if self.listen.addresses().next().is_none() {
            errors.push(ConfigError::NoListener);
        }
        if self.cache.memory < MEMORY_MIN {
            errors.push(ConfigError::MemoryTooSmall(self.cache.memory));
        }
        let too_small = self.cache.disks.iter().filter(|disk| disk.size < DISK_SIZE_MIN);
        errors.extend(too_small.map(|disk| ConfigError::DiskTooSmall(disk.size)));
        if self.workers == 0 {
            errors.push(ConfigError::NoWorkers);
        }
        let mut seen = vec![self.admin];
        for address in self.listen.addresses().chain(&self.listen.health) {
            if address.port() != 0 && seen.contains(address) {
                errors.push(ConfigError::AddressTwice(*address));
            }
            seen.push(*address);
        }
        if self.test_clock {
            errors.extend(seen.iter().filter(|a| !a.ip().is_loopback()).map(|a| ConfigError::TestClockOffLoopback(*a)));
        }
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::cache::Disk;

    fn config() -> Config {
        Config {
            node: NodeSettings::default(),
            listen: Listen {
                http: vec!["127.0.0.1:8080".parse().expect("address")],
                https: vec![],
                ..Listen::default()
            },
            tls: Tls::default(),
            acme: None,
            admin: "127.0.0.1:9900".parse().expect("address"),
            tokens: Vec::new(),
            purge: Purge::default(),
            geo: None,
            dns: None,
            pops: Vec::new(),
            anycast: None,
            workers: 1,
            cache: Cache::default(),
            resolver: Resolver::default(),
            limits: Limits::default(),
            sites: vec![Site::of_one("default", "http://127.0.0.1:1".parse().expect("origin"))],
            access_log: AccessLog::Off,
            test_clock: false,
        }
    }

    #[test]
    fn a_sound_configuration_passes() {
        assert_eq!(config().validate(), Ok(config()));
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let bad = Config {
            listen: Listen {
                http: vec!["127.0.0.1:9900".parse().expect("address"), "0.0.0.0:80".parse().expect("address")],
                https: vec![],
                ..Listen::default()
            },
            workers: 0,
            cache: Cache {
                memory: ByteSize::kib(1),
                disks: vec![Disk { path: "cache".into(), size: ByteSize::mib(63) }],
            },
            test_clock: true,
            ..config()
        };
        let errors = bad.validate().expect_err("must fail");
        assert_eq!(errors.len(), 5, "{errors:?}");
    }
}
