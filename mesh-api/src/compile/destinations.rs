//! DestinationRules, merged per namespace and host.

use std::collections::{BTreeMap, btree_map::Entry};

use mesh_model::{
    name::{Hostname, Namespace, ObjectKey, SubsetName},
    traffic::{DestinationPolicy, Subset, TrafficPolicy},
};

use super::{hosts::Hosts, pods::Pods};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::{DestinationRule, Object},
    read::{
        destination::{self, Blocks, Policy},
        value,
    },
};

/// Compiles all rules.
pub(super) fn compile(
    index: &Index,
    hosts: &Hosts<'_>,
    pods: &Pods<'_>,
    list: &mut Vec<Diagnostic>,
) -> Vec<DestinationPolicy> {
    let written = index.facts(|object| match object {
        Object::DestinationRule(rule) => Some(&**rule),
        _ => None,
    });
    let mut facts: Vec<Fact<'_, DestinationRule>> = written.collect();
    facts.sort_by_key(|fact| fact.object.metadata.creation_timestamp.clone());

    let mut merged: BTreeMap<(Namespace, Hostname), (DestinationPolicy, Option<Policy>)> = BTreeMap::new();
    for fact in facts {
        let namespace = Namespace::new(fact.reference.namespace.clone());
        let host = hosts.resolve(&fact.object.spec.host, &namespace, "spec.host", &mut fact.findings(list));
        let rule = destination::read(&fact.object.spec, &mut fact.findings(&mut Vec::new()));
        check(&fact, &host, &rule, hosts, pods, list);
        let export_to =
            value::export_to(&fact.object.spec.export_to, &namespace, &mut fact.findings(&mut Vec::new()));
        match merged.entry((namespace.clone(), host.clone())) {
            Entry::Vacant(place) => {
                let key = ObjectKey::new(namespace, fact.reference.name.clone());
                let policy = settle(None, rule.policy.as_ref());
                let subsets = subsets(rule.subsets, rule.policy.as_ref()).collect();
                place.insert((DestinationPolicy { key, host, export_to, policy, subsets }, rule.policy));
            }
            Entry::Occupied(mut place) => {
                let (older, top) = place.get_mut();
                if rule.policy.is_some() && top.is_some() {
                    let message = format!(
                        "{} is older and has a trafficPolicy for {host}: this one has no effect",
                        older.key
                    );
                    fact.findings(list).add(Code::DefinedByOlder, "spec.trafficPolicy", message);
                }
                if let (None, Some(policy)) = (&top, &rule.policy) {
                    older.policy = settle(None, Some(policy));
                    *top = Some(policy.clone());
                }
                for (name, subset) in subsets(rule.subsets, top.as_ref()) {
                    if older.subsets.contains_key(&name) {
                        let message = format!(
                            "{} is older and has subset {name} of {host}: this one has no effect",
                            older.key
                        );
                        fact.findings(list).add(Code::DefinedByOlder, "spec.subsets", message);
                        continue;
                    }
                    older.subsets.insert(name, subset);
                }
            }
        }
    }
    merged.into_values().map(|(policy, _)| policy).collect()
}

fn subsets(
    written: Vec<destination::Subset>,
    top: Option<&Policy>,
) -> impl Iterator<Item = (SubsetName, Subset)> {
    written.into_iter().map(move |subset| {
        let policy = settle(Some(&subset.policy), top);
        (subset.name, Subset { labels: subset.labels, policy })
    })
}

/// Port by port, the narrower policy's blocks over the wider's. A port named in one of them is decided on its own.
fn settle(narrow: Option<&Policy>, wide: Option<&Policy>) -> TrafficPolicy {
    let nothing = Policy::default();
    let (narrow, wide) = (narrow.unwrap_or(&nothing), wide.unwrap_or(&nothing));
    let over = |narrow: &Blocks, wide: &Blocks| narrow.over(wide).settle();
    let ports = narrow.ports.keys().chain(wide.ports.keys());
    TrafficPolicy {
        all: over(&narrow.all, &wide.all),
        ports: ports.map(|port| (*port, over(narrow.of(*port), wide.of(*port)))).collect(),
    }
}

fn check(
    fact: &Fact<'_, DestinationRule>,
    host: &Hostname,
    rule: &destination::Rule,
    hosts: &Hosts<'_>,
    pods: &Pods<'_>,
    list: &mut Vec<Diagnostic>,
) {
    let services = hosts.matching(host);
    if services.is_empty() {
        let message = format!("no service has the host {host}: the rule has no effect");
        fact.findings(list).add(Code::UnknownDestinationHost, "spec.host", message);
        return;
    }
    for (number, subset) in rule.subsets.iter().enumerate() {
        let labels = || subset.labels.iter().map(|(key, value)| (&**key, &**value));
        let is_somewhere = services.iter().any(|service| {
            pods.of(service.key.namespace.as_str()).iter().any(|pod| pod.has_labels(labels()))
        });
        if !is_somewhere {
            let message = format!("subset {} selects no pod: requests routed there get 503", subset.name);
            fact.findings(list).add(Code::EmptySubset, format!("spec.subsets[{number}].labels"), message);
        }
    }
}
