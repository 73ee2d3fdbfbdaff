//! Opening one tunnel: TCP, TLS, who are you, HTTP/2; each step bounded.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Ping, PingPong, client::Connection};
use mesh_model::workload::Workload;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Tunnel,
    cork::{Cork, Corked, cork},
};
use crate::{
    bpf::OwnKind,
    identity::verify_peer,
    upstream::{Caller, DialError, dial},
    worker::Worker,
};

/// Largest frame we take; larger frames would let one stream hold up the others for longer.
pub const MAX_FRAME: u32 = 256 << 10;

pub(super) async fn open(
    worker: &Rc<Worker>,
    caller: &Caller,
    destination: &Arc<Workload>,
    to: SocketAddr,
    connect_timeout: Option<Duration>,
) -> Result<Rc<Tunnel>, DialError> {
    let limits = worker.limits();
    let config = worker.rooms.certificates.client(&caller.workload.identity, limits.certificate_wait).await?;
    let limit = connect_timeout.unwrap_or(limits.upstream_connect);
    let stream =
        dial::tcp(worker, caller.pod.netns(), to, None, OwnKind::Plain, caller.ifindex, limit).await?;
    let local = stream.local_addr().ok();

    // The name decides nothing (the verifier checks the chain, and the SPIFFE id is compared below); an address sends no SNI.
    let name = ServerName::IpAddress(to.ip().into());
    let handshake = TlsConnector::from(config).connect(name, stream);
    let stream = match timeout(limits.tls_handshake, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::Tls { to, error: Arc::new(error) }),
        Err(_elapsed) => {
            return Err(DialError::TooSlow { step: "TLS handshake", to, limit: limits.tls_handshake });
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = verify_peer(certificates, &caller.workload.identity.trust_domain)
        .map_err(|error| DialError::Peer { to, error })?;
    if *peer.identity() != destination.identity {
        return Err(DialError::WrongIdentity {
            to,
            expected: destination.identity.clone(),
            found: peer.identity().clone(),
        });
    }

    let (cork, stream) = cork(stream);
    let handshake = h2::client::Builder::new()
        .initial_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_connection_window_bytes)
        .initial_max_send_streams(limits.streams_per_connection as usize)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.h2_stream_window_bytes as usize)
        .enable_push(false)
        .handshake::<_, Bytes>(stream);
    let (send, connection) = match timeout(limits.http2_preface, handshake).await {
        Ok(Ok(parts)) => parts,
        Ok(Err(error)) => return Err(DialError::Tunnel { to, error: Arc::new(error), stale: false }),
        Err(_elapsed) => {
            return Err(DialError::TooSlow { step: "HTTP/2 preface", to, limit: limits.http2_preface });
        }
    };
    let closed = Rc::new(Cell::new(false));
    let (interval, patience) = (limits.ping_interval, limits.ping_timeout);
    let ended = closed.clone();
    let driver = spawn_local(async move {
        drive(connection, cork, to, interval, patience).await;
        ended.set(true);
    });
    Ok(Rc::new(Tunnel {
        send,
        streams: Arc::default(),
        closed,
        used: Cell::new(Instant::now()),
        local,
        driver: driver.abort_handle(),
    }))
}

/// Runs the connection until it ends or a PING is not answered.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Corked<T>, Bytes>,
    cork: Cork<T>,
    to: SocketAddr,
    interval: Duration,
    patience: Duration,
) {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            match (ended, cork.poll_uncork(cx)) {
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.to_string())),
                (ended, _) => ended.map_err(|error| error.to_string()),
            }
        }) => if let Err(error) = ended {
            tracing::debug!(%to, %error, "a tunnel ended");
        },
        () = unanswered(pings, interval, patience) => tracing::info!(%to, "a tunnel is dead: PING was not answered"),
    }
}

/// Returns when the peer does not answer a PING in time.
pub async fn unanswered(pings: Option<PingPong>, interval: Duration, patience: Duration) {
    // There is one PingPong per connection, and nobody else takes it.
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(interval).await;
        match timeout(patience, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is over; its own future says why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_elapsed) => return,
        }
    }
}
