//! The open connections of one worker: counted, listed, re-checked, closed.
//!
//! Each worker has its own registry, so registering takes no lock. Invariant: a policy that comes while a connection is being let in
//! is asked about it too: either by [`Registered::allowed`], or by [`crate::recheck`] which then finds it here.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{
    authz::{Admission, Denied, Permit},
    identity::Identity,
    name::WorkloadUid,
    snapshot::Snapshot,
    workload::Workload,
};
use tokio::sync::Notify;

use crate::{capture::LocalPod, proxy::relay::Traffic, state::State};

/// Which way a connection goes, seen from the captured pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The pod called.
    Outbound,
    /// The pod was called.
    Inbound,
}

/// Why a connection is ended from outside.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cut {
    /// The pod is over.
    #[error("the pod is gone")]
    PodGone,
    /// A policy no longer allows it.
    #[error("no longer allowed: {0}")]
    Denied(Denied),
    /// Draining took too long.
    #[error("drained")]
    Drained,
}

/// What was asked when the connection (or its present request) was let in; asked again when policies change.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// An opaque connection, or the request under way.
    pub permit: Option<Permit>,
    /// An HTTP connection between its requests.
    pub admission: Option<Admission>,
}

impl Asked {
    /// The workload of this node that is called.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        self.permit
            .as_ref()
            .map(Permit::workload)
            .or_else(|| self.admission.as_ref().map(Admission::workload))
    }

    /// Asks again.
    pub fn still_allowed(&self, snapshot: &Snapshot) -> Result<(), Denied> {
        if let Some(permit) = &self.permit {
            permit.still_allowed(snapshot)?;
        }
        if let Some(admission) = &self.admission {
            admission.still_allowed(snapshot)?;
        }
        Ok(())
    }
}

/// What becomes known of a connection while it lives.
#[derive(Clone, Debug)]
struct Facts {
    destination: Option<SocketAddr>,
    callee: Option<WorkloadUid>,
    peer: Option<Identity>,
    protocol: &'static str,
    asked: Asked,
}

/// One connection in the registry.
#[derive(Debug)]
struct Entry {
    number: u64,
    direction: Direction,
    pod: Arc<LocalPod>,
    client: SocketAddr,
    opened: Instant,
    traffic: Rc<Traffic>,
    facts: RefCell<Facts>,
    cut: RefCell<Option<Cut>>,
    wake: Notify,
    drain: Notify,
}

/// The registry of one worker.
#[derive(Debug, Default)]
pub struct Conns {
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<Entry>>>,
}

/// A registered connection; forgotten when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Rc<Conns>,
    entry: Rc<Entry>,
}

/// One connection, for people.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Seen from the pod.
    pub direction: Direction,
    /// The captured pod's workload.
    pub workload: WorkloadUid,
    /// Who is at the other end, if proven or vouched.
    pub peer: Option<Identity>,
    /// Who called.
    pub client: SocketAddr,
    /// What was dialled in the end.
    pub destination: Option<SocketAddr>,
    /// `tcp`, `http`, `hbone`…
    pub protocol: &'static str,
    /// How long it has been open.
    pub age: Duration,
    /// From the upstream to the caller, in bytes.
    pub sent: u64,
    /// From the caller to the upstream, in bytes.
    pub received: u64,
}

impl Conns {
    /// Registers a connection of `pod`.
    pub fn register(
        self: &Rc<Self>,
        direction: Direction,
        pod: Arc<LocalPod>,
        client: SocketAddr,
        protocol: &'static str,
    ) -> Registered {
        let number = self.next.get();
        self.next.set(number + 1);
        let facts = Facts { destination: None, callee: None, peer: None, protocol, asked: Asked::default() };
        let entry = Rc::new(Entry {
            number,
            direction,
            pod,
            client,
            opened: Instant::now(),
            traffic: Rc::default(),
            facts: RefCell::new(facts),
            cut: RefCell::new(None),
            wake: Notify::new(),
            drain: Notify::new(),
        });
        self.open.borrow_mut().insert(number, entry.clone());
        Registered { registry: self.clone(), entry }
    }

