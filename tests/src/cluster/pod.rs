//! A real pod, and calls made from inside of it.
//!
//! Clients are started in the pod's network namespace by its processes on this machine, as a debug container would be: so a load goes
//! on while the API server is away, and its count is kept by the test.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Cluster;
use crate::call::{Answer, Call, Hold, Load, Talk};
use crate::process::{Plan, Process};
use crate::repo;
use crate::seat::Seat;

/// Where clients in pods write their stderr.
const LOG: &str = "target/cluster-logs/clients.log";

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct ClusterPod {
    cluster: Cluster,
    namespace: String,
    name: String,
    uid: String,
    account: String,
    node: String,
    ip: IpAddr,
    netns: PathBuf,
}

impl ClusterPod {
    pub(super) fn of(cluster: &Cluster, pod: &Value) -> Result<Self> {
        let text = |pointer: &str| -> Result<String> {
            let value = pod.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| format!("the pod has no {pointer}"))
        };
        let uid = text("/metadata/uid")?;
        Ok(Self {
            cluster: cluster.clone(),
            namespace: text("/metadata/namespace")?,
            name: text("/metadata/name")?,
            account: text("/spec/serviceAccountName")?,
            node: text("/spec/nodeName")?,
            ip: text("/status/podIP")?.parse()?,
            netns: netns_of(&uid)?,
            uid,
        })
    }

    /// The pod's own name.
    pub fn pod_name(&self) -> &str {
        &self.name
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The node it runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its network namespace, as a file.
    pub fn netns(&self) -> &std::path::Path {
        &self.netns
    }

    /// `cluster.local/ns/NAMESPACE/sa/ACCOUNT`, as policies name it.
    pub fn principal(&self) -> String {
        format!("cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }

    /// `10.245.1.2:80`.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.ip)
    }

    /// One GET on a new connection.
    pub fn get(&self, url: &str) -> Result<Answer> {
        self.call(url).send()
    }

    /// An HTTP call to be shaped further.
    pub fn call(&self, url: &str) -> Call {
        Call::new(self.seat(), url)
    }

    /// HTTP load in the background.
    pub fn load(&self, url: &str) -> Load {
        Load::new(self.seat(), url)
    }

    /// One TCP connection that follows a script of steps.
    pub fn talk(&self, authority: &str, steps: &[&str]) -> Result<Talk> {
        let mut arguments = vec!["talk", authority];
        arguments.extend(steps);
        self.seat().client_once(&arguments, Duration::from_secs(60))
    }

    /// A TCP connection kept busy in the background.
    pub fn hold(&self, authority: &str) -> Result<Hold> {
        Hold::start(self, authority)
    }

    /// Runs a command in its container, by the kubelet.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["-n", &self.namespace, "exec", &self.name, "--"];
        arguments.extend(command);
        self.cluster.kubectl(&arguments)
    }

    /// How often its containers were restarted.
    pub fn restarts(&self) -> Result<u64> {
        let pod = self.cluster.get(&["pod", "-n", &self.namespace, &self.name])?;
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        Ok(statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum())
    }

    fn seat(&self) -> Arc<dyn Seat> {
        Arc::new(self.clone())
    }
}

impl Seat for ClusterPod {
    fn name(&self) -> &str {
        &self.name
    }

    fn client(&self, arguments: &[&str]) -> Result<Process> {
        let log = repo::root().join(LOG);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let hosts = self.cluster.hosts(&self.namespace);
        Process::start(&Plan {
            netns: self.netns.clone(),
            program: repo::binary("mesh-app")?,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: vec![("TULLE_HOSTS".to_owned(), hosts)],
            log,
            piped: true,
        })
    }
}

/// The network namespace of any process in the pod's cgroup.
fn netns_of(uid: &str) -> Result<PathBuf> {
    let mut namespaces = processes_of(uid)?.into_iter().map(|process| process.join("ns/net"));
    namespaces
        .find(|netns| netns.exists())
        .with_context(|| format!("no process of pod {uid} is on this machine"))
}

/// The processes in the pod's cgroup, as folders of /proc.
pub(super) fn processes_of(uid: &str) -> Result<Vec<PathBuf>> {
    let (plain, escaped) = (format!("pod{uid}"), format!("pod{}", uid.replace('-', "_")));
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let cgroups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroups.contains(&plain) || cgroups.contains(&escaped) {
            processes.push(entry.path());
        }
    }
    Ok(processes)
}
