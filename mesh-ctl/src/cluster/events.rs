//! Why a pod of the mesh was not even created: only the events of Kubernetes' own controllers say it.

use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};

use super::Cluster;
use crate::exit::Failure;

/// What the newest event of a pod that could not be created says.
pub async fn not_created(cluster: &Cluster, component: &str) -> Result<Option<String>, Failure> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let found = events
        .list(&ListParams::default().fields("reason=FailedCreate"))
        .await
        .map_err(|error| Failure::from_kube("cannot list events", &error))?;
    Ok(newest(&found.items, component))
}

/// A DaemonSet creates its pods itself, a Deployment by ReplicaSets that are named after it.
fn newest(events: &[Event], component: &str) -> Option<String> {
    let is_of_component = |event: &&Event| match event.involved_object.kind.as_deref() {
        Some("DaemonSet") => event.involved_object.name.as_deref() == Some(component),
        Some("ReplicaSet") => {
            let name = event.involved_object.name.as_deref().unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(deployment, _)| deployment == component)
        }
        _ => false,
    };
    let newest = events.iter().filter(is_of_component).max_by_key(|event| event.last_timestamp.clone())?;
    newest.message.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, name: &str, at: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {},
            "involvedObject": { "kind": kind, "name": name },
            "lastTimestamp": at,
            "message": message,
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_event_of_the_component_counts() {
        let events = [
            event("DaemonSet", "mesh-node", "2026-01-01T00:00:02Z", "violates PodSecurity"),
            event("DaemonSet", "mesh-node", "2026-01-01T00:00:01Z", "quota"),
            event("DaemonSet", "mesh-node-x", "2026-01-01T00:00:03Z", "of another"),
            event("ReplicaSet", "mesh-controller-6d4b", "2026-01-01T00:00:03Z", "forbidden"),
        ];
        assert_eq!(newest(&events, "mesh-node").as_deref(), Some("violates PodSecurity"));
        assert_eq!(newest(&events, "mesh-controller").as_deref(), Some("forbidden"));
        assert_eq!(newest(&events[2..], "mesh-node"), None);
    }
}
