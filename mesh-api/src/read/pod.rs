//! Pod -> what a workload needs of it, and whether it is one.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use mesh_model::workload::{Exclusions, Telemetry};

use super::value;
use crate::diagnostic::{Code, Findings};

/// Names the pod's network namespace, in the directory source.
pub(crate) const NETNS_ANNOTATION: &str = "tulle.dev/netns";
/// The kubelet puts it on the API server's copy of a static pod.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Beside it: the UID of the static pod, which the runtime and the CNI know; the copy has one of its own.
const STATIC_UID_ANNOTATION: &str = "kubernetes.io/config.hash";
/// The name of the cluster in telemetry.
const CLUSTER: &str = "Kubernetes";

/// Why a pod is no workload: it has no identity, or does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoWorkload {
    /// It has ended.
    Finished,
    /// The scheduler has not placed it.
    NotPlaced,
    /// The kubelet's copy of a static pod, whose service account nobody checked.
    Mirror,
    /// An empty service account.
    NoIdentity,
}

/// The node and the service account, or why there is no workload.
pub(crate) fn placement(pod: &Pod) -> Result<(&str, &str), NoWorkload> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Err(NoWorkload::Finished);
    }
    if annotation(pod, MIRROR_ANNOTATION).is_some() {
        return Err(NoWorkload::Mirror);
    }
    let spec = pod.spec.as_ref().ok_or(NoWorkload::NotPlaced)?;
    let node = spec.node_name.as_deref().filter(|node| !node.is_empty()).ok_or(NoWorkload::NotPlaced)?;
    match spec.service_account_name.as_deref() {
        // The API server fills it in; in a directory its absence means the same.
        None => Ok((node, "default")),
        Some("") => Err(NoWorkload::NoIdentity),
        Some(account) => Ok((node, account)),
    }
}

/// The node of a static pod and its UID there, if this is the copy of one that runs.
pub(crate) fn static_pod(pod: &Pod) -> Option<(&str, &str)> {
    if placement(pod) != Err(NoWorkload::Mirror) {
        return None;
    }
    let is_hash = |uid: &&str| (1..=64).contains(&uid.len()) && uid.bytes().all(|c| c.is_ascii_hexdigit());
    let node = pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())?;
    Some((node, annotation(pod, STATIC_UID_ANNOTATION).filter(is_hash)?))
}

/// Checks what becomes part of identities, paths and keys.
pub(crate) fn check(pod: &Pod, findings: &mut Findings<'_>) {
    let spec = pod.spec.clone().unwrap_or_default();
    for (field, name) in [("nodeName", &spec.node_name), ("serviceAccountName", &spec.service_account_name)] {
        if let Some(name) = name.as_ref().filter(|name| !name.is_empty() && !value::is_dns_name(name)) {
            findings.add(Code::Invalid, format!("spec.{field}"), format!("{name:?} is not a DNS name"));
        }
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if let Some(uid) = pod.metadata.uid.as_ref().filter(|uid| uid.len() > 253 || !uid.chars().all(fits)) {
        let message = format!("{uid:?} is not a UID: letters, digits, `-`, `.` and `_` only");
        findings.add(Code::Invalid, "metadata.uid", message);
    }
    let status = pod.status.clone().unwrap_or_default();
    for text in address_texts(&status).filter(|text| text.parse::<IpAddr>().is_err()) {
        findings.add(Code::Invalid, "status.podIPs", format!("{text:?} is not an IP address"));
    }
    if let (Some(text), None) = (annotation(pod, NETNS_ANNOTATION), netns(pod)) {
        let message = format!("{text:?} is not an absolute path");
        findings.add(Code::InvalidAnnotation, format!("metadata.annotations[{NETNS_ANNOTATION:?}]"), message);
    }
    exclusions(pod, findings);
}

/// The pod's addresses, canonical, the primary one first.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in pod.status.iter().flat_map(address_texts) {
        if let Ok(ip) = text.parse::<IpAddr>().map(|ip| ip.to_canonical())
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    addresses
}

fn address_texts(status: &PodStatus) -> impl Iterator<Item = &str> {
    let more = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    status.pod_ip.as_deref().into_iter().chain(more).filter(|text| !text.is_empty())
}

/// Whether it shares the node's network.
pub(crate) fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

/// Whether it takes new connections. Without a Ready condition it does.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"))
        .is_none_or(|condition| condition.status == "True");
    let running = status.and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Running");
    ready && running && pod.metadata.deletion_timestamp.is_none()
}

