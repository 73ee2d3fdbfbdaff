//! New pods are captured before anything runs in them: the CNI plugin, the agent's end of it, and what both leave on the node.
//!
//! The container runtime runs `tulle-cni` ([`plugin`]) last in its chain; that hands the pod's network namespace to the agent
//! ([`server`]) and returns when capture is live. [`install`] keeps the plugin and its entry in the runtime's configuration; `standing`
//! remembers which namespaces are enrolled for the time when nobody answers, and judges by it.
//!
//! Invariants: a pod of an enrolled namespace never starts uncaptured because something of ours does not answer; pods of exempt namespaces never
//! wait for us; the plugin starts no runtime and talks to nothing but the agent's socket.

mod file;
mod install;
mod json;
mod keep;
mod message;
mod standing;
mod trouble;

pub mod conflist;
pub mod plugin;
pub mod server;

use std::{io, sync::Arc};

use tokio::sync::watch;

use crate::{app::Rooms, config::CniPaths, worker::Workers};

pub use install::{ENTRY_TYPE, Files};
pub use standing::{Judgement, Standing, StandingError};
pub use trouble::Trouble;

/// Listens for plugins and keeps our files, on the current runtime, until the process drains.
pub fn start(rooms: &Rooms, workers: &Workers, paths: &CniPaths) -> io::Result<()> {
    let files = Files::new(paths.clone(), rooms.config.own_namespace.clone());
    let known = match Standing::read(&files.state()) {
        Ok(known) => known,
        Err(error) => {
            tracing::info!(path = %files.state().display(), %error, "which namespaces are enrolled is not known yet");
            Standing::unknown()
        }
    };
    let (standing, seen) = watch::channel(known);
    let listener = server::bind(&files.socket())?;
    let server = server::Server::new(rooms.clone(), workers.pods().clone(), seen);
    tokio::spawn(Arc::new(server).serve(listener));
    tokio::spawn(keep::keep(rooms.clone(), files, standing));
    Ok(())
}
