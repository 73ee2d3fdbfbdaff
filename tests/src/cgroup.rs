//! Cgroups as a kubelet makes them for pods, by which an agent knows whose a process is.
//!
//! Invariant: each lies in a folder of its world, and is removed with what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::check::eventually;

/// Where cgroup v2 may be mounted: in the hybrid layout, or alone.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The cgroup of a container; dropping it ends what is in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// That of a new container in a pod of a world, named as the kubelet's driver `cgroupfs` does.
    pub fn of_pod(world: &str, uid: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = folder(world).context("cgroup v2 is not mounted")?;
        let container = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let path = folder.join("kubepods/burstable").join(format!("pod{uid}")).join(container);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Puts a process into it.
    pub fn add(&self, pid: u32) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot put {pid} into {}", self.path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes every cgroup of a world.
pub fn sweep(world: &str) {
    if let Some(folder) = folder(world) {
        remove(&folder);
    }
}

fn folder(world: &str) -> Option<PathBuf> {
    let root = ROOTS.map(Path::new).into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    Some(root.join("tulle").join(format!("tl-{world}")))
}

/// Ends what is inside, then removes it from the leaves up. What remains, the next `xtask clean` tries again.
fn remove(path: &Path) {
    // Kernels before 5.14 do not have it; the world then ends its processes by itself.
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let gone = || fs::remove_dir(path).is_ok() || !path.exists();
    let _ = eventually("the end of a cgroup", Duration::from_secs(2), || gone().then_some(()));
}
