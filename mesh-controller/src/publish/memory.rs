//! Which workloads are published as HBONE, remembered outside of the process: a controller that starts again must not tell a node
//! "plaintext" about a workload that was captured all along.
//!
//! Invariant: a workload is remembered before any node is told HBONE, and stays so until no node is.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use mesh_model::name::WorkloadUid;
use tokio::time::Instant;

use crate::{
    files::{self, FileError, Readers},
    state::cluster::{ClusterState, ClusterStateError},
};

/// After a failure nothing is tried for this long: the publisher has other things to do than to wait.
const RETRY: Duration = Duration::from_secs(5);

/// The memory and what is in it.
pub struct Memory {
    place: Place,
    /// None: we do not know what is there.
    written: Option<BTreeSet<WorkloadUid>>,
    failed_at: Option<Instant>,
}

enum Place {
    File(PathBuf),
    Cluster(ClusterState),
}

/// Why nothing can be remembered.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterStateError),
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
    /// Reads the file in a state directory; none is an empty one.
    pub fn open(state: &std::path::Path) -> Result<Self, MemoryError> {
        let path = state.join("published.json");
        let uids: Vec<String> = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| MemoryError::Damaged { path: path.clone(), error })?,
            None => Vec::new(),
        };
        let written = uids.into_iter().map(WorkloadUid::new).collect();
        Ok(Self { place: Place::File(path), written: Some(written), failed_at: None })
    }

    /// In the cluster, where this was read.
    pub fn in_cluster(state: ClusterState, written: BTreeSet<WorkloadUid>) -> Self {
        Self { place: Place::Cluster(state), written: Some(written), failed_at: None }
    }

    /// What is remembered.
    pub fn published(&self) -> BTreeSet<WorkloadUid> {
        self.written.clone().unwrap_or_default()
    }

    /// What somebody saw in its place. If it is not what was written, it is written again: somebody changed it (or it was seen late, and
    /// writing the same once more does no harm).
    pub fn seen(&mut self, seen: Option<&BTreeSet<WorkloadUid>>) {
        if seen != self.written.as_ref() {
            self.written = None;
        }
    }

    /// When [`Self::write`] tries again after a failure.
    pub fn retry_at(&self) -> Option<Instant> {
        Some(self.failed_at? + RETRY)
    }

    /// Remembers this, if it is not remembered. False: it is not, or not all of it, and will be tried again; the reason is for whoever
    /// asked first. Waits for the disk, or 3 s for the API server.
    pub async fn write(&mut self, published: &BTreeSet<WorkloadUid>) -> Result<bool, MemoryError> {
        if self.written.as_ref() == Some(published) {
            self.failed_at = None;
            return Ok(true);
        }
        if self.retry_at().is_some_and(|retry| Instant::now() < retry) {
            return Ok(false);
        }
        self.failed_at = Some(Instant::now());
        self.place.write(published).await?;
        self.failed_at = None;
        self.written = Some(published.clone());
        Ok(true)
    }
}

impl Place {
    async fn write(&self, published: &BTreeSet<WorkloadUid>) -> Result<(), MemoryError> {
        match self {
            Self::File(path) => {
                let uids: Vec<&str> = published.iter().map(WorkloadUid::as_str).collect();
                let text = serde_json::to_vec(&uids)
                    .map_err(|error| MemoryError::Damaged { path: path.clone(), error })?;
                Ok(files::write(path, &text, Readers::Owner)?)
            }
            Self::Cluster(state) => Ok(state.remember(published).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_published_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        assert!(memory.published().is_empty());
        let uids: BTreeSet<_> = ["a", "b"].map(WorkloadUid::new).into();
        assert!(memory.write(&uids).await.unwrap());
        assert_eq!(Memory::open(directory.path()).unwrap().published(), uids);
        std::fs::remove_file(directory.path().join("published.json")).unwrap();
        memory.seen(None);
        assert!(memory.write(&uids).await.unwrap());
        assert_eq!(Memory::open(directory.path()).unwrap().published(), uids);
    }

    #[tokio::test]
    async fn what_somebody_wrote_over_it_is_written_again_and_its_own_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("published.json");
        let mut memory = Memory::open(directory.path()).unwrap();
        let uids: BTreeSet<_> = ["a", "b"].map(WorkloadUid::new).into();
        memory.write(&uids).await.unwrap();
        std::fs::write(&path, "[\"c\"]").unwrap();
        memory.seen(Some(&uids));
        memory.write(&uids).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\"c\"]", "nobody saw it");
        memory.seen(Some(&[WorkloadUid::new("c")].into()));
        memory.write(&uids).await.unwrap();
        assert_eq!(Memory::open(directory.path()).unwrap().published(), uids);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_and_tried_again_later() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state");
        std::fs::create_dir(&place).unwrap();
        let mut memory = Memory::open(&place).unwrap();
        std::fs::remove_dir(&place).unwrap();
        let uids: BTreeSet<_> = [WorkloadUid::new("a")].into();
        memory.write(&uids).await.unwrap_err();
        assert!(!memory.write(&uids).await.unwrap(), "not yet");
        std::fs::create_dir(&place).unwrap();
        tokio::time::advance(RETRY).await;
        assert!(memory.write(&uids).await.unwrap());
        assert_eq!(memory.retry_at(), None);
    }

    #[test]
    fn a_damaged_memory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("published.json"), "[").unwrap();
        assert!(Memory::open(directory.path()).is_err());
    }
}
