//! One stream from its hello to its end.

use std::{collections::VecDeque, time::Instant};

use mesh_model::name::NodeName;
use mesh_proto::v1::{
    ControllerMessage, Delta, Hello, NodeMessage, Report, control_client::ControlClient, controller_message,
    node_message,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{Controller, ControllerError, Link, LocalReport, Metrics, apply::Applier, status_text};
use crate::config::Limits;

/// Messages that wait for the controller to read them. Acks are awaited by the controller, so there are few.
const OUTGOING: usize = 64;
/// Deltas whose report is still to come: the controller waits for an ack before the next delta, capture is at most a few behind.
const REMEMBERED_DELTAS: usize = 1024;

/// One attempt.
pub(super) struct Session<'a> {
    pub(super) node: &'a NodeName,
    pub(super) inspect_address: &'a str,
    pub(super) controller: &'a Controller,
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a Metrics,
    pub(super) link: &'a watch::Sender<Link>,
}

/// How a session ended.
pub(super) struct Ended {
    pub(super) error: SessionError,
    /// Whether the controller said anything: then the next attempt may follow at once.
    pub(super) received: bool,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error("the controller did not accept the stream in time")]
    TimeOut,
    #[error("the controller ended the stream: {}", status_text(.0))]
    Status(Box<tonic::Status>),
    #[error("the controller closed the stream")]
    Closed,
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Session<'_> {
    /// Runs until the stream breaks.
    pub(super) async fn run(
        &self,
        applier: &mut Applier,
        reports: watch::Receiver<Option<LocalReport>>,
    ) -> Ended {
        let mut received = false;
        let error = match self.talk(applier, reports, &mut received).await {
            Ok(()) => SessionError::Closed,
            Err(error) => error,
        };
        Ended { error, received }
    }

    async fn talk(
        &self,
        applier: &mut Applier,
        mut reports: watch::Receiver<Option<LocalReport>>,
        received: &mut bool,
    ) -> Result<(), SessionError> {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let say = |kind| NodeMessage { kind: Some(kind) };
        let gone = |_| SessionError::Closed;
        outgoing.send(say(node_message::Kind::Hello(self.hello(applier)))).await.map_err(gone)?;

        let mut client = ControlClient::new(self.controller.channel()?)
            .max_decoding_message_size(self.limits.control_message_bytes)
            .max_encoding_message_size(self.limits.control_message_bytes);
        let request = self.controller.authorized(ReceiverStream::new(messages))?;
        let opening = tokio::time::timeout(self.limits.control_connect, client.sync(request));
        let mut incoming = opening.await.map_err(|_elapsed| SessionError::TimeOut)??.into_inner();

        tracing::info!("the stream of the controller is up");
        self.metrics.connected.set(1);
        self.link.send_replace(Link { connected: true, since: Instant::now(), last_error: None });
        let mut acted_on = ActedOn::default();
        // What was true before the stream is said at once, with nonce 0.
        reports.mark_changed();
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let Some(ControllerMessage { kind }) = message? else { return Ok(()) };
                    *received = true;
                    // A kind of message that a newer controller knows is not for us.
                    let Some(controller_message::Kind::Delta(delta)) = kind else { continue };
                    let ack = self.apply(applier, delta);
                    acted_on.delta(ack.nonce, ack.generation);
                    outgoing.send(say(node_message::Kind::Ack(ack))).await.map_err(gone)?;
                }
                changed = reports.changed() => {
                    changed.map_err(|_| SessionError::Closed)?;
                    let report = reports.borrow_and_update().clone();
                    if let Some(report) = report {
                        let nonce = acted_on.nonce(report.generation);
                        let report = Report { workloads: report.workloads.to_vec(), nonce };
                        outgoing.send(say(node_message::Kind::Report(report))).await.map_err(gone)?;
                    }
                }
            }
        }
    }

    fn hello(&self, applier: &Applier) -> Hello {
        Hello {
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: applier.held(),
            inspect_address: self.inspect_address.to_owned(),
        }
    }

    fn apply(&self, applier: &mut Applier, delta: Delta) -> mesh_proto::v1::Ack {
        let count = delta.upserts.len() + delta.removals.len();
        let ack = applier.apply(delta);
        self.metrics.resources.inc_by(count as u64);
        self.metrics.refused.inc_by(ack.refused.len() as u64);
        self.metrics.generation.set(i64::try_from(ack.generation).unwrap_or(i64::MAX));
        tracing::debug!(nonce = ack.nonce, generation = ack.generation, resources = count, "snapshot");
        ack
    }
}

/// Which delta of this stream a snapshot's generation answers for.
#[derive(Default)]
struct ActedOn {
    /// (nonce, generation) in order, the oldest that may still be asked for first.
    deltas: VecDeque<(u64, u64)>,
}

impl ActedOn {
    fn delta(&mut self, nonce: u64, generation: u64) {
        if self.deltas.len() == REMEMBERED_DELTAS {
            self.deltas.pop_front();
        }
        self.deltas.push_back((nonce, generation));
    }

    /// The last delta that is part of `generation`; 0 if none of this stream is. Generations only grow.
    fn nonce(&mut self, generation: u64) -> u64 {
        while self.deltas.get(1).is_some_and(|(_, next)| *next <= generation) {
            self.deltas.pop_front();
        }
        self.deltas.front().filter(|(_, first)| *first <= generation).map_or(0, |(nonce, _)| *nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::ActedOn;

    #[test]
    fn a_report_names_the_last_delta_that_it_follows() {
        let mut acted_on = ActedOn::default();
        assert_eq!(acted_on.nonce(7), 0);
        acted_on.delta(1, 8);
        acted_on.delta(2, 9);
        acted_on.delta(3, 10);
        assert_eq!(acted_on.nonce(7), 0);
        assert_eq!(acted_on.nonce(9), 2);
        assert_eq!(acted_on.nonce(10), 3);
    }
}
