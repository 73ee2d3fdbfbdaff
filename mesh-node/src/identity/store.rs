//! The certificates of the local workloads: who has one, who waits for one.
//!
//! Invariants: reading is lock-free; each wanted subject has exactly one task that fetches and refreshes (single flight), and it ends
//! when the subject is no longer wanted; at most `sign_concurrency` requests are under way, connections that wait come first.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_model::identity::Identity;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use super::{
    issued::{Facts, Issued},
    refresh,
    signer::{Signer, Subject},
    trust::Roots,
};
use crate::{clock::Clock, config::Limits, telemetry::Counter};

/// Certificates of the local workloads, kept fresh. Cheap to clone.
#[derive(Clone)]
pub struct Certificates {
    shared: Arc<Shared>,
}

/// What a store is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who signs.
    pub signer: Arc<dyn Signer>,
    /// What time it is.
    pub clock: Clock,
    /// Time-outs and bounds of signing.
    pub limits: Limits,
    /// Counts certificates that came and were good.
    pub issued: Counter,
    /// Counts requests that failed or whose answer was not good.
    pub failed: Counter,
}

/// Why there is no certificate to be had now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoCertificate {
    /// Nobody asked for it: the workload is not (or no longer) one of ours.
    #[error("{0} is not an identity of a captured workload of this node")]
    NotOurs(String),
    /// It did not come in time.
    #[error("no certificate for {identity} within {waited:?}: {last_error}")]
    Waited {
        /// Whose.
        identity: String,
        /// How long.
        waited: Duration,
        /// What the last attempt said.
        last_error: String,
    },
}

/// One certificate, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its SPIFFE id.
    pub uri: String,
    /// Hexadecimal; empty without a certificate.
    pub serial: String,
    /// From when.
    pub not_before: Option<SystemTime>,
    /// Until when.
    pub not_after: Option<SystemTime>,
    /// Leaf first; empty without a certificate.
    pub chain_subjects: Vec<String>,
    /// Whether it can be used now.
    pub is_usable: bool,
    /// What the last attempt said, if it failed.
    pub last_error: Option<String>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) roots: Roots,
    /// Every request.
    pub(super) requests: Semaphore,
    /// Requests that nobody waits for: fewer, so that a waiting connection always finds a place soon.
    pub(super) prefetches: Semaphore,
    entries: ArcSwap<HashMap<Subject, Arc<Entry>>>,
    wanted: Mutex<Wanted>,
    runtime: Handle,
}

#[derive(Default)]
struct Wanted {
    workloads: BTreeSet<Identity>,
    node_server: Option<String>,
}

struct Entry {
    slot: Arc<Slot>,
    task: AbortHandle,
}

/// One subject's place.
pub(super) struct Slot {
    pub(super) subject: Subject,
    current: ArcSwapOption<Issued>,
    changes: watch::Sender<u64>,
    waiting: watch::Sender<usize>,
    last_error: Mutex<Option<String>>,
}

impl Certificates {
    /// An empty store; its tasks run on the current tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let concurrency = settings.limits.sign_concurrency.max(1);
        let shared = Shared {
            requests: Semaphore::new(concurrency),
            prefetches: Semaphore::new(concurrency.saturating_sub(2).max(1)),
            settings,
            roots: Roots::default(),
            entries: ArcSwap::default(),
            wanted: Mutex::default(),
            runtime: Handle::current(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says which identities the local captured workloads have: those are fetched ahead, all others are forgotten.
    pub fn want(&self, identities: BTreeSet<Identity>) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.workloads = identities;
        self.settle(&wanted);
    }

    /// Asks for the certificate of this node's inspection server, by its SPIFFE id.
    pub fn want_node_server(&self, uri: String) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.node_server = Some(uri);
        self.settle(&wanted);
    }

    /// TLS settings for dialling as `identity`. At once when the certificate is there, else after at most `wait`.
    ///
    /// The peer's chain is verified in the handshake; who it is, [`super::verify_peer`] says afterwards.
    pub async fn client(
        &self,
        identity: &Identity,
        wait: Duration,
    ) -> Result<Arc<rustls::ClientConfig>, NoCertificate> {
        Ok(self.issued(Subject::Workload(identity.clone()), wait).await?.client.clone())
    }

    /// TLS settings for accepting as `identity`; the peer must show a certificate that chains to the mesh's roots.
    pub async fn server(
        &self,
        identity: &Identity,
        wait: Duration,
    ) -> Result<Arc<rustls::ServerConfig>, NoCertificate> {
        Ok(self.issued(Subject::Workload(identity.clone()), wait).await?.server.clone())
    }

    /// TLS settings of the inspection server; the client shows no certificate.
    pub async fn node_server(
        &self,
        uri: &str,
        wait: Duration,
    ) -> Result<Arc<rustls::ServerConfig>, NoCertificate> {
        Ok(self.issued(Subject::NodeServer(uri.to_owned()), wait).await?.server.clone())
    }

