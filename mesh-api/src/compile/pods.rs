//! Which pods are workloads, and who has which address.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use mesh_model::{
    identity::{Identity, TrustDomain},
    mtls::MtlsModes,
    name::{Namespace, NodeName, ServiceAccount, WorkloadUid},
    workload::{Enrolment, Tunnel, Workload},
};

use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::Object,
    read::{pod, probe},
};

/// A pod that is a workload.
pub(super) struct Live<'a> {
    pub(super) fact: Fact<'a, Pod>,
    pub(super) uid: WorkloadUid,
    pub(super) namespace: Namespace,
    pub(super) labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Its own addresses: none of a pod on the host's network, none that a newer pod has.
    pub(super) ips: Vec<IpAddr>,
    /// Its own addresses, if another pod has one of them in the mesh.
    contested_ips: Vec<IpAddr>,
    /// The newer pod that has its network namespace.
    pub(super) displaced_by: Option<String>,
    /// The path of its network namespace, where that may be said.
    netns: Option<&'a str>,
    node: NodeName,
    account: ServiceAccount,
}

/// All workloads, by namespace and name.
pub(super) struct Pods<'a> {
    all: Vec<Live<'a>>,
}

impl<'a> Pods<'a> {
    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Live<'a>> {
        self.all.iter()
    }

    /// Those of a namespace.
    pub(super) fn of(&self, namespace: &str) -> &[Live<'a>] {
        let from = self.all.partition_point(|pod| pod.namespace.as_str() < namespace);
        let to = self.all.partition_point(|pod| pod.namespace.as_str() <= namespace);
        self.all.get(from..to).unwrap_or_default()
    }
}

impl Live<'_> {
    /// Whether it has all of these labels.
    pub(super) fn has_labels<'l>(&self, wanted: impl IntoIterator<Item = (&'l str, &'l str)>) -> bool {
        wanted.into_iter().all(|(key, value)| self.labels.get(key).is_some_and(|own| &**own == value))
    }

    /// Whether it is being deleted: it may serve its last requests yet, and its address may have gone to another pod already.
    pub(super) fn is_leaving(&self) -> bool {
        self.fact.object.metadata.deletion_timestamp.is_some()
    }

    /// The workload, as far as the pod alone says it.
    pub(super) fn workload(&self, trust_domain: &TrustDomain) -> Workload {
        let pod = self.fact.object;
        Workload {
            uid: self.uid.clone(),
            name: self.fact.reference.name.clone(),
            namespace: self.namespace.clone(),
            identity: Identity {
                trust_domain: trust_domain.clone(),
                namespace: self.namespace.clone(),
                service_account: self.account.clone(),
            },
            node: self.node.clone(),
            ips: self.ips.clone(),
            contested_ips: self.contested_ips.clone(),
            labels: self.labels.clone(),
            telemetry: pod::telemetry(pod),
            tunnel: Tunnel::None,
            enrolment: Enrolment::No,
            endpoints: Vec::new(),
            protocols: BTreeMap::new(),
            mtls: MtlsModes::default(),
            policies: Vec::new(),
            exclusions: pod::exclusions(pod, &mut self.fact.findings(&mut Vec::new())),
            probe_ports: probe::ports(pod),
            netns: self.netns.map(Arc::from),
        }
    }
}

/// All workloads.
pub(super) fn live<'a>(index: &'a Index, list: &mut Vec<Diagnostic>) -> Pods<'a> {
    let pods = index.facts(|object| match object {
        Object::Pod(pod) => Some(&**pod),
        _ => None,
    });
    let trusts_netns = index.options().trusts_netns;
    let nodes: BTreeSet<NodeName> = index.nodes().into_iter().collect();
    let mut pods: Vec<Live<'a>> = pods.filter_map(|fact| one(fact, trusts_netns, list)).collect();
    settle_uids(&mut pods, &nodes, list);
    settle_addresses(&mut pods, &nodes, list);
    name_unknown_nodes(&nodes, &pods, list);
    Pods { all: pods }
}

