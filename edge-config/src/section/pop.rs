//! `[pop.*]`: where nodes stand, and for whom.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Table, Value};

/// A point of presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pop {
    pub name: String,
    /// Of its nodes, as clients connect to them. At least one, each once.
    pub addresses: Vec<IpAddr>,
    /// Its share of clients where they are sent by weight.
    pub weight: u32,
    /// What it is nearest to.
    pub near: Vec<Place>,
}

/// A part of the world: a continent, a country of it, a part of the country.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Vec<String>);

section! {
    /// A point of presence, and the addresses that clients reach its nodes at.
    POP = "[pop.NAME]" {
        /// The addresses of its nodes, IPv4 and IPv6, as clients connect to them.
        ADDRESS_LIST = "addresses": Kind::Many(&Kind::Text("an IP address"));
        /// Its share of clients with `steering` "weighted".
        WEIGHT = "weight": Kind::Integer(1, 1_000), "1";
        /// What it is nearest to, for `steering` "geo": continents ("EU", of AF, AN, AS, EU, NA, OC and SA), countries of them
        /// ("EU/DE", ISO 3166-1), and parts of these ("NA/US/CA", ISO 3166-2). Clients from elsewhere are sent to the first PoP of
        /// the file that is up.
        NEAR = "near": Kind::Many(&Kind::Text("a continent, country or part of it"));
    }
}

/// A name server has room for as many in one answer, and more are no PoP.
const ADDRESSES_MAX: usize = 16;
/// How many PoPs a name server keeps apart.
const POPS_MAX: usize = 64;

const CONTINENTS: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];

/// An address that clients can be sent to.
struct IpAddress(IpAddr);

#[derive(Debug, thiserror::Error)]
enum IpAddressError {
    #[error("\"{0}\" is not an IP address: expected one as in 192.0.2.10 or 2001:db8::10, without a port")]
    Form(String),
    #[error("{0} is no address of one node")]
    Nobody(IpAddr),
}

impl FromStr for IpAddress {
    type Err = IpAddressError;

    fn from_str(text: &str) -> Result<Self, IpAddressError> {
        let address: IpAddr = text.parse().map_err(|_| IpAddressError::Form(text.into()))?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(IpAddressError::Nobody(address));
        }
        Ok(Self(address))
    }
}

/// The addresses of a key, each once.
pub(crate) fn addresses_of(table: &Table<'_>, reader: &mut Reader, key: &Key) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for value in table.value(key).map(Value::members).unwrap_or_default() {
        let Some(address) = reader.parse::<IpAddress>(key, value) else { continue };
        if addresses.contains(&address.value.0) {
            let message = format!("the address {} is there twice", address.value.0);
            reader.wrong(&address.span, message, "again", "once is enough");
        }
        addresses.push(address.value.0);
    }
    if let (true, Some(value)) = (addresses.len() > ADDRESSES_MAX, table.value(key)) {
        let message = format!("{} addresses, expected at most {ADDRESSES_MAX}", addresses.len());
        reader.wrong(
            &value.span(),
            message,
            "too many",
            "put a load balancer in front of more nodes, or make two PoPs",
        );
    }
    addresses
}

/// A text that is no place.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no place: expected a continent as in \"EU\", a country as in \"EU/DE\", or a part as in \"NA/US/CA\""
)]
pub struct PlaceError(String);

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_place = match parts.as_slice() {
            [continent, rest @ ..] if CONTINENTS.contains(continent) && rest.len() <= 3 => {
                let country = rest.first().is_none_or(|c| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase()));
                let is_part = |part: &&str| {
                    let valid = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                    (1..=3).contains(&part.len()) && part.bytes().all(valid)
                };
                country && rest.iter().skip(1).all(is_part)
            }
            _ => false,
        };
        is_place.then(|| Self(parts.into_iter().map(str::to_owned).collect())).ok_or_else(|| PlaceError(text.into()))
    }
}

impl Place {
    /// The continent, then what is within it.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// Whether the other one is this, or a part of it.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl Pop {
    /// All of them, in the order of the file.
    pub(crate) fn read_all(root: &Table<'_>, reader: &mut Reader, key: &Key) -> Vec<Self> {
        let Some(value) = root.value(key) else { return Vec::new() };
        let Some(entries) = value.entries() else {
            reader.wrong_kind(key, value, "tables as in [pop.NAME]");
            return Vec::new();
        };
        let mut pops: Vec<Self> = Vec::with_capacity(entries.len());
        if entries.len() > POPS_MAX {
            let message = format!("{} PoPs, expected at most {POPS_MAX}", entries.len());
            reader.wrong(&value.span(), message, "too many", key.summary());
        }
        for (name, value) in entries {
            super::node::check_name(name.value, &name.span, reader, key, "a PoP");
            let Some(table) = reader.as_table(key, &POP, format!("[pop.{}]", name.value), value) else { continue };
            let pop = Self::read(name.value, table, reader, &pops);
            pops.push(pop);
        }
        pops
    }

    fn read(name: &str, table: Table<'_>, reader: &mut Reader, others: &[Self]) -> Self {
        let addresses = addresses_of(&table, reader, &ADDRESS_LIST);
        table.required(reader, &ADDRESS_LIST, addresses.is_empty());
        let also = |address: &IpAddr| others.iter().find(|pop| pop.addresses.contains(address));
        if let (Some((address, other)), Some(value)) =
            (addresses.iter().find_map(|address| Some((address, also(address)?))), table.value(&ADDRESS_LIST))
        {
            let message = format!("the address {address} is of both `{}` and `{name}`", other.name);
            let help = "a node stands in one PoP; what all announce is for `addresses` of [dns]";
            reader.wrong(&value.span(), message, "again", help);
        }
        let weight = table.integer(reader, &WEIGHT, 1..=1_000).unwrap_or(1);
        let place = |reader: &mut Reader, value| reader.parse::<Place>(&NEAR, value).map(|place| place.value);
        let near = table.many(reader, &NEAR, place);
        table.finish(reader);
        Self { name: name.to_owned(), addresses, weight, near }
    }
}
