//! Where the controller keeps what must outlive it: the authority's key and root, and which workloads are published as HBONE.
//!
//! Two places do the same: a directory ([`crate::files`]), and objects of the API server ([`cluster::ClusterState`]). Invariant: there is
//! one root; of two controllers that start together on an empty place, one makes it and the other finds it (or, in a directory, is
//! refused by the lock).

use std::path::{Path, PathBuf};

use mesh_model::identity::TrustDomain;
use time::OffsetDateTime;

use crate::{
    ca::{Authority, CaError},
    files::{self, FileError},
    publish::{Memory, MemoryError},
};

pub mod cluster;
pub mod keeper;

use cluster::{ClusterState, ClusterStateError};

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterStateError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// What was published.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The state, open.
pub enum State {
    /// In a directory that is ours.
    Directory {
        /// Which.
        path: PathBuf,
        /// Held as long as the state is.
        _lock: files::Lock,
    },
    /// In objects of our own namespace.
    Cluster(ClusterState),
}

impl State {
    /// Takes the directory, making it if it is not there.
    pub fn directory(path: &Path) -> Result<Self, StateError> {
        files::private_directory(path)?;
        Ok(Self::Directory { path: path.to_owned(), _lock: files::lock(path)? })
    }

    /// The authority, with a new root if there is none.
    pub async fn authority(
        &self,
        trust_domain: TrustDomain,
        now: OffsetDateTime,
    ) -> Result<Authority, StateError> {
        Ok(match self {
            Self::Directory { path, .. } => Authority::open(path, trust_domain, now)?,
            Self::Cluster(cluster) => {
                let pem = cluster.root(&trust_domain, now).await?;
                Authority::of(pem, Path::new("Secret tulle-ca"), trust_domain, now)?
            }
        })
    }

    /// What was published, and the way to remember more; and whether the mesh was told to leave.
    pub async fn memory(&self) -> Result<(Memory, bool), StateError> {
        Ok(match self {
            Self::Directory { path, .. } => (Memory::open(path)?, false),
            Self::Cluster(cluster) => {
                let kept = cluster.kept().await?;
                (Memory::in_cluster(cluster.clone(), kept.published), kept.leaving)
            }
        })
    }
}
