//! The kernel side: one entry point per hook, each a line long.
//!
//! Invariant: nothing is decided here. The verdicts are `mesh_abi`'s, tested on the host; these programs fetch the facts,
//! ask, and store the answer. A program is not called like its section (the linker would merge the two symbols).

#![no_std]
#![no_main]

mod connect;
mod lookup;
mod maps;
mod peer;
mod sockops;
mod stats;

use aya_ebpf::macros::{cgroup_sock_addr, sk_lookup, sock_ops};
use aya_ebpf::programs::{SkLookupContext, SockAddrContext, SockOpsContext};

/// Captures IPv4 connects.
#[cgroup_sock_addr(connect4)]
pub fn tulle_connect4(ctx: SockAddrContext) -> i32 {
    connect::on_connect(&ctx, connect::Family::V4)
}

/// Captures IPv6 connects, and IPv4 ones of IPv6 sockets.
#[cgroup_sock_addr(connect6)]
pub fn tulle_connect6(ctx: SockAddrContext) -> i32 {
    connect::on_connect(&ctx, connect::Family::V6)
}

/// Shows who really is at the other end of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn tulle_peername4(ctx: SockAddrContext) -> i32 {
    peer::on_getpeername4(&ctx)
}

/// Shows who really is at the other end of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn tulle_peername6(ctx: SockAddrContext) -> i32 {
    peer::on_getpeername6(&ctx)
}

/// Ties sockets to what the other hooks and the proxy know of them.
#[sock_ops]
pub fn tulle_sockops(ctx: SockOpsContext) -> u32 {
    sockops::on_event(&ctx)
}

/// Gives what arrives at a pod to the proxy's listener there. One instance per pod.
#[sk_lookup]
pub fn tulle_accept(ctx: SkLookupContext) -> u32 {
    lookup::on_lookup(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
