//! Pods: a namespace, an address, an identity, an application.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::service::Host;
use super::state::State;
use super::topology::{self, Wiring};
use super::{manifest, mesh};
use crate::call::{Answer, Call, Hold, Load, Talk};
use crate::cgroup::Cgroup;
use crate::net::{Netns, in_netns};
use crate::process::{Plan, Process};
use crate::repo;
use crate::seat::Seat;

/// How long an application may take to listen.
const START: Duration = Duration::from_secs(10);

/// A pod to be.
#[derive(Debug)]
pub struct PodBuilder {
    state: Arc<State>,
    name: String,
    namespace: String,
    account: Option<String>,
    node: u8,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
    address: Option<(Ipv4Addr, Option<Ipv6Addr>)>,
    v4_only: bool,
    written: bool,
    uid: Option<String>,
    probed: Option<u16>,
}

impl PodBuilder {
    pub(super) fn new(state: Arc<State>, name: &str) -> Self {
        let labels =
            [("app", name), ("version", "v1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            state,
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            account: None,
            node: 1,
            labels: labels.into(),
            annotations: BTreeMap::new(),
            environment: Vec::new(),
            address: None,
            v4_only: false,
            written: true,
            uid: None,
            probed: None,
        }
    }

    /// Its node, from 1.
    pub fn node(mut self, number: u8) -> Self {
        self.node = number;
        self
    }

    /// Its namespace; `shop` unless told.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    /// Its service account; its own name unless told.
    pub fn service_account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// A label; it has `app: NAME` and `version: v1`.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The application's version, and the label of that name.
    pub fn version(self, version: &str) -> Self {
        self.label("version", version).env("SHOP_VERSION", version)
    }

    /// Stays out of a mesh that its namespace is in.
    pub fn opt_out(self) -> Self {
        self.label("tulle.dev/mesh", "disabled")
    }

    /// Something for the application's environment (`mesh-app serve --help` lists what it knows).
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// These addresses, instead of the next free ones.
    pub fn address(mut self, ip4: Ipv4Addr, ip6: Option<Ipv6Addr>) -> Self {
        self.address = Some((ip4, ip6));
        self
    }

    /// No IPv6 in this pod.
    pub fn v4_only(mut self) -> Self {
        self.v4_only = true;
        self
    }

    /// No path leads to it, as in Kubernetes: its processes are in a cgroup with this UID (a UUID).
    pub fn located(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }

    /// It has a liveness probe, of this port.
    pub fn probed(mut self, port: u16) -> Self {
        self.probed = Some(port);
        self
    }

    /// The Pod object is in the configuration already; only make it real.
    pub fn declared_elsewhere(mut self) -> Self {
        self.written = false;
        self
    }

    /// Makes it real: namespace, link, application that listens; then writes its Pod and ServiceAccount.
    pub fn spawn(self) -> Result<Pod> {
        let (ip4, ip6) = match self.address {
            Some((ip4, ip6)) => (ip4, ip6.filter(|_| !self.v4_only)),
            None => {
                let mut owned = self.state.owned();
                let number = owned.next_pod.entry(self.node).or_insert(1);
                *number = number.checked_add(1).context("the node has no more addresses")?;
                let (ip4, ip6) = State::pod_addresses(self.node, *number);
                (ip4, Some(ip6).filter(|_| !self.v4_only))
            }
        };
        let account = self.account.clone().unwrap_or_else(|| self.name.clone());
        let link = self.state.link_name();
        let netns = Netns::create(&self.state.netns_name(&self.name))?;
        self.wire(&netns, &link, ip4, ip6)?;
        self.state.owned().namespaces.insert(self.name.clone(), netns);
        let cgroup = self.uid.as_deref().map(|uid| Cgroup::of_pod(self.state.name(), uid)).transpose()?;
        let pod = Pod {
            state: self.state.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            account,
            node: self.node,
            ip4,
            ip6,
            link,
            environment: self.environment.clone(),
            uid: self.uid.clone(),
            cgroup: cgroup.map(Arc::new),
            probed: self.probed,
        };
        let addresses = [Some(IpAddr::V4(ip4)), ip6.map(IpAddr::V6)].into_iter().flatten().collect();
        let host = Host { name: format!("{}.pod", self.name), addresses };
        self.state.owned().hosts.insert(host.name.clone(), host);
        pod.start_application()?;
        self.state.owned().pods.insert(self.name.clone(), pod.clone());
        if self.written {
            self.state.need_namespace(&self.namespace)?;
            pod.write(&self.labels, &self.annotations)?;
        }
        Ok(pod)
    }

    fn wire(&self, netns: &Netns, link: &str, ip4: Ipv4Addr, ip6: Option<Ipv6Addr>) -> Result<()> {
        let owned = self.state.owned();
        let node =
            owned.namespaces.get(&format!("node-{}", self.node)).context("the world has no such node")?;
        let wiring = Wiring { pod: netns, node, link, ip4, ip6 };
        if self.state.bridges() {
            topology::bridge_pod(&wiring, self.node)
        } else {
            topology::route_pod(&wiring)
        }
    }
}

/// A running pod. It belongs to its world: dropping this does nothing to it.
#[derive(Debug, Clone)]
pub struct Pod {
    state: Arc<State>,
    name: String,
    namespace: String,
    account: String,
    node: u8,
    ip4: Ipv4Addr,
    ip6: Option<Ipv6Addr>,
    link: String,
    environment: Vec<(String, String)>,
    /// Its UID, if its processes lead to it and no path does.
    uid: Option<String>,
    cgroup: Option<Arc<Cgroup>>,
    probed: Option<u16>,
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn ip4(&self) -> Ipv4Addr {
        self.ip4
    }

