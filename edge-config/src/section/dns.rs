//! `[dns]`: the zone that sends clients to the nodes.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::listener::Listen;
use super::pop::{Pop, addresses_of};
use crate::read::key::{Kind, section};
use crate::read::{Known, Reader, Table, Value};
use crate::units::Duration;

/// The zone that sends clients to the nodes, and how it chooses among the PoPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// In lower case, without a dot at its end.
    pub zone: String,
    /// At least one.
    pub nameservers: Vec<NameServer>,
    /// A mailbox, as in `hostmaster@example.net`.
    pub contact: String,
    /// How long an answer holds. Default 30s.
    pub ttl: Duration,
    pub steering: Steering,
    /// For names that cannot be a CNAME. Empty: those of all PoPs.
    pub addresses: Vec<IpAddr>,
    /// The database of countries, as the name server finds it.
    pub database: Option<String>,
    /// How long it takes from networks to PoPs.
    pub latency: Option<PathBuf>,
    /// Where a name server asks whether a node is ready.
    pub health_port: u16,
    pub health_path: String,
}

/// A name server of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    pub name: String,
    /// Where its name is in the zone itself: its glue.
    pub addresses: Vec<IpAddr>,
}

/// How a PoP is chosen among those that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// Each answer has the addresses of all.
    #[default]
    All,
    /// By where the client is.
    Geo,
    /// By chance, in proportion to their weights.
    Weighted,
    /// The first of them.
    Failover,
    /// The one that measurements say is the quickest to reach.
    Latency,
}

section! {
    /// The zone that sends clients to the nodes, for `littoral dns render`: each site has a name in it, which the site's own hosts
    /// are a CNAME of. The PoPs are those of \[pop.NAME\].
    DNS = "[dns]" {
        /// The zone: a domain that is delegated to the name servers below.
        ZONE = "zone": Kind::Text("a domain, as in \"cdn.example.net\"");
        /// The names of its name servers. One that is in the zone itself needs its addresses too.
        NAMESERVERS = "nameservers": Kind::Many(&Kind::Any(&[Kind::Text("a name"), Kind::Table(&NAME_SERVER)]));
        /// Who is responsible for it: a mailbox.
        CONTACT = "contact": Kind::Text("a mailbox, as in \"hostmaster@example.net\"");
        /// How long an answer holds, 1s to 1h. A PoP that is down is named by answers that are not older than this.
        TTL = "ttl": Kind::Duration, "30s";
        /// How a PoP is chosen among those that are up: "all" answers with the addresses of every one, "geo" by where the client is
        /// (`near` of PoPs), "weighted" by chance and `weight`, "failover" with the first in the order of the file, "latency" by
        /// measurements.
        STEERING = "steering": Kind::Choice(&["all", "geo", "weighted", "failover", "latency"]), "all";
        /// The addresses for names that cannot be a CNAME, as that of a domain itself: they do not change with what is up, so
        /// announce them from every PoP. Absent: the addresses of all PoPs.
        ADDRESSES = "addresses": Kind::Many(&Kind::Text("an IP address"));
        /// A database of MaxMind's format with countries, or with their parts where `near` names those: a file in the folder geoip
        /// of the name server's configuration, or an absolute path there. For "geo", and for "latency" where nothing was measured.
        DATABASE = "database": Kind::Text("a file of the name server's");
        /// How long it takes from networks to PoPs: lines as in 192.0.2.0/24,fra,12.5, of a network, a PoP and milliseconds. For
        /// "latency".
        LATENCY = "latency": Kind::Text("a file");
        /// The port at which every address of a PoP is asked whether it is ready. Absent: that of `health` in \[listen\], or 9901.
        HEALTH_PORT = "health_port": Kind::Integer(1, 65_535);
        /// What is asked for there.
        HEALTH_PATH = "health_path": Kind::Text("a path"), "/readyz";
    }
}

section! {
    /// A name server.
    NAME_SERVER = "a name server" {
        /// Its name.
        NAME = "name": Kind::Text("a name");
        /// Its addresses, where its name is in the zone itself.
        GLUE = "addresses": Kind::Many(&Kind::Text("an IP address"));
    }
}

/// Where nothing else is said.
pub const DEFAULT_HEALTH_PORT: u16 = 9901;
const TTL_MAX: Duration = Duration::from_secs(3_600);
const TTL_MIN: Duration = Duration::from_secs(1);
/// A label of a name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// A name in DNS, in lower case and without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain(pub String);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a domain: expected letters, digits and hyphens between dots, as in cdn.example.net")]
pub(crate) struct DomainError(String);

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let fits = name.len() <= 253 && name.contains('.') && name.split('.').all(is_label);
        fits.then(|| Self(name.to_ascii_lowercase())).ok_or_else(|| DomainError(text.into()))
    }
}

