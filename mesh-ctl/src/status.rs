//! `meshctl status`: what each node holds and captures, and what is wrong with the configuration.

use std::{collections::BTreeMap, process::ExitCode};

use mesh_proto::v1::{
    CaptureState, Diagnostic, DumpRequest, NodeStatus, SettleRequest, Severity, StatusReply, StatusRequest,
    resource::Body,
};
use serde::Serialize;

use crate::{
    cli::{Globals, StatusArgs},
    connect::{self, Controller},
    exit::Failure,
    print::{Answer, Grid, verdict},
};

#[derive(Serialize)]
struct Report {
    controller: ControllerReport,
    nodes: Vec<NodeReport>,
    diagnostics: Vec<DiagnosticReport>,
    /// What `--wait` still awaited when its time was up.
    pending: Vec<String>,
}

#[derive(Serialize)]
struct ControllerReport {
    version: String,
    generation: u64,
    source: String,
    ca_not_after: String,
}

#[derive(Serialize)]
struct NodeReport {
    node: String,
    connected: bool,
    in_sync: bool,
    version: String,
    sent_generation: u64,
    acked_generation: u64,
    ack_age_ms: u64,
    refused: Vec<String>,
    workloads: Vec<WorkloadReport>,
}

#[derive(Serialize)]
struct WorkloadReport {
    uid: String,
    /// `namespace/name`; the UID of a pod that is gone.
    pod: String,
    state: &'static str,
    reason: String,
    uncaptured_connections: u64,
}

#[derive(Serialize)]
struct DiagnosticReport {
    severity: &'static str,
    code: String,
    object: String,
    field: String,
    message: String,
    origin: String,
}

/// Prints the status; exit code 2 if something is not as it should be.
pub async fn run(globals: &Globals, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let mut controller = connect::controller(globals).await?;
    let mut pending = Vec::new();
    if args.wait {
        // A little less than our own deadline, so that the controller can still say what is pending.
        let patience = globals.patience();
        let reply = controller
            .settle(SettleRequest { timeout_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX) })
            .await
            .map_err(|status| Failure::from_status("settle", &status))?
            .into_inner();
        pending = if reply.settled { Vec::new() } else { reply.pending };
    }
    let reply = controller
        .status(StatusRequest {})
        .await
        .map_err(|status| Failure::from_status("status", &status))?
        .into_inner();
    let mut report = report(reply, pending, args.node.as_deref())?;
    report.name_pods(&mut controller).await?;
    let good = report.good();
    report.answer().print(globals.output)?;
    Ok(verdict(good))
}

fn report(reply: StatusReply, pending: Vec<String>, only: Option<&str>) -> Result<Report, Failure> {
    let nodes: Vec<NodeReport> = reply
        .nodes
        .into_iter()
        .filter(|node| only.is_none_or(|name| node.node == name))
        .map(node_report)
        .collect();
    if let Some(name) = only.filter(|_| nodes.is_empty()) {
        return Err(Failure::bad_input(format!("the controller knows no node {name:?}")));
    }
    Ok(Report {
        controller: ControllerReport {
            version: reply.version,
            generation: reply.generation,
            source: reply.source,
            ca_not_after: reply.ca_not_after,
        },
        nodes,
        diagnostics: reply.diagnostics.into_iter().map(diagnostic_report).collect(),
        pending,
    })
}

fn node_report(node: NodeStatus) -> NodeReport {
    NodeReport {
        in_sync: node.connected && node.acked_generation >= node.sent_generation && node.refused.is_empty(),
        connected: node.connected,
        version: node.version,
        sent_generation: node.sent_generation,
        acked_generation: node.acked_generation,
        ack_age_ms: node.ack_age_ms,
        refused: node.refused.into_iter().map(|refused| refused.error).collect(),
        workloads: node
            .workloads
            .into_iter()
            .map(|workload| WorkloadReport {
                state: match workload.state() {
                    CaptureState::Captured => "captured",
                    CaptureState::NotCaptured => "not captured",
                    CaptureState::Refused => "refused",
                },
                pod: workload.uid.clone(),
                uid: workload.uid,
                reason: workload.reason,
                uncaptured_connections: workload.uncaptured_connections,
            })
            .collect(),
        node: node.node,
    }
}

