//! The last good copy of what the hub has of the configuration: a node starts with it when the hub is away. A node without a hub
//! keeps the certificates of its sites in it, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::purge::nats::documents::{Text, Texts, Which};

const FILE: &str = "hub-config.json";
const FORM: u8 = 1;

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Copy {
    v: u8,
    documents: Vec<(Which, Text)>,
}

/// Reads it. Nothing, where there is none.
///
/// # Errors
/// It cannot be read.
pub fn load(directory: &Path) -> io::Result<Texts> {
    let text = match fs::read(directory.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Texts::new()),
        Err(error) => return Err(error),
    };
    let copy: Copy = serde_json::from_slice(&text)?;
    match copy.v {
        FORM => Ok(copy.documents.into_iter().collect()),
        other => Err(io::Error::other(format!("it is of the form {other}, which this node does not know"))),
    }
}

/// Puts it in the place of what was there; only its owner may read it.
///
/// # Errors
/// The disk failed.
pub fn save(directory: &Path, documents: &Texts) -> io::Result<()> {
    let documents = documents.iter().map(|(which, text)| (which.clone(), text.clone())).collect();
    let (path, new) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&Copy { v: FORM, documents })?)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_there_and_something_else_is_told() {
        let directory = std::env::temp_dir().join(format!("littoral-copy-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        assert_eq!(load(&directory).expect("no file is none"), Texts::new());
        let site = Which::Site("a.b".into());
        let certificates = Which::Certificates("a.b".into());
        let text = |text: &str| Text { version: 3, text: text.into() };
        let texts: Texts = [(site, text("x")), (certificates, text("y")), (Which::Node, Text::default())].into();
        save(&directory, &texts).expect("writable");
        assert_eq!(load(&directory).expect("it is there"), texts);
        for other in ["", "{}", r#"{"v":2,"documents":[]}"#] {
            fs::write(directory.join(FILE), other).expect("writable");
            assert!(load(&directory).is_err(), "{other:?}");
        }
        fs::remove_dir_all(&directory).expect("ours");
    }
}