fn is_label(label: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let hyphen = label.starts_with('-') || label.ends_with('-');
    !label.is_empty() && label.len() <= LABEL_MAX && !hyphen && label.bytes().all(valid)
}

/// A mailbox that a zone can say in the form of a name (RFC 1035 section 8).
struct Mailbox(String);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a mailbox: expected one as in hostmaster@example.net")]
struct MailboxError(String);

impl FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, MailboxError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        let is_mailbox = |(local, domain): (&str, &str)| {
            let local = (1..=LABEL_MAX).contains(&local.len()) && local.bytes().all(valid);
            local && domain.parse::<Domain>().is_ok()
        };
        text.split_once('@')
            .filter(|parts| is_mailbox(*parts))
            .map(|_| Self(text.into()))
            .ok_or(MailboxError(text.into()))
    }
}

/// The first label of a site's name in the zone.
pub fn label(site: &str) -> String {
    site.chars().map(|c| if c == '_' || c == '.' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Why a site can have no name in the zone.
pub(crate) fn check_label(site: &str, known: &Known) -> Result<(), String> {
    let label = label(site);
    if !is_label(&label) {
        return Err(format!("\"{label}\" cannot be a label of a name in [dns]"));
    }
    if known.reserved_labels.contains(&label) {
        return Err(format!("\"{label}\" is the label of a name server of [dns]"));
    }
    Ok(())
}

impl Dns {
    /// What the hosts of a site are a CNAME of.
    pub fn target(&self, site: &str) -> String {
        format!("{}.{}", label(site), self.zone)
    }

    /// The label of a name right below the zone.
    pub fn label_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(self.zone.as_str())?.strip_suffix('.').filter(|label| !label.contains('.'))
    }

    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader, pops: &[Pop], listen: &Listen) -> Option<Self> {
        let table = table?;
        let zone = table.parsed::<Domain>(reader, &ZONE);
        table.required(reader, &ZONE, zone.is_none());
        let nameservers = table.many(reader, &NAMESERVERS, NameServer::read);
        table.required(reader, &NAMESERVERS, nameservers.is_empty());
        let contact = table.parsed::<Mailbox>(reader, &CONTACT);
        table.required(reader, &CONTACT, contact.is_none());
        let ttl = table.parsed::<Duration>(reader, &TTL);
        if let Some(wrong) = ttl.as_ref().filter(|ttl| !(TTL_MIN..=TTL_MAX).contains(&ttl.value)) {
            let message = format!("`ttl` is {}, expected 1s to 1h", wrong.value);
            reader.wrong(&wrong.span, message, "expected 1s to 1h", TTL.summary());
        }
        let steering = [
            ("all", Steering::All),
            ("geo", Steering::Geo),
            ("weighted", Steering::Weighted),
            ("failover", Steering::Failover),
            ("latency", Steering::Latency),
        ];
        let port = table.integer(reader, &HEALTH_PORT, 1..=65_535).and_then(|port| u16::try_from(port).ok());
        let listened = listen.health.iter().map(std::net::SocketAddr::port).find(|port| *port != 0);
        let path = table.parsed::<HealthPath>(reader, &HEALTH_PATH);
        let dns = Self {
            zone: zone.map_or_else(String::new, |zone| zone.value.0),
            nameservers,
            contact: contact.map_or_else(String::new, |contact| contact.value.0),
            ttl: ttl.map_or(Duration::from_secs(30), |ttl| ttl.value),
            steering: table.choice(reader, &STEERING, &steering).unwrap_or_default(),
            addresses: addresses_of(&table, reader, &ADDRESSES),
            database: table.parsed::<String>(reader, &DATABASE).map(|file| file.value),
            latency: table.file(reader, &LATENCY).map(|(file, _)| file),
            health_port: port.or(listened).unwrap_or(DEFAULT_HEALTH_PORT),
            health_path: path.map_or_else(|| "/readyz".into(), |path| path.value.0),
        };
        dns.check(&table, reader, pops);
        table.finish(reader);
        let own = dns.nameservers.iter().filter_map(|server| dns.label_of(&server.name));
        reader.known.reserved_labels = own.map(str::to_owned).collect();
        reader.known.dns = true;
        Some(dns)
    }

    fn check(&self, table: &Table<'_>, reader: &mut Reader, pops: &[Pop]) {
        if pops.is_empty() {
            let help = "add one: [pop.NAME] with `addresses`";
            reader.wrong(&table.span, "[dns] has no PoP to send clients to", "no [pop.NAME]", help);
        }
        let needed = match self.steering {
            Steering::Geo => Some((&DATABASE, "geo")),
            Steering::Latency => Some((&LATENCY, "latency")),
            _ => None,
        };
        if let (Some((key, mode)), Some(value)) = (needed, table.value(&STEERING))
            && table.value(key).is_none()
        {
            let message = format!("`steering` is \"{mode}\", and there is no `{}`", key.name);
            reader.wrong(&value.span(), message, format_args!("`{}` is missing", key.name), key.summary());
        }
        let members = table.value(&NAMESERVERS).map(Value::members).unwrap_or_default();
        for (server, value) in self.nameservers.iter().zip(members) {
            let is_within = server.name == self.zone || server.name.ends_with(&format!(".{}", self.zone));
            if is_within && server.addresses.is_empty() {
                let message = format!("the name server {} is in the zone itself, and has no addresses", server.name);
                let help = format!("say where it is: {{ name = \"{}\", addresses = [\"192.0.2.53\"] }}", server.name);
                reader.wrong(&value.span(), message, "nobody could find it", help);
            }
        }
    }
}

