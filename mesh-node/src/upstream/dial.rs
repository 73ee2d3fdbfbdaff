//! From a chosen endpoint to a [`Connected`]: straight through with a vouch, by a tunnel, or in plaintext out of the mesh.
//!
//! All dials start in the network namespace of the calling pod, so that addresses, NetworkPolicy and the pod's own counters stay
//! true. Invariant: a socket is marked as ours before it connects, or it would be captured itself.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mesh_model::{
    addr::ClientAddr,
    authz::{Peer, Permit, authorize},
    decide::Candidate,
    mesh::SameNode,
    request::RequestHead,
    service::Protocol,
    snapshot::Snapshot,
    workload::{Tunnel, Workload},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Admitted, Caller, Connected, DialError, Transport, hbone, stream::UpstreamStream};
use crate::{
    bpf::{OwnKind, VouchOutcome},
    capture::LocalPod,
    config::Limits,
    sys::{DialOptions, Netns, dial_socket},
    worker::Worker,
};

/// How an endpoint of this node is to be reached.
pub enum Route {
    /// Straight to the application, if the permit is given and the kernel honours the vouch.
    Vouch(Arc<LocalPod>),
    /// mTLS to its port 15008.
    Tunnel,
    /// In plaintext: it is not in the mesh.
    Plaintext,
}

/// What the caller takes the bytes to be. The destination derives it again by itself; where the two would disagree, the tunnel is
/// taken, at whose end the destination's own rules are applied.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Opaque bytes.
    Opaque,
    /// HTTP/1 requests, this one first.
    Http(&'a RequestHead<'a>),
}

/// How this endpoint is reached, before anybody asked for permission.
pub fn route(
    worker: &Worker,
    snapshot: &Snapshot,
    caller: &Caller,
    candidate: &Candidate,
    form: Form<'_>,
) -> Route {
    let destination = &candidate.workload;
    if destination.node == worker.rooms.config.node
        && let Some(pod) = worker.pods.find(&destination.uid)
    {
        let trusted = match snapshot.mesh().same_node {
            SameNode::Encrypt => false,
            SameNode::Trust => true,
            SameNode::Auto => !caller.pod.on_bridge && !pod.on_bridge,
        };
        let hairpin = caller.pod.uid == pod.uid;
        if trusted
            && !pod.is_gone()
            && (hairpin || agrees(snapshot, destination, candidate.addr.port(), form))
        {
            return Route::Vouch(pod);
        }
        return Route::Tunnel;
    }
    match candidate.tunnel {
        Tunnel::Hbone => Route::Tunnel,
        Tunnel::None => Route::Plaintext,
    }
}

/// Whether the destination's own view of the port fits the form in which we would send straight to its application.
fn agrees(snapshot: &Snapshot, destination: &Workload, port: u16, form: Form<'_>) -> bool {
    match (destination.protocol(port), form) {
        (Protocol::Http, Form::Http(_)) => true,
        (Protocol::Http, Form::Opaque) => false,
        // Opaque by declaration, while the route calls it HTTP: a policy of the port must not see requests.
        (Protocol::Tcp | Protocol::Tls | Protocol::Http2 | Protocol::Grpc, Form::Http(_)) => true,
        (Protocol::Unknown, Form::Http(_)) => true,
        (Protocol::Unknown, Form::Opaque) => !mesh_model::authz::needs_http(snapshot, destination),
        (_, Form::Opaque) => true,
    }
}

/// Asks the destination's side of this node.
pub fn permit(
    snapshot: &Snapshot,
    caller: &Caller,
    destination: &Arc<Workload>,
    port: u16,
    form: Form<'_>,
) -> Result<Permit, mesh_model::authz::Denied> {
    let peer = peer_of(caller, port);
    let head = match (destination.protocol(port), form) {
        (Protocol::Http | Protocol::Unknown, Form::Http(head)) => Some(head),
        _ => None,
    };
    // The snapshot's own copy: the candidate may be of an older one.
    let current = snapshot.workload(&destination.uid).unwrap_or(destination);
    authorize(snapshot, current, &peer, head)
}

/// Who the destination's side of this node sees: a vouched identity, and the client's real address.
pub fn peer_of(caller: &Caller, port: u16) -> Peer {
    Peer { identity: Some(caller.workload.identity.clone()), ip: caller.client.ip(), port }
}

/// Reaches an endpoint for opaque bytes: asks for permission where that is ours to ask, and dials.
pub async fn connect(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    candidate: &Candidate,
    connect_timeout: Option<Duration>,
) -> Result<Connected, DialError> {
    let to = candidate.addr.get();
    match route(worker, snapshot, caller, candidate, Form::Opaque) {
        Route::Vouch(pod) => {
            let permit = permit(snapshot, caller, &candidate.workload, to.port(), Form::Opaque)?;
            vouched_or_tunnel(worker, snapshot, caller, candidate, &pod, permit, connect_timeout).await
        }
        Route::Tunnel => hbone::connect(worker, snapshot, caller, candidate, connect_timeout).await,
        Route::Plaintext => plaintext(worker, caller, to, connect_timeout).await,
    }
}

