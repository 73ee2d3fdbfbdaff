//! Knows the kubelet of this node, whose probes pass: the one process that listens on the kubelet's port.
//!
//! Invariant: a name proves nothing. A process is the kubelet if it is root, bears the name, is in this agent's network namespace
//! and in no pod's cgroup, *and* holds the socket that listens on the kubelet's port there. It is named to the kernel by pid and
//! start time, and the name is withdrawn as soon as it ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    app::Rooms,
    phase::Stage,
    sys::{self, Exit, Process},
    telemetry::Gauge,
};

/// Between two looks: a kubelet that starts again is known within a second.
const LOOK: Duration = Duration::from_millis(500);

/// Between two looks for the holder of a socket that is not the kubelet's.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A kubelet that is not known for this long is missing.
const MISSED: Duration = Duration::from_secs(10);

/// Whether the kubelet is missing, for whoever reports on the pods that it probes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Missing(Arc<AtomicBool>);

impl Missing {
    /// What a person should know of a pod with probes.
    pub fn notice(&self) -> Option<&'static str> {
        let is_missing = self.0.load(Ordering::Relaxed);
        is_missing.then_some(
            "the node's kubelet is not recognised: its probes are judged by the pod's policies like anybody's calls",
        )
    }

    fn set(&self, missing: bool) {
        self.0.store(missing, Ordering::Relaxed);
    }
}

/// How the kubelet is recognised.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// What its process may be called.
    pub names: Vec<String>,
    /// The port on which it serves its API; 0: there is no kubelet, nobody's probes pass.
    pub port: u16,
}

/// The kubelet that was found.
#[derive(Debug)]
struct Known {
    process: Process,
    socket: u32,
    exit: Exit,
}

struct Search {
    rooms: Rooms,
    known: Option<Known>,
    /// Sockets on its port that are not its own, and when that was found.
    foreign: Option<(Vec<u32>, Instant)>,
    unknown_since: Instant,
    found: Gauge,
}

/// Follows the kubelet from life to life, until the process stops.
pub async fn follow(rooms: Rooms) {
    if rooms.config.kubelet.port == 0 {
        rooms.kubelet_missing.set(true);
        return tell(&rooms, &[]);
    }
    if !sys::sees_every_process() {
        tracing::warn!(
            "this agent is not in the node's initial pid namespace: the kubelet's probes are not recognised (hostPID is needed)"
        );
    }
    let phase = rooms.phase.clone();
    let found = rooms.telemetry.gauge("mesh_kubelet_found", "1: the kubelet is known and its probes pass");
    let mut search = Search { rooms, known: None, foreign: None, unknown_since: Instant::now(), found };
    search.look().await;
    if search.known.is_none() {
        // Whom a previous life of this agent named.
        search.forget();
    }
    loop {
        search.rooms.kubelet_missing.set(search.known.is_none() && search.unknown_since.elapsed() > MISSED);
        let ended = async {
            match &search.known {
                Some(known) => known.exit.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = phase.reached(Stage::Draining) => return,
            () = ended => search.forget(),
            () = tokio::time::sleep(LOOK) => {}
        }
        search.look().await;
    }
}

impl Search {
    async fn look(&mut self) {
        let port = self.rooms.config.kubelet.port;
        let sockets = match tokio::task::spawn_blocking(move || sys::listeners(port)).await {
            Ok(Ok(sockets)) => sockets,
            Ok(Err(error)) => return tracing::warn!(%error, "listening sockets cannot be listed"),
            Err(error) => return tracing::error!(%error, "listing sockets broke"),
        };
        if let Some(known) = &self.known {
            if sockets.contains(&known.socket) && known.process.is_alive() {
                return;
            }
            self.forget();
        }
        let is_known_foreign =
            |(foreign, at): &(Vec<u32>, Instant)| *foreign == sockets && at.elapsed() < LOOK_AGAIN;
        if sockets.is_empty() || self.foreign.as_ref().is_some_and(is_known_foreign) {
            return;
        }
        let names = self.rooms.config.kubelet.names.clone();
        let asked = sockets.clone();
        match tokio::task::spawn_blocking(move || find(&names, &asked)).await {
            Ok(Some(known)) => self.learn(known),
            Ok(None) => {
                if self.foreign.as_ref().is_none_or(|(foreign, _)| *foreign != sockets) {
                    tracing::warn!(
                        port,
                        "whoever listens on the kubelet's port is not the kubelet: its probes do not pass"
                    );
                }
                self.foreign = Some((sockets, Instant::now()));
            }
            Err(error) => tracing::error!(%error, "looking for the kubelet broke"),
        }
    }

    fn learn(&mut self, known: Known) {
        tracing::info!(pid = known.process.pid, "the kubelet is known: its probes pass");
        tell(&self.rooms, &[known.process]);
        self.found.set(1);
        self.foreign = None;
        self.known = Some(known);
    }

    fn forget(&mut self) {
        if let Some(known) = self.known.take() {
            tracing::info!(pid = known.process.pid, "the kubelet is gone");
            self.unknown_since = Instant::now();
        }
        tell(&self.rooms, &[]);
        self.found.set(0);
    }
}

fn tell(rooms: &Rooms, probers: &[Process]) {
    if let Err(error) = rooms.hooks.set_probers(probers) {
        tracing::error!(%error, "the kernel side is not told who the kubelet is");
    }
}

/// The kubelet that holds one of these sockets. Blocks.
fn find(names: &[String], sockets: &[u32]) -> Option<Known> {
    let here = sys::Netns::current().ok()?.id();
    let bears_name = |process: &Process| process.name().is_ok_and(|name| names.contains(&name));
    let mut processes = sys::pids().ok()?.filter_map(|pid| Process::of(pid).ok());
    processes.find_map(|process| {
        if !bears_name(&process) {
            return None;
        }
        // The exit is watched before the rest is looked at: all that is found is found of this very process.
        let exit = Exit::of(process).ok()?;
        let socket = holds_one(&process, sockets).ok()??;
        let is_kubelet =
            process.is_root().ok()? && process.netns_id().ok()? == here && !is_in_a_pod(&process).ok()?;
        is_kubelet.then_some(Known { process, socket, exit })
    })
}

fn holds_one(process: &Process, sockets: &[u32]) -> io::Result<Option<u32>> {
    for socket in sockets {
        if process.holds_socket(*socket)? {
            return Ok(Some(*socket));
        }
    }
    Ok(None)
}

/// Whether a pod's cgroup holds it. A pod that holds the whole node (a cluster inside a pod) holds process 1 as well, and does not
/// count.
fn is_in_a_pod(process: &Process) -> io::Result<bool> {
    let around = Process::of(1)?.pods()?;
    Ok(process.pods()?.iter().any(|pod| !around.contains(pod)))
}
