//! One digest for a set of files and folders: same names and same bytes give the same digest, on any machine.
//!
//! Shared by the node's build script and by xtask, so that the two cannot disagree on what the kernel side was
//! built from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The folders, below the root of the work tree, that make up the contract between kernel and user space.
pub const ABI_FOLDERS: [&str; 2] = ["mesh-abi/src", "mesh-ebpf/src"];

/// The hash of that contract, short enough for a path. Pins in bpffs carry it, so that an agent never adopts maps
/// or programs of another layout.
pub fn abi_hash(root: &Path) -> io::Result<String> {
    Ok(of_files(root, &ABI_FOLDERS)?.chars().take(12).collect())
}

/// SHA-256, in hex, over `paths` below `root`; folders are walked in the order of names.
pub fn of_files(root: &Path, paths: &[&str]) -> io::Result<String> {
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file)?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        // Lengths first, so that moving bytes from one file to the next is seen.
        hash.update(format!("{} {}\n", name.display(), content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every file at or below `path`. A path that does not exist adds nothing: its absence is part of the digest.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
    } else if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_both_count() {
        let root = tempfile::tempdir().unwrap();
        let digest = || of_files(root.path(), &["src", "absent"]).unwrap();
        fs::create_dir(root.path().join("src")).unwrap();
        let empty = digest();
        fs::write(root.path().join("src/a"), "one").unwrap();
        let first = digest();
        assert_ne!(first, empty);
        assert_eq!(first, digest());
        fs::write(root.path().join("src/a"), "two").unwrap();
        assert_ne!(first, digest());
        fs::remove_file(root.path().join("src/a")).unwrap();
        fs::write(root.path().join("src/b"), "one").unwrap();
        assert_ne!(first, digest());
    }
}
