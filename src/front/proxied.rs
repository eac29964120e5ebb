//! The header of the PROXY protocol, by which a load balancer says whose connection it passes on.
//!
//! It stands before everything else, TLS included. Whatever was read beyond it is put back.

use std::net::IpAddr;
use std::time::Instant;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Socket;
use proxy_header::{ParseConfig, ProxyHeader};

use crate::front::connection::{ReadEnd, Timer, read_some};

/// The longest header that is taken. Addresses need at most 52 bytes, the name and the certificate of a client in TLS a few
/// hundred; a header may say that it has 64 KiB.
const HEADER_BYTES_MAX: usize = 4 << 10;

/// Why a connection has no header that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// Whoever connected went away.
    Closed,
    Late,
    /// Something else came.
    Malformed,
}

impl NoHeader {
    /// The label of the refusal; none for somebody who just went away, as those do that only look whether the port is open.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::Late => Some("proxy-header-timeout"),
            Self::Malformed => Some("proxy-header"),
        }
    }
}

/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;

/// What bytes are as the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Incomplete,
    Malformed,
    /// A header of so many bytes, and the client it tells. None: it tells nobody, as the load balancer's own checks do.
    Header(usize, Option<IpAddr>),
}

/// Reads the header of a connection: the stream behind it, and the client it tells.
///
/// # Errors
/// There is none that counts.
pub async fn accept(stream: Stream, deadline: Instant) -> Result<(Stream, Option<IpAddr>), NoHeader> {
    let mut stream = stream;
    let mut timer = Timer::new(deadline);
    let mut buffer = BytesMut::new();
    let (length, client) = loop {
        match beginning(&buffer) {
            Beginning::Header(length, client) => break (length, client),
            Beginning::Malformed => return Err(NoHeader::Malformed),
            Beginning::Incomplete => {}
        }
        match read_some(&mut stream, &mut buffer, &mut timer, deadline, |_| false).await {
            Ok(()) => {}
            Err(ReadEnd::Late) => return Err(NoHeader::Late),
            // Half a header is none.
            Err(_) if buffer.is_empty() => return Err(NoHeader::Closed),
            Err(_) => return Err(NoHeader::Malformed),
        }
    };
    // Before anything else is done with it a connection is a socket.
    let mut socket = stream.into_any().downcast::<Socket>().map_err(|_| NoHeader::Malformed)?;
    socket.rewind(buffer.get(length..).unwrap_or_default());
    Ok((socket, client))
}

