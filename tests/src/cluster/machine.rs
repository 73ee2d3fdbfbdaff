//! The parts of the cluster as processes of this machine: to kill, to stop and to start them.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Cluster;
use crate::call::Talk;
use crate::net::in_netns;
use crate::process::{Plan, Process};
use crate::seat::Seat;
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

    /// Stops the agent of a node until the value is dropped: it answers nothing and closes nothing.
    pub fn stop_agent(&self, node: &NodeName) -> Result<StoppedAgent> {
        let name = self.agent(node)?;
        let pod = self.get(&["pod", "-n", super::OWN_NAMESPACE, &name])?;
        let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
        let is_agent = |process: &PathBuf| {
            std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "mesh-node")
        };
        let process = super::pod::processes_of(uid)?.into_iter().find(is_agent).context("no agent runs")?;
        let pid = process.file_name().and_then(|pid| pid.to_str()).context("no PID")?.parse()?;
        let agent = StoppedAgent(Pid::from_raw(pid));
        kill(agent.0, Signal::SIGSTOP).context("cannot stop the agent")?;
        Ok(agent)
    }

    /// Starts what is not running.
    pub fn repair(&self) -> Result<()> {
        super::kubectl::output(
            Command::new("cargo").current_dir(repo::root()).args(["xtask", "cluster", "up"]),
            "",
        )
        .map(drop)
    }

    /// The conflist that the container runtime of a node uses.
    pub fn conflist(&self, node: &NodeName) -> Result<PathBuf> {
        let folder = self.node_root(node)?.join("etc/cni/net.d");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conflist"))
            .collect();
        files.sort();
        files.into_iter().next().with_context(|| format!("no conflist in {}", folder.display()))
    }

    /// Whether our plugin's binary is there.
    pub fn has_plugin(&self, node: &NodeName) -> Result<bool> {
        Ok(self.node_root(node)?.join("opt/cni/bin/tulle-cni").exists())
    }

    /// Whether an agent of this node has pins in the kernel.
    pub fn has_pins(&self, node: &NodeName) -> bool {
        Path::new("/sys/fs/bpf/tulle").join(node.as_str()).exists()
    }

    /// Programs of agents that are attached to the root cgroup, whoever's: by name.
    pub fn attached_programs(&self) -> Result<Vec<String>> {
        let said = super::kubectl::output(
            self.command(repo::binary("mesh-node")?).args(["check", "-o", "json"]),
            "",
        )
        .or_else(|error| if error.to_string().contains('{') { Ok(error.to_string()) } else { Err(error) })?;
        Ok(said.matches("tulle_").map(str::to_owned).collect())
    }

    /// A process in a node's own network that carries any name.
    pub fn impostor(&self, number: u8, name: &str) -> Result<Impostor> {
        Impostor::new(self.node_netns(number)?, name)
    }

    /// Rules on a node with the meaning of a NetworkPolicy: of TCP to this pod only these ports pass. Dropping it removes them.
    pub fn enforce(&self, number: u8, pod: IpAddr, ports: &[u16]) -> Result<Enforced> {
        Enforced::new(self.node_netns(number)?, pod, ports)
    }

    /// A node's own files, as its processes see them.
    fn node_root(&self, node: &NodeName) -> Result<PathBuf> {
        let number =
            node.as_str().rsplit('-').next().and_then(|digit| digit.parse().ok()).context("no number")?;
        Ok(PathBuf::from(format!("/proc/{}/root", self.pid(&Part::Kubelet(number))?)))
    }

    fn node_netns(&self, number: u8) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/ns/net", self.pid(&Part::Kubelet(number))?)))
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

/// An agent that stands still; it goes on when this is dropped.
#[derive(Debug)]
pub struct StoppedAgent(Pid);

impl Drop for StoppedAgent {
    fn drop(&mut self) {
        if let Err(error) = kill(self.0, Signal::SIGCONT) {
            eprintln!("the agent {} does not go on: {error}", self.0);
        }
    }
}

/// A program in a node's own network namespace, under a name of the test's choice.
#[derive(Debug)]
pub struct Impostor {
    netns: PathBuf,
    program: PathBuf,
}

impl Impostor {
    fn new(netns: PathBuf, name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tulle-impostor-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let program = folder.join(name);
        std::fs::copy(repo::binary("mesh-app")?, &program)?;
        Ok(Self { netns, program })
    }

    /// One TCP connection that follows a script of steps.
    pub fn talk(&self, authority: &str, steps: &[&str]) -> Result<Talk> {
        let mut arguments = vec!["talk", authority];
        arguments.extend(steps);
        let seat: &dyn Seat = self;
        seat.client_once(&arguments, Duration::from_secs(30))
    }
}

impl Seat for Impostor {
    fn name(&self) -> &str {
        self.program.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn client(&self, arguments: &[&str]) -> Result<Process> {
        Process::start(&Plan {
            netns: self.netns.clone(),
            program: self.program.clone(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: Vec::new(),
            log: self.program.with_extension("log"),
            piped: true,
        })
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // Another impostor may still be in the folder.
        let _ = std::fs::remove_file(&self.program);
        let _ = std::fs::remove_file(self.program.with_extension("log"));
        if let Some(folder) = self.program.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Rules in a node's packet filter; dropping them removes them.
#[derive(Debug)]
pub struct Enforced {
    netns: PathBuf,
}

/// The table of the rules.
const TABLE: &str = "tulle_test_policy";

impl Enforced {
    fn new(netns: PathBuf, pod: IpAddr, ports: &[u16]) -> Result<Self> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        // Forwarded only: what the node itself sends, a probe for one, no engine filters.
        let rules = format!(
            "table inet {TABLE} {{\n chain forward {{\n type filter hook forward priority 0\n \
             ct state established,related accept\n \
             ip daddr {pod} tcp dport != {{ {} }} reject with tcp reset\n }}\n}}\n",
            ports.join(", ")
        );
        nft(&netns, &rules)?;
        Ok(Self { netns })
    }
}

fn nft(netns: &Path, rules: &str) -> Result<()> {
    in_netns(netns, || super::kubectl::output(Command::new("nft").args(["-f", "-"]), rules).map(drop))?
}

impl Drop for Enforced {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.netns, &format!("delete table inet {TABLE}\n")) {
            eprintln!("the rules of the test stay: {error:#}");
        }
    }
}
