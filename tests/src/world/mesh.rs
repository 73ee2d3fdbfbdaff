//! The mesh's own processes: one controller in the fabric, one agent per node, and `meshctl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mesh_proto::v1;
use mesh_proto::v1::inspect_client::InspectClient;
use serde_json::Value;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::World;
use super::state::State;
use super::topology::{FABRIC, node_address};
use crate::check::eventually;
use crate::metrics::Metrics;
use crate::net::in_netns;
use crate::process::{Plan, Process, tail};
use crate::repo;

const CONTROL_PORT: u16 = 15012;
const INSPECT_PORT: u16 = 15021;
const CONTROLLER_METRICS: &str = "127.0.0.1:15014";
const NODE_METRICS: &str = "127.0.0.1:15020";

/// How long processes may take to be of use.
const START: Duration = Duration::from_secs(20);

/// How long a configuration may take to be everywhere.
const SETTLE: Duration = Duration::from_secs(20);

/// The name in the controller's certificate; clients connect by IP.
const CONTROLLER_NAME: &str = "mesh-controller";

/// What a settled controller said.
pub type Settled = v1::SettleReply;

/// Settings of the mesh's processes.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    agent: Vec<String>,
    controller: Vec<String>,
    absent: Vec<u8>,
}

impl Mesh {
    /// An argument for every agent.
    pub fn agent(mut self, argument: &str) -> Self {
        self.agent.push(argument.to_owned());
        self
    }

    /// An argument for the controller.
    pub fn controller(mut self, argument: &str) -> Self {
        self.controller.push(argument.to_owned());
        self
    }

    /// No agent on this node: the test plays its part.
    pub fn without_agent(mut self, node: u8) -> Self {
        self.absent.push(node);
        self
    }

    pub(super) fn start(self, state: &State) -> Result<()> {
        let absent = self.absent.clone();
        state.owned().mesh = Some(self);
        start_controller(state)?;
        let mut nodes: Vec<u8> = node_numbers(state);
        nodes.retain(|number| !absent.contains(number));
        for number in &nodes {
            start_agent(state, *number)?;
        }
        nodes.into_iter().try_for_each(|number| await_agent(state, number))
    }
}

/// Nodes and their agents, the controller, `meshctl`.
impl World {
    /// SIGKILL for the agent of a node: what it pinned stays.
    pub fn kill_agent(&self, node: u8) {
        if let Some(mut process) = take(&self.state, &format!("node-{node}")) {
            process.kill();
        }
    }

    /// SIGTERM for the agent of a node.
    pub fn stop_agent(&self, node: u8) {
        if let Some(mut process) = take(&self.state, &format!("node-{node}")) {
            process.terminate();
        }
    }

    /// Starts the agent of a node; it need not be ready yet.
    pub fn start_agent(&self, node: u8) -> Result<()> {
        start_agent(&self.state, node)
    }

    /// Waits until the agent of a node says that it is ready.
    pub fn await_agent(&self, node: u8) -> Result<()> {
        await_agent(&self.state, node)
    }

    /// SIGKILL for the controller.
    pub fn kill_controller(&self) {
        if let Some(mut process) = take(&self.state, "controller") {
            process.kill();
        }
    }

    /// Starts the controller and waits until it answers.
    pub fn start_controller(&self) -> Result<()> {
        start_controller(&self.state)
    }

    /// What the agent of a node counts.
    pub fn metrics(&self, node: u8) -> Result<Metrics> {
        metrics(&self.state, node)
    }

    /// A page of a node's admin address: status and body.
    pub fn node_page(&self, node: u8, path: &str) -> Result<(u64, String)> {
        let answer = ask(&self.state, &format!("node-{node}"), &format!("http://{NODE_METRICS}{path}"))?;
        let status =
            answer["status"].as_u64().with_context(|| format!("no answer from node {node}: {answer}"))?;
        Ok((status, answer["body"].as_str().map_or_else(|| answer["body"].to_string(), str::to_owned)))
    }

    /// What the controller counts.
    pub fn controller_metrics(&self) -> Result<Metrics> {
        let page = scrape(&self.state, "fabric", CONTROLLER_METRICS)?;
        Ok(Metrics::parse(&page))
    }

