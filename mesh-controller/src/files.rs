//! Files of the state directory: written whole or not at all, readable by nobody else when they are secret.
//!
//! Invariant: a reader (or a crash) never sees half a file; what was promised is on the disk before the call returns.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readers {
    /// Its owner alone (0600).
    Owner,
    /// Everybody (0644): certificates.
    All,
}

/// A file or directory that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Names the path that an operation failed on.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// Creates a directory that only its owner may enter (0700), with its parents.
pub fn private_directory(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::at(path))
}

/// The content, or None if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at(path)(error)),
    }
}

/// Whether others than the owner can read the file.
pub fn is_exposed(path: &Path) -> Result<bool, FileError> {
    let metadata = fs::metadata(path).map_err(FileError::at(path))?;
    Ok(metadata.permissions().mode() & 0o077 != 0)
}

/// Replaces the file in one step: a temporary beside it, synced, renamed, and the directory synced.
pub fn write(path: &Path, content: &[u8], readers: Readers) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // One process owns the directory (see `lock`), so the name need not be random; a leftover of a crash is overwritten.
    let temporary = directory.join(format!(".{name}.new"));
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o644,
    };
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::at(&temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(FileError::at(&temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(FileError::at(&temporary))?;
    fs::rename(&temporary, path).map_err(FileError::at(path))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(FileError::at(directory))
}

/// Holds the state directory; released when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the directory for this process: two controllers on one state would make two roots and undo each other's enrolments.
pub fn lock(directory: &Path) -> Result<Lock, FileError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(FileError::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(fs::TryLockError::WouldBlock) => Err(FileError::at(&path)(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another controller uses this state directory",
        ))),
        Err(fs::TryLockError::Error(error)) => Err(FileError::at(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_files_are_secret_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"one", Readers::Owner).unwrap();
        write(&path, b"two", Readers::Owner).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert!(!is_exposed(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary stays");
    }

    #[test]
    fn a_state_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        assert!(lock(directory.path()).unwrap_err().to_string().contains("another controller"));
        drop(first);
        lock(directory.path()).unwrap();
    }
}
