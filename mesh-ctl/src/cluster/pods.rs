//! The mesh's own pods: found by label, and what keeps one from being ready, in words.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::ListParams};

use super::Cluster;
use crate::exit::Failure;

/// Lists the pods of one component (`mesh-node`, `mesh-controller`).
pub async fn of(cluster: &Cluster, component: &str) -> Result<Vec<Pod>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let labels = format!("app.kubernetes.io/part-of=tulle,app.kubernetes.io/name={component}");
    pods.list(&ListParams::default().labels(&labels))
        .await
        .map(|list| list.items)
        .map_err(|error| Failure::from_kube(&format!("cannot list the pods of {component}"), &error))
}

/// Whether it says it is ready, and is not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|ready| ready.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The node it was placed on.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Its name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Why it is not ready: what its containers wait for, how they ended, or why it has no node.
pub fn trouble(pod: &Pod) -> Option<String> {
    if is_ready(pod) {
        return None;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("is ending".to_owned());
    }
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    if let Some(reason) = containers.clone().find_map(container_trouble) {
        return Some(reason);
    }
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let unmet = conditions
        .filter(|condition| condition.status != "True")
        .find_map(|condition| condition.message.clone().filter(|message| !message.is_empty()));
    let phase = status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "Pending".to_owned());
    Some(unmet.unwrap_or(phase))
}

fn container_trouble(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "Waiting".to_owned());
        let ended =
            container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(|ended| match ended
                .message
                .as_deref()
                .unwrap_or_default()
                .trim()
            {
                "" => format!(" (last ended with code {})", ended.exit_code),
                message => format!(" (last ended with code {}: {message})", ended.exit_code),
            });
        let said = waiting.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        return Some(format!("{reason}{said}{}", ended.unwrap_or_default()));
    }
    if let Some(ended) = &state.terminated {
        return Some(format!("{} ended with code {}", container.name, ended.exit_code));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "mesh-node-x" }, "status": status })).unwrap()
    }

    #[test]
    fn a_ready_pod_has_no_trouble_unless_it_is_ending() {
        let mut ready = pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        assert_eq!(trouble(&ready), None);
        ready.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!is_ready(&ready));
        assert_eq!(trouble(&ready).as_deref(), Some("is ending"));
    }

    #[test]
    fn what_a_container_waits_for_is_said_before_anything_else() {
        let waiting = pod(json!({
            "phase": "Pending",
            "conditions": [{ "type": "Ready", "status": "False", "message": "containers with unready status" }],
            "containerStatuses": [{
                "name": "mesh-node", "image": "", "imageID": "", "ready": false, "restartCount": 2,
                "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } },
            }],
        }));
        assert_eq!(trouble(&waiting).as_deref(), Some("ErrImagePull: not found"));
    }

    #[test]
    fn how_a_container_ended_is_said_with_its_last_words_if_it_had_any() {
        let ended = |message: &str| {
            trouble(&pod(json!({
                "containerStatuses": [{
                    "name": "mesh-node", "image": "", "imageID": "", "ready": false, "restartCount": 2,
                    "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                    "lastState": { "terminated": { "exitCode": 64, "message": message } },
                }],
            })))
        };
        assert_eq!(ended("").as_deref(), Some("CrashLoopBackOff (last ended with code 64)"));
        assert_eq!(
            ended("no port\n").as_deref(),
            Some("CrashLoopBackOff (last ended with code 64: no port)")
        );
    }

    #[test]
    fn a_pod_without_a_place_says_why() {
        let unplaced = pod(json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/2 nodes are available" }],
        }));
        assert_eq!(trouble(&unplaced).as_deref(), Some("0/2 nodes are available"));
        assert_eq!(trouble(&pod(json!({}))).as_deref(), Some("Pending"));
    }
}
