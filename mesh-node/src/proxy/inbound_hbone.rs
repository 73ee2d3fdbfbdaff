//! Port 15008: TLS as the pod's identity, then one connection per CONNECT stream.
//!
//! Invariants: the authority must be the pod's own address (no open proxy); the peer is who its certificate says; the client's
//! address is the tunnel's, whatever the peer's headers claim; every step has a time-out.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::SystemTime,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode};
use mesh_model::{addr::ClientAddr, authz::Peer, identity::Identity};
use tokio::{net::TcpStream, task::spawn_local, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    count_cut,
    inbound::{self, Entrance, Inbound, NotLetIn},
    relay::ends::reset_on_close,
};
use crate::{
    bpf::HBONE_PORT,
    capture::LocalPod,
    conns::{Direction, Registered},
    identity::verify_peer,
    phase::Stage,
    telemetry::Security,
    upstream::{
        hbone::{MAX_FRAME, cork, unanswered},
        stream::TunnelStream,
    },
    worker::Worker,
};

/// One tunnel that came in.
struct Carrier {
    pod: Arc<LocalPod>,
    /// The tunnel's own other end.
    remote: SocketAddr,
    identity: Identity,
}

/// Serves one connection that came in by the HBONE listener.
pub async fn serve(
    worker: &Rc<Worker>,
    pod: Arc<LocalPod>,
    stream: TcpStream,
    peer: SocketAddr,
    registered: Registered,
) {
    let served = tokio::select! {
        served = tunnel(worker, pod, stream, peer, &registered) => served,
        cut = registered.cut() => {
            // Dropping the connection ends its streams: each of them is cut by itself as well.
            return count_cut(worker, &cut);
        }
    };
    if let Err(reason) = served {
        worker.counters.inbound_handshake_failed.inc();
        tracing::info!(%peer, %reason, "a tunnel from a caller was refused");
    }
}

/// The life of a tunnel; an error is why it never came to be.
async fn tunnel(
    worker: &Rc<Worker>,
    pod: Arc<LocalPod>,
    stream: TcpStream,
    remote: SocketAddr,
    registered: &Registered,
) -> Result<(), String> {
    let limits = worker.limits();
    let certificates = &worker.rooms.certificates;
    let config = match certificates.server(&pod.identity, limits.certificate_wait).await {
        Ok(config) => config,
        Err(error) => {
            reset_on_close(&stream);
            return Err(error.to_string());
        }
    };
    let stream = timeout(limits.tls_handshake, TlsAcceptor::from(config).accept(stream))
        .await
        .map_err(|_| format!("no TLS handshake within {:?}", limits.tls_handshake))?
        .map_err(|error| format!("TLS handshake: {error}"))?;
    let identity = peer_identity(&stream, &pod.identity)?;
    registered.set_peer(Some(identity.clone()));

    let (cork, stream) = cork(stream);
    let handshake = h2::server::Builder::new()
        .initial_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_connection_window_bytes)
        .max_concurrent_streams(limits.h2_accepted_streams)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.h2_stream_window_bytes as usize)
        .handshake::<_, Bytes>(stream);
    let mut connection = timeout(limits.http2_preface, handshake)
        .await
        .map_err(|_| format!("no HTTP/2 preface within {:?}", limits.http2_preface))?
        .map_err(|error| format!("HTTP/2: {error}"))?;

    let carrier = Rc::new(Carrier { pod, remote, identity });
    let dead = unanswered(connection.ping_pong(), limits.ping_interval, limits.ping_timeout);
    let phase = worker.rooms.phase.clone();
    let draining = async {
        tokio::select! {
            () = phase.reached(Stage::Draining) => {}
            () = registered.draining() => {}
        }
    };
    tokio::pin!(dead, draining);
    let mut drains = false;
    loop {
        tokio::select! {
            accepted = poll_fn(|cx| {
                let accepted = connection.poll_accept(cx);
                match (accepted, cork.poll_uncork(cx)) {
                    (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(None),
                    (accepted, _) => accepted,
                }
            }) => match accepted {
                Some(Ok((request, respond))) => {
                    let (worker, carrier) = (worker.clone(), carrier.clone());
                    spawn_local(async move { connect(&worker, &carrier, request, respond).await });
                }
                // The peer went away, gracefully or not: its streams see that by themselves.
                Some(Err(_)) | None => return Ok(()),
            },
            () = &mut dead => return Ok(()),
            () = &mut draining, if !drains => {
                drains = true;
                connection.graceful_shutdown();
            }
        }
    }
}

