//! The state file of the embedded cloud: JSON, replaced whole, so that a reader or the next start never sees half of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::machines::Machines;

/// Why a state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("the embedded cloud's state {}: {why}; check the directory and its permissions", .file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// In the system's words.
        why: io::Error,
    },
    /// It is no state of this version.
    #[error("{}: not a state of the embedded cloud: {why}; move it away to start with a fresh cloud", .file.display())]
    Broken {
        /// Which file.
        file: PathBuf,
        /// What is wrong, with line and column.
        why: serde_json::Error,
    },
}

/// The cloud as it was last written; None when there is no file yet.
pub(super) fn read(file: &Path) -> Result<Option<Machines>, StateError> {
    match fs::read(file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|why| StateError::Broken { file: file.to_owned(), why })
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(StateError::Io { file: file.to_owned(), why }),
    }
}

/// Replaces the file in one step.
pub(super) fn write(file: &Path, cloud: &Machines) -> Result<(), StateError> {
    let beside = file.with_extension("new");
    let bytes = serde_json::to_vec(cloud).map_err(|why| StateError::Broken { file: file.to_owned(), why })?;
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, file))
        .map_err(|why| StateError::Io { file: file.to_owned(), why })
}
