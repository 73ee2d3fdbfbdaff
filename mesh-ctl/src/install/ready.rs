//! Waits until the controller and an agent on every node are ready, and says what keeps them from it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Api;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, events, pods},
    exit::Failure,
    progress::Progress,
};

/// How often the cluster is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How far a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// `mesh-node`, `mesh-controller`.
    pub component: &'static str,
    /// Pods that run what was asked for and are ready.
    pub ready: i32,
    /// Pods that there should be.
    pub wanted: i32,
    /// The controller of the kind has seen the latest change.
    pub observed: bool,
}

impl Rollout {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.observed && self.ready >= self.wanted
    }
}

/// Both components.
pub async fn rollouts(cluster: &Cluster) -> Result<[Rollout; 2], Failure> {
    let client = cluster.client.clone();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &cluster.mesh_namespace);
    let sets: Api<DaemonSet> = Api::namespaced(client, &cluster.mesh_namespace);
    let failed = |what: &str, error: &kube::Error| Failure::from_kube(&format!("cannot see {what}"), error);
    let deployment = deployments
        .get("mesh-controller")
        .await
        .map_err(|error| failed("Deployment mesh-controller", &error))?;
    let set = sets.get("mesh-node").await.map_err(|error| failed("DaemonSet mesh-node", &error))?;
    Ok([of_deployment(&deployment), of_daemon_set(&set)])
}

fn of_deployment(deployment: &Deployment) -> Rollout {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Rollout {
        component: "mesh-controller",
        ready: status.updated_replicas.unwrap_or(0).min(status.available_replicas.unwrap_or(0)),
        wanted,
        observed: status.observed_generation >= deployment.metadata.generation,
    }
}

fn of_daemon_set(set: &DaemonSet) -> Rollout {
    let status = set.status.clone().unwrap_or_default();
    Rollout {
        component: "mesh-node",
        ready: status.updated_number_scheduled.unwrap_or(0).min(status.number_ready),
        wanted: status.desired_number_scheduled,
        observed: status.observed_generation >= set.metadata.generation,
    }
}

/// Waits for both; a time-out names the pods that are not ready, and why.
pub async fn wait(cluster: &Cluster, patience: Duration, progress: &mut Progress) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let mut told: Vec<&'static str> = Vec::new();
    loop {
        let rollouts = rollouts(cluster).await?;
        for done in rollouts.iter().filter(|rollout| rollout.is_complete()) {
            if !told.contains(&done.component) {
                told.push(done.component);
                progress.done(&format!("{}: {} of {} ready", done.component, done.ready, done.wanted));
            }
        }
        let missing: Vec<&Rollout> = rollouts.iter().filter(|rollout| !rollout.is_complete()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut reasons = Vec::new();
        for rollout in missing {
            reasons.push(reason(cluster, rollout).await?);
        }
        progress.now(&format!("waiting: {}", reasons.join("; ")));
        if Instant::now() + EVERY > deadline {
            return Err(Failure::too_late(format!("not ready in time: {}", reasons.join("; ")))
                .hint("it is installed and may become ready yet: see `meshctl check`; raise --timeout"));
        }
        sleep(EVERY).await;
    }
}

/// How far it is, and what keeps each of its pods.
async fn reason(cluster: &Cluster, rollout: &Rollout) -> Result<String, Failure> {
    let pods = pods::of(cluster, rollout.component).await?;
    let mut troubles: Vec<String> = pods
        .iter()
        .filter_map(|pod| pods::trouble(pod).map(|why| format!("{}: {why}", pods::name(pod))))
        .collect();
    if troubles.is_empty() {
        // Its owner may not even be able to create it.
        troubles.extend(events::not_created(cluster, rollout.component).await?);
    }
    let why = if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join(", ")) };
    Ok(format!("{} {}/{}{why}", rollout.component, rollout.ready, rollout.wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_set_is_complete_when_every_node_runs_the_new_pod() {
        let set = |observed: i64, updated: i32, ready: i32| -> DaemonSet {
            serde_json::from_value(json!({
                "metadata": { "generation": 2 },
                "status": {
                    "observedGeneration": observed, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                    "numberMisscheduled": 0, "numberReady": ready, "updatedNumberScheduled": updated,
                },
            }))
            .unwrap()
        };
        assert!(of_daemon_set(&set(2, 2, 2)).is_complete());
        assert!(!of_daemon_set(&set(1, 2, 2)).is_complete(), "an old observation");
        assert!(!of_daemon_set(&set(2, 1, 2)).is_complete(), "an old pod is ready");
        assert!(!of_daemon_set(&set(2, 2, 1)).is_complete());
    }

    #[test]
    fn a_deployment_without_a_status_is_not_complete() {
        let deployment: Deployment =
            serde_json::from_value(json!({ "metadata": { "generation": 1 }, "spec": { "replicas": 1, "selector": {}, "template": {} } }))
                .unwrap();
        assert!(!of_deployment(&deployment).is_complete());
    }
}
