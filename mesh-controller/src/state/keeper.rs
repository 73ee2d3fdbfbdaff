//! Keeps the Secret and the ConfigMaps as they shall be: each is put back when somebody removes or changes it, and the word of whoever
//! uninstalls is heard.
//!
//! Invariant: level-triggered. What is seen is compared with what shall be, and what could not be written is tried again.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;
use mesh_model::name::WorkloadUid;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::cluster::{
    CA_SECRET, ClusterState, ROOT_CERT, ROOT_KEY, STATE, has_left, is_leaving, is_root, published_in,
};
use crate::{ca::Authority, metrics::Metrics, publish::Command};

/// Before the next attempt at whatever failed.
const RETRY: Duration = Duration::from_secs(5);

/// The keeper's connections to the rest.
pub struct Keeper {
    /// The objects.
    pub state: ClusterState,
    /// Whose root it is.
    pub authority: Arc<Authority>,
    /// Who is told.
    pub publisher: mpsc::Sender<Command>,
    /// Whether nothing is captured any more.
    pub left: watch::Receiver<bool>,
    /// Where failures are counted.
    pub metrics: Metrics,
}

impl Keeper {
    /// Until cancelled.
    pub async fn keep(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_secret() => {}
            () = self.keep_root() => {}
            () = self.keep_state() => {}
        }
    }

    /// A controller that starts without the Secret refuses to: it must be back before.
    async fn keep_secret(&self) {
        let mut secrets = pin!(watcher::watch_object(self.state.secrets(), CA_SECRET));
        let mut missing = false;
        loop {
            tokio::select! {
                Some(seen) = secrets.next() => match seen {
                    Ok(Some(secret)) => {
                        missing = false;
                        if !is_root(&secret, self.authority.root_pem()) {
                            self.metrics.state_failures.inc();
                            tracing::error!(
                                "Secret {CA_SECRET} holds another root than the one in use: the next start splits the mesh. \
                                 Restore it, or delete it and it is put back"
                            );
                        }
                    }
                    Ok(None) => missing = true,
                    Err(error) => watch_failed(CA_SECRET, &error).await,
                },
                () = sleep(RETRY), if missing => {}
            }
            // A mesh that has left is being deleted, and its Secret with it.
            if missing && !*self.left.borrow() {
                match self.state.put_back(&self.authority.kept()).await {
                    Ok(_) => {
                        tracing::warn!("Secret {CA_SECRET} was missing and was put back");
                        missing = false;
                    }
                    Err(error) => self.failed(&error),
                }
            }
        }
    }

    async fn keep_root(&self) {
        let mut maps = pin!(watch_map(&self.state, ROOT_CERT));
        let mut right = false;
        loop {
            tokio::select! {
                Some(seen) = maps.next() => match seen {
                    Ok(map) => right = map.is_some_and(|map| self.is_our_root(&map)),
                    Err(error) => watch_failed(ROOT_CERT, &error).await,
                },
                () = sleep(RETRY), if !right => {}
            }
            if !right {
                match self.state.publish_root(self.authority.root_pem()).await {
                    Ok(()) => {
                        tracing::info!("ConfigMap {ROOT_CERT} was not as it shall be and was written");
                        right = true;
                    }
                    Err(error) => self.failed(&error),
                }
            }
        }
    }

    fn is_our_root(&self, map: &ConfigMap) -> bool {
        let text = map.data.as_ref().and_then(|data| data.get(ROOT_KEY));
        text.is_some_and(|text| text == self.authority.root_pem())
    }

    async fn keep_state(&self) {
        let mut maps = pin!(watch_map(&self.state, STATE));
        let mut left = self.left.clone();
        // None: the ConfigMap has not been seen.
        let mut marked = None;
        let mut failed = false;
        loop {
            tokio::select! {
                Some(seen) = maps.next() => match seen {
                    Ok(Some(map)) => {
                        marked = Some(has_left(&map));
                        self.tell(Command::Remembered(self.remembered(&map))).await;
                        self.tell(Command::Leaving(is_leaving(&map))).await;
                    }
                    Ok(None) => {
                        marked = None;
                        self.tell(Command::Remembered(None)).await;
                    }
                    Err(error) => watch_failed(STATE, &error).await,
                },
                Ok(()) = left.changed() => {}
                () = sleep(RETRY), if failed => {}
            }
            let wanted = *left.borrow_and_update();
            failed = false;
            if marked.is_some_and(|marked| marked != wanted) {
                match self.state.mark_left(wanted).await {
                    Ok(()) => marked = Some(wanted),
                    Err(error) => {
                        failed = true;
                        self.failed(&error);
                    }
                }
            }
        }
    }

    fn remembered(&self, map: &ConfigMap) -> Option<BTreeSet<WorkloadUid>> {
        published_in(map).inspect_err(|error| self.failed(error)).ok()
    }

    /// A publisher that is gone takes the process with it.
    async fn tell(&self, command: Command) {
        let _ = self.publisher.send(command).await;
    }

    fn failed(&self, error: &super::ClusterStateError) {
        self.metrics.state_failures.inc();
        tracing::error!(%error, "the state on the cluster cannot be written; trying again");
    }
}

fn watch_map(
    state: &ClusterState,
    name: &'static str,
) -> impl Stream<Item = watcher::Result<Option<ConfigMap>>> + use<> {
    watcher::watch_object(state.config_maps(), name)
}

async fn watch_failed(name: &str, error: &watcher::Error) {
    tracing::debug!(name, %error, "watching a ConfigMap");
    sleep(RETRY).await;
}
