//! The node's end of the controller's stream: receives resources, publishes snapshots, reports what is captured.
//!
//! Invariants: the only writer of the state; a bad resource is refused by name and the last good one stays; a stream that breaks
//! takes nothing away: the node goes on with what it has.

mod apply;
mod backoff;
mod controller;
mod session;

use std::{sync::Arc, time::Instant};

use mesh_model::name::NodeName;
use tokio::sync::watch;

pub(crate) use controller::status_text;
pub use controller::{Controller, ControllerError};
pub use mesh_proto::v1::WorkloadStatus;

use crate::{
    config::Limits,
    state::Writer,
    telemetry::{Counter, Gauge, Telemetry},
};

/// Where the capture room says what it has captured. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporter {
    latest: watch::Sender<Option<LocalReport>>,
}

#[derive(Clone, PartialEq, Debug)]
struct LocalReport {
    /// The snapshot that the kernel state follows.
    generation: u64,
    workloads: Arc<Vec<WorkloadStatus>>,
}

impl Reporter {
    /// Nothing is said yet.
    pub fn new() -> Self {
        Self { latest: watch::Sender::new(None) }
    }

    /// The whole truth about all local workloads; replaces what was said before. `generation` is the number of the snapshot that
    /// the kernel state follows: say so after every snapshot, also when nothing changed.
    pub fn report(&self, generation: u64, workloads: Vec<WorkloadStatus>) {
        self.latest.send_replace(Some(LocalReport { generation, workloads: Arc::new(workloads) }));
    }

    /// What was said last.
    pub fn latest(&self) -> Vec<WorkloadStatus> {
        self.latest.borrow().as_ref().map(|report| report.workloads.to_vec()).unwrap_or_default()
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

/// How the node stands with its controller, for readiness and people.
#[derive(Clone, Debug)]
pub struct Link {
    /// Whether the stream is up.
    pub connected: bool,
    /// Since when it is as it is.
    pub since: Instant,
    /// Why the last stream ended or could not be made.
    pub last_error: Option<String>,
}

/// What a feed is made of.
#[derive(Debug)]
pub struct Feed {
    /// This node.
    pub node: NodeName,
    /// `host:port` of the inspection API as others reach it; empty: none.
    pub inspect_address: String,
    /// How the controller is reached.
    pub controller: Controller,
    /// The state to write.
    pub writer: Writer,
    /// What capture says.
    pub reporter: Reporter,
    /// Time-outs and bounds.
    pub limits: Limits,
}

/// Counts of the stream.
#[derive(Clone, Debug)]
struct Metrics {
    connected: Gauge,
    connects: Counter,
    failures: Counter,
    resources: Counter,
    refused: Counter,
    generation: Gauge,
}

impl Feed {
    /// Connects and reconnects for ever; `link` is told of each change.
    pub async fn run(self, telemetry: &Telemetry, link: watch::Sender<Link>) {
        let metrics = Metrics::new(telemetry);
        let mut applier = apply::Applier::new(self.writer);
        let mut backoff =
            backoff::Backoff::new(self.limits.control_backoff_first, self.limits.control_backoff_last);
        loop {
            metrics.connects.inc();
            let session = session::Session {
                node: &self.node,
                inspect_address: &self.inspect_address,
                controller: &self.controller,
                limits: &self.limits,
                metrics: &metrics,
                link: &link,
            };
            let began = Instant::now();
            let ended = session.run(&mut applier, self.reporter.latest.subscribe()).await;
            metrics.connected.set(0);
            metrics.failures.inc();
            note_end(&link, ended.error.to_string());
            // One that ends at once is no recovery: two nodes of one name would take the stream from each other without a pause.
            if ended.received && began.elapsed() >= self.limits.control_backoff_last {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Tells of the end of a stream. A controller that stays away is news once, not at each attempt.
fn note_end(link: &watch::Sender<Link>, error: String) {
    link.send_modify(|link| {
        if link.connected || link.last_error.as_ref() != Some(&error) {
            tracing::warn!(error, "no stream of the controller; going on with what is here");
        }
        if std::mem::replace(&mut link.connected, false) {
            link.since = Instant::now();
        }
        link.last_error = Some(error);
    });
}

impl Metrics {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            connected: telemetry.gauge("mesh_controller_connected", "1 while the control stream is up"),
            connects: telemetry.counter("mesh_controller_connects", "Attempts to open the control stream"),
            failures: telemetry
                .counter("mesh_controller_stream_failures", "Control streams that ended or never began"),
            resources: telemetry.counter("mesh_resources_received", "Resources received, removals included"),
            refused: telemetry
                .counter("mesh_resources_refused", "Resources refused because they could not be decoded"),
            generation: telemetry.gauge("mesh_snapshot_generation", "The number of the current snapshot"),
        }
    }
}

#[cfg(test)]
mod tests;
