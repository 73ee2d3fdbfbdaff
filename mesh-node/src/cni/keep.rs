//! Keeps our files on the node as the mesh wants them: level-triggered, at each snapshot, at each change of the folder, and slowly without any.
//!
//! Invariants: the entry is chained only once it is known which namespaces are enrolled, and the socket listens; it is taken out before what
//! it leads to is removed; a plain stop leaves everything in place.

use std::{io, path::Path, sync::Arc, time::Duration};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{Files, Standing};
use crate::{app::Rooms, phase::Stage};

/// Others write a file in several steps; between the first and our look.
const SETTLE: Duration = Duration::from_millis(50);

/// How long runtimes may take to see that our entry is gone, before the plugin goes.
const RELOAD: Duration = Duration::from_secs(2);

/// Runs until the process drains; tells `standing` what the controller says.
pub async fn keep(rooms: Rooms, files: Files, standing: watch::Sender<Standing>) {
    // A stop waits for us, so that a node that is left is left clean.
    let _busy = rooms.phase.busy();
    let touched = Arc::new(Notify::new());
    let _watcher = watch(files.conf_dir(), touched.clone()).map_err(|error| {
        tracing::warn!(%error, "the CNI configuration cannot be watched; it is looked at now and then");
    });
    let mut changed = rooms.state.changed();
    let mut keeper = Keeper { rooms, files: Some(files), standing, has_left: false };
    loop {
        keeper.look().await;
        tokio::select! {
            () = keeper.rooms.phase.reached(Stage::Draining) => {
                keeper.look().await;
                return keeper.close().await;
            }
            () = touched.notified() => sleep(SETTLE).await,
            seen = changed.changed() => if seen.is_err() { return },
            () = sleep(keeper.rooms.config.limits.cni_look) => {}
        }
    }
}

struct Keeper {
    rooms: Rooms,
    /// Missing only while a blocking thread has it.
    files: Option<Files>,
    standing: watch::Sender<Standing>,
    has_left: bool,
}

impl Keeper {
    async fn look(&mut self) {
        if self.rooms.state.is_complete() {
            let now = Standing::of(self.rooms.state.snapshot().mesh());
            self.standing.send_if_modified(|before| {
                *before != now && {
                    *before = now;
                    true
                }
            });
        }
        let standing = self.standing.borrow().clone();
        let done = if standing.is_leaving() {
            self.leave().await
        } else if standing.is_known() {
            self.has_left = false;
            self.blocking(move |files| settle(files, &standing)).await
        } else {
            Ok(())
        };
        self.complain(done.err());
    }

    /// Takes everything off the node.
    async fn leave(&mut self) -> Result<(), String> {
        if self.has_left {
            return Ok(());
        }
        let written =
            self.blocking(|files| files.remove_entries().map_err(|error| error.to_string())).await?;
        tracing::info!(written, "the mesh is leaving: the CNI entry is out of the runtime's configuration");
        tokio::select! {
            () = sleep(RELOAD) => {}
            () = self.rooms.phase.reached(Stage::Draining) => {}
        }
        self.blocking(|files| files.remove_rest().map_err(|error| error.to_string())).await?;
        self.has_left = true;
        tracing::info!("the CNI plugin is removed");
        Ok(())
    }

    /// The last act of an agent whose mesh has left.
    async fn close(&mut self) {
        if self.has_left
            && let Err(error) =
                self.blocking(|files| files.remove_socket().map_err(|error| error.to_string())).await
        {
            tracing::warn!(error, "the socket of the CNI plugin stays on the node");
        }
    }

    /// Runs what reads and writes files, away from the control threads.
    async fn blocking<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Files) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let mut files = self.files.take().ok_or("a look before this one broke")?;
        let acted = spawn_blocking(move || {
            let result = act(&mut files);
            (files, result)
        });
        let (files, result) = acted.await.map_err(|error| error.to_string())?;
        self.files = Some(files);
        result
    }

    /// What stays wrong is news once.
    fn complain(&self, complaint: Option<String>) {
        if let (Some(reason), true) = (complaint.clone(), self.rooms.cni_trouble.set(complaint)) {
            tracing::warn!(reason, "the CNI plugin is not installed as it should be");
        }
    }
}

/// The file of enrolled namespaces first: the plugin judges by it from its first call on. What cannot be done does not keep the rest from
/// being done, but for the entry: it leads to the plugin.
fn settle(files: &mut Files, standing: &Standing) -> Result<(), String> {
    let remembered = remember(&files.state(), standing);
    let installed = install(files);
    match (remembered, installed) {
        (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        (one, other) => one.and(other),
    }
}

fn remember(state: &Path, standing: &Standing) -> Result<(), String> {
    if Standing::read(state).ok().as_ref() == Some(standing) {
        return Ok(());
    }
    let folder = state.parent().unwrap_or(Path::new("/"));
    super::file::make_private_folder(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    standing.write(state).map_err(|error| format!("{}: {error}", state.display()))
}

fn install(files: &mut Files) -> Result<(), String> {
    if files.install_plugin().map_err(|error| error.to_string())? {
        tracing::info!("the CNI plugin is installed");
    }
    if let Some(path) = files.install_entry().map_err(|error| error.to_string())? {
        tracing::info!(path = %path.display(), "the CNI plugin is chained last");
    }
    Ok(())
}

/// Wakes `touched` at each change in the folder; reading, our own too, is none.
fn watch(folder: &Path, touched: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let is_change = |event: &Event| match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may mean that events were lost.
        if event.as_ref().map_or(true, is_change) {
            touched.notify_one();
        }
    })?;
    if let Err(error) = std::fs::create_dir_all(folder) {
        return Err(notify::Error::io(io::Error::new(
            error.kind(),
            format!("{}: {error}", folder.display()),
        )));
    }
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use mesh_model::mesh::MeshSettings;

    use super::*;
    use crate::config::CniPaths;

    #[test]
    fn what_cannot_be_remembered_does_not_keep_the_plugin_from_being_installed() {
        let node = tempfile::tempdir().unwrap();
        let at = |name: &str| node.path().join(name);
        fs::create_dir(at("net.d")).unwrap();
        fs::write(
            at("net.d/10.conflist"),
            r#"{"cniVersion":"1.0.0","name":"k8s","plugins":[{"type":"ptp"}]}"#,
        )
        .unwrap();
        // A file where the folder should be: not even root can write below it.
        fs::write(at("state"), "").unwrap();
        let paths = CniPaths {
            conf_dir: at("net.d"),
            bin_dir: at("bin"),
            run_dir: at("run"),
            state_dir: at("state"),
        };
        let mut files = Files::new(paths, None);
        let error = settle(&mut files, &Standing::of(&MeshSettings::default())).unwrap_err();
        assert!(error.contains("state"), "{error}");
        let installed: BTreeSet<_> =
            fs::read_dir(at("bin")).unwrap().flatten().map(|each| each.file_name()).collect();
        assert_eq!(installed, BTreeSet::from(["tulle-cni".into()]));
        assert!(fs::read_to_string(at("net.d/10.conflist")).unwrap().contains("tulle-cni"));
    }
}
