//! The verdicts: what happens to a connect, and to an arriving connection. Pure; the maps are behind `Lookup`.
//!
//! Invariant: an enrolled pod's TCP goes to the proxy unless a rule below names the exception. What the proxy cannot take
//! is refused, never passed, unless the pod's entry says `FAIL_OPEN`.

use crate::layout::flag;
use crate::{Addr, HBONE_PORT, LOOPBACK_IFINDEX, MPTCP, PodEntry, TCP, Tuple, Vouch, kind, port};

/// The facts a verdict asks for. Answered lazily, in the order of the rules: most connects of a node end at the first.
pub trait Lookup {
    /// The enrolled pod of this netns.
    fn pod(&self, cookie: u64) -> Option<&PodEntry>;
    /// Is the socket one of the proxy's own?
    fn is_own(&self) -> bool;
    /// Does this port stay uncaptured, for `what` of `port`?
    fn port_excluded(&self, cookie: u64, port: u16, what: u16) -> bool;
    /// Does this destination stay uncaptured?
    fn cidr_excluded(&self, cookie: u64, addr: &Addr) -> bool;
    /// Is there a listener at this index of `SOCKETS`?
    fn listens(&self, index: u32) -> bool;
    /// What the proxy said about this tuple.
    fn vouch(&self, tuple: &Tuple) -> Option<&Vouch>;
}

/// A `connect()` as the hook sees it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The caller's netns.
    pub cookie: u64,
    /// The socket's protocol.
    pub protocol: u32,
    /// Is the socket `AF_INET6`? (It may still dial IPv4, in the mapped form.)
    pub socket6: bool,
    /// Where it wants to go, canonical.
    pub dst: Addr,
    /// The port it wants.
    pub port: u16,
    /// Has the application bound a source address?
    pub source_bound: bool,
    /// Has the application bound a source port? Then the kernel refuses a second bind.
    pub port_bound: bool,
    /// The device the application bound the socket to, or 0.
    pub ifindex: u32,
}

/// What becomes of a `connect()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connect {
    /// Untouched.
    Pass(Pass),
    /// Fails at once.
    Refuse(Refuse),
    /// Goes to the proxy.
    Capture(Capture),
}

/// Why something goes its own way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Not TCP.
    Protocol,
    /// Not an enrolled pod.
    NotEnrolled,
    /// The proxy's own socket.
    Own,
    /// Loopback or the unspecified address, or a packet that came over `lo`.
    Loopback,
    /// IPv6 link-local.
    LinkLocal,
    /// The pod calls itself by its own address.
    Self_,
    /// The pod has no route for this family: let the kernel say so.
    NoRoute,
    /// An exclusion of the pod.
    Excluded,
    /// The proxy vouched for this tuple.
    Vouched,
    /// A probe of the kubelet.
    Probe,
    /// No listener, and the pod fails open.
    FailOpen,
}

/// Why a connect fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refuse {
    /// An application called one of the proxy's listeners.
    OwnPort,
    /// The pod has no listener for this family.
    NoListener,
}

/// How a captured connect is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capture {
    /// Where it goes instead: `127.0.0.1` (mapped on an IPv6 socket); the pod's own address for IPv6, and for a socket
    /// that is bound to the device which holds it, since such a socket never hears from loopback.
    pub to: Addr,
    /// The outbound listener's port.
    pub port: u16,
    /// The source to bind, or `Addr::NONE` to leave it alone.
    pub source: Addr,
    /// The socket is bound to some other device and has to be released from it.
    pub release: bool,
}

/// Decides a `connect()`.
#[inline(always)]
pub fn connect(maps: &impl Lookup, flow: &Flow) -> Connect {
    // An MPTCP socket is a stream like any other; its first subflow falls back to TCP at our listener.
    if flow.protocol != TCP && flow.protocol != MPTCP {
        return Connect::Pass(Pass::Protocol);
    }
    let Some(pod) = maps.pod(flow.cookie) else {
        return Connect::Pass(Pass::NotEnrolled);
    };
    if maps.is_own() {
        return Connect::Pass(Pass::Own);
    }
    if flow.dst.is_loopback() || flow.dst.is_unspecified() {
        let refused = is_own_listener(pod, &flow.dst, flow.port);
        return if refused { Connect::Refuse(Refuse::OwnPort) } else { Connect::Pass(Pass::Loopback) };
    }
    if flow.dst.is_v6_link_local() {
        return Connect::Pass(Pass::LinkLocal);
    }
    if is_self(pod, &flow.dst) {
        let refused =
            flow.port == if flow.dst.is_v4() { pod.outbound4 } else { pod.outbound6 } && flow.port != 0;
        return if refused { Connect::Refuse(Refuse::OwnPort) } else { Connect::Pass(Pass::Self_) };
    }
    if flow.ifindex == LOOPBACK_IFINDEX {
        // Bound to `lo`: nothing leaves the pod that way.
        return Connect::Pass(Pass::Loopback);
    }
    let is_v4 = flow.dst.is_v4();
    if pod.flags & (if is_v4 { flag::ROUTE4 } else { flag::ROUTE6 }) == 0 {
        return Connect::Pass(Pass::NoRoute);
    }
    if is_excluded(maps, pod, flow) {
        return Connect::Pass(Pass::Excluded);
    }
    let (loopback, port, own) = if is_v4 {
        (Addr::LOCALHOST4, pod.outbound4, pod.ip4)
    } else {
        (Addr::LOCALHOST6, pod.outbound6, pod.ip6)
    };
    if pod.flags & flag::FAIL_OPEN != 0 {
        let which = if is_v4 { kind::OUTBOUND4 } else { kind::OUTBOUND6 };
        if port == 0 || !maps.listens(pod.slot * kind::COUNT + which) {
            return Connect::Pass(Pass::FailOpen);
        }
    }
    if port == 0 {
        return Connect::Refuse(Refuse::NoListener);
    }
    let source = if flow.source_bound || flow.port_bound { Addr::NONE } else { own };
    let on_pods_device = flow.ifindex != 0 && flow.ifindex == pod.ifindex;
    // Between `::1` and another address of the pod the kernel loses packets: it takes `::1` for link-local and sends the
    // answer of a TIME_WAIT (and a RST) out by the device that holds the other address.
    let by_own_address = !own.is_zero() && (on_pods_device || !is_v4);
    let to = if by_own_address { own } else { loopback };
    Connect::Capture(Capture {
        to,
        port,
        source,
        release: flow.ifindex != 0 && !(on_pods_device && by_own_address),
    })
}