fn peer_identity(stream: &TlsStream<TcpStream>, own: &Identity) -> Result<Identity, String> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = verify_peer(certificates, &own.trust_domain).map_err(|error| error.to_string())?;
    Ok(peer.identity().clone())
}

/// A CONNECT that waits for its answer.
struct Waiting {
    respond: SendResponse<Bytes>,
    body: RecvStream,
}

impl Entrance for Waiting {
    type Stream = TunnelStream;

    fn open(mut self) -> io::Result<TunnelStream> {
        let send = self.respond.send_response(Response::new(()), false).map_err(io::Error::other)?;
        Ok(TunnelStream::new(send, self.body, None))
    }

    fn refuse(self, why: &NotLetIn) {
        self.answer(match why {
            NotLetIn::Denied(_) => StatusCode::UNAUTHORIZED,
            NotLetIn::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
        });
    }
}

impl Waiting {
    fn answer(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // The peer may be gone; it is refused either way.
        let _gone = self.respond.send_response(response, true);
    }
}

/// One CONNECT.
async fn connect(
    worker: &Rc<Worker>,
    carrier: &Carrier,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let waiting = Waiting { respond, body };
    let arrived = worker.rooms.state.wait_complete(worker.limits().snapshot_wait).await;
    let Some(workload) =
        worker.rooms.state.snapshot().workload(&carrier.pod.uid).filter(|_| arrived).cloned()
    else {
        worker.counters.no_snapshot.inc();
        return waiting.answer(StatusCode::SERVICE_UNAVAILABLE);
    };
    if head.method != Method::CONNECT {
        return waiting.answer(StatusCode::BAD_REQUEST);
    }
    let to = head.uri.authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let Some(to) = to.map(|to| SocketAddr::new(to.ip().to_canonical(), to.port())).filter(|to| {
        // Anything but the pod itself would make an open proxy of us; our own port would make a loop.
        workload.has_ip(to.ip()) && to.port() != HBONE_PORT && to.port() != 0
    }) else {
        return waiting.answer(StatusCode::BAD_REQUEST);
    };
    let Some(place) = carrier.pod.try_place(false) else {
        worker.counters.connections_refused.inc();
        return waiting.answer(StatusCode::SERVICE_UNAVAILABLE);
    };
    let client = SocketAddr::new(carrier.remote.ip(), forwarded_port(&head.headers, carrier.remote));
    let registered = worker.conns.register(Direction::Inbound, carrier.pod.clone(), client, "tcp");
    registered.set_peer(Some(carrier.identity.clone()));
    let inbound = Inbound {
        pod: carrier.pod.clone(),
        workload,
        peer: Peer { identity: Some(carrier.identity.clone()), ip: carrier.remote.ip(), port: to.port() },
        client: ClientAddr::new(client),
        to,
        security: Security::MutualTls,
        started: SystemTime::now(),
        registered: Rc::new(registered),
    };
    let _busy = worker.rooms.phase.busy();
    inbound::serve(worker, inbound, waiting).await;
    drop(place);
}

/// The calling application's own port, as the peer's node tells it: for display only, and only beside the tunnel's real address.
fn forwarded_port(headers: &http::HeaderMap, tunnel: SocketAddr) -> u16 {
    let told = headers.get(http::header::FORWARDED).and_then(|value| value.to_str().ok()).and_then(|text| {
        let quoted = text.strip_prefix("for=\"")?;
        quoted.split('"').next()?.parse::<SocketAddr>().ok()
    });
    match told {
        Some(told) if canonical(told.ip()) == tunnel.ip() => told.port(),
        _ => tunnel.port(),
    }
}

fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
