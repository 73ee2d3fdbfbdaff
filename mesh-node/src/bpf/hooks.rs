//! Loading the hooks, or adopting those a previous life of this agent left pinned.
//!
//! Invariant: a hook in force stays in force until its successor is attached.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, SockOps};
use mesh_abi::{
    CidrKey, Client, Counter, OwnSock, PodEntry, PodTraffic, PortKey, Tuple, TupleKey, Vouch, map, program,
};

use super::object::Loader;
use super::pins::{self, Pins};
use super::raw::{self, Map};
use super::stats::Counters;
use super::{HooksConfig, KernelError, MapSizes};
use crate::sys;

/// The hooks of the node: program and, for people, its section. The order is that of attaching: what ties connections
/// together comes before what captures them.
pub(super) const HOOKS: [(&str, &str); 5] = [
    (program::SOCK_OPS, "sockops"),
    (program::PEERNAME4, "cgroup/getpeername4"),
    (program::PEERNAME6, "cgroup/getpeername6"),
    (program::CONNECT4, "cgroup/connect4"),
    (program::CONNECT6, "cgroup/connect6"),
];

/// The verifier gives up with EAGAIN when a signal is pending, SIGCHLD of any child for instance.
const LOAD_TRIES: usize = 16;

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_CGROUP: u32 = 3;

/// The hooks of this node, live in the kernel.
#[derive(Debug)]
pub struct Hooks {
    pub(super) pins: Pins,
    pub(super) sizes: MapSizes,
    pub(super) maps: Maps,
    pub(super) registry: Mutex<Registry>,
    pub(super) origin_miss: AtomicU64,
    pub(super) logged: Mutex<Counters>,
    /// Made when the first pod needs it: an agent that adopts everything never does.
    loader: Mutex<Option<Loader>>,
}

/// The maps, opened by pin.
#[derive(Debug)]
pub(super) struct Maps {
    pub pods: Map<u64, PodEntry>,
    pub sockets: Map<u32, u32>,
    pub origins: Map<TupleKey, mesh_abi::Origin>,
    pub clients: Map<TupleKey, Client>,
    pub vouches: Map<Tuple, Vouch>,
    pub ports: Map<PortKey, u32>,
    pub probers: Map<u32, u64>,
    pub cidrs: Map<CidrKey, u32>,
    pub counters: Map<u32, u64>,
    pub traffic: Map<u32, PodTraffic>,
    pub own: Map<i32, OwnSock>,
}

/// Who holds which slot, and which pods this life has enrolled.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub slots: BTreeMap<u64, u32>,
    pub enrolled: BTreeSet<u64>,
}

impl Hooks {
    /// Adopts the pinned hooks of this instance if they are whole and of this ABI, else loads and attaches new ones.
    pub fn open(config: &HooksConfig) -> Result<Hooks, KernelError> {
        let bpffs = &config.bpffs;
        sys::mount_bpffs(bpffs).map_err(|error| KernelError::Bpffs { path: bpffs.clone(), error })?;
        let pins = Pins::of(config);
        if pins.exist()
            && let Err(error) = Maps::open(&pins)
        {
            tracing::warn!(%error, "the pinned maps are damaged: they are replaced, their hooks stay until then");
            pins.set_aside()?;
        }
        pins.make()?;
        let missing: Vec<_> = HOOKS.into_iter().filter(|(hook, _)| !is_whole(&pins.link(hook))).collect();
        let mut loader = None;
        if missing.is_empty() {
            tracing::info!(instance = config.instance, "adopted the pinned hooks");
        } else {
            attach(config, &pins, &missing, loader.insert(Loader::new(Some(&pins.maps()), &config.sizes)?))?;
        }
        let maps = Maps::open(&pins)?;
        let registry = Mutex::new(Registry::read(&maps)?);
        let hooks = Hooks {
            pins,
            sizes: config.sizes,
            maps,
            registry,
            origin_miss: AtomicU64::new(0),
            logged: Mutex::new(Counters::default()),
            loader: Mutex::new(loader),
        };
        hooks.collect_gone();
        Ok(hooks)
    }

    /// Removes hooks and pins that an agent of this instance with another ABI (or damaged pins) left. Call it after the
    /// wanted pods are enrolled anew, so that there is no moment in which they are captured by neither. Says how many
    /// hooks there were.
    pub fn retire_previous(&self) -> Result<usize, KernelError> {
        let mut links = 0;
        for folder in self.pins.others() {
            links += pins::remove_all(&folder).map_err(|error| KernelError::Pin { path: folder, error })?;
        }
        Ok(links)
    }

    /// The object, its constant set for a pod; programs are not loaded yet.
    pub(super) fn load_for(&self, cookie: u64) -> Result<Ebpf, KernelError> {
        let mut loader = self.loader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let loader = match &mut *loader {
            Some(loader) => loader,
            none => none.insert(Loader::new(Some(&self.pins.maps()), &self.sizes)?),
        };
        loader.load(cookie)
    }

