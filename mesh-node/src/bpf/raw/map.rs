//! A pinned map, used from many threads at once.
//!
//! Invariant: `open` compared the sizes of keys and values with the kernel's; every call passes buffers of those sizes.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Pod;

use super::{
    ElementAttr, MAP_DELETE, MAP_LOOKUP, MAP_NEXT_KEY, MAP_TAKE, MAP_UPDATE, bpf, map_shape, open_pin,
};

/// A map, usable from many threads at once.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    _types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Opens a pinned map, refusing one whose keys or values have other sizes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pin(path)?;
        let shape = map_shape(fd.as_fd())?;
        if shape.key as usize != size_of::<K>() || shape.value as usize != size_of::<V>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a map of another layout"));
        }
        Ok(Map { fd, _types: PhantomData })
    }

    fn element(&self, key: *const K, value: u64) -> ElementAttr {
        ElementAttr { map_fd: self.fd.as_raw_fd() as u32, zero: 0, key: key as u64, value, flags: 0 }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.read(MAP_LOOKUP, key)
    }

    /// Removes a key, giving its value, in one step: of two askers only one gets it.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.read(MAP_TAKE, key)
    }

    fn read(&self, command: libc::c_int, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        match bpf(command, &mut self.element(key, value.as_mut_ptr() as u64)) {
            // SAFETY: the kernel wrote a whole value of the size checked in `open`; any bit pattern is a `Pod`.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of a key; the kernel replaces a hash entry in one step.
    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(MAP_UPDATE, &mut self.element(key, std::ptr::from_ref(value) as u64)).map(drop)
    }

    /// Removes a key; says whether it was there.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match bpf(MAP_DELETE, &mut self.element(key, 0)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All keys. Entries added or removed meanwhile may be missed or seen twice; a full scan restarts at most as often as
    /// the map has entries, then ends.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let limit = map_shape(self.fd.as_fd())?.max_entries as usize * 2 + 16;
        let mut keys: Vec<K> = Vec::new();
        while keys.len() < limit {
            let mut next = MaybeUninit::<K>::uninit();
            let last = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
            match bpf(MAP_NEXT_KEY, &mut self.element(last, next.as_mut_ptr() as u64)) {
                // SAFETY: the kernel wrote a whole key of the size checked in `open`.
                Ok(_) => keys.push(unsafe { next.assume_init() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }
}

impl<V: Pod> Map<u32, V> {
    /// The values of a per-CPU array's element, one for each possible CPU.
    pub fn get_per_cpu(&self, index: u32) -> io::Result<Vec<V>> {
        // The kernel writes each value rounded up to eight bytes.
        let stride = size_of::<V>().next_multiple_of(8);
        let cpus = possible_cpus()?;
        let mut buffer = vec![0_u64; stride / 8 * cpus];
        bpf(MAP_LOOKUP, &mut self.element(&raw const index, buffer.as_mut_ptr() as u64))?;
        let values = buffer.chunks_exact(stride / 8).map(|chunk| {
            // SAFETY: the chunk holds `stride` ≥ size_of::<V>() initialised bytes, aligned to eight.
            unsafe { chunk.as_ptr().cast::<V>().read_unaligned() }
        });
        Ok(values.collect())
    }

    /// Sets a per-CPU array's element to the same value on every CPU.
    pub fn set_per_cpu(&self, index: u32, value: &V) -> io::Result<()> {
        let stride = size_of::<V>().next_multiple_of(8);
        let mut buffer = vec![0_u64; stride / 8 * possible_cpus()?];
        for chunk in buffer.chunks_exact_mut(stride / 8) {
            // SAFETY: the chunk has room for `stride` ≥ size_of::<V>() bytes, aligned to eight.
            unsafe { chunk.as_mut_ptr().cast::<V>().write_unaligned(*value) };
        }
        bpf(MAP_UPDATE, &mut self.element(&raw const index, buffer.as_mut_ptr() as u64)).map(drop)
    }
}

impl<V: Pod> Map<i32, V> {
    /// What a socket carries.
    pub fn get_of(&self, socket: BorrowedFd<'_>) -> io::Result<Option<V>> {
        self.get(&socket.as_raw_fd())
    }

    /// Lets a socket carry `value`.
    pub fn set_of(&self, socket: BorrowedFd<'_>, value: &V) -> io::Result<()> {
        self.set(&socket.as_raw_fd(), value)
    }
}

/// How many CPUs a per-CPU map has room for: the end of the last range of `possible`, plus one.
fn possible_cpus() -> io::Result<usize> {
    let ranges = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = ranges.trim().rsplit([',', '-']).next().and_then(|number| number.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "cpu/possible"))
}
