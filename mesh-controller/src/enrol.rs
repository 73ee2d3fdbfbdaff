//! The enrolment hand-shake, pure: what the labels want, what nodes report and acknowledge -> how far each workload has come.
//!
//! ```text
//!            wanted                 its node captured it            no longer wanted
//!   Plain ───────────► Capturing ────────────────────► Captured ─────────────────────► Withdrawing
//!     ▲                    │ no longer wanted           (HBONE to all)  ◄──── wanted ────  │ every node acknowledged,
//!     │                    ▼                                                               │ or 10 s
//!     └──── let go ─── Releasing ◄─────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariant: a workload is published as HBONE from the moment its node captured it until its label goes or the pod does; a node
//! that loses the capture, or is away, changes nothing (callers fail, they never fall back to plaintext). And it is let go only
//! when nobody calls it by HBONE any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mesh_api::Enrolled;
use mesh_model::name::{NodeName, WorkloadUid};

/// A node that does not acknowledge a withdrawal holds it up this long at most.
pub const WITHDRAWAL_BOUND: Duration = Duration::from_secs(10);

/// How far one workload has come. One that is not listed is plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its node is told to capture it; everybody else still dials plaintext.
    Capturing,
    /// Captured, and published as HBONE.
    Captured,
    /// HBONE is withdrawn, still captured.
    Withdrawing {
        /// The generation without HBONE, which every node has to acknowledge.
        since: u64,
        /// When the waiting ends whatever is acknowledged.
        until: Instant,
    },
    /// Its node is told to let go.
    Releasing,
}

/// What the labels want, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Where the workload runs.
    pub node: NodeName,
    /// Whether it shall be in the mesh.
    pub wanted: bool,
}

/// What is known of one workload's capture from its own node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// The node is not connected.
    NodeAway,
    /// The node has not reported since it was told what we want now.
    NotYet,
    /// It reports: captured.
    Captured,
    /// It reports: not captured.
    NotCaptured,
    /// It reports: it cannot, and why is in the report.
    Refused,
}

/// Who saw what. A trait so that the machine is tested without streams.
pub trait Witness {
    /// What the workload's node says of it.
    fn capture(&self, node: &NodeName, workload: &WorkloadUid) -> Evidence;
    /// Whether every node that may still act on older generations has acknowledged this one.
    fn all_acknowledged(&self, generation: u64) -> bool;
}

/// The stages of all workloads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Enrolments {
    stages: BTreeMap<WorkloadUid, Stage>,
}

impl Enrolments {
    /// After a restart: these were published as HBONE, and still are for every node that has not heard otherwise.
    pub fn restore(published: BTreeSet<WorkloadUid>) -> Self {
        Self { stages: published.into_iter().map(|uid| (uid, Stage::Captured)).collect() }
    }

    /// All that are not plain.
    pub fn stages(&self) -> impl Iterator<Item = (&WorkloadUid, Stage)> {
        self.stages.iter().map(|(uid, stage)| (uid, *stage))
    }

    /// The form the compiler wants.
    pub fn enrolled(&self) -> Enrolled {
        let mut enrolled = Enrolled::default();
        for (uid, stage) in &self.stages {
            match stage {
                Stage::Captured => {
                    enrolled.captured.insert(uid.clone());
                    enrolled.published.insert(uid.clone());
                }
                Stage::Withdrawing { .. } => drop(enrolled.published.insert(uid.clone())),
                Stage::Capturing | Stage::Releasing => {}
            }
        }
        enrolled
    }

    /// Takes workloads that just were to be published back to where their capture is awaited.
    pub fn hold_back<'a>(&mut self, workloads: impl IntoIterator<Item = &'a WorkloadUid>) {
        for uid in workloads {
            if let Some(stage) = self.stages.get_mut(uid) {
                *stage = Stage::Capturing;
            }
        }
    }

    /// When [`Self::step`] has something to do even if nothing is heard.
    pub fn next_deadline(&self) -> Option<Instant> {
        let until = |stage: &Stage| match stage {
            Stage::Withdrawing { until, .. } => Some(*until),
            _ => None,
        };
        self.stages.values().filter_map(until).min()
    }

    /// Takes every workload one stage on, if it can go. `wishes` and `generation` are of the picture that is published now.
    /// Returns whether the picture has to be compiled again: then call again after that.
    pub fn step(
        &mut self,
        wishes: &BTreeMap<WorkloadUid, Wish>,
        witness: &impl Witness,
        generation: u64,
        now: Instant,
    ) -> bool {
        let before = self.enrolled();
        // A pod that is gone needs no ceremony: its resource disappears, and nobody can call it.
        self.stages.retain(|uid, _| wishes.contains_key(uid));
        for (uid, wish) in wishes {
            let stage = self.stages.get(uid).copied();
            let next =
                next(stage, wish.wanted, generation, now, witness, || witness.capture(&wish.node, uid));
            match next {
                Some(next) => drop(self.stages.insert(uid.clone(), next)),
                None => drop(self.stages.remove(uid)),
            }
        }
        before != self.enrolled()
    }
}

fn next(
    stage: Option<Stage>,
    wanted: bool,
    generation: u64,
    now: Instant,
    witness: &impl Witness,
    evidence: impl FnOnce() -> Evidence,
) -> Option<Stage> {
    match (stage, wanted) {
        (None, false) => None,
        (None, true) => Some(Stage::Capturing),
        (Some(Stage::Capturing), true) => Some(match evidence() {
            Evidence::Captured => Stage::Captured,
            _ => Stage::Capturing,
        }),
        // Never published as HBONE: nobody has to forget anything first.
        (Some(Stage::Capturing), false) => Some(Stage::Releasing),
        (Some(Stage::Captured), true) => Some(Stage::Captured),
        (Some(Stage::Captured), false) => {
            Some(Stage::Withdrawing { since: generation, until: now + WITHDRAWAL_BOUND })
        }
        // It was captured all the time.
        (Some(Stage::Withdrawing { .. }), true) => Some(Stage::Captured),
        (Some(Stage::Withdrawing { since, until }), false) => {
            Some(if witness.all_acknowledged(since) || until <= now {
                Stage::Releasing
            } else {
                Stage::Withdrawing { since, until }
            })
        }
        (Some(Stage::Releasing), true) => Some(Stage::Capturing),
        (Some(Stage::Releasing), false) => match evidence() {
            Evidence::NotYet | Evidence::Captured => Some(Stage::Releasing),
            Evidence::NotCaptured | Evidence::Refused | Evidence::NodeAway => None,
        },
    }
}

#[cfg(test)]
mod tests;
