//! What makes a node the same one after it was started again: its secret, and what it knows of its own log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "node.json";

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What keys and names are made with: what is on disks is found by it.
    secret: [u8; 32],
    /// Counts the starts.
    pub run: u64,
    /// The generation of the purge log it followed last. It grows by one when that is lost: what was stored before is gone
    /// then.
    pub log_generation: u16,
    /// When that log was made, in milliseconds of Unix time.
    pub log_created: u64,
    /// It has noted invalidations in a file.
    pub has_invalidations: bool,
    /// Disks that were taken out while the node ran.
    pub taken_out: Vec<PathBuf>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{0} cannot be used: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0} is not what this node has written: {1}")]
    Unreadable(PathBuf, serde_json::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Identity {
    /// Reads it, or makes one.
    ///
    /// # Errors
    /// It cannot be read. Without it everything on disks would be lost, so that is for the operator to decide.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| IdentityError::Unreadable(path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(IdentityError::Random)?;
                Ok(Self {
                    secret,
                    run: 0,
                    log_generation: 0,
                    log_created: 0,
                    has_invalidations: false,
                    taken_out: Vec::new(),
                })
            }
            Err(error) => Err(IdentityError::Io(path, error)),
        }
    }

    pub fn secret(&self) -> [u8; 32] {
        self.secret
    }

    /// Puts it in the place of what was there; only its owner may read it.
    ///
    /// # Errors
    /// The disk failed.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        let (path, new) = (directory.join(FILE), directory.join("node.json.new"));
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| IdentityError::Io(path.clone(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_the_same_after_a_start_and_a_file_of_something_else_is_refused() {
        let directory = std::env::temp_dir().join(format!("littoral-identity-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let mut first = Identity::load(&directory).expect("a new one");
        assert_eq!((first.run, first.log_generation), (0, 0));
        first.run = 1;
        first.save(&directory).expect("writable");
        assert_eq!(Identity::load(&directory).ok(), Some(first));
        fs::write(directory.join(FILE), "{}").expect("writable");
        assert!(matches!(Identity::load(&directory), Err(IdentityError::Unreadable(..))));
        fs::remove_dir_all(&directory).expect("ours");
    }
}
