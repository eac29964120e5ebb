//! `[resolver]`: who is asked for the addresses of origins.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// Who is asked for addresses, and how long an answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// None: those of the system.
    pub nameservers: Vec<SocketAddr>,
    /// What bounds the time an answer says it holds.
    pub ttl_min: Duration,
    pub ttl_max: Duration,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { nameservers: Vec::new(), ttl_min: Duration::from_secs(1), ttl_max: Duration::from_secs(3_600) }
    }
}

section! {
    /// Who is asked for the addresses of origins. Names in /etc/hosts come first. Every reload reads the system's files again.
    RESOLVER = "[resolver]" {
        /// Addresses of name servers, each with a port where that is not 53. Absent: those of /etc/resolv.conf.
        NAMESERVERS = "nameservers": Kind::Many(&Kind::Text("ADDRESS or ADDRESS:PORT"));
        /// An answer holds at least so long, whatever it says of itself.
        TTL_MIN = "ttl_min": Kind::Duration, "1s";
        /// And at most so long.
        TTL_MAX = "ttl_max": Kind::Duration, "1h";
    }
}

/// A name server as it is written.
struct NameServer(SocketAddr);

#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not the address of a name server: expected one as in 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
)]
struct NameServerError(String);

impl FromStr for NameServer {
    type Err = NameServerError;

    fn from_str(text: &str) -> Result<Self, NameServerError> {
        let with_port = || text.parse::<SocketAddr>().ok();
        let bare = text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
        bare.or_else(with_port).map(Self).ok_or_else(|| NameServerError(text.into()))
    }
}

impl Resolver {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
        let server = |reader: &mut Reader, value| reader.parse::<NameServer>(&NAMESERVERS, value);
        let nameservers = table.many(reader, &NAMESERVERS, server).into_iter().map(|at| at.value.0).collect();
        let ttl_min = table.parsed::<Duration>(reader, &TTL_MIN);
        let ttl_max = table.parsed::<Duration>(reader, &TTL_MAX);
        table.positive(reader, &TTL_MIN);
        table.positive(reader, &TTL_MAX);
        let least = ttl_min.as_ref().map_or(default.ttl_min, |time| time.value);
        let most = ttl_max.as_ref().map_or(default.ttl_max, |time| time.value);
        if let Some(at) = ttl_max.as_ref().or(ttl_min.as_ref()).filter(|_| least > most) {
            let message = format!("`ttl_min` is {least}, more than `ttl_max`, which is {most}");
            reader.wrong(&at.span, message, "the least is more than the most", TTL_MIN.summary());
        }
        table.finish(reader);
        Self { nameservers, ttl_min: least, ttl_max: most }
    }
}
