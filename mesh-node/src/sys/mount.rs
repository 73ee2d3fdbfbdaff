//! Where bpffs and cgroup v2 are, and mounting the former.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// What the mount table shows of cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup2 {
    /// Its root is at this place, in the hybrid layout too.
    Root(PathBuf),
    /// There are only parts of it, as a container has one of its own: hooks there would miss every pod.
    Parts(Vec<PathBuf>),
}

/// Looks for the root of cgroup v2.
///
/// The mount table does not tell: from inside a cgroup namespace it shows that namespace's part as `/`, and the true root,
/// where the node's own mount is bound, as `/../..`. The root itself does: it alone has no events.
pub fn cgroup2() -> Cgroup2 {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<PathBuf> = mounted(&table, "cgroup2").collect();
    match mounts.iter().find(|mount| is_cgroup2_root(mount)) {
        Some(root) => Cgroup2::Root(root.clone()),
        None => Cgroup2::Parts(mounts),
    }
}

fn is_cgroup2_root(path: &Path) -> bool {
    path.join("cgroup.controllers").exists() && !path.join("cgroup.events").exists()
}

/// Makes the sysctls of network namespaces writable for this process: an unprivileged container gets `/proc/sys` read-only.
pub fn open_sysctls() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sys::statvfs::{FsFlags, statvfs};
    let path = "/proc/sys";
    if !statvfs(path)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    Ok(())
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
    table.lines().filter_map(entry).any(|(at, kind)| kind == "bpf" && Path::new(at) == path)
}

/// The mount points of a kind of filesystem.
fn mounted<'a>(table: &'a str, wanted: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    table
        .lines()
        .filter_map(entry)
        .filter(move |(_, kind)| *kind == wanted)
        .map(|(at, _)| PathBuf::from(unescape(at)))
}

/// A blank in a path is written as `\040`, and so on.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (code, character)| path.replace(code, character))
}

/// (mount point, type) of a line of mountinfo.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    Some((before.split(' ').nth(4)?, after.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_layout_has_cgroup_v2_under_unified() {
        let table = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     31 23 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(table, "cgroup2").collect::<Vec<_>>(), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert_eq!(mounted(table, "bpf").count(), 0);
    }

    #[test]
    fn blanks_in_a_mount_point_are_read() {
        let table = "31 23 0:27 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(table, "cgroup2").next(), Some(PathBuf::from("/mnt/a b")));
    }

    #[test]
    fn a_part_of_a_hierarchy_is_not_taken_for_its_root() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_cgroup2_root(folder.path()), "no cgroup at all");
        std::fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        assert!(is_cgroup2_root(folder.path()));
        std::fs::write(folder.path().join("cgroup.events"), "populated 1").unwrap();
        assert!(!is_cgroup2_root(folder.path()));
    }
}
