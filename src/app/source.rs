//! Where a configuration comes from, and comes from again when it is reloaded.

use std::path::PathBuf;

use edge_config::section::purge::Log;
use edge_config::shared::Document;
use edge_config::{Config, Files};

use super::{StartError, copy};
use crate::cli::Run;
use crate::purge::nats::documents::{Text, Texts, Which};

/// Where a configuration comes from.
pub enum Source {
    /// The command line: it says the same every time.
    Options(Box<Config>),
    /// A file, with what the command line sets in its place.
    File { path: PathBuf, options: Box<Run> },
}

/// The files of a configuration as they were read, if it comes from files.
pub struct Read(Option<Files>);

/// What a node starts with.
pub struct Start {
    pub read: Read,
    pub config: Config,
    /// What is in force of the hub's.
    pub documents: Texts,
}

impl Source {
    /// Reads the files. What is wrong with them is said when a configuration is made of them.
    pub fn read(&self) -> Read {
        Read(match self {
            Self::Options(_) => None,
            Self::File { path, .. } => Some(Files::read(path)),
        })
    }

    /// The configuration of these files and of documents of the hub.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn config(&self, read: &Read, documents: &Texts) -> Result<Config, StartError> {
        match (self, &read.0) {
            (Self::File { options, .. }, Some(files)) => {
                // Of two that do not go together, the later one is said to be wrong.
                let mut sorted: Vec<(&Which, &Text)> =
                    documents.iter().filter(|(which, _)| !which.is_certificates()).collect();
                sorted.sort_by_key(|(_, text)| text.version);
                let documents: Vec<_> =
                    sorted.into_iter().map(|(which, text)| Document { site: which.site(), text: &text.text }).collect();
                let config = options.over(files.config(&documents)?);
                config.validate().map_err(StartError::Options)
            }
            (Self::Options(config), _) => Ok(Config::clone(config)),
            (Self::File { path, .. }, None) => self.config(&Read(Some(Files::read(path))), documents),
        }
    }

    /// What a node starts with: its own files, and the last good copy of what the hub had. A copy that is not good any more
    /// is not used, but for certificates; the hub will say what there is. A node without a hub has a copy of certificates alone.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn start(&self) -> Result<Start, StartError> {
        let read = self.read();
        let config = self.config(&read, &Texts::new())?;
        let directory = config.purge.directory();
        let mut documents = copy::load(&directory).unwrap_or_else(|error| {
            tracing::error!(%error, directory = %directory.display(), "the copy of the hub's configuration cannot be read");
            Texts::new()
        });
        if config.purge.log == Log::Local {
            // What a hub had once is nothing to a node alone; certificates are its own.
            documents.retain(|which, _| which.is_certificates());
            return Ok(Start { read, config, documents });
        }
        match self.config(&read, &documents) {
            Ok(config) => Ok(Start { read, config, documents }),
            Err(error) => {
                let why = error.summary();
                tracing::error!(
                    why,
                    "the copy of the hub's configuration is not good any more: the node starts without it"
                );
                documents.retain(|which, _| which.is_certificates());
                Ok(Start { read, config, documents })
            }
        }
    }
}
