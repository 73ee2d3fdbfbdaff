//! The kernel side of a node: loads or adopts the hooks, enrols pods, and answers the data path's questions about sockets.
//!
//! Life of a node: `Hooks::open` → `enroll` for each pod (listeners made by `sys::pod_listeners`) → per connection
//! `take_origin` (outbound accept), `mark_own` (before each dial), `vouch_outcome` (after a vouched dial) → `sweep` every
//! few seconds → `unenroll`. All methods take `&self`, are thread-safe, and on the data path are one system call each.
//!
//! Invariants:
//! * What is pinned survives this process: killed, the node refuses captured traffic until an agent adopts the pins.
//!   Dropping `Hooks` or a `CapturedPod` therefore un-enrols nothing.
//! * A pod's entry in `PODS` is its switch: written last, removed first, replaced atomically.
//! * All `unsafe` of this room is in `bpf/raw.rs`.

mod claim;
mod detach;
mod enroll;
mod entry;
mod error;
mod exclude;
mod hooks;
mod object;
mod pins;
mod probe;
mod raw;
mod sockets;
mod stats;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::sys::{self, Cgroup2, Netns};

pub use claim::Claim;
pub use detach::{Detached, detach_all};
pub use enroll::{Adopted, CapturedPod};
pub use error::KernelError;
pub use hooks::Hooks;
pub use probe::{Attached, Tried, attached, try_hooks};
pub use stats::{Counters, Swept};

pub use mesh_abi::{HBONE_PORT, PodTraffic};

/// How the hooks of one node instance are set up.
#[derive(Clone, Debug)]
pub struct HooksConfig {
    /// Names this agent among several on one kernel; part of the pin path. `--node-name` by default.
    pub instance: String,
    /// Where bpffs is, or shall be mounted.
    pub bpffs: PathBuf,
    /// The cgroup whose pods are captured; `None` = the root of cgroup v2, to be found.
    pub cgroup: Option<PathBuf>,
    /// Bounds of the maps. Other sizes than those of the pins make new maps, as a new ABI does.
    pub sizes: MapSizes,
}

impl HooksConfig {
    /// The defaults, for an agent called `instance`.
    pub fn new(instance: impl Into<String>) -> Self {
        HooksConfig {
            instance: instance.into(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            cgroup: None,
            sizes: MapSizes::default(),
        }
    }

    /// The cgroup of all pods: the one that was named, else the root.
    pub fn cgroup_root(&self) -> Result<PathBuf, KernelError> {
        if let Some(path) = &self.cgroup {
            return match std::fs::metadata(path.join("cgroup.controllers")) {
                Ok(_) => Ok(path.clone()),
                Err(error) => Err(KernelError::NotCgroup { path: path.clone(), error }),
            };
        }
        match sys::cgroup2() {
            Cgroup2::Root(root) => Ok(root),
            Cgroup2::Parts(parts) if parts.is_empty() => Err(KernelError::NoCgroup),
            Cgroup2::Parts(parts) => Err(KernelError::PartOfCgroup { parts }),
        }
    }
}

/// Bounds of the maps. What does not fit is refused and counted, never captured by halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Pods enrolled at once on this node.
    pub pods: u32,
    /// Captured connections that the proxy has not accepted yet.
    pub origins: u32,
    /// Last steps that the application has not accepted yet.
    pub clients: u32,
    /// Vouched dials under way.
    pub vouches: u32,
    /// Excluded ports over all pods.
    pub ports: u32,
    /// Excluded prefixes (and further addresses of pods) over all pods.
    pub cidrs: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        MapSizes { pods: 512, origins: 65_536, clients: 16_384, vouches: 65_536, ports: 8_192, cidrs: 8_192 }
    }
}

/// A pod to be enrolled: its network namespace and what stays outside capture.
#[derive(Clone, Debug)]
pub struct PodNet {
    /// The workload's UID, for logs and errors.
    pub uid: String,
    /// The pod's network namespace.
    pub netns: Netns,
    /// The pod's IPv4 address; the netns must hold it.
    pub ip4: Option<Ipv4Addr>,
    /// The pod's IPv6 address; the netns must hold it.
    pub ip6: Option<Ipv6Addr>,
    /// What is not captured.
    pub exclusions: Exclusions,
    /// Ports of the pod to which probes and lifecycle hooks of the kubelet go directly. All others stay captured, also for it.
    pub probed_ports: Vec<u16>,
    /// An explicit choice: without a live agent, traffic goes on in plaintext instead of being refused.
    pub fail_open: bool,
}

impl PodNet {
    /// Every address of the pod that we know.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ip4.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6))
    }
}

/// What stays outside capture (`tulle.dev/exclude-*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Ports of the pod that are reached directly.
    pub inbound_ports: Vec<u16>,
    /// Destination ports that the pod dials directly.
    pub outbound_ports: Vec<u16>,
    /// Destinations that the pod dials directly.
    pub outbound_cidrs: Vec<IpNet>,
}

/// Where a captured client wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The original destination, canonical.
    pub dst: SocketAddr,
    /// Who called, by the pod's own address. (The accepted socket's peer is `127.0.0.1` where the application had bound a
    /// port but no address.)
    pub client: SocketAddr,
    /// The client's socket was bound to this device: the proxy's own dial should be bound alike.
    pub ifindex: Option<u32>,
}

/// What one of the proxy's own sockets is for. To be said before its `connect()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// Just not to be captured (tunnels, passthrough).
    Plain,
    /// A dial from the source pod's netns to a pod of this node, which shall let it pass straight to the application.
    Vouch {
        /// Cookie of the destination pod's netns.
        dest_cookie: u64,
    },
    /// The last step to the application, inside its netns: `accept()` and `getpeername()` there show this client.
    LastStep {
        /// The real client.
        client: SocketAddr,
    },
}

/// What became of a vouched dial that has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VouchOutcome {
    /// The destination pod's hook let it pass by our word: the peer is the application.
    Honoured,
    /// No hook of ours saw the tuple (a NAT, no capture there, or the map was full). Close it, and use HBONE.
    Missed,
}