    /// The process id of an agent (`node-1`), the controller, or a pod's application.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.state.owned().processes.get(name).map(Process::pid)
    }

    /// Runs `meshctl` in the fabric, with the administrator's token; gives exit code and output.
    pub fn meshctl(&self, arguments: &[&str]) -> Result<(i32, String)> {
        meshctl(&self.state, arguments)
    }

    /// Runs `meshctl … -o json` and reads its answer.
    pub fn meshctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let (code, text) = self.meshctl(&all)?;
        serde_json::from_str(&text).with_context(|| format!("meshctl {all:?} gave {code}: {text}"))
    }

    /// Runs `work` with a client of the controller, in the fabric. `token` is the administrator's unless a node's is named.
    pub fn with_channel<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce(Channel) -> F + Send,
    ) -> Result<T> {
        control_link(&self.state)?.run(work)
    }

    /// A way to the controller that may outlive this borrow of the world.
    pub fn control_link(&self) -> Result<ControlLink> {
        control_link(&self.state)
    }

    /// The token of a node, as its agent has it.
    pub fn node_token(&self, node: u8) -> Result<String> {
        read_secret(&self.state.folder().join(format!("state/nodes/node-{node}.token")))
    }
}

/// Waits for the acknowledgement of everything.
pub fn settle(state: &State) -> Result<Settled> {
    let token = read_secret(&state.folder().join("state/admin.token"))?;
    let agents: Vec<String> =
        state.owned().processes.keys().filter(|name| name.starts_with("node-")).cloned().collect();
    let reply = control_link(state)?.run(|channel| async move {
        let mut client = InspectClient::new(channel);
        await_connected(&mut client, &token, agents).await?;
        let mut request = tonic::Request::new(v1::SettleRequest { timeout_ms: SETTLE.as_millis() as u64 });
        request.set_timeout(SETTLE + Duration::from_secs(5));
        request.metadata_mut().insert("authorization", bearer(&token)?);
        Ok(client.settle(request).await?.into_inner())
    })?;
    if !reply.settled {
        bail!("not settled: {}", reply.pending.join("; "));
    }
    Ok(reply)
}

/// Waits until every running agent has a stream: a controller that has just started would else find nobody to wait for.
async fn await_connected(
    client: &mut InspectClient<Channel>,
    token: &str,
    mut agents: Vec<String>,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut request = tonic::Request::new(v1::StatusRequest {});
        request.set_timeout(SETTLE);
        request.metadata_mut().insert("authorization", bearer(token)?);
        let nodes = client.status(request).await?.into_inner().nodes;
        agents.retain(|agent| !nodes.iter().any(|node| node.node == *agent && node.connected));
        if agents.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > SETTLE {
            bail!("not connected to the controller: {}", agents.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `Bearer TOKEN` as metadata.
pub fn bearer(token: &str) -> Result<MetadataValue<tonic::metadata::Ascii>> {
    let mut value: MetadataValue<_> =
        format!("Bearer {token}").parse().context("a token with odd characters")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the agent of a node counts.
pub fn metrics(state: &State, node: u8) -> Result<Metrics> {
    Ok(Metrics::parse(&scrape(state, &format!("node-{node}"), NODE_METRICS)?))
}

/// How to reach the controller of a world: its namespace and its root.
#[derive(Debug, Clone)]
pub struct ControlLink {
    netns: PathBuf,
    root: Vec<u8>,
}

impl ControlLink {
    /// Runs `work` with a connection to the controller, on a thread in the fabric.
    pub fn run<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce(Channel) -> F + Send,
    ) -> Result<T> {
        in_netns(&self.netns, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let root = Certificate::from_pem(&self.root);
                let tls = ClientTlsConfig::new().ca_certificate(root).domain_name(CONTROLLER_NAME);
                let endpoint = Endpoint::from_shared(format!("https://{FABRIC}:{CONTROL_PORT}"))?
                    .tls_config(tls)?
                    .connect_timeout(Duration::from_secs(5));
                work(endpoint.connect().await.context("the controller does not answer")?).await
            })
        })?
    }
}

fn control_link(state: &State) -> Result<ControlLink> {
    let root = fs::read(state.folder().join("state/root.crt")).context("the controller has no root yet")?;
    Ok(ControlLink { netns: state.netns_path("fabric"), root })
}

fn start_controller(state: &State) -> Result<()> {
    let more = state.owned().mesh.clone().unwrap_or_default().controller;
    let mut arguments = vec![
        "--source".to_owned(),
        format!("dir:{}", state.config().display()),
        "--state".to_owned(),
        state.folder().join("state").display().to_string(),
        "--listen".to_owned(),
        format!("{FABRIC}:{CONTROL_PORT}"),
        "--admin".to_owned(),
        CONTROLLER_METRICS.to_owned(),
    ];
    arguments.extend(more);
    let process = start(state, "controller", "fabric", "mesh-controller", arguments)?;
    state.owned().processes.insert("controller".to_owned(), process);
    let nodes = node_numbers(state);
    let there = |file: &str| state.folder().join("state").join(file).is_file();
    let started = eventually("the controller's root and tokens", START, || {
        let tokens = nodes.iter().all(|number| there(&format!("nodes/node-{number}.token")));
        let answers = tokens
            && there("root.crt")
            && control_link(state).is_ok_and(|link| link.run(|_| async { Ok(()) }).is_ok());
        (answers || !is_running(state, "controller")).then_some(answers)
    });
    match started {
        Ok(true) => Ok(()),
        Ok(false) => Err(anyhow!("the controller ended: {}", tail(&state.log_file("controller"), 20))),
        Err(error) => Err(error.context(tail(&state.log_file("controller"), 20))),
    }
}

