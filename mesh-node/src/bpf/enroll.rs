//! Enrolment of one pod, its end, and the pods a previous life left enrolled.

use std::net::IpAddr;

use super::{Hooks, KernelError, PodNet, PodTraffic};
use crate::sys::{Netns, PodListeners};

/// An enrolled pod. Dropping it un-enrols nothing (a crash must fail closed): say `Hooks::unenroll`.
#[derive(Clone, Debug)]
pub struct CapturedPod {
    pub(super) uid: String,
    pub(super) netns: Netns,
    pub(super) slot: u32,
}

impl CapturedPod {
    /// The workload's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The pod's netns.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Cookie of the pod's netns: what `take_origin` and `OwnKind::Vouch` ask for.
    pub fn cookie(&self) -> u64 {
        self.netns.cookie()
    }
}

/// A pod found enrolled by a previous life of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Cookie of its netns.
    pub cookie: u64,
    /// The addresses it was enrolled with.
    pub ips: Vec<IpAddr>,
}

impl Hooks {
    /// Captures a pod: listeners → sk_lookup → entry in `PODS`. Idempotent: the same netns enrolled again (also by a new
    /// agent after a crash) keeps its hook and gets the new listeners and exclusions in one step.
    ///
    /// Refuses a netns that is the host's, holds none of the pod's addresses, or forwards for others.
    pub fn enroll(&self, pod: &PodNet, listeners: &PodListeners) -> Result<CapturedPod, KernelError> {
        let _ = (pod, listeners);
        Err(KernelError::NoObject)
    }

    /// Ends capture: entry in `PODS` → sk_lookup → listeners → what is left of the pod in the maps → sysctl.
    pub fn unenroll(&self, pod: &CapturedPod) -> Result<(), KernelError> {
        let _ = pod;
        Ok(())
    }

    /// Pods a previous life left enrolled and this one has not enrolled again. They are refused until they are.
    pub fn adopted(&self) -> Vec<Adopted> {
        Vec::new()
    }

    /// Un-enrols a pod by its cookie alone: one that is no longer wanted after a restart, or whose netns is gone.
    pub fn forget(&self, cookie: u64) -> Result<(), KernelError> {
        let _ = cookie;
        Ok(())
    }

    /// Kernel's sums over the closed connections of a pod.
    pub fn traffic(&self, pod: &CapturedPod) -> PodTraffic {
        let _ = pod;
        PodTraffic::default()
    }
}
