//! Where bpffs and cgroup v2 are, and mounting the former.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The root of the cgroup v2 hierarchy, in the hybrid layout too.
pub fn cgroup2_root() -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounted(&table, "cgroup2")
}

/// Mounts bpffs at `path` unless it is there already; shared, so that other mount namespaces see the pins.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    if is_bpffs(path) {
        return Ok(());
    }
    // Of two agents that start at once only one may mount: a second mount would hide the pins in the first.
    let lock = Flock::lock(File::open(path)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if is_bpffs(path) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))?;
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)?;
    drop(lock);
    Ok(())
}

/// Is bpffs mounted at exactly this place?
pub fn is_bpffs(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(entry).any(|(_, at, kind)| kind == "bpf" && Path::new(at) == path)
}

/// The mount point of the first filesystem of a kind; one that shows its own root is preferred.
fn mounted(table: &str, wanted: &str) -> Option<PathBuf> {
    let found = || table.lines().filter_map(entry).filter(|(_, _, kind)| *kind == wanted);
    found().find(|(root, _, _)| *root == "/").or_else(|| found().next()).map(|(_, at, _)| PathBuf::from(at))
}

/// (root, mount point, type) of a line of mountinfo.
fn entry(line: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    Some((fields.next()?, fields.next()?, after.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_layout_has_its_root_under_unified() {
        let table = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     31 23 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(table, "cgroup2"), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mounted(table, "bpf"), None);
    }

    #[test]
    fn a_mount_of_the_whole_hierarchy_wins_over_a_bind_of_a_part() {
        let table = "1 0 0:1 /kubepods /a rw - cgroup2 x rw\n2 0 0:1 / /b rw - cgroup2 x rw\n";
        assert_eq!(mounted(table, "cgroup2"), Some(PathBuf::from("/b")));
    }
}
