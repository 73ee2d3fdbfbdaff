//! Tunnels to other nodes: HTTP/2 CONNECT over mTLS to port 15008 of the destination pod, pooled per worker and pair of workloads.
//!
//! Wire form: ztunnel's (field-lessons §1.5). Invariants: a tunnel is used only while the destination has the identity that its
//! certificate showed; connections are opened once for all who wait (their time-outs run together, not one after the other); a
//! tunnel dies with its source pod, and when the snapshot no longer has its destination as it was.

mod cork;
mod open;

pub use cork::cork;
pub use open::{MAX_FRAME, unanswered};

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode, header::HeaderName};
use mesh_model::{
    decide::Candidate, identity::Identity, name::WorkloadUid, snapshot::Snapshot, workload::Workload,
};
use tokio::{
    task::{AbortHandle, spawn_local},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Admitted, Caller, Connected, DialError, Transport,
    stream::{StreamLease, TunnelStream, UpstreamStream},
};
use crate::{bpf::HBONE_PORT, capture::LocalPod, worker::Worker};

/// Between two looks at idle and outdated tunnels.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// The tunnels of one worker.
#[derive(Default)]
pub struct Tunnels {
    pairs: RefCell<HashMap<Pair, Entry>>,
}

/// Which two workloads, and which of the destination's addresses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Pair {
    source: WorkloadUid,
    destination: WorkloadUid,
    ip: IpAddr,
}

struct Entry {
    pod: Arc<LocalPod>,
    expected: Identity,
    live: Vec<Rc<Tunnel>>,
    opening: Option<Opening>,
}

type Opening = Shared<LocalBoxFuture<'static, Result<Rc<Tunnel>, DialError>>>;

/// One connection to the destination's node.
struct Tunnel {
    send: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    closed: Rc<Cell<bool>>,
    used: Cell<Instant>,
    local: Option<SocketAddr>,
    driver: AbortHandle,
}

