//! One node's stream, pure: what the node holds, what is under way, what comes next.
//!
//! Invariant: one delta is under way at a time, and the next one is made from the picture of that moment; so a slow node skips
//! what it would have thrown away. A resource that the node refused is not sent again until it changes.

use std::collections::HashMap;

use mesh_model::{
    name::{NodeName, WorkloadUid},
    resource::ResourceKey,
};
use mesh_proto::{encode, v1, version::Version};

use super::{
    picture::{Encoded, Picture},
    view::versioned,
};
use crate::enrol::Evidence;

/// Encoded resources in one delta; one that is larger alone travels alone.
const MAX_DELTA_BYTES: usize = 1024 * 1024;
/// Resources (and, apart from them, removals) in one delta.
const MAX_DELTA_ITEMS: usize = 500;
/// Characters of a node's words that are kept.
const MAX_WORDS: usize = 1024;

/// What the node did against the protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// An acknowledgement of nothing.
    #[error("acknowledged delta {0}, which is not under way")]
    UnexpectedAck(u64),
    /// A report about a delta that was never sent.
    #[error("reported on delta {0}, which was never sent")]
    ReportAhead(u64),
    /// More than a node can hold.
    #[error("reported {0} workloads")]
    ReportTooLarge(usize),
}

/// A delta that waits for its acknowledgement.
#[derive(Debug)]
struct UnderWay {
    nonce: u64,
    upserts: Vec<(ResourceKey, Version)>,
    removals: Vec<ResourceKey>,
    complete: bool,
}

/// Something the node would not take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedResource {
    version: Version,
    /// Why, in the node's words.
    pub error: String,
}

/// What the node said of one of its workloads.
#[derive(Clone, PartialEq, Debug)]
pub struct Reported {
    /// Captured or not.
    pub state: v1::CaptureState,
    /// Why not.
    pub reason: String,
    /// Connections older than the enrolment.
    pub uncaptured_connections: u64,
}

/// What one connected node holds and says.
#[derive(Debug)]
pub struct Stream {
    node: NodeName,
    held: HashMap<ResourceKey, Version>,
    refused: HashMap<ResourceKey, RefusedResource>,
    under_way: Option<UnderWay>,
    last_nonce: u64,
    sent_generation: u64,
    acked_generation: u64,
    /// The delta that last named each of the node's own workloads, and of those no longer there the latest.
    named: HashMap<WorkloadUid, u64>,
    named_last: u64,
    reported: Option<HashMap<WorkloadUid, Reported>>,
    reported_nonce: u64,
}

impl Stream {
    /// A node that just connected and holds this much.
    pub fn new(node: NodeName, held: HashMap<ResourceKey, Version>) -> Self {
        Self {
            node,
            held,
            refused: HashMap::new(),
            under_way: None,
            last_nonce: 0,
            sent_generation: 0,
            acked_generation: 0,
            named: HashMap::new(),
            named_last: 0,
            reported: None,
            reported_nonce: 0,
        }
    }

    /// The next delta, if one is due: none is under way and the node does not hold what the picture shows.
    pub fn next_delta(&mut self, picture: &Picture) -> Option<v1::Delta> {
        if self.under_way.is_some() || self.sent_generation == picture.generation() {
            return None;
        }
        self.refused.retain(|key, refused| {
            picture.seen_at(&self.node, key).is_some_and(|encoded| encoded.version == refused.version)
        });
        let first = self.last_nonce == 0;
        let batch = self.batch(picture);
        if batch.upserts.is_empty() && batch.removals.is_empty() && !first {
            // Nothing of the new generation is for this node: it is as good as acknowledged.
            self.sent_generation = picture.generation();
            self.acked_generation = picture.generation();
            return None;
        }
        Some(self.send(batch, picture))
    }