fn beginning(bytes: &[u8]) -> Beginning {
    const V1: &[u8] = b"PROXY ";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let is_start_of = |mark: &[u8]| mark.iter().zip(bytes).all(|(left, right)| left == right);
    if !is_start_of(V1) && !is_start_of(V2) {
        return Beginning::Malformed;
    }
    // How long it is stands in it, or is seen: what is parsed is all of it.
    let length = match bytes.starts_with(V1) {
        true => memchr::memchr(b'\n', bytes).map(|end| end + 1),
        false => bytes.get(14..16).map(|length| 16 + length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
    };
    let most = if bytes.starts_with(V1) { LINE_BYTES_MAX } else { HEADER_BYTES_MAX };
    if length.unwrap_or(bytes.len()) > most {
        return Beginning::Malformed;
    }
    let Some(header) = length.and_then(|length| bytes.get(..length)) else { return Beginning::Incomplete };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((told, length)) if length == header.len() => {
            Beginning::Header(length, told.proxied_address().map(|told| told.source.ip().to_canonical()))
        }
        _ => Beginning::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(rest: &[u8]) -> Vec<u8> {
        [b"\r\n\r\n\0\r\nQUIT\n", rest].concat()
    }

    #[test]
    fn beginnings() {
        let told = |length, client: &str| Beginning::Header(length, Some(client.parse().expect("an address")));
        let tcp4 = b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb";
        let mut tcp6 = b"\x21\x21\x00\x24".to_vec();
        tcp6.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        tcp6.extend_from_slice(&[0; 20]);
        let with_tlv = b"\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb\x02\x00\x04name";
        let mut unix = b"\x21\x31\x00\xd8".to_vec();
        unix.extend_from_slice(&[b'/'; 216]);
        let rows: &[(&str, Vec<u8>, Beginning)] = &[
            ("nothing", vec![], Beginning::Incomplete),
            ("v1", b"PROXY TCP4 192.0.2.1 198.51.100.2 1024 443\r\nGET /".to_vec(), told(44, "192.0.2.1")),
            ("v1 of IPv6", b"PROXY TCP6 2001:db8::1 2001:db8::2 1024 443\r\n".to_vec(), told(45, "2001:db8::1")),
            ("v1 mapped", b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), told(37, "192.0.2.1")),
            ("v1 unknown", b"PROXY UNKNOWN\r\nGET".to_vec(), Beginning::Header(15, None)),
            ("v1 unknown and more", b"PROXY UNKNOWN ffff:f ::1 1 2\r\n".to_vec(), Beginning::Header(30, None)),
            ("half of v1", b"PROXY TCP4 192.0.2.1 198".to_vec(), Beginning::Incomplete),
            ("v1 without its end", [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat(), Beginning::Malformed),
            (
                "v1 of a family that is none",
                b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n".to_vec(),
                Beginning::Malformed,
            ),
            ("v1 with a name", b"PROXY TCP4 localhost 198.51.100.2 1 2\r\n".to_vec(), Beginning::Malformed),
            ("v1 with a port too large", b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n".to_vec(), Beginning::Malformed),
            ("v1 without CR", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nGET / HTTP/1.1\r\n".to_vec(), Beginning::Malformed),
            ("v2", v2(tcp4), told(28, "192.0.2.1")),
            ("v2 and more", [v2(tcp4), b"GET /".to_vec()].concat(), told(28, "192.0.2.1")),
            ("v2 of IPv6", v2(&tcp6), told(52, "2001:db8::1")),
            ("v2 with a TLV", v2(with_tlv), told(35, "192.0.2.1")),
            ("v2 local", v2(b"\x20\x00\x00\x00"), Beginning::Header(16, None)),
            ("v2 local with addresses", v2(&[b"\x20", &tcp4[1..]].concat()), Beginning::Header(28, None)),
            ("v2 of no family", v2(b"\x21\x00\x00\x02ab"), Beginning::Header(18, None)),
            ("v2 of a socket with a path", v2(&unix), Beginning::Header(232, None)),
            ("half of v2", v2(b"\x21\x11\x00\x0c\xc0\x00"), Beginning::Incomplete),
            ("half of the mark", b"\r\n\r\n\0\r".to_vec(), Beginning::Incomplete),
            ("v2 that says it is long", v2(b"\x21\x11\xff\xff"), Beginning::Malformed),
            ("v2 with addresses too short", v2(b"\x21\x11\x00\x02ab"), Beginning::Malformed),
            ("v2 of a version that is none", v2(b"\x31\x11\x00\x00"), Beginning::Malformed),
            ("v2 of a command that is none", v2(b"\x22\x11\x00\x00"), Beginning::Malformed),
            ("a request", b"GET / HTTP/1.1\r\n".to_vec(), Beginning::Malformed),
            ("the first byte of one", b"G".to_vec(), Beginning::Malformed),
            ("a name that begins like it", b"PROXYTCP4".to_vec(), Beginning::Malformed),
            ("TLS", b"\x16\x03\x01\x00".to_vec(), Beginning::Malformed),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(beginning(bytes), *expected, "{name}");
        }
    }

    /// Whatever comes, and however much of it at a time, the outcome is the same, and bounded.
    #[test]
    fn fuzzed() {
        let tcp4 = v2(b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\x00\x01\xbb");
        let corpus: [&[u8]; 3] = [b"PROXY TCP4 192.0.2.1 198.51.100.2 1024 443\r\nGET /", b"PROXY UNKNOWN\r\n", &tcp4];
        crate::fuzz::target("headers of the PROXY protocol", &corpus, |input| {
            let whole = beginning(input);
            let first = (0..=input.len())
                .map(|end| beginning(&input[..end]))
                .find(|beginning| *beginning != Beginning::Incomplete);
            assert_eq!(first.unwrap_or(Beginning::Incomplete), whole);
            assert!(whole != Beginning::Incomplete || input.len() < HEADER_BYTES_MAX, "it is waited for");
        });
    }
}
