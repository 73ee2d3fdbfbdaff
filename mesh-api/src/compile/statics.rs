//! Static pods: their node is told of them so that they may start, and that is all.
//!
//! The kubelet starts them from files, under a UID of its own; the API server has copies (mirror pods) whose service account nobody
//! checked. Invariant: one is never enrolled, has no address, and never takes the UID of a pod or of an older copy: anybody may write
//! what looks like a copy.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use k8s_openapi::api::core::v1::Pod;
use mesh_model::{
    identity::{Identity, TrustDomain},
    mtls::MtlsModes,
    name::{Namespace, NodeName, ServiceAccount, WorkloadUid},
    workload::{Enrolment, Exclusions, Tunnel, Workload},
};

use super::pods::Pods;
use crate::{
    index::{Fact, Index},
    object::Object,
    read::pod,
};

/// A static pod.
pub(super) struct Static<'a> {
    /// Its copy.
    pub(super) fact: Fact<'a, Pod>,
    /// Its UID on its node.
    pub(super) uid: WorkloadUid,
    node: NodeName,
}

/// All of them, by UID.
pub(super) fn all<'a>(index: &'a Index, pods: &Pods<'_>) -> Vec<Static<'a>> {
    let written = index.facts(|object| match object {
        Object::Pod(pod) => Some(&**pod),
        _ => None,
    });
    let mut copies: Vec<Static<'a>> = written.filter_map(one).collect();
    copies.sort_by_cached_key(|each| each.fact.object.metadata.creation_timestamp.clone());
    let taken: BTreeSet<&WorkloadUid> = pods.iter().map(|pod| &pod.uid).collect();
    let mut all = BTreeMap::new();
    for copy in copies.into_iter().filter(|copy| !taken.contains(&copy.uid)) {
        if let Entry::Vacant(free) = all.entry(copy.uid.clone()) {
            free.insert(copy);
        }
    }
    all.into_values().collect()
}

fn one(fact: Fact<'_, Pod>) -> Option<Static<'_>> {
    let (node, uid) = pod::static_pod(fact.object)?;
    Some(Static { uid: WorkloadUid::new(uid), node: NodeName::new(node), fact })
}

impl Static<'_> {
    /// The UID of its copy; None in a directory, where there need not be one.
    pub(super) fn uid_of_copy(&self) -> Option<WorkloadUid> {
        self.fact.object.metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map(WorkloadUid::new)
    }

    /// What its node is told. The identity is nobody's: no certificate is signed for who is not enrolled.
    pub(super) fn workload(&self, trust_domain: &TrustDomain) -> Workload {
        let namespace = Namespace::new(self.fact.reference.namespace.clone());
        Workload {
            uid: self.uid.clone(),
            name: self.fact.reference.name.clone(),
            namespace: namespace.clone(),
            identity: Identity {
                trust_domain: trust_domain.clone(),
                namespace,
                service_account: ServiceAccount::new("default"),
            },
            node: self.node.clone(),
            ips: Vec::new(),
            contested_ips: Vec::new(),
            labels: BTreeMap::new(),
            telemetry: pod::telemetry(self.fact.object),
            tunnel: Tunnel::None,
            enrolment: Enrolment::No,
            endpoints: Vec::new(),
            protocols: BTreeMap::new(),
            mtls: MtlsModes::default(),
            policies: Vec::new(),
            exclusions: Exclusions::default(),
            probe_ports: Vec::new(),
            netns: None,
        }
    }
}
