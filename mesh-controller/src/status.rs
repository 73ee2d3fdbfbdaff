//! Tells objects of the API what the mesh made of them: a condition of each pod, the status of each route.
//!
//! Invariant: it is behind the publisher and never before it. What is told is the latest there is to say, only where it differs from
//! what the object says already, at a bounded pace; a call that fails is made again later, and nobody waits for it.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{Metrics, ResultLabels},
    publish::Statuses,
};

mod pods;
mod routes;

use pods::Pods;
use routes::Routes;

/// Between two writes: at most fifty in a second.
const PACE: Duration = Duration::from_millis(20);
/// For one call.
const CALL: Duration = Duration::from_secs(5);
/// Failures after which a round is given up: the API server is away.
const MAX_FAILURES: usize = 4;
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Writes statuses.
pub struct StatusWriter {
    /// The way to the API server.
    pub client: Client,
    /// What is to be said.
    pub statuses: watch::Receiver<Option<Arc<Statuses>>>,
    /// Told on when everything else has been said.
    pub left: watch::Sender<bool>,
    /// Where writes are counted.
    pub metrics: Metrics,
}

/// What came of one write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    /// The object says it.
    Yes,
    /// It said so already.
    Same,
    /// The object is gone, or another one has its name.
    Gone,
}

/// How a round of writes ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    /// Every object says what it is to say.
    Complete,
    /// There is something newer to say.
    Outdated,
}

/// The writes of a round that failed.
#[derive(Default)]
struct Failures {
    count: usize,
    last: Option<StatusError>,
}

impl Failures {
    /// None: it failed, and the others may be tried; an error: too many have failed.
    fn note(&mut self, written: Result<Written, StatusError>) -> Result<Option<Written>, StatusError> {
        match written {
            Ok(written) => Ok(Some(written)),
            Err(error) if self.count >= MAX_FAILURES => Err(error),
            Err(error) => {
                self.count += 1;
                self.last = Some(error);
                Ok(None)
            }
        }
    }
}

/// Why something could not be said.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    /// The API server said no.
    #[error("{0}")]
    Call(Box<kube::Error>),
    /// It said nothing.
    #[error("no answer in 5 s")]
    TimeOut,
}

impl StatusWriter {
    /// Until cancelled.
    pub async fn write(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.write_on() => {}
        }
    }

    async fn write_on(&mut self) {
        let mut pods = loop {
            match Pods::read(&self.client).await {
                Ok(pods) => break pods,
                Err(error) => self.failed("reading the conditions of pods", &error).await,
            }
        };
        let mut routes = Routes::new(&self.client);
        loop {
            let statuses = self.statuses.borrow_and_update().clone();
            if let Some(statuses) = statuses {
                let all = self.write_all(&statuses, &mut pods, &mut routes).await;
                // Whoever uninstalls is not kept waiting by a condition that cannot be written.
                if !matches!(all, Ok(Round::Outdated)) {
                    self.left.send_replace(statuses.left);
                }
                match all {
                    Ok(Round::Complete) => {}
                    Ok(Round::Outdated) => continue,
                    Err(error) => {
                        self.failed("writing a status", &error).await;
                        continue;
                    }
                }
            }
            if self.statuses.changed().await.is_err() {
                return;
            }
        }
    }

    /// One write that fails does not keep the others from being tried.
    async fn write_all(
        &self,
        statuses: &Statuses,
        pods: &mut Pods,
        routes: &mut Routes,
    ) -> Result<Round, StatusError> {
        let mut failures = Failures::default();
        // Routes first: there are few, and people wait for them.
        for route in routes.due(&statuses.routes) {
            let written = routes.write(&route, &statuses.routes).await;
            self.count(failures.note(written)?).await;
            if self.is_outdated() {
                return Ok(Round::Outdated);
            }
        }
        for uid in pods.due(&statuses.pods) {
            let written = pods.write(&uid, statuses.pods.get(&uid)).await;
            self.count(failures.note(written)?).await;
            if self.is_outdated() {
                return Ok(Round::Outdated);
            }
        }
        failures.last.map_or(Ok(Round::Complete), Err)
    }

    fn is_outdated(&self) -> bool {
        self.statuses.has_changed().unwrap_or(true)
    }

    async fn count(&self, written: Option<Written>) {
        let result = match written {
            Some(Written::Yes) => "written",
            Some(Written::Same) => return,
            Some(Written::Gone) => "gone",
            None => "failed",
        };
        self.metrics.status_writes.get_or_create(&ResultLabels { result }).inc();
        sleep(PACE).await;
    }

    async fn failed(&self, what: &str, error: &StatusError) {
        tracing::warn!(%error, "{what}; trying again");
        sleep(RETRY).await;
    }
}

async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, StatusError> {
    match timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|error| StatusError::Call(Box::new(error))),
        Err(_) => Err(StatusError::TimeOut),
    }
}

/// A write to an object that may be gone by now, or that has been replaced by another of its name.
async fn write_call<T>(write: impl Future<Output = kube::Result<T>>) -> Result<Written, StatusError> {
    match call(write).await {
        Ok(_) => Ok(Written::Yes),
        Err(StatusError::Call(error)) if matches!(&*error, kube::Error::Api(status) if status.code == 404) => {
            Ok(Written::Gone)
        }
        Err(error) => Err(error),
    }
}

fn now() -> String {
    use time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}
