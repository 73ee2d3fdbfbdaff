//! The loop: wanted against actual.

mod letting_go;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_model::{name::WorkloadUid, snapshot::Snapshot, workload::Enrolment};
use mesh_proto::v1::{CaptureState, WorkloadStatus};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    LocalPod,
    announced::Outcome,
    captured::{Captured, Draining},
    enrol::{self, EnrolError, Enrolled, Home, Wanted},
    locate::{Locator, Sighting},
    older,
    orphan::Orphans,
};
use crate::{
    app::Rooms,
    conns::Cut,
    phase::Stage,
    sys::Process,
    worker::{Listen, Workers},
};

/// Between two looks when nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks while something is awaited.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// First and longest pause after a failed enrolment.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Between two sweeps of the kernel's maps.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A pod that could not be captured.
struct Failed {
    wanted: Wanted,
    reason: String,
    refused: bool,
    retry_at: Instant,
    pause: Duration,
}

struct Reconciler {
    rooms: Rooms,
    workers: Workers,
    captured: HashMap<WorkloadUid, Captured>,
    draining: Vec<Draining>,
    orphans: Orphans,
    failed: HashMap<WorkloadUid, Failed>,
    locator: Locator,
    reported: Option<(u64, Vec<WorkloadStatus>)>,
    swept_at: Instant,
    older_looked_at: Instant,
    settled_once: bool,
}

/// Runs until the process stops. What is captured then stays captured in the kernel: a crash and an upgrade fail closed.
pub async fn run(rooms: Rooms, workers: Workers) {
    let mut changed = rooms.state.changed();
    let phase = rooms.phase.clone();
    let announced = rooms.announced.clone();
    let mut reconciler = Reconciler {
        rooms,
        workers,
        captured: HashMap::new(),
        draining: Vec::new(),
        orphans: Orphans::default(),
        failed: HashMap::new(),
        locator: Locator::new(),
        reported: None,
        swept_at: Instant::now(),
        older_looked_at: Instant::now(),
        settled_once: false,
    };
    loop {
        let pause = reconciler.look().await;
        tokio::select! {
            () = phase.reached(Stage::Draining) => return,
            () = sleep(pause) => {}
            () = announced.wakened() => {}
            seen = changed.changed() => if seen.is_err() { return },
        }
    }
}

impl Reconciler {
    /// One comparison; says after how long the next is due.
    async fn look(&mut self) -> Duration {
        self.end_departed();
        let complete = self.rooms.state.is_complete();
        let snapshot = self.rooms.state.snapshot();
        let node = &self.rooms.config.node;
        let fail_open = self.rooms.config.fail_open;
        let wanted: BTreeMap<WorkloadUid, Wanted> = snapshot
            .workloads()
            .filter(|workload| workload.node == *node && workload.enrolment == Enrolment::Yes)
            .map(|workload| {
                let given = self.rooms.announced.find(&workload.uid);
                (workload.uid.clone(), Wanted::of(workload, given, fail_open))
            })
            .collect();

        let identities: BTreeSet<_> = wanted.values().map(|wanted| wanted.identity.clone()).collect();
        let draining = self.draining.iter().map(|draining| draining.captured.wanted.identity.clone());
        self.rooms.certificates.want(identities.into_iter().chain(draining).collect());

        let sighting = self.locator.look(self.to_be_located(&wanted)).await;
        self.end_gone(&snapshot, complete, &sighting);
        if complete {
            self.rooms.announced.forget_unknown(|uid| snapshot.workload(uid).is_some());
            self.release_unwanted(&wanted).await;
            self.release_orphans(&snapshot, &wanted);
            self.forget_unwanted(&wanted, &snapshot);
        }
        self.end_drained();
        let awaiting = self.capture_wanted(&wanted, &sighting).await;
        self.answer_announced();
        self.look_at_older(&snapshot);
        if complete {
            self.settle();
        }
        self.report(&snapshot, complete);
        self.sweep();
        if awaiting || !self.draining.is_empty() { LOOK_SOON } else { LOOK }
    }

    /// Tells the CNI server what became of the pods that it announced.
    fn answer_announced(&self) {
        self.rooms.announced.answer(|uid, netns| {
            if self.captured.get(uid).is_some_and(|captured| captured.pod.netns() == netns) {
                return Outcome::Captured;
            }
            match self.failed.get(uid) {
                Some(failed) if failed.wanted.home == Home::Given(netns.clone()) => {
                    Outcome::Failed { reason: failed.reason.clone(), is_final: failed.refused }
                }
                _ => Outcome::Pending,
            }
        });
    }

