//! The mesh in the cluster: installed as a user does it, and asked whether it has followed.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::kubectl::{output, tool};
use super::{Cluster, OWN_NAMESPACE, ROLLOUT};
use crate::repo;

impl Cluster {
    /// Helm with these arguments.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(tool("helm")).args(arguments), "")
    }

    /// Whether Helm has a release of the mesh.
    pub fn has_mesh(&self) -> Result<bool> {
        let releases: Value =
            serde_json::from_str(&self.helm(&["list", "-n", OWN_NAMESPACE, "-a", "-o", "json"])?)?;
        Ok(releases.as_array().is_some_and(|all| !all.is_empty()))
    }

    /// Installs the chart of this tree if it is not there, and waits until every part is ready.
    pub fn install_mesh(&self) -> Result<()> {
        if !self.has_mesh()? {
            let chart = repo::root().join("helm/tulle");
            let chart = chart.display().to_string();
            self.helm(&["install", "tulle", &chart, "-n", OWN_NAMESPACE, "--create-namespace"])?;
        }
        self.await_mesh()
    }

    /// Waits until the controller and both agents are ready.
    pub fn await_mesh(&self) -> Result<()> {
        self.await_rollout(OWN_NAMESPACE, "deployment/mesh-controller", ROLLOUT)?;
        self.await_rollout(OWN_NAMESPACE, "daemonset/mesh-node", ROLLOUT)
    }

    /// Returns when every node has acknowledged everything that is written now and every enrolment has settled.
    pub fn settle(&self) -> Result<()> {
        let (code, stdout, stderr) = self.meshctl(&["status", "--wait", "--timeout", "60s", "-o", "json"])?;
        // 2: settled, and something is wrong with the configuration, which may be the test's point.
        if !matches!(code, 0 | 2) {
            bail!("meshctl status --wait: exit code {code}: {stderr}{stdout}");
        }
        Ok(())
    }

    /// Name and cluster address of every service that a pod of this namespace may name, as `TULLE_HOSTS` has it. Empty when the API
    /// server is away: then a client needs addresses.
    pub(super) fn hosts(&self, namespace: &str) -> String {
        let Ok(services) = self.get(&["services", "--all-namespaces"]) else { return String::new() };
        let mut table = Vec::new();
        for service in services["items"].as_array().into_iter().flatten() {
            let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (name, space, ip) =
                (text("/metadata/name"), text("/metadata/namespace"), text("/spec/clusterIP"));
            if ip.is_empty() || ip == "None" {
                continue;
            }
            if space == namespace {
                table.push(format!("{name}={ip}"));
            }
            table.push(format!("{name}.{space}={ip}"));
        }
        table.join(" ")
    }

    /// The pod of the agent on a node.
    pub fn agent(&self, node: &super::NodeName) -> Result<String> {
        let field = format!("--field-selector=spec.nodeName={node}");
        let pods =
            self.get(&["pods", "-n", OWN_NAMESPACE, "-l", "app.kubernetes.io/name=mesh-node", &field])?;
        let live = pods["items"].as_array().into_iter().flatten();
        let mut names = live
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["metadata"]["name"].as_str());
        match names.next() {
            Some(name) => Ok(name.to_owned()),
            None => bail!("no agent runs on {node}"),
        }
    }

    /// Removes the release and waits for its pods to be gone.
    pub fn uninstall_mesh(&self) -> Result<()> {
        self.helm(&["uninstall", "tulle", "-n", OWN_NAMESPACE, "--wait", "--timeout", "110s"])?;
        self.eventually("the mesh's pods are gone", Duration::from_secs(60), |cluster| {
            let pods = cluster.get(&["pods", "-n", OWN_NAMESPACE])?;
            let left = pods["items"].as_array().map_or(0, Vec::len);
            ensure!(left == 0, "{left} pods are left");
            Ok(Some(()))
        })
    }
}
