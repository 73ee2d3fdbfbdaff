//! The journey of a captured outbound connection: `Captured → Plan → Connected → Outcome`.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::SystemTime};

use mesh_model::{
    addr::{ClientAddr, OrigDst},
    decide::{self, Candidate, Outbound, Refusal, Target},
    name::SubsetName,
    service::{Protocol, Service},
    snapshot::Snapshot,
    traffic::PortPolicy,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    count_cut,
    http::{self, answer::Answer},
    outcome::{self, Outcomes},
    prefixed::Prefixed,
    relay::{self, Bounds, ends::End, ends::reset_on_close, relay},
    sniff::{self, First, Sniffed},
};
use crate::{
    capture::LocalPod,
    conns::Registered,
    telemetry::{ConnectionRecord, RequestProtocol, ResponseFlags},
    upstream::{Admitted, Caller, Connected, DialError, Transport, dial, pick::Group, pick::Outstanding},
    worker::Worker,
};

/// Endpoints of an opaque connection that are tried before it is refused.
const TRIES: usize = 3;

/// An accepted connection of a captured pod, and everything that is known of it.
pub struct Captured {
    /// The application's end.
    pub stream: TcpStream,
    /// Who calls, from where.
    pub caller: Caller,
    /// Where to.
    pub dst: OrigDst,
    /// When it was accepted.
    pub started: SystemTime,
    /// Its entry in the registry.
    pub registered: Registered,
}

/// What is done with a captured connection.
enum Plan {
    /// Each request is routed.
    Http(Meant),
    /// To one of these.
    Opaque(Endpoints),
    /// Nothing is declared: one of these at once, unless the caller turns out to speak HTTP first.
    Sniff(Meant, Endpoints),
    /// Out of the mesh, as dialled.
    Passthrough,
    /// Nowhere; an HTTP caller may be told so, where nothing else is declared.
    Refuse { refusal: Refusal, answerable: bool },
}

/// What an HTTP connection is for.
#[derive(Clone, Debug)]
pub enum Meant {
    /// A service's port.
    Service(Arc<Service>, u16),
    /// A pod, by its own address; with the headless service whose routes apply.
    Pod(Candidate, Option<(Arc<Service>, u16)>),
}

/// The endpoints of one destination.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Those that may be dialled.
    pub candidates: Vec<Candidate>,
    /// Balancing and limits.
    pub policy: PortPolicy,
    /// The service; None for a pod by its own address.
    pub service: Option<Arc<Service>>,
    /// Its subset.
    pub subset: Option<SubsetName>,
    /// The service's port, or the pod's.
    pub port: u16,
}

impl From<Target> for Endpoints {
    fn from(target: Target) -> Self {
        Self {
            candidates: target.candidates,
            policy: target.policy,
            service: Some(target.service),
            subset: target.subset,
            port: target.port,
        }
    }
}

impl Endpoints {
    /// A pod by its own address.
    pub fn of_pod(pod: &Candidate, service: Option<&Arc<Service>>) -> Self {
        Self {
            candidates: vec![pod.clone()],
            policy: PortPolicy::default(),
            service: service.cloned(),
            subset: None,
            port: pod.addr.port(),
        }
    }

    /// Whose turn counter is used.
    pub fn group(&self) -> Group<'_> {
        Group {
            service: self.service.as_ref().map(|service| &service.key),
            subset: self.subset.as_ref(),
            port: self.port,
        }
    }

    /// UPSTREAM_CLUSTER_RAW.
    pub fn cluster(&self) -> Option<Arc<str>> {
        let service = self.service.as_ref()?;
        Some(outcome::outbound_cluster(service, self.port, self.subset.as_ref()))
    }
}

