//! A node that is connected: its stream's state and the way to it.

use std::time::Duration;

use mesh_model::{name::NodeName, resource::ResourceKey};
use mesh_proto::v1;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    command::StreamId,
    stream::{Stream, Violation},
};
use crate::metrics::Metrics;

/// A node that does not acknowledge a delta for this long is taken for dead.
pub(super) const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// One stream, and what is known of the node at its other end.
pub(super) struct Connection {
    pub(super) id: StreamId,
    pub(super) stream: Stream,
    pub(super) outbound: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
    pub(super) over: CancellationToken,
    pub(super) version: String,
    pub(super) inspect_address: String,
    pub(super) sent_at: Instant,
    pub(super) acked_at: Instant,
}

impl Connection {
    pub(super) fn acknowledge(
        &mut self,
        node: &NodeName,
        nonce: u64,
        refused: Vec<(ResourceKey, String)>,
        metrics: &Metrics,
    ) -> Result<(), Violation> {
        for (key, error) in &refused {
            metrics.refused_resources.inc();
            tracing::error!(%node, resource = %key, error, "the node refused a resource and keeps its last good one");
        }
        self.stream.acknowledge(nonce, refused)?;
        let now = Instant::now();
        metrics.acknowledge_seconds.observe(now.duration_since(self.sent_at).as_secs_f64());
        self.acked_at = now;
        Ok(())
    }

    /// When the delta under way has to be acknowledged.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stream.is_under_way().then(|| self.sent_at + ACKNOWLEDGE)
    }

    /// Ends the stream with a reason; if there is no room for it, without.
    pub(super) fn close(self, status: Status) {
        let _ = self.outbound.try_send(Err(status));
        self.over.cancel();
    }
}
