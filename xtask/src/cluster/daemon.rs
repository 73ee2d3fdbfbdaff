//! A component of the cluster: a process that outlives xtask and is found again.
//!
//! Its pid file names pid and start time, so that a pid that was given to somebody else is never taken for it. It is in a session of
//! its own (the terminal's signals do not reach it) and in a cgroup of the cluster (so that `down` finds it without its pid file).

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cgroup;
use super::layout::{self, Node};
use crate::clean::processes::Process;
use crate::repo::Repo;
use crate::step::Wait;

/// How much of its log is shown when a component ended.
const LAST_LINES: usize = 15;
/// How often [`Daemon::keep`] starts it again.
const RESTARTS: u8 = 3;
/// Debian's iptables, runc and plugins are in folders that are not on everybody's PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is started, and where.
pub struct Daemon {
    /// Unique in the cluster: `etcd`, `tl-node-1-kubelet`.
    pub name: String,
    /// The node whose namespaces it lives in; the control plane lives in the machine's.
    pub node: Option<Node>,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it writes to stdout and stderr.
    pub log: PathBuf,
    restarts: Cell<u8>,
}

impl Daemon {
    /// A component called by its program's name, on a node or in the control plane.
    pub fn new(repo: &Repo, program: PathBuf, node: Option<Node>) -> Self {
        let program_name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = match node {
            Some(node) => format!("{}-{program_name}", node.name()),
            None => program_name,
        };
        let log = logs(repo).join(format!("{name}.log"));
        Self { name, node, program, arguments: Vec::new(), log, restarts: Cell::new(0) }
    }

    /// Adds arguments of the form `--name=value`.
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        self.arguments.extend(flags.into_iter().map(|(name, value)| format!("--{name}={value}").into()));
        self
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<Process> {
        Process::noted_in(&self.pid_file()).filter(Process::is_alive)
    }

    /// Starts it, unless it runs. Returns whether it was started.
    pub fn ensure(&self) -> Result<bool> {
        if let Some(noted) = Process::noted_in(&self.pid_file()) {
            if noted.is_alive() {
                return Ok(false);
            }
            // Its ports are free when the last thread of a predecessor that was killed is gone.
            noted.wait_until_gone()?;
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).env("PATH", PATH);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        let pid = i32::try_from(child.id())?;
        let cgroup = self.node.map_or_else(|| layout::CONTROL_CGROUP.to_owned(), Node::system_cgroup);
        cgroup::enter(&cgroup, pid)?;
        let process = Process::running(pid).with_context(|| format!("{} ended at once", self.name))?;
        process.note_in(&self.pid_file())?;
        Ok(true)
    }

    /// `setsid` and `nsenter` become the program, so that the child's pid is the program's.
    fn command(&self) -> Command {
        let mut command = Command::new("setsid");
        if let Some(node) = self.node {
            command.arg("nsenter");
            command.arg(option("--net=", node.network_namespace()));
            command.arg(option("--mount=", node.mount_namespace()));
            command.arg("--");
        }
        command.arg(&self.program).args(&self.arguments);
        command
    }

    /// Starts it again if it has ended, but not for ever: one that was killed a moment ago may have looked alive when it was first asked
    /// for. Fails with the end of its log.
    pub fn keep(&self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        if self.restarts.get() < RESTARTS {
            self.restarts.set(self.restarts.get() + 1);
            return self.ensure().map(drop);
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{} ended; the end of {}:\n{last}", self.name, self.log.display())
    }

    /// For [`crate::step::wait`]: done when `ready`, an error when it does not stay alive.
    pub fn until(&self, ready: impl FnOnce() -> Result<(), String>) -> Result<Wait> {
        self.keep()?;
        Ok(ready().map_or_else(Wait::For, |()| Wait::Done))
    }

    fn pid_file(&self) -> PathBuf {
        layout::pids().join(&self.name)
    }
}

/// Where the logs of all components are.
pub fn logs(repo: &Repo) -> PathBuf {
    repo.path("target/cluster-logs")
}

/// `--name=path` without a detour through text.
fn option(name: &str, path: PathBuf) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}
