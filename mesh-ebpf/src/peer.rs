//! cgroup/getpeername4 and 6 (which also serve `accept()`): a captured client sees where it wanted to go, an application
//! that accepted from the proxy sees the real client.
//!
//! Invariant: a socket nobody stored anything on shows what the kernel says.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::programs::SockAddrContext;
use mesh_abi::Addr;

use crate::connect::{socket, write_ip6};
use crate::maps::{DIALLED, PEERS, stored};

const ALLOW: i32 = 1;

/// An IPv4 socket asks.
#[inline(always)]
pub fn on_getpeername4(ctx: &SockAddrContext) -> i32 {
    if let Some((addr, port)) = real_peer(socket(ctx).cast())
        // An IPv4 socket cannot show an IPv6 client.
        && addr.is_v4()
    {
        // SAFETY: the context is the hook's own; these fields may be written by words.
        unsafe {
            ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, addr.v4_word());
            ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.to_be()));
        }
    }
    ALLOW
}

/// An IPv6 socket asks; IPv4 peers are shown mapped, as the kernel does.
#[inline(always)]
pub fn on_getpeername6(ctx: &SockAddrContext) -> i32 {
    if let Some((addr, port)) = real_peer(socket(ctx).cast()) {
        // SAFETY: as above.
        unsafe {
            write_ip6(ctx.sock_addr, &addr);
            ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.to_be()));
        }
    }
    ALLOW
}

#[inline(always)]
fn real_peer(sk: *mut c_void) -> Option<(Addr, u16)> {
    if sk.is_null() {
        return None;
    }
    if let Some(origin) = stored(&DIALLED, sk) {
        return Some((origin.addr, origin.port));
    }
    stored(&PEERS, sk).map(|client| (client.addr, client.port))
}
