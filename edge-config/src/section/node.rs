//! `[node]`: what a node is called, and how others reach it.

use std::ops::Range;
use std::path::PathBuf;

use super::origin::Origin;
use super::purge::Log;
use super::secret::key_file;
use crate::read::key::{Key, Kind, section};
use crate::read::{Reader, Shielding, Table};

/// What a node is called, and how others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// None: as its machine.
    pub name: Option<String>,
    /// Where it stands. None: it has nothing to do with other nodes but the log of purges.
    pub pop: Option<String>,
    /// Where other nodes reach it. None: they do not ask it.
    pub address: Option<Origin>,
    /// A PEM file of the authorities that may vouch for other nodes, in place of the system's.
    pub authority: Option<PathBuf>,
    /// A file of at least 32 random bytes, the same on all nodes of the CDN.
    pub key_file: Option<PathBuf>,
}

/// Names are shown in lists, and are parts of subjects of the hub.
const NAME_MAX: usize = 64;

section! {
    /// What this node is called among others, and how they reach it.
    NODE = "[node]" {
        /// Its name in receipts of purges and in lists of nodes: at most 64 letters, digits, hyphens, underscores and dots. Absent:
        /// the name of the machine.
        NAME = "name": Kind::Text("a name");
        /// The point of presence it stands in, named as `name` is: `shield` of a site names one. Needs `key_file`. Absent: it
        /// neither asks other nodes nor is asked by them.
        POP = "pop": Kind::Text("a name");
        /// Where other nodes reach it: http://host:port or https://host\[:port\], one of its listeners. Needs `pop` and `key_file`.
        /// With https the host is a name that the certificate of that listener is for, not an address. Absent: other nodes do
        /// not ask it.
        ADDRESS = "address": Kind::Text("a URL, http://host:port or https://host[:port]");
        /// A PEM file of the authorities that may vouch for the certificates of other nodes, in place of the system's.
        AUTHORITY = "authority": Kind::Text("a file");
        /// A file of at least 32 random bytes, the same on all nodes of the CDN, by which they know one another: whoever has it can
        /// ask them as a node does.
        KEY_FILE = "key_file": Kind::Text("a file");
    }
}

/// Why there are no other nodes.
const ALONE: &str = "nodes that do not follow one purge log cannot trust what another one stored: name the hub, \
                     log = { nats = \"tls://hub:4222\" } in [purge], or leave the key out";

const MAKE_ONE: &str = "name one, the same on all nodes; make it with: head -c 32 /dev/urandom > node.key";

impl NodeSettings {
    /// `log`: the purge log of the node.
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader, log: &Log) -> Self {
        let node = table.map(|table| Self::of(table, reader, log)).unwrap_or_default();
        reader.known.shielding = match log {
            Log::Local => Shielding::Alone,
            Log::Nats(_) if node.pop.is_none() || node.key_file.is_none() => Shielding::Nowhere,
            Log::Nats(_) => Shielding::Possible,
        };
        node
    }

    fn of(table: Table<'_>, reader: &mut Reader, log: &Log) -> Self {
        let node = Self {
            name: name(&table, reader, &NAME, "a node"),
            pop: name(&table, reader, &POP, "a PoP"),
            address: address(&table, reader),
            authority: table.required_if_there(reader, &AUTHORITY, "BEGIN CERTIFICATE"),
            key_file: key_file(&table, reader, &KEY_FILE, "node.key"),
        };
        for key in [&POP, &ADDRESS, &AUTHORITY, &KEY_FILE] {
            if let Some(value) = table.value(key).filter(|_| *log == Log::Local) {
                let message = format!("`{}` of [node], and `log` of [purge] is \"local\"", key.name);
                reader.wrong(&value.span(), message, "there are no other nodes", ALONE);
            }
        }
        needs(&table, reader, &ADDRESS, &POP, POP.summary());
        needs(&table, reader, &ADDRESS, &KEY_FILE, MAKE_ONE.into());
        needs(&table, reader, &POP, &KEY_FILE, MAKE_ONE.into());
        table.finish(reader);
        node
    }
}

fn needs(table: &Table<'_>, reader: &mut Reader, key: &Key, needed: &Key, help: String) {
    if let (Some(value), None) = (table.value(key), table.value(needed)) {
        let message = format!("`{}` without `{}`", key.name, needed.name);
        reader.wrong(&value.span(), message, format_args!("`{}` is missing", needed.name), help);
    }
}

fn address(table: &Table<'_>, reader: &mut Reader) -> Option<Origin> {
    let origin = table.parsed::<Origin>(reader, &ADDRESS)?;
    if origin.value.address().is_some_and(|address| address.ip().is_unspecified()) {
        let message = format!("{} is no address of one node", origin.value.host);
        reader.wrong(&origin.span, message, "nobody can reach it there", ADDRESS.summary());
    }
    Some(origin.value)
}

/// A name of the kind nodes have; `of`: what it is the name of.
pub(super) fn name(table: &Table<'_>, reader: &mut Reader, key: &Key, of: &str) -> Option<String> {
    let name = table.parsed::<String>(reader, key)?;
    check_name(&name.value, &name.span, reader, key, of);
    Some(name.value)
}

pub(super) fn check_name(name: &str, span: &Range<usize>, reader: &mut Reader, key: &Key, of: &str) {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(valid) {
        reader.wrong(span, format!("\"{name}\" cannot be the name of {of}"), "this name", key.summary());
    }
}

/// The PoP whose nodes a site's misses go to.
pub(super) fn shield(table: &Table<'_>, reader: &mut Reader, key: &Key) -> Option<String> {
    let shield = name(table, reader, key, "a PoP")?;
    let span = table.value(key)?.span();
    match reader.known.shielding {
        Shielding::Alone => {
            let message = format!("`{}` of a site, and `log` of [purge] is \"local\"", key.name);
            reader.wrong(&span, message, "there are no other nodes", ALONE);
        }
        Shielding::Nowhere => {
            let message = format!("`{}` of a site, and [node] has no `pop` and `key_file`", key.name);
            let help = "say in [node] of each node where it stands, and give all of them one key_file";
            reader.wrong(&span, message, "this node cannot ask others", help);
        }
        Shielding::Possible => {}
    }
    Some(shield)
}
