//! What of the cluster runs, for people and as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::daemon::Daemon;
use super::kubectl::Kubectl;
use super::layout::{self, NODES};
use super::{control, worker};
use crate::kube::Tools;
use crate::repo::Repo;

/// How to say it.
#[derive(clap::Args)]
pub struct Options {
    /// `table` or `json`
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Everything that is said.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    kubeconfig: PathBuf,
    /// Why the nodes could not be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    nodes: Vec<NodeStatus>,
    components: Vec<Component>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    name: String,
    ready: bool,
    /// Why not, if it is not.
    reason: String,
    address: String,
    pods: String,
    kubelet: String,
    runtime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    /// `None`: it does not run.
    pid: Option<i32>,
    log: PathBuf,
}

/// The verb `cluster status`.
pub fn run(repo: &Repo, options: &Options) -> Result<()> {
    let status = gather(repo);
    match options.output {
        Format::Json => {
            println!("{}", serde_json::to_string_pretty(&status).context("the status cannot be written")?);
        }
        Format::Table => print(&status),
    }
    Ok(())
}

fn gather(repo: &Repo) -> Status {
    let tools = Tools::of(repo);
    let daemons = control::daemons(repo, &tools)
        .into_iter()
        .chain(NODES.into_iter().flat_map(|node| worker::daemons(repo, &tools, node)));
    let components: Vec<Component> = daemons.map(Component::of).collect();
    let found = Kubectl::of(&tools).json(&["get", "nodes"]);
    let nodes = match &found {
        Ok(list) => list["items"].as_array().into_iter().flatten().map(NodeStatus::of).collect(),
        Err(_) => Vec::new(),
    };
    Status { kubeconfig: layout::kubeconfig(), error: found.err(), nodes, components }
}

impl Component {
    fn of(daemon: Daemon) -> Self {
        let pid = daemon.process().map(|process| process.pid());
        Self { name: daemon.name, pid, log: daemon.log }
    }
}

impl NodeStatus {
    fn of(node: &Value) -> Self {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let ready = readiness(node).is_some();
        let name = text("/metadata/name");
        let pods = NODES.iter().find(|known| known.name() == name).map(|known| known.pods());
        Self {
            name,
            ready,
            reason: if ready { String::new() } else { why_not_ready(node) },
            address: text("/status/addresses/0/address"),
            pods: pods.unwrap_or_default(),
            kubelet: text("/status/nodeInfo/kubeletVersion"),
            runtime: text("/status/nodeInfo/containerRuntimeVersion"),
        }
    }
}

/// Whether a node, as the API server gives it, is Ready.
pub fn readiness(node: &Value) -> Option<()> {
    (condition(node)?["status"] == "True").then_some(())
}

/// What the kubelet says about that.
pub fn why_not_ready(node: &Value) -> String {
    let message = condition(node).and_then(|ready| ready["message"].as_str());
    message.unwrap_or("the kubelet has not reported yet").to_owned()
}

fn condition(node: &Value) -> Option<&Value> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

fn print(status: &Status) {
    println!("{:<12} {:<10} {:<14} {:<16} {:<10} RUNTIME", "NODE", "READY", "ADDRESS", "PODS", "KUBELET");
    for node in &status.nodes {
        let ready = if node.ready { "yes" } else { "no" };
        println!(
            "{:<12} {ready:<10} {:<14} {:<16} {:<10} {}",
            node.name, node.address, node.pods, node.kubelet, node.runtime
        );
        if !node.ready {
            println!("  {}", node.reason);
        }
    }
    if let Some(error) = &status.error {
        println!("  nodes unknown: {error}");
    }
    println!("\n{:<26} {:<10} LOG", "COMPONENT", "PID");
    for component in &status.components {
        let pid = component.pid.map_or_else(|| "not there".to_owned(), |pid| pid.to_string());
        println!("{:<26} {pid:<10} {}", component.name, component.log.display());
    }
    println!("\nKUBECONFIG={}", status.kubeconfig.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let node = |status: &str| {
            serde_json::json!({ "status": { "conditions": [
                { "type": "MemoryPressure", "status": "True" },
                { "type": "Ready", "status": status, "message": "cni plugin not initialized" },
            ]}})
        };
        assert!(readiness(&node("True")).is_some());
        assert!(readiness(&node("False")).is_none());
        assert_eq!(why_not_ready(&node("False")), "cni plugin not initialized");
        assert!(readiness(&serde_json::json!({})).is_none());
    }
}
