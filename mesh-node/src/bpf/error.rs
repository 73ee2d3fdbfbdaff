//! What can go wrong with the kernel, each variant saying what a person should do about it.

use std::io;
use std::path::PathBuf;

/// A failure of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The agent was built without the eBPF object.
    #[error("this build of mesh-node carries no eBPF object: build it with `cargo xtask build`")]
    NoObject,
    /// The object does not parse or a map cannot be made.
    #[error("the eBPF object cannot be prepared: {0} (run `mesh-node check`)")]
    Object(#[source] Box<aya::EbpfError>),
    /// A hook cannot be loaded; the verifier's log is part of the text.
    #[error(
        "the hook {hook} cannot be loaded (kernel 5.17 or newer is needed; run `mesh-node check`): {source}"
    )]
    Hook {
        /// Name of the hook.
        hook: &'static str,
        /// What the kernel said, verifier log included.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks something by that name: object and agent are of different builds.
    #[error(
        "the eBPF object has no {0}: object and agent are of different builds, rebuild with `cargo xtask build`"
    )]
    Missing(&'static str),
    /// A hook cannot be attached.
    #[error("the hook {hook} cannot be attached to {target}: {error}")]
    Attach {
        /// Name of the hook.
        hook: &'static str,
        /// Cgroup or pod.
        target: String,
        /// What the kernel said.
        error: String,
    },
    /// A pin cannot be read or written.
    #[error("the pin {path} cannot be used: {error} (is bpffs mounted, and is this process root?)")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another agent works on the same pins.
    #[error(
        "another agent runs as instance {instance:?}: stop it first, or give this one another --instance"
    )]
    Claimed {
        /// The name that both have.
        instance: String,
    },
    /// cgroup v2 is not mounted.
    #[error("no cgroup v2 hierarchy is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`)")]
    NoCgroup,
    /// Only parts of cgroup v2 are mounted.
    #[error(
        "only parts of cgroup v2 are mounted ({}), where hooks would miss pods: give the container the node's /sys/fs/cgroup \
         (hostPath, at a place of its own), or name the cgroup of all pods with --cgroup",
        shown(parts)
    )]
    PartOfCgroup {
        /// Where.
        parts: Vec<PathBuf>,
    },
    /// The cgroup that was named is none.
    #[error("{path} is not a cgroup v2 folder: {error}")]
    NotCgroup {
        /// As named.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// bpffs is not mounted and cannot be.
    #[error("bpffs cannot be mounted at {path}: {error}")]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A map operation failed.
    #[error("the map {map} refused an operation: {error}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// A bound was reached; nothing of the pod was changed.
    #[error("the map {map} is full ({max} entries): raise its size in the node's configuration")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Its bound.
        max: u32,
    },
    /// The netns is not the pod's.
    #[error("the network namespace offered for pod {uid} is refused: {reason}")]
    WrongNetns {
        /// The pod.
        uid: String,
        /// Why.
        reason: String,
    },
    /// The pod forwards for others; capturing it would capture what is not its own.
    #[error("pod {uid} is refused enrolment: {reason}")]
    Forwards {
        /// The pod.
        uid: String,
        /// What was found.
        reason: String,
    },
    /// Something in the pod's netns failed.
    #[error("in the network namespace of pod {uid}: {what}: {error}")]
    Netns {
        /// The pod.
        uid: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl KernelError {
    /// Is trying again later of any use?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Map { .. } | Self::Netns { .. } | Self::Attach { .. })
    }
}
