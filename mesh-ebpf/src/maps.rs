//! The maps, and the facts they hold. Raw pointers from the kernel stay in this file.
//!
//! Invariant: sizes here are placeholders; the agent sets its own before it loads (`HooksConfig::sizes`). References live
//! for one program run: hash elements are reused only after an RCU grace period or, at worst, hold another valid entry.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_delete, bpf_sk_storage_get,
};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{HashMap, LpmTrie, PerCpuArray, SockMap, lpm_trie};
use mesh_abi::{Addr, Client, Origin, OwnSock, PodEntry, PodTraffic, PortKey, Tuple, TupleKey, Vouch};

/// The netns cookie of the pod that this instance of `tulle_accept` serves: the verifier gives sk_lookup no way to ask.
#[unsafe(no_mangle)]
pub static POD_COOKIE: Global<u64> = Global::new(mesh_abi::POD_COOKIE_MARK);

#[map]
pub static PODS: HashMap<u64, PodEntry> = HashMap::with_max_entries(512, BPF_F_NO_PREALLOC);
#[map]
pub static SOCKETS: SockMap = SockMap::with_max_entries(2048, 0);
#[map]
pub static ORIGINS: HashMap<TupleKey, Origin> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static CLIENTS: HashMap<TupleKey, Client> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);
#[map]
pub static VOUCHES: HashMap<Tuple, Vouch> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);
#[map]
pub static CIDRS: LpmTrie<[u8; 24], u32> = LpmTrie::with_max_entries(8192, 0);
#[map]
pub static PROBERS: HashMap<u32, u64> = HashMap::with_max_entries(16, BPF_F_NO_PREALLOC);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(mesh_abi::Counter::COUNT, 0);
#[map]
pub static TRAFFIC: PerCpuArray<PodTraffic> = PerCpuArray::with_max_entries(512, 0);
#[btf_map]
pub static OWN: SkStorage<OwnSock> = SkStorage::new();
#[btf_map]
pub static DIALLED: SkStorage<Origin> = SkStorage::new();
#[btf_map]
pub static PEERS: SkStorage<Client> = SkStorage::new();

/// What a socket carries in a storage map. Works for every hook that has the socket; aya's own method wants a connect hook.
#[inline(always)]
pub fn stored<'a, T>(map: &'static SkStorage<T>, sk: *mut c_void) -> Option<&'a mut T> {
    // SAFETY: `sk` comes non-null from the hook's context; the kernel answers null or a value of the map's type that lives
    // as long as the socket, which outlives the program run.
    unsafe { bpf_sk_storage_get(address(map), sk, ptr::null_mut(), 0).cast::<T>().as_mut() }
}

/// Stores `value` on a socket; false if the kernel has no memory for it.
#[inline(always)]
pub fn store<T: Copy>(map: &'static SkStorage<T>, sk: *mut c_void, value: &T) -> bool {
    let init = ptr::from_ref(value).cast_mut().cast();
    // SAFETY: as in `stored`; the kernel copies `value` if it makes a new one.
    let slot = unsafe {
        bpf_sk_storage_get(address(map), sk, init, BPF_SK_STORAGE_GET_F_CREATE.into()).cast::<T>().as_mut()
    };
    match slot {
        Some(slot) => {
            // One that was there already still holds what an earlier connect of the socket left.
            *slot = *value;
            true
        }
        None => false,
    }
}

/// Forgets what a socket carries.
#[inline(always)]
pub fn unstore<T>(map: &'static SkStorage<T>, sk: *mut c_void) {
    // SAFETY: as in `stored`.
    unsafe { bpf_sk_storage_delete(address(map), sk) };
}

#[inline(always)]
fn address<T>(map: &'static SkStorage<T>) -> *mut c_void {
    ptr::from_ref(map).cast_mut().cast()
}

/// The enrolled pod of a netns.
#[inline(always)]
pub fn pod(cookie: u64) -> Option<&'static PodEntry> {
    // SAFETY: see the invariant of this file.
    unsafe { PODS.get(&cookie) }
}

/// Does a port stay uncaptured?
#[inline(always)]
pub fn port_excluded(cookie: u64, port: u16, what: u16) -> bool {
    let key = PortKey { cookie, port, what, reserved: 0 };
    // SAFETY: see the invariant of this file; only presence is looked at.
    unsafe { PORTS.get(&key).is_some() }
}

/// Is there a listener at this index? One that was closed, by whatever death of its agent, is no longer in the map.
#[inline(always)]
pub fn listens(index: u32) -> bool {
    // SAFETY: the kernel answers null or a socket that it has taken a reference to, which is given back at once.
    unsafe {
        let sk = bpf_map_lookup_elem(ptr::from_ref(&SOCKETS).cast_mut().cast(), ptr::from_ref(&index).cast());
        if sk.is_null() {
            return false;
        }
        bpf_sk_release(sk);
    }
    true
}

/// Does this process probe pods?
#[inline(always)]
pub fn is_prober(process: u32) -> bool {
    // SAFETY: see the invariant of this file; only presence is looked at.
    unsafe { PROBERS.get(&process).is_some() }
}

/// Does a destination stay uncaptured?
#[inline(always)]
pub fn cidr_excluded(cookie: u64, addr: &Addr) -> bool {
    let mut data = [0; 24];
    data[..8].copy_from_slice(&cookie.to_ne_bytes());
    let words = addr.words();
    data[8..12].copy_from_slice(&words[0].to_ne_bytes());
    data[12..16].copy_from_slice(&words[1].to_ne_bytes());
    data[16..20].copy_from_slice(&words[2].to_ne_bytes());
    data[20..24].copy_from_slice(&words[3].to_ne_bytes());
    CIDRS.get(lpm_trie::Key::new(64 + 128, data)).is_some()
}

/// What the proxy said about a tuple.
#[inline(always)]
pub fn vouch(tuple: &Tuple) -> Option<&'static Vouch> {
    // SAFETY: see the invariant of this file.
    unsafe { VOUCHES.get(tuple) }
}

/// The key of a connection within a netns.
#[inline(always)]
pub fn key(cookie: u64, tuple: &Tuple) -> TupleKey {
    TupleKey { cookie, tuple: *tuple, reserved: 0 }
}
