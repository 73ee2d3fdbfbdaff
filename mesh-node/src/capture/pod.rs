//! The captured pods of this node, as the data path sees them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use mesh_model::{identity::Identity, name::WorkloadUid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{bpf::CapturedPod, sys::Netns};

/// One captured pod.
#[derive(Debug)]
pub struct LocalPod {
    /// The workload.
    pub uid: WorkloadUid,
    /// Who it is: the certificate that its listeners show.
    pub identity: Identity,
    /// Its place in the kernel's maps.
    pub captured: CapturedPod,
    /// A neighbour on its link could answer for it: no vouched plaintext to or from it.
    pub on_bridge: bool,
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
    draining: AtomicBool,
    gone: AtomicBool,
}

/// A place in a pod's budget of connections; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl LocalPod {
    /// A pod that was just enrolled.
    pub fn new(
        uid: WorkloadUid,
        identity: Identity,
        captured: CapturedPod,
        on_bridge: bool,
        connections: usize,
    ) -> Self {
        let budget = || Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self {
            uid,
            identity,
            captured,
            on_bridge,
            inbound: budget(),
            outbound: budget(),
            draining: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        self.captured.netns()
    }

    /// Whether it is over: what still arrives is dropped.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether it was let go: what is open may end by itself, requests under way are finished and their connections closed.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn mark_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// The budget of connections of one direction.
    pub fn budget(&self, outbound: bool) -> &Arc<Semaphore> {
        if outbound { &self.outbound } else { &self.inbound }
    }

    /// A place at once, or none.
    pub fn try_place(&self, outbound: bool) -> Option<Place> {
        self.budget(outbound).clone().try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// A place as soon as there is one.
    pub async fn place(&self, outbound: bool) -> Option<Place> {
        self.budget(outbound).clone().acquire_owned().await.ok().map(|permit| Place { _permit: permit })
    }
}

/// All captured pods, by workload: one atomic load to read, replaced as a whole by the reconciler alone.
#[derive(Clone, Debug, Default)]
pub struct LocalPods {
    pods: Arc<ArcSwap<HashMap<WorkloadUid, Arc<LocalPod>>>>,
}

impl LocalPods {
    /// The captured pod of this workload, if it is captured on this node.
    pub fn find(&self, uid: &WorkloadUid) -> Option<Arc<LocalPod>> {
        self.pods.load().get(uid).cloned()
    }

    pub(super) fn replace(&self, pods: HashMap<WorkloadUid, Arc<LocalPod>>) {
        self.pods.store(Arc::new(pods));
    }
}