fn start_agent(state: &State, number: u8) -> Result<()> {
    let name = format!("node-{number}");
    let secrets = state.folder().join("state");
    let mut arguments: Vec<String> = [
        ("--node-name", name.clone()),
        ("--controller", format!("https://{FABRIC}:{CONTROL_PORT}")),
        ("--root-cert", secrets.join("root.crt").display().to_string()),
        ("--token-file", secrets.join(format!("nodes/{name}.token")).display().to_string()),
        ("--admin-addr", NODE_METRICS.to_owned()),
        ("--inspect-addr", format!("{}:{INSPECT_PORT}", node_address(number))),
        ("--instance", state.netns_name(&name)),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    arguments.insert(0, "run".to_owned());
    arguments.extend(state.owned().mesh.clone().unwrap_or_default().agent);
    let process = start(state, &name, &name, "mesh-node", arguments)?;
    state.owned().processes.insert(name, process);
    Ok(())
}

fn await_agent(state: &State, number: u8) -> Result<()> {
    let name = format!("node-{number}");
    let begun = Instant::now();
    loop {
        let ready = ask(state, &name, &format!("http://{NODE_METRICS}/readyz"));
        match &ready {
            Ok(answer) if answer["status"] == 200 => return Ok(()),
            _ if !is_running(state, &name) => {
                bail!("the agent of {name} ended: {}", tail(&state.log_file(&name), 30));
            }
            _ if begun.elapsed() > START => {
                bail!("{name} is not ready: {ready:?}\n{}", tail(&state.log_file(&name), 30));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn meshctl(state: &State, arguments: &[&str]) -> Result<(i32, String)> {
    let secrets = state.folder().join("state");
    let plan = Plan {
        netns: state.netns_path("fabric"),
        program: repo::binary("meshctl")?,
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        environment: vec![
            ("TULLE_CONTROLLER".to_owned(), format!("https://{FABRIC}:{CONTROL_PORT}")),
            ("TULLE_ROOT_CERT".to_owned(), secrets.join("root.crt").display().to_string()),
            ("TULLE_TOKEN_FILE".to_owned(), secrets.join("admin.token").display().to_string()),
        ],
        log: state.log_file("meshctl"),
        piped: true,
    };
    let mut process = Process::start(&plan)?;
    let mut text = String::new();
    let mut stdout = process.take_stdout().context("no stdout")?;
    std::io::Read::read_to_string(&mut stdout, &mut text)?;
    let status = process.wait(Duration::from_secs(20))?;
    Ok((status.code().unwrap_or(-1), text))
}

fn start(state: &State, name: &str, netns: &str, program: &str, arguments: Vec<String>) -> Result<Process> {
    let plan = Plan {
        netns: state.netns_path(netns),
        program: repo::binary(program)?,
        arguments,
        environment: std::env::var("TULLE_LOG")
            .map(|log| ("TULLE_LOG".to_owned(), log))
            .into_iter()
            .collect(),
        log: state.log_file(name),
        piped: false,
    };
    Process::start(&plan)?.recorded_in(&state.pids())
}

fn scrape(state: &State, netns: &str, address: &str) -> Result<String> {
    let answer = ask(state, netns, &format!("http://{address}/metrics"))?;
    answer["body"].as_str().map(str::to_owned).with_context(|| format!("no metrics from {netns}: {answer}"))
}

/// One GET in any namespace of the world.
pub(super) fn ask(state: &State, netns: &str, url: &str) -> Result<Value> {
    let plan = Plan {
        netns: state.netns_path(netns),
        program: repo::binary("mesh-app")?,
        arguments: ["get", url, "--timeout", "2"].map(str::to_owned).into(),
        environment: Vec::new(),
        log: state.log_file("client"),
        piped: true,
    };
    let text = Process::start(&plan)?.output(Duration::from_secs(10))?;
    Ok(serde_json::from_str(text.trim())?)
}

fn node_numbers(state: &State) -> Vec<u8> {
    let owned = state.owned();
    owned.namespaces.keys().filter_map(|name| name.strip_prefix("node-")?.parse().ok()).collect()
}

fn is_running(state: &State, name: &str) -> bool {
    state.owned().processes.get_mut(name).is_some_and(Process::is_running)
}

fn take(state: &State, name: &str) -> Option<Process> {
    state.owned().processes.remove(name)
}

fn read_secret(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
