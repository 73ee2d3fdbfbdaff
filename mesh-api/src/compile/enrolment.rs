//! Which workloads shall be in the mesh: labels, and what forbids it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Namespace as Written, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_model::{
    mesh::MeshSettings,
    name::{Namespace, WorkloadUid},
};

use super::{
    EnrolmentDecision,
    pods::{Live, Pods},
    statics::Static,
};
use crate::{
    diagnostic::{Code, Diagnostic, Findings},
    index::{Fact, Index},
    object::{ENROLMENT_LABEL, Object},
    read::pod,
};

/// Istio's, of ambient: `ambient` or `none`.
const DATAPLANE_LABEL: &str = "istio.io/dataplane-mode";
/// Istio's, on namespaces: `enabled` or `disabled`.
const INJECTION_LABEL: &str = "istio-injection";
/// Istio's, on pods, label or annotation: `true` or `false`.
const INJECT: &str = "sidecar.istio.io/inject";
/// Put on a pod that Istio's own agent has captured.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Istio's sidecar.
const SIDECAR: &str = "istio-proxy";

/// What the labels want.
pub(super) struct Decided {
    /// Of every workload.
    pub(super) workloads: BTreeMap<WorkloadUid, EnrolmentDecision>,
    /// The namespaces whose label enrols their pods.
    pub(super) namespaces: BTreeSet<Namespace>,
}

/// Why a static pod never is in the mesh.
const IS_STATIC: &str = "it is a static pod: nobody checked its service account, so it has no identity";

/// Decides for every namespace and workload.
pub(super) fn decide(
    index: &Index,
    mesh: &MeshSettings,
    pods: &Pods<'_>,
    statics: &[Static<'_>],
    list: &mut Vec<Diagnostic>,
) -> Decided {
    let namespaces = of_namespaces(index, mesh, list);
    let mut workloads = BTreeMap::new();
    for pod in pods.iter() {
        let wanted = is_wanted(index, mesh, &pod.fact, &namespaces, list);
        workloads.insert(pod.uid.clone(), of_wish(wanted, refusal(pod), &pod.fact, list));
    }
    for pod in statics {
        let wanted = is_wanted(index, mesh, &pod.fact, &namespaces, list);
        workloads.insert(pod.uid.clone(), of_wish(wanted, Some(IS_STATIC.to_owned()), &pod.fact, list));
    }
    Decided { workloads, namespaces }
}

/// Whether the labels ask for the pod.
fn is_wanted(
    index: &Index,
    mesh: &MeshSettings,
    fact: &Fact<'_, Pod>,
    enrolled: &BTreeSet<Namespace>,
    list: &mut Vec<Diagnostic>,
) -> bool {
    let namespace = Namespace::new(fact.reference.namespace.clone());
    let by_label = of_pod(fact, index.options().istio_labels, list);
    let is_open = is_open(index, mesh, &namespace, by_label, &mut fact.findings(list));
    is_open && by_label.unwrap_or_else(|| enrolled.contains(&namespace))
}

fn of_wish(
    wanted: bool,
    refusal: Option<String>,
    fact: &Fact<'_, Pod>,
    list: &mut Vec<Diagnostic>,
) -> EnrolmentDecision {
    match (wanted, refusal) {
        (false, _) => EnrolmentDecision::NotWanted,
        (true, None) => EnrolmentDecision::Wanted,
        (true, Some(reason)) => {
            if fact.object.metadata.deletion_timestamp.is_none() {
                let message = format!("not enrolled: {reason}");
                fact.findings(list).add(Code::EnrolmentRefused, "", message);
            }
            EnrolmentDecision::Refused(reason)
        }
    }
}

fn of_namespaces(index: &Index, mesh: &MeshSettings, list: &mut Vec<Diagnostic>) -> BTreeSet<Namespace> {
    let written = index.facts(|object| match object {
        Object::Namespace(namespace) => Some(&**namespace),
        _ => None,
    });
    let mut enrolled = BTreeSet::new();
    for fact in written {
        let name = Namespace::new(fact.reference.name.clone());
        let by_label = of_namespace(&fact, index.options().istio_labels, list);
        let is_open = is_open(index, mesh, &name, by_label, &mut fact.findings(list));
        if is_open && by_label == Some(true) {
            enrolled.insert(name);
        }
    }
    enrolled
}

/// Whether labels count in this namespace. If one asks there in vain, it is said.
fn is_open(
    index: &Index,
    mesh: &MeshSettings,
    namespace: &Namespace,
    by_label: Option<bool>,
    findings: &mut Findings<'_>,
) -> bool {
    let own = index.options().own_namespace.as_ref();
    let is_exempt = mesh.is_exempt(own, namespace);
    if is_exempt && by_label == Some(true) {
        let reason = match own == Some(namespace) {
            true => "the mesh itself runs in this namespace".to_owned(),
            false => format!("{namespace} is among the mesh's excludedNamespaces"),
        };
        findings.add(Code::LabelWithoutEffect, "metadata.labels", format!("not enrolled: {reason}"));
    }
    !is_exempt && !mesh.leaving
}

/// A label or annotation of Istio's, and what it wants.
struct Hint {
    field: &'static str,
    wants: bool,
}

fn of_namespace(fact: &Fact<'_, Written>, compat: bool, list: &mut Vec<Diagnostic>) -> Option<bool> {
    let metadata = &fact.object.metadata;
    let hints = [
        hint(
            label(metadata, DATAPLANE_LABEL),
            "metadata.labels[\"istio.io/dataplane-mode\"]",
            "ambient",
            "none",
        ),
        hint(label(metadata, INJECTION_LABEL), "metadata.labels[\"istio-injection\"]", "enabled", "disabled"),
    ];
    let mut findings = fact.findings(list);
    settle(own(metadata, &mut findings), hints.into_iter().flatten().collect(), compat, &mut findings)
}

fn of_pod(fact: &Fact<'_, Pod>, compat: bool, list: &mut Vec<Diagnostic>) -> Option<bool> {
    let metadata = &fact.object.metadata;
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(INJECT)).map(String::as_str);
    let hints = [
        hint(
            label(metadata, DATAPLANE_LABEL),
            "metadata.labels[\"istio.io/dataplane-mode\"]",
            "ambient",
            "none",
        ),
        hint(label(metadata, INJECT), "metadata.labels[\"sidecar.istio.io/inject\"]", "true", "false"),
        hint(annotation, "metadata.annotations[\"sidecar.istio.io/inject\"]", "true", "false"),
    ];
    let mut findings = fact.findings(list);
    settle(own(metadata, &mut findings), hints.into_iter().flatten().collect(), compat, &mut findings)
}

