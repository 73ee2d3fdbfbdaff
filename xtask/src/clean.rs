//! Removes what killed worlds and demos left behind, by the one convention that they all follow.
//!
//! | what | where |
//! |---|---|
//! | who owns a world | `/run/tulle/worlds/<world>/owner.pid`: "pid starttime" |
//! | its processes | `/run/tulle/worlds/<world>/pids/*`: "pid starttime" each |
//! | network namespaces | `/run/netns/tl-<world>-<name>` |
//! | links of the host | `tl-*` |
//! | pins | `/sys/fs/bpf/tulle/tl-<world>-*` |
//! | cgroups | `<root of cgroup v2>/tulle/tl-<world>` |
//! | the test cluster | by its own rules: `crate::cluster` |
//!
//! Invariants: a world whose owner lives, and a cluster that runs, is left alone unless `--all`; a process is killed only if its start time is
//! the one noted, or if it lives inside one of our namespaces or cgroups, so a re-used pid is never hit. The lock of
//! the worlds is held throughout, so none is born half-seen.

pub mod processes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, cluster, step};
use processes::Process;

const WORLDS: &str = "/run/tulle/worlds";
const NAMESPACES: &str = "/run/netns";
const LINKS: &str = "/sys/class/net";
const PINS: &str = "/sys/fs/bpf/tulle";
const PREFIX: &str = "tl-";

/// How much to remove.
#[derive(clap::Args)]
pub struct Options {
    /// Also end and remove worlds and demos whose owner is still alive, and the test cluster if it runs
    #[arg(long)]
    all: bool,
}

/// The verb `clean`.
pub fn run(options: &Options) -> Result<()> {
    let _lock = lock()?;
    let worlds: Vec<PathBuf> = entries(Path::new(WORLDS)).into_iter().filter(|path| path.is_dir()).collect();
    let alive: Vec<String> =
        worlds.iter().filter(|world| !options.all && has_owner(world)).map(|world| name_of(world)).collect();
    let mut broom = Broom { alive, removed: 0, failed: Vec::new() };
    if cluster::runs() && !options.all {
        broom.alive.push(cluster::WORD.to_owned());
    } else if cluster::is_there() {
        broom.note("the test cluster", cluster::remove());
    }
    for world in &worlds {
        if !broom.is_alive(&name_of(world)) {
            broom.end_processes(world);
        }
    }
    broom.namespaces();
    broom.links();
    broom.cgroups();
    broom.folders(Path::new(PINS), |name, broom| broom.is_left_over(name));
    broom.folders(Path::new(WORLDS), |name, broom| !broom.is_alive(name));

    for world in &broom.alive {
        let what = if world == cluster::WORD {
            "the test cluster runs".to_owned()
        } else {
            format!("world {world} has a living owner")
        };
        eprintln!("   {what}: left alone (--all ends it)");
    }
    println!("clean: {} things removed", broom.removed);
    if broom.failed.is_empty() {
        return Ok(());
    }
    let advice = if apt::is_root() { "" } else { "\nit needs root: run it with sudo" };
    bail!("could not remove:\n  {}{advice}", broom.failed.join("\n  "))
}

/// Who makes a world holds this lock between making its folder and naming its owner.
fn lock() -> Result<File> {
    fs::create_dir_all(WORLDS).with_context(|| format!("cannot make {WORLDS} (clean needs root)"))?;
    let file = File::create(Path::new(WORLDS).join(".lock")).context("cannot open the lock of worlds")?;
    file.lock().context("cannot lock the worlds")?;
    Ok(file)
}

fn has_owner(world: &Path) -> bool {
    Process::noted_in(&world.join("owner.pid")).is_some_and(|owner| owner.is_alive())
}

/// Removes, counts, and remembers what it could not remove.
struct Broom {
    /// The worlds to leave alone.
    alive: Vec<String>,
    removed: usize,
    failed: Vec<String>,
}

impl Broom {
    fn is_alive(&self, world: &str) -> bool {
        self.alive.iter().any(|alive| alive == world)
    }

    /// Whether this name carries our prefix and belongs to no living world.
    fn is_left_over(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(PREFIX) else { return false };
        let of = |world: &String| {
            rest.strip_prefix(world.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('-'))
        };
        !self.alive.iter().any(of)
    }

    fn note(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.removed += 1;
                eprintln!("   removed {what}");
            }
            Err(error) => self.failed.push(format!("{what}: {error:#}")),
        }
    }

    fn end_processes(&mut self, world: &Path) {
        let noted = entries(&world.join("pids"));
        let owner = Process::noted_in(&world.join("owner.pid"));
        for process in owner.into_iter().chain(noted.iter().filter_map(|file| Process::noted_in(file))) {
            if process.is_alive() {
                self.note(&format!("process {process}"), process.end());
            }
        }
    }

    /// A namespace goes away with its last process: those inside are ours, whoever started them.
    fn namespaces(&mut self) {
        for path in self.left_over(Path::new(NAMESPACES)) {
            for process in processes::in_namespace(&path) {
                self.note(&format!("process {process}"), process.end());
            }
            let name = name_of(&path);
            let mut command = Command::new("ip");
            command.args(["netns", "delete", &name]);
            self.note(&format!("namespace {name}"), step::output_of(&mut command).map(drop));
        }
    }

    /// Names of links are too short to carry a world's name: they are removed only when no world lives.
    fn links(&mut self) {
        if !self.alive.is_empty() {
            return;
        }
        for path in self.left_over(Path::new(LINKS)) {
            // The other end of a veth pair went with the first one.
            if !path.exists() {
                continue;
            }
            let name = name_of(&path);
            let mut command = Command::new("ip");
            command.args(["link", "delete", &name]);
            self.note(&format!("link {name}"), step::output_of(&mut command).map(drop));
        }
    }

    fn cgroups(&mut self) {
        let Some(root) = processes::cgroup_root() else { return };
        for path in self.left_over(&root.join("tulle")) {
            let result = processes::remove_cgroup(&path);
            self.note(&format!("cgroup {}", path.display()), result);
        }
    }

    fn folders(&mut self, parent: &Path, goes: fn(&str, &Self) -> bool) {
        for path in entries(parent) {
            if path.is_dir() && goes(&name_of(&path), self) {
                let result = fs::remove_dir_all(&path).map_err(Into::into);
                self.note(&path.display().to_string(), result);
            }
        }
    }

    fn left_over(&self, parent: &Path) -> Vec<PathBuf> {
        entries(parent).into_iter().filter(|path| self.is_left_over(&name_of(path))).collect()
    }
}

/// What is in a folder; nothing if there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_of_dead_worlds_are_left_over() {
        let broom = Broom { alive: vec!["drain-7".to_owned()], removed: 0, failed: Vec::new() };
        assert!(broom.is_left_over("tl-drain-8-node"));
        assert!(broom.is_left_over("tl-drain"));
        assert!(broom.is_left_over("tl-drain-77"));
        assert!(!broom.is_left_over("tl-drain-7-node"));
        assert!(!broom.is_left_over("tl-drain-7"));
        assert!(!broom.is_left_over("eth0"));
        assert!(!broom.is_left_over("cni-tl-x"));
    }
}
