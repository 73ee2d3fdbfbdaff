//! What a demo had on the machine, and whether any of it is still there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::World;
use crate::process::start_time;

const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf/tulle";
const LINKS: &str = "/sys/class/net";
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/tulle", "/sys/fs/cgroup/unified/tulle"];

/// Names of everything that the world made.
#[derive(Debug)]
pub struct Belongings {
    folder: PathBuf,
    prefix: String,
    /// Process id and start time.
    processes: Vec<(u32, String)>,
    namespaces: usize,
    pins: usize,
}

impl Belongings {
    /// Notes what there is now.
    pub fn of(world: &World) -> Self {
        let prefix = format!("tl-{}", world.name());
        let records = names(&world.folder().join("pids"));
        let processes = records
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter_map(|pid| Some((pid, start_time(pid)?)))
            .collect();
        Self {
            folder: world.folder(),
            processes,
            namespaces: with_prefix(NAMESPACES, &prefix).len(),
            pins: with_prefix(PINS, &prefix).len(),
            prefix,
        }
    }

    /// Fails with the list of what is still there; else says what went.
    pub fn assert_gone(&self) -> Result<String> {
        let alive = |(pid, started): &&(u32, String)| start_time(*pid).as_ref() == Some(started);
        let mut left: Vec<String> =
            self.processes.iter().filter(alive).map(|(pid, _)| format!("process {pid}")).collect();
        for place in [NAMESPACES, PINS, LINKS].into_iter().chain(CGROUPS) {
            left.extend(with_prefix(place, &self.prefix));
        }
        left.extend(self.folder.exists().then(|| self.folder.display().to_string()));
        if !left.is_empty() {
            bail!("still there: {}", left.join(", "));
        }
        Ok(format!(
            "removed: {} processes, {} namespaces with their links, the pins of {} agents, the folder; nothing is left",
            self.processes.len(),
            self.namespaces,
            self.pins
        ))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn with_prefix(folder: &str, prefix: &str) -> Vec<String> {
    let belongs = |name: &String| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    names(Path::new(folder)).into_iter().filter(belongs).map(|name| format!("{folder}/{name}")).collect()
}
