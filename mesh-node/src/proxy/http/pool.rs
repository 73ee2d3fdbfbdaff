//! Keep-alive HTTP/1.1 connections of one worker, by who calls whom.
//!
//! Invariants: a connection is used again only for the same calling pod, the same destination workload and address, and the same
//! transport; being pooled is no permission: each request brings its own.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use hyper::client::conn::http1::SendRequest;
use mesh_model::{identity::Identity, name::WorkloadUid};

use super::body::ToUpstream;
use crate::{
    capture::LocalPod,
    upstream::{Admitted, Transport},
    worker::Worker,
};

/// Idle connections kept for one key.
const IDLE_PER_KEY: usize = 256;

/// Who calls whom, how.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// The calling pod, by its place in memory: entries keep it there.
    pod: usize,
    destination: WorkloadUid,
    addr: SocketAddr,
    transport: Transport,
}

impl Key {
    /// Who calls whom, how.
    pub fn new(
        pod: &Arc<LocalPod>,
        destination: &WorkloadUid,
        addr: SocketAddr,
        transport: Transport,
    ) -> Self {
        Self { pod: Arc::as_ptr(pod) as usize, destination: destination.clone(), addr, transport }
    }
}

/// What a connection is, apart from its bytes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// On whose word it was opened.
    pub admitted: Admitted,
    /// How the bytes travel.
    pub transport: Transport,
    /// What was dialled in the end.
    pub upstream: SocketAddr,
    /// From where.
    pub local: Option<SocketAddr>,
    /// Who is at the other end.
    pub peer: Option<Identity>,
}

/// An HTTP/1.1 connection to an upstream.
pub struct Pooled {
    /// Takes one request at a time.
    pub sender: SendRequest<ToUpstream>,
    /// What it is.
    pub facts: Rc<Facts>,
    /// Requests so far.
    pub requests: u32,
}

struct Idle {
    pooled: Pooled,
    pod: Arc<LocalPod>,
    since: Instant,
}

/// Idle HTTP connections of one worker.
#[derive(Default)]
pub struct HttpPool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
}

/// Where a connection goes when its response is through.
pub enum Home {
    /// Into the worker's pool.
    Pool {
        /// Whose pool.
        worker: Rc<Worker>,
        /// Under which key.
        key: Key,
        /// Whose connection.
        pod: Arc<LocalPod>,
        /// Requests after which it is closed.
        most_requests: Option<u32>,
    },
    /// To the one caller's connection that it serves.
    Caller(Rc<RefCell<Option<Pooled>>>),
}

impl Home {
    /// Takes a connection whose response is through.
    pub fn take_back(&self, pooled: Pooled) {
        match self {
            Self::Pool { most_requests: Some(most), .. } if pooled.requests >= *most => {}
            Self::Pool { worker, key, pod, .. } => worker.http.put(key, pod, pooled),
            Self::Caller(slot) => *slot.borrow_mut() = Some(pooled),
        }
    }
}

impl HttpPool {
    /// The connection used last, if one can take a request now.
    pub fn take(&self, key: &Key) -> Option<Pooled> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(key)?;
        list.retain(|idle| !idle.pooled.sender.is_closed());
        // One that is not ready is still reading the end of its response; it will be, later.
        let at = list.iter().rposition(|idle| idle.pooled.sender.is_ready())?;
        Some(list.swap_remove(at).pooled)
    }

    fn put(&self, key: &Key, pod: &Arc<LocalPod>, pooled: Pooled) {
        if pooled.sender.is_closed() || pod.is_gone() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(key.clone()).or_default();
        if list.len() < IDLE_PER_KEY {
            list.push(Idle { pooled, pod: pod.clone(), since: Instant::now() });
        }
    }

    /// Ends every connection from this pod.
    pub fn end_pod(&self, pod: &Arc<LocalPod>) {
        self.idle.borrow_mut().retain(|key, _| key.pod != Arc::as_ptr(pod) as usize);
    }

    /// Drops what is idle for too long, closed, or leads to a workload that is gone.
    pub fn keep(&self, worker: &Worker) {
        let snapshot = worker.rooms.state.snapshot();
        let longest = worker.limits().pool_idle;
        self.idle.borrow_mut().retain(|key, list| {
            let known =
                snapshot.workload(&key.destination).is_some_and(|workload| workload.has_ip(key.addr.ip()));
            list.retain(|idle| {
                known
                    && !idle.pooled.sender.is_closed()
                    && !idle.pod.is_gone()
                    && idle.since.elapsed() < longest
            });
            !list.is_empty()
        });
    }
}
