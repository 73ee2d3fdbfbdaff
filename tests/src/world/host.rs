//! Processes of a node that are in no pod: a kubelet, or somebody who would like to be one.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::World;
use super::mesh::ask;
use super::state::State;
use crate::cgroup::Cgroup;
use crate::check::eventually;
use crate::process::{Plan, Process};
use crate::repo;

/// How long one may take to listen.
const START: Duration = Duration::from_secs(10);

/// A process that listens on a port of its node, and probes `host:port`s whenever it is asked to. Dropping it kills it.
#[derive(Debug)]
pub struct HostProcess {
    state: Arc<State>,
    process: Process,
    netns: String,
    port: u16,
    /// Outlives what is in it.
    cgroup: Option<Cgroup>,
}

impl World {
    /// Starts a process called `name` on a node, which listens on `port` and probes these.
    pub fn host_process(
        &self,
        node: u8,
        name: &str,
        port: u16,
        probes: &[(&str, String)],
    ) -> Result<HostProcess> {
        let mut environment = vec![
            ("SHOP_MODE".to_owned(), "http".to_owned()),
            ("SHOP_PORT".to_owned(), port.to_string()),
            ("SHOP_CALLS".to_owned(), probes.iter().map(|(probe, _)| *probe).collect::<Vec<_>>().join(",")),
        ];
        for (probe, authority) in probes {
            let (host, port) = authority.rsplit_once(':').context("no port to probe")?;
            let probe = probe.to_ascii_uppercase();
            environment.push((format!("{probe}_SERVICE_HOST"), host.trim_matches(['[', ']']).to_owned()));
            environment.push((format!("{probe}_SERVICE_PORT"), port.to_owned()));
        }
        let netns = format!("node-{node}");
        let process = Process::start(&Plan {
            netns: self.state.netns_path(&netns),
            program: self.program(name)?,
            arguments: vec!["serve".to_owned()],
            environment,
            log: self.state.log_file(name),
            piped: false,
        })?
        .recorded_in(&self.state.pids())?;
        let host = HostProcess { state: self.state.clone(), process, netns, port, cgroup: None };
        eventually("the start of a process of the node", START, || host.probe().ok())?;
        Ok(host)
    }

    /// The application under another name: what a process is called by default is the name of its file.
    fn program(&self, name: &str) -> Result<PathBuf> {
        let file = self.state.folder().join(name);
        if !file.exists() {
            fs::copy(repo::binary("mesh-app")?, &file).with_context(|| format!("{}", file.display()))?;
        }
        Ok(file)
    }
}

impl HostProcess {
    /// Probes everything once: for each probe what it was answered, or an `error`.
    pub fn probe(&self) -> Result<Value> {
        let answer = ask(&self.state, &self.netns, &format!("http://127.0.0.1:{}/", self.port))?;
        answer.get("body").cloned().with_context(|| format!("no answer from port {}: {answer}", self.port))
    }

    /// Puts it into the cgroup of a pod.
    pub fn enter_pod(&mut self, uid: &str) -> Result<()> {
        let cgroup = Cgroup::of_pod(self.state.name(), uid)?;
        cgroup.add(self.process.pid())?;
        self.cgroup = Some(cgroup);
        Ok(())
    }
}
