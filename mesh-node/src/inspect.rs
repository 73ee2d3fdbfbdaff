//! The inspection API: what this node has, for `meshctl`, against a grant of the controller.
//!
//! Invariants: TLS with the node's own certificate; every call needs a grant; nothing can be changed here; no key leaves.

mod grant;
mod service;

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use mesh_model::name::NodeName;
use mesh_proto::v1::{Connection, node_inspect_server::NodeInspectServer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

pub use grant::GrantError;

use crate::{
    clock::Clock,
    config::Limits,
    feed::Reporter,
    identity::Certificates,
    phase::{Phase, Stage},
    state::State,
};

/// Lists the open connections; the data path keeps them.
pub type ListConnections =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Connection>> + Send>> + Send + Sync>;

/// What the API shows, and by what it judges callers.
#[derive(Clone)]
pub struct Inspected {
    /// This node.
    pub node: NodeName,
    /// The snapshot.
    pub state: State,
    /// Certificates of local workloads, and the roots that grants chain to.
    pub certificates: Certificates,
    /// What capture reported.
    pub reporter: Reporter,
    /// Open connections.
    pub connections: ListConnections,
    /// What time it is.
    pub clock: Clock,
    /// Start and stop.
    pub phase: Phase,
    /// Time-outs and bounds.
    pub limits: Limits,
}

/// Serves the API at `listener` until the process stops. Nothing is accepted before the first complete snapshot: it names the trust
/// domain.
pub async fn run(listener: TcpListener, inspected: Inspected) -> Result<(), tonic::transport::Error> {
    while !inspected.state.wait_complete(inspected.limits.snapshot_wait).await {
        if inspected.phase.stage() >= Stage::Draining {
            return Ok(());
        }
    }
    let trust_domain = inspected.state.snapshot().mesh().trust_domain.clone();
    let uri = format!("spiffe://{trust_domain}/tulle/node/{}", inspected.node);
    inspected.certificates.want_node_server(uri.clone());

    let (accepted, incoming) = mpsc::channel(1);
    let accepting = tokio::spawn(accept_all(listener, uri, inspected.clone(), accepted));
    let stopped = inspected.phase.clone();
    let limits = inspected.limits.clone();
    let served = Server::builder()
        .timeout(limits.admin_request)
        .concurrency_limit_per_connection(8)
        .http2_keepalive_interval(Some(limits.control_ping_interval))
        .http2_keepalive_timeout(Some(limits.control_ping_timeout))
        .add_service(NodeInspectServer::new(service::Service::new(inspected, trust_domain)))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
            stopped.reached(Stage::Draining).await;
        })
        .await;
    accepting.abort();
    served
}

type Accepted = io::Result<TlsStream<TcpStream>>;

async fn accept_all(
    listener: TcpListener,
    uri: String,
    inspected: Inspected,
    accepted: mpsc::Sender<Accepted>,
) {
    let handshakes = Arc::new(Semaphore::new(inspected.limits.admin_connections));
    loop {
        let Ok(place) = handshakes.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting on the inspection port");
                tokio::time::sleep(inspected.limits.accept_backoff).await;
                continue;
            }
        };
        let (uri, inspected, accepted) = (uri.clone(), inspected.clone(), accepted.clone());
        tokio::spawn(async move {
            let _place = place;
            match handshake(stream, &uri, &inspected).await {
                // The server is gone only when the process stops.
                Ok(stream) => drop(accepted.send(Ok(stream)).await),
                Err(error) => {
                    tracing::info!(%peer, %error, "an inspection call did not get through its handshake")
                }
            }
        });
    }
}

async fn handshake(stream: TcpStream, uri: &str, inspected: &Inspected) -> Accepted {
    let limits = &inspected.limits;
    let config =
        inspected.certificates.node_server(uri, limits.certificate_wait).await.map_err(io::Error::other)?;
    tokio::time::timeout(limits.tls_handshake, TlsAcceptor::from(config).accept(stream)).await?
}

/// Where others reach the API, for the controller; empty if it is not served.
pub fn address(addr: Option<SocketAddr>) -> String {
    addr.map(|addr| addr.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
