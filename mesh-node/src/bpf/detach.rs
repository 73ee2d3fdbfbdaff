//! Break-glass: gives plaintext back without an agent, a controller or an API.
//!
//! Invariant: works on pins of any ABI, and while an agent holds the links.

use std::fs;
use std::io;
use std::path::Path;

use super::KernelError;
use super::pins::{self, ROOT, file_name};

/// What was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Instances whose pins were removed (as their folders are named).
    pub instances: Vec<String>,
    /// Links detached.
    pub links: usize,
}

/// Detaches every hook of one instance, or of all instances of this kernel. Works while an agent runs, and without one.
pub fn detach_all(bpffs: &Path, instance: Option<&str>) -> Result<Detached, KernelError> {
    let root = bpffs.join(ROOT);
    let failed = |error| KernelError::Pin { path: root.clone(), error };
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Detached::default()),
        Err(error) => return Err(failed(error)),
    };
    let wanted = instance.map(file_name);
    let mut detached = Detached::default();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        detached.links += pins::remove_all(&entry.path()).map_err(failed)?;
        detached.instances.push(name);
    }
    Ok(detached)
}