    /// The lock of the registry; a panic elsewhere leaves it consistent, since every change is a single insert or remove.
    pub(super) fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Maps {
    fn open(pins: &Pins) -> Result<Maps, KernelError> {
        fn open<K: aya::Pod, V: aya::Pod>(pins: &Pins, name: &'static str) -> Result<Map<K, V>, KernelError> {
            let path = pins.map(name);
            Map::open(&path).map_err(|error| KernelError::Pin { path, error })
        }
        let maps = Maps {
            pods: open(pins, map::PODS)?,
            sockets: open(pins, map::SOCKETS)?,
            origins: open(pins, map::ORIGINS)?,
            clients: open(pins, map::CLIENTS)?,
            vouches: open(pins, map::VOUCHES)?,
            ports: open(pins, map::PORTS)?,
            probers: open(pins, map::PROBERS)?,
            cidrs: open(pins, map::CIDRS)?,
            counters: open(pins, map::COUNTERS)?,
            traffic: open(pins, map::TRAFFIC)?,
            own: open(pins, map::OWN)?,
        };
        // The other two storages are only the kernel's; that they are there matters all the same.
        open::<i32, mesh_abi::Origin>(pins, map::DIALLED)?;
        open::<i32, Client>(pins, map::PEERS)?;
        maps.counters
            .get_per_cpu(Counter::COUNT - 1)
            .map_err(|error| KernelError::Map { map: map::COUNTERS, error })?;
        Ok(maps)
    }
}

impl Registry {
    fn read(maps: &Maps) -> Result<Registry, KernelError> {
        let failed = |error| KernelError::Map { map: map::PODS, error };
        let mut registry = Registry::default();
        for cookie in maps.pods.keys().map_err(failed)? {
            if let Some(entry) = maps.pods.get(&cookie).map_err(failed)? {
                registry.slots.insert(cookie, entry.slot);
            }
        }
        Ok(registry)
    }

    /// The slot of a pod, or the lowest free one.
    pub fn slot_of(&mut self, cookie: u64, max: u32) -> Option<u32> {
        if let Some(slot) = self.slots.get(&cookie) {
            return Some(*slot);
        }
        let used: BTreeSet<u32> = self.slots.values().copied().collect();
        let slot = (0..max).find(|slot| !used.contains(slot))?;
        self.slots.insert(cookie, slot);
        Some(slot)
    }
}

/// Is there a working link of a hook of the node under this pin?
fn is_whole(pin: &Path) -> bool {
    let shape = raw::open_pin(pin).and_then(|link| raw::link_shape(link.as_fd()));
    shape.is_ok_and(|shape| shape.kind == LINK_CGROUP && shape.prog_id != 0)
}

/// Loads and attaches the hooks that are missing.
fn attach(
    config: &HooksConfig,
    pins: &Pins,
    missing: &[(&'static str, &'static str)],
    loader: &mut Loader,
) -> Result<(), KernelError> {
    let root = config.cgroup_root()?;
    let cgroup = File::open(&root).map_err(|error| KernelError::NotCgroup { path: root.clone(), error })?;
    let mut ebpf = loader.load(0)?;
    for (name, section) in missing {
        let pin = pins.link(name);
        pins::remove_link(&pin).map_err(|error| KernelError::Pin { path: pin.clone(), error })?;
        let link = attach_one(&mut ebpf, name, section, &cgroup, &root)?;
        link.pin(&pin).map_err(|error| KernelError::Pin { path: pin, error: io::Error::other(error) })?;
    }
    Ok(())
}

fn attach_one(
    ebpf: &mut Ebpf,
    name: &'static str,
    section: &'static str,
    cgroup: &File,
    root: &Path,
) -> Result<FdLink, KernelError> {
    load_program(ebpf, name, section)?;
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    // A bpf_link on a cgroup always is multi-attach; the kernel refuses the legacy flag for it.
    let mode = CgroupAttachMode::Single;
    let link = if name == program::SOCK_OPS {
        let program: &mut SockOps = program.try_into().map_err(|_| KernelError::Missing(name))?;
        program.attach(cgroup, mode).and_then(|id| program.take_link(id)).map(FdLink::try_from)
    } else {
        let program: &mut CgroupSockAddr = program.try_into().map_err(|_| KernelError::Missing(name))?;
        program.attach(cgroup, mode).and_then(|id| program.take_link(id)).map(FdLink::try_from)
    };
    let failed =
        |error: String| KernelError::Attach { hook: section, target: root.display().to_string(), error };
    link.map_err(|error| failed(full_text(&error)))?.map_err(|error| failed(error.to_string()))
}

/// Loads one program; the verifier's log is part of the error.
pub(super) fn load_program(
    ebpf: &mut Ebpf,
    name: &'static str,
    section: &'static str,
) -> Result<(), KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    let mut load = || match program {
        aya::programs::Program::CgroupSockAddr(program) => Some(program.load()),
        aya::programs::Program::SockOps(program) => Some(program.load()),
        aya::programs::Program::SkLookup(program) => Some(program.load()),
        _ => None,
    };
    for _ in 0..LOAD_TRIES {
        match load().ok_or(KernelError::Missing(name))? {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            result => {
                return result.map_err(|error| KernelError::Hook { hook: section, source: Box::new(error) });
            }
        }
    }
    let error = ProgramError::IOError(io::Error::from_raw_os_error(libc::EAGAIN));
    Err(KernelError::Hook { hook: section, source: Box::new(error) })
}

/// An error of aya with its causes: the system call alone says little.
pub(super) fn full_text(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
