//! Folders of worlds: taking one, and removing those whose owner is dead.
//!
//! Invariant: under the lock, a folder with an `owner.pid` that names a live process (pid *and* start time) is never
//! touched; everything else that carries its name goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup;
use crate::check::eventually;
use crate::net;
use crate::process::start_time;

const WORLDS: &str = "/run/tulle/worlds";
const PINS: &str = "/sys/fs/bpf/tulle";

/// `name` with an ending that no world of this machine has had.
pub fn fresh_name(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}{:03x}", std::process::id(), (nanos >> 8).wrapping_add(number) & 0xfff)
}

/// Makes the folder of a world and says whose it is.
pub fn claim(name: &str) -> Result<PathBuf> {
    let folder = Path::new(WORLDS).join(name);
    let _lock = lock()?;
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pid = std::process::id();
    fs::write(folder.join("owner.pid"), format!("{pid} {}\n", start_time(pid).unwrap_or_default()))?;
    Ok(folder)
}

/// Removes the worlds of dead owners. Best effort: what cannot go now, the next start tries again.
pub fn remove() {
    let Ok(_lock) = lock() else { return };
    for entry in fs::read_dir(WORLDS).into_iter().flatten().flatten() {
        let folder = entry.path();
        let Ok(name) = entry.file_name().into_string() else { continue };
        if folder.is_dir() && !alive(&folder.join("owner.pid")) {
            sweep(&name);
        }
    }
}

/// Removes everything that carries the name of a world: processes, namespaces, pins, folder.
pub fn sweep(name: &str) {
    let folder = Path::new(WORLDS).join(name);
    for record in fs::read_dir(folder.join("pids")).into_iter().flatten().flatten() {
        end(&record.path());
    }
    cgroup::sweep(name);
    for netns in net::names_with(&format!("tl-{name}-")) {
        net::delete(&netns);
    }
    for pins in fs::read_dir(PINS).into_iter().flatten().flatten() {
        if pins.file_name().to_string_lossy().starts_with(&format!("tl-{name}-")) {
            remove_pins(&pins.path());
        }
    }
    let _ = fs::remove_dir_all(folder);
}

/// Everything on this machine that carries the name of a world: namespaces, pins, its folder.
pub fn traces(name: &str) -> Vec<String> {
    let prefix = format!("tl-{name}-");
    let pins = fs::read_dir(PINS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let folder = Path::new(WORLDS).join(name);
    let mut found = net::names_with(&prefix);
    found.extend(pins.filter(|pins| pins.starts_with(&prefix)).map(|pins| format!("{PINS}/{pins}")));
    found.extend(folder.exists().then(|| folder.display().to_string()));
    found
}

/// bpffs has no recursive removal that std knows: entries first.
fn remove_pins(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { remove_pins(&entry.path()) } else { drop(fs::remove_file(entry.path())) }
    }
    let _ = fs::remove_dir(folder);
}

/// Kills the process of a record, if it still is that one.
fn end(record: &Path) {
    let Some(pid) = running(record) else { return };
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    let _ = eventually("the end of a killed process", Duration::from_secs(2), || {
        running(record).is_none().then_some(())
    });
}

fn alive(record: &Path) -> bool {
    running(record).is_some()
}

/// The pid of a `PID STARTTIME` record whose process lives (and is no zombie).
fn running(record: &Path) -> Option<u32> {
    let text = fs::read_to_string(record).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    (!zombie && start_time(pid).as_deref() == Some(started)).then_some(pid)
}

fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(WORLDS).with_context(|| format!("cannot make {WORLDS}"))?;
    let file = File::create(Path::new(WORLDS).join(".lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("cannot lock the worlds")
}