/// The number of a container's port that has this name.
pub(crate) fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let containers = |spec: &PodSpec| {
        let sidecars = spec.init_containers.clone().unwrap_or_default();
        spec.containers.iter().cloned().chain(sidecars).collect::<Vec<_>>()
    };
    let ports =
        pod.spec.iter().flat_map(containers).flat_map(|container| container.ports.unwrap_or_default());
    ports
        .into_iter()
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .and_then(|port| u16::try_from(port.container_port).ok())
}

/// A container of this name is there, at work or to start.
pub(crate) fn has_container(pod: &Pod, name: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let starters = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(starters).any(|container| container.name == name)
    })
}

/// An annotation.
pub(crate) fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The path of its network namespace, as annotated.
pub(crate) fn netns(pod: &Pod) -> Option<&str> {
    annotation(pod, NETNS_ANNOTATION).filter(|path| path.starts_with('/'))
}

/// A label.
pub(crate) fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// All labels.
pub(crate) fn labels(pod: &Pod) -> BTreeMap<Arc<str>, Arc<str>> {
    let labels = pod.metadata.labels.iter().flatten();
    labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// What bypasses the proxy; a value that cannot be read is a finding and bypasses nothing.
pub(crate) fn exclusions(pod: &Pod, findings: &mut Findings<'_>) -> Exclusions {
    let mut read = Reader { pod, findings };
    Exclusions {
        outbound_ports: read.list(
            ["tulle.dev/exclude-outbound-ports", "traffic.sidecar.istio.io/excludeOutboundPorts"],
            value::port_text,
        ),
        outbound_cidrs: read.list(
            ["tulle.dev/exclude-outbound-cidrs", "traffic.sidecar.istio.io/excludeOutboundIPRanges"],
            value::network,
        ),
        inbound_ports: read.list(
            ["tulle.dev/exclude-inbound-ports", "traffic.sidecar.istio.io/excludeInboundPorts"],
            value::port_text,
        ),
    }
}

struct Reader<'a, 'b> {
    pod: &'a Pod,
    findings: &'a mut Findings<'b>,
}

impl Reader<'_, '_> {
    fn list<T: PartialEq>(&mut self, names: [&str; 2], read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for name in names {
            let items = annotation(self.pod, name).unwrap_or_default().split(',').map(str::trim);
            for item in items.filter(|item| !item.is_empty()) {
                match read(item) {
                    Ok(value) if values.contains(&value) => (),
                    Ok(value) => values.push(value),
                    Err(problem) => {
                        let field = format!("metadata.annotations[{name:?}]");
                        self.findings.add(Code::InvalidAnnotation, field, problem);
                    }
                }
            }
        }
        values
    }
}

/// Names for metrics and logs.
pub(crate) fn telemetry(pod: &Pod) -> Telemetry {
    let (workload_name, workload_type) = owner(pod);
    let first = |names: &[&str]| names.iter().find_map(|name| label(pod, name)).map(Arc::<str>::from);
    let app = first(&["app", "app.kubernetes.io/name"]);
    let version = first(&["version", "app.kubernetes.io/version"]);
    let canonical = first(&["service.istio.io/canonical-name"]).or_else(|| app.clone());
    let revision = first(&["service.istio.io/canonical-revision"]).or_else(|| version.clone());
    Telemetry {
        canonical_service: canonical.unwrap_or_else(|| workload_name.clone()),
        canonical_revision: revision.unwrap_or_else(|| "latest".into()),
        app: app.unwrap_or_else(|| "unknown".into()),
        version: version.unwrap_or_else(|| "unknown".into()),
        workload_name,
        workload_type,
        cluster: CLUSTER.into(),
    }
}

/// The workload that made the pod: a Deployment's name is its ReplicaSet's without the hash, a CronJob's its Job's without the time.
pub(crate) fn owner(pod: &Pod) -> (Arc<str>, Arc<str>) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return (name.into(), "pod".into());
    };
    let hash = label(pod, "pod-template-hash").unwrap_or_default();
    match owner.kind.as_str() {
        "ReplicaSet" => match owner.name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')) {
            Some(deployment) if !hash.is_empty() => (deployment.into(), "deployment".into()),
            _ => (owner.name.as_str().into(), "replicaset".into()),
        },
        "Job" => match owner.name.rsplit_once('-') {
            Some((cron, time)) if time.len() >= 8 && time.bytes().all(|c| c.is_ascii_digit()) => {
                (cron.into(), "cronjob".into())
            }
            _ => (owner.name.as_str().into(), "job".into()),
        },
        kind => (owner.name.as_str().into(), kind.to_ascii_lowercase().into()),
    }
}
