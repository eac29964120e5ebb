//! `[admin]`: where the operator connects.

use std::net::SocketAddr;

use super::listener::Address;
use crate::read::key::{Kind, section};
use crate::read::{At, Reader, Table};

section! {
    /// The operator's side: metrics, health, reload.
    ADMIN = "[admin]" {
        /// Where it listens. Whoever connects there can reload and drain the node: keep it off public networks.
        ADMIN_LISTEN = "listen": Kind::Text("address and port"), "127.0.0.1:9900";
    }
}

/// Where the operator connects, if nothing else is said.
pub fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9900))
}

pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Option<At<SocketAddr>> {
    let table = table?;
    let listen = table.parsed::<Address>(reader, &ADMIN_LISTEN);
    table.finish(reader);
    listen.map(|listen| listen.map(|address| address.0))
}
