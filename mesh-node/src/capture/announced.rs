//! Pods that the CNI plugin handed over: their network namespaces and addresses, before the controller knows the latter.
//!
//! Invariants: one entry per pod, that of its latest sandbox; a deletion concerns the sandbox it names and no later one. Never on the
//! data path.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_model::name::WorkloadUid;
use tokio::sync::{Notify, oneshot, watch};

use crate::sys::Netns;

/// How long a pod that nobody knows is kept: its server has answered long before.
const UNKNOWN_KEPT: Duration = Duration::from_secs(60);

/// The table between the CNI server and the reconciler. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Table {
    pods: HashMap<WorkloadUid, Entry>,
    departures: Vec<Departure>,
}

#[derive(Debug)]
struct Entry {
    sandbox: String,
    given: Given,
    outcome: watch::Sender<Outcome>,
    since: Instant,
}

/// What the plugin gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// The pod's network namespace.
    pub netns: Netns,
    /// Its addresses, the primary one first.
    pub ips: Vec<IpAddr>,
}

/// What became of a pod that was announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// The kernel captures it.
    Captured,
    /// It could not be captured.
    Failed {
        /// Why.
        reason: String,
        /// Whether trying again is of no use.
        is_final: bool,
    },
}

/// A pod's sandbox that is deleted.
#[derive(Debug)]
pub struct Departure {
    /// The pod.
    pub uid: WorkloadUid,
    /// Cookie of the network namespace that is given up.
    pub netns: u64,
    done: oneshot::Sender<()>,
}

impl Announced {
    /// A sandbox is there, with nothing running in it. The receiver sees what becomes of it, and closes when it is deleted or
    /// replaced meanwhile.
    pub fn announce(&self, uid: WorkloadUid, sandbox: String, given: Given) -> watch::Receiver<Outcome> {
        let (outcome, seen) = watch::channel(Outcome::Pending);
        self.table().pods.insert(uid, Entry { sandbox, given, outcome, since: Instant::now() });
        self.shared.wake.notify_one();
        seen
    }

    /// A sandbox that was announced will not be used. Whoever captured it meanwhile learns of its deletion.
    pub fn withdraw(&self, uid: &WorkloadUid, sandbox: &str) {
        let mut table = self.table();
        if table.pods.get(uid).is_some_and(|entry| entry.sandbox == sandbox) {
            table.pods.remove(uid);
        }
    }

    /// A sandbox is deleted; `netns` is the cookie of its namespace, if that is still there. The receiver hears when nothing is
    /// captured in it any more; `None`: it is not known here.
    pub fn depart(
        &self,
        uid: WorkloadUid,
        sandbox: &str,
        netns: Option<u64>,
    ) -> Option<oneshot::Receiver<()>> {
        let mut table = self.table();
        let announced = table.pods.get(&uid).filter(|entry| entry.sandbox == sandbox);
        let netns = announced.map(|entry| entry.given.netns.cookie()).or(netns)?;
        if table.pods.get(&uid).is_some_and(|entry| entry.given.netns.cookie() == netns) {
            table.pods.remove(&uid);
        }
        let (done, heard) = oneshot::channel();
        table.departures.push(Departure { uid, netns, done });
        self.shared.wake.notify_one();
        Some(heard)
    }

    /// What the plugin gave of this pod.
    pub(super) fn find(&self, uid: &WorkloadUid) -> Option<Given> {
        self.table().pods.get(uid).map(|entry| entry.given.clone())
    }

    /// The deletions since the last call.
    pub(super) fn take_departures(&self) -> Vec<Departure> {
        std::mem::take(&mut self.table().departures)
    }

    /// Asks for the outcome of each announced pod and tells who waits for it.
    pub(super) fn answer(&self, outcome: impl Fn(&WorkloadUid, &Netns) -> Outcome) {
        for (uid, entry) in &self.table().pods {
            let now = outcome(uid, &entry.given.netns);
            entry.outcome.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        }
    }

    /// Lets go of pods that were announced a while ago and that nobody knows.
    pub(super) fn forget_unknown(&self, is_known: impl Fn(&WorkloadUid) -> bool) {
        self.table().pods.retain(|uid, entry| is_known(uid) || entry.since.elapsed() < UNKNOWN_KEPT);
    }

    /// Returns once something was announced or deleted.
    pub(super) async fn wakened(&self) {
        self.shared.wake.notified().await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure {
    /// Nothing is captured in it any more.
    pub(super) fn done(self) {
        // A server that no longer waits has answered already.
        let _ = self.done.send(());
    }
}