/// Serves one accepted connection from the outbound listener.
pub async fn serve(
    worker: &Rc<Worker>,
    pod: Arc<LocalPod>,
    stream: TcpStream,
    peer: SocketAddr,
    registered: Registered,
) {
    let Some(captured) = captured(worker, pod, stream, peer, registered).await else { return };
    let snapshot = worker.rooms.state.snapshot();
    match plan(&snapshot, &captured) {
        Plan::Http(meant) => http::outbound(worker, captured, meant, bytes::Bytes::new()).await,
        Plan::Opaque(endpoints) => opaque(worker, captured, &snapshot, &endpoints).await,
        Plan::Sniff(meant, endpoints) => sniffed(worker, captured, &snapshot, meant, &endpoints).await,
        Plan::Passthrough => passthrough(worker, captured).await,
        Plan::Refuse { refusal, answerable } => refuse(worker, captured, &refusal, answerable).await,
    }
}

/// Who called whom; None if that is not known, and then the connection is reset.
async fn captured(
    worker: &Worker,
    pod: Arc<LocalPod>,
    stream: TcpStream,
    peer: SocketAddr,
    registered: Registered,
) -> Option<Captured> {
    // Reset unless everything is there: a connection that goes nowhere must not look like one that ended well.
    reset_on_close(&stream);
    let local = stream.local_addr().ok()?;
    let Some(origin) = worker.rooms.hooks.take_origin(pod.captured.cookie(), peer, local) else {
        worker.counters.origin_missing.inc();
        return None;
    };
    let state = &worker.rooms.state;
    let arrived = state.wait_complete(worker.limits().snapshot_wait).await;
    let Some(workload) = state.snapshot().workload(&pod.uid).filter(|_| arrived).cloned() else {
        worker.counters.no_snapshot.inc();
        return None;
    };
    let _gone = socket2::SockRef::from(&stream).set_linger(None);
    Some(Captured {
        stream,
        caller: Caller { pod, workload, client: ClientAddr::new(origin.client), ifindex: origin.ifindex },
        dst: OrigDst::new(origin.dst),
        started: SystemTime::now(),
        registered,
    })
}

fn plan(snapshot: &Snapshot, captured: &Captured) -> Plan {
    let source = &captured.caller.workload;
    let (meant, protocol) = match decide::outbound(snapshot, source, captured.dst) {
        Outbound::Service { service, port, protocol } => (Meant::Service(service, port), protocol),
        Outbound::Workload { workload, protocol, service, .. } => {
            (Meant::Pod(Candidate::dialled(&workload, captured.dst), service), protocol)
        }
        Outbound::Passthrough(_) => return Plan::Passthrough,
        Outbound::Refused(refusal) => {
            let answerable = matches!(refusal, Refusal::UnknownDestination(_));
            return Plan::Refuse { refusal, answerable };
        }
    };
    if protocol == Protocol::Http {
        return Plan::Http(meant);
    }
    match (endpoints(snapshot, captured, &meant), protocol) {
        (Ok(endpoints), Protocol::Unknown) => Plan::Sniff(meant, endpoints),
        (Ok(endpoints), _) => Plan::Opaque(endpoints),
        (Err(refusal), protocol) => Plan::Refuse { refusal, answerable: protocol == Protocol::Unknown },
    }
}

/// Where an opaque connection may go.
fn endpoints(snapshot: &Snapshot, captured: &Captured, meant: &Meant) -> Result<Endpoints, Refusal> {
    match meant {
        Meant::Service(service, port) => {
            let target = decide::connection(snapshot, &captured.caller.workload, service, *port)?;
            Ok(target.in_family_of(snapshot, captured.dst.ip()).into())
        }
        Meant::Pod(pod, service) => Ok(Endpoints::of_pod(pod, service.as_ref().map(|(service, _)| service))),
    }
}

/// A connection that reached its endpoint.
struct Reached {
    connected: Connected,
    candidate: Candidate,
    outstanding: Outstanding,
}