/// Ours wins; then Istio's in order, if they count.
fn settle(own: Option<bool>, hints: Vec<Hint>, compat: bool, findings: &mut Findings<'_>) -> Option<bool> {
    if !compat {
        for hint in hints.iter().filter(|hint| hint.wants && own.is_none()) {
            let message = format!(
                "labels of Istio have no effect here (compat.istioLabels is off): use {ENROLMENT_LABEL}"
            );
            findings.add(Code::LabelWithoutEffect, hint.field, message);
        }
        return own;
    }
    let decided = own.or_else(|| hints.first().map(|hint| hint.wants));
    for hint in hints.iter().filter(|hint| Some(hint.wants) != decided) {
        let message = format!(
            "contradicts another label; {} it is",
            if decided == Some(true) { "enrolled" } else { "not enrolled" }
        );
        findings.add(Code::ContradictingLabels, hint.field, message);
    }
    decided
}

fn own(metadata: &ObjectMeta, findings: &mut Findings<'_>) -> Option<bool> {
    match label(metadata, ENROLMENT_LABEL)? {
        "enabled" => Some(true),
        "disabled" => Some(false),
        other => {
            let message = format!("{other:?} is neither `enabled` nor `disabled`: the label has no effect");
            findings.add(Code::InvalidAnnotation, format!("metadata.labels[{ENROLMENT_LABEL:?}]"), message);
            None
        }
    }
}

fn hint(value: Option<&str>, field: &'static str, yes: &str, no: &str) -> Option<Hint> {
    let value = value?;
    let wants = if value == yes {
        true
    } else if value == no {
        false
    } else {
        return None;
    };
    Some(Hint { field, wants })
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Why the pod cannot be captured, whatever its labels say.
fn refusal(pod: &Live<'_>) -> Option<String> {
    let object = pod.fact.object;
    if pod::is_host_network(object) {
        return Some("it is on the host's network, which is not the pod's own".to_owned());
    }
    if pod::has_container(object, SIDECAR) {
        return Some(format!("it has a container {SIDECAR}, which captures its traffic already"));
    }
    if pod::annotation(object, REDIRECTION) == Some("enabled") {
        return Some("Istio's ambient mode captures its traffic already".to_owned());
    }
    pod.displaced_by.as_ref().map(|owner| format!("its network namespace belongs to the newer {owner}"))
}