    /// The pods whose processes are to be looked for: those that are to be captured now, and captured ones that may be gone.
    fn to_be_located(&self, wanted: &BTreeMap<WorkloadUid, Wanted>) -> HashSet<WorkloadUid> {
        let new = wanted.iter().filter(|(uid, wanted)| {
            wanted.is_to_be_located() && !self.captured.contains_key(*uid) && !self.is_put_off(uid)
        });
        let all = self.captured.values().chain(self.draining.iter().map(|draining| &draining.captured));
        let doubtful = all.filter(|captured| captured.is_doubtful()).map(|captured| &captured.wanted.uid);
        new.map(|(uid, _)| uid).chain(doubtful).chain(self.orphans.doubtful()).cloned().collect()
    }

    fn is_put_off(&self, uid: &WorkloadUid) -> bool {
        self.failed.get(uid).is_some_and(|failed| failed.retry_at > Instant::now())
    }

    /// Captures what is wanted and is not captured as wanted. Says whether something is to be tried again soon.
    async fn capture_wanted(&mut self, all: &BTreeMap<WorkloadUid, Wanted>, sighting: &Sighting) -> bool {
        self.failed.retain(|uid, failed| all.get(uid) == Some(&failed.wanted));
        let mut awaiting = false;
        for (uid, wanted) in all {
            if let Some(captured) = self.captured.get(uid) {
                if captured.wanted != *wanted {
                    awaiting |= self.change(uid, wanted);
                }
                continue;
            }
            if self.is_put_off(uid) {
                awaiting |= self.failed.get(uid).is_some_and(|failed| failed.pause <= LOOK);
                continue;
            }
            if wanted.is_to_be_located() && !sighting.includes(uid) {
                awaiting = true;
                continue;
            }
            match self.capture(wanted, sighting.processes(uid)).await {
                Ok(captured) => {
                    tracing::info!(pod = %uid, identity = %wanted.identity, "captured");
                    self.failed.remove(uid);
                    let mut former = self.orphans.take_of(|orphan| orphan == uid);
                    former.retain(|place| place.cookie() != captured.pod.captured.cookie());
                    self.unenroll(former, "the pod has another sandbox");
                    self.captured.insert(uid.clone(), captured);
                    self.publish();
                }
                Err(failure) => {
                    awaiting = true;
                    self.note(wanted, failure);
                }
            }
        }
        awaiting
    }

    async fn capture(&self, wanted: &Wanted, processes: &[Process]) -> Result<Captured, Failure> {
        if wanted.awaits_its_network() {
            return Err(Failure::Enrol(EnrolError::NoAddress));
        }
        self.await_certificate(wanted).await?;
        let hooks = self.rooms.hooks.clone();
        let (order, processes) = (wanted.clone(), processes.to_vec());
        let enrolled = tokio::task::spawn_blocking(move || enrol::enrol(&hooks, &order, &processes)).await;
        let Enrolled { captured, listeners, on_bridge, older, holder } = match enrolled {
            Ok(Ok(enrolled)) => enrolled,
            Ok(Err(error)) => return Err(Failure::Enrol(error)),
            Err(error) => return Err(Failure::Broke(error.to_string())),
        };
        let budget = self.rooms.config.limits.connections_per_workload;
        let pod = LocalPod::new(wanted.uid.clone(), wanted.identity.clone(), captured, on_bridge, budget);
        let captured = Captured {
            wanted: wanted.clone(),
            pod: Arc::new(pod),
            listeners,
            stop: CancellationToken::new(),
            older,
            holder,
        };
        for (door, listener) in enrol::doors(&captured.listeners) {
            let listener =
                listener.try_clone().map_err(|error| Failure::Enrol(EnrolError::Listeners(error)))?;
            let (pod, stop) = (captured.pod.clone(), captured.stop.clone());
            self.workers.listen(Listen { listener, door, pod, stop });
        }
        Ok(captured)
    }

