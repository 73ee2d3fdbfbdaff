//! The agent's end of the plugin's socket.
//!
//! Invariants: only root is answered; requests are bounded in size, in time and in number at once; *captured* is said only when the kernel
//! captures for the very namespace that came with the request. At a stop requests under way are dropped, and the plugin asks the next agent.

use std::{
    fs::{self, Permissions},
    io,
    net::IpAddr,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    sync::Arc,
    time::Instant,
};

use mesh_model::{
    name::{Namespace, WorkloadUid},
    workload::{Enrolment, Workload},
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    Judgement, Standing, file,
    message::{Order, REQUEST_BYTES, Reply, Request},
};
use crate::{
    app::Rooms,
    capture::{
        LocalPods,
        announced::{Given, Outcome},
    },
    phase::Stage,
    sys::{self, Netns},
    telemetry::Counter,
};

/// Plugins whose connection waits to be accepted.
const BACKLOG: i32 = 256;

/// Answers plugins.
pub struct Server {
    rooms: Rooms,
    pods: LocalPods,
    standing: watch::Receiver<Standing>,
    captured: Counter,
    not_enrolled: Counter,
    refused: Counter,
}

/// Listens at `path`, in a folder that only root may enter; a socket that an agent before left there is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        file::make_private_folder(folder)?;
    }
    let fresh = path.with_extension("new");
    file::remove(&fresh)?;
    let listener = sys::listen_packets(&fresh, BACKLOG)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

impl Server {
    /// A server for the pods that `rooms` captures, which the data path sees as `pods`.
    pub fn new(rooms: Rooms, pods: LocalPods, standing: watch::Receiver<Standing>) -> Self {
        let counter = |name, help| rooms.telemetry.counter(name, help);
        Self {
            captured: counter("mesh_cni_pods_captured", "Pods captured before they started"),
            not_enrolled: counter("mesh_cni_pods_not_enrolled", "Pods that started outside the mesh"),
            refused: counter("mesh_cni_pods_refused", "Starts of pods that were refused: not captured"),
            rooms,
            pods,
            standing,
        }
    }