/// Tries endpoints until one is reached. Nothing was sent yet, so the next one is as good.
async fn reach(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    endpoints: &Endpoints,
) -> Result<Reached, (DialError, Option<Candidate>)> {
    let mut tried = Vec::new();
    loop {
        let picked =
            worker.load.pick(endpoints.policy.balancer, endpoints.group(), &endpoints.candidates, &tried);
        let Some(candidate) = picked.cloned() else {
            let error = std::io::Error::other("there is no endpoint");
            return Err((DialError::Connect { to: caller.client.get(), error: Arc::new(error) }, None));
        };
        let outstanding = worker.load.begin(candidate.addr.get());
        match dial::connect(worker, snapshot, caller, &candidate, endpoints.policy.connect_timeout).await {
            Ok(connected) => return Ok(Reached { connected, candidate, outstanding }),
            Err(error) => {
                tried.push(candidate.addr.get());
                if tried.len() >= endpoints.candidates.len().min(TRIES) || !error.may_try_another() {
                    return Err((error, Some(candidate)));
                }
            }
        }
    }
}

async fn opaque(worker: &Rc<Worker>, captured: Captured, snapshot: &Snapshot, endpoints: &Endpoints) {
    let reached = tokio::select! {
        reached = reach(worker, snapshot, &captured.caller, endpoints) => reached,
        cut = captured.registered.cut() => {
            count_cut(worker, &cut);
            reset_on_close(&captured.stream);
            return;
        }
    };
    settle(worker, captured, snapshot, endpoints, bytes::Bytes::new(), reached).await;
}

async fn sniffed(
    worker: &Rc<Worker>,
    mut captured: Captured,
    snapshot: &Snapshot,
    meant: Meant,
    endpoints: &Endpoints,
) {
    let caller = captured.caller.clone();
    let limit = worker.limits().sniff_bytes;
    let dialled = reach(worker, snapshot, &caller, endpoints);
    let seen = tokio::select! {
        seen = sniff::race(&mut captured.stream, dialled, |reached: &mut Reached| &mut reached.connected.stream, limit) => seen,
        cut = captured.registered.cut() => {
            count_cut(worker, &cut);
            reset_on_close(&captured.stream);
            return;
        }
    };
    match seen {
        Sniffed::Http(prefix, _unused) => http::outbound(worker, captured, meant, prefix).await,
        Sniffed::Opaque(prefix, reached) => {
            settle(worker, captured, snapshot, endpoints, prefix, reached).await;
        }
    }
}

/// Relays what was reached, or resets the caller and says why.
async fn settle(
    worker: &Rc<Worker>,
    captured: Captured,
    snapshot: &Snapshot,
    endpoints: &Endpoints,
    prefix: bytes::Bytes,
    reached: Result<Reached, (DialError, Option<Candidate>)>,
) {
    let mut record = outcome::outbound_record(
        &captured.caller,
        captured.dst.get(),
        endpoints.service.as_ref(),
        endpoints.cluster(),
        RequestProtocol::Tcp,
        captured.started,
    );
    match reached {
        Err((error, candidate)) => {
            outcome::went_to(&mut record, candidate.as_ref(), None);
            if let (DialError::Denied(_), Some(candidate)) = (&error, &candidate) {
                // The destination's side of this node said no: it reports that as well.
                let destination = outcome::mirrored(&record, &candidate.workload, candidate.addr.get());
                outcome::failed(&worker.rooms.telemetry, destination, &error);
            }
            outcome::failed(&worker.rooms.telemetry, record, &error);
            reset_on_close(&captured.stream);
        }
        Ok(Reached { connected, candidate, outstanding }) => {
            outcome::went_to(&mut record, Some(&candidate), Some(&connected));
            let callee = (connected.transport == Transport::Vouched).then(|| candidate.workload.uid.clone());
            captured.registered.set_destination(connected.upstream, callee);
            captured.registered.set_peer(connected.peer.clone());
            let down = Prefixed::new(prefix, captured.stream);
            carry(worker, &captured.registered, snapshot, down, connected, record).await;
            drop(outstanding);
        }
    }
}

