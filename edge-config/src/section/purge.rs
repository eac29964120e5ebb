//! `[purge]`: the log of purges.

use std::path::PathBuf;

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};

/// The log of purges, and how fast it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// The directory the log is in. None: what `STATE_DIRECTORY` of the environment says, else `.littoral`.
    pub data: Option<PathBuf>,
    /// What a site may purge in a second, and at once.
    pub rate: u32,
}

/// Selectors a second: a site that purges each of its pages as they change stays far below.
const RATE: u32 = 2_000;
const RATE_MAX: u32 = 1_000_000;

impl Default for Purge {
    fn default() -> Self {
        Self { data: None, rate: RATE }
    }
}

impl Purge {
    /// The directory where the node keeps what must outlive it.
    pub fn directory(&self) -> PathBuf {
        // systemd separates several by colons; the first is the unit's own.
        let state = || {
            let all = std::env::var("STATE_DIRECTORY").ok()?;
            all.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        self.data.clone().or_else(state).unwrap_or_else(|| ".littoral".into())
    }
}

section! {
    /// The log of purges.
    PURGE = "[purge]" {
        /// Where the log is: "local", on this node's own disk.
        LOG = "log": Kind::Choice(&["local"]), "local";
        /// The directory the log is in. Absent: STATE_DIRECTORY of the environment, which systemd sets, else .littoral in the
        /// directory the node was started in. Only one node may use it.
        DATA = "data": Kind::Text("a directory");
        /// How many selectors a site may purge in a second, and at once after a pause.
        RATE_KEY = "rate": Kind::Integer(1, RATE_MAX), "2000";
    }
}

impl Purge {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let Some(table) = table else { return Self::default() };
        let () = table.choice(reader, &LOG, &[("local", ())]).unwrap_or_default();
        let data = table.parsed::<PathBuf>(reader, &DATA).map(|data| reader.beside(&data.value));
        let rate = table.integer(reader, &RATE_KEY, 1..=RATE_MAX);
        table.finish(reader);
        Self { data, rate: rate.unwrap_or(RATE) }
    }
}
