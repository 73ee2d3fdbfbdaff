//! Which workloads are published as HBONE, on disk: a controller that starts again must not tell a node "plaintext" about a workload
//! that was captured all along.
//!
//! Invariant: a workload is in the file before any node is told HBONE, and stays until no node is.

use std::{collections::BTreeSet, path::PathBuf};

use mesh_model::name::WorkloadUid;

use crate::files::{self, FileError, Readers};

/// The file and what is in it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    written: BTreeSet<WorkloadUid>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not ours.
    #[error("{path}: {error}; remove it only if no workload is in the mesh")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
}

impl Memory {
    /// Reads the file; none is an empty one.
    pub fn open(state: &std::path::Path) -> Result<Self, MemoryError> {
        let path = state.join("published.json");
        let uids: Vec<String> = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| MemoryError::Damaged { path: path.clone(), error })?,
            None => Vec::new(),
        };
        Ok(Self { path, written: uids.into_iter().map(WorkloadUid::new).collect() })
    }

    /// What is in the file.
    pub fn published(&self) -> &BTreeSet<WorkloadUid> {
        &self.written
    }

    /// Makes the file say this, if it does not. Blocks on the disk.
    pub fn write(&mut self, published: &BTreeSet<WorkloadUid>) -> Result<(), MemoryError> {
        if self.written == *published {
            return Ok(());
        }
        let uids: Vec<&str> = published.iter().map(WorkloadUid::as_str).collect();
        let text = serde_json::to_vec(&uids)
            .map_err(|error| MemoryError::Damaged { path: self.path.clone(), error })?;
        files::write(&self.path, &text, Readers::Owner)?;
        self.written = published.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        assert!(memory.published().is_empty());
        let uids: BTreeSet<_> = ["a", "b"].map(WorkloadUid::new).into();
        memory.write(&uids).unwrap();
        assert_eq!(Memory::open(directory.path()).unwrap().published(), &uids);
    }

    #[test]
    fn a_damaged_memory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("published.json"), "[").unwrap();
        assert!(Memory::open(directory.path()).is_err());
    }
}