/// Relays until the end, a cut, or a policy that came in between.
pub async fn carry<D: End>(
    worker: &Worker,
    registered: &Registered,
    snapshot: &Snapshot,
    mut down: D,
    connected: Connected,
    record: ConnectionRecord,
) {
    let Connected { mut stream, admitted, transport, .. } = connected;
    let outcomes = Outcomes::open(&worker.rooms.telemetry, record, transport);
    let traffic = registered.traffic().clone();
    if let Admitted::ByPermit(permit) = &admitted
        && let Err(denied) = registered.allowed(permit, &worker.rooms.state, snapshot)
    {
        down.abort();
        stream.abort();
        outcomes.finish(&traffic, ResponseFlags::DENIED, Some(&denied.to_string()));
        return;
    }
    let outcome = {
        let moving = relay(&admitted, &mut down, &mut stream, &traffic, Bounds::of(worker));
        tokio::select! {
            ended = outcomes.follow(moving, &traffic) => Ok(ended),
            cut = registered.cut() => Err(cut),
        }
    };
    match outcome {
        Ok(ended) => outcomes.finish(&traffic, outcome::flags_of(ended), None),
        Err(cut) => {
            count_cut(worker, &cut);
            down.abort();
            stream.abort();
            outcomes.finish(&traffic, outcome::flags_of_cut(&cut), Some(&cut.to_string()));
        }
    }
}

async fn passthrough(worker: &Rc<Worker>, captured: Captured) {
    let to = captured.dst.get();
    let mut record = outcome::outbound_record(
        &captured.caller,
        to,
        None,
        Some("PassthroughCluster".into()),
        RequestProtocol::Tcp,
        captured.started,
    );
    let dialled = tokio::select! {
        dialled = dial::plaintext(worker, &captured.caller, to, None) => dialled,
        cut = captured.registered.cut() => {
            count_cut(worker, &cut);
            reset_on_close(&captured.stream);
            return;
        }
    };
    match dialled {
        Ok(connected) => {
            outcome::went_to(&mut record, None, Some(&connected));
            captured.registered.set_destination(to, None);
            let snapshot = worker.rooms.state.snapshot();
            carry(worker, &captured.registered, &snapshot, captured.stream, connected, record).await;
        }
        Err(error) => {
            record.upstream = Some(to);
            outcome::failed(&worker.rooms.telemetry, record, &error);
            reset_on_close(&captured.stream);
        }
    }
}

/// Refuses at once, as the destination itself would; where HTTP is possible, at the first use, and HTTP callers get an answer.
async fn refuse(worker: &Worker, mut captured: Captured, refusal: &Refusal, answerable: bool) {
    let mut record = outcome::outbound_record(
        &captured.caller,
        captured.dst.get(),
        None,
        Some("BlackHoleCluster".into()),
        RequestProtocol::Tcp,
        captured.started,
    );
    record.upstream = Some(captured.dst.get());
    let flags = Answer::to(refusal).flags;
    if answerable {
        let mut prefix = bytes::BytesMut::new();
        let judged = sniff::judge(&mut captured.stream, &mut prefix, worker.limits().sniff_bytes);
        if timeout(sniff::FIRST_USE, judged).await == Ok(First::Http) {
            let answer = Answer::to(refusal).raw();
            // The caller may be gone; it is refused either way.
            let _gone = captured.stream.write_all(&answer).await;
            let _gone = captured.stream.shutdown().await;
        } else {
            reset_on_close(&captured.stream);
        }
    } else {
        reset_on_close(&captured.stream);
    }
    let traffic = relay::Traffic::default();
    Outcomes::open(&worker.rooms.telemetry, record, Transport::Plaintext).finish(
        &traffic,
        flags,
        Some(&refusal.to_string()),
    );
}
