//! Connections that begin with a header of the PROXY protocol: whose requests they are for.
//!
//! Such a connection belongs to one client address. Whoever connects keeps them apart by the key of the pool.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use edge_config::section::talking::ProxyVersion;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::{BError, Error, ErrorType, OrErr};
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Connects, and says first whose requests come.
#[derive(Debug)]
pub struct Announced {
    header: Vec<u8>,
}

impl Announced {
    pub fn new(version: ProxyVersion, client: Option<IpAddr>, origin: SocketAddr) -> Self {
        Self { header: header(version, client, origin) }
    }
}

/// The header. Without a client the connection is the node's own: a check.
///
/// A client's port is not known to whoever asks for many, so it is 0; what it connected to is told as the origin itself.
fn header(version: ProxyVersion, client: Option<IpAddr>, origin: SocketAddr) -> Vec<u8> {
    let header = match client {
        None => ProxyHeader::with_local(),
        Some(client) => {
            let (client, origin) = of_one_family(client, origin);
            ProxyHeader::with_address(ProxiedAddress::stream(client, origin))
        }
    };
    let mut bytes = Vec::with_capacity(128);
    let written = match version {
        ProxyVersion::V1 => header.encode_v1(&mut bytes),
        ProxyVersion::V2 => header.encode_v2(&mut bytes),
    };
    written.expect("both addresses are of one family, and there is nothing else");
    bytes
}

/// Both addresses as the header can have them: where one is IPv6, an IPv4 address is written as one.
fn of_one_family(client: IpAddr, origin: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        address => address,
    };
    let (client, at) = (client.to_canonical(), origin.ip().to_canonical());
    let (client, at) = if client.is_ipv4() == at.is_ipv4() { (client, at) } else { (mapped(client), mapped(at)) };
    (SocketAddr::new(client, 0), SocketAddr::new(at, origin.port()))
}

#[async_trait]
impl L4Connect for Announced {
    /// The limit of the whole connection, TLS included, is Pingora's.
    async fn connect(&self, address: &PingoraAddress) -> Result<Stream, BError> {
        let address = address.as_inet().ok_or_else(|| Error::new(ErrorType::ConnectError))?;
        let connected = TcpStream::connect(address).await;
        let mut stream = connected.or_err(ErrorType::ConnectError, "no connection")?;
        // A header of a hundred bytes fits into the buffer of any socket.
        stream.write_all(&self.header).await.or_err(ErrorType::ConnectError, "the header cannot be sent")?;
        Ok(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let rows: &[(ProxyVersion, Option<&str>, &str, &[u8])] = &[
            (ProxyVersion::V1, Some("192.0.2.1"), "198.51.100.2:443", b"PROXY TCP4 192.0.2.1 198.51.100.2 0 443\r\n"),
            (ProxyVersion::V1, Some("2001:db8::1"), "[2001:db8::2]:80", b"PROXY TCP6 2001:db8::1 2001:db8::2 0 80\r\n"),
            (
                ProxyVersion::V1,
                Some("2001:db8::1"),
                "198.51.100.2:80",
                b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 0 80\r\n",
            ),
            (
                ProxyVersion::V1,
                Some("::ffff:192.0.2.1"),
                "198.51.100.2:80",
                b"PROXY TCP4 192.0.2.1 198.51.100.2 0 80\r\n",
            ),
            (ProxyVersion::V1, None, "198.51.100.2:80", b"PROXY UNKNOWN\r\n"),
            (
                ProxyVersion::V2,
                Some("192.0.2.1"),
                "198.51.100.2:443",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x00\x00\x01\xbb",
            ),
            (ProxyVersion::V2, None, "198.51.100.2:443", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"),
        ];
        for (version, client, origin, expected) in rows {
            let client = client.map(|client| client.parse().expect("an address"));
            let header = header(*version, client, origin.parse().expect("an address"));
            assert_eq!(header, *expected, "{version:?} {client:?} {origin}");
        }
    }
}
