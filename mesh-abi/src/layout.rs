//! Keys and values of the maps, byte for byte as both sides see them.
//!
//! Invariant: `#[repr(C)]`, no padding (reserved fields are written out and zero), sizes asserted at compile time. Ports
//! are in host byte order, addresses in network order. Times are `CLOCK_MONOTONIC` in nanoseconds (`bpf_ktime_get_ns`).

use crate::{Addr, VOUCH_TTL_NS};

/// Bits of `PodEntry::flags`.
pub mod flag {
    /// The pod has a route for IPv4 beyond its own link.
    pub const ROUTE4: u16 = 1;
    /// The pod has a route for IPv6; without it a captured connect would break happy-eyeballs.
    pub const ROUTE6: u16 = 2;
    /// An explicit choice: without a listener, traffic goes on uncaptured.
    pub const FAIL_OPEN: u16 = 4;
    /// There are entries of this pod in `PORTS`.
    pub const PORTS: u16 = 8;
    /// There are entries of this pod in `CIDRS`.
    pub const CIDRS: u16 = 16;
}

/// What the kernel knows of an enrolled pod. Written last at enrolment, removed first at its end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PodEntry {
    /// The pod's IPv4 address, or `Addr::NONE`.
    pub ip4: Addr,
    /// The pod's IPv6 address, or `Addr::NONE`.
    pub ip6: Addr,
    /// Port of the outbound listener on `127.0.0.1`; 0 = none.
    pub outbound4: u16,
    /// Port of the outbound listener on `::1`; 0 = none.
    pub outbound6: u16,
    /// Port of the inbound plaintext listener on `127.0.0.1`.
    pub plain4: u16,
    /// Port of the inbound plaintext listener on `::1`.
    pub plain6: u16,
    /// Port of the HBONE listener on `127.0.0.1`.
    pub hbone4: u16,
    /// Port of the HBONE listener on `::1`.
    pub hbone6: u16,
    /// See `flag`.
    pub flags: u16,
    /// `net.ipv4.tcp_tw_reuse` of the netns before enrolment, to be restored; kept here so that a new agent knows it.
    pub tw_reuse_before: u16,
    /// First index of the pod's listeners in `SOCKETS`, divided by `kind::COUNT`; index into `TRAFFIC`.
    pub slot: u32,
    /// Raised each time an agent writes the entry.
    pub generation: u32,
    /// Index of the device that holds the pod's addresses; 0 = unknown.
    pub ifindex: u32,
    /// Zero.
    pub reserved: u32,
    /// When this pod was enrolled.
    pub enrolled_ns: u64,
}

/// A TCP connection seen from the one who opened it, the same on both ends.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Tuple {
    /// Who connects.
    pub client: Addr,
    /// Who accepts.
    pub server: Addr,
    /// The port of the one who connects.
    pub client_port: u16,
    /// The port of the one who accepts.
    pub server_port: u16,
}

impl Tuple {
    /// Does the connection stay inside its netns, as far as its names tell?
    #[inline(always)]
    pub const fn is_inside(&self) -> bool {
        self.client.is_loopback() || self.server.is_loopback() || self.client.same(&self.server)
    }
}

/// A tuple within one network namespace: loopback tuples repeat in each.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct TupleKey {
    /// The netns.
    pub cookie: u64,
    /// The connection.
    pub tuple: Tuple,
    /// Zero.
    pub reserved: u32,
}

/// Where a captured client wanted to go.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The address it dialled.
    pub addr: Addr,
    /// The port it dialled.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// The device the socket was bound to, or 0; the proxy's own dial should be bound alike.
    pub ifindex: u32,
    /// When.
    pub at_ns: u64,
}

/// Who is behind a connection that the proxy opened to an application.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Client {
    /// The real client's address.
    pub addr: Addr,
    /// The real client's port.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// When.
    pub at_ns: u64,
}

/// By whose word a tuple may go straight to the application, and into which pod.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vouch {
    /// The destination pod's netns; no other pod honours the vouch.
    pub dest_cookie: u64,
    /// The source pod's netns, for sweeping at its un-enrolment.
    pub source_cookie: u64,
    /// When it was published.
    pub at_ns: u64,
    /// 1 once the destination's hook has seen it. A repeated SYN is still let through; `PASSIVE_ESTABLISHED` removes it.
    pub honoured: u32,
    /// `own::VOUCH`, or `own::PROBE`: then any pod honours it, but only for the ports its probes name.
    pub kind: u32,
}

