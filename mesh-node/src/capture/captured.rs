//! A captured pod, as the reconciler holds it, and whether it still is where it was captured.
//!
//! Invariant: a pod that was found by its processes is gone once none of them is left in its namespace. That is found by a look at
//! all processes, not by the death of one: until then it is there.

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

use super::{
    LocalPod,
    enrol::{Home, Wanted},
    locate::Sighting,
};
use crate::sys::{PodListeners, Process};

/// A captured pod.
pub(super) struct Captured {
    /// What was wanted of it when it was captured, or changed since.
    pub(super) wanted: Wanted,
    /// As the data path sees it.
    pub(super) pod: Arc<LocalPod>,
    /// The proxy's listeners in it.
    pub(super) listeners: PodListeners,
    /// Ends the accepting.
    pub(super) stop: CancellationToken,
    /// Cookies of connections that are older than its enrolment.
    pub(super) older: Vec<u64>,
    /// Whose namespace it is, where the pod was found by its processes.
    pub(super) holder: Option<Process>,
}

/// A pod that was let go and whose connections may end by themselves for a while.
pub(super) struct Draining {
    /// What it was.
    pub(super) captured: Captured,
    /// Not judged quiet before: what the kernel had captured may still wait to be accepted.
    pub(super) from: Instant,
    /// Then it ends, quiet or not.
    pub(super) until: Instant,
}

impl Captured {
    /// Whether only its processes tell that it is there, and the one that held its namespace is no more.
    pub(super) fn is_doubtful(&self) -> bool {
        self.wanted.home == Home::Unknown && !self.holder.is_some_and(|holder| holder.is_alive())
    }

    /// Whether its namespace is still the pod's. A doubtful one is until its processes were looked for.
    pub(super) fn is_still_there(&mut self, sighting: &Sighting) -> bool {
        let netns = self.pod.netns().id();
        if sighting.includes(&self.wanted.uid) && self.is_doubtful() {
            self.holder = sighting.holder(&self.wanted.uid, netns);
            return self.holder.is_some();
        }
        self.wanted.home.is_still(netns)
    }
}
