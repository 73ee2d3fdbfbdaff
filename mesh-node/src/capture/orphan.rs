//! Pods that the mesh no longer knows and that still run: deleted by force, finished in name only, or on a node that was given up.
//!
//! Invariant: an orphan is closed. Nobody serves it and its hooks stay, so that nothing goes into or out of it in plaintext, until the
//! CNI plugin says that it is deleted, nothing of it runs any more, or the mesh knows it again.

use std::time::{Duration, Instant};

use mesh_model::name::WorkloadUid;

use super::{captured::Captured, enrol::Home, locate::Sighting};
use crate::{bpf::CapturedPod, sys::Process};

/// One that was just made may have no process yet.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// All of them on this node.
#[derive(Default)]
pub(super) struct Orphans(Vec<Orphan>);

struct Orphan {
    uid: WorkloadUid,
    home: Home,
    place: CapturedPod,
    /// A process of it that is in its namespace.
    holder: Option<Process>,
    since: Instant,
}

impl Orphans {
    /// This pod is one from now on.
    pub fn add(&mut self, captured: &Captured) {
        self.0.push(Orphan {
            uid: captured.wanted.uid.clone(),
            home: captured.wanted.home.clone(),
            place: captured.pod.captured.clone(),
            holder: captured.holder,
            since: Instant::now(),
        });
    }

    /// Those whose processes are to be looked for.
    pub fn doubtful(&self) -> impl Iterator<Item = &WorkloadUid> {
        self.0.iter().filter(|orphan| orphan.is_doubtful()).map(|orphan| &orphan.uid)
    }

    /// Takes out those that are no orphans any more: of which nothing is left, as far as was looked.
    pub fn take_over(&mut self, sighting: &Sighting) -> Vec<CapturedPod> {
        self.take(|orphan| orphan.is_over(sighting))
    }

    /// Takes out those of these pods.
    pub fn take_of(&mut self, is_one: impl Fn(&WorkloadUid) -> bool) -> Vec<CapturedPod> {
        self.take(|orphan| is_one(&orphan.uid))
    }

    /// Takes out the one in this namespace of a pod, which was deleted.
    pub fn take_departed(&mut self, uid: &WorkloadUid, netns: u64) -> Vec<CapturedPod> {
        self.take(|orphan| orphan.uid == *uid && orphan.place.cookie() == netns)
    }

    fn take(&mut self, is_one: impl FnMut(&mut Orphan) -> bool) -> Vec<CapturedPod> {
        self.0.extract_if(.., is_one).map(|orphan| orphan.place).collect()
    }
}

impl Orphan {
    /// Whether its processes alone tell that it is there, and none is known.
    fn is_doubtful(&self) -> bool {
        !matches!(self.home, Home::Path(_)) && !self.holder.is_some_and(|holder| holder.is_alive())
    }

    fn is_over(&mut self, sighting: &Sighting) -> bool {
        let netns = self.place.netns().id();
        if let Home::Path(_) = self.home {
            return !self.home.is_still(netns);
        }
        if !self.is_doubtful() || !sighting.includes(&self.uid) {
            return false;
        }
        let had_one = self.holder.is_some();
        self.holder = sighting.holder(&self.uid, netns);
        self.holder.is_none() && (had_one || self.since.elapsed() >= STARTS_WITHIN)
    }
}
