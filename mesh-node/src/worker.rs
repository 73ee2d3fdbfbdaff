//! The threads that carry bytes: one per core, each with its own runtime, pools and counters.
//!
//! Invariants: a connection lives on one worker from accept to end; nothing on the path takes a lock shared between workers; a
//! full hand-over queue refuses the connection, it never blocks the accepting worker.

mod accept;

use std::{
    io,
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::{LocalSet, spawn_local},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::Rooms,
    capture::{LocalPod, LocalPods, Place},
    config::Limits,
    conns::{ConnectionView, Conns, Cut},
    phase::Stage,
    proxy::{self, buffers::Buffers},
    recheck,
    telemetry::{Counter, Telemetry},
    upstream::{hbone::Tunnels, pick::Load},
};

/// Accepted connections that wait for their worker.
const HAND_OVER: usize = 1024;

/// Which of a pod's listeners a connection came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// A captured `connect()` of the pod.
    Outbound,
    /// Plaintext from elsewhere to any port of the pod.
    Plaintext,
    /// Port 15008.
    Hbone,
}

/// An accepted socket on its way to its worker.
#[derive(Debug)]
pub enum Socket {
    /// Accepted by the worker that serves it.
    Here(tokio::net::TcpStream),
    /// On its way from another worker: with no runtime.
    Moved(TcpStream),
}

/// A connection that came in and has a place in the pod's budget.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Socket,
    /// Its other end.
    pub peer: std::net::SocketAddr,
    /// By which listener.
    pub door: Door,
    /// Of which pod.
    pub pod: Arc<LocalPod>,
    /// Its place in the budget.
    pub place: Place,
    /// Its share of the worker's load.
    pub load: LaneWork,
}

/// A listener of a pod, to be accepted from until `stop`.
#[derive(Debug)]
pub struct Listen {
    /// The listener, in the pod's netns.
    pub listener: std::net::TcpListener,
    /// Which one.
    pub door: Door,
    /// The pod.
    pub pod: Arc<LocalPod>,
    /// When to close it.
    pub stop: CancellationToken,
}

enum Control {
    Listen(Listen),
    CutPod(Arc<LocalPod>, Cut),
    DrainPod(Arc<LocalPod>),
    Connections(oneshot::Sender<Vec<ConnectionView>>),
}

/// Counts one connection of a worker for as long as it lives.
#[derive(Debug)]
pub struct LaneWork(Arc<AtomicUsize>);

impl LaneWork {
    fn begin(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for LaneWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Lane {
    accepted: mpsc::Sender<Accepted>,
    control: mpsc::UnboundedSender<Control>,
    load: Arc<AtomicUsize>,
}

/// All workers; cheap to clone.
#[derive(Clone)]
pub struct Workers {
    lanes: Arc<[Lane]>,
    pods: LocalPods,
}

/// What a connection has at hand: its worker's own things, and the process's rooms.
pub struct Worker {
    /// The process's rooms.
    pub rooms: Rooms,
    /// The captured pods of this node.
    pub pods: LocalPods,
    /// Open connections of this worker.
    pub conns: Rc<Conns>,
    /// Live load of this worker.
    pub load: Load,
    /// Tunnels of this worker.
    pub tunnels: Tunnels,
    /// Keep-alive HTTP connections of this worker.
    pub http: proxy::http::pool::HttpPool,
    /// Bytes that the process may buffer.
    pub buffers: Arc<Buffers>,
    /// Counters of the path.
    pub counters: Counters,
    workers: Workers,
    number: usize,
}

/// Events of the path that no standard metric shows.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Accepted from the outbound listener, but nobody captured it.
    pub origin_missing: Counter,
    /// Refused: the worker's hand-over queue was full.
    pub hand_over_full: Counter,
    /// Refused: the workload has too many connections.
    pub connections_refused: Counter,
    /// Accepting paused: no descriptors or no memory.
    pub accept_paused: Counter,
    /// Refused: no complete snapshot yet, or the workload is not in it.
    pub no_snapshot: Counter,
    /// Vouched dials that no hook honoured; they went by HBONE.
    pub vouch_missed: Counter,
    /// TLS or HTTP/2 handshakes of callers that failed.
    pub inbound_handshake_failed: Counter,
    /// Connections ended by a policy change.
    pub cut_by_policy: Counter,
}

impl Counters {
    fn register(telemetry: &Telemetry) -> Self {
        let counter = |name, help| telemetry.counter(name, help);
        Self {
            origin_missing: counter(
                "mesh_origin_missing",
                "Connections accepted from an outbound listener that no hook captured; closed",
            ),
            hand_over_full: counter(
                "mesh_hand_over_full",
                "Connections refused because a worker's queue was full",
            ),
            connections_refused: counter(
                "mesh_connections_refused",
                "Connections refused because their workload has too many",
            ),
            accept_paused: counter(
                "mesh_accept_paused",
                "Pauses of accepting for want of descriptors or memory",
            ),
            no_snapshot: counter(
                "mesh_no_snapshot",
                "Connections refused because the configuration or their workload has not arrived",
            ),
            vouch_missed: counter(
                "mesh_vouch_missed",
                "Same-node dials that the kernel did not honour; sent by HBONE",
            ),
            inbound_handshake_failed: counter(
                "mesh_inbound_handshake_failed",
                "Handshakes of callers on port 15008 that failed",
            ),
            cut_by_policy: counter("mesh_connections_cut", "Live connections ended by a policy change"),
        }
    }
}

impl Worker {
    /// Time-outs and bounds.
    pub fn limits(&self) -> &Limits {
        &self.rooms.config.limits
    }

