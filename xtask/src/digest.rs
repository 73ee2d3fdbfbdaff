//! One digest for a set of files and folders: same names and same bytes give the same digest, on any machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The digest over `paths` below `root`; folders are walked in the order of names.
pub fn of_files(root: &Path, paths: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        // Lengths first, so that moving bytes from one file to the next is seen.
        hash.update(format!("{} {}\n", name.display(), content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every file at or below `path`. A path that does not exist adds nothing: its absence is part of the digest.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
    } else if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
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
