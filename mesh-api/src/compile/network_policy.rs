//! Where the cluster's NetworkPolicies stand in the mesh's way.
//!
//! Between nodes, whatever one enrolled pod says to another travels to port 15008 of the other. A policy that lets the application's
//! ports through and not that one cuts such calls, and one that lets it through limits no ports any more. On one node the real ports
//! are dialled, so a policy needs both. Only pairs of pods that are (or by their labels shall be) in the mesh count: everybody else
//! goes on dialling the real ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use mesh_model::{
    authz::Action,
    mesh::HBONE_PORT,
    name::{ObjectKey, WorkloadUid},
};

use super::{
    EnrolmentDecision,
    authz::Authz,
    pods::{Live, Pods},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::Object,
    read::{
        network_policy::{self, Direction, Labels, Reach, Rule},
        pod,
    },
};

/// The label that every namespace of a cluster has: its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Says which policies would cut calls within the mesh, and which limit less than they seem to. Returns the pods that are cut off, and
/// what to do about it.
pub(super) fn check(
    index: &Index,
    pods: &Pods<'_>,
    decisions: &BTreeMap<WorkloadUid, EnrolmentDecision>,
    authz: &Authz,
    list: &mut Vec<Diagnostic>,
) -> BTreeMap<WorkloadUid, String> {
    let mut cut_off = BTreeMap::new();
    let facts: Vec<Fact<'_, NetworkPolicy>> = index
        .facts(|object| match object {
            Object::NetworkPolicy(policy) => Some(&**policy),
            _ => None,
        })
        .collect();
    if facts.is_empty() {
        return cut_off;
    }
    let is_wanted = |pod: &&Live<'_>| decisions.get(&pod.uid) == Some(&EnrolmentDecision::Wanted);
    let mesh = Members::new(index, pods.iter().filter(is_wanted).collect());
    let limited = limited_by_identity(authz);
    for direction in [Direction::Ingress, Direction::Egress] {
        let policies: Vec<Policy<'_>> =
            facts.iter().filter_map(|fact| Policy::new(fact, direction, &mesh)).collect();
        for (selecting, group) in groups(&policies, &mesh) {
            let rules = selecting.iter().filter_map(|number| policies.get(*number));
            let rules =
                rules.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule))).collect();
            Group { mesh: &mesh, direction, pods: group, rules, limited: &limited }.check(list, &mut cut_off);
        }
    }
    cut_off
}

/// The pods of the mesh, by namespace and name.
struct Members<'p, 'a> {
    pods: Vec<&'p Live<'a>>,
    by_namespace: BTreeMap<&'p str, Range<usize>>,
    namespaces: BTreeMap<&'p str, Labels>,
}

impl<'p, 'a> Members<'p, 'a> {
    fn new(index: &Index, pods: Vec<&'p Live<'a>>) -> Self {
        let mut by_namespace: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        for (number, pod) in pods.iter().enumerate() {
            by_namespace.entry(pod.namespace.as_str()).or_insert(number..number).end = number + 1;
        }
        let mut namespaces: BTreeMap<&str, Labels> = by_namespace
            .keys()
            .map(|name| (*name, Labels::from([(NAME_LABEL.into(), (*name).into())])))
            .collect();
        let written = index.facts(|object| match object {
            Object::Namespace(namespace) => Some(&**namespace),
            _ => None,
        });
        for fact in written {
            if let Some(labels) = namespaces.get_mut(&*fact.reference.name) {
                let own = fact.object.metadata.labels.iter().flatten();
                labels.extend(own.map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))));
            }
        }
        Self { pods, by_namespace, namespaces }
    }

    /// The numbers of the pods that the peers take, seen from a policy of this namespace.
    fn of_peers(&self, peers: &[NetworkPolicyPeer], own: &str) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for peer in peers {
            if let Some(block) = &peer.ip_block {
                let in_block = |pod: &&Live<'_>| network_policy::has_address(block, &pod.ips);
                found.extend(self.numbers(0..self.pods.len(), in_block));
                continue;
            }
            for (namespace, range) in &self.by_namespace {
                let is_taken = match (&peer.namespace_selector, self.namespaces.get(namespace)) {
                    (None, _) => *namespace == own,
                    (Some(selector), Some(labels)) => network_policy::selects(Some(selector), labels),
                    (Some(_), None) => false,
                };
                if is_taken {
                    let by_labels =
                        |pod: &&Live<'_>| network_policy::selects(peer.pod_selector.as_ref(), &pod.labels);
                    found.extend(self.numbers(range.clone(), by_labels));
                }
            }
        }
        found
    }

    fn numbers(&self, range: Range<usize>, take: impl Fn(&&Live<'_>) -> bool) -> Vec<usize> {
        let pods = self.pods.get(range.clone()).unwrap_or_default();
        range.zip(pods).filter(|(_, pod)| take(pod)).map(|(number, _)| number).collect()
    }
}

