//! What is known of a disk apart from its frames: whether it is ours, how it is divided, and how it was left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::log::Geometry;

/// The format of everything in the directory. Another one is not read.
const FORMAT: u32 = 1;
const NAME: &str = "littoral.manifest";
/// The frames.
pub const DATA: &str = "littoral.cache";

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub segment_bytes: u64,
    /// How many there were. Fewer now, and what is missing may have replaced something that is left.
    pub segments: u32,
    /// The run of the node that used it last.
    pub run: u64,
    /// The start of the machine it was last used in: another one, and what was written last may not have reached the disk.
    pub boot: String,
    /// It was closed: everything that was written is there.
    pub clean: bool,
    /// Frames of this epoch and before are validated before they are used.
    pub distrusted: u64,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the directory {0} cannot be made: {1}")]
    Directory(PathBuf, io::Error),
    #[error("{0} cannot be opened: {1}")]
    Open(PathBuf, io::Error),
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    #[error("{0} is not of this cache ({1}): name another directory, or empty this one")]
    Foreign(PathBuf, String),
    #[error("{0} cannot get its {1} bytes: {2}")]
    Space(PathBuf, u64, io::Error),
    #[error("{0} cannot be read: {1}")]
    Read(PathBuf, io::Error),
    #[error("the cache on {0} cannot be started: {1}")]
    Start(PathBuf, String),
}

impl Manifest {
    pub fn new(geometry: Geometry, run: u64) -> Self {
        let Geometry { segment_bytes, segments } = geometry;
        Self { format: FORMAT, segment_bytes, segments, run, boot: boot(), clean: false, distrusted: 0 }
    }

    /// Reads the manifest of a directory. None: nothing was ever kept there.
    ///
    /// # Errors
    /// What is there is not ours, or cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Self>, DiskError> {
        let path = directory.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let data = directory.join(DATA);
                return match data.exists() {
                    true => Err(DiskError::Foreign(data, format!("there is no {NAME} beside it"))),
                    false => Ok(None),
                };
            }
            Err(error) => return Err(DiskError::Read(path, error)),
        };
        let foreign = |why: String| DiskError::Foreign(path.clone(), why);
        let known: serde_json::Value = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
        match known.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(foreign(format!("format {format}, this version has {FORMAT}"))),
            None => return Err(foreign("it has no format".into())),
        }
        serde_json::from_value(known).map(Some).map_err(|error| foreign(error.to_string()))
    }

    /// Whether what was written last has surely reached the disk.
    pub fn is_certain(&self, run: u64) -> bool {
        // One that missed a run may hold what was replaced meanwhile, elsewhere.
        (self.clean || self.boot == boot()) && self.run + 1 >= run
    }

    /// Bytes of the frames when it was written.
    pub fn data_bytes(&self) -> u64 {
        self.segment_bytes.saturating_mul(u64::from(self.segments))
    }

    /// Puts it in the place of what was there.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let (path, new) = (directory.join(NAME), directory.join("littoral.manifest.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()
    }
}

/// Names the start of the machine.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("littoral-manifest-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        assert!(matches!(Manifest::read(&directory), Ok(None)));
        fs::write(directory.join(DATA), b"somebody's").expect("writable");
        let refused = Manifest::read(&directory).expect_err("foreign").to_string();
        assert!(refused.contains("littoral.cache is not of this cache (there is no littoral.manifest"), "{refused}");
        let manifest = Manifest::new(Geometry { segment_bytes: 1 << 20, segments: 8 }, 4);
        manifest.write(&directory).expect("writable");
        assert_eq!(Manifest::read(&directory).ok().flatten(), Some(manifest.clone()));
        for (text, why) in [
            ("{}", "it has no format"),
            ("no", "expected"),
            (r#"{"format":9}"#, "format 9, this version has 1"),
            (r#"{"format":1}"#, "missing field"),
        ] {
            fs::write(directory.join(NAME), text).expect("writable");
            let refused = Manifest::read(&directory).expect_err("foreign").to_string();
            assert!(refused.contains(why), "{refused}");
        }
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn a_loss_of_power_and_a_missed_run_make_it_uncertain() {
        let here = Manifest::new(Geometry { segment_bytes: 1, segments: 1 }, 4);
        let elsewhere = Manifest { boot: "another".into(), ..here.clone() };
        assert!(here.is_certain(5) && !here.is_certain(6));
        assert!(!elsewhere.is_certain(5) && Manifest { clean: true, ..elsewhere }.is_certain(5));
    }
}
