//! `[site.*]`: what one site does with requests and responses.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::group::{Group, StatusRange};
use super::rule::Rule;

/// One site: the requests it answers and the origins behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub name: String,
    /// The hosts it answers for. No two sites have the same.
    pub hosts: Vec<HostPattern>,
    pub origins: Group,
    pub rules: Vec<Rule>,
    /// Responses with `Set-Cookie`. Default: not stored without explicit permission.
    pub set_cookie: SetCookie,
    /// GET and HEAD requests with a body. Default: refused.
    pub get_body: GetBody,
    /// Clients whose `X-Forwarded-*` and similar fields are believed. Default: nobody.
    pub trusted_clients: Vec<Network>,
    /// Whether clients are told what the cache did. Default: yes.
    pub cache_status: bool,
    /// Whether requests in the clear are redirected to HTTPS. Default: no.
    pub https_only: bool,
    /// Bodies for answers of the node's own; the first that covers a status.
    pub error_pages: Vec<ErrorPage>,
}

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: every host no other site answers for.
    Any,
    /// One name or address, in lower case, without a port.
    Exact(String),
    /// `*.example.com`, kept as `example.com`: every name below it, at any depth, but not itself.
    Below(String),
}

/// The body of an answer of the node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    pub status: StatusRange,
    pub file: PathBuf,
    pub content_type: &'static str,
    /// What the file held when the configuration was read.
    pub body: Vec<u8>,
}

/// An error page is at most this large.
pub const ERROR_PAGE_BYTES_MAX: usize = 256 << 10;

impl Site {
    /// A site for every host with one origin, and defaults for the rest.
    pub fn of_one(name: &str, origin: super::origin::Origin) -> Self {
        Self {
            name: name.into(),
            hosts: vec![HostPattern::Any],
            origins: Group::of_one(origin),
            rules: Vec::new(),
            set_cookie: SetCookie::default(),
            get_body: GetBody::default(),
            trusted_clients: Vec::new(),
            cache_status: true,
            https_only: false,
            error_pages: Vec::new(),
        }
    }
}

/// What may be stored of responses that set a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Only with `public`, `s-maxage` or a targeted field: one forgotten `Cache-Control` must not share a session.
    #[default]
    Refuse,
    /// As any other response, to the letter of RFC 9111.
    Rfc9111,
}

/// What to do with a GET or HEAD that has a body. No cache may use it, and origins disagree about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GetBody {
    /// 400.
    #[default]
    Refuse,
    /// Hand it to the origin, uncached.
    Pass,
}

/// A range of addresses in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range: expected 10.0.0.0/8, 2001:db8::/32 or a single address")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.into());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix }).ok_or_else(error)
    }
}

impl Network {
    /// Whether an address lies in the range. An IPv4 address that arrived on an IPv6 socket counts as IPv4.
    pub fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(client)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(network).checked_shr(shift) == u32::from(client).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(client)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(network).checked_shr(shift) == u128::from(client).checked_shr(shift)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, client: &str, want: bool) {
        let network: Network = network.parse().expect("a network");
        assert_eq!(network.contains(client.parse().expect("an address")), want, "{network:?} {client}");
    }

    #[test]
    fn networks() {
        check("10.0.0.0/8", "10.9.8.7", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("127.0.0.0/8", "::ffff:127.0.0.1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "::1", true);
        check("::/0", "127.0.0.1", false);
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "/8", "10.0.0.0/", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
