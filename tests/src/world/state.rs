//! What a world owns, and how all of it goes away again.
//!
//! Invariant: whatever is made on the machine is first named in the world's folder or carries its name, so that a killed
//! run can be cleaned up by name alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::pod::Pod;
use super::service::Host;
use super::{leftover, manifest};
use crate::ending;
use crate::net::{self, Netns};
use crate::process::{self, Process};
use crate::repo;

/// Everything of a world that can change.
#[derive(Debug, Default)]
pub struct Owned {
    /// In order of creation; removed in reverse.
    pub namespaces: BTreeMap<String, Netns>,
    /// Agents, controller and applications, by log name.
    pub processes: BTreeMap<String, Process>,
    /// Pods by name, until they are removed.
    pub pods: BTreeMap<String, Pod>,
    /// Names that the client resolves.
    pub hosts: BTreeMap<String, Host>,
    /// Next free address number, by node.
    pub next_pod: BTreeMap<u8, u8>,
    /// Next free service address.
    pub next_service: u8,
    /// Kubernetes namespaces that have been written, and whether they are in the mesh.
    pub in_mesh: BTreeMap<String, bool>,
    /// The mesh's settings, if there is one.
    pub mesh: Option<super::mesh::Mesh>,
}

/// A world's name, folder and belongings.
#[derive(Debug)]
pub struct State {
    name: String,
    folder: PathBuf,
    bridges: bool,
    owned: Mutex<Owned>,
    links: AtomicU32,
}

impl State {
    /// Takes a fresh name and makes the folder.
    pub fn create(name: &str, bridges: bool) -> Result<Arc<Self>> {
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            bail!("world name `{name}`: use lower-case letters, digits and `-`");
        }
        let name = leftover::fresh_name(name);
        let folder = leftover::claim(&name)?;
        for part in ["config", "state", "logs", "pids"] {
            fs::create_dir(folder.join(part)).context("cannot make the world's folder")?;
        }
        let state =
            Arc::new(Self { name, folder, bridges, owned: Mutex::default(), links: AtomicU32::new(0) });
        register(&state);
        Ok(state)
    }

    /// Its name on this machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether pods of a node share a bridge.
    pub fn bridges(&self) -> bool {
        self.bridges
    }

    /// Where the controller reads.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// The log of a process.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// The folder of pid records.
    pub fn pids(&self) -> PathBuf {
        self.folder.join("pids")
    }

    /// What it owns.
    pub fn owned(&self) -> MutexGuard<'_, Owned> {
        // A test that panicked while holding it has left nothing half done that teardown minds.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of one of its namespaces.
    pub fn netns_name(&self, name: &str) -> String {
        format!("tl-{}-{name}", self.name)
    }

    /// The file of one of its namespaces.
    pub fn netns_path(&self, name: &str) -> PathBuf {
        net::path_of(&self.netns_name(name))
    }

    /// A link name that no other link of this world has.
    pub fn link_name(&self) -> String {
        format!("v{}", self.links.fetch_add(1, Ordering::Relaxed))
    }

    /// The addresses number `number` of `node`.
    pub fn pod_addresses(node: u8, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(node), 0, 0, 0, u16::from(number));
        (Ipv4Addr::new(10, 244, node, number), v6)
    }

    /// Writes `NAME.yaml` so that the controller sees the whole file or the old one.
    pub fn write_config(&self, name: &str, text: &str) -> Result<()> {
        let name = name.strip_suffix(".yaml").unwrap_or(name);
        let file = self.config().join(format!("{name}.yaml"));
        // Beside the folder, not in it: a source that reads every file must not meet a half-written one.
        let half = self.folder.join(format!("{name}.half"));
        fs::write(&half, text)
            .and_then(|()| fs::rename(&half, &file))
            .with_context(|| format!("{}", file.display()))
    }

    /// Removes `NAME.yaml`.
    pub fn remove_config(&self, name: &str) -> Result<()> {
        let file = self.config().join(format!("{}.yaml", name.strip_suffix(".yaml").unwrap_or(name)));
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }

    /// Writes a Kubernetes namespace with its label.
    pub fn set_namespace(&self, namespace: &str, in_mesh: bool) -> Result<()> {
        self.owned().in_mesh.insert(namespace.to_owned(), in_mesh);
        self.write_config(&format!("namespace-{namespace}"), &manifest::namespace(namespace, in_mesh))
    }

    /// Writes a namespace that nobody has said anything about: it is in the mesh.
    pub fn need_namespace(&self, namespace: &str) -> Result<()> {
        if self.owned().in_mesh.contains_key(namespace) {
            return Ok(());
        }
        self.set_namespace(namespace, true)
    }

    /// The table that the client's names are looked up in.
    pub fn hosts(&self) -> String {
        self.owned().hosts.values().map(Host::entry).collect::<Vec<_>>().join(" ")
    }

    /// The ends of all logs, for people.
    pub fn logs(&self, lines: usize) -> String {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.join("logs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0))
            .collect();
        files.sort();
        let shown =
            files.iter().map(|file| format!("--- {}\n{}\n", file.display(), process::tail(file, lines)));
        shown.collect()
    }

    /// Copies the logs to `target/world-logs`, where they outlive the world.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        let folder = repo::root().join("target/world-logs").join(&self.name);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(self.folder.join("logs"))?.flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(folder)
    }

    /// Removes everything. May be called more than once, and from any thread.
    pub fn teardown(&self) {
        let Owned { mut processes, namespaces, .. } = std::mem::take(&mut *self.owned());
        // Applications first, then agents in order (they unpin), then the controller.
        let order = |name: &str| if name == "controller" { 2 } else { i32::from(name.starts_with("node-")) };
        for stage in 0..=2 {
            processes.iter_mut().filter(|(name, _)| order(name) == stage).for_each(|(_, process)| {
                if stage > 0 {
                    process.terminate();
                }
                process.kill();
            });
        }
        drop(processes);
        drop(namespaces);
        leftover::sweep(&self.name);
    }
}

/// The worlds of this process, for Ctrl-C.
fn worlds() -> &'static Mutex<Vec<Weak<State>>> {
    static WORLDS: OnceLock<Mutex<Vec<Weak<State>>>> = OnceLock::new();
    WORLDS.get_or_init(|| {
        thread::spawn(end_on_signal);
        Mutex::default()
    })
}

fn register(state: &Arc<State>) {
    let mut all = worlds().lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|world| world.strong_count() > 0);
    all.push(Arc::downgrade(state));
}

/// Ctrl-C and its kin: every world goes, then this process.
fn end_on_signal() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else { return };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    ending::begin();
    let all = std::mem::take(&mut *worlds().lock().unwrap_or_else(PoisonError::into_inner));
    for state in all.iter().filter_map(Weak::upgrade) {
        eprintln!("removing world {}", state.name());
        state.teardown();
    }
    std::process::exit(130);
}