    /// Its IPv6 address, if it has one.
    pub fn ip6(&self) -> Option<Ipv6Addr> {
        self.ip6
    }

    /// `10.244.1.2:80`.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.ip4)
    }

    /// `[fd00:10:244:1::2]:80`.
    pub fn at6(&self, port: u16) -> String {
        self.ip6.map_or_else(String::new, |ip6| format!("[{ip6}]:{port}"))
    }

    /// The node's number.
    pub fn node(&self) -> u8 {
        self.node
    }

    /// `spiffe://cluster.local/ns/shop/sa/a`.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }

    /// `cluster.local/ns/shop/sa/a`, as policies name it.
    pub fn principal(&self) -> String {
        format!("cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }

    /// The file of its network namespace.
    pub fn netns(&self) -> PathBuf {
        self.state.netns_path(&self.name)
    }

    /// One GET on a new connection.
    pub fn get(&self, url: &str) -> Result<Answer> {
        self.call(url).send()
    }

    /// An HTTP call to be shaped further.
    pub fn call(&self, url: &str) -> Call {
        Call::new(self.seat(), url)
    }

    /// One TCP connection that follows a script of steps (`mesh-app talk`).
    pub fn talk(&self, authority: &str, steps: &[&str]) -> Result<Talk> {
        let mut arguments = vec!["talk", authority];
        arguments.extend(steps);
        self.seat().client_once(&arguments, Duration::from_secs(60))
    }

    /// As `talk`, with options of the client before the script.
    pub fn talk_with(&self, options: &[&str], authority: &str, steps: &[&str]) -> Result<Talk> {
        let mut arguments = vec!["talk"];
        arguments.extend(options);
        arguments.push(authority);
        arguments.extend(steps);
        self.seat().client_once(&arguments, Duration::from_secs(60))
    }

    /// `bytes` of a known stream, fetched from the source port or sent to the sum port of `host`; fails unless whole.
    pub fn stream(&self, authority: &str, bytes: u64, upload: bool) -> Result<f64> {
        let bytes = bytes.to_string();
        let mut arguments = vec!["stream", authority, "--bytes", &bytes];
        if upload {
            arguments.push("--upload");
        }
        let end: serde_json::Value = self.seat().client_once(&arguments, Duration::from_secs(300))?;
        if end["whole"] != true {
            bail!("the stream to {authority} is not whole: {end}");
        }
        end["gbit"].as_f64().context("no rate in the answer")
    }

    /// HTTP load in the background.
    pub fn load(&self, url: &str) -> Load {
        Load::new(self.seat(), url)
    }

    /// A TCP connection kept busy in the background; returns when its first echo came back.
    pub fn hold(&self, authority: &str) -> Result<Hold> {
        Hold::start(self, authority)
    }

    /// Kills the application; the pod stays, and nobody listens in it.
    pub fn kill_application(&self) {
        let process = self.state.owned().processes.remove(&self.name);
        drop(process);
        // A pod whose last process ended counts as gone; the pause container of a real one stays.
        let paused = self.plan(&["serve", "--mode", "client"], false).and_then(|plan| self.start(&plan));
        if let Ok(process) = paused {
            self.state.owned().processes.insert(self.name.clone(), process);
        }
    }

    /// Starts the application again.
    pub fn restart_application(&self) -> Result<()> {
        drop(self.state.owned().processes.remove(&self.name));
        self.start_application()
    }

    /// Removes the pod as a kubelet does: object, processes, namespace.
    pub fn remove(&self) -> Result<()> {
        self.remove_object()?;
        self.remove_sandbox();
        Ok(())
    }

    /// Removes the Pod object alone.
    pub fn remove_object(&self) -> Result<()> {
        self.state.remove_config(&manifest::file_name("Pod", &self.namespace, &self.name))
    }

    /// Removes processes and namespace alone: the object says that the pod still runs.
    pub fn remove_sandbox(&self) {
        let (process, netns) = {
            let mut owned = self.state.owned();
            owned.hosts.remove(&format!("{}.pod", self.name));
            owned.pods.remove(&self.name);
            (owned.processes.remove(&self.name), owned.namespaces.remove(&self.name))
        };
        drop(process);
        drop(netns);
    }

    /// Whether the host side of its link is still there.
    pub fn has_link(&self) -> Result<bool> {
        topology::has_link(&self.state.netns_path(&format!("node-{}", self.node)), &self.link)
    }

    /// Runs `ip` lines inside.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let owned = self.state.owned();
        owned.namespaces.get(&self.name).context("the pod is gone")?.ip(lines)
    }

    /// Writes a value below `/proc/sys/net` of the pod.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let owned = self.state.owned();
        owned.namespaces.get(&self.name).context("the pod is gone")?.sysctl(&[(key, value)])
    }

