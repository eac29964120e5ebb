//! `[anycast]`: addresses that routers lead to the nearest of several nodes.

use super::site::Network;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// How a node leaves whose addresses are those of others too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anycast {
    /// The prefixes that are announced while the node serves. At least one.
    pub addresses: Vec<Network>,
    /// How long a node that is announced no more still serves. Default 2s: routers of one's own need less than one.
    pub withdraw_linger: Duration,
}

/// What linger there is where none is written.
const LINGER_SECONDS: u64 = 2;

section! {
    /// The node has addresses that other nodes have too, and routers lead each client to one of them. A node that drains stays
    /// announced until its clients are done, or `drain_timeout` of \[limits\] is over: only then GET /announcez says that it is to
    /// be withdrawn. Absent: a draining node closes its doors after `drain_grace`.
    ANYCAST = "[anycast]" {
        /// The prefixes, as routers are told them. What announces them is `littoral announce` with BIRD, not the node itself.
        ADDRESSES = "addresses": Kind::Many(&Kind::Text("an address range, as in 192.0.2.1/32"));
        /// How long a draining node serves once it is withdrawn: as long as routers need to lead clients elsewhere.
        WITHDRAW_LINGER = "withdraw_linger": Kind::Duration, "2s";
    }
}

impl Anycast {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Option<Self> {
        let table = table?;
        let network = |reader: &mut Reader, value| reader.parse::<Network>(&ADDRESSES, value);
        let addresses: Vec<_> = table.many(reader, &ADDRESSES, network).into_iter().map(|at| at.value).collect();
        table.required(reader, &ADDRESSES, addresses.is_empty());
        let linger = table.parsed::<Duration>(reader, &WITHDRAW_LINGER).map(|time| time.value);
        table.finish(reader);
        Some(Self { addresses, withdraw_linger: linger.unwrap_or(Duration::from_secs(LINGER_SECONDS)) })
    }
}
