//! The label values of Istio's standard metrics. Every label is always there; what is not known says "unknown".
//!
//! Source: `reference/semantics.md` §5.1.

use std::sync::Arc;

use mesh_model::{identity::Identity, workload::Workload};

use super::{
    cache::Outcome,
    record::{ConnectionRecord, Reporter, RequestProtocol, Security},
};

const UNKNOWN: &str = "unknown";
/// The clusters that stand for destinations outside of the mesh; Istio names them as the service, and Kiali shows them.
const OUTSIDE: [&str; 2] = ["PassthroughCluster", "BlackHoleCluster"];

/// One label with its value, escaped.
pub(super) type Label = (&'static str, String);

/// The names of a workload in metrics: two pods of one Deployment have the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Names {
    workload: Arc<str>,
    namespace: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
    canonical_service: Arc<str>,
    canonical_revision: Arc<str>,
}

/// What tells one series from another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Labels {
    reporter: Reporter,
    source: Option<Names>,
    source_principal: Option<Identity>,
    destination: Option<Names>,
    destination_principal: Option<Identity>,
    service_host: Arc<str>,
    service_name: Arc<str>,
    service_namespace: Arc<str>,
    protocol: RequestProtocol,
    security: Security,
    outcome: Outcome,
}

impl Names {
    pub(super) fn of(workload: &Workload) -> Self {
        let telemetry = &workload.telemetry;
        Self {
            workload: telemetry.workload_name.clone(),
            namespace: workload.namespace.as_str().into(),
            app: telemetry.app.clone(),
            version: telemetry.version.clone(),
            cluster: telemetry.cluster.clone(),
            canonical_service: telemetry.canonical_service.clone(),
            canonical_revision: telemetry.canonical_revision.clone(),
        }
    }
}

impl Labels {
    pub(super) fn new(record: &ConnectionRecord, outcome: Outcome) -> Self {
        let destination = record.destination.as_deref().map(Names::of);
        let (service_host, service_name, service_namespace) = match record.service.as_deref() {
            Some(service) => (
                service.key.host.as_str().into(),
                service.name.as_str().into(),
                service.key.namespace.as_str().into(),
            ),
            None => (
                Arc::from(UNKNOWN),
                Arc::from(outside(record).unwrap_or(UNKNOWN)),
                destination.as_ref().map_or_else(|| Arc::from(UNKNOWN), |names| names.namespace.clone()),
            ),
        };
        Self {
            reporter: record.reporter,
            source: record.source.as_deref().map(Names::of),
            source_principal: record.source_identity.clone(),
            destination,
            destination_principal: record.destination_identity.clone(),
            service_host,
            service_name,
            service_namespace,
            protocol: record.protocol,
            // Istio's source side does not say it, whatever it knows.
            security: match record.reporter {
                Reporter::Source => Security::Unknown,
                Reporter::Destination => record.security,
            },
            outcome,
        }
    }

    /// The workloads it is about.
    pub(super) fn parties(&self) -> impl Iterator<Item = &Names> {
        self.source.iter().chain(&self.destination)
    }

    /// As written in the exposition; `with_status` adds the two labels that TCP does not have.
    pub(super) fn pairs(&self, with_status: bool) -> Vec<Label> {
        let mut pairs = Vec::with_capacity(27);
        pairs.push(("reporter", self.reporter.as_str().to_owned()));
        push_party(&mut pairs, &SOURCE, self.source.as_ref(), self.source_principal.as_ref());
        push_party(&mut pairs, &DESTINATION, self.destination.as_ref(), self.destination_principal.as_ref());
        pairs.push(("destination_service", known(&self.service_host)));
        pairs.push(("destination_service_name", known(&self.service_name)));
        pairs.push(("destination_service_namespace", known(&self.service_namespace)));
        pairs.push(("request_protocol", self.protocol.as_str().to_owned()));
        if with_status {
            pairs.push(("response_code", self.outcome.status.to_string()));
            let grpc =
                self.outcome.grpc_status.map_or_else(|| UNKNOWN.to_owned(), |status| status.to_string());
            pairs.push(("grpc_response_status", grpc));
        }
        pairs.push(("response_flags", self.outcome.flags.to_string()));
        pairs.push(("connection_security_policy", self.security.as_str().to_owned()));
        pairs
    }
}

/// The name that stands for the service of a destination outside of the mesh.
pub(super) fn outside(record: &ConnectionRecord) -> Option<&'static str> {
    let cluster = record.cluster.as_deref().filter(|_| record.service.is_none())?;
    OUTSIDE.into_iter().find(|name| *name == cluster)
}

const SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];
const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];

fn push_party(
    pairs: &mut Vec<Label>,
    keys: &[&'static str; 8],
    names: Option<&Names>,
    principal: Option<&Identity>,
) {
    let principal = principal.map_or_else(|| UNKNOWN.to_owned(), |identity| escaped(&identity.to_string()));
    let of = |part: fn(&Names) -> &str| names.map_or_else(|| UNKNOWN.to_owned(), |names| known(part(names)));
    let values = [
        of(|names| &names.workload),
        of(|names| &names.namespace),
        principal,
        of(|names| &names.app),
        of(|names| &names.version),
        of(|names| &names.cluster),
        of(|names| &names.canonical_service),
        of(|names| &names.canonical_revision),
    ];
    pairs.extend(keys.iter().copied().zip(values));
}

/// The escaped value, or "unknown" for an empty one: Prometheus drops labels with empty values.
fn known(value: &str) -> String {
    if value.is_empty() { UNKNOWN.to_owned() } else { escaped(value) }
}

/// As the text format wants it; the encoder does not do it.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}
