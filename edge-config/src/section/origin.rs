//! `origins`: where a site's content comes from.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::talking::Talking;
use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// One origin: where to connect, and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the connection is TLS.
    pub scheme: OriginScheme,
    /// Host name or address, without brackets.
    pub host: String,
    pub port: u16,
    /// What its host is resolved to, where that is a name.
    pub resolve: Resolve,
    /// What the `Host` field of a request to it says.
    pub host_header: HostHeader,
    /// The name asked for in TLS and expected in the certificate. Default: [`Self::host`].
    pub sni: Option<String>,
    /// PEM file of the authorities that may vouch for it, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Whether its certificate is checked. Default: yes.
    pub verify: bool,
    /// HTTP/2: agreed on in TLS, or with prior knowledge in the clear. Default: HTTP/1.1.
    pub http2: bool,
    pub talking: Talking,
    pub timeouts: OriginTimeouts,
}

impl Origin {
    /// Whether another is found at the same place.
    pub fn is_at_the_same(&self, other: &Self) -> bool {
        (&self.host, self.port, self.resolve) == (&other.host, other.port, other.resolve)
    }

    /// Its URL, with the port.
    pub fn url(&self) -> String {
        let scheme = match self.scheme {
            OriginScheme::Http => "http",
            OriginScheme::Https => "https",
        };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{}", self.host, self.port)
    }

    /// Where it is, if that is no name.
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|address: IpAddr| SocketAddr::new(address, self.port))
    }
}

/// How the node speaks to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginScheme {
    Http,
    Https,
}

/// What is asked for about the name of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolve {
    /// IPv4 and IPv6 addresses.
    #[default]
    Addresses,
    Ipv4,
    Ipv6,
    /// SRV records (RFC 2782), and the addresses of their targets.
    Srv,
}

/// What the `Host` field of a request to an origin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The origin's own name, as its URL has it. The default, so that any public site can stand behind the node.
    Origin(String),
    /// This, for an origin that knows the site by another name.
    Fixed(String),
    /// What the client sent, for an origin that serves several sites.
    Client,
}

/// How long an origin may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginTimeouts {
    /// To accept a connection, TLS included. Default 3s.
    pub connect: Duration,
    /// From the request to the end of the response head. Default 30s.
    pub first_byte: Duration,
    /// Between two pieces of a body. Default 30s.
    pub between_bytes: Duration,
    /// From the request to the end of the response. Default: no limit.
    pub total: Option<Duration>,
    /// How long an unused connection is kept. Default 4s: common servers close theirs after 5s, and a request must not
    /// meet a connection that is just being closed.
    pub idle: Duration,
}

impl Default for OriginTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(30),
            between_bytes: Duration::from_secs(30),
            total: None,
            idle: Duration::from_secs(4),
        }
    }
}

/// Why a text is not an origin's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("`{0}` is not a URL: expected http://host[:port] or https://host[:port]")]
    NotAUrl(String),
    #[error("`{0}`: an origin's scheme is http or https")]
    Scheme(String),
    #[error("`{0}`: an origin has no user, path, query or fragment; the request's own path is used")]
    Surplus(String),
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotAUrl(text.into()))?;
        let scheme = match url.scheme() {
            "http" => OriginScheme::Http,
            "https" => OriginScheme::Https,
            _ => return Err(OriginError::Scheme(text.into())),
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::Surplus(text.into()));
        }
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| OriginError::NotAUrl(text.into()))?;
        let port = url.port_or_known_default().ok_or_else(|| OriginError::NotAUrl(text.into()))?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            scheme,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            resolve: Resolve::default(),
            host_header: HostHeader::Origin(authority),
            sni: None,
            ca: None,
            verify: true,
            http2: false,
            talking: Talking::default(),
            timeouts: OriginTimeouts::default(),
        })
    }
}

section! {
    /// How long the origins of a site, or one of them, may take.
    TIMEOUTS = "timeouts" {
        /// To accept a connection, TLS included.
        CONNECT = "connect": Kind::Duration, "3s";
        /// From the request to the end of the response head. For requests the cache has nothing to do with, as POST, the
        /// longer of this and `between_bytes` counts in both places.
        FIRST_BYTE = "first_byte": Kind::Duration, "30s";
        /// Between two pieces of a body.
        BETWEEN_BYTES = "between_bytes": Kind::Duration, "30s";
        /// From the request to the end of the response. Absent: no limit. Not for WebSockets. A request the cache has
        /// nothing to do with is broken off then, also when no answer has begun.
        TOTAL = "total": Kind::Duration;
        /// How long an unused connection is kept. Common servers close theirs after 5s, and a request must not meet a
        /// connection that is just being closed.
        IDLE = "idle": Kind::Duration, "4s";
    }
}

impl OriginTimeouts {
    /// What is absent is as in `otherwise`.
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader, otherwise: Self) -> Self {
        let Some(table) = table else { return otherwise };
        let mut time = |key: &Key, otherwise: Option<Duration>| match table.value(key) {
            Some(value) => reader.parse(key, value).map(|time| time.value),
            None => otherwise,
        };
        let timeouts = Self {
            connect: time(&CONNECT, None).unwrap_or(otherwise.connect),
            first_byte: time(&FIRST_BYTE, None).unwrap_or(otherwise.first_byte),
            between_bytes: time(&BETWEEN_BYTES, None).unwrap_or(otherwise.between_bytes),
            idle: time(&IDLE, None).unwrap_or(otherwise.idle),
            total: time(&TOTAL, otherwise.total),
        };
        for key in [&CONNECT, &FIRST_BYTE, &BETWEEN_BYTES, &TOTAL] {
            table.positive(reader, key);
        }
        table.finish(reader);
        timeouts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<(&str, u16, &str), ()>) {
        let got = text.parse::<Origin>();
        match (got, want) {
            (Ok(origin), Ok((host, port, authority))) => {
                assert_eq!((origin.host.as_str(), origin.port), (host, port), "{text}");
                assert_eq!(origin.host_header, HostHeader::Origin(authority.into()), "{text}");
                assert_eq!(origin.url().parse::<Origin>(), Ok(origin), "{text}");
            }
            (Err(_), Err(())) => {}
            (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn urls() {
        check("http://example.org", Ok(("example.org", 80, "example.org")));
        check("https://example.org/", Ok(("example.org", 443, "example.org")));
        check("http://127.0.0.1:8000", Ok(("127.0.0.1", 8000, "127.0.0.1:8000")));
        check("http://[::1]:8000", Ok(("::1", 8000, "[::1]:8000")));
        check("example.org", Err(()));
        check("ftp://example.org", Err(()));
        check("http://example.org/path", Err(()));
        check("http://user@example.org", Err(()));
        check("http://", Err(()));
    }
}
