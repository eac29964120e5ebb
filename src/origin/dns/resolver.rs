//! Asking name servers, those of the system or others, for what a name of an origin resolves to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use edge_config::section::origin::Resolve;
use edge_config::section::resolver as config;
use futures_util::future::join;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver as Client, TokioResolver};

use super::known::Part;
use super::{Name, Target};

/// How long a name server has for an answer, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Targets of one name; what is more is left out.
const TARGETS_MAX: usize = 64;

/// Who is asked.
pub struct Resolver {
    client: Result<TokioResolver, String>,
    pub ttl_min: Duration,
    pub ttl_max: Duration,
}

impl Resolver {
    /// One that asks as configured. The files of the system are read now.
    pub fn new(config: &config::Resolver) -> Self {
        let client = client(&config.nameservers).map_err(|error| error.to_string());
        Self { client, ttl_min: config.ttl_min.get(), ttl_max: config.ttl_max.get() }
    }

    /// All there is to know of a name now: one part for each question about it.
    pub async fn ask(&self, name: &Name) -> Vec<Part> {
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return vec![Part::Failed(error.clone())],
        };
        let mut parts = match name.resolve {
            Resolve::Ipv4 => vec![addresses(client, &name.host, name.port, RecordType::A).await],
            Resolve::Ipv6 => vec![addresses(client, &name.host, name.port, RecordType::AAAA).await],
            Resolve::Addresses => both(client, &name.host, name.port).await.into(),
            Resolve::Srv => vec![services(client, &name.host).await],
        };
        for part in &mut parts {
            if let Part::Found(targets, _) = part {
                targets.truncate(TARGETS_MAX);
            }
        }
        parts
    }
}

/// What the name of a host leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    /// The names that stand for it, in lower case and without a dot at the end.
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Resolver {
    /// What the name of a host leads to, in both families, whether or not this node could send a packet there.
    ///
    /// # Errors
    /// Nobody says.
    pub async fn leads(&self, host: &str) -> Result<Leads, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let mut leads = Leads::default();
        let mut failure = None;
        for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME] {
            let records = match records(client, host, kind).await {
                Ok(records) => records,
                Err(why) => {
                    failure = Some(why);
                    continue;
                }
            };
            for record in &records {
                match &record.data {
                    RData::CNAME(alias) => {
                        let alias = alias.0.to_utf8().trim_end_matches('.').to_ascii_lowercase();
                        if !leads.aliases.contains(&alias) {
                            leads.aliases.push(alias);
                        }
                    }
                    data => leads.addresses.extend(data.ip_addr()),
                }
            }
        }
        // Addresses of one family say nothing of the other; a name that stands for it says enough.
        match failure.filter(|_| leads.aliases.is_empty()) {
            Some(why) => Err(why),
            None => Ok(leads),
        }
    }

    /// The texts that a name has.
    ///
    /// # Errors
    /// Nobody says.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let found = records(client, name, RecordType::TXT).await?;
        let text = |record: &Record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        };
        Ok(found.iter().filter_map(text).collect())
    }
}

async fn records(client: &TokioResolver, host: &str, kind: RecordType) -> Result<Vec<Record>, String> {
    // Not below the domain of this machine.
    let name = format!("{}.", host.trim_end_matches('.'));
    match client.lookup(name, kind).await {
        Ok(found) => Ok(found.answers().to_vec()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

fn client(nameservers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let (config, mut options) = if nameservers.is_empty() {
        // A system without the file has a name server of its own, as resolv.conf(5) says.
        read_system_conf().unwrap_or_else(|_| {
            let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
            (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
        })
    } else {
        let servers = nameservers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        });
        (ResolverConfig::from_name_servers(servers.collect()), ResolverOpts::default())
    };
    (options.timeout, options.attempts) = (TIMEOUT, ATTEMPTS);
    // What an answer says of its time is followed here.
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    let mut builder = Client::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

/// IPv4 and IPv6; the latter where the node has a route to it.
async fn both(client: &TokioResolver, host: &str, port: u16) -> [Part; 2] {
    let (v4, mut v6) =
        join(addresses(client, host, port, RecordType::A), addresses(client, host, port, RecordType::AAAA)).await;
    if let Part::Found(targets, _) = &mut v6 {
        targets.retain(|target| has_route(target.address));
    }
    [v4, v6]
}

async fn addresses(client: &TokioResolver, host: &str, port: u16, kind: RecordType) -> Part {
    match client.lookup(host, kind).await {
        Ok(found) => {
            let addresses = found.answers().iter().filter_map(|record| record.data.ip_addr());
            let mut targets: Vec<Target> =
                addresses.map(|address| Target::new(SocketAddr::new(address, port))).collect();
            // Name servers turn them round; nothing changes by that.
            targets.sort_by_key(|target| target.address);
            targets.dedup();
            Part::Found(targets, holds(&found))
        }
        Err(error) => none_or_failed(&error),
    }
}

/// SRV records, and the addresses of their targets. A target that cannot be resolved is left out while another can.
async fn services(client: &TokioResolver, host: &str) -> Part {
    let found = match client.lookup(host, RecordType::SRV).await {
        Ok(found) => found,
        Err(error) => return none_or_failed(&error),
    };
    let (mut targets, mut ttl, mut failure) = (Vec::new(), holds(&found), None);
    for record in found.answers().iter().take(TARGETS_MAX) {
        let RData::SRV(service) = &record.data else { continue };
        // RFC 2782: a root says that the service is not there.
        if service.target.is_root() {
            continue;
        }
        let name = service.target.to_utf8();
        for part in both(client, &name, service.port).await {
            match part {
                Part::Found(theirs, holds) => {
                    ttl = if theirs.is_empty() { ttl } else { ttl.min(holds) };
                    let name: Arc<str> = name.trim_end_matches('.').into();
                    targets.extend(theirs.into_iter().map(|target| Target {
                        name: Some(name.clone()),
                        priority: service.priority,
                        // RFC 2782: little, but not never.
                        weight: service.weight.max(1),
                        ..target
                    }));
                }
                Part::Failed(why) => failure = Some(why),
            }
        }
    }
    targets.sort_by(|one, other| {
        (one.priority, one.address, &one.name).cmp(&(other.priority, other.address, &other.name))
    });
    targets.dedup();
    match failure.filter(|_| targets.is_empty()) {
        Some(why) => Part::Failed(why),
        None => Part::Found(targets, ttl),
    }
}

/// For how long an answer holds: as long as the first of its records, aliases included.
fn holds(found: &Lookup) -> Duration {
    let shortest = found.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(shortest.unwrap_or(0).into())
}

fn none_or_failed(error: &NetError) -> Part {
    match error.is_no_records_found() {
        true => Part::Found(Vec::new(), Duration::ZERO),
        false => Part::Failed(error.to_string()),
    }
}

/// Whether packets could be sent there; none is.
fn has_route(address: SocketAddr) -> bool {
    UdpSocket::bind(SocketAddr::from(([0u16; 8], 0))).and_then(|socket| socket.connect(address)).is_ok()
}
