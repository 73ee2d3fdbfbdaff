//! The object with the programs, and how it is loaded: maps by pin, sizes from the configuration, one constant per pod.
//!
//! Aya reads an object by value, so the constant is written into a copy.
//!
//! Invariant: whoever loads it shares the pinned maps; nothing else ties the per-pod instances to the hooks of the node.

use std::path::Path;

use aya::{Ebpf, EbpfLoader};
use mesh_abi::{POD_COOKIE_MARK, kind, map};

use super::{KernelError, MapSizes};

/// Aligned for the ELF reader. Empty where the kernel side was not built (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf.o"));

/// Names this layout of maps and programs; the folder of the pins carries it.
pub const ABI: &str = env!("TULLE_ABI_HASH");

impl MapSizes {
    fn of(&self, name: &str) -> Option<u32> {
        match name {
            map::PODS | map::TRAFFIC => Some(self.pods),
            map::SOCKETS => Some(self.pods * kind::COUNT),
            map::ORIGINS => Some(self.origins),
            map::CLIENTS => Some(self.clients),
            map::VOUCHES => Some(self.vouches),
            map::PORTS => Some(self.ports),
            map::CIDRS => Some(self.cidrs),
            // Socket storage has no bound, the counters have theirs in the object.
            _ => None,
        }
    }

    /// A short name of these sizes.
    pub(super) fn digest(&self) -> u32 {
        let MapSizes { pods, origins, clients, vouches, ports, cidrs } = *self;
        // FNV-1a: stable over builds, which the hasher of std is not.
        [pods, origins, clients, vouches, ports, cidrs]
            .iter()
            .flat_map(|size| size.to_le_bytes())
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

/// A loader with its maps' sizes and pins. Making one reads the kernel's own types (50 ms), so it is kept.
#[derive(Debug)]
pub struct Loader {
    aya: EbpfLoader<'static>,
    /// Where in the object the constant `POD_COOKIE` is.
    constant: usize,
}

impl Loader {
    /// A loader whose maps are pinned in the folder `maps`, or live only as long as what it loads.
    pub fn new(maps: Option<&Path>, sizes: &MapSizes) -> Result<Loader, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let mut aya = EbpfLoader::new();
        for name in map::ALL {
            if let Some(maps) = maps {
                aya.map_pin_path(name, maps.join(name));
            }
            if let Some(size) = sizes.of(name) {
                aya.map_max_entries(name, size);
            }
        }
        Ok(Loader { aya, constant: constant()? })
    }

    /// Loads the object for a pod (0 = none): makes the maps that are not pinned yet. Programs are not loaded yet.
    pub fn load(&mut self, cookie: u64) -> Result<Ebpf, KernelError> {
        // Set here and not by aya's `override_global`: that borrows the value for as long as the loader lives.
        let mut object = OBJECT.to_vec();
        object[self.constant..self.constant + 8].copy_from_slice(&cookie.to_ne_bytes());
        self.aya.load(&object).map_err(|error| KernelError::Object(Box::new(error)))
    }
}

/// The only place in the object that holds the mark.
fn constant() -> Result<usize, KernelError> {
    let mark = POD_COOKIE_MARK.to_ne_bytes();
    let mut places = OBJECT.windows(mark.len()).enumerate().filter(|(_, bytes)| *bytes == mark);
    match (places.next(), places.next()) {
        (Some((place, _)), None) => Ok(place),
        _ => Err(KernelError::Missing("POD_COOKIE")),
    }
}