/// Reaches `candidate` through a tunnel, for opaque bytes.
pub async fn connect(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    candidate: &Candidate,
    connect_timeout: Option<Duration>,
) -> Result<Connected, DialError> {
    let destination = snapshot.workload(&candidate.workload.uid).unwrap_or(&candidate.workload);
    let to = candidate.addr.get();
    let request = request(&caller.workload, caller.client.get(), to);
    let mut fresh_tried = false;
    loop {
        let (tunnel, lease) = checkout(worker, caller, destination, to.ip(), connect_timeout).await?;
        match send_connect(worker, &tunnel, request.clone(), to, lease).await {
            Ok(stream) => {
                return Ok(Connected {
                    stream: UpstreamStream::Tunnel(stream),
                    admitted: Admitted::ByPeer(destination.identity.clone()),
                    transport: Transport::Tunnel,
                    upstream: SocketAddr::new(to.ip(), HBONE_PORT),
                    local: tunnel.local,
                    peer: Some(destination.identity.clone()),
                });
            }
            // CONNECT was not answered, so nothing reached the application: once more, on another connection.
            Err(DialError::Tunnel { stale: true, .. }) if !fresh_tried => {
                tunnel.closed.set(true);
                fresh_tried = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A tunnel with room for one more stream, and the place in it.
async fn checkout(
    worker: &Rc<Worker>,
    caller: &Caller,
    destination: &Arc<Workload>,
    ip: IpAddr,
    connect_timeout: Option<Duration>,
) -> Result<(Rc<Tunnel>, StreamLease), DialError> {
    let pair = Pair { source: caller.pod.uid.clone(), destination: destination.uid.clone(), ip };
    loop {
        if let Some(ready) = worker.tunnels.ready(&pair, &destination.identity, worker) {
            return Ok(ready);
        }
        let opening = worker.tunnels.opening(&pair, worker, caller, destination, connect_timeout);
        opening.await?;
    }
}

impl Tunnels {
    fn ready(&self, pair: &Pair, expected: &Identity, worker: &Worker) -> Option<(Rc<Tunnel>, StreamLease)> {
        let limits = worker.limits();
        let mut pairs = self.pairs.borrow_mut();
        let entry = pairs.get_mut(pair)?;
        if entry.expected != *expected {
            // Whoever had this address before: not one byte more.
            entry.end();
            pairs.remove(pair);
            return None;
        }
        entry.live.retain(|tunnel| !tunnel.closed.get());
        let streams = |tunnel: &Rc<Tunnel>| tunnel.streams.load(Ordering::Relaxed);
        let room = entry.live.iter().find(|tunnel| streams(tunnel) < limits.streams_per_connection as usize);
        let full = entry.live.len() >= limits.connections_per_pool;
        let tunnel = room.or_else(|| entry.live.iter().min_by_key(|each| streams(each)).filter(|_| full))?;
        tunnel.used.set(Instant::now());
        Some((tunnel.clone(), StreamLease::take(&tunnel.streams)))
    }

    /// The opening under way, or a new one. It runs as a task: who waits may give up, the others still get it.
    fn opening(
        &self,
        pair: &Pair,
        worker: &Rc<Worker>,
        caller: &Caller,
        destination: &Arc<Workload>,
        connect_timeout: Option<Duration>,
    ) -> Opening {
        let mut pairs = self.pairs.borrow_mut();
        let entry = pairs.entry(pair.clone()).or_insert_with(|| Entry {
            pod: caller.pod.clone(),
            expected: destination.identity.clone(),
            live: Vec::new(),
            opening: None,
        });
        if let Some(opening) = &entry.opening {
            return opening.clone();
        }
        let (worker, pair, caller, destination) =
            (worker.clone(), pair.clone(), caller.clone(), destination.clone());
        let to = SocketAddr::new(pair.ip, HBONE_PORT);
        let task = spawn_local(async move {
            let opened = open::open(&worker, &caller, &destination, to, connect_timeout).await;
            worker.tunnels.opened(&pair, &destination.identity, &opened);
            opened
        });
        let opening = async move {
            match task.await {
                Ok(opened) => opened,
                Err(_ended) => Err(DialError::TooSlow { step: "shutdown", to, limit: Duration::ZERO }),
            }
        };
        let opening = opening.boxed_local().shared();
        entry.opening = Some(opening.clone());
        opening
    }

    fn opened(&self, pair: &Pair, expected: &Identity, opened: &Result<Rc<Tunnel>, DialError>) {
        let mut pairs = self.pairs.borrow_mut();
        let Some(entry) = pairs.get_mut(pair) else { return };
        entry.opening = None;
        match opened {
            Ok(tunnel) if entry.expected == *expected => entry.live.push(tunnel.clone()),
            _ if entry.live.is_empty() => drop(pairs.remove(pair)),
            _ => {}
        }
    }

    /// Drops what is idle, and ends what the snapshot no longer has.
    fn keep(&self, worker: &Worker, snapshot: &Snapshot) {
        let idle = worker.limits().pool_idle;
        self.pairs.borrow_mut().retain(|pair, entry| {
            let source_lives = !entry.pod.is_gone();
            let as_it_was = snapshot.workload(&pair.destination).is_some_and(|destination| {
                destination.identity == entry.expected && destination.has_ip(pair.ip)
            });
            if !source_lives || !as_it_was {
                entry.end();
                return false;
            }
            entry.live.retain(|tunnel| {
                let unused =
                    tunnel.streams.load(Ordering::Relaxed) == 0 && tunnel.used.get().elapsed() >= idle;
                !unused && !tunnel.closed.get()
            });
            !entry.live.is_empty() || entry.opening.is_some()
        });
    }

    /// Ends every tunnel from this pod.
    pub fn end_pod(&self, pod: &Arc<LocalPod>) {
        self.pairs.borrow_mut().retain(|_, entry| {
            let other = !Arc::ptr_eq(&entry.pod, pod);
            if !other {
                entry.end();
            }
            other
        });
    }
}

impl Entry {
    /// Ends every connection with all its streams, now.
    fn end(&mut self) {
        for tunnel in self.live.drain(..) {
            tunnel.closed.set(true);
            tunnel.driver.abort();
        }
    }
}

/// Keeps the worker's tunnels tidy for as long as it lives.
pub async fn keep(worker: Rc<Worker>) {
    let mut changed = worker.rooms.state.changed();
    let mut tick = interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            seen = changed.changed() => if seen.is_err() { return },
        }
        if worker.rooms.state.is_complete() {
            worker.tunnels.keep(&worker, &worker.rooms.state.snapshot());
            worker.http.keep(&worker);
        }
    }
}

async fn send_connect(
    worker: &Worker,
    tunnel: &Tunnel,
    request: Request<()>,
    to: SocketAddr,
    lease: StreamLease,
) -> Result<TunnelStream, DialError> {
    let limit = worker.limits().connect_reply;
    let broke = |error: h2::Error| {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let stale = tunnel.closed.get() || error.is_go_away() || error.is_io() || refused;
        DialError::Tunnel { to, error: Arc::new(error), stale }
    };
    let exchange = async {
        let mut send = tunnel.send.clone().ready().await.map_err(|error| {
            // The connection takes no more streams.
            tunnel.closed.set(true);
            broke(error)
        })?;
        let (response, body) = send.send_request(request, false).map_err(broke)?;
        let response = response.await.map_err(broke)?;
        Ok::<_, DialError>((response, body))
    };
    let (response, send) = match timeout(limit, exchange).await {
        Ok(exchanged) => exchanged?,
        Err(_elapsed) => return Err(DialError::TooSlow { step: "CONNECT", to, limit }),
    };
    match response.status() {
        StatusCode::OK => Ok(TunnelStream::new(send, response.into_body(), Some(lease))),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(DialError::DeniedByPeer { to }),
        StatusCode::SERVICE_UNAVAILABLE => Err(DialError::UnreachableForPeer { to }),
        status => Err(DialError::PeerStatus { to, status: status.as_u16() }),
    }
}

/// The CONNECT of one connection: the authority is what will be dialled, the rest is telemetry and decides nothing.
fn request(source: &Workload, client: SocketAddr, to: SocketAddr) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = http::Version::HTTP_2;
    // An address and a port are always a valid authority.
    *request.uri_mut() = http::Uri::try_from(to.to_string()).unwrap_or_default();
    let headers = request.headers_mut();
    let mut put = |name: &'static str, value: String| {
        // A name with characters that no header may have is left out: it is telemetry.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("baggage", baggage(source));
    put("forwarded", format!("for=\"{client}\""));
    put(
        "traceparent",
        format!("00-{:032x}-{:016x}-00", rand::random::<u128>() | 1, rand::random::<u64>() | 1),
    );
    request
}

fn baggage(source: &Workload) -> String {
    let names = &source.telemetry;
    format!(
        "k8s.cluster.name={},k8s.namespace.name={},k8s.{}.name={},service.name={},service.version={}",
        names.cluster,
        source.namespace,
        names.workload_type,
        names.workload_name,
        names.canonical_service,
        names.canonical_revision
    )
}
