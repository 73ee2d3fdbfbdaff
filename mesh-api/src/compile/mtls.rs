//! PeerAuthentication, resolved to each workload: port, then workload, then namespace, then mesh, then PERMISSIVE.

use std::collections::BTreeMap;

use mesh_model::{
    mesh::MeshSettings,
    mtls::{MtlsMode, MtlsModes},
    name::WorkloadUid,
};

use super::pods::{Live, Pods};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::{Object, PeerAuthentication, istio::WorkloadSelector},
    read::{
        peer::{self, Modes},
        selector,
    },
};

struct Written<'a> {
    fact: Fact<'a, PeerAuthentication>,
    modes: Modes,
    selector: Option<&'a WorkloadSelector>,
}

/// Resolves the modes of every workload.
pub(super) fn compile(
    index: &Index,
    mesh: &MeshSettings,
    pods: &Pods<'_>,
    list: &mut Vec<Diagnostic>,
) -> BTreeMap<WorkloadUid, MtlsModes> {
    let facts = index.facts(|object| match object {
        Object::PeerAuthentication(peer) => Some(&**peer),
        _ => None,
    });
    let mut written: Vec<Written<'_>> = facts
        .map(|fact| Written {
            modes: match fact.is_closed {
                true => Modes { default: Some(MtlsMode::Strict), ports: BTreeMap::new() },
                false => peer::read(&fact.object.spec, &mut fact.findings(&mut Vec::new())),
            },
            selector: selector::of(fact.object.spec.selector.as_ref(), fact.is_closed),
            fact,
        })
        .collect();
    written.sort_by_key(|peer| peer.fact.object.metadata.creation_timestamp.clone());
    name_useless(&written, pods, list);
    let resolved = pods.iter().map(|pod| (pod.uid.clone(), resolve(&written, mesh, pod)));
    resolved.collect()
}

fn resolve(written: &[Written<'_>], mesh: &MeshSettings, pod: &Live<'_>) -> MtlsModes {
    let in_namespace = |peer: &&Written<'_>, namespace: &str| *peer.fact.reference.namespace == *namespace;
    let wide = |namespace: &str| {
        written.iter().find(|peer| peer.selector.is_none() && in_namespace(peer, namespace))
    };
    let own = written.iter().find(|peer| selects(peer, pod));
    let scopes = [own, wide(pod.namespace.as_str()), wide(mesh.root_namespace.as_str())];
    let decided = scopes.into_iter().flatten().find_map(|peer| Some((peer, peer.modes.default?)));
    let default = decided.map_or(MtlsMode::default(), |(_, mode)| mode);
    let ports: BTreeMap<u16, MtlsMode> = own
        .iter()
        .flat_map(|peer| &peer.modes.ports)
        .map(|(port, mode)| (*port, mode.unwrap_or(default)))
        .collect();
    let from = match own.filter(|_| !ports.is_empty()).or(decided.map(|(peer, _)| peer)) {
        Some(peer) => peer.fact.reference.to_string(),
        None => String::new(),
    };
    MtlsModes { default, ports, from }
}

/// By its selector, in its own namespace; in the root namespace too it is for that namespace's pods only.
fn selects(peer: &Written<'_>, pod: &Live<'_>) -> bool {
    *peer.fact.reference.namespace == *pod.namespace.as_str()
        && peer.selector.is_some_and(|selector| {
            pod.has_labels(selector.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        })
}

/// Those that an older one of the same scope hides, and those that select nothing.
fn name_useless(written: &[Written<'_>], pods: &Pods<'_>, list: &mut Vec<Diagnostic>) {
    for (number, peer) in written.iter().enumerate() {
        let older = written.get(..number).unwrap_or_default();
        let hides = |other: &&Written<'_>| match (peer.selector, other.selector) {
            (None, None) => peer.fact.reference.namespace == other.fact.reference.namespace,
            (Some(_), Some(_)) => pods.iter().any(|pod| selects(peer, pod) && selects(other, pod)),
            _ => false,
        };
        if let Some(other) = older.iter().find(hides) {
            let message = format!("{} is older and for the same pods: it decides", other.fact.reference);
            peer.fact.findings(list).add(Code::ShadowedMtls, "spec.selector", message);
        }
        if peer.selector.is_some() && !pods.iter().any(|pod| selects(peer, pod)) {
            peer.fact.findings(list).add(Code::SelectsNothing, "spec.selector", "the policy selects no pod");
        }
    }
}
