//! Keeps the captured pods of this node as the snapshot wants them.
//!
//! Level-triggered: at each snapshot, and once a second, what is wanted is compared with what is. Invariants: nothing is let go for
//! a snapshot that is not complete; a pod that runs and that the mesh does not know stays closed; a pod is entered into [`LocalPods`] after the kernel captures for it, and taken out before the
//! kernel stops; an error of one pod is its status and its retry, never the end of the loop.

pub mod announced;
mod captured;
mod enrol;
mod kubelet;
mod locate;
mod older;
mod orphan;
pub mod pod;
mod reconcile;

pub use announced::Announced;
pub use kubelet::{KubeletConfig, Missing as KubeletMissing, follow as follow_kubelet};
pub use pod::{LocalPod, LocalPods, Place};
pub use reconcile::run;
