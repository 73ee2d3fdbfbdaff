//! cgroup/connect4 and connect6: an enrolled pod's connect goes to the proxy; where it wanted to go stays on the socket.
//!
//! Invariant: the destination is remembered before it is rewritten; what cannot be remembered is refused.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr, sockaddr};
use aya_ebpf::helpers::generated::{
    bpf_bind, bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_setsockopt,
};
use aya_ebpf::programs::SockAddrContext;
use mesh_abi::{
    Addr, Capture, Connect, Counter, Flow, Lookup, Origin, OwnSock, Pass, PodEntry, Refuse, Tuple, Vouch,
    connect, own,
};

use crate::maps::{self, DIALLED, OWN};
use crate::stats::count;

const ALLOW: i32 = 1;
/// The caller gets EPERM.
const REFUSE: i32 = 0;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;

/// Which of the two hooks runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// connect4.
    V4,
    /// connect6.
    V6,
}

/// The verdict of a connect, carried out.
#[inline(always)]
pub fn on_connect(ctx: &SockAddrContext, family: Family) -> i32 {
    let sk = socket(ctx);
    if sk.is_null() {
        return ALLOW;
    }
    let flow = flow(ctx, sk, family);
    match connect(&Maps { sk: sk.cast() }, &flow) {
        Connect::Pass(Pass::NotEnrolled) => {
            note_prober(sk.cast());
            ALLOW
        }
        Connect::Pass(why) => {
            if !matches!(why, Pass::Protocol | Pass::Own) {
                // A socket may connect again after a captured attempt failed; it then must not show the old destination.
                maps::unstore(&DIALLED, sk.cast());
            }
            ALLOW
        }
        Connect::Refuse(Refuse::OwnPort) => refuse(Counter::OwnPortRefused),
        Connect::Refuse(Refuse::NoListener) => refuse(Counter::NoListenerRefused),
        Connect::Capture(capture) => carry_out(ctx, sk, family, &flow, &capture),
    }
}

/// Marks the socket of a process that probes pods: here its process is known, later only its socket is.
#[inline(always)]
fn note_prober(sk: *mut c_void) {
    // SAFETY: the helper has no preconditions.
    let process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if maps::is_prober(process) {
        // Without memory for it the probe is captured like anybody, and fails visibly.
        maps::store(&OWN, sk, &OwnSock { kind: own::PROBE, ..OwnSock::NONE });
    }
}

#[inline(always)]
fn carry_out(
    ctx: &SockAddrContext,
    sk: *mut bpf_sock,
    family: Family,
    flow: &Flow,
    capture: &Capture,
) -> i32 {
    if capture.release && !release_device(ctx) {
        return refuse(Counter::DeviceRefused);
    }
    // SAFETY: the helper has no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let origin = Origin { addr: flow.dst, port: flow.port, reserved: 0, ifindex: flow.ifindex, at_ns };
    if !maps::store(&DIALLED, sk.cast(), &origin) {
        return refuse(Counter::StorageRefused);
    }
    if !capture.source.is_zero() && !bind_source(ctx, family, &capture.source) {
        // Without it the proxy sees a loopback peer; the key is the tuple, so nothing else changes.
        count(Counter::SourceNotBound);
    }
    rewrite(ctx, family, capture);
    count(Counter::Captured);
    ALLOW
}

#[inline(always)]
fn rewrite(ctx: &SockAddrContext, family: Family, capture: &Capture) {
    let address = ctx.sock_addr;
    let port = u32::from(capture.port.to_be());
    // SAFETY: `address` is the hook's context; the verifier allows these fields to be written by words.
    unsafe {
        match family {
            Family::V4 => ptr::write_volatile(&raw mut (*address).user_ip4, capture.to.v4_word()),
            Family::V6 => write_ip6(address, &capture.to),
        }
        ptr::write_volatile(&raw mut (*address).user_port, port);
    }
}

/// # Safety
/// `address` is the context of a hook for IPv6.
#[inline(always)]
pub unsafe fn write_ip6(address: *mut bpf_sock_addr, ip: &Addr) {
    let words = ip.words();
    // SAFETY: the caller's promise; written word by word because wider stores are not allowed everywhere.
    unsafe {
        ptr::write_volatile(&raw mut (*address).user_ip6[0], words[0]);
        ptr::write_volatile(&raw mut (*address).user_ip6[1], words[1]);
        ptr::write_volatile(&raw mut (*address).user_ip6[2], words[2]);
        ptr::write_volatile(&raw mut (*address).user_ip6[3], words[3]);
    }
}

