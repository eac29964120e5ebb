//! `[telemetry]`: where the access log goes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};

/// Where access-log records go, one JSON object a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output: what a container platform collects.
    #[default]
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for AccessLog {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Stdout,
            "off" => Self::Off,
            path => Self::File(path.into()),
        })
    }
}

section! {
    /// Where the access log goes.
    TELEMETRY = "[telemetry]" {
        /// Where access-log records go, one JSON object a line: "-" for standard output, "off" for nowhere, or a file,
        /// which is appended to and opened again on SIGHUP.
        ACCESS_LOG = "access_log": Kind::Text("-, off or a file"), "-";
    }
}

impl AccessLog {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let Some(table) = table else { return Self::default() };
        let target = table.parsed::<Self>(reader, &ACCESS_LOG);
        table.finish(reader);
        match target.map(|target| target.value) {
            Some(Self::File(path)) => Self::File(reader.beside(&path)),
            target => target.unwrap_or_default(),
        }
    }
}
