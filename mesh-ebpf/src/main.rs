//! Placeholder of the kernel side: proves the build.
#![no_std]
#![no_main]

use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

#[sock_ops]
pub fn tl_probe(_ctx: SockOpsContext) -> u32 {
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
