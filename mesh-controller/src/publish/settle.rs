//! `Settle`: when is everything quiet, and if not, what is awaited, in words. Tests wait on this instead of sleeping.
//!
//! Invariant: settled means that every connected node has applied the current picture, refused nothing of it, and has since then
//! reported the kernel's state of each of its own workloads. Nodes that are away are named, and not awaited.

use mesh_model::{
    name::{NodeName, WorkloadUid},
    resource::{Resource, ResourceKey},
};
use mesh_proto::v1;
use tokio::{sync::oneshot, time::Instant};

use super::{Connection, MAX_WAITERS, Publisher, View};
use crate::enrol::{Evidence, Stage, Witness};

/// Lines of `pending`.
const MAX_PENDING: usize = 100;

/// One `Settle` call.
#[derive(Debug)]
pub struct Waiter {
    /// When it is answered in any case.
    pub deadline: Instant,
    reply: oneshot::Sender<v1::SettleReply>,
}

impl Publisher {
    /// Takes a call in; it is answered by [`Self::answer_settled`].
    pub(super) fn await_settled(&mut self, deadline: Instant, reply: oneshot::Sender<v1::SettleReply>) {
        if self.waiters.len() < MAX_WAITERS {
            self.waiters.push(Waiter { deadline, reply });
        }
    }

    /// Answers every call if all is quiet, else those whose time is up.
    pub(super) fn answer_settled(&mut self, now: Instant) {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        if self.waiters.is_empty() {
            return;
        }
        let awaited = self.awaited(now);
        let settled = awaited.is_empty();
        for waiter in std::mem::take(&mut self.waiters) {
            if settled || waiter.deadline <= now {
                let reply = v1::SettleReply {
                    settled,
                    generation: self.picture.generation(),
                    pending: awaited.iter().cloned().chain(self.away()).take(MAX_PENDING).collect(),
                    diagnostics: self.findings(),
                };
                let _ = waiter.reply.send(reply);
            } else {
                self.waiters.push(waiter);
            }
        }
    }

    /// What is not as it shall be and can still become so.
    fn awaited(&self, now: Instant) -> Vec<String> {
        let mut awaited = Vec::new();
        if !self.loaded {
            awaited.push("the source has not been read".to_owned());
        }
        if let Some(error) = &self.source_error {
            awaited.push(format!("the source cannot be read: {error}"));
        }
        for (node, connection) in &self.connections {
            self.awaited_of_stream(node, connection, &mut awaited);
        }
        let witness =
            View { connections: &self.connections, left_at: &self.left_at, picture: &self.picture, now };
        for (uid, stage) in self.enrolments.stages() {
            let Some(wish) = self.wishes.get(uid) else { continue };
            let evidence = witness.capture(&wish.node, uid);
            if let Some(what) = awaited_of_stage(stage, evidence) {
                awaited.push(format!("{what} {} on {}", self.workload_name(uid), wish.node));
            }
        }
        awaited
    }

    fn awaited_of_stream(&self, node: &NodeName, connection: &Connection, awaited: &mut Vec<String>) {
        let stream = &connection.stream;
        let generation = self.picture.generation();
        if let Some(nonce) = stream.under_way() {
            awaited.push(format!("{node} has not acknowledged delta {nonce} (generation {generation})"));
        } else if stream.acked_generation() != generation {
            awaited.push(format!("{node} has not been sent generation {generation}"));
        } else if !stream.report_is_current() {
            awaited.push(format!("{node} has not reported what it did about generation {generation}"));
        }
        for (key, refused) in stream.refused() {
            awaited.push(format!("{node} refused {key}: {}", refused.error));
        }
    }

    fn away(&self) -> impl Iterator<Item = String> {
        self.nodes
            .iter()
            .filter(|node| !self.connections.contains_key(*node))
            .map(|node| format!("{node} not connected"))
    }

    /// `namespace/name` while it is compiled, else its UID.
    pub(super) fn workload_name(&self, uid: &WorkloadUid) -> String {
        match self.picture.resource(&ResourceKey::Workload(uid.clone())) {
            Some(Resource::Workload(workload)) => format!("{}/{}", workload.namespace, workload.name),
            _ => uid.to_string(),
        }
    }
}

fn awaited_of_stage(stage: Stage, evidence: Evidence) -> Option<&'static str> {
    match (stage, evidence) {
        (Stage::Withdrawing { .. }, _) => Some("waiting for every node to forget HBONE to"),
        (_, Evidence::NodeAway) => None,
        (Stage::Capturing | Stage::Captured, Evidence::NotYet | Evidence::NotCaptured) => {
            Some("waiting for capture of")
        }
        // The next step publishes it.
        (Stage::Capturing, Evidence::Captured) => Some("waiting for publication of"),
        (Stage::Captured, Evidence::Captured) => None,
        (Stage::Capturing | Stage::Captured, Evidence::Refused) => None,
        (Stage::Releasing, _) => Some("waiting for release of"),
    }
}