impl Vouch {
    /// Does the proxy's word open the pod `cookie` at this time?
    #[inline(always)]
    pub const fn opens(&self, cookie: u64, now_ns: u64) -> bool {
        self.kind == own::VOUCH && self.dest_cookie == cookie && self.is_fresh(now_ns)
    }

    /// Is this a connection of a prober?
    #[inline(always)]
    pub const fn is_probe(&self, now_ns: u64) -> bool {
        self.kind == own::PROBE && self.is_fresh(now_ns)
    }

    #[inline(always)]
    const fn is_fresh(&self, now_ns: u64) -> bool {
        now_ns.wrapping_sub(self.at_ns) < VOUCH_TTL_NS
    }
}

/// Values of `OwnSock::kind`.
pub mod own {
    /// The proxy's own dial: not captured, nothing else.
    pub const PLAIN: u32 = 1;
    /// A dial to a pod of this node, vouched for.
    pub const VOUCH: u32 = 2;
    /// The last step to the application inside its netns; `client` is shown to it.
    pub const LAST_STEP: u32 = 3;
    /// Not the proxy's: a connection of a process that probes pods (the kubelet), made outside any pod.
    pub const PROBE: u32 = 4;
}

/// Values of `PortKey::what`.
pub mod port {
    /// The pod dials it directly.
    pub const OUTBOUND: u16 = 0;
    /// The pod is reached on it directly.
    pub const INBOUND: u16 = 1;
    /// Probes reach the pod on it directly.
    pub const PROBED: u16 = 2;
}

/// Nothing is known yet about a vouched dial.
pub const OUTCOME_OPEN: u32 = 0;
/// The destination's hook let the dial pass by our word.
pub const OUTCOME_HONOURED: u32 = 1;
/// The dial connected, but no hook of ours saw its tuple: a NAT, or not the pod we meant.
pub const OUTCOME_MISSED: u32 = 2;

/// Socket storage of the proxy's own sockets, written through the fd before `connect()`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnSock {
    /// See `own`.
    pub kind: u32,
    /// `OUTCOME_*`, written by the kernel for vouched dials.
    pub outcome: u32,
    /// `own::VOUCH`: the destination pod's netns.
    pub dest_cookie: u64,
    /// `own::LAST_STEP`: the real client.
    pub client: Addr,
    /// `own::LAST_STEP`: the real client's port.
    pub client_port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// A port that stays uncaptured, for whom.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct PortKey {
    /// The pod.
    pub cookie: u64,
    /// The port.
    pub port: u16,
    /// See `port`.
    pub what: u16,
    /// Zero.
    pub reserved: u32,
}

/// A prefix that stays uncaptured: key of an LPM trie. Bits: 64 of the cookie, then those of the 16-byte address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CidrKey {
    /// 64 + the prefix of the (mapped) address.
    pub prefix_len: u32,
    /// The pod's cookie, as bytes so that the key has no padding.
    pub cookie: [u8; 8],
    /// The address.
    pub addr: Addr,
}

impl CidrKey {
    /// The key for a whole address, which finds the longest prefix that covers it.
    #[inline(always)]
    pub const fn whole(cookie: u64, addr: Addr) -> CidrKey {
        CidrKey { prefix_len: 64 + 128, cookie: cookie.to_ne_bytes(), addr }
    }
}

/// Sums over the closed connections of a pod's own sockets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PodTraffic {
    /// Connections that ended.
    pub connections: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent and acknowledged.
    pub sent: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Sum of the smoothed round trip times at close, in microseconds.
    pub rtt_us: u64,
}

impl OwnSock {
    /// No word at all, to be filled in.
    pub const NONE: OwnSock = OwnSock {
        kind: 0,
        outcome: OUTCOME_OPEN,
        dest_cookie: 0,
        client: Addr::NONE,
        client_port: 0,
        reserved: [0; 3],
    };
}

const _: () = {
    assert!(size_of::<Addr>() == 16);
    assert!(size_of::<PodEntry>() == 72);
    assert!(size_of::<Tuple>() == 36);
    assert!(size_of::<TupleKey>() == 48);
    assert!(size_of::<Origin>() == 32);
    assert!(size_of::<Client>() == 32);
    assert!(size_of::<Vouch>() == 32);
    assert!(size_of::<OwnSock>() == 40);
    assert!(size_of::<PortKey>() == 16);
    assert!(size_of::<CidrKey>() == 28);
    assert!(size_of::<PodTraffic>() == 40);
};