/// A policy that limits one direction for some pods of the mesh.
struct Policy<'a> {
    fact: &'a Fact<'a, NetworkPolicy>,
    selected: Vec<usize>,
    rules: Vec<Numbered>,
}

/// A rule with its place, and the pods of the mesh that it takes; None: all.
struct Numbered {
    number: usize,
    peers: Option<BTreeSet<usize>>,
    reach: Reach,
}

impl<'a> Policy<'a> {
    fn new(fact: &'a Fact<'a, NetworkPolicy>, direction: Direction, mesh: &Members<'_, '_>) -> Option<Self> {
        let spec = fact.object.spec.as_ref()?;
        let rules = network_policy::rules(spec, direction)?;
        let namespace = &*fact.reference.namespace;
        let range = mesh.by_namespace.get(namespace)?.clone();
        let is_selected = |pod: &&Live<'_>| network_policy::selects(spec.pod_selector.as_ref(), &pod.labels);
        let selected = mesh.numbers(range, is_selected);
        let numbered = |(number, rule): (usize, Rule<'_>)| Numbered {
            number,
            peers: rule.peers.map(|peers| mesh.of_peers(peers, namespace)),
            reach: rule.reach,
        };
        (!selected.is_empty()).then(|| Self {
            fact,
            selected,
            rules: rules.into_iter().enumerate().map(numbered).collect(),
        })
    }
}

impl Numbered {
    fn takes(&self, pod: usize) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(&pod))
    }

    fn lets_mesh_through(&self) -> bool {
        matches!(self.reach, Reach::Everything | Reach::Ports { mesh: true, .. })
    }
}

/// Pods of one workload that the same policies select, by the numbers of these policies: replicas are one finding.
fn groups(policies: &[Policy<'_>], mesh: &Members<'_, '_>) -> Vec<(Vec<usize>, BTreeSet<usize>)> {
    let mut selecting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, policy) in policies.iter().enumerate() {
        for pod in &policy.selected {
            selecting.entry(*pod).or_default().push(number);
        }
    }
    let mut groups: BTreeMap<(String, Vec<usize>), BTreeSet<usize>> = BTreeMap::new();
    for (pod, policies) in selecting {
        groups.entry((mesh.name(pod), policies)).or_default().insert(pod);
    }
    groups.into_iter().map(|((_, policies), pods)| (policies, pods)).collect()
}

impl Members<'_, '_> {
    /// The pod's workload, for people.
    fn name(&self, pod: usize) -> String {
        self.pods.get(pod).map_or_else(String::new, |pod| {
            let (name, kind) = pod::owner(pod.fact.object);
            format!("{kind} {}/{name}", pod.namespace)
        })
    }
}

/// Pods of one workload, and every rule that holds for them.
struct Group<'g, 'p, 'a> {
    mesh: &'g Members<'p, 'a>,
    direction: Direction,
    pods: BTreeSet<usize>,
    rules: Vec<(&'g Policy<'g>, &'g Numbered)>,
    limited: &'g BTreeSet<WorkloadUid>,
}

