//! Cgroups of the cluster, in every hierarchy that this machine has: v2 alone, or v1 with v2 beside it.
//!
//! A kubelet wants its root to exist in all of them. v2 also tells which processes are ours, when pid files are lost.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::clean::processes;

/// Makes the cgroup `name` in every hierarchy. Made already is fine.
pub fn ensure(name: &str) -> Result<()> {
    for root in hierarchies()? {
        let mut folder = root;
        for part in name.split('/') {
            let parent = folder.clone();
            folder.push(part);
            if !folder.is_dir() {
                fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            inherit_cpuset(&parent, &folder)?;
        }
    }
    Ok(())
}

/// Moves a process into the cgroup `name`, in every hierarchy.
pub fn enter(name: &str, pid: i32) -> Result<()> {
    for root in hierarchies()? {
        let file = root.join(name).join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("cannot move process {pid} into {}", file.display()))?;
    }
    Ok(())
}

/// Kills what is in the cgroup `name` and removes it. Returns whether there was one.
pub fn remove(name: &str) -> Result<bool> {
    // First where a whole tree can be killed at once; the other hierarchies are empty then.
    let mut roots = hierarchies()?;
    roots.sort_by_key(|root| !root.join("cgroup.controllers").exists());
    let mut found = false;
    for folder in roots.iter().map(|root| root.join(name)).filter(|folder| folder.is_dir()) {
        processes::remove_cgroup(&folder)?;
        found = true;
    }
    Ok(found)
}

/// In v1 a new cpuset is empty, and no process may enter an empty one.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        // v2 has these files in children only, and empty means "as the parent".
        let (Ok(given), Ok(own)) = (fs::read_to_string(&from), fs::read_to_string(&to)) else { continue };
        if own.trim().is_empty() && !given.trim().is_empty() {
            fs::write(&to, given.trim()).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    Ok(parse_hierarchies(&mounts))
}

fn parse_hierarchies(mounts: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_understood() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let paths = [PathBuf::from("/sys/fs/cgroup/cpu"), PathBuf::from("/sys/fs/cgroup/unified")];
        assert_eq!(parse_hierarchies(hybrid), paths);
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(parse_hierarchies(unified), [PathBuf::from("/sys/fs/cgroup")]);
    }

    #[test]
    fn an_empty_cpuset_takes_what_its_parent_has() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        fs::create_dir(&child).unwrap();
        fs::write(folder.path().join("cpuset.cpus"), "0-1\n").unwrap();
        fs::write(child.join("cpuset.cpus"), "\n").unwrap();
        inherit_cpuset(folder.path(), &child).unwrap();
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap(), "0-1");
    }
}
