//! Processes and cgroups of worlds: known by pid and start time, or by where they live.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the kernel may take to tear down what was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    started: u64,
}

impl Process {
    /// What a world wrote down: "pid starttime".
    pub fn noted_in(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        Some(Self { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }

    /// The process that has this pid now.
    pub fn running(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        // A zombie holds nothing any more; its parent has to collect it.
        (state != 'Z').then_some(Self { pid, started })
    }

    /// Writes it down, for [`Process::noted_in`].
    pub fn note_in(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.started))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::running(self.pid).as_ref() == Some(self)
    }

    /// Waits until its last thread is gone: only then are its files, ports and locks free, long after the first thread is a zombie.
    pub fn wait_until_gone(&self) -> Result<()> {
        until(|| !self.has_threads()).with_context(|| format!("{self} does not end"))
    }

    fn has_threads(&self) -> bool {
        let same = fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| parse_stat(&stat).is_some_and(|(_, started)| started == self.started));
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        // A zombie's own entry stays until its parent has collected it.
        same && (threads > 1 || self.is_alive())
    }

    /// Kills it and waits until it is gone.
    pub fn end(&self) -> Result<()> {
        if self.pid == i32::try_from(std::process::id())? {
            bail!("that is this process");
        }
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).with_context(|| format!("cannot kill {self}"))?;
        self.wait_until_gone()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        write!(out, "{} {}", self.pid, name.trim())
    }
}

/// State and start time. The second field is a name in brackets that may hold anything, so count from its end.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The processes that live in the network namespace mounted at `path`.
pub fn in_namespace(path: &Path) -> Vec<Process> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(wanted) = identity(path) else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let lives_there = identity(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(wanted);
        if lives_there { Process::running(pid) } else { None }
    });
    processes.collect()
}

/// Where cgroup v2 is mounted, also in the hybrid layout.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Kills what is in the cgroup and removes it, the innermost first.
pub fn remove_cgroup(path: &Path) -> Result<()> {
    // Absent before Linux 5.14, which is below our floor; then rmdir says why it refuses.
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        let entry = entry?.path();
        if entry.is_dir() {
            remove_cgroup(&entry)?;
        }
    }
    // Busy until the last of those killed is gone.
    until(|| fs::remove_dir(path).is_ok()).with_context(|| format!("cannot remove {}", path.display()))
}

fn until(mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            bail!("still there after {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_name() {
        let stat = "7 (a) Z 1 (b) S 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
    }

    #[test]
    fn a_re_used_pid_is_another_process() {
        let me = Process::running(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
    }

    #[test]
    fn a_note_without_a_start_time_names_nobody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1 4242\n").unwrap();
        assert_eq!(Process::noted_in(file.path()), Some(Process { pid: 1, started: 4242 }));
        fs::write(file.path(), "1\n").unwrap();
        assert_eq!(Process::noted_in(file.path()), None);
    }
}
