//! Builds each room once, in order, and ends them in reverse.
//!
//! Order: the state is ours, then the authority is whole, then the ports are bound, then the source is read; a caller that
//! comes before the first compilation is told to come again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::v1::{control_server::ControlServer, inspect_server::InspectServer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    admin,
    ca::{Authority, CaError},
    config::Config,
    grant::Granter,
    inspect::InspectService,
    metrics::Metrics,
    publish::{self, Facts, Memory, Outputs, Publisher, Readiness},
    serve::ControlService,
    sign::Signer,
    source,
    state::{State, StateError},
    tls::{self, OWN_TTL, OwnCertificate},
};

mod backend;
mod rooms;

use backend::{Backend, Wiring};
use rooms::Rooms;

/// The largest message that we take: Hello of a node that holds a hundred thousand resources.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Silence on a connection before we ask whether the other side lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(10);
/// How long streams may take to end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between two attempts to renew our own certificates.
const RENEW_RETRY: Duration = Duration::from_secs(60);

/// Why the controller does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Where the state is kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// Flags that do not go together.
    #[error("{0}")]
    Flags(&'static str),
    /// No way to the API server is known.
    #[error("the way to the API server: {0}")]
    Client(#[from] Box<kube::Error>),
    /// Neither are we in a cluster, nor does KUBECONFIG name one.
    #[error("neither are we in a cluster, nor is there a kubeconfig: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// A port.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The TLS library.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A task panicked; the panic's text is on stderr.
    #[error("the {0} failed")]
    Room(&'static str),
    /// The server ended.
    #[error("serving: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A controller with its ports bound.
pub struct App {
    parts: Parts,
    listener: TcpListener,
    admin: TcpListener,
}

struct Parts {
    config: Config,
    backend: Backend,
    /// Holds the state's lock, where there is one.
    _state: State,
    authority: Arc<Authority>,
    certificate: Arc<OwnCertificate>,
    granter: Arc<Granter>,
    memory: Memory,
    leaving: bool,
}

impl App {
    /// Everything that can fail at the start.
    pub async fn prepare(config: Config) -> Result<Self, AppError> {
        let (backend, state) = Backend::open(&config).await?;
        let now = OffsetDateTime::now_utc();
        let authority = Arc::new(state.authority(config.trust_domain.clone(), now).await?);
        let certificate = Arc::new(OwnCertificate::new(&authority, now)?);
        let granter = Arc::new(Granter::new(&authority, now)?);
        let (memory, leaving) = state.memory().await?;
        let listener = bind(config.listen).await?;
        let admin = bind(config.admin).await?;
        let parts =
            Parts { config, backend, _state: state, authority, certificate, granter, memory, leaving };
        Ok(Self { parts, listener, admin })
    }

    /// Serves until cancelled.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { parts, listener, admin } = self;
        let Parts { config, backend, _state, authority, certificate, granter, memory, leaving } = parts;
        let metrics = Metrics::new();
        let (placement, placed) = watch::channel(Arc::default());
        let (readiness, ready) = watch::channel(Readiness::default());
        let (statuses, said) = watch::channel(None);
        let (publisher, commands) = mpsc::channel(publish::COMMANDS);
        let (rescan, rescans) = source::rescan_channel();
        let (roster, authenticator) = backend.callers(&placed, &metrics);
        let facts = Facts {
            source: config.source.to_string(),
            ca_not_after: authority.root_not_after().format(&Rfc3339).unwrap_or_default(),
        };
        let outputs = Outputs { placement, roster, readiness, statuses };
        let options = mesh_api::Options {
            trust_domain: config.trust_domain.clone(),
            istio_labels: config.istio_labels(),
            leaving,
            ..backend.options(&config)
        };
        let publish = Publisher::new(options, facts, memory, metrics.clone(), outputs);
        let signer = Arc::new(Signer::new(authority.clone(), placed, config.svid_ttl));
        let control =
            ControlService::new(authenticator.clone(), publisher.clone(), signer.clone(), metrics.clone());
        let inspect = InspectService::new(authenticator, publisher.clone(), rescan, granter.clone(), signer);

        tracing::info!(listen = %config.listen, admin = %config.admin, source = %config.source, "starting");
        let mut rooms = Rooms::new(stop.clone());
        rooms.open("publisher", publish.run(commands, stop.clone()));
        let wiring = Wiring {
            publisher,
            rescans,
            authority: authority.clone(),
            statuses: said,
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        backend.open_rooms(&mut rooms, wiring);
        rooms.open("renewal", renew(authority, certificate.clone(), granter, stop.clone()));
        rooms.open("admin", serve_admin(admin, metrics.clone(), ready, stop.clone()));

        let incoming = tls::accept(listener, tls::server_config(certificate)?, metrics, stop.clone());
        let served = Server::builder()
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .max_concurrent_streams(256)
            .add_service(ControlServer::new(control).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(InspectServer::new(inspect))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let served = end_with(served, &stop).await;
        // Whatever ended the server, the other rooms have nothing to do without it.
        stop.cancel();
        served.and(rooms.close().await)
    }
}

/// The server's result, and after the stop at most [`FAREWELL`] of waiting for its streams.
async fn end_with(
    served: impl Future<Output = Result<(), tonic::transport::Error>>,
    stop: &CancellationToken,
) -> Result<(), AppError> {
    let late = async {
        stop.cancelled().await;
        sleep(FAREWELL).await;
    };
    tokio::select! {
        served = served => Ok(served?),
        () = late => Ok(()),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
}

async fn serve_admin(
    listener: TcpListener,
    metrics: Metrics,
    ready: watch::Receiver<Readiness>,
    stop: CancellationToken,
) {
    if let Err(error) = admin::serve(listener, metrics, ready, stop).await {
        tracing::error!(%error, "metrics and health are not served any more");
    }
}

/// Renews our own certificates at half of their life.
async fn renew(
    authority: Arc<Authority>,
    certificate: Arc<OwnCertificate>,
    granter: Arc<Granter>,
    stop: CancellationToken,
) {
    let mut pause = OWN_TTL / 2;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        let now = OffsetDateTime::now_utc();
        let renewed = certificate.renew(&authority, now).and_then(|()| granter.renew(&authority, now));
        pause = match renewed {
            Ok(()) => {
                tracing::info!("renewed the controller's certificates");
                OWN_TTL / 2
            }
            Err(error) => {
                tracing::error!(%error, "the controller's certificates could not be renewed");
                RENEW_RETRY
            }
        };
    }
}

#[cfg(test)]
mod tests;
