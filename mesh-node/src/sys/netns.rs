//! A network namespace held by file descriptor, and the one way to act inside it.
//!
//! Invariants: identity is the kernel's netns cookie, never the path, (dev, inode) only within one life of the fd; `enter`
//! is synchronous, so that no task moves to another thread in between; if the way back fails, the process ends.

#![allow(unsafe_code, reason = "getsockopt(SO_NETNS_COOKIE) has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

/// nsfs, what `/proc/<pid>/ns/*` and `/run/netns/*` are made of.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open network namespace. Clones share the fd; the fd keeps the netns (and the pod's addresses) alive.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    cookie: u64,
    id: NetnsId,
}

/// What `stat` says of a namespace. May be used again after the last reference is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl Netns {
    /// Opens `/run/netns/NAME`, `/proc/PID/ns/net` or a CNI path; refuses what is not a network namespace.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Netns> {
        Self::from_fd(File::open(path)?.into())
    }

    /// Takes over an fd received from elsewhere; refuses what is not a network namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Netns> {
        let kind = nix::sys::statfs::fstatfs(&fd).map_err(io::Error::from)?.filesystem_type();
        if kind.0 != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace file"));
        }
        let stat = nix::sys::stat::fstat(&fd).map_err(io::Error::from)?;
        let mut netns =
            Netns { fd: Arc::new(fd), cookie: 0, id: NetnsId { dev: stat.st_dev, ino: stat.st_ino } };
        // setns with CLONE_NEWNET refuses a namespace of another kind.
        netns.cookie = netns.enter(cookie_here)??;
        Ok(netns)
    }

    /// The namespace of this thread.
    pub fn current() -> io::Result<Netns> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The kernel's name for this namespace, never used twice in one boot.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Device and inode.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Is this the namespace of the init process, or this agent's own? Neither is a pod's.
    pub fn is_host(&self) -> io::Result<bool> {
        // Some machines do not let root look at pid 1; the agent's own netns is the host's there as well.
        let init = Self::open("/proc/1/ns/net").is_ok_and(|init| init.cookie == self.cookie);
        Ok(init || Self::current()?.cookie == self.cookie)
    }

    /// Runs `act` on this thread inside the namespace.
    pub fn enter<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(&*self.fd, CloneFlags::CLONE_NEWNET)?;
        let back = Return(home);
        let result = act();
        drop(back);
        Ok(result)
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.cookie == other.cookie
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Goes back on drop, so that a panic inside does not leave the thread in the pod.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            // Going on would open the node's own sockets inside a pod: nothing is safe to do any more.
            std::process::abort();
        }
    }
}

/// The cookie of the namespace of this thread.
fn cookie_here() -> io::Result<u64> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the fd is open, and the buffer and its length describe `cookie`, which the kernel fills with 8 bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
