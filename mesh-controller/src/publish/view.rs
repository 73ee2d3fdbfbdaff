//! What the publisher shows to people: status, dump, diagnostics, as mesh-proto messages.

use std::cmp::Reverse;

use mesh_api::{Code, Diagnostic, Severity};
use mesh_model::name::NodeName;
use mesh_proto::{encode, v1};
use tokio::time::Instant;

use super::{Connection, Publisher, picture::Encoded};

/// Findings in one answer; with a kilobyte each they fit into gRPC's usual 4 MiB.
const MAX_FINDINGS: usize = 2000;

impl Publisher {
    /// For `meshctl status`.
    pub(super) fn status(&self) -> v1::StatusReply {
        let now = Instant::now();
        let nodes = self.nodes.iter().map(|node| match self.connections.get(node) {
            Some(connection) => connected(node, connection, now),
            None => v1::NodeStatus { node: node.to_string(), ..v1::NodeStatus::default() },
        });
        v1::StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.picture.generation(),
            nodes: nodes.collect(),
            diagnostics: self.findings(),
            ca_not_after: self.facts.ca_not_after.clone(),
            source: self.facts.source.clone(),
        }
    }

    /// Of the compiler and of the nodes; the worst first, and not more than a message should hold.
    pub(super) fn findings(&self) -> Vec<v1::Diagnostic> {
        let compiled = self.diagnostics.iter().map(diagnostic);
        let mut findings: Vec<v1::Diagnostic> = compiled.chain(self.refused_captures()).collect();
        findings.sort_by_key(|finding| Reverse(finding.severity));
        findings.truncate(MAX_FINDINGS);
        findings
    }

    /// What a label asks for and a node cannot do: a finding of the pod, since its owner looks there.
    fn refused_captures(&self) -> impl Iterator<Item = v1::Diagnostic> {
        self.connections.iter().flat_map(move |(node, connection)| {
            let refused = connection.stream.reported();
            let refused = refused.filter(|(_, reported)| reported.state == v1::CaptureState::Refused);
            refused.map(move |(uid, reported)| v1::Diagnostic {
                severity: v1::Severity::Error.into(),
                code: Code::EnrolmentRefused.to_string(),
                object: format!("Pod {}", self.workload_name(uid)),
                field: String::new(),
                message: format!("{node} does not capture it: {}", reported.reason),
                origin: String::new(),
            })
        })
    }

    /// For `meshctl config`; None: there is no such node.
    pub(super) fn dump(&self, node: Option<&NodeName>) -> Option<v1::DumpReply> {
        if node.is_some_and(|node| !self.nodes.contains(node)) {
            return None;
        }
        let resources = self.picture.seen_by(node).map(|(_, encoded)| versioned(encoded)).collect();
        Some(v1::DumpReply { resources, generation: self.picture.generation() })
    }
}

/// A resource with its version, as it travels.
pub(super) fn versioned(encoded: &Encoded) -> v1::VersionedResource {
    v1::VersionedResource { version: encoded.version.to_bytes(), resource: Some(encoded.message.clone()) }
}

fn diagnostic(finding: &Diagnostic) -> v1::Diagnostic {
    let severity = match finding.severity {
        Severity::Info => v1::Severity::Info,
        Severity::Warning => v1::Severity::Warning,
        Severity::Error => v1::Severity::Error,
    };
    v1::Diagnostic {
        severity: severity.into(),
        code: finding.code.to_string(),
        object: finding.object.as_ref().map(ToString::to_string).unwrap_or_default(),
        field: finding.field.clone(),
        message: finding.message.clone(),
        origin: finding.place().map(ToString::to_string).unwrap_or_default(),
    }
}

fn connected(node: &NodeName, connection: &Connection, now: Instant) -> v1::NodeStatus {
    let stream = &connection.stream;
    let refused = stream
        .refused()
        .map(|(key, refused)| v1::Refused { key: Some(encode::key(key)), error: refused.error.clone() });
    let workloads = stream.reported().map(|(uid, reported)| v1::WorkloadStatus {
        uid: uid.to_string(),
        state: reported.state.into(),
        reason: reported.reason.clone(),
        uncaptured_connections: reported.uncaptured_connections,
    });
    let mut status = v1::NodeStatus {
        node: node.to_string(),
        connected: true,
        version: connection.version.clone(),
        sent_generation: stream.sent_generation(),
        acked_generation: stream.acked_generation(),
        ack_age_ms: now.duration_since(connection.acked_at).as_millis() as u64,
        refused: refused.collect(),
        workloads: workloads.collect(),
        inspect_address: connection.inspect_address.clone(),
    };
    status.workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    status
}