/// A connection that arrives at a pod, as `sk_lookup` sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The pod's netns, a constant of the program instance.
    pub cookie: u64,
    /// The packet's protocol.
    pub protocol: u32,
    /// The device it came over.
    pub ifindex: u32,
    /// Who connects to what.
    pub tuple: Tuple,
    /// The time.
    pub now_ns: u64,
}

/// What becomes of an arriving connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// The kernel's own lookup decides, as if we were not there.
    Pass(Pass),
    /// To the listener at this index of `SOCKETS`; if that is empty: dropped, or passed if `fail_open`.
    Assign {
        /// Index into `SOCKETS`.
        index: u32,
        /// The pod's choice for an empty index.
        fail_open: bool,
    },
}

/// Decides an arriving connection. The caller counts vouches that were found but did not open.
#[inline(always)]
pub fn accept(maps: &impl Lookup, arrival: &Arrival) -> Accept {
    if arrival.protocol != TCP {
        return Accept::Pass(Pass::Protocol);
    }
    let Some(pod) = maps.pod(arrival.cookie) else {
        return Accept::Pass(Pass::NotEnrolled);
    };
    let fail_open = pod.flags & flag::FAIL_OPEN != 0;
    if let Some(index) = outbound_index(pod, &arrival.tuple) {
        return Accept::Assign { index, fail_open };
    }
    // What the pod sends to its own address goes over `lo`, but the kernel names the device that holds the address. Its
    // source tells: nobody else can complete a handshake from it, since the answer never leaves the pod.
    let client = &arrival.tuple.client;
    if arrival.ifindex == LOOPBACK_IFINDEX || client.is_loopback() {
        return Accept::Pass(Pass::Loopback);
    }
    if is_self(pod, client) {
        return Accept::Pass(Pass::Self_);
    }
    let server_port = arrival.tuple.server_port;
    // The tunnel's door cannot be excluded: what comes there is the proxy's alone.
    let listed = |what| {
        pod.flags & flag::PORTS != 0
            && server_port != HBONE_PORT
            && maps.port_excluded(arrival.cookie, server_port, what)
    };
    if let Some(vouch) = maps.vouch(&arrival.tuple) {
        if vouch.opens(arrival.cookie, arrival.now_ns) {
            return Accept::Pass(Pass::Vouched);
        }
        if vouch.is_probe(arrival.now_ns) && listed(port::PROBED) {
            return Accept::Pass(Pass::Probe);
        }
    }
    if listed(port::INBOUND) {
        return Accept::Pass(Pass::Excluded);
    }
    let which = match (server_port == HBONE_PORT, arrival.tuple.server.is_v4()) {
        (false, true) => kind::PLAIN4,
        (false, false) => kind::PLAIN6,
        (true, true) => kind::HBONE4,
        (true, false) => kind::HBONE6,
    };
    Accept::Assign { index: pod.slot * kind::COUNT + which, fail_open }
}

/// Is this one of the pod's own addresses?
#[inline(always)]
fn is_self(pod: &PodEntry, addr: &Addr) -> bool {
    // A pod without a family has `NONE` there, which no packet carries and a connect to which is loopback.
    addr.same(&pod.ip4) || addr.same(&pod.ip6)
}

/// Captured clients that do not use loopback dial the outbound listener by the pod's own address. Whoever else does finds
/// a proxy that knows no origin, and is closed.
#[inline(always)]
fn outbound_index(pod: &PodEntry, tuple: &Tuple) -> Option<u32> {
    let (port, which) = if tuple.server.is_v4() {
        (pod.outbound4, kind::OUTBOUND4)
    } else {
        (pod.outbound6, kind::OUTBOUND6)
    };
    (port != 0 && port == tuple.server_port && is_self(pod, &tuple.server))
        .then_some(pod.slot * kind::COUNT + which)
}

/// Would a connect to this local address reach one of the proxy's listeners?
#[inline(always)]
fn is_own_listener(pod: &PodEntry, dst: &Addr, port: u16) -> bool {
    let v4 = port == pod.outbound4 || port == pod.plain4 || port == pod.hbone4;
    let v6 = port == pod.outbound6 || port == pod.plain6 || port == pod.hbone6;
    if port == 0 {
        return false;
    }
    if dst.is_zero() {
        // `::` becomes `::1`, or `127.0.0.1` on a socket that is bound to a mapped address.
        return v4 || v6;
    }
    if dst.is_v4() { v4 && (dst.same(&Addr::LOCALHOST4) || dst.is_unspecified()) } else { v6 }
}

#[inline(always)]
fn is_excluded(maps: &impl Lookup, pod: &PodEntry, flow: &Flow) -> bool {
    (pod.flags & flag::PORTS != 0 && maps.port_excluded(flow.cookie, flow.port, port::OUTBOUND))
        || (pod.flags & flag::CIDRS != 0 && maps.cidr_excluded(flow.cookie, &flow.dst))
}

#[cfg(test)]
mod tests;