fn diagnostic_report(diagnostic: Diagnostic) -> DiagnosticReport {
    DiagnosticReport {
        severity: match diagnostic.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        },
        code: diagnostic.code,
        object: diagnostic.object,
        field: diagnostic.field,
        message: diagnostic.message,
        origin: diagnostic.origin,
    }
}

impl Report {
    /// Nodes report UIDs; the controller knows whose they are.
    async fn name_pods(&mut self, controller: &mut Controller) -> Result<(), Failure> {
        if self.nodes.iter().all(|node| node.workloads.is_empty()) {
            return Ok(());
        }
        let dump = controller
            .dump(DumpRequest { node: String::new() })
            .await
            .map_err(|status| Failure::from_status("dump", &status))?
            .into_inner();
        let resources = dump.resources.into_iter().filter_map(|versioned| versioned.resource?.body);
        let pods: BTreeMap<String, String> = resources
            .filter_map(|body| match body {
                Body::Workload(pod) => Some((pod.uid, format!("{}/{}", pod.namespace, pod.name))),
                _ => None,
            })
            .collect();
        for workload in self.nodes.iter_mut().flat_map(|node| &mut node.workloads) {
            if let Some(pod) = pods.get(&workload.uid) {
                pod.clone_into(&mut workload.pod);
            }
        }
        Ok(())
    }

    fn good(&self) -> bool {
        self.pending.is_empty()
            && self
                .nodes
                .iter()
                .all(|node| node.in_sync && node.workloads.iter().all(|w| w.state != "refused"))
            && self.diagnostics.iter().all(|diagnostic| diagnostic.severity != "error")
    }

    fn answer(self) -> Answer<Self> {
        let mut summary = vec![format!(
            "controller {} · generation {} · source {} · CA until {}",
            self.controller.version,
            self.controller.generation,
            self.controller.source,
            self.controller.ca_not_after
        )];
        summary.extend(self.pending.iter().map(|what| format!("pending: {what}")));
        let nodes = Grid {
            title: String::new(),
            head: vec!["NODE", "STATE", "ACKED", "CAPTURED", "REFUSED", "VERSION", "ACK AGE"],
            rows: self.nodes.iter().map(NodeReport::row).collect(),
            wide_from: 6,
        };
        let workloads = Grid {
            title: "Workloads".to_owned(),
            head: vec!["NODE", "WORKLOAD", "STATE", "BEFORE ENROLMENT", "REASON"],
            rows: self
                .nodes
                .iter()
                .flat_map(|node| {
                    node.workloads.iter().map(|workload| {
                        vec![
                            node.node.clone(),
                            workload.pod.clone(),
                            workload.state.to_owned(),
                            workload.uncaptured_connections.to_string(),
                            workload.reason.clone(),
                        ]
                    })
                })
                .collect(),
            wide_from: 5,
        };
        let diagnostics = Grid {
            title: "Findings".to_owned(),
            head: vec!["SEVERITY", "CODE", "OBJECT", "FIELD", "MESSAGE", "ORIGIN"],
            rows: self
                .diagnostics
                .iter()
                .map(|d| {
                    [d.severity, &d.code, &d.object, &d.field, &d.message, &d.origin]
                        .into_iter()
                        .map(str::to_owned)
                        .collect()
                })
                .collect(),
            wide_from: 6,
        };
        let names = self.nodes.iter().map(|node| node.node.clone()).collect();
        Answer { kind: "Status", data: self, summary, tables: vec![nodes, workloads, diagnostics], names }
    }
}

impl NodeReport {
    fn row(&self) -> Vec<String> {
        let count = |state: &str| self.workloads.iter().filter(|w| w.state == state).count().to_string();
        let state = match (self.connected, self.in_sync) {
            (false, _) => "disconnected",
            (true, true) => "in sync",
            (true, false) if !self.refused.is_empty() => "refuses",
            (true, false) => "behind",
        };
        vec![
            self.node.clone(),
            state.to_owned(),
            format!("{}/{}", self.acked_generation, self.sent_generation),
            count("captured"),
            count("refused"),
            self.version.clone(),
            format!("{} ms", self.ack_age_ms),
        ]
    }
}