    /// Ends every connection of the pod, pooled ones too: a socket left open would keep its network namespace alive.
    fn cut_pod(&self, pod: &Arc<LocalPod>, reason: &Cut) {
        self.conns.cut_pod(pod, reason);
        self.tunnels.end_pod(pod);
        self.http.end_pod(pod);
    }
}

/// Starts the workers. They stop by themselves when the phase says so.
pub fn start(rooms: &Rooms) -> io::Result<Workers> {
    let count =
        rooms.config.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let mut lanes = Vec::with_capacity(count);
    let mut inboxes = Vec::with_capacity(count);
    for _ in 0..count {
        let (accepted, inbox) = mpsc::channel(HAND_OVER);
        let (control, orders) = mpsc::unbounded_channel();
        lanes.push(Lane { accepted, control, load: Arc::default() });
        inboxes.push((inbox, orders));
    }
    let workers = Workers { lanes: lanes.into(), pods: LocalPods::default() };
    let counters = Counters::register(&rooms.telemetry);
    let buffers = Buffers::new(rooms.config.limits.buffered_bytes_process);
    for (number, (inbox, orders)) in inboxes.into_iter().enumerate() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (rooms, workers, counters) = (rooms.clone(), workers.clone(), counters.clone());
        let buffers = buffers.clone();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let worker = Rc::new(Worker {
                pods: workers.pods.clone(),
                conns: Rc::default(),
                load: Load::default(),
                tunnels: Tunnels::default(),
                http: proxy::http::pool::HttpPool::default(),
                buffers,
                counters,
                workers,
                number,
                rooms,
            });
            let local = LocalSet::new();
            local.block_on(&runtime, run(worker, inbox, orders));
        })?;
    }
    Ok(workers)
}

async fn run(
    worker: Rc<Worker>,
    mut inbox: mpsc::Receiver<Accepted>,
    mut orders: mpsc::UnboundedReceiver<Control>,
) {
    spawn_local(recheck::run(worker.rooms.state.clone(), worker.conns.clone()));
    spawn_local(crate::upstream::hbone::keep(worker.clone()));
    let phase = worker.rooms.phase.clone();
    let stopped = phase.reached(Stage::Stopped);
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return,
            order = orders.recv() => match order {
                Some(Control::Listen(listen)) => { spawn_local(accept::run(worker.clone(), listen)); }
                Some(Control::CutPod(pod, reason)) => worker.cut_pod(&pod, &reason),
                Some(Control::DrainPod(pod)) => worker.conns.drain_pod(&pod),
                // Whoever asked may have given up waiting.
                Some(Control::Connections(reply)) => drop(reply.send(worker.conns.views())),
                None => return,
            },
            accepted = inbox.recv() => match accepted {
                Some(accepted) => serve(&worker, accepted),
                None => return,
            },
        }
    }
}

fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let worker = worker.clone();
    spawn_local(async move {
        let _busy = worker.rooms.phase.busy();
        proxy::serve(&worker, accepted).await;
    });
}

impl Workers {
    /// The captured pods that the workers see.
    pub fn pods(&self) -> &LocalPods {
        &self.pods
    }

    /// Accepts from a pod's listener, on a worker of the pod's own.
    pub fn listen(&self, listen: Listen) {
        let owner = usize::try_from(listen.pod.captured.cookie()).unwrap_or_default() % self.lanes.len();
        // A worker that is gone has stopped: so has the process.
        let _stopped = self.lanes[owner].control.send(Control::Listen(listen));
    }

    /// Ends every connection from or to this pod, at once.
    pub fn cut_pod(&self, pod: &Arc<LocalPod>, reason: &Cut) {
        for lane in self.lanes.iter() {
            let _stopped = lane.control.send(Control::CutPod(pod.clone(), reason.clone()));
        }
    }

    /// Asks every connection of a pod that was let go to come to its end by itself.
    pub fn drain_pod(&self, pod: &Arc<LocalPod>) {
        for lane in self.lanes.iter() {
            let _stopped = lane.control.send(Control::DrainPod(pod.clone()));
        }
    }

    /// All open connections, for people.
    pub async fn connections(&self) -> Vec<ConnectionView> {
        let mut all = Vec::new();
        for lane in self.lanes.iter() {
            let (reply, answer) = oneshot::channel();
            if lane.control.send(Control::Connections(reply)).is_ok() {
                all.extend(answer.await.unwrap_or_default());
            }
        }
        all
    }

    /// The lane with the fewest connections; `own` among equals, which saves waking another thread.
    fn least_loaded(&self, own: usize) -> usize {
        let load = |lane: usize| self.lanes[lane].load.load(Ordering::Relaxed);
        let mut best = own;
        for lane in 0..self.lanes.len() {
            if load(lane) < load(best) {
                best = lane;
            }
        }
        best
    }
}
