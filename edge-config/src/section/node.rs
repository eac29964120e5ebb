//! `[node]`: what a node is called.

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};

/// Names are shown in lists, and are parts of subjects of the hub.
const NAME_MAX: usize = 64;

section! {
    /// What this node is called among others.
    NODE = "[node]" {
        /// Its name in receipts of purges and in lists of nodes: at most 64 letters, digits, hyphens, underscores and dots. Absent:
        /// the name of the machine.
        NAME = "name": Kind::Text("a name");
        /// The PoP it is of.
        POP = "pop": Kind::Text("a name");
        /// Where other nodes reach it.
        ADDRESS = "address": Kind::Text("a URL");
        /// Authorities.
        AUTHORITY = "authority": Kind::Text("a file");
        /// The key.
        KEY_FILE = "key_file": Kind::Text("a file");
    }
}

/// What a node is among others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    pub name: Option<String>,
    pub pop: Option<String>,
    pub address: Option<crate::section::origin::Origin>,
    pub authority: Option<std::path::PathBuf>,
    pub key_file: Option<std::path::PathBuf>,
}

/// The name, if one is given.
pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> NodeSettings {
    let Some(table) = table else { return NodeSettings::default() };
    let name = table.parsed::<String>(reader, &NAME);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if let Some(name) = &name
        && (name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.bytes().all(valid))
    {
        let message = format!("\"{}\" cannot be the name of a node", name.value);
        reader.wrong(&name.span, message, "this name", NAME.summary());
    }
    let settings = NodeSettings {
        name: name.map(|name| name.value),
        pop: table.parsed::<String>(reader, &POP).map(|pop| pop.value),
        address: table.parsed::<crate::section::origin::Origin>(reader, &ADDRESS).map(|address| address.value),
        authority: table.file(reader, &AUTHORITY).map(|(path, _)| path),
        key_file: table.file(reader, &KEY_FILE).map(|(path, _)| path),
    };
    table.finish(reader);
    settings
}
