//! What `mesh-node check` asks of the kernel: would each hook load, and who else hooks the same calls.
//!
//! Invariant: nothing is attached or pinned; what was loaded for the try is gone when the answer is there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use mesh_abi::program;

use super::hooks::{HOOKS, load_program};
use super::object::Loader;
use super::{KernelError, MapSizes, raw};

/// The attach types of our hooks on a cgroup, as `enum bpf_attach_type` numbers them.
const ATTACH_TYPES: [(&str, u32); 5] = [
    ("cgroup/connect4", 10),
    ("cgroup/connect6", 11),
    ("sockops", 3),
    ("cgroup/getpeername4", 29),
    ("cgroup/getpeername6", 30),
];

/// A program attached to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook, by its section.
    pub hook: &'static str,
    /// The program's id.
    pub id: u32,
    /// The program's name, of at most 15 characters.
    pub name: String,
}

impl Attached {
    /// Is it one of ours (of any instance)?
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("tulle_")
    }
}

/// A hook, by its section, and whether it loads.
pub type Tried = (&'static str, Result<(), KernelError>);

/// Tries to load every hook. `Err` if even the maps cannot be made.
pub fn try_hooks() -> Result<Vec<Tried>, KernelError> {
    let sizes = MapSizes { pods: 1, origins: 1, clients: 1, vouches: 1, ports: 1, cidrs: 1 };
    let mut ebpf = Loader::new(None, &sizes)?.load(0)?;
    let all = HOOKS.into_iter().chain([(program::ACCEPT, "sk_lookup")]);
    Ok(all.map(|(name, section)| (section, load_program(&mut ebpf, name, section))).collect())
}

/// Every program attached to a cgroup for one of our hooks, ours included, in the order in which they run.
pub fn attached(cgroup: &Path) -> io::Result<Vec<Attached>> {
    let cgroup = File::open(cgroup)?;
    let mut found = Vec::new();
    for (hook, attach_type) in ATTACH_TYPES {
        for id in raw::attached_programs(cgroup.as_fd(), attach_type)? {
            // One that was detached meanwhile has no name, and does not matter.
            if let Ok(name) = raw::program_name(id) {
                found.push(Attached { hook, id, name });
            }
        }
    }
    Ok(found)
}
