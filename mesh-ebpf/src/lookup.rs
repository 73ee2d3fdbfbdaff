//! sk_lookup: what arrives at a pod goes to the proxy's listener there, whatever the port. No NAT: `getsockname` of the
//! accepted socket is the original destination.
//!
//! Invariant: an empty listener slot drops (the caller gets ECONNREFUSED); it never falls through to the application.

use core::ptr;

use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::SkLookupContext;
use mesh_abi::{Accept, Addr, Arrival, Counter, Lookup, Pass, PodEntry, Tuple, Vouch, accept, own};

use crate::maps::{self, POD_COOKIE, SOCKETS, VOUCHES};
use crate::stats::count;

const DROP: u32 = 0;
const PASS: u32 = 1;
const AF_INET: u32 = 2;

/// The verdict of an arrival, carried out.
#[inline(always)]
pub fn on_lookup(ctx: &SkLookupContext) -> u32 {
    let arrival = arrival(ctx.lookup);
    match accept(&Maps, &arrival) {
        Accept::Pass(Pass::Vouched) => {
            honour(&arrival.tuple);
            PASS
        }
        Accept::Pass(Pass::Probe) => {
            count(Counter::ProbeAdmitted);
            PASS
        }
        Accept::Pass(_) => PASS,
        Accept::Assign { index, fail_open } => {
            if let Some(vouch) = maps::vouch(&arrival.tuple) {
                // Somebody vouched for this tuple, but for another pod or too long ago; or the kubelet calls what no probe names.
                count(if vouch.kind == own::VOUCH { Counter::VouchRefused } else { Counter::ProbeUnnamed });
            }
            assign(ctx, index, fail_open)
        }
    }
}

#[inline(always)]
fn assign(ctx: &SkLookupContext, index: u32, fail_open: bool) -> u32 {
    match SOCKETS.redirect_sk_lookup(ctx, index, BPF_SK_LOOKUP_F_NO_REUSEPORT.into()) {
        Ok(()) => {
            count(Counter::InboundCaptured);
            PASS
        }
        Err(_) if fail_open => PASS,
        Err(_) => {
            count(Counter::InboundDropped);
            DROP
        }
    }
}

/// Notes that the vouch was seen: the source's hook reads it when the answer arrives.
#[inline(always)]
fn honour(tuple: &Tuple) {
    if let Some(vouch) = VOUCHES.get_ptr_mut(tuple) {
        // SAFETY: the kernel gave a valid pointer; a concurrent removal leaves it readable for this program run.
        unsafe {
            if (*vouch).honoured == 0 {
                (*vouch).honoured = 1;
                count(Counter::VouchHonoured);
            }
        }
    }
}

/// All fields are read whatever the family, see `sockops::ends`.
#[inline(always)]
fn arrival(lookup: *mut bpf_sk_lookup) -> Arrival {
    // SAFETY: the context is valid for the program run; fields are read in the widths the verifier wants.
    unsafe {
        let v4 = ptr::read_volatile(&raw const (*lookup).family) == AF_INET;
        let client4 = ptr::read_volatile(&raw const (*lookup).remote_ip4);
        let server4 = ptr::read_volatile(&raw const (*lookup).local_ip4);
        let client6 = [
            ptr::read_volatile(&raw const (*lookup).remote_ip6[0]),
            ptr::read_volatile(&raw const (*lookup).remote_ip6[1]),
            ptr::read_volatile(&raw const (*lookup).remote_ip6[2]),
            ptr::read_volatile(&raw const (*lookup).remote_ip6[3]),
        ];
        let server6 = [
            ptr::read_volatile(&raw const (*lookup).local_ip6[0]),
            ptr::read_volatile(&raw const (*lookup).local_ip6[1]),
            ptr::read_volatile(&raw const (*lookup).local_ip6[2]),
            ptr::read_volatile(&raw const (*lookup).local_ip6[3]),
        ];
        let (client, server) =
            if v4 { (Addr::v4(client4), Addr::v4(server4)) } else { (Addr::v6(client6), Addr::v6(server6)) };
        Arrival {
            cookie: POD_COOKIE.load(),
            protocol: ptr::read_volatile(&raw const (*lookup).protocol),
            ifindex: ptr::read_volatile(&raw const (*lookup).ingress_ifindex),
            tuple: Tuple {
                client,
                server,
                client_port: u16::from_be(ptr::read_volatile(&raw const (*lookup).remote_port)),
                server_port: ptr::read_volatile(&raw const (*lookup).local_port) as u16,
            },
            now_ns: bpf_ktime_get_ns(),
        }
    }
}

/// The facts, for a packet.
struct Maps;

impl Lookup for Maps {
    #[inline(always)]
    fn pod(&self, cookie: u64) -> Option<&PodEntry> {
        maps::pod(cookie)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        false
    }

    #[inline(always)]
    fn port_excluded(&self, cookie: u64, port: u16, what: u16) -> bool {
        maps::port_excluded(cookie, port, what)
    }

    #[inline(always)]
    fn cidr_excluded(&self, cookie: u64, addr: &Addr) -> bool {
        maps::cidr_excluded(cookie, addr)
    }

    #[inline(always)]
    fn listens(&self, _index: u32) -> bool {
        // `bpf_sk_assign` says so by itself.
        true
    }

    #[inline(always)]
    fn vouch(&self, tuple: &Tuple) -> Option<&Vouch> {
        maps::vouch(tuple)
    }
}