    /// A running pod is captured only once its certificate is there, or its calls would fail for want of it. One that the kernel
    /// captures already (a previous life did it) is refused all along: it is served at once. In one that the CNI plugin gave
    /// nothing runs yet that could call.
    async fn await_certificate(&self, wanted: &Wanted) -> Result<(), Failure> {
        if matches!(wanted.home, Home::Given(_)) {
            return Ok(());
        }
        if self.rooms.hooks.adopted().iter().any(|adopted| wanted.has_any_ip(&adopted.ips)) {
            return Ok(());
        }
        match self.rooms.certificates.server(&wanted.identity, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Certificate(error.to_string())),
        }
    }

    /// Other exclusions or addresses for a pod that is captured. Another namespace or identity is seen as a pod that is gone, and
    /// says so: the new one is to be captured soon.
    fn change(&mut self, uid: &WorkloadUid, wanted: &Wanted) -> bool {
        let Some(captured) = self.captured.get_mut(uid) else { return false };
        if wanted.replaces(&captured.wanted, captured.pod.netns()) {
            if let Some(captured) = self.captured.remove(uid) {
                self.publish();
                if let Err(error) = self.rooms.hooks.unenroll(&captured.pod.captured) {
                    tracing::warn!(pod = %uid, %error, "the hooks of a pod that was replaced remain");
                }
                self.end(captured, &Cut::PodGone);
            }
            return true;
        }
        let (before, after) = (captured.wanted.ips(), wanted.ips());
        if before != after {
            tracing::warn!(pod = %uid, ?before, ?after, "the pod's addresses are others than it was captured with");
        }
        match enrol::change(&self.rooms.hooks, wanted, captured.pod.netns().clone(), &captured.listeners) {
            Ok(_same_place) => captured.wanted = wanted.clone(),
            Err(error) => tracing::warn!(pod = %uid, %error, "the pod's exclusions cannot be changed"),
        }
        false
    }

    fn note(&mut self, wanted: &Wanted, failure: Failure) {
        // A certificate that does not come is its own room's to warn of.
        let passing = match &failure {
            Failure::Certificate(_) => true,
            Failure::Enrol(error) => error.is_passing(),
            Failure::Broke(_) => false,
        };
        let (reason, refused, soon) = match failure {
            Failure::Certificate(reason) => (reason, false, true),
            Failure::Enrol(error) => (error.to_string(), error.is_refusal(), false),
            Failure::Broke(reason) => (reason, false, false),
        };
        let before = self.failed.get(&wanted.uid);
        if before.is_none_or(|before| before.reason != reason) {
            if passing {
                tracing::info!(pod = %wanted.uid, %reason, "not captured yet");
            } else {
                tracing::warn!(pod = %wanted.uid, %reason, "not captured");
            }
        }
        let pause = match before {
            _ if soon => LOOK_SOON,
            Some(before) => (before.pause * 2).clamp(BACKOFF.0, BACKOFF.1),
            None => BACKOFF.0,
        };
        let retry_at = Instant::now() + pause;
        self.failed
            .insert(wanted.uid.clone(), Failed { wanted: wanted.clone(), reason, refused, retry_at, pause });
    }

    fn look_at_older(&mut self, snapshot: &Snapshot) {
        if self.older_looked_at.elapsed() < LOOK {
            return;
        }
        self.older_looked_at = Instant::now();
        for (uid, captured) in &mut self.captured {
            let Some(workload) = snapshot.workload(uid) else { continue };
            let ended = older::look(captured.pod.netns(), snapshot, workload, &mut captured.older);
            if ended > 0 {
                tracing::info!(pod = %uid, ended, "connections older than the enrolment ended: not allowed");
            }
        }
    }

    /// Once everything that was wanted at the start has been tried, hooks of another ABI may go.
    fn settle(&mut self) {
        if self.settled_once {
            return;
        }
        self.settled_once = true;
        match self.rooms.hooks.retire_previous() {
            Ok(0) => {}
            Ok(retired) => tracing::info!(retired, "hooks of a previous build were retired"),
            Err(error) => tracing::warn!(%error, "hooks of a previous build remain"),
        }
    }

    fn publish(&self) {
        let pods = self.captured.iter().map(|(uid, captured)| (uid.clone(), captured.pod.clone()));
        self.workers.pods().replace(pods.collect());
    }

    fn report(&mut self, snapshot: &Snapshot, complete: bool) {
        if !complete {
            return;
        }
        let status =
            |uid: &WorkloadUid, state: CaptureState, reason: &str, uncaptured: usize| WorkloadStatus {
                uid: uid.as_str().to_owned(),
                state: state.into(),
                reason: reason.to_owned(),
                uncaptured_connections: uncaptured as u64,
            };
        let unprobed = self.rooms.kubelet_missing.notice().unwrap_or_default();
        let captured = self.captured.iter().map(|(uid, captured)| {
            let notice = if captured.wanted.is_probed() { unprobed } else { "" };
            status(uid, CaptureState::Captured, notice, captured.older.len())
        });
        let mut all: Vec<_> = captured.collect();
        all.extend(self.failed.iter().map(|(uid, failed)| {
            let state = if failed.refused { CaptureState::Refused } else { CaptureState::NotCaptured };
            status(uid, state, &failed.reason, 0)
        }));
        all.sort_by(|one, other| one.uid.cmp(&other.uid));
        let truth = (snapshot.generation(), all);
        if self.reported.as_ref() != Some(&truth) {
            self.rooms.reporter.report(truth.0, truth.1.clone());
            self.reported = Some(truth);
        }
    }

    fn sweep(&mut self) {
        if self.swept_at.elapsed() >= SWEEP_EVERY {
            self.swept_at = Instant::now();
            self.rooms.hooks.sweep();
        }
    }
}

/// Why a pod is not captured now.
enum Failure {
    Certificate(String),
    Enrol(EnrolError),
    Broke(String),
}