fn one<'a>(fact: Fact<'a, Pod>, trusts_netns: bool, list: &mut Vec<Diagnostic>) -> Option<Live<'a>> {
    let (node, account) = pod::placement(fact.object).ok()?;
    let reference = fact.reference;
    let uid = match fact.object.metadata.uid.as_deref() {
        None | Some("") => format!("{}/{}", reference.namespace, reference.name),
        Some(uid) => uid.to_owned(),
    };
    let netns = pod::netns(fact.object);
    if !trusts_netns && netns.is_some() {
        let message = "has no effect on a cluster: the node finds the pod's network namespace itself";
        let field = format!("metadata.annotations[{:?}]", pod::NETNS_ANNOTATION);
        fact.findings(list).add(Code::LabelWithoutEffect, field, message);
    }
    for host in probe::other_hosts(fact.object) {
        let message = format!(
            "a probe or lifecycle hook names the host {host}: the kubelet calls it there, past the policies of a pod whose probed port it is"
        );
        fact.findings(list).add(Code::ProbeOfAnother, "spec.containers", message);
    }
    let ips = if pod::is_host_network(fact.object) { Vec::new() } else { pod::addresses(fact.object) };
    Some(Live {
        uid: WorkloadUid::new(uid),
        namespace: Namespace::new(reference.namespace.clone()),
        labels: pod::labels(fact.object),
        ips,
        contested_ips: Vec::new(),
        displaced_by: None,
        netns: netns.filter(|_| trusts_netns),
        node: NodeName::new(node),
        account: ServiceAccount::new(account),
        fact,
    })
}

/// Who comes first where only one can have it: the newest, by creation, then by place in the files. A pod that is being deleted
/// gives way to those that are not: its address may be another's before it has disappeared. And one on a node that does not exist
/// gives way to all others: anybody may write such a pod, and it runs nowhere.
fn by_claim(pods: &[Live<'_>], nodes: &BTreeSet<NodeName>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pods.len()).collect();
    order.sort_by_cached_key(|number| {
        Reverse(pods.get(*number).map(|pod| {
            let created = pod.fact.object.metadata.creation_timestamp.clone();
            (nodes.contains(&pod.node), !pod.is_leaving(), created, pod.fact.origin.clone())
        }))
    });
    order
}

/// A UID names one workload. Of two pods with the same one the newer has it and the other is none.
fn settle_uids(pods: &mut Vec<Live<'_>>, nodes: &BTreeSet<NodeName>, list: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<WorkloadUid, String> = BTreeMap::new();
    let mut losers = BTreeSet::new();
    for number in by_claim(pods, nodes) {
        let Some(pod) = pods.get(number) else { continue };
        match taken.get(&pod.uid) {
            None => drop(taken.insert(pod.uid.clone(), pod.fact.reference.to_string())),
            Some(owner) => {
                let message =
                    format!("UID {} belongs to the newer {owner}: this pod is not in the mesh", pod.uid);
                pod.fact.findings(list).add(Code::AddressConflict, "metadata.uid", message);
                losers.insert(number);
            }
        }
    }
    let mut number = 0..;
    pods.retain(|_| number.next().is_none_or(|number| !losers.contains(&number)));
}

/// An address names one workload, and so does a network namespace of a node. The newest pod has it; an older one loses all of its
/// addresses. Without its network namespace it cannot be captured. An address costs nobody its capture: whoever can claim one
/// could take the policies off its pod.
fn settle_addresses(pods: &mut [Live<'_>], nodes: &BTreeSet<NodeName>, list: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut entered: BTreeMap<(NodeName, String), String> = BTreeMap::new();
    for number in by_claim(pods, nodes) {
        let Some(pod) = pods.get_mut(number) else { continue };
        let name = pod.fact.reference.to_string();
        if let Some(netns) = pod.netns {
            let place = (pod.node.clone(), netns.to_owned());
            if let Some(owner) = entered.get(&place).cloned() {
                let message = format!("{netns} belongs to the newer {owner}: this pod is not captured");
                let field = format!("metadata.annotations[{:?}]", pod::NETNS_ANNOTATION);
                pod.fact.findings(list).add(Code::AddressConflict, field, message);
                pod.ips.clear();
                pod.displaced_by = Some(owner);
                continue;
            }
            entered.insert(place, name.clone());
        }
        let conflict = pod.ips.iter().find_map(|ip| Some((*ip, taken.get(ip)?.clone())));
        match conflict {
            None => taken.extend(pod.ips.iter().map(|ip| (*ip, name.clone()))),
            Some((ip, owner)) => {
                if !pod.is_leaving() {
                    let message = format!(
                        "address {ip} belongs to {owner}, which comes first: no other pod reaches this one"
                    );
                    pod.fact.findings(list).add(Code::AddressConflict, "status.podIPs", message);
                }
                pod.contested_ips = std::mem::take(&mut pod.ips);
            }
        }
    }
}

fn name_unknown_nodes(nodes: &BTreeSet<NodeName>, pods: &[Live<'_>], list: &mut Vec<Diagnostic>) {
    for pod in pods.iter().filter(|pod| !nodes.contains(&pod.node)) {
        let message = format!("there is no Node {}: nobody may serve this pod", pod.node);
        pod.fact.findings(list).add(Code::ReferenceNotFound, "spec.nodeName", message);
    }
}