    fn batch<'a>(&self, picture: &'a Picture) -> Batch<'a> {
        let mut batch = Batch { upserts: Vec::new(), removals: Vec::new(), complete: true };
        let gone = |key: &&ResourceKey| picture.seen_at(&self.node, key).is_none();
        // A workload or service that is gone leaves first, so that its address is never in two hands.
        let mut removals: Vec<&ResourceKey> =
            self.held.keys().filter(gone).filter(|key| !matches!(key, ResourceKey::Policy(_))).collect();
        removals.sort_unstable();
        let mut upserts: Vec<(&ResourceKey, &Encoded)> =
            picture.seen_by(Some(&self.node)).filter(|(key, encoded)| self.lacks(key, encoded)).collect();
        upserts.sort_by_key(|(key, _)| sending_order(key));
        // A policy leaves last, when no workload names it any more: one that is named and missing denies.
        let mut policies: Vec<&ResourceKey> =
            self.held.keys().filter(gone).filter(|key| matches!(key, ResourceKey::Policy(_))).collect();
        policies.sort_unstable();

        batch.take_removals(&removals);
        batch.take_upserts(&upserts);
        batch.take_removals(&policies);
        batch
    }

    fn lacks(&self, key: &ResourceKey, encoded: &Encoded) -> bool {
        self.held.get(key) != Some(&encoded.version)
            && self.refused.get(key).is_none_or(|refused| refused.version != encoded.version)
    }

    fn send(&mut self, batch: Batch<'_>, picture: &Picture) -> v1::Delta {
        self.last_nonce += 1;
        if batch.complete {
            self.sent_generation = picture.generation();
        }
        for key in batch.upserts.iter().map(|(key, _)| *key).chain(&batch.removals) {
            self.note_own_workload(key, picture);
        }
        let delta = v1::Delta {
            nonce: self.last_nonce,
            upserts: batch.upserts.iter().map(|(_, encoded)| versioned(encoded)).collect(),
            removals: batch.removals.iter().map(encode::key).collect(),
            complete: batch.complete,
        };
        self.under_way = Some(UnderWay {
            nonce: self.last_nonce,
            upserts: batch.upserts.iter().map(|(key, encoded)| ((*key).clone(), encoded.version)).collect(),
            removals: batch.removals,
            complete: batch.complete,
        });
        delta
    }

    /// Remembers which delta tells the node about one of its own workloads: only reports from after that count.
    fn note_own_workload(&mut self, key: &ResourceKey, picture: &Picture) {
        let ResourceKey::Workload(uid) = key else { return };
        if picture.node_of(key) == Some(&self.node) {
            self.named.insert(uid.clone(), self.last_nonce);
            self.named_last = self.last_nonce;
            return;
        }
        let reported = self.reported.as_ref().is_some_and(|reported| reported.contains_key(uid));
        if self.named.remove(uid).is_some() || reported {
            self.named_last = self.last_nonce;
        }
    }

    /// The node's answer to the delta under way.
    pub fn acknowledge(&mut self, nonce: u64, refused: Vec<(ResourceKey, String)>) -> Result<(), Violation> {
        let under_way = match self.under_way.take() {
            Some(under_way) if under_way.nonce == nonce => under_way,
            other => {
                self.under_way = other;
                return Err(Violation::UnexpectedAck(nonce));
            }
        };
        let refused: HashMap<ResourceKey, String> = refused.into_iter().collect();
        for (key, version) in under_way.upserts {
            match refused.get(&key) {
                Some(error) => {
                    let error = cut(error);
                    self.refused.insert(key, RefusedResource { version, error });
                }
                None => {
                    self.refused.remove(&key);
                    self.held.insert(key, version);
                }
            }
        }
        for key in under_way.removals {
            self.refused.remove(&key);
            self.held.remove(&key);
        }
        if under_way.complete {
            self.acked_generation = self.sent_generation;
        }
        Ok(())
    }

    /// The node's whole truth about its workloads.
    pub fn report(&mut self, report: v1::Report) -> Result<(), Violation> {
        if report.nonce > self.last_nonce {
            return Err(Violation::ReportAhead(report.nonce));
        }
        // A node has at most a few hundred pods, and what it reports is bounded by what it was told.
        let most = 4096 + self.held.len();
        if report.workloads.len() > most {
            return Err(Violation::ReportTooLarge(report.workloads.len()));
        }
        let read = |status: v1::WorkloadStatus| {
            let state = status.state();
            let reason = cut(&status.reason);
            let uncaptured_connections = status.uncaptured_connections;
            (WorkloadUid::new(status.uid), Reported { state, reason, uncaptured_connections })
        };
        self.reported_nonce = report.nonce;
        self.reported = Some(report.workloads.into_iter().map(read).collect());
        Ok(())
    }

    /// What the node says of one of its own workloads, if it said so after it was told what the picture shows.
    pub fn evidence(&self, workload: &WorkloadUid, picture: &Picture) -> Evidence {
        let key = ResourceKey::Workload(workload.clone());
        let current = picture
            .seen_at(&self.node, &key)
            .is_some_and(|encoded| self.held.get(&key) == Some(&encoded.version));
        let heard = self.named.get(workload).is_none_or(|nonce| *nonce <= self.reported_nonce);
        let Some(reported) = self.reported.as_ref().filter(|_| current && heard) else {
            return Evidence::NotYet;
        };
        match reported.get(workload).map(|reported| reported.state) {
            Some(v1::CaptureState::Captured) => Evidence::Captured,
            Some(v1::CaptureState::Refused) => Evidence::Refused,
            Some(v1::CaptureState::NotCaptured) | None => Evidence::NotCaptured,
        }
    }

    /// Whether its latest report is from after everything it was told about its own workloads.
    pub fn report_is_current(&self) -> bool {
        self.named_last <= self.reported_nonce
    }

    /// Whether a delta awaits its acknowledgement.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The nonce of the delta under way.
    pub fn under_way(&self) -> Option<u64> {
        self.under_way.as_ref().map(|under_way| under_way.nonce)
    }

    /// The generation that the node has in whole.
    pub fn acked_generation(&self) -> u64 {
        self.acked_generation
    }

    /// The generation that it was sent in whole.
    pub fn sent_generation(&self) -> u64 {
        self.sent_generation
    }

    /// What it would not take, and has not been replaced since.
    pub fn refused(&self) -> impl Iterator<Item = (&ResourceKey, &RefusedResource)> {
        self.refused.iter()
    }

    /// Its latest report.
    pub fn reported(&self) -> impl Iterator<Item = (&WorkloadUid, &Reported)> {
        self.reported.iter().flatten()
    }
}

