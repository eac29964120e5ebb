//! `[telemetry]`: where the access log goes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

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
