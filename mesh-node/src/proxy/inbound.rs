//! The destination's side of a connection, however it came in: ask, reach the application, relay or serve requests.
//!
//! Invariant: the application is not dialled before somebody was allowed to call it, and (for a tunnel) is dialled before the caller
//! hears 200. What the port speaks is decided here, from the destination's own declaration, whatever the caller believes.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use mesh_model::{
    addr::ClientAddr,
    authz::{Admission, Denied, Peer, Permit, authorize, authorize_connection, needs_http},
    service::{Protocol, Service},
    snapshot::Snapshot,
    workload::Workload,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    http, outbound,
    outcome::{Outcomes, inbound_cluster},
    prefixed::Prefixed,
    relay::{Traffic, ends::End},
    sniff::{self, First, Sniffed},
};
use crate::{
    capture::LocalPod,
    conns::Registered,
    telemetry::{ConnectionRecord, Reporter, RequestProtocol, ResponseFlags, Security},
    upstream::{Admitted, Connected, DialError, Transport, dial, stream::UpstreamStream},
    worker::Worker,
};

/// A connection to a pod of this node, before anything was decided.
pub struct Inbound {
    /// The called pod.
    pub pod: Arc<LocalPod>,
    /// Its workload.
    pub workload: Arc<Workload>,
    /// Who calls: what policies see.
    pub peer: Peer,
    /// The caller's address, for the application and for people.
    pub client: ClientAddr,
    /// The called address: the pod's, and the port.
    pub to: SocketAddr,
    /// How it came.
    pub security: Security,
    /// When it was accepted.
    pub started: SystemTime,
    /// Its entry in the registry.
    pub registered: Rc<Registered>,
}

/// Why somebody is not let in.
pub enum NotLetIn {
    /// A policy says no.
    Denied(Denied),
    /// The application cannot be reached.
    Unreachable(DialError),
}

/// How a caller is told yes or no.
pub trait Entrance {
    /// The bytes after a yes.
    type Stream: End + AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Says yes.
    fn open(self) -> io::Result<Self::Stream>;

    /// Says no.
    fn refuse(self, why: &NotLetIn);
}

/// What the destination makes of a connection.
enum Gate {
    /// Opaque bytes are allowed.
    Opaque(Permit),
    /// Requests are asked about one by one. Without an admission each will hear 403, and the application nothing.
    Http(Option<Admission>),
    /// Undeclared: opaque bytes are allowed or not, HTTP is asked about one by one.
    Look(Result<Permit, Denied>),
    /// No.
    Closed(Denied),
}

fn gate(snapshot: &Snapshot, inbound: &Inbound) -> Gate {
    let (workload, peer) = (&inbound.workload, &inbound.peer);
    let opaque = || authorize(snapshot, workload, peer, None);
    match workload.protocol(inbound.to.port()) {
        Protocol::Http => match authorize_connection(snapshot, workload, peer) {
            Ok(admission) => Gate::Http(Some(admission)),
            // Whoever must show an identity and has none is no HTTP client of ours: closed, as Istio does it.
            Err(denied @ Denied::PlaintextToStrict { .. }) => Gate::Closed(denied),
            Err(_) => Gate::Http(None),
        },
        Protocol::Unknown => match opaque() {
            Err(denied @ Denied::PlaintextToStrict { .. }) => Gate::Closed(denied),
            Err(denied) if !needs_http(snapshot, workload) => Gate::Closed(denied),
            verdict => Gate::Look(verdict),
        },
        _ => match opaque() {
            Ok(permit) => Gate::Opaque(permit),
            Err(denied) => Gate::Closed(denied),
        },
    }
}

/// Lets a connection in, or not.
pub async fn serve<E: Entrance>(worker: &Rc<Worker>, inbound: Inbound, entrance: E) {
    let snapshot = worker.rooms.state.snapshot();
    match gate(&snapshot, &inbound) {
        Gate::Closed(denied) => refuse(worker, &snapshot, &inbound, entrance, NotLetIn::Denied(denied)),
        Gate::Opaque(permit) => match last_step(worker, &inbound).await {
            Ok(app) => {
                let Ok(stream) = entrance.open() else { return };
                relay(worker, &snapshot, inbound, stream, app, permit).await;
            }
            Err(error) => refuse(worker, &snapshot, &inbound, entrance, NotLetIn::Unreachable(error)),
        },
        Gate::Http(None) => {
            let Ok(stream) = entrance.open() else { return };
            http::inbound(worker, inbound, stream, Bytes::new(), None).await;
        }
        Gate::Http(Some(admission)) => match last_step(worker, &inbound).await {
            Ok(app) => {
                let Ok(stream) = entrance.open() else { return };
                inbound.registered.admitted(admission);
                http::inbound(worker, inbound, stream, Bytes::new(), Some(app)).await;
            }
            Err(error) => refuse(worker, &snapshot, &inbound, entrance, NotLetIn::Unreachable(error)),
        },
        Gate::Look(Ok(permit)) => match last_step(worker, &inbound).await {
            Ok(app) => look(worker, &snapshot, inbound, entrance, app, permit).await,
            Err(error) => refuse(worker, &snapshot, &inbound, entrance, NotLetIn::Unreachable(error)),
        },
        Gate::Look(Err(denied)) => look_first(worker, &snapshot, inbound, entrance, denied).await,
    }
}