    /// Serves until the process drains.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let phase = self.rooms.phase.clone();
        let places = Arc::new(Semaphore::new(self.rooms.config.limits.cni_requests.max(1)));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = phase.reached(Stage::Draining) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.handle_until_stop(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the CNI plugin's connections cannot be accepted");
                    sleep(self.rooms.config.limits.accept_backoff).await;
                }
            }
        }
    }

    async fn handle_until_stop(&self, stream: UnixStream) {
        tokio::select! {
            done = self.handle(&stream) => if let Err(error) = done {
                tracing::warn!(%error, "a request of the CNI plugin came to nothing");
            },
            () = self.rooms.phase.reached(Stage::Draining) => {}
        }
    }

    async fn handle(&self, stream: &UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        if peer.uid() != 0 {
            let message = format!("user {} is not root", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let wait = self.rooms.config.limits.cni_request_read;
        let receive = stream.async_io(Interest::READABLE, || sys::receive_packet(stream, REQUEST_BYTES));
        let packet = timeout(wait, receive).await??;
        if packet.bytes.is_empty() {
            return Ok(());
        }
        let request: Request = serde_json::from_slice(&packet.bytes)?;
        let reply = match request.order {
            Order::Add => self.add(&request, packet.fd).await,
            Order::Del => self.del(&request, packet.fd).await,
            Order::Check => self.check(&request, packet.fd).await,
        };
        let bytes = serde_json::to_vec(&reply)?;
        let send = stream.async_io(Interest::WRITABLE, || sys::send_packet(stream, &bytes, None));
        timeout(wait, send).await?
    }

    async fn add(&self, request: &Request, fd: Option<OwnedFd>) -> Reply {
        let began = Instant::now();
        let reply = self.judge_and_capture(request, fd).await;
        let pod = format_args!("{}/{}", request.namespace, request.name);
        let took = began.elapsed();
        match &reply {
            Reply::Refused(reason) => {
                self.refused.inc();
                tracing::warn!(%pod, uid = request.uid, ?took, reason, "a new pod may not start");
            }
            Reply::Captured => {
                self.captured.inc();
                tracing::info!(%pod, uid = request.uid, ips = ?request.ips, ?took, "a new pod is captured");
            }
            Reply::NotEnrolled | Reply::Done => {
                self.not_enrolled.inc();
                tracing::debug!(%pod, uid = request.uid, ?took, "a new pod is not in the mesh");
            }
        }
        reply
    }

    async fn judge_and_capture(&self, request: &Request, fd: Option<OwnedFd>) -> Reply {
        let namespace = Namespace::from(request.namespace.as_str());
        let own = self.rooms.config.own_namespace.as_ref();
        let judge = || self.standing.borrow().judge(own, &namespace);
        if judge() == Judgement::Exempt {
            return Reply::NotEnrolled;
        }
        let uid = WorkloadUid::from(request.uid.as_str());
        match self.told_of(&uid).await {
            Some(workload) if workload.enrolment == Enrolment::Yes => {
                self.capture(&workload, request, fd).await
            }
            Some(_) => Reply::NotEnrolled,
            None if judge() == Judgement::Enrolled => Reply::refused(format!(
                "the controller has not told this node of it within {:?}, and its namespace is enrolled",
                self.rooms.config.limits.cni_unknown_wait
            )),
            None => Reply::NotEnrolled,
        }
    }

    /// The pod as the controller knows it, as soon as it does; bounded.
    async fn told_of(&self, uid: &WorkloadUid) -> Option<Arc<Workload>> {
        let mut changed = self.rooms.state.changed();
        let told = async {
            loop {
                if let Some(workload) = self.known(uid) {
                    return Some(workload);
                }
                changed.changed().await.ok()?;
            }
        };
        timeout(self.rooms.config.limits.cni_unknown_wait, told).await.ok().flatten()
    }

    fn known(&self, uid: &WorkloadUid) -> Option<Arc<Workload>> {
        self.rooms.state.snapshot().workload(uid).filter(|it| it.node == self.rooms.config.node).cloned()
    }

    fn is_wanted(&self, uid: &WorkloadUid) -> bool {
        self.known(uid).is_some_and(|workload| workload.enrolment == Enrolment::Yes)
    }

    async fn capture(&self, workload: &Workload, request: &Request, fd: Option<OwnedFd>) -> Reply {
        let ips = request.ips.clone();
        let given = match spawn_blocking(move || look_at(fd, ips)).await {
            Ok(Ok(given)) => given,
            Ok(Err(reason)) => return Reply::refused(reason),
            Err(error) => return Reply::refused(error.to_string()),
        };
        let limits = &self.rooms.config.limits;
        let mut outcome = self.rooms.announced.announce(workload.uid.clone(), request.sandbox.clone(), given);
        let mut last = "the kernel's hooks are not in place".to_owned();
        let waited =
            timeout(limits.cni_capture_wait, self.outcome(&workload.uid, &mut outcome, &mut last)).await;
        let reply = waited
            .unwrap_or_else(|_| Reply::refused(format!("{last} (after {:?})", limits.cni_capture_wait)));
        if reply == Reply::Captured {
            // It is on its way; a pod that starts before it has come waits at its first connection.
            let certificate = self.rooms.certificates.server(&workload.identity, limits.cni_certificate_wait);
            if let Err(error) = certificate.await {
                tracing::warn!(pod = %workload.uid, %error, "a new pod starts before its certificate is there");
            }
        } else {
            self.rooms.announced.withdraw(&workload.uid, &request.sandbox);
        }
        reply
    }

    /// Waits for what becomes of an announced pod; `last` is why it did not succeed so far.
    async fn outcome(
        &self,
        uid: &WorkloadUid,
        outcome: &mut watch::Receiver<Outcome>,
        last: &mut String,
    ) -> Reply {
        let mut changed = self.rooms.state.changed();
        loop {
            match outcome.borrow_and_update().clone() {
                Outcome::Captured => return Reply::Captured,
                Outcome::Failed { reason, is_final: true } => return Reply::refused(reason),
                Outcome::Failed { reason, is_final: false } => *last = reason,
                Outcome::Pending => {}
            }
            if !self.is_wanted(uid) {
                return Reply::NotEnrolled;
            }
            tokio::select! {
                seen = outcome.changed() => if seen.is_err() {
                    return Reply::refused("its sandbox was deleted or replaced meanwhile");
                },
                _ = changed.changed() => {}
            }
        }
    }

    /// Returns when nothing of the sandbox is captured any more.
    async fn del(&self, request: &Request, fd: Option<OwnedFd>) -> Reply {
        let uid = WorkloadUid::from(request.uid.as_str());
        if let Some(heard) =
            self.rooms.announced.depart(uid, &request.sandbox, netns_of(fd).await.map(|netns| netns.cookie()))
            && timeout(self.rooms.config.limits.cni_capture_wait, heard).await.is_err()
        {
            tracing::warn!(uid = request.uid, "a deleted pod is not let go in time");
        }
        Reply::Done
    }

    async fn check(&self, request: &Request, fd: Option<OwnedFd>) -> Reply {
        let uid = WorkloadUid::from(request.uid.as_str());
        if !self.is_wanted(&uid) {
            return Reply::NotEnrolled;
        }
        let netns = netns_of(fd).await;
        match self.pods.find(&uid) {
            Some(pod) if netns.as_ref() == Some(pod.netns()) => Reply::Captured,
            _ => Reply::refused("the kernel does not capture for this network namespace"),
        }
    }
}

async fn netns_of(fd: Option<OwnedFd>) -> Option<Netns> {
    let fd = fd?;
    spawn_blocking(move || Netns::from_fd(fd).ok()).await.ok().flatten()
}

/// What came with a request, if it can be a pod's: a network namespace, not the host's, with the addresses that are said.
fn look_at(fd: Option<OwnedFd>, ips: Vec<IpAddr>) -> Result<Given, String> {
    let failed = |what| move |error| format!("{what}: {error}");
    let fd = fd.ok_or("no network namespace came with the request")?;
    let netns = Netns::from_fd(fd).map_err(failed("its network namespace"))?;
    if netns.is_host().map_err(failed("comparing its network namespace with the host's"))? {
        return Err("its network namespace is the host's own".into());
    }
    let held =
        sys::local_addresses(&netns).map_err(failed("reading the addresses of its network namespace"))?;
    let ours: Vec<_> = ips.iter().copied().filter(|ip| held.contains(ip)).collect();
    if ours.is_empty() {
        return Err(format!("its network namespace holds {held:?}, none of {ips:?}"));
    }
    Ok(Given { netns, ips: ours })
}