/// Straight to the application of a pod of this node; by the tunnel if no hook honoured the vouch.
pub async fn vouched_or_tunnel(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    caller: &Caller,
    candidate: &Candidate,
    pod: &Arc<LocalPod>,
    permit: Permit,
    connect_timeout: Option<Duration>,
) -> Result<Connected, DialError> {
    let to = candidate.addr.get();
    let kind = OwnKind::Vouch { dest_cookie: pod.captured.cookie() };
    let limit = connect_timeout.unwrap_or(worker.limits().upstream_connect);
    if caller.pod.uid == pod.uid {
        // To itself: the connection goes over its own `lo`, which no hook captures, so there is nothing to vouch for.
        let stream = tcp(worker, caller.pod.netns(), to, None, OwnKind::Plain, None, limit).await?;
        return Ok(connected(stream, Admitted::ByPermit(permit), Transport::Vouched, to, candidate));
    }
    let stream = tcp(worker, caller.pod.netns(), to, None, kind, caller.ifindex, limit).await?;
    match worker.rooms.hooks.vouch_outcome(&stream) {
        VouchOutcome::Honoured => {
            Ok(connected(stream, Admitted::ByPermit(permit), Transport::Vouched, to, candidate))
        }
        VouchOutcome::Missed => {
            worker.counters.vouch_missed.inc();
            crate::proxy::relay::ends::reset_on_close(&stream);
            drop(stream);
            hbone::connect(worker, snapshot, caller, candidate, connect_timeout).await
        }
    }
}

fn connected(
    stream: TcpStream,
    admitted: Admitted,
    transport: Transport,
    to: SocketAddr,
    candidate: &Candidate,
) -> Connected {
    let local = stream.local_addr().ok();
    let peer = Some(candidate.workload.identity.clone());
    Connected { stream: UpstreamStream::Tcp(stream), admitted, transport, upstream: to, local, peer }
}

/// In plaintext from the calling pod, for what is not in the mesh.
pub async fn plaintext(
    worker: &Worker,
    caller: &Caller,
    to: SocketAddr,
    connect_timeout: Option<Duration>,
) -> Result<Connected, DialError> {
    let limit = connect_timeout.unwrap_or(worker.limits().upstream_connect);
    let stream = tcp(worker, caller.pod.netns(), to, None, OwnKind::Plain, caller.ifindex, limit).await?;
    Ok(Connected {
        local: stream.local_addr().ok(),
        stream: UpstreamStream::Tcp(stream),
        admitted: Admitted::OutsideMesh,
        transport: Transport::Plaintext,
        upstream: to,
        peer: None,
    })
}

/// The last step of an inbound connection: to the application, inside its network namespace, over `lo` to the pod's address. The
/// application sees `client` as its peer.
///
/// From `127.0.0.1` for IPv4. For IPv6 from the pod's own address: the kernel sends the reset of a port on which nobody listens by the
/// device that the address lives on, and from there `::1` is not reached, so the dial would hang instead of being refused.
pub async fn last_step(
    worker: &Worker,
    pod: &LocalPod,
    to: SocketAddr,
    client: ClientAddr,
) -> Result<TcpStream, DialError> {
    let from = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        own @ IpAddr::V6(_) => own,
    };
    let kind = OwnKind::LastStep { client: client.get() };
    let limit = worker.limits().upstream_connect;
    tcp(worker, pod.netns(), to, Some(SocketAddr::new(from, 0)), kind, None, limit).await
}

/// A marked, bounded TCP connect inside a network namespace.
pub(super) async fn tcp(
    worker: &Worker,
    netns: &Netns,
    to: SocketAddr,
    from: Option<SocketAddr>,
    kind: OwnKind,
    ifindex: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let broken = |error| DialError::Socket { to, error: Arc::new(error) };
    let socket = dial_socket(netns, to, from, &options(worker.limits(), ifindex)).map_err(broken)?;
    worker.rooms.hooks.mark_own(&socket, kind).map_err(broken)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout(limit, socket.connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(DialError::Connect { to, error: Arc::new(error) }),
        Err(_elapsed) => Err(DialError::TooSlow { step: "TCP connect", to, limit }),
    }
}

fn options(limits: &Limits, ifindex: Option<u32>) -> DialOptions {
    DialOptions {
        keepalive: Some((limits.keepalive_idle, limits.keepalive_interval, limits.keepalive_probes)),
        user_timeout: Some(limits.tcp_user_timeout),
        ifindex,
    }
}