/// A path to ask for.
#[derive(Clone)]
struct HealthPath(String);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a path: expected one as in /readyz")]
struct HealthPathError(String);

impl FromStr for HealthPath {
    type Err = HealthPathError;

    fn from_str(text: &str) -> Result<Self, HealthPathError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        let is_path = text.starts_with('/') && text.bytes().all(valid);
        is_path.then(|| Self(text.into())).ok_or_else(|| HealthPathError(text.into()))
    }
}

impl NameServer {
    fn read(reader: &mut Reader, value: Value<'_>) -> Option<Self> {
        if value.as_str().is_some() {
            let name = reader.parse::<Domain>(&NAMESERVERS, value)?;
            return Some(Self { name: name.value.0, addresses: Vec::new() });
        }
        let table = reader.as_table(&NAMESERVERS, &NAME_SERVER, "a name server".into(), value)?;
        let name = table.parsed::<Domain>(reader, &NAME);
        table.required(reader, &NAME, name.is_none());
        let addresses = addresses_of(&table, reader, &GLUE);
        table.finish(reader);
        Some(Self { name: name?.value.0, addresses })
    }
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Geo => "geo",
            Self::Weighted => "weighted",
            Self::Failover => "failover",
            Self::Latency => "latency",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse;

    const HEAD: &str = "[listen]\nhttp = \"127.0.0.1:8080\"\n";
    const ZONE_TEXT: &str = "[dns]\nzone = \"CDN.example.net.\"\nnameservers = \"ns1.example.net\"\n\
                             contact = \"a.b@example.net\"\n";
    const POPS: &str = "[pop.b]\naddresses = \"192.0.2.2\"\n[pop.a]\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n\
                        near = [\"EU\", \"NA/US/CA\"]\n";
    const SITE: &str = "[site.Shop_1]\nhosts = \"*\"\norigins = \"http://127.0.0.1:1\"\n";

    fn config(text: &str) -> crate::Config {
        let mut problems = Vec::new();
        let config = parse(std::path::Path::new("edge.toml"), text, &[], &[], &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        config
    }

    #[test]
    fn a_zone_and_its_pops() {
        let read = config(&format!("{HEAD}{ZONE_TEXT}{POPS}{SITE}"));
        let dns = read.dns.as_ref().expect("a zone");
        assert_eq!(dns.target(&read.sites[0].name), "shop-1.cdn.example.net");
        assert_eq!((dns.ttl, dns.steering, dns.health_port), (Duration::from_secs(30), Steering::All, 9901));
        assert_eq!(read.pops.iter().map(|pop| pop.name.as_str()).collect::<Vec<_>>(), ["b", "a"], "in their order");
        let addresses: Vec<String> = read.dns_addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.2", "192.0.2.1", "2001:db8::1"]);
        assert!(read.pops[1].near[1].to_string() == "NA/US/CA" && !read.pops[1].near[0].holds(&read.pops[1].near[1]));
    }

    #[test]
    fn where_health_is_asked() {
        let rows = [
            ("", "", 9901),
            ("health = \"127.0.0.1:9950\"\n", "", 9950),
            ("health = \"127.0.0.1:9950\"\n", "health_port = 80\n", 80),
            ("", "health_port = 80\n", 80),
        ];
        for (listen, dns, port) in rows {
            let read = config(&format!("{HEAD}{listen}{ZONE_TEXT}{dns}{POPS}{SITE}"));
            assert_eq!(read.dns.map(|dns| dns.health_port), Some(port), "{listen}{dns}");
        }
    }

    #[test]
    fn without_a_zone_labels_do_not_matter() {
        let read =
            config(&format!("{HEAD}{POPS}{SITE}{}", SITE.replace("Shop_1", "shop-1").replace("\"*\"", "\"a.test\"")));
        assert_eq!((read.sites.len(), read.dns), (2, None));
    }
}
