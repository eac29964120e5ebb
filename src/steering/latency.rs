//! How long it takes from networks to PoPs.
//!
//! A line is `NETWORK,POP,MILLISECONDS`, as in `192.0.2.0/24,fra,12.5`; blank ones and those that begin with `#` do not count. Of
//! several measurements of a PoP from a network the shortest counts: what is more than that was a queue on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use edge_config::section::pop::Pop;

/// What was measured, by network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies(BTreeMap<Prefix, BTreeMap<String, f64>>);

/// A network, without bits behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {wrong}")]
pub struct LineError {
    pub line: usize,
    pub wrong: Wrong,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("expected NETWORK,POP,MILLISECONDS, as in 192.0.2.0/24,fra,12.5")]
    Form,
    #[error("\"{0}\" is not a network: expected one as in 192.0.2.0/24 or 2001:db8::/32")]
    Network(String),
    #[error("{0} has bits behind its length: expected {1}")]
    Bits(String, Prefix),
    #[error("{0} is a form of an IPv4 network: write that one")]
    Ipv4(String),
    #[error("there is no [pop.{0}]")]
    Pop(String),
    #[error("\"{0}\" is not a time: expected milliseconds from 0 to 60000, as in 12.5")]
    Time(String),
}

/// Nothing that answers takes longer.
const MILLISECONDS_MAX: f64 = 60_000.0;
/// How many lines are said to be wrong, at most.
const ERRORS_MAX: usize = 20;

/// Forms of IPv4 addresses in IPv6 (gdnsd-plugin-geoip(8)): what is mapped, translated twice (RFC 2765 and 6052), and in tunnels.
const FORMS_OF_IPV4: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

impl Prefix {
    fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(address) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
            _ => return None,
        };
        Some(Self { address, length })
    }

    fn is_form_of_ipv4(&self) -> bool {
        FORMS_OF_IPV4.iter().any(|(form, length)| {
            self.length >= *length && Self::new(self.address, *length).is_some_and(|prefix| prefix.address == *form)
        })
    }
}

