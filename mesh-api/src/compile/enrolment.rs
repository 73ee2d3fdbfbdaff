//! Which workloads shall be in the mesh: labels, and what forbids it.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use mesh_model::name::WorkloadUid;

use super::{
    EnrolmentDecision,
    pods::{Live, Pods},
};
use crate::{
    diagnostic::{Code, Diagnostic, Findings},
    index::{Fact, Index},
    object::Object,
    read::pod,
};

/// Ours: `enabled` or `disabled`.
const OWN_LABEL: &str = "tulle.dev/mesh";
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

/// Decides for every workload.
pub(super) fn decide(
    index: &Index,
    pods: &Pods<'_>,
    list: &mut Vec<Diagnostic>,
) -> BTreeMap<WorkloadUid, EnrolmentDecision> {
    let compat = index.options().istio_labels;
    let namespaces = index.facts(|object| match object {
        Object::Namespace(namespace) => Some(&**namespace),
        _ => None,
    });
    let wanted_in: BTreeMap<&str, bool> = namespaces
        .filter_map(|fact| Some((&*fact.reference.name, of_namespace(&fact, compat, list)?)))
        .collect();
    let mut decisions = BTreeMap::new();
    for pod in pods.iter() {
        let own = of_pod(pod, compat, list);
        let wanted = own.or_else(|| wanted_in.get(pod.namespace.as_str()).copied()).unwrap_or(false);
        let decision = match (wanted, refusal(pod)) {
            (false, _) => EnrolmentDecision::NotWanted,
            (true, None) => EnrolmentDecision::Wanted,
            (true, Some(reason)) => {
                let message = format!("not enrolled: {reason}");
                pod.fact.findings(list).add(Code::EnrolmentRefused, "", message);
                EnrolmentDecision::Refused(reason)
            }
        };
        decisions.insert(pod.uid.clone(), decision);
    }
    decisions
}

/// A label or annotation of Istio's, and what it wants.
struct Hint {
    field: &'static str,
    wants: bool,
}

fn of_namespace(fact: &Fact<'_, Namespace>, compat: bool, list: &mut Vec<Diagnostic>) -> Option<bool> {
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

fn of_pod(pod: &Live<'_>, compat: bool, list: &mut Vec<Diagnostic>) -> Option<bool> {
    let metadata = &pod.fact.object.metadata;
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
    let mut findings = pod.fact.findings(list);
    settle(own(metadata, &mut findings), hints.into_iter().flatten().collect(), compat, &mut findings)
}

/// Ours wins; then Istio's in order, if they count.
fn settle(own: Option<bool>, hints: Vec<Hint>, compat: bool, findings: &mut Findings<'_>) -> Option<bool> {
    if !compat {
        for hint in hints.iter().filter(|hint| hint.wants && own.is_none()) {
            let message =
                format!("labels of Istio have no effect here (compat.istioLabels is off): use {OWN_LABEL}");
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
    match label(metadata, OWN_LABEL)? {
        "enabled" => Some(true),
        "disabled" => Some(false),
        other => {
            let message = format!("{other:?} is neither `enabled` nor `disabled`: the label has no effect");
            findings.add(Code::InvalidAnnotation, format!("metadata.labels[{OWN_LABEL:?}]"), message);
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
    pod.displaced_by
        .as_ref()
        .map(|owner| format!("its address or network namespace belongs to the newer {owner}"))
}
