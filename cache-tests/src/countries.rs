//! A small database of countries, in MaxMind's format: <https://maxmind.github.io/MaxMind-DB/>.

use std::net::IpAddr;

/// What a side of a node leads to.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    /// Bytes from the beginning of the data.
    Data(usize),
}

/// The file for networks, as in `("192.0.2.0/24", "DE")` or, with the continent, `("192.0.2.0/24", "EU/DE")`, none within another.
///
/// # Panics
/// When a network is none.
pub fn database(networks: &[(&str, &str)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Side::Nothing; 2]], Vec::new());
    for (network, country) in networks {
        let (address, length) = network.split_once('/').expect("a prefix length");
        let length: usize = length.parse().expect("a prefix length");
        let (bits, length) = match address.parse().expect("an address") {
            // IPv4 stands where IPv6 is zero but for 32 bits.
            IpAddr::V4(address) => (u128::from(u32::from(address)), length + 96),
            IpAddr::V6(address) => (u128::from(address), length),
        };
        let side = |depth: usize| usize::from(bits >> (127 - depth) & 1 == 1);
        let mut at = 0;
        for depth in 0..length - 1 {
            at = match nodes[at][side(depth)] {
                Side::Node(next) => next,
                _ => {
                    nodes.push([Side::Nothing; 2]);
                    let next = nodes.len() - 1;
                    nodes[at][side(depth)] = Side::Node(next);
                    next
                }
            };
        }
        nodes[at][side(length - 1)] = Side::Data(data.len());
        let (continent, country) =
            country.split_once('/').map_or((None, *country), |(continent, country)| (Some(continent), country));
        map(1 + u8::from(continent.is_some()), &mut data);
        if let Some(continent) = continent {
            text("continent", &mut data);
            map(1, &mut data);
            text("code", &mut data);
            text(continent, &mut data);
        }
        text("country", &mut data);
        map(1, &mut data);
        text("iso_code", &mut data);
        text(country, &mut data);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for side in nodes.into_iter().flatten() {
        let record = match side {
            Side::Nothing => count,
            Side::Node(node) => node,
            Side::Data(at) => count + 16 + at,
        };
        file.extend_from_slice(&u32::try_from(record).expect("it is small").to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(u32::try_from(count).expect("it is small"), &mut file);
    file
}

fn metadata(nodes: u32, out: &mut Vec<u8>) {
    map(9, out);
    text("binary_format_major_version", out);
    number(5, &2u16.to_be_bytes(), out);
    text("binary_format_minor_version", out);
    number(5, &0u16.to_be_bytes(), out);
    text("build_epoch", out);
    // A type beyond the seventh: its number stands in a byte of its own.
    out.extend_from_slice(&[8, 9 - 7]);
    out.extend_from_slice(&1_800_000_000u64.to_be_bytes());
    text("database_type", out);
    text("Test-Country", out);
    text("description", out);
    map(1, out);
    text("en", out);
    text("Countries of tests", out);
    text("ip_version", out);
    number(5, &6u16.to_be_bytes(), out);
    text("languages", out);
    out.extend_from_slice(&[1, 11 - 7]);
    text("en", out);
    text("node_count", out);
    number(6, &nodes.to_be_bytes(), out);
    text("record_size", out);
    number(5, &24u16.to_be_bytes(), out);
}

fn map(pairs: u8, out: &mut Vec<u8>) {
    out.push(7 << 5 | pairs);
}

fn text(text: &str, out: &mut Vec<u8>) {
    let length = u8::try_from(text.len()).expect("it is short");
    assert!(length < 29, "longer texts have their length elsewhere");
    out.push(2 << 5 | length);
    out.extend_from_slice(text.as_bytes());
}

fn number(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind << 5 | u8::try_from(bytes.len()).expect("it is short"));
    out.extend_from_slice(bytes);
}
