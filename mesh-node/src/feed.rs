//! The node's end of the controller's stream: receives resources, publishes snapshots, reports what is captured.
//!
//! Invariant: the only writer of the state; a bad resource is refused by name and the last good one stays.

use tokio::sync::watch;

pub use mesh_proto::v1::WorkloadStatus;

/// Where the capture room says what it has captured.
#[derive(Clone, Debug)]
pub struct Reporter {
    latest: watch::Sender<Option<Vec<WorkloadStatus>>>,
}

impl Reporter {
    /// The whole truth about all local workloads; replaces what was said before.
    pub fn report(&self, workloads: Vec<WorkloadStatus>) {
        self.latest.send_replace(Some(workloads));
    }
}