    /// The roots of the mesh, as the last signing brought them.
    pub fn roots(&self) -> &Roots {
        &self.shared.roots
    }

    /// All wanted certificates, by name.
    pub fn statuses(&self) -> Vec<Status> {
        let now = self.shared.settings.clock.now();
        let mut statuses: Vec<Status> =
            self.shared.entries.load().values().map(|entry| entry.slot.status(now)).collect();
        statuses.sort_by(|a, b| a.uri.cmp(&b.uri));
        statuses
    }

    /// Makes entries and tasks equal to what is wanted.
    fn settle(&self, wanted: &Wanted) {
        let workloads = wanted.workloads.iter().cloned().map(Subject::Workload);
        let subjects = workloads.chain(wanted.node_server.clone().map(Subject::NodeServer));
        let current = self.shared.entries.load_full();
        if subjects.clone().all(|subject| current.contains_key(&subject))
            && subjects.clone().count() == current.len()
        {
            return;
        }
        let next: HashMap<Subject, Arc<Entry>> = subjects
            .map(|subject| {
                let entry = current.get(&subject).cloned().unwrap_or_else(|| self.start(subject.clone()));
                (subject, entry)
            })
            .collect();
        self.shared.entries.store(Arc::new(next));
    }

    fn start(&self, subject: Subject) -> Arc<Entry> {
        let slot = Arc::new(Slot::new(subject));
        let task = self.shared.runtime.spawn(refresh::keep_fresh(self.shared.clone(), slot.clone()));
        Arc::new(Entry { slot, task: task.abort_handle() })
    }

    async fn issued(&self, subject: Subject, wait: Duration) -> Result<Arc<Issued>, NoCertificate> {
        let slot = match self.shared.entries.load().get(&subject) {
            Some(entry) => entry.slot.clone(),
            None => return Err(NoCertificate::NotOurs(subject.uri())),
        };
        let clock = &self.shared.settings.clock;
        if let Some(issued) = slot.usable(clock.now()) {
            return Ok(issued);
        }
        let mut changes = slot.changes.subscribe();
        let _waiting = Waiting::new(&slot);
        let arrival = async {
            loop {
                if let Some(issued) = slot.usable(clock.now()) {
                    return issued;
                }
                if changes.changed().await.is_err() {
                    // The slot is gone with its workload; the time-out ends the wait.
                    std::future::pending::<()>().await;
                }
            }
        };
        let arrived = tokio::time::timeout(wait, arrival).await;
        arrived.map_err(|_elapsed| NoCertificate::Waited {
            identity: slot.subject.uri(),
            waited: wait,
            last_error: slot.last_error().unwrap_or_else(|| "the controller has not answered yet".to_owned()),
        })
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.shared.entries.load().len())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Slot {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
            last_error: Mutex::default(),
        }
    }

    fn usable(&self, now: SystemTime) -> Option<Arc<Issued>> {
        self.current.load_full().filter(|issued| issued.is_usable(now))
    }

    /// Puts a new certificate in place of the old one and wakes who waits.
    pub(super) fn put(&self, issued: Issued) {
        self.current.store(Some(Arc::new(issued)));
        self.note(None);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Keeps what the last attempt said, for people.
    pub(super) fn note(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the current certificate ends.
    pub(super) fn not_after(&self) -> Option<SystemTime> {
        self.current.load().as_ref().map(|issued| issued.facts.not_after)
    }

    /// Returns once a connection waits for this certificate; at once if one does already.
    pub(super) async fn awaited(&self) {
        let mut waiting = self.waiting.subscribe();
        if waiting.wait_for(|count| *count > 0).await.is_err() {
            // The sender lives in this slot.
            std::future::pending::<()>().await;
        }
    }

    fn status(&self, now: SystemTime) -> Status {
        let issued = self.current.load_full();
        let facts: Option<&Facts> = issued.as_deref().map(|issued| &issued.facts);
        Status {
            uri: self.subject.uri(),
            serial: facts.map(|facts| facts.serial.clone()).unwrap_or_default(),
            not_before: facts.map(|facts| facts.not_before),
            not_after: facts.map(|facts| facts.not_after),
            chain_subjects: facts.map(|facts| facts.chain_subjects.clone()).unwrap_or_default(),
            is_usable: issued.as_deref().is_some_and(|issued| issued.is_usable(now)),
            last_error: self.last_error(),
        }
    }
}

/// A connection that waits; its drop says that it does no more.
struct Waiting<'a>(&'a Slot);

impl<'a> Waiting<'a> {
    fn new(slot: &'a Slot) -> Self {
        slot.waiting.send_modify(|count| *count += 1);
        Self(slot)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|count| *count = count.saturating_sub(1));
    }
}
