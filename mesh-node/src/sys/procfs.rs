//! Processes as `/proc` shows them: which pod one belongs to, how old it is, its network namespace.
//!
//! Invariants: a process is named by pid *and* start time, and what was opened through its pid counts only if it still is that
//! process afterwards; nothing of a process is read that a question does not need, since a node has ten thousand of them.
//! The pids are those of this process's pid namespace: on a node that is the initial one (`hostPID`).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use super::{Netns, NetnsId};

/// What `/proc/<pid>/stat` says of states in which a process runs nothing any more.
const OVER: [&str; 3] = ["Z", "X", "x"];

/// Bound of what is read of a file; a cgroup file has a line per hierarchy, each with a path.
const READ_MOST: u64 = 64 * 1024;

/// The shortest UID: a hash in hexadecimal.
const UID_LENGTH: usize = 32;

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO`), the same on every Linux.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A process, named for good. Ordered by age, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Its pid.
    pub pid: u32,
}

impl Process {
    /// The process that has this pid now; an error if none has, or only its remains.
    pub fn of(pid: u32) -> io::Result<Process> {
        let stat = read(pid, "stat")?;
        // The name in field 2 may hold spaces and brackets.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let state = fields.next().unwrap_or_default();
        if OVER.contains(&state) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let started = fields.nth(18).and_then(|field| field.parse().ok());
        let started =
            started.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in stat"))?;
        Ok(Process { started, pid })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    /// Which network namespace it is in.
    pub fn netns_id(&self) -> io::Result<NetnsId> {
        let meta = fs::metadata(format!("/proc/{}/ns/net", self.pid))?;
        self.confirm(NetnsId { dev: meta.dev(), ino: meta.ino() })
    }

    /// Opens its network namespace.
    pub fn open_netns(&self) -> io::Result<Netns> {
        let netns = Netns::open(format!("/proc/{}/ns/net", self.pid))?;
        self.confirm(netns)
    }

    /// The name it gives itself: its program's, unless it says otherwise. At most 15 bytes.
    pub fn name(&self) -> io::Result<String> {
        self.confirm(read(self.pid, "comm")?.trim_end().to_owned())
    }

    /// Whether it is root in all its user ids.
    pub fn is_root(&self) -> io::Result<bool> {
        let status = read(self.pid, "status")?;
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or("none");
        self.confirm(ids.split_ascii_whitespace().all(|id| id == "0"))
    }

    /// The pods that its cgroups name, in the form of their UIDs.
    pub fn pods(&self) -> io::Result<HashSet<String>> {
        self.confirm(pods_named(&read(self.pid, "cgroup")?).collect())
    }

    /// Whether one of its files is the socket with this inode.
    pub fn holds_socket(&self, inode: u32) -> io::Result<bool> {
        let wanted = format!("socket:[{inode}]");
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid))?.flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        let holds = links.any(|link| link.to_str() == Some(&wanted));
        self.confirm(holds)
    }

    /// What was read, if it is still this process's.
    fn confirm<T>(&self, read: T) -> io::Result<T> {
        if self.is_alive() { Ok(read) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// Every process, at one look.
pub fn pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The processes of these pods (by UID), the oldest first, at one look at all processes. Pods without one are not in the answer.
pub fn processes_of(pods: &HashSet<&str>) -> io::Result<HashMap<String, Vec<Process>>> {
    let mut found: HashMap<String, Vec<Process>> = HashMap::new();
    let mut text = String::new();
    for pid in pids()? {
        // One that ends meanwhile belongs to nobody.
        let Ok(()) = read_into(pid, "cgroup", &mut text) else { continue };
        let Some(pod) = pods_named(&text).find(|pod| pods.contains(pod.as_str())) else { continue };
        let Ok(process) = Process::of(pid) else { continue };
        found.entry(pod).or_default().push(process);
    }
    found.values_mut().for_each(|processes| processes.sort_unstable());
    Ok(found)
}

/// Whether pids here are those that the kernel side sees. They are not in a container without `hostPID`, nor on a node that is
/// itself a container with pids of its own.
pub fn sees_every_process() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == INITIAL_PID_NAMESPACE)
}

/// The UIDs of pods in the lines of a cgroup file, outermost first: `…/pod<uid>/…` as cgroupfs names them, `…-pod<uid>.slice`
/// with `_` for `-` as systemd does.
///
/// The outermost counts: a pod may make cgroups inside its own, and name them as it likes.
fn pods_named(text: &str) -> impl Iterator<Item = String> {
    text.lines().flat_map(|line| {
        line.match_indices("pod").filter_map(|(at, word)| {
            if !line[..at].ends_with(['/', '-']) {
                return None;
            }
            let rest = &line[at + word.len()..];
            let uid = &rest[..rest.find(['/', '.', ':']).unwrap_or(rest.len())];
            is_uid(uid).then(|| uid.replace('_', "-"))
        })
    })
}

/// A UUID, or the hash by which the kubelet names a pod of its own files. `/podruntime` is neither.
fn is_uid(text: &str) -> bool {
    text.len() >= UID_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
}

fn read(pid: u32, file: &str) -> io::Result<String> {
    let mut text = String::new();
    read_into(pid, file, &mut text).map(|()| text)
}

fn read_into(pid: u32, file: &str, text: &mut String) -> io::Result<()> {
    text.clear();
    let file = File::open(format!("/proc/{pid}/{file}"))?;
    file.take(READ_MOST).read_to_string(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    fn first(line: &str) -> Option<String> {
        pods_named(line).next()
    }

    #[test]
    fn every_way_to_name_a_pods_cgroup_is_read() {
        let systemd = UID.replace('-', "_");
        for line in [
            format!("0::/kubepods/besteffort/pod{UID}/5f1c"),
            format!("12:memory:/n1/kubepods/pod{UID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-5f1c.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/crio-5f1c.scope"),
            format!(
                "0::/system.slice/containerd.service/kubepods-besteffort-pod{systemd}.slice:cri-containerd:5f1c"
            ),
            // As seen from a container with a cgroup namespace of its own.
            format!("0::/../../pod{UID}/5f1c"),
        ] {
            assert_eq!(first(&line).as_deref(), Some(UID), "{line}");
        }
    }

    #[test]
    fn other_cgroups_name_no_pod() {
        for line in ["0::/", "0::/podruntime/kubelet", "1:cpu:/kubepods/burstable", "0::/podman-1.scope/x"] {
            assert_eq!(first(line), None, "{line}");
        }
    }

    #[test]
    fn a_pod_that_names_a_cgroup_like_another_pod_stays_itself() {
        let line = format!("0::/kubepods/pod{UID}/5f1c/pod{}", UID.replace('2', "3"));
        assert_eq!(first(&line).as_deref(), Some(UID));
    }

    #[test]
    fn this_process_is_alive_and_its_name_with_another_start_is_not() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
        assert!(Process { started: me.started + 1, ..me }.name().is_err());
        assert_eq!(me.netns_id().unwrap(), Netns::current().unwrap().id());
        assert!(pids().unwrap().any(|pid| pid == me.pid));
    }

    #[test]
    fn a_socket_is_known_by_its_inode() {
        use std::os::fd::AsRawFd;
        let me = Process::of(std::process::id()).unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let meta = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode = u32::try_from(meta.ino()).unwrap();
        assert!(me.holds_socket(inode).unwrap());
        drop(socket);
        assert!(!me.holds_socket(inode).unwrap());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while Process::of(child.id()).is_ok() {
            assert!(std::time::Instant::now() < until, "`true` does not end");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
