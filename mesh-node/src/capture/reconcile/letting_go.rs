//! How captured pods end: deleted, gone, unknown, unwanted, drained.
//!
//! Invariant: hooks are taken off only where nothing runs any more or where the mesh says that the pod shall be out of it.

use std::{collections::BTreeMap, time::Instant};

use mesh_model::{name::WorkloadUid, snapshot::Snapshot};

use super::{LOOK, Reconciler};
use crate::{
    bpf::CapturedPod,
    capture::{
        captured::{Captured, Draining},
        enrol::Wanted,
        locate::Sighting,
    },
    conns::Cut,
};

impl Reconciler {
    /// Pods that the CNI plugin said are deleted: over at once.
    pub(super) fn end_departed(&mut self) {
        for departure in self.rooms.announced.take_departures() {
            let is_it = |captured: &Captured| {
                captured.wanted.uid == departure.uid && captured.pod.netns().cookie() == departure.netns
            };
            let over: Vec<_> =
                self.captured.extract_if(|_, captured| is_it(captured)).map(|(_, over)| over).collect();
            if !over.is_empty() {
                self.publish();
            }
            let drained =
                self.draining.extract_if(.., |each| is_it(&each.captured)).map(|each| each.captured);
            let over: Vec<_> = over.into_iter().chain(drained).collect();
            for captured in over {
                tracing::info!(pod = %departure.uid, "the pod is deleted");
                if let Err(error) = self.rooms.hooks.unenroll(&captured.pod.captured) {
                    tracing::warn!(pod = %departure.uid, %error, "the hooks of a deleted pod remain");
                }
                self.end(captured, &Cut::PodGone);
            }
            let orphan = self.orphans.take_departed(&departure.uid, departure.netns);
            self.unenroll(orphan, "the pod is deleted");
            departure.done();
        }
    }

    /// Pods whose namespace is gone: over at once. Those that the mesh no longer knows and that are still there: closed.
    pub(super) fn end_gone(&mut self, snapshot: &Snapshot, complete: bool, sighting: &Sighting) {
        let is_known = |uid: &WorkloadUid| !complete || snapshot.workload(uid).is_some();
        let gone = |captured: &mut Captured| !captured.is_still_there(sighting);
        let over: Vec<_> =
            self.captured.extract_if(|_, captured| gone(captured)).map(|(_, over)| over).collect();
        let unknown: Vec<_> =
            self.captured.extract_if(|uid, _| !is_known(uid)).map(|(_, unknown)| unknown).collect();
        if !over.is_empty() || !unknown.is_empty() {
            self.publish();
        }
        let drained = self
            .draining
            .extract_if(.., |each| gone(&mut each.captured) || !is_known(&each.captured.wanted.uid))
            .map(|each| each.captured);
        for captured in drained.collect::<Vec<_>>() {
            self.end(captured, &Cut::PodGone);
        }
        for captured in over {
            self.unenroll(vec![captured.pod.captured.clone()], "the pod is gone");
            self.end(captured, &Cut::PodGone);
        }
        for captured in unknown {
            tracing::info!(pod = %captured.wanted.uid, "the mesh no longer knows the pod: it is closed until nothing of it runs");
            self.orphans.add(&captured);
            self.end(captured, &Cut::PodGone);
        }
        let over = self.orphans.take_over(sighting);
        self.unenroll(over, "the pod is gone");
    }

    /// Orphans that are known again and not wanted, and all of them once the mesh leaves.
    pub(super) fn release_orphans(&mut self, snapshot: &Snapshot, wanted: &BTreeMap<WorkloadUid, Wanted>) {
        let leaving = snapshot.mesh().leaving;
        let is_let_go =
            |uid: &WorkloadUid| leaving || (snapshot.workload(uid).is_some() && !wanted.contains_key(uid));
        let let_go = self.orphans.take_of(is_let_go);
        self.unenroll(let_go, "the pod is let go");
    }

    pub(super) fn unenroll(&self, places: Vec<CapturedPod>, why: &'static str) {
        for place in places {
            tracing::info!(pod = place.uid(), "{why}: its hooks are taken off");
            if let Err(error) = self.rooms.hooks.unenroll(&place) {
                tracing::warn!(pod = place.uid(), %error, "the hooks of a pod remain");
            }
        }
    }

    /// Closes the listeners and every connection.
    pub(super) fn end(&self, captured: Captured, reason: &Cut) {
        captured.pod.mark_gone();
        captured.stop.cancel();
        self.workers.cut_pod(&captured.pod, reason);
    }

    /// Pods that shall no longer be captured: the kernel first, then what is open may end by itself.
    pub(super) async fn release_unwanted(&mut self, wanted: &BTreeMap<WorkloadUid, Wanted>) {
        let unwanted: Vec<_> =
            self.captured.extract_if(|uid, _| !wanted.contains_key(uid)).map(|(_, it)| it).collect();
        if unwanted.is_empty() {
            return;
        }
        self.publish();
        for captured in unwanted {
            let hooks = self.rooms.hooks.clone();
            let place = captured.pod.captured.clone();
            let released = tokio::task::spawn_blocking(move || hooks.unenroll(&place)).await;
            match released {
                Ok(Ok(())) => tracing::info!(pod = %captured.wanted.uid, "let go"),
                Ok(Err(error)) => tracing::warn!(pod = %captured.wanted.uid, %error, "not let go in full"),
                Err(error) => tracing::error!(pod = %captured.wanted.uid, %error, "letting go broke"),
            }
            captured.pod.mark_draining();
            self.workers.drain_pod(&captured.pod);
            let now = Instant::now();
            let until = now + self.rooms.config.limits.drain;
            self.draining.push(Draining { captured, from: now + LOOK, until });
        }
    }

    pub(super) fn end_drained(&mut self) {
        let now = Instant::now();
        let (over, rest) = std::mem::take(&mut self.draining).into_iter().partition(|each: &Draining| {
            each.until <= now || (each.from <= now && self.is_quiet(&each.captured))
        });
        self.draining = rest;
        let over: Vec<Draining> = over;
        for Draining { captured, .. } in over {
            self.end(captured, &Cut::Drained);
        }
    }

    /// Whether every place in the budget is free.
    fn is_quiet(&self, captured: &Captured) -> bool {
        let limit = self.rooms.config.limits.connections_per_workload;
        [true, false].into_iter().all(|outbound| captured.pod.budget(outbound).available_permits() >= limit)
    }

    /// What a previous life captured and nobody wants any more.
    ///
    /// What is nobody else's may be that of a pod that just started and is wanted without an address that the controller knows; or it is
    /// an orphan's, and closed for as long as its namespace is there.
    pub(super) fn forget_unwanted(&self, wanted: &BTreeMap<WorkloadUid, Wanted>, snapshot: &Snapshot) {
        let leaving = snapshot.mesh().leaving;
        for adopted in self.rooms.hooks.adopted() {
            let is_nobodys = !adopted.ips.iter().any(|ip| snapshot.workload_at(*ip).is_some());
            let may_run = is_nobodys && !leaving && self.rooms.hooks.is_netns_there(adopted.cookie);
            if may_run || wanted.values().any(|wanted| wanted.has_any_ip(&adopted.ips)) {
                continue;
            }
            match self.rooms.hooks.forget(adopted.cookie, None) {
                Ok(()) => {
                    tracing::info!(ips = ?adopted.ips, "let go of a pod that a previous life had captured")
                }
                Err(error) => {
                    tracing::warn!(ips = ?adopted.ips, %error, "a pod of a previous life is not let go")
                }
            }
        }
    }
}
