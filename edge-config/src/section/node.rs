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
    }
}

/// The name, if one is given.
pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Option<String> {
    let table = table?;
    let name = table.parsed::<String>(reader, &NAME);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if let Some(name) = &name
        && (name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.bytes().all(valid))
    {
        let message = format!("\"{}\" cannot be the name of a node", name.value);
        reader.wrong(&name.span, message, "this name", NAME.summary());
    }
    table.finish(reader);
    name.map(|name| name.value)
}