/// An undeclared port on which opaque bytes are allowed: the application is there already, whoever speaks first decides.
async fn look<E: Entrance>(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    inbound: Inbound,
    entrance: E,
    app: TcpStream,
    permit: Permit,
) {
    let Ok(mut stream) = entrance.open() else { return };
    let app = std::future::ready(Ok::<_, DialError>(UpstreamStream::Tcp(app)));
    let limit = worker.limits().sniff_bytes;
    let seen = tokio::select! {
        seen = timeout(worker.limits().tcp_idle, sniff::race(&mut stream, app, |app| app, limit)) => seen,
        _cut = inbound.registered.cut() => return stream.abort(),
    };
    match seen {
        Ok(Sniffed::Http(prefix, app)) => {
            let app = app.and_then(Result::ok).and_then(UpstreamStream::into_tcp);
            http::inbound(worker, inbound, stream, prefix, app).await;
        }
        Ok(Sniffed::Opaque(prefix, Ok(UpstreamStream::Tcp(app)))) => {
            relay(worker, snapshot, inbound, Prefixed::new(prefix, stream), app, permit).await;
        }
        Ok(Sniffed::Opaque(..)) | Err(_) => stream.abort(),
    }
}

/// An undeclared port on which only HTTP may be allowed: nothing is dialled before the caller has shown that it speaks it.
async fn look_first<E: Entrance>(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    inbound: Inbound,
    entrance: E,
    denied: Denied,
) {
    let Ok(mut stream) = entrance.open() else { return };
    let mut prefix = BytesMut::new();
    let judged = sniff::judge(&mut stream, &mut prefix, worker.limits().sniff_bytes);
    let judged = tokio::select! {
        judged = timeout(worker.limits().request_headers, judged) => judged,
        _cut = inbound.registered.cut() => return stream.abort(),
    };
    if judged == Ok(First::Http) {
        return http::inbound(worker, inbound, stream, prefix.freeze(), None).await;
    }
    stream.abort();
    let record = inbound.record(snapshot, RequestProtocol::Tcp);
    Outcomes::open(&worker.rooms.telemetry, record, Transport::Plaintext).finish(
        &Traffic::default(),
        ResponseFlags::DENIED,
        Some(&denied.to_string()),
    );
}

/// Connects to the application, as the caller.
async fn last_step(worker: &Worker, inbound: &Inbound) -> Result<TcpStream, DialError> {
    inbound.registered.set_destination(inbound.to, None);
    dial::last_step(worker, &inbound.pod, inbound.to, inbound.client).await
}

async fn relay<D: End>(
    worker: &Worker,
    snapshot: &Snapshot,
    inbound: Inbound,
    stream: D,
    app: TcpStream,
    permit: Permit,
) {
    let mut record = inbound.record(snapshot, RequestProtocol::Tcp);
    record.upstream_local = app.local_addr().ok();
    let connected = Connected {
        stream: UpstreamStream::Tcp(app),
        admitted: Admitted::ByPermit(permit),
        transport: Transport::Plaintext,
        upstream: inbound.to,
        local: record.upstream_local,
        peer: None,
    };
    outbound::carry(worker, &inbound.registered, snapshot, stream, connected, record).await;
}

fn refuse<E: Entrance>(worker: &Worker, snapshot: &Snapshot, inbound: &Inbound, entrance: E, why: NotLetIn) {
    entrance.refuse(&why);
    let record = inbound.record(snapshot, RequestProtocol::Tcp);
    let (flags, text) = match &why {
        NotLetIn::Denied(denied) => (ResponseFlags::DENIED, denied.to_string()),
        NotLetIn::Unreachable(error) => (error.flags(), error.to_string()),
    };
    Outcomes::open(&worker.rooms.telemetry, record, Transport::Plaintext).finish(
        &Traffic::default(),
        flags,
        Some(&text),
    );
}

impl Inbound {
    /// The calling workload, for people: the one at its address, unless it proved to be somebody else.
    fn caller(&self, snapshot: &Snapshot) -> Option<Arc<Workload>> {
        let there = snapshot.workload_at(self.client.ip())?;
        let is_other = self.peer.identity.as_ref().is_some_and(|proven| *proven != there.identity);
        (!is_other).then(|| there.clone())
    }

    /// What the destination's side says of it.
    pub fn record(&self, snapshot: &Snapshot, protocol: RequestProtocol) -> ConnectionRecord {
        ConnectionRecord {
            reporter: Reporter::Destination,
            source: self.caller(snapshot),
            source_identity: self.peer.identity.clone(),
            destination: Some(self.workload.clone()),
            destination_identity: (self.security == Security::MutualTls)
                .then(|| self.workload.identity.clone()),
            service: service_of(snapshot, &self.workload, self.to.port()),
            protocol,
            security: self.security,
            client: self.client,
            local: self.to,
            upstream: Some(self.to),
            upstream_local: None,
            cluster: Some(inbound_cluster(self.to.port())),
            server_name: None,
            route: None,
            started: self.started,
        }
    }
}

/// The service that the workload answers for on this port of its own; the first, if there are several.
pub fn service_of(snapshot: &Snapshot, workload: &Workload, port: u16) -> Option<Arc<Service>> {
    workload
        .endpoints
        .iter()
        .find(|end| end.ports.values().any(|target| *target == port))
        .and_then(|end| snapshot.service_by_key(&end.service))
        .cloned()
}
