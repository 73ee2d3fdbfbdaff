//! sock_ops: ties a connection to what is known of it, at the moments when both ends have a name and no byte has flowed.
//!
//! * before the SYN of the proxy's own dial: publish its vouch, or the client behind it;
//! * the client's side is established: publish where it wanted to go (the listener's `accept` returns later), or read
//!   whether the vouch was honoured;
//! * the server's side is established: consume the vouch, take the client over to the accepted socket;
//! * closed: remove what nobody took, add up the traffic.
//!
//! Invariant: callback flags are OR-ed, never overwritten: other programs of the node set theirs on the same sockets.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_ns};
use aya_ebpf::programs::SockOpsContext;
use mesh_abi::{
    Addr, Client, Counter, OUTCOME_HONOURED, OUTCOME_MISSED, Origin, OwnSock, PodEntry, PodTraffic, Tuple,
    Vouch, own,
};

use crate::maps::{self, CLIENTS, DIALLED, ORIGINS, OWN, PEERS, VOUCHES};
use crate::stats::{add_traffic, count};

const OK: u32 = 1;
const AF_INET: u32 = 2;

/// One event of one socket.
#[inline(always)]
pub fn on_event(ctx: &SockOpsContext) -> u32 {
    let op = ctx.op();
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB
        && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        && op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        && op != BPF_SOCK_OPS_STATE_CB
    {
        return OK;
    }
    // SAFETY: the context is valid for the program run.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return OK;
    }
    // SAFETY: the context is the hook's own.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.ops.cast()) };
    let Some(pod) = maps::pod(cookie) else {
        outside(ctx, sk.cast(), op);
        return OK;
    };
    let here = Here { ctx, sk: sk.cast(), cookie, pod };
    match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => here.before_syn(),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => here.client_established(),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => here.server_established(),
        _ => here.state_changed(),
    }
    OK
}

/// A socket outside any pod: of interest only if it is a prober's.
#[inline(always)]
fn outside(ctx: &SockOpsContext, sk: *mut c_void, op: u32) {
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB {
        return;
    }
    if !maps::stored(&OWN, sk).is_some_and(|own| own.kind == own::PROBE) {
        return;
    }
    let tuple = tuple_as_client(ctx);
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        let vouch = Vouch { dest_cookie: 0, source_cookie: 0, at_ns: now(), honoured: 0, kind: own::PROBE };
        if VOUCHES.insert(&tuple, &vouch, 0).is_err() {
            return count(Counter::VouchesFull);
        }
        watch_states(ctx);
    } else if ctx.arg(1) == BPF_TCP_CLOSE {
        let _ = VOUCHES.remove(&tuple);
    }
}

/// A socket of an enrolled pod.
struct Here<'a> {
    ctx: &'a SockOpsContext,
    sk: *mut c_void,
    cookie: u64,
    pod: &'a PodEntry,
}