/// The content of one delta.
struct Batch<'a> {
    upserts: Vec<(&'a ResourceKey, &'a Encoded)>,
    removals: Vec<ResourceKey>,
    /// Whether nothing was left over.
    complete: bool,
}

impl<'a> Batch<'a> {
    fn take_removals(&mut self, keys: &[&ResourceKey]) {
        // Later parts must not overtake earlier ones.
        let room = if self.complete { MAX_DELTA_ITEMS.saturating_sub(self.removals.len()) } else { 0 };
        self.removals.extend(keys.iter().take(room).map(|key| (*key).clone()));
        self.complete &= keys.len() <= room;
    }

    fn take_upserts(&mut self, resources: &[(&'a ResourceKey, &'a Encoded)]) {
        if !self.complete {
            return;
        }
        let mut bytes = 0;
        for (key, encoded) in resources {
            let full = self.upserts.len() == MAX_DELTA_ITEMS || bytes + encoded.bytes > MAX_DELTA_BYTES;
            if full && !self.upserts.is_empty() {
                self.complete = false;
                return;
            }
            bytes += encoded.bytes;
            self.upserts.push((key, encoded));
        }
    }
}

/// What is referred to goes before what refers to it: a workload arrives when its policies are there.
fn sending_order(key: &ResourceKey) -> u8 {
    match key {
        ResourceKey::Mesh => 0,
        ResourceKey::Policy(_) => 1,
        ResourceKey::Service(_) => 2,
        ResourceKey::Workload(_) => 3,
        ResourceKey::Destination(..) => 4,
        ResourceKey::Routes(_) => 5,
    }
}

fn cut(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests;
