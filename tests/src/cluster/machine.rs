//! The parts of the cluster as processes of this machine: to kill, to stop and to start them.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Cluster;
use crate::{process, repo};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The first or the second.
    pub fn of(number: u8) -> Self {
        Self(format!("tl-node-{number}"))
    }

    /// As Kubernetes has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process of the cluster, by the name of its record.
#[derive(Clone, Debug)]
pub enum Part {
    /// The API server.
    ApiServer,
    /// The kubelet of a node.
    Kubelet(u8),
}

impl Part {
    fn record(&self) -> String {
        match self {
            Self::ApiServer => "kube-apiserver".to_owned(),
            Self::Kubelet(number) => format!("{}-kubelet", NodeName::of(*number)),
        }
    }
}

impl Cluster {
    /// Sends a signal to a part. Stopped (SIGSTOP) is as away: nothing is answered, nothing is closed.
    pub fn signal(&self, part: &Part, signal: Signal) -> Result<()> {
        let pid = self.pid(part)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {}", part.record()))
    }

    /// Kills a part: its connections are reset.
    pub fn kill(&self, part: &Part) -> Result<()> {
        self.signal(part, Signal::SIGKILL)
    }

    /// Starts what is not running.
    pub fn repair(&self) -> Result<()> {
        super::kubectl::output(
            Command::new("cargo").current_dir(repo::root()).args(["xtask", "cluster", "up"]),
            "",
        )
        .map(drop)
    }

    fn pid(&self, part: &Part) -> Result<i32> {
        let folder = self.kubeconfig().parent().context("the kubeconfig has no folder")?.join("pids");
        let file = folder.join(part.record());
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut words = text.split_whitespace();
        let pid: u32 = words.next().context("an empty record")?.parse()?;
        let started = words.next().map(str::to_owned);
        anyhow::ensure!(started == process::start_time(pid), "{} is not running", part.record());
        Ok(i32::try_from(pid)?)
    }
}
