//! The object with the programs, and how it is loaded: maps by pin, sizes from the configuration, one constant per pod.
//!
//! Invariant: whoever loads it shares the pinned maps; nothing else ties the per-pod instances to the hooks of the node.

use std::path::Path;

use aya::{Ebpf, EbpfLoader};
use mesh_abi::{kind, map, program};

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

/// Loads the object: makes the maps that `maps` does not hold yet, and pins them there (`None`: only for this try).
/// Programs are not loaded yet.
pub fn load(maps: Option<&Path>, sizes: &MapSizes, cookie: u64) -> Result<Ebpf, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    for name in map::ALL {
        if let Some(maps) = maps {
            loader.map_pin_path(name, maps.join(name));
        }
        if let Some(size) = sizes.of(name) {
            loader.map_max_entries(name, size);
        }
    }
    loader.override_global(program::POD_COOKIE, &cookie, true);
    loader.load(OBJECT).map_err(|error| KernelError::Object(Box::new(error)))
}
