//! Files that others read while we write them.
//!
//! Invariant: whoever opens the path sees the file as it was or as it is, whole, also after a power cut.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

/// Whose a file is and who may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// User and group; ours if not given.
    pub owner: Option<(u32, u32)>,
}

impl Access {
    /// Ours, with these permission bits.
    pub fn mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }

    /// As the file at `path` has it.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { mode: file.mode() & 0o7777, owner: Some((file.uid(), file.gid())) })
    }
}

/// The text at `path`, if it is at most `limit` bytes long.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Replaces the file at `path` by what `content` gives.
pub fn write(path: &Path, mut content: impl Read, access: Access) -> io::Result<()> {
    let fresh = beside(path)?;
    let written = write_new(&fresh, &mut content, access).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // What is left of it is overwritten by the next attempt.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    sync_folder(path)
}

/// Removes the file; it may be gone already.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder that only we may enter, unless it is there.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Makes the names in the folder of `path` last.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A name in the same folder that no container runtime takes for a configuration.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{}.tulle-new", name.to_string_lossy())))
}

fn write_new(path: &Path, content: &mut impl Read, access: Access) -> io::Result<()> {
    // A leftover of a crash would keep its own owner and mode.
    remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(content, &mut file)?;
    if let Some((user, group)) = access.owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(access.mode))?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_access_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.conflist");
        write(&path, &b"one"[..], Access::mode(0o640)).unwrap();
        write(&path, &b"two"[..], Access::of(&path).unwrap()).unwrap();
        assert_eq!(read(&path, 3).unwrap(), "two");
        assert_eq!(Access::of(&path).unwrap().mode, 0o640);
        assert!(read(&path, 2).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }
}