impl FromStr for Prefix {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let parts = text.split_once('/').and_then(|(address, length)| {
            let length = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse::<u8>().ok())??;
            Some((address.parse::<IpAddr>().ok()?, length))
        });
        let (address, length) = parts.ok_or_else(|| Wrong::Network(text.into()))?;
        let prefix = Self::new(address, length).ok_or_else(|| Wrong::Network(text.into()))?;
        if prefix.address != address {
            return Err(Wrong::Bits(text.into(), prefix));
        }
        if prefix.is_form_of_ipv4() {
            return Err(Wrong::Ipv4(text.into()));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Latencies {
    /// Reads a table.
    ///
    /// # Errors
    /// The first lines that are wrong.
    pub fn parse(text: &str, pops: &[Pop]) -> Result<Self, Vec<LineError>> {
        let (mut read, mut errors) = (Self::default(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match measurement(line, pops) {
                Ok((network, pop, time)) => {
                    let times = read.0.entry(network).or_default();
                    let shortest = times.entry(pop.to_owned()).or_insert(time);
                    *shortest = shortest.min(time);
                }
                Err(wrong) if errors.len() < ERRORS_MAX => errors.push(LineError { line: index + 1, wrong }),
                Err(_) => {}
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    /// The networks, and the PoPs from the nearest on; those that were not measured come last, in the order of the file.
    pub fn orders<'p>(&'p self, pops: &'p [Pop]) -> impl Iterator<Item = (Prefix, Vec<&'p str>)> {
        self.0.iter().map(|(network, times)| {
            let time = |pop: &&str| times.get(*pop).copied().unwrap_or(f64::INFINITY);
            let mut order: Vec<&str> = pops.iter().map(|pop| pop.name.as_str()).collect();
            order.sort_by(|one, other| time(one).total_cmp(&time(other)));
            (*network, order)
        })
    }
}

fn measurement<'l>(line: &'l str, pops: &[Pop]) -> Result<(Prefix, &'l str, f64), Wrong> {
    let parts: Vec<&str> = line.split(',').map(str::trim).collect();
    let [network, pop, time] = parts.as_slice() else { return Err(Wrong::Form) };
    let network = network.parse()?;
    if !pops.iter().any(|known| known.name == **pop) {
        return Err(Wrong::Pop((*pop).into()));
    }
    let plain = time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let milliseconds = time.parse::<f64>().ok().filter(|time| plain && *time <= MILLISECONDS_MAX);
    Ok((network, pop, milliseconds.ok_or_else(|| Wrong::Time((*time).into()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pops() -> Vec<Pop> {
        let pop = |name: &str| Pop { name: name.into(), addresses: Vec::new(), weight: 1, near: Vec::new() };
        ["fra", "nyc", "sin"].map(pop).to_vec()
    }

    #[test]
    fn the_nearest_first() {
        let pops = pops();
        let rows: [(&str, &[&str]); 5] = [
            ("192.0.2.0/24,nyc,80.5\n192.0.2.0/24,fra,9\n192.0.2.0/24,sin,160", &["192.0.2.0/24 fra nyc sin"]),
            ("# measured\n\n 2001:db8::/32 , sin , 3 \n", &["2001:db8::/32 sin fra nyc"]),
            ("10.0.0.0/8,nyc,50\n10.0.0.0/8,fra,20\n10.0.0.0/8,nyc,10", &["10.0.0.0/8 nyc fra sin"]),
            ("10.0.0.0/8,sin,5\n10.0.0.0/8,nyc,5", &["10.0.0.0/8 nyc sin fra"]),
            ("0.0.0.0/0,sin,5\n::/0,nyc,5\n", &["0.0.0.0/0 sin fra nyc", "::/0 nyc fra sin"]),
        ];
        for (text, expected) in rows {
            let read = Latencies::parse(text, &pops).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
            let orders: Vec<String> =
                read.orders(&pops).map(|(network, order)| format!("{network} {}", order.join(" "))).collect();
            assert_eq!(orders, expected, "{text}");
        }
    }

    #[test]
    fn wrong_lines() {
        for (line, expected) in [
            ("192.0.2.0/24,fra", "expected NETWORK,POP,MILLISECONDS, as in 192.0.2.0/24,fra,12.5"),
            ("192.0.2.0/24 fra 3", "expected NETWORK,POP,MILLISECONDS, as in 192.0.2.0/24,fra,12.5"),
            ("192.0.2.0,fra,3", "\"192.0.2.0\" is not a network: expected one as in 192.0.2.0/24 or 2001:db8::/32"),
            (
                "192.0.2.0/33,fra,3",
                "\"192.0.2.0/33\" is not a network: expected one as in 192.0.2.0/24 or 2001:db8::/32",
            ),
            ("::/+8,fra,3", "\"::/+8\" is not a network: expected one as in 192.0.2.0/24 or 2001:db8::/32"),
            ("192.0.2.1/24,fra,3", "192.0.2.1/24 has bits behind its length: expected 192.0.2.0/24"),
            ("::ffff:10.0.0.0/104,fra,3", "::ffff:10.0.0.0/104 is a form of an IPv4 network: write that one"),
            ("2002::/16,fra,3", "2002::/16 is a form of an IPv4 network: write that one"),
            ("10.0.0.0/8,ams,3", "there is no [pop.ams]"),
            ("10.0.0.0/8,fra,-3", "\"-3\" is not a time: expected milliseconds from 0 to 60000, as in 12.5"),
            ("10.0.0.0/8,fra,inf", "\"inf\" is not a time: expected milliseconds from 0 to 60000, as in 12.5"),
            ("10.0.0.0/8,fra,60001", "\"60001\" is not a time: expected milliseconds from 0 to 60000, as in 12.5"),
        ] {
            let errors = Latencies::parse(&format!("10.0.0.0/8,fra,1\n{line}\n"), &pops()).expect_err(line);
            assert_eq!(errors.len(), 1, "{line}");
            assert_eq!(errors[0].to_string(), format!("line 2: {expected}"));
        }
        let many = "x\n".repeat(100);
        assert_eq!(Latencies::parse(&many, &pops()).expect_err("all wrong").len(), ERRORS_MAX);
    }
}