/// Takes the socket off the device it is bound to: one bound to some other device of the pod never hears our listener.
///
/// The kernel asks for CAP_NET_RAW of the caller here, hook or not.
#[inline(always)]
fn release_device(ctx: &SockAddrContext) -> bool {
    let mut none = [0_u8; 4];
    // SAFETY: the context is the hook's own, the buffer is four readable bytes (an empty device name).
    let result = unsafe {
        bpf_setsockopt(ctx.sock_addr.cast(), SOL_SOCKET, SO_BINDTODEVICE, none.as_mut_ptr().cast(), 4)
    };
    if result == 0 {
        count(Counter::DeviceReleased);
    }
    result == 0
}

#[repr(C)]
struct SockAddr4 {
    family: u16,
    port: u16,
    addr: u32,
    zero: [u32; 2],
}

#[repr(C)]
struct SockAddr6 {
    family: u16,
    port: u16,
    flow: u32,
    addr: [u32; 4],
    scope: u32,
}

/// Sets the source, without a port: the kernel chooses one at connect, free for this destination only.
#[inline(always)]
fn bind_source(ctx: &SockAddrContext, family: Family, source: &Addr) -> bool {
    let result = match family {
        Family::V4 => {
            let mut to = SockAddr4 { family: AF_INET, port: 0, addr: source.v4_word(), zero: [0; 2] };
            bind(ctx, (&raw mut to).cast(), size_of::<SockAddr4>())
        }
        Family::V6 => {
            let mut to = SockAddr6 { family: AF_INET6, port: 0, flow: 0, addr: source.words(), scope: 0 };
            bind(ctx, (&raw mut to).cast(), size_of::<SockAddr6>())
        }
    };
    result == 0
}

#[inline(always)]
fn bind(ctx: &SockAddrContext, to: *mut sockaddr, length: usize) -> i64 {
    // SAFETY: the context is the hook's own; `to` points to `length` initialised bytes on the stack.
    unsafe { bpf_bind(ctx.sock_addr, to, length as i32) }
}

#[inline(always)]
fn refuse(counter: Counter) -> i32 {
    count(counter);
    REFUSE
}

/// The socket of a hook's context.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context is valid for the program run, and `sk` is one of its readable fields.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn flow(ctx: &SockAddrContext, sk: *mut bpf_sock, family: Family) -> Flow {
    let address = ctx.sock_addr;
    // SAFETY: context and socket are valid for the program run; each field is read by words, as the verifier wants it.
    unsafe {
        let dst = match family {
            Family::V4 => Addr::v4(ptr::read_volatile(&raw const (*address).user_ip4)),
            Family::V6 => read_ip6(address),
        };
        let source = match family {
            Family::V4 => ptr::read_volatile(&raw const (*sk).src_ip4),
            Family::V6 => {
                ptr::read_volatile(&raw const (*sk).src_ip6[0])
                    | ptr::read_volatile(&raw const (*sk).src_ip6[1])
                    | ptr::read_volatile(&raw const (*sk).src_ip6[2])
                    | ptr::read_volatile(&raw const (*sk).src_ip6[3])
            }
        };
        Flow {
            cookie: bpf_get_netns_cookie(address.cast()),
            protocol: ptr::read_volatile(&raw const (*address).protocol),
            socket6: family == Family::V6,
            dst,
            port: u16::from_be(ptr::read_volatile(&raw const (*address).user_port) as u16),
            source_bound: source != 0,
            port_bound: ptr::read_volatile(&raw const (*sk).src_port) != 0,
            ifindex: ptr::read_volatile(&raw const (*sk).bound_dev_if),
        }
    }
}

/// # Safety
/// `address` is the context of a hook for IPv6.
#[inline(always)]
unsafe fn read_ip6(address: *mut bpf_sock_addr) -> Addr {
    // SAFETY: the caller's promise.
    unsafe {
        Addr::v6([
            ptr::read_volatile(&raw const (*address).user_ip6[0]),
            ptr::read_volatile(&raw const (*address).user_ip6[1]),
            ptr::read_volatile(&raw const (*address).user_ip6[2]),
            ptr::read_volatile(&raw const (*address).user_ip6[3]),
        ])
    }
}

/// The facts, for the socket that connects.
struct Maps {
    sk: *mut c_void,
}

impl Lookup for Maps {
    #[inline(always)]
    fn pod(&self, cookie: u64) -> Option<&PodEntry> {
        maps::pod(cookie)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        maps::stored(&OWN, self.sk).is_some()
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
    fn listens(&self, index: u32) -> bool {
        maps::listens(index)
    }

    #[inline(always)]
    fn vouch(&self, _tuple: &Tuple) -> Option<&Vouch> {
        None
    }
}