    /// Ends every connection of this pod; when it is gone, also those to it.
    pub fn cut_pod(&self, pod: &Arc<LocalPod>, reason: &Cut) {
        let gone = *reason == Cut::PodGone;
        for entry in self.open.borrow().values() {
            let to_it = || entry.facts.borrow().callee.as_ref() == Some(&pod.uid);
            if Arc::ptr_eq(&entry.pod, pod) || (gone && to_it()) {
                entry.cut(reason.clone());
            }
        }
    }

    /// Asks every connection of this pod (which is marked as draining) to come to its end by itself.
    pub fn drain_pod(&self, pod: &Arc<LocalPod>) {
        for entry in self.open.borrow().values().filter(|entry| Arc::ptr_eq(&entry.pod, pod)) {
            entry.drain.notify_one();
        }
    }

    /// Asks `still_allowed` for every connection that is asked about here, and ends those that are not. Says how many.
    pub fn cut_denied(&self, mut still_allowed: impl FnMut(&Asked) -> Result<(), Denied>) -> usize {
        let mut ended = 0;
        for entry in self.open.borrow().values() {
            let verdict = still_allowed(&entry.facts.borrow().asked);
            if let Err(denied) = verdict {
                entry.cut(Cut::Denied(denied));
                ended += 1;
            }
        }
        ended
    }

    /// All of them, for people.
    pub fn views(&self) -> Vec<ConnectionView> {
        self.open.borrow().values().map(|entry| entry.view()).collect()
    }
}

impl Entry {
    fn cut(&self, reason: Cut) {
        self.cut.borrow_mut().get_or_insert(reason);
        self.wake.notify_one();
    }

    fn view(&self) -> ConnectionView {
        let facts = self.facts.borrow();
        ConnectionView {
            direction: self.direction,
            workload: self.pod.uid.clone(),
            peer: facts.peer.clone(),
            client: self.client,
            destination: facts.destination,
            protocol: facts.protocol,
            age: self.opened.elapsed(),
            sent: self.traffic.sent.get(),
            received: self.traffic.received.get(),
        }
    }
}

impl Registered {
    /// The counters that the relay counts on.
    pub fn traffic(&self) -> &Rc<Traffic> {
        &self.entry.traffic
    }

    /// The connection as a whole was allowed; `snapshot` is what it was decided on.
    ///
    /// Asks once more if there is a newer one by now: its re-check has not seen this permit.
    pub fn allowed(&self, permit: &Permit, state: &State, snapshot: &Snapshot) -> Result<(), Denied> {
        self.entry.facts.borrow_mut().asked.permit = Some(permit.clone());
        let current = state.snapshot();
        if current.generation() == snapshot.generation() {
            Ok(())
        } else {
            permit.still_allowed(&current).map(drop)
        }
    }

    /// The HTTP connection was admitted; its requests are asked about one by one.
    pub fn admitted(&self, admission: Admission) {
        self.entry.facts.borrow_mut().asked.admission = Some(admission);
    }

    /// The request under way is over.
    pub fn request_over(&self) {
        self.entry.facts.borrow_mut().asked.permit = None;
    }

    /// What the connection turned out to speak.
    pub fn set_protocol(&self, protocol: &'static str) {
        self.entry.facts.borrow_mut().protocol = protocol;
    }

    /// Where it goes, and to which workload of this node, if to one.
    pub fn set_destination(&self, destination: SocketAddr, callee: Option<WorkloadUid>) {
        let mut facts = self.entry.facts.borrow_mut();
        facts.destination = Some(destination);
        facts.callee = callee;
    }

    /// Who is at the other end.
    pub fn set_peer(&self, peer: Option<Identity>) {
        self.entry.facts.borrow_mut().peer = peer;
    }

    /// Returns when the connection shall come to its end by itself, because its pod was let go.
    pub async fn draining(&self) {
        while !self.entry.pod.is_draining() {
            self.entry.drain.notified().await;
        }
    }

    /// Returns when the connection must end, with the reason.
    pub async fn cut(&self) -> Cut {
        loop {
            if let Some(reason) = self.entry.cut.borrow().clone() {
                return reason;
            }
            self.entry.wake.notified().await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.open.borrow_mut().remove(&self.entry.number);
    }
}
