//! Where a configuration comes from, and comes from again when it is reloaded.

use std::path::PathBuf;

use edge_config::Config;

use super::StartError;
use crate::cli::Run;

/// Where a configuration comes from.
pub enum Source {
    /// The command line: it says the same every time.
    Options(Box<Config>),
    /// A file, with what the command line sets in its place.
    File { path: PathBuf, options: Box<Run> },
}

impl Source {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, StartError> {
        match self {
            Self::Options(config) => Ok(Config::clone(config)),
            Self::File { path, options } => {
                let config = options.over(edge_config::load(path)?);
                config.validate().map_err(StartError::Options)
            }
        }
    }
}
