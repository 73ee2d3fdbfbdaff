//! What the kernel programs and the node agent must agree on: the layout of every map, the names of every hook, and the
//! verdicts themselves as pure functions.
//!
//! Invariant: nothing here reads a clock, a map or a packet. `mesh-ebpf` fetches and stores; this crate decides, and is
//! tested on the host. No struct has padding: the kernel compares keys byte by byte.

#![no_std]

#[cfg(feature = "user")]
extern crate std;

mod addr;
mod counter;
mod layout;
mod verdict;

#[cfg(feature = "user")]
mod user;

pub use addr::Addr;
pub use counter::Counter;
pub use layout::{
    CidrKey, Client, OUTCOME_HONOURED, OUTCOME_MISSED, OUTCOME_OPEN, Origin, OwnSock, PodEntry, PodTraffic,
    PortKey, Tuple, TupleKey, Vouch, flag, own, port,
};
pub use verdict::{Accept, Arrival, Capture, Connect, Flow, Lookup, Pass, Refuse, accept, connect};

/// The only port of ours on the wire; `sk_lookup` maps it to the pod's HBONE listener, whatever port that is bound to.
pub const HBONE_PORT: u16 = 15008;

/// `IPPROTO_TCP`.
pub const TCP: u32 = 6;

/// `IPPROTO_MPTCP`: a stream socket that a captured pod may open; it falls back to TCP towards our listener.
pub const MPTCP: u32 = 262;

/// Index of the loopback device, the same in every network namespace.
pub const LOOPBACK_IFINDEX: u32 = 1;

/// How long the kernel honours a vouch that nobody used: longer than any SYN retransmission within a dial time-out.
pub const VOUCH_TTL_NS: u64 = 20_000_000_000;

/// What the constant `POD_COOKIE` holds in the object, for the loader to find and replace it; no netns has this cookie.
pub const POD_COOKIE_MARK: u64 = 0xd3c1_75b9_a0f2_4e87;

/// Names of the programs in the object, as the loader and `mesh-node check` say them.
///
/// A program must not be called like its section: the linker then merges the two symbols and the object does not load.
pub mod program {
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "tulle_connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "tulle_connect6";
    /// `cgroup/getpeername4`.
    pub const PEERNAME4: &str = "tulle_peername4";
    /// `cgroup/getpeername6`.
    pub const PEERNAME6: &str = "tulle_peername6";
    /// `sockops`.
    pub const SOCK_OPS: &str = "tulle_sockops";
    /// `sk_lookup`, one instance per pod.
    pub const ACCEPT: &str = "tulle_accept";
}

/// Names of the maps in the object; each is also the name of its pin.
pub mod map {
    /// netns cookie -> `PodEntry`: the one switch of capture.
    pub const PODS: &str = "PODS";
    /// Listeners, at `slot * KINDS + kind`.
    pub const SOCKETS: &str = "SOCKETS";
    /// (cookie, tuple) -> `Origin` of captured connections not accepted yet.
    pub const ORIGINS: &str = "ORIGINS";
    /// (cookie, tuple) -> `Client` of last steps that the application has not accepted yet.
    pub const CLIENTS: &str = "CLIENTS";
    /// tuple -> `Vouch`.
    pub const VOUCHES: &str = "VOUCHES";
    /// (cookie, port, for whom) that stay uncaptured.
    pub const PORTS: &str = "PORTS";
    /// Processes that probe pods, by pid.
    pub const PROBERS: &str = "PROBERS";
    /// (cookie, prefix) that stay uncaptured.
    pub const CIDRS: &str = "CIDRS";
    /// Socket storage: the proxy's own sockets.
    pub const OWN: &str = "OWN";
    /// Socket storage: where a captured client wanted to go.
    pub const DIALLED: &str = "DIALLED";
    /// Socket storage: who really is behind an accepted socket.
    pub const PEERS: &str = "PEERS";
    /// Per-CPU event counters, indexed by `Counter`.
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU traffic of a pod, indexed by its slot.
    pub const TRAFFIC: &str = "TRAFFIC";

    /// Every map, in the order in which they are pinned.
    pub const ALL: [&str; 13] = [
        PODS, SOCKETS, ORIGINS, CLIENTS, VOUCHES, PORTS, CIDRS, PROBERS, OWN, DIALLED, PEERS, COUNTERS,
        TRAFFIC,
    ];
}

/// Which listener of a pod a `SOCKETS` index names.
pub mod kind {
    /// Plaintext that arrives over IPv4.
    pub const PLAIN4: u32 = 0;
    /// Plaintext that arrives over IPv6.
    pub const PLAIN6: u32 = 1;
    /// HBONE over IPv4.
    pub const HBONE4: u32 = 2;
    /// HBONE over IPv6.
    pub const HBONE6: u32 = 3;
    /// Outbound over IPv4, for clients bound to the pod's device: they cannot use loopback, and come by the pod's address.
    pub const OUTBOUND4: u32 = 4;
    /// Outbound over IPv6: all come by the pod's address.
    pub const OUTBOUND6: u32 = 5;
    /// Listeners per pod.
    pub const COUNT: u32 = 6;
}
