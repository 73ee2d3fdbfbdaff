//! Ends the cluster and removes everything it made, whatever of it is still whole.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::{self, NODES};
use super::{cgroup, lock, sandbox};
use crate::clean::processes::{self, Process};
use crate::step;

/// Where the mesh's node agents pin what must outlive them, a folder each by the name of the node.
const PINS: &str = "/sys/fs/bpf/tulle";

/// Whether a cluster runs: its API server does.
pub fn runs() -> bool {
    Process::noted_in(&layout::pids().join("kube-apiserver")).is_some_and(|process| process.is_alive())
}

/// Whether anything of a cluster is there.
pub fn is_there() -> bool {
    let paths = [layout::RUN, layout::DATA].map(Path::new);
    let links = NODES.map(|node| Path::new("/sys/class/net").join(node.link()));
    paths.iter().any(|path| path.exists()) || links.iter().any(|path| path.exists())
}

/// The verb `cluster down`.
pub fn remove() -> Result<()> {
    let _lock = lock()?;
    if !is_there() {
        println!("cluster: there is none");
        return Ok(());
    }
    step::work("end the cluster", || {
        end_processes()?;
        for node in NODES {
            sandbox::remove(node)?;
        }
        sandbox::remove_shared()?;
        for node in NODES {
            remove_folder(&Path::new(PINS).join(node.name()))?;
        }
        remove_folder(Path::new(layout::RUN))?;
        remove_folder(Path::new(layout::DATA))
    })?;
    println!("cluster: removed");
    Ok(())
}

/// By pid file, by network namespace and by cgroup. The nodes first: their kubelets would start again what is killed.
fn end_processes() -> Result<()> {
    let mut noted: Vec<_> = fs::read_dir(layout::pids())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let rank = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let order = ["-kubelet", "-containerd", "-kube-proxy", "kube-", "etcd"];
        order.iter().position(|part| name.contains(part))
    };
    noted.sort_by_key(|path| rank(path));
    for process in noted.iter().filter_map(|file| Process::noted_in(file)).filter(Process::is_alive) {
        end(&process)?;
    }
    for node in NODES {
        // Containers and their shims: one write kills a tree of cgroup v2.
        cgroup::remove(&node.cgroup())?;
        for process in processes::in_namespace(&node.network_namespace()) {
            end(&process)?;
        }
    }
    cgroup::remove(layout::CONTROL_CGROUP).map(drop)
}

/// One that ends by itself meanwhile is as good as ended.
fn end(process: &Process) -> Result<()> {
    match process.end() {
        Err(error) if process.is_alive() => Err(error),
        _ => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}
