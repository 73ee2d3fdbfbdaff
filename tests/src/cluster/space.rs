//! A namespace of one test.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{App, Cluster, ClusterPod, ROLLOUT};

/// A namespace; dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Space {
    cluster: Cluster,
    name: String,
}

impl Space {
    pub(super) fn create(cluster: Cluster, name: &str) -> Result<Self> {
        let name = format!("t-{name}-{:x}", std::process::id());
        cluster.kubectl(&["create", "namespace", &name])?;
        let space = Self { cluster, name };
        // The service account that pods without one of their own need is made by a controller, a moment later.
        space.cluster.eventually("the default service account", ROLLOUT, |cluster| {
            cluster.kubectl(&["-n", &space.name, "get", "serviceaccount", "default"]).map(Some)
        })?;
        Ok(space)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The URL of a service in here.
    pub fn url(&self, service: &str, path: &str) -> String {
        format!("http://{service}.{}{path}", self.name)
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        self.cluster.kubectl(&all)
    }

    /// Applies YAML in this namespace and waits until the mesh has it everywhere.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        let mut command = self.cluster.command(super::kubectl::tool("kubectl"));
        super::kubectl::output(command.args(["-n", &self.name, "apply", "-f", "-"]), yaml)?;
        self.cluster.settle()
    }

    /// Starts an application without waiting.
    pub fn create_app(&self, app: &App) -> Result<()> {
        self.cluster.apply(&app.manifest(&self.name)).map(drop)
    }

    /// Starts an application and waits until its pod is ready.
    pub fn deploy(&self, app: &App) -> Result<ClusterPod> {
        self.create_app(app)?;
        self.await_app(&app.name)
    }

    /// Waits for an application to be ready.
    pub fn await_app(&self, name: &str) -> Result<ClusterPod> {
        self.cluster.await_rollout(&self.name, &format!("deployment/{name}"), ROLLOUT).with_context(
            || {
                self.kubectl(&["get", "pods,events", "-o", "wide"])
                    .unwrap_or_else(|error| format!("{error:#}"))
            },
        )?;
        self.pod(name)
    }

    /// The newest pod of an application that is not going.
    pub fn pod(&self, app: &str) -> Result<ClusterPod> {
        let selector = format!("app={app}");
        let pods = self.cluster.get(&["pods", "-n", &self.name, "-l", &selector])?;
        let mut live: Vec<&Value> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect();
        live.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
        let pod = live.pop().with_context(|| format!("{app} has no pod"))?;
        ClusterPod::of(&self.cluster, pod)
    }

    /// Puts the namespace into the mesh by its label and waits until all its pods are captured.
    pub fn enroll(&self) -> Result<()> {
        self.cluster.kubectl(&["label", "namespace", &self.name, "--overwrite", "tulle.dev/mesh=enabled"])?;
        self.cluster.settle()
    }

    /// Takes the namespace out of the mesh again.
    pub fn unenroll(&self) -> Result<()> {
        self.cluster.kubectl(&["label", "namespace", &self.name, "tulle.dev/mesh-"])?;
        self.cluster.settle()
    }

    /// The condition `tulle.dev/Mesh` of a pod: status, reason, message.
    pub fn condition(&self, pod: &ClusterPod) -> Result<Option<(String, String, String)>> {
        let pod = self.cluster.get(&["pod", "-n", &self.name, pod.pod_name()])?;
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ours = conditions.into_iter().find(|condition| condition["type"] == "tulle.dev/Mesh");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(ours.map(|found| (text(&found["status"]), text(&found["reason"]), text(&found["message"]))))
    }

    /// Waits until a pod's condition has this status.
    pub fn await_condition(&self, pod: &ClusterPod, status: &str) -> Result<(String, String)> {
        self.cluster.eventually(
            &format!("{} has tulle.dev/Mesh={status}", pod.pod_name()),
            Duration::from_secs(30),
            |_| {
                Ok(self
                    .condition(pod)?
                    .filter(|found| found.0 == status)
                    .map(|(_, reason, text)| (reason, text)))
            },
        )
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Best effort: what stays is visible by its name and goes with the cluster.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}
