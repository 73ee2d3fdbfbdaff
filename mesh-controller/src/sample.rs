//! Small resources for tests.

use std::collections::BTreeMap;

use mesh_model::{
    authz::{Action, AuthzPolicy},
    identity::Identity,
    mesh::MeshSettings,
    mtls::MtlsModes,
    name::{NodeName, ObjectKey, WorkloadUid},
    resource::{Resource, ResourceKey},
    workload::{Enrolment, Exclusions, Telemetry, Tunnel, Workload},
};

/// A pod with this UID on this node, of service account `shop/<uid>`, enrolled, with a network namespace.
pub fn workload(uid: &str, node: &str) -> Workload {
    let identity = Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{uid}")).unwrap();
    Workload {
        uid: WorkloadUid::new(uid),
        name: uid.into(),
        namespace: identity.namespace.clone(),
        identity,
        node: NodeName::new(node),
        ips: vec![],
        contested_ips: vec![],
        labels: BTreeMap::new(),
        telemetry: Telemetry::default(),
        tunnel: Tunnel::None,
        enrolment: Enrolment::Yes,
        endpoints: vec![],
        protocols: BTreeMap::new(),
        mtls: MtlsModes::default(),
        policies: vec![],
        exclusions: Exclusions::default(),
        probe_ports: vec![],
        netns: Some(format!("/run/netns/{uid}").into()),
    }
}

/// A policy that allows nothing.
pub fn policy(name: &str) -> AuthzPolicy {
    AuthzPolicy { key: ObjectKey::new("shop", name), action: Action::Allow, rules: vec![] }
}

/// Resources by key, with the mesh's settings.
pub fn resources(items: impl IntoIterator<Item = Resource>) -> BTreeMap<ResourceKey, Resource> {
    let mesh = Resource::Mesh(MeshSettings::default());
    items.into_iter().chain([mesh]).map(|resource| (resource.key(), resource)).collect()
}
