//! The bpf(2) calls that aya does not offer by `&self`, or not at all: maps used from many threads at once, socket storage,
//! lookup-and-delete, detaching links, asking who else hooks a cgroup.
//!
//! Invariant: all `unsafe` of the room is here and in `raw/map.rs`. Every call passes buffers of exactly the sizes that the kernel reported for
//! the map when it was opened.

#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper for what this room needs")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

mod map;

pub use map::Map;

const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const OBJ_GET: libc::c_int = 7;
const PROG_FD_BY_ID: libc::c_int = 13;
const OBJ_INFO: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const MAP_TAKE: libc::c_int = 21;
const LINK_DETACH: libc::c_int = 34;

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    zero: u32,
    attach_flags_each: u64,
    link_ids: u64,
    link_flags_each: u64,
    revision: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapShape {
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    id: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Bound.
    pub max_entries: u32,
}

/// The head of `struct bpf_link_info`: the two words after `prog_id` depend on the kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkShape {
    /// `BPF_LINK_TYPE_*`.
    pub kind: u32,
    id: u32,
    /// The program attached.
    pub prog_id: u32,
    zero: u32,
    /// cgroup: its id, low word. netns: inode, 0 = the netns is gone.
    pub target: u32,
    /// cgroup: its id, high word. netns: attach type.
    pub second: u32,
    /// cgroup: attach type.
    pub third: u32,
    zero2: u32,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProgShape {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    map_ids_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a live repr(C) prefix of `union bpf_attr`; its length is passed, the kernel zero-extends. Addresses
    // inside it were made from live buffers by the callers below.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The fd behind a pin.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PathAttr { path: path.as_ptr() as u64, ..Default::default() };
    let fd = bpf(OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just made this fd for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a map looks like; an error for what is no map.
pub fn map_shape(fd: BorrowedFd<'_>) -> io::Result<MapShape> {
    info(fd)
}

/// What a link looks like; meaningful only for the fd of a link.
pub fn link_shape(fd: BorrowedFd<'_>) -> io::Result<LinkShape> {
    info(fd)
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut shape = T::default();
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut shape) as u64,
    };
    bpf(OBJ_INFO, &mut attr)?;
    Ok(shape)
}

/// Detaches a link now, whoever else holds it.
pub fn detach_link(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = IdAttr { id: fd.as_raw_fd() as u32, ..Default::default() };
    bpf(LINK_DETACH, &mut attr).map(drop)
}

/// Ids of the programs attached to a cgroup for an attach type, in the order in which they run.
pub fn attached_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Default::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// The name of a program.
pub fn program_name(id: u32) -> io::Result<String> {
    let fd = bpf(PROG_FD_BY_ID, &mut IdAttr { id, ..Default::default() })?;
    // SAFETY: the kernel just made this fd for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let shape: ProgShape = info(fd.as_fd())?;
    let end = shape.name.iter().position(|byte| *byte == 0).unwrap_or(shape.name.len());
    Ok(String::from_utf8_lossy(&shape.name[..end]).into_owned())
}
