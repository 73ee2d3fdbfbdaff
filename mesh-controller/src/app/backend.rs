//! What differs between the two sources: where things are kept, who may call, what is watched.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::{Client, config::InferConfigError};
use mesh_api::Options;
use mesh_model::{mesh::MeshSettings, name::Namespace};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{AppError, Rooms};
use crate::{
    auth::{Authenticator, Reviewer, Roster},
    ca::Authority,
    config::{Config, Source},
    metrics::Metrics,
    placement::Placement,
    publish::{Command, Statuses},
    source::{
        dir,
        kube::{self as api, Cluster},
    },
    state::{State, StateError, cluster::ClusterState, keeper::Keeper},
    status::StatusWriter,
    token::TokenFiles,
};

/// To the API server.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence in an answer; longer than any watch that we ask for, which is what is silent by nature.
const SILENCE: Duration = Duration::from_secs(75);

/// What the rooms of a source are connected to.
pub(super) struct Wiring {
    pub(super) publisher: mpsc::Sender<Command>,
    pub(super) rescans: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) authority: Arc<Authority>,
    pub(super) statuses: watch::Receiver<Option<Arc<Statuses>>>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

/// A source with its place.
pub(super) enum Backend {
    Directory { source: PathBuf, state: PathBuf },
    Cluster { client: Client, namespace: Namespace, state: ClusterState },
}

impl Backend {
    /// Takes the place.
    pub(super) async fn open(config: &Config) -> Result<(Self, State), AppError> {
        match &config.source {
            Source::Directory(source) => {
                let path = config.state.clone();
                let path = path.ok_or(AppError::Flags("--source dir:PATH needs --state DIRECTORY"))?;
                let state = State::directory(&path)?;
                Ok((Self::Directory { source: source.clone(), state: path }, state))
            }
            Source::Kubernetes => {
                let namespace = config.own_namespace.clone();
                let namespace =
                    namespace.ok_or(AppError::Flags("--source kubernetes needs --own-namespace"))?;
                let client = connect().await?;
                let state =
                    ClusterState::open(client.clone(), namespace.clone()).await.map_err(StateError::from)?;
                Ok((Self::Cluster { client, namespace, state: state.clone() }, State::Cluster(state)))
            }
        }
    }

    /// What the compiler is to believe here.
    pub(super) fn options(&self, config: &Config) -> Options {
        match self {
            Self::Directory { .. } => {
                Options { own_namespace: config.own_namespace.clone(), ..Options::default() }
            }
            Self::Cluster { namespace, .. } => Options::on_cluster(namespace.clone()),
        }
    }

    /// Who checks callers, and who tells it which nodes there are.
    pub(super) fn callers(
        &self,
        placed: &watch::Receiver<Arc<Placement>>,
        metrics: &Metrics,
    ) -> (Roster, Authenticator) {
        match self {
            Self::Directory { state, .. } => {
                let (sender, tokens) = watch::channel(Arc::default());
                let roster = Roster::Files { files: TokenFiles::new(state), tokens: sender };
                (roster, Authenticator::with_files(tokens, metrics.clone()))
            }
            Self::Cluster { client, namespace, .. } => {
                let (sender, nodes) = watch::channel(None);
                let reviewer = Reviewer::new(client.clone(), namespace.clone(), nodes, placed.clone());
                (Roster::Names(sender), Authenticator::with_reviews(reviewer, metrics.clone()))
            }
        }
    }

    /// Begins to watch.
    pub(super) fn open_rooms(self, rooms: &mut Rooms, wiring: Wiring) {
        let Wiring { publisher, rescans, authority, statuses, metrics, stop } = wiring;
        match self {
            Self::Directory { source, .. } => {
                rooms.open("source", dir::watch(dir::Directory::new(source), publisher, rescans, stop));
            }
            Self::Cluster { client, state, .. } => {
                let (left, has_left) = watch::channel(false);
                let keeper = Keeper {
                    state,
                    authority,
                    publisher: publisher.clone(),
                    left: has_left,
                    metrics: metrics.clone(),
                };
                rooms.open("keeper", keeper.keep(stop.clone()));
                let writer =
                    StatusWriter { client: client.clone(), statuses, left, metrics: metrics.clone() };
                rooms.open("status", writer.write(stop.clone()));
                let root_namespace = MeshSettings::default().root_namespace;
                let cluster = Cluster { client, root_namespace, metrics };
                rooms.open("source", api::watch(cluster, publisher, rescans, stop));
            }
        }
    }
}

/// The cluster that we run in, else the one that KUBECONFIG names.
async fn connect() -> Result<Client, AppError> {
    let mut config = match kube::Config::incluster() {
        Ok(config) => config,
        Err(_) => kube::Config::infer().await.map_err(|error: InferConfigError| AppError::from(error))?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // The API server is reached as the kubelet reaches it; a proxy for the internet knows no cluster.
    config.proxy_url = None;
    Ok(Client::try_from(config).map_err(Box::new)?)
}
