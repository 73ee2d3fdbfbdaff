//! Alive, and ready: each with its reasons.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use crate::{
    cni::Trouble,
    feed::Link,
    identity::Certificates,
    phase::{Phase, Stage},
    state::State,
};

/// The control runtime beats this often.
const BEAT: Duration = Duration::from_secs(1);
/// Without a beat for so long it hangs.
const SILENCE: Duration = Duration::from_secs(15);

/// What readiness is judged by.
#[derive(Clone, Debug)]
pub struct Health {
    /// Start and stop.
    pub phase: Phase,
    /// The snapshot.
    pub state: State,
    /// The control stream.
    pub link: watch::Receiver<Link>,
    /// Certificates of local workloads.
    pub certificates: Certificates,
    /// What is wrong with the CNI plugin's installation.
    pub cni_trouble: Trouble,
    /// Whether the control runtime lives.
    pub heartbeat: Heartbeat,
}

/// The answer of `/readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Readiness {
    /// Whether new connections are served as configured.
    pub ready: bool,
    /// `starting`, `serving`, `draining`, `stopped`.
    pub phase: &'static str,
    /// Why not, if not.
    pub reasons: Vec<String>,
    /// What a person should know although it is ready.
    pub detail: Vec<String>,
    /// The number of the current snapshot.
    pub generation: u64,
}

/// Proof of life of the control runtime.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    started: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A first beat.
    pub fn new() -> Self {
        Self { started: Instant::now(), last_ms: Arc::default() }
    }

    /// Beats for ever.
    pub async fn run(self) {
        loop {
            self.last_ms.store(self.now_ms(), Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Whether the process should be left alone; the error says why not.
    pub fn liveness(&self) -> Result<(), String> {
        let silence = self.heartbeat.silence();
        if silence > SILENCE {
            Err(format!("the control runtime has been silent for {silence:?}"))
        } else {
            Ok(())
        }
    }

    /// Whether new connections are served as configured.
    pub fn readiness(&self) -> Readiness {
        let stage = self.phase.stage();
        let link = self.link.borrow().clone();
        let mut reasons = Vec::new();
        if stage != Stage::Serving {
            reasons.push(format!("the agent is {}", stage.as_str()));
        }
        if !self.state.is_complete() {
            reasons.push("no complete snapshot has arrived from the controller yet".to_owned());
        }
        reasons.extend(self.liveness().err());
        // New pods would start uncaptured, or not at all.
        let trouble = self.cni_trouble.get();
        reasons.extend(trouble.map(|why| format!("the CNI plugin is not installed as it should be: {why}")));
        let mut detail = Vec::new();
        if !link.connected {
            let seconds = link.since.elapsed().as_secs();
            let why = link.last_error.as_deref().unwrap_or("not connected yet");
            detail.push(format!("the controller has been out of reach for {seconds} s: {why}"));
        }
        for status in self.certificates.statuses().into_iter().filter(|status| !status.is_usable) {
            let why = status.last_error.as_deref().unwrap_or("asked for");
            detail.push(format!("no certificate for {}: {why}", status.uri));
        }
        Readiness {
            ready: reasons.is_empty(),
            phase: stage.as_str(),
            reasons,
            detail,
            generation: self.state.snapshot().generation(),
        }
    }
}

impl Readiness {
    /// As served.
    pub fn json(&self) -> String {
        // Texts and numbers only: there is nothing that JSON could not say.
        let mut json = serde_json::to_string(self).unwrap_or_default();
        json.push('\n');
        json
    }
}
