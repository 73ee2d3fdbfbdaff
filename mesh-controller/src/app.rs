//! Builds each room once, in order, and ends them in reverse.
//!
//! Order: the state directory is ours, then the authority is whole, then the ports are bound, then the source is read; a caller that
//! comes before the first compilation is told to come again.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::v1::{control_server::ControlServer, inspect_server::InspectServer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    admin,
    auth::Authenticator,
    ca::{Authority, CaError},
    config::Config,
    files::{self, FileError},
    grant::Granter,
    inspect::InspectService,
    metrics::Metrics,
    publish::{self, Facts, Memory, MemoryError, Outputs, Publisher, Readiness},
    serve::ControlService,
    sign::Signer,
    source::dir,
    tls::{self, OWN_TTL, OwnCertificate},
    token::TokenFiles,
};

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
    /// The state directory.
    #[error(transparent)]
    State(#[from] FileError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// What was published.
    #[error(transparent)]
    Memory(#[from] MemoryError),
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
    _lock: files::Lock,
}

struct Parts {
    config: Config,
    authority: Arc<Authority>,
    certificate: Arc<OwnCertificate>,
    granter: Arc<Granter>,
    memory: Memory,
}

impl App {
    /// Everything that can fail at the start.
    pub async fn prepare(config: Config) -> Result<Self, AppError> {
        files::private_directory(&config.state)?;
        let lock = files::lock(&config.state)?;
        let now = OffsetDateTime::now_utc();
        let authority = Arc::new(Authority::open(&config.state, config.trust_domain.clone(), now)?);
        let certificate = Arc::new(OwnCertificate::new(&authority, now)?);
        let granter = Arc::new(Granter::new(&authority, now)?);
        let memory = Memory::open(&config.state)?;
        let listener = bind(config.listen).await?;
        let admin = bind(config.admin).await?;
        let parts = Parts { config, authority, certificate, granter, memory };
        Ok(Self { parts, listener, admin, _lock: lock })
    }

    /// Serves until cancelled.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { parts: Parts { config, authority, certificate, granter, memory }, listener, admin, _lock } =
            self;
        let metrics = Metrics::new();
        let (placement, placed) = watch::channel(Arc::default());
        let (tokens, known) = watch::channel(Arc::default());
        let (readiness, ready) = watch::channel(Readiness::default());
        let (publisher, commands) = mpsc::channel(publish::COMMANDS);
        let (rescan, rescans) = dir::rescan_channel();
        let facts = Facts {
            source: format!("dir:{}", config.source.display()),
            ca_not_after: authority.root_not_after().format(&Rfc3339).unwrap_or_default(),
        };
        let outputs = Outputs { placement, tokens, readiness };
        let token_files = TokenFiles::new(&config.state);
        let options = mesh_api::Options {
            trust_domain: config.trust_domain,
            istio_labels: config.compat_istio_labels,
            ..mesh_api::Options::default()
        };
        let publish = Publisher::new(options, facts, token_files, memory, metrics.clone(), outputs);
        let authenticator = Authenticator::new(known, metrics.clone());
        let signer = Arc::new(Signer::new(authority.clone(), placed, config.svid_ttl));
        let control =
            ControlService::new(authenticator.clone(), publisher.clone(), signer.clone(), metrics.clone());
        let inspect = InspectService::new(authenticator, publisher.clone(), rescan, granter.clone(), signer);

        tracing::info!(listen = %config.listen, admin = %config.admin, source = %config.source.display(), "starting");
        let mut rooms = Rooms::new(stop.clone());
        rooms.open("publisher", publish.run(commands, stop.clone()));
        let directory = dir::Directory::new(config.source);
        rooms.open("source", dir::watch(directory, publisher, rescans, stop.clone()));
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

/// The tasks of the process. One that ends, ends all: half a controller is worse than one that is started again.
struct Rooms {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
    stop: CancellationToken,
}

impl Rooms {
    fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop }
    }

    fn open(&mut self, name: &'static str, room: impl Future<Output = ()> + Send + 'static) {
        // Dropped at the end of the task, also when it panics.
        let guard = self.stop.clone().drop_guard();
        let task = self.tasks.spawn(async move {
            room.await;
            drop(guard);
        });
        self.names.insert(task.id(), name);
    }

    /// Waits for all to end, for a while.
    async fn close(mut self) -> Result<(), AppError> {
        let ended = timeout(FAREWELL, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    return Err(AppError::Room(self.names.get(&error.id()).copied().unwrap_or("a room")));
                }
            }
            Ok(())
        });
        ended.await.unwrap_or_else(|_| {
            tracing::warn!("some tasks did not end in time");
            Ok(())
        })
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
