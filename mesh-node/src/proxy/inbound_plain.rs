//! Plaintext from outside the mesh (or from a pod that is not captured): no identity, the same questions.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::SystemTime};

use mesh_model::{addr::ClientAddr, authz::Peer};
use tokio::net::TcpStream;

use super::{
    inbound::{self, Entrance, Inbound, NotLetIn},
    relay::ends::reset_on_close,
};
use crate::{capture::LocalPod, conns::Registered, telemetry::Security, worker::Worker};

/// A socket: yes is silence, no is a reset.
struct Socket(TcpStream);

impl Entrance for Socket {
    type Stream = TcpStream;

    fn open(self) -> io::Result<TcpStream> {
        Ok(self.0)
    }

    fn refuse(self, _why: &NotLetIn) {
        reset_on_close(&self.0);
    }
}

/// Serves one connection that came in by the plaintext listener; its local address is what the caller dialled.
pub async fn serve(
    worker: &Rc<Worker>,
    pod: Arc<LocalPod>,
    stream: TcpStream,
    peer: SocketAddr,
    registered: Registered,
) {
    let arrived = worker.rooms.state.wait_complete(worker.limits().snapshot_wait).await;
    let workload = worker.rooms.state.snapshot().workload(&pod.uid).filter(|_| arrived).cloned();
    let (Some(workload), Ok(local)) = (workload, stream.local_addr()) else {
        worker.counters.no_snapshot.inc();
        return reset_on_close(&stream);
    };
    let to = SocketAddr::new(local.ip().to_canonical(), local.port());
    let inbound = Inbound {
        pod,
        workload,
        peer: Peer { identity: None, ip: peer.ip(), port: to.port() },
        client: ClientAddr::new(peer),
        to,
        security: Security::None,
        started: SystemTime::now(),
        registered: Rc::new(registered),
    };
    inbound::serve(worker, inbound, Socket(stream)).await;
}
