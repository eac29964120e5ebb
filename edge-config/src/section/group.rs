//! `origins`: the origins of a site together.

use super::balance::{Balance, Crowd};
use super::origin::Origin;
use crate::units::Duration;

use super::health::{Eject, Health};
use super::origin::{HostHeader, OriginTimeouts, Resolve, TIMEOUTS};
use super::retry::Retry;
use super::secret::SECRET_FILE;
use super::sticky::Sticky;
use super::talking::{Keys, SIGV4, Talking};
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
    /// Sessions that stay with one member. Default: there are none.
    pub sticky: Option<Sticky>,
}

/// An origin and its place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub origin: Origin,
    /// Its share of the requests of its tier, 1 to 1,000. Default 1.
    pub weight: u32,
    /// Asked only when no member of a lower number is up, 1 to 16. Default 1.
    pub tier: u8,
    /// Requests to it at a time, in place of what the group has. Default: that.
    pub max_requests: Option<u32>,
    /// It is being taken out. Default: no.
    pub drain: Option<Drain>,
}

/// How a member is taken out: from now on it gets no new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Sessions it has go on.
    WithoutEnd,
    /// So long.
    For(Duration),
}

impl Drain {
    /// How long sessions go on. None: without end.
    pub fn time(self) -> Option<std::time::Duration> {
        match self {
            Self::WithoutEnd => None,
            Self::For(time) => Some(time.get()),
        }
    }
}

impl Group {
    /// One origin, asked for everything.
    pub fn of_one(origin: Origin) -> Self {
        Self {
            members: vec![Member::of(origin)],
            balance: Balance::default(),
            slow_start: None,
            crowd: Crowd::default(),
            health: None,
            eject: Some(Eject::default()),
            retry: Retry::default(),
            sticky: None,
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
        /// Requests to it at a time, in place of `max_requests` of the site or the group.
        ORIGIN_MAX_REQUESTS = "max_requests": Kind::Integer(1, 1_000_000);
        /// Whether it is being taken out: it gets no new sessions, and what is under way ends by itself. Requests of sessions
        /// that a cookie of `sticky` ties to it go on: with true as long as they like, with a time so long, counted from the
        /// start or the reload that brought it; "0s" has them go elsewhere at once. It is asked all the same while no other is
        /// up; after its time only when every origin of the group is so far.
        DRAIN = "drain": Kind::Any(&[Kind::Boolean, Kind::Duration]), "false";
        /// The certificate chain in PEM the node shows when it is asked for one. It is read again with every reload. Needs
        /// `key`.
        CERTIFICATE = "certificate": Kind::Text("a file");
        /// The private key of `certificate` in PEM.
        KEY = "key": Kind::Text("a file");
        /// The oldest version of TLS that is spoken: with an origin that offers less, nothing of a request is exchanged.
        TLS_MINIMUM = "tls_minimum": Kind::Choice(&["1.2", "1.3"]), "1.2";
        /// Fields set on every request to it, checks included, in place of the client's: a value, or { file = "..." } with
        /// one, which is read again with every reload. They are not shown anywhere.
        HEADERS = "headers": Kind::Map(&Kind::Any(&[Kind::Text("a field value"), Kind::Table(&SECRET_FILE)]));
        /// Signs every request to it by AWS Signature Version 4, for buckets that are not public; bodies are not part of
        /// what is signed. `Authorization` and X-Amz-* of clients do not get there.
        ORIGIN_SIGV4 = "sigv4": Kind::Table(&SIGV4);
        /// Every connection to it begins with the address of a client, in this version of the PROXY protocol. Connections
        /// are shared by requests of one address alone; a response that many wait for is asked for in the name of the
        /// first.
        PROXY_PROTOCOL = "proxy_protocol": Kind::Choice(&["v1", "v2"]);
        /// How long it may take, where that is not what the site says.
        ORIGIN_TIMEOUTS = "timeouts": Kind::Table(&TIMEOUTS);
    }
}

impl Member {
    /// One with what is the default.
    pub fn of(origin: Origin) -> Self {
        Self { origin, weight: 1, tier: 1, max_requests: None, drain: None }
    }

    /// Whether what is known of it holds for another: they differ at most in what is asked of it.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.origin, self.weight, self.tier) == (&other.origin, other.weight, other.tier)
    }

    /// `timeouts`: those of the site.
    pub(crate) fn read(
        reader: &mut Reader,
        key: &crate::read::key::Key,
        value: Value<'_>,
        timeouts: OriginTimeouts,
    ) -> Option<Self> {
        if value.as_str().is_some() {
            let origin = Origin { timeouts, ..reader.parse::<Origin>(&URL, value)?.value };
            return Some(Self::of(origin));
        }
        let table = reader.as_table(key, &MEMBER, "an origin".into(), value)?;
        let member = Self::read_table(&table, reader, timeouts);
        table.finish(reader);
        member
    }

    fn read_table(table: &Table<'_>, reader: &mut Reader, timeouts: OriginTimeouts) -> Option<Self> {
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
        let max_requests = table.integer(reader, &ORIGIN_MAX_REQUESTS, 1..=1_000_000);
        let drain = drain(table, reader);
        let talking = Talking::read(table, reader, &TALKING);
        let own = table.table(reader, &ORIGIN_TIMEOUTS, &TIMEOUTS);
        let timeouts = OriginTimeouts::read(own, reader, timeouts);
        let mut origin = origin?.value;
        Talking::check(table, reader, &[&SNI, &CA, &VERIFY, &CERTIFICATE, &KEY, &TLS_MINIMUM], &origin);
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
        origin.talking = talking;
        origin.timeouts = timeouts;
        let tier = u8::try_from(tier.unwrap_or(1)).unwrap_or(1);
        Some(Self { origin, weight: weight.unwrap_or(1), tier, max_requests, drain })
    }
}

fn drain(table: &Table<'_>, reader: &mut Reader) -> Option<Drain> {
    let value = table.value(&DRAIN)?;
    match value.as_bool() {
        Some(drains) => drains.then_some(Drain::WithoutEnd),
        None if value.as_str().is_none() => {
            reader.wrong_kind(&DRAIN, value, "true, false or a time as in \"10m\"");
            None
        }
        None => table.parsed(reader, &DRAIN).map(|time| Drain::For(time.value)),
    }
}

const TALKING: Keys = Keys {
    certificate: &CERTIFICATE,
    key: &KEY,
    tls_minimum: &TLS_MINIMUM,
    headers: &HEADERS,
    sigv4: &ORIGIN_SIGV4,
    proxy_protocol: &PROXY_PROTOCOL,
};

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
