//! `origins`: the origins of a site together.

use super::balance::{Balance, Crowd};
use super::origin::Origin;
use crate::units::Duration;

use super::health::{Eject, Health};
use super::origin::{HostHeader, OriginScheme, OriginTimeouts, Resolve};
use super::retry::Retry;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};

/// The origins of a site. At least one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub members: Vec<Member>,
    pub balance: Balance,
    /// How long a member that has come up gets less than its weight. Default: not at all.
    pub slow_start: Option<Duration>,
    pub crowd: Crowd,
    /// Active checks. Default: none.
    pub health: Option<Health>,
    /// Passive ejection. `None`: never.
    pub eject: Option<Eject>,
    pub retry: Retry,
}

/// An origin and its place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub origin: Origin,
    /// Its share of the requests of its tier, 1 to 1,000. Default 1.
    pub weight: u32,
    /// Asked only when no member of a lower number is up, 1 to 16. Default 1.
    pub tier: u8,
}

impl Group {
    /// One origin, asked for everything.
    pub fn of_one(origin: Origin) -> Self {
        Self {
            members: vec![Member { origin, weight: 1, tier: 1 }],
            balance: Balance::default(),
            slow_start: None,
            crowd: Crowd::default(),
            health: None,
            eject: Some(Eject::default()),
            retry: Retry::default(),
        }
    }
}

/// Members of a group, as they can be written.
pub(crate) const ORIGINS: Kind =
    Kind::Many(&Kind::Any(&[Kind::Text("a URL, http://host[:port] or https://host[:port]"), Kind::Table(&MEMBER)]));

section! {
    /// One origin.
    MEMBER = "an origin" {
        /// Where it is: http://host\[:port\] or https://host\[:port\]. The request's own path is used.
        URL = "url": Kind::Text("a URL");
        /// Its share of the requests of its tier.
        WEIGHT = "weight": Kind::Integer(1, 1_000), "1";
        /// Asked only when no origin of a lower number is up.
        TIER = "tier": Kind::Integer(1, 16), "1";
        /// What the Host field of a request to it says: "client" for what the client sent, or a name. Absent: the
        /// URL's own.
        HOST = "host": Kind::Text("client or a host name");
        /// The name asked for in TLS and expected in the certificate. Absent: the URL's host.
        SNI = "sni": Kind::Text("a host name");
        /// A PEM file of the authorities that may vouch for it, in place of the system's.
        CA = "ca": Kind::Text("a file");
        /// Whether its certificate is checked.
        VERIFY = "verify": Kind::Boolean, "true";
        /// What its name is resolved to, again and again as its answers expire: "addresses" (IPv4, and IPv6 where the node
        /// has a route to it), "ipv4", "ipv6", or "srv": records with addresses, ports, priorities and weights (RFC 2782)
        /// for a name as in http://_http._tcp.example.net. Each address is checked, ejected and chosen for itself; the
        /// weight is shared among them.
        RESOLVE = "resolve": Kind::Choice(&["addresses", "ipv4", "ipv6", "srv"]), "addresses";
        /// HTTP/2: agreed on in TLS, or with prior knowledge in the clear.
        HTTP2 = "http2": Kind::Boolean, "false";
    }
}

impl Member {
    pub(crate) fn read(reader: &mut Reader, key: &crate::read::key::Key, value: Value<'_>) -> Option<Self> {
        if value.as_str().is_some() {
            let origin = reader.parse::<Origin>(&URL, value)?.value;
            return Some(Self { origin, weight: 1, tier: 1 });
        }
        let table = reader.as_table(key, &MEMBER, "an origin".into(), value)?;
        let member = Self::read_table(&table, reader);
        table.finish(reader);
        member
    }

    fn read_table(table: &Table<'_>, reader: &mut Reader) -> Option<Self> {
        if table.value(&URL).is_none() {
            reader.wrong(&table.span, "an origin has no `url`", "`url` is missing", URL.summary());
        }
        let origin = table.parsed::<Origin>(reader, &URL);
        let weight = table.integer(reader, &WEIGHT, 1..=1_000);
        let tier = table.integer(reader, &TIER, 1..=16);
        let host = table.parsed::<HostHeader>(reader, &HOST);
        let sni = table.parsed::<HostName>(reader, &SNI);
        let ca = table.file(reader, &CA).map(|(path, _)| path);
        let verify = table.boolean(reader, &VERIFY);
        let resolve = table.choice(reader, &RESOLVE, &RESOLVES);
        let http2 = table.boolean(reader, &HTTP2);
        let mut origin = origin?.value;
        if origin.scheme == OriginScheme::Http {
            for key in [&SNI, &CA, &VERIFY] {
                if let Some(value) = table.value(key) {
                    let message = format!("`{}` is for TLS, and the URL of this origin is http", key.name);
                    reader.wrong(&value.span(), message, "has no effect", "use an https URL, or leave the key out");
                }
            }
        }
        if let Some(value) = table.value(&RESOLVE) {
            check_resolve(reader, &origin, resolve.unwrap_or_default(), &value.span());
        }
        origin.resolve = resolve.unwrap_or_default();
        if let Some(host) = host {
            origin.host_header = host.value;
        }
        origin.sni = sni.map(|name| name.value.0);
        origin.ca = ca;
        origin.verify = verify.unwrap_or(true);
        origin.http2 = http2.unwrap_or(false);
        Some(Self { origin, weight: weight.unwrap_or(1), tier: u8::try_from(tier.unwrap_or(1)).unwrap_or(1) })
    }
}

const RESOLVES: [(&str, Resolve); 4] =
    [("addresses", Resolve::Addresses), ("ipv4", Resolve::Ipv4), ("ipv6", Resolve::Ipv6), ("srv", Resolve::Srv)];

fn check_resolve(reader: &mut Reader, origin: &Origin, resolve: Resolve, span: &std::ops::Range<usize>) {
    if origin.address().is_some() {
        let message = format!("`resolve` is for names, and {} is an address", origin.host);
        reader.wrong(span, message, "has no effect", "use a name in the URL, or leave the key out");
    } else if resolve == Resolve::Srv && matches!(&origin.host_header, HostHeader::Origin(host) if host.contains(':')) {
        let message = format!("the port {} in the URL, and `resolve` is \"srv\"", origin.port);
        reader.wrong(span, message, "the records say the port", "take the port out of the URL");
    }
}

/// A host name, perhaps with a port where it is a `Host`.
pub(super) struct HostName(pub(super) String);

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a host name: expected a name as in www.example.com, without scheme and path")]
pub struct HostNameError(String);

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

impl std::str::FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        is_host_name(text).then(|| Self(text.into())).ok_or_else(|| HostNameError(text.into()))
    }
}

impl std::str::FromStr for HostHeader {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        match text {
            "client" => Ok(Self::Client),
            name => name.parse().map(|HostName(name)| Self::Fixed(name)),
        }
    }
}

/// The timeouts of a group's members.
pub(crate) fn with_timeouts(mut members: Vec<Member>, timeouts: OriginTimeouts) -> Vec<Member> {
    members.iter_mut().for_each(|member| member.origin.timeouts = timeouts);
    members
}
