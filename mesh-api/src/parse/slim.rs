//! What is kept of an object that comes from an API server.
//!
//! A cluster writes to its objects all the time: heartbeats, restarts, who owns which field. None of that means anything to the
//! mesh, and each would count as a change and be compiled. So what no line of this crate reads is dropped here, which also keeps
//! environments and foreign ConfigMaps out of our memory.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};

use crate::{
    object::{Object, istio::Custom},
    read,
};

/// A whole object once more, as text.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what is not read.
pub(super) fn slim(object: &mut Object) {
    let metadata = object.metadata_mut();
    metadata.managed_fields = None;
    metadata.resource_version = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
    match object {
        Object::Node(node) => {
            (node.spec, node.status) = (None, None);
            node.metadata.annotations = None;
        }
        Object::Namespace(namespace) => (namespace.spec, namespace.status) = (None, None),
        Object::ServiceAccount(account) => (account.secrets, account.image_pull_secrets) = (None, None),
        Object::ConfigMap(map) => {
            map.binary_data = None;
            if !read::mesh::is_mesh_config(map) {
                map.data = None;
            }
        }
        Object::Pod(pod) => slim_pod(pod),
        // The time of the last change, at each change.
        Object::EndpointSlice(slice) => slice.metadata.annotations = None,
        Object::Service(_) | Object::NetworkPolicy(_) => (),
        Object::VirtualService(object) => slim_custom(object),
        Object::DestinationRule(object) => slim_custom(object),
        Object::AuthorizationPolicy(object) => slim_custom(object),
        Object::PeerAuthentication(object) => slim_custom(object),
        Object::HTTPRoute(object) => slim_custom(object),
    }
}

fn slim_custom<S>(object: &mut Custom<S>) {
    object.status = None;
}

fn slim_pod(pod: &mut Pod) {
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(slim_container).collect(),
        init_containers: spec.init_containers.map(|list| list.into_iter().map(slim_container).collect()),
        host_network: spec.host_network,
        node_name: spec.node_name,
        service_account_name: spec.service_account_name,
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus {
        conditions: status.conditions.map(|list| list.into_iter().filter_map(slim_condition).collect()),
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    });
}

fn slim_container(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        liveness_probe: container.liveness_probe,
        readiness_probe: container.readiness_probe,
        startup_probe: container.startup_probe,
        lifecycle: container.lifecycle,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}

/// Only readiness is asked for; when it was looked at last is not.
fn slim_condition(condition: PodCondition) -> Option<PodCondition> {
    (condition.type_ == "Ready").then(|| PodCondition {
        type_: condition.type_,
        status: condition.status,
        ..PodCondition::default()
    })
}