    /// Runs `work` in the pod's network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_netns(&self.netns(), work)
    }

    /// Writes (again) its Pod and ServiceAccount.
    pub fn write(
        &self,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<()> {
        let addresses: Vec<_> = [Some(self.ip4.to_string()), self.ip6.map(|ip| ip.to_string())]
            .into_iter()
            .flatten()
            .map(|ip| json!({ "ip": ip }))
            .collect();
        let mut annotations = annotations.clone();
        if self.uid.is_none() {
            annotations.insert("tulle.dev/netns".to_owned(), self.netns().display().to_string());
        }
        // A pod that is made again under the same name is another one.
        let uid = || format!("{}-{}-{}", self.namespace, self.name, self.link);
        let mut container = json!({ "name": "app", "image": "mesh-app" });
        if let Some(port) = self.probed {
            container["livenessProbe"] = json!({ "httpGet": { "port": port, "path": "/" } });
        }
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": self.account, "namespace": self.namespace },
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "namespace": self.namespace,
                "uid": self.uid.clone().unwrap_or_else(uid),
                "labels": labels, "annotations": annotations,
            },
            "spec": {
                "nodeName": format!("node-{}", self.node),
                "serviceAccountName": self.account,
                "containers": [container],
            },
            "status": { "phase": "Running", "podIP": self.ip4, "podIPs": addresses },
        });
        // An account may have many pods: its file is its own, and writing it again changes nothing.
        self.state.write_config(&manifest::file_of(&account)?, &manifest::render(&[account]))?;
        self.state.write_config(&manifest::file_of(&pod)?, &manifest::render(&[pod]))
    }

    fn seat(&self) -> Arc<dyn Seat> {
        Arc::new(self.clone())
    }

    /// Metrics of the agent of this pod's node.
    pub fn node_metrics(&self) -> Result<crate::Metrics> {
        mesh::metrics(&self.state, self.node)
    }

    fn start_application(&self) -> Result<()> {
        let mut process = self.start(&self.plan(&["serve"], true)?)?;
        let stdout = process.take_stdout().context("no stdout")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the first line nobody listens; the pipe is drained all the same.
                let _ = sender.send(line);
            }
        });
        if receiver.recv_timeout(START).ok().as_deref() != Some("ready") {
            bail!("the application of {} does not start: {}", self.name, self.log());
        }
        self.state.owned().processes.insert(self.name.clone(), process);
        Ok(())
    }

    /// Starts a process of the pod.
    fn start(&self, plan: &Plan) -> Result<Process> {
        let process = Process::start(plan)?.recorded_in(&self.state.pids())?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.add(process.pid())?;
        }
        Ok(process)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.state.log_file(&self.name)).unwrap_or_default()
    }

    fn plan(&self, arguments: &[&str], piped: bool) -> Result<Plan> {
        let mut environment = vec![
            ("TULLE_HOSTS".to_owned(), self.state.hosts()),
            ("POD_NAME".to_owned(), self.name.clone()),
            ("NODE_NAME".to_owned(), format!("node-{}", self.node)),
        ];
        environment.extend(self.environment.iter().cloned());
        Ok(Plan {
            netns: self.netns(),
            program: repo::binary("mesh-app")?,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment,
            log: self.state.log_file(&self.name),
            piped,
        })
    }
}

impl Seat for Pod {
    fn name(&self) -> &str {
        &self.name
    }

    fn client(&self, arguments: &[&str]) -> Result<Process> {
        self.start(&self.plan(arguments, true)?)
    }
}