impl Here<'_> {
    #[inline(always)]
    fn before_syn(&self) {
        let Some(own) = maps::stored(&OWN, self.sk) else {
            return;
        };
        if own.kind == own::VOUCH {
            self.publish_vouch(own);
        } else if own.kind == own::LAST_STEP {
            self.publish_client(own);
        }
    }

    #[inline(always)]
    fn publish_vouch(&self, own: &mut OwnSock) {
        if own.dest_cookie == self.cookie {
            // A pod that calls itself goes over `lo`, which is never captured: there is nothing to open.
            own.outcome = OUTCOME_HONOURED;
            return;
        }
        let tuple = tuple_as_client(self.ctx);
        if !tuple.client.same(&self.pod.ip4) && !tuple.client.same(&self.pod.ip6) {
            return count(Counter::VouchForeignSource);
        }
        let vouch = Vouch {
            dest_cookie: own.dest_cookie,
            source_cookie: self.cookie,
            at_ns: now(),
            honoured: 0,
            kind: own::VOUCH,
        };
        if VOUCHES.insert(&tuple, &vouch, 0).is_err() {
            return count(Counter::VouchesFull);
        }
        count(Counter::VouchPublished);
        watch_states(self.ctx);
    }

    #[inline(always)]
    fn publish_client(&self, own: &OwnSock) {
        let key = maps::key(self.cookie, &tuple_as_client(self.ctx));
        let client = Client { addr: own.client, port: own.client_port, reserved: [0; 3], at_ns: now() };
        if CLIENTS.insert(&key, &client, 0).is_err() {
            return count(Counter::ClientsFull);
        }
        watch_states(self.ctx);
    }

    #[inline(always)]
    fn client_established(&self) {
        let tuple = tuple_as_client(self.ctx);
        if let Some(dialled) = maps::stored(&DIALLED, self.sk) {
            let origin = Origin { at_ns: now(), ..*dialled };
            if ORIGINS.insert(&maps::key(self.cookie, &tuple), &origin, 0).is_err() {
                count(Counter::OriginsFull);
            }
            return;
        }
        if let Some(own) = maps::stored(&OWN, self.sk)
            && own.kind == own::VOUCH
            && own.outcome != OUTCOME_HONOURED
        {
            self.read_outcome(own, &tuple);
        }
        if !tuple.is_inside() {
            watch_states(self.ctx);
        }
    }

    #[inline(always)]
    fn read_outcome(&self, own: &mut OwnSock, tuple: &Tuple) {
        // The answer to our SYN is here, so the destination's hook has run, and its server waits for our ACK.
        if maps::vouch(tuple).is_some_and(|vouch| vouch.honoured == 1) {
            own.outcome = OUTCOME_HONOURED;
        } else {
            own.outcome = OUTCOME_MISSED;
            count(Counter::VouchMissed);
            let _ = VOUCHES.remove(tuple);
        }
    }

    #[inline(always)]
    fn server_established(&self) {
        let tuple = self.tuple_as_server();
        if tuple.is_inside() {
            let key = maps::key(self.cookie, &tuple);
            // SAFETY: see the invariant of maps.rs.
            if let Some(client) = unsafe { CLIENTS.get(&key) } {
                let client = *client;
                maps::store(&PEERS, self.sk, &client);
                let _ = CLIENTS.remove(&key);
            }
            return;
        }
        if maps::vouch(&tuple)
            .is_some_and(|vouch| vouch.dest_cookie == self.cookie || vouch.kind == own::PROBE)
        {
            // Consumed: from here on the tuple opens nothing, not even for a replay.
            let _ = VOUCHES.remove(&tuple);
        }
        watch_states(self.ctx);
    }

    #[inline(always)]
    fn state_changed(&self) {
        if self.ctx.arg(1) != BPF_TCP_CLOSE {
            return;
        }
        let tuple = tuple_as_client(self.ctx);
        if let Some(own) = maps::stored(&OWN, self.sk) {
            // Refused or given up before anybody accepted.
            if own.kind == own::VOUCH {
                let _ = VOUCHES.remove(&tuple);
            } else if own.kind == own::LAST_STEP {
                let _ = CLIENTS.remove(maps::key(self.cookie, &tuple));
            }
        }
        if !tuple.is_inside() {
            self.add_up();
        }
    }

    #[inline(always)]
    fn add_up(&self) {
        let ops = self.ctx.ops;
        // SAFETY: the context is valid for the program run; fields are read in their own widths.
        let closed = unsafe {
            PodTraffic {
                connections: 1,
                received: ptr::read_volatile(&raw const (*ops).bytes_received),
                sent: ptr::read_volatile(&raw const (*ops).bytes_acked),
                retransmits: ptr::read_volatile(&raw const (*ops).total_retrans).into(),
                // The kernel keeps eight times the average.
                rtt_us: u64::from(ptr::read_volatile(&raw const (*ops).srtt_us) >> 3),
            }
        };
        add_traffic(self.pod.slot, &closed);
    }

    #[inline(always)]
    fn tuple_as_server(&self) -> Tuple {
        let (local, local_port, remote, remote_port) = ends(self.ctx.ops);
        Tuple { client: remote, server: local, client_port: remote_port, server_port: local_port }
    }
}

/// Asks for state changes of this socket, beside whatever others asked for.
#[inline(always)]
fn watch_states(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
}

#[inline(always)]
fn tuple_as_client(ctx: &SockOpsContext) -> Tuple {
    let (local, local_port, remote, remote_port) = ends(ctx.ops);
    Tuple { client: local, server: remote, client_port: local_port, server_port: remote_port }
}

/// Local and remote end.
///
/// All fields are read whatever the family, and chosen between afterwards: a read inside a branch is merged by LLVM with its
/// sibling into one through a computed context pointer, which the verifier refuses.
#[inline(always)]
fn ends(ops: *mut bpf_sock_ops) -> (Addr, u16, Addr, u16) {
    // SAFETY: the context is valid for the program run; words are read one by one, as the verifier wants it.
    let (v4, local4, remote4, local6, remote6, local_port, remote_port) = unsafe {
        (
            ptr::read_volatile(&raw const (*ops).family) == AF_INET,
            ptr::read_volatile(&raw const (*ops).local_ip4),
            ptr::read_volatile(&raw const (*ops).remote_ip4),
            [
                ptr::read_volatile(&raw const (*ops).local_ip6[0]),
                ptr::read_volatile(&raw const (*ops).local_ip6[1]),
                ptr::read_volatile(&raw const (*ops).local_ip6[2]),
                ptr::read_volatile(&raw const (*ops).local_ip6[3]),
            ],
            [
                ptr::read_volatile(&raw const (*ops).remote_ip6[0]),
                ptr::read_volatile(&raw const (*ops).remote_ip6[1]),
                ptr::read_volatile(&raw const (*ops).remote_ip6[2]),
                ptr::read_volatile(&raw const (*ops).remote_ip6[3]),
            ],
            ptr::read_volatile(&raw const (*ops).local_port) as u16,
            // In network order, in the upper half of a word that is in network order itself.
            u32::from_be(ptr::read_volatile(&raw const (*ops).remote_port)) as u16,
        )
    };
    if v4 {
        (Addr::v4(local4), local_port, Addr::v4(remote4), remote_port)
    } else {
        (Addr::v6(local6), local_port, Addr::v6(remote6), remote_port)
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
