//! What is known of the mesh when nobody answers, and the judgement by it.
//!
//! Invariant: one function ([`Standing::judge`]) judges a namespace, for the plugin and for the agent. Without a readable file everything counts as
//! enrolled but our own namespace and those that are excluded by default: an uncaptured pod could not be refused anything later, while a
//! pod that is refused is tried again by the kubelet, and what is needed to come back (controller, cluster DNS) may start. The plugin is chained
//! only once the file was written ([`super::keep`]), so that a mesh that never came up keeps no pod from starting.

use std::{collections::BTreeSet, io, path::Path};

use mesh_model::{mesh::MeshSettings, name::Namespace};
use serde::{Deserialize, Serialize};

use super::file::{self, Access};

/// The version that is written and read.
const VERSION: u32 = 1;

/// Far more than all namespaces of a cluster.
const LIMIT: u64 = 4 << 20;

/// Which namespaces are enrolled and which never are, as the controller said last.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    is_known: bool,
    settings: MeshSettings,
}

/// What becomes of a pod that the controller has not told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// Its namespace never is captured: it starts at once.
    Exempt,
    /// Its namespace is enrolled: it may start only captured.
    Enrolled,
    /// It may start. If it is enrolled by its own label, it is captured as soon as it is known.
    Other,
}

/// Why the file is not used.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// It is not there or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is damaged.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("its version is {0}, not {VERSION}")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    enrolled: BTreeSet<String>,
    excluded: BTreeSet<String>,
}

impl Standing {
    /// As the controller says now.
    pub fn of(settings: &MeshSettings) -> Self {
        let settings = MeshSettings {
            enrolled_namespaces: settings.enrolled_namespaces.clone(),
            excluded_namespaces: settings.excluded_namespaces.clone(),
            leaving: settings.leaving,
            ..MeshSettings::default()
        };
        Self { is_known: true, settings }
    }

    /// Nothing is known.
    pub fn unknown() -> Self {
        Self { is_known: false, settings: MeshSettings::default() }
    }

    /// Whether a controller, or the file of an earlier life, has said anything.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether the mesh is being uninstalled.
    pub fn is_leaving(&self) -> bool {
        self.settings.leaving
    }

    /// Judges a namespace; `own` is the one in which the mesh itself runs.
    pub fn judge(&self, own: Option<&Namespace>, namespace: &Namespace) -> Judgement {
        if self.settings.leaving || self.settings.is_exempt(own, namespace) {
            Judgement::Exempt
        } else if !self.is_known || self.settings.enrolled_namespaces.contains(namespace) {
            Judgement::Enrolled
        } else {
            Judgement::Other
        }
    }

    /// What the file at `path` says.
    pub fn read(path: &Path) -> Result<Self, StandingError> {
        let stored: Stored = serde_json::from_str(&file::read(path, LIMIT)?)?;
        if stored.version != VERSION {
            return Err(StandingError::Version(stored.version));
        }
        let names = |all: BTreeSet<String>| all.into_iter().map(Namespace::new).collect();
        let settings = MeshSettings {
            enrolled_namespaces: names(stored.enrolled),
            excluded_namespaces: names(stored.excluded),
            ..MeshSettings::default()
        };
        Ok(Self { is_known: true, settings })
    }

    /// Replaces the file at `path`.
    pub fn write(&self, path: &Path) -> Result<(), StandingError> {
        let names = |all: &BTreeSet<Namespace>| all.iter().map(ToString::to_string).collect();
        let stored = Stored {
            version: VERSION,
            enrolled: names(&self.settings.enrolled_namespaces),
            excluded: names(&self.settings.excluded_namespaces),
        };
        let text = serde_json::to_vec_pretty(&stored)?;
        Ok(file::write(path, &text[..], Access::mode(0o600))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(enrolled: &[&str], excluded: &[&str]) -> MeshSettings {
        let names = |all: &[&str]| all.iter().map(|name| Namespace::new(*name)).collect();
        MeshSettings {
            enrolled_namespaces: names(enrolled),
            excluded_namespaces: names(excluded),
            ..MeshSettings::default()
        }
    }

    fn judge(standing: &Standing, namespace: &str) -> Judgement {
        standing.judge(Some(&"tulle-system".into()), &namespace.into())
    }

    #[test]
    fn own_and_excluded_namespaces_are_exempt_even_if_enrolled() {
        let standing =
            Standing::of(&settings(&["shop", "tulle-system", "cni-system"], &["kube-system", "cni-system"]));
        assert_eq!(judge(&standing, "shop"), Judgement::Enrolled);
        assert_eq!(judge(&standing, "default"), Judgement::Other);
        for exempt in ["tulle-system", "kube-system", "cni-system"] {
            assert_eq!(judge(&standing, exempt), Judgement::Exempt, "{exempt}");
        }
    }

    #[test]
    fn a_mesh_that_leaves_holds_nobody() {
        let standing = Standing::of(&MeshSettings { leaving: true, ..settings(&["shop"], &[]) });
        assert_eq!(judge(&standing, "shop"), Judgement::Exempt);
    }

    #[test]
    fn nothing_known_lets_only_start_what_brings_the_mesh_back() {
        let standing = Standing::unknown();
        assert_eq!(judge(&standing, "default"), Judgement::Enrolled);
        assert_eq!(judge(&standing, "kube-system"), Judgement::Exempt);
        assert_eq!(judge(&standing, "tulle-system"), Judgement::Exempt);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enrolment.json");
        let standing = Standing::of(&settings(&["a", "b"], &[]));
        standing.write(&path).unwrap();
        assert_eq!(Standing::read(&path).unwrap(), standing);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(Standing::read(&path), Err(StandingError::Json(_))));
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        assert!(matches!(Standing::read(&path), Err(StandingError::Version(2))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Standing::read(&path), Err(StandingError::Io(_))));
    }
}
