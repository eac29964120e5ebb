//! `[listen]`: where clients connect.

use std::net::SocketAddr;
use std::str::FromStr;

use super::site::Network;
use crate::read::key::{Kind, section};
use crate::read::{At, Reader, Table};

/// Where clients connect. At least one address in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// HTTP/1, in the clear.
    pub http: Vec<SocketAddr>,
    /// TLS, with HTTP/2 and HTTP/1.1.
    pub https: Vec<SocketAddr>,
    /// HTTP/1, where anybody may ask whether the node is ready, and nothing else.
    pub health: Vec<SocketAddr>,
    /// Whose connections begin with a header of the PROXY protocol. Default: nobody's.
    pub proxies: Vec<Network>,
}

impl Listen {
    /// Those for clients.
    pub fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.http.iter().chain(&self.https)
    }
}

/// One or several addresses.
pub(crate) const ADDRESSES: Kind =
    Kind::Many(&Kind::Text("address and port, as in \"127.0.0.1:8080\" or \":8080\" for every address"));

section! {
    /// Where clients connect. At least one of the two.
    LISTEN = "[listen]" {
        /// HTTP/1 in the clear.
        HTTP = "http": ADDRESSES;
        /// TLS, with HTTP/2 and HTTP/1.1. Needs certificates in `tls`.
        HTTPS = "https": ADDRESSES;
        /// HTTP/1 in the clear, where /livez, /readyz and /currentz are answered and nothing else: for name servers and load
        /// balancers, which cannot reach the admin API.
        HEALTH = "health": ADDRESSES;
        /// Load balancers that say at the beginning of a connection whose it is, by the PROXY protocol, version 1 or 2.
        PROXY_PROTOCOL = "proxy_protocol": Kind::Table(&PROXIES);
    }
}

section! {
    /// Who speaks the PROXY protocol. What it says of a client's address counts everywhere: in the log, in rules and limits, and
    /// for origins. A reload changes it for connections from then on.
    PROXIES = "proxy_protocol" {
        /// Their addresses. Every connection from there must begin with a header, before TLS, within `head_timeout` of \[limits\];
        /// others are closed. Connections from elsewhere are clients' own.
        FROM = "from": Kind::Many(&Kind::Text("an address range, as in \"10.0.0.0/8\""));
    }
}

/// An address, its host perhaps left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub SocketAddr);

/// A text that is no address.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not an address: expected an IP address and a port, as in 127.0.0.1:8080, [::1]:8080 or :8080")]
pub(crate) struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(every_address),
            None => text.parse().ok(),
        };
        address.map(Self).ok_or_else(|| AddressError(text.into()))
    }
}

/// IPv6 and IPv4 where the machine has both; IPv4 where it has no IPv6.
pub fn every_address(port: u16) -> SocketAddr {
    let has_ipv6 = std::net::UdpSocket::bind(SocketAddr::from(([0u16; 8], 0))).is_ok();
    if has_ipv6 { SocketAddr::from(([0u16; 8], port)) } else { SocketAddr::from(([0, 0, 0, 0], port)) }
}

/// The listeners, each with its place.
#[derive(Debug, Default)]
pub(crate) struct ListenAt {
    pub http: Vec<At<SocketAddr>>,
    pub https: Vec<At<SocketAddr>>,
    pub health: Vec<At<SocketAddr>>,
    pub proxies: Vec<Network>,
}

impl ListenAt {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let Some(table) = table else { return Self::default() };
        let mut addresses = |key| {
            let address = |reader: &mut Reader, value| reader.parse::<Address>(key, value);
            let all = table.many(reader, key, address);
            all.into_iter().map(|address| address.map(|address| address.0)).collect()
        };
        let (http, https, health) = (addresses(&HTTP), addresses(&HTTPS), addresses(&HEALTH));
        let proxies = table.table(reader, &PROXY_PROTOCOL, &PROXIES).map(|table| proxies(table, reader));
        let listen = Self { http, https, health, proxies: proxies.unwrap_or_default() };
        table.finish(reader);
        listen
    }
}

impl From<&ListenAt> for Listen {
    fn from(listen: &ListenAt) -> Self {
        let values = |all: &[At<SocketAddr>]| all.iter().map(|address| address.value).collect();
        Self {
            http: values(&listen.http),
            https: values(&listen.https),
            health: values(&listen.health),
            proxies: listen.proxies.clone(),
        }
    }
}

fn proxies(table: Table<'_>, reader: &mut Reader) -> Vec<Network> {
    let network = |reader: &mut Reader, value| reader.parse::<Network>(&FROM, value).map(|network| network.value);
    let from = table.many(reader, &FROM, network);
    table.required(reader, &FROM, from.is_empty());
    table.finish(reader);
    from
}