impl Group<'_, '_, '_> {
    fn check(&self, list: &mut Vec<Diagnostic>, cut_off: &mut BTreeMap<WorkloadUid, String>) {
        for (policy, rule) in &self.rules {
            let Reach::Ports { mesh, others } = &rule.reach else { continue };
            let field = match self.direction {
                Direction::Ingress => format!("spec.ingress[{}].ports", rule.number),
                Direction::Egress => format!("spec.egress[{}].ports", rule.number),
            };
            let cut = || self.first(rule, |peer| !self.any(peer, Numbered::lets_mesh_through));
            if let (false, Some(peer)) = (*mesh, cut()) {
                let message = self.blocked(peer, others);
                for pod in self.pods.iter().filter_map(|pod| self.mesh.pods.get(*pod)) {
                    let told = format!("{}: {message}", policy.fact.reference);
                    cut_off.entry(pod.uid.clone()).or_insert(told);
                }
                policy.fact.findings(list).add(Code::MeshPortBlocked, field, message);
                continue;
            }
            let is_void = |peer| {
                self.any(peer, Numbered::lets_mesh_through)
                    && !self.any(peer, |rule| rule.reach == Reach::Everything)
                    && !self.is_limited(peer)
            };
            if let (false, Some(peer)) = (others.is_empty(), self.first(rule, is_void)) {
                policy.fact.findings(list).add(Code::PortLimitVoid, field, self.void(peer, others));
            }
        }
    }

    /// The first pod of another workload that the rule takes and `pick` too.
    fn first(&self, rule: &Numbered, pick: impl Fn(usize) -> bool) -> Option<usize> {
        let pick = |pod: &usize| !self.pods.contains(pod) && pick(*pod);
        match &rule.peers {
            Some(peers) => peers.iter().copied().find(pick),
            None => (0..self.mesh.pods.len()).find(pick),
        }
    }

    /// Whether a rule of this kind takes the pod.
    fn any(&self, pod: usize, kind: impl Fn(&Numbered) -> bool) -> bool {
        self.rules.iter().any(|(_, rule)| kind(rule) && rule.takes(pod))
    }

    /// Whether whoever is called of the two is protected by identities and ports.
    fn is_limited(&self, peer: usize) -> bool {
        let is_limited =
            |pod: usize| self.mesh.pods.get(pod).is_some_and(|pod| self.limited.contains(&pod.uid));
        match self.direction {
            Direction::Ingress => self.pods.iter().copied().all(is_limited),
            Direction::Egress => is_limited(peer),
        }
    }

    fn own(&self) -> String {
        self.pods.first().map_or_else(String::new, |pod| self.mesh.name(*pod))
    }

    fn blocked(&self, peer: usize, others: &str) -> String {
        let (own, peer) = (self.own(), self.mesh.name(peer));
        let (from, to) = match self.direction {
            Direction::Ingress => (peer, own),
            Direction::Egress => (own, peer),
        };
        format!(
            "{from} may call {to} on {others}, but not on TCP {HBONE_PORT}, where calls from other nodes arrive in the mesh: they are \
             cut. Add `- {{protocol: TCP, port: {HBONE_PORT}}}` here; the other ports are still used on the same node"
        )
    }

    fn void(&self, peer: usize, others: &str) -> String {
        let (own, peer) = (self.own(), self.mesh.name(peer));
        let (from, to) = match self.direction {
            Direction::Ingress => (peer, own),
            Direction::Egress => (own, peer),
        };
        format!(
            "{from} may call {to} on TCP {HBONE_PORT} too, where everything arrives in the mesh: from another node the limit to \
             {others} means nothing. Limit the ports by an AuthorizationPolicy with `to.operation.ports` for {to}"
        )
    }
}

/// The workloads whose ports are limited by AuthorizationPolicies: every ALLOW names ports, or a DENY takes all but some.
fn limited_by_identity(authz: &Authz) -> BTreeSet<WorkloadUid> {
    let policies: BTreeMap<&ObjectKey, _> =
        authz.policies.iter().map(|policy| (&policy.key, policy)).collect();
    let is_limited = |keys: &[ObjectKey]| {
        let selected = || keys.iter().filter_map(|key| policies.get(key));
        let mut allows = selected().filter(|policy| policy.action == Action::Allow).peekable();
        let mut denies = selected().filter(|policy| policy.action == Action::Deny);
        let names_ports = |rules: &[mesh_model::authz::Rule]| {
            rules.iter().all(|rule| !rule.to.is_empty() && rule.to.iter().all(|to| !to.ports.is_empty()))
        };
        let by_allow = allows.peek().is_some() && allows.all(|policy| names_ports(&policy.rules));
        let spares_ports = |rule: &mesh_model::authz::Rule| rule.to.iter().any(|to| !to.not_ports.is_empty());
        by_allow || denies.any(|policy| policy.rules.iter().any(spares_ports))
    };
    let limited = authz.selected.iter().filter(|(_, keys)| is_limited(keys));
    limited.map(|(uid, _)| uid.clone()).collect()
}
