//! What happened, for machines and people: Istio's standard metrics, our own, and the access log.
//!
//! Invariants: nothing here ever blocks the data path, what cannot be kept is dropped and counted; a connection or request is
//! counted and logged once per reporter, also when it is cancelled.

mod access_log;
mod cache;
mod histogram;
mod labels;
mod own;
mod record;
mod series;
mod tcp;

use std::{
    fmt,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_model::{mesh::AccessLog, snapshot::Snapshot};
use prometheus_client::registry::Registry;

pub use own::{Counter, Gauge};
pub use record::{ConnectionRecord, Reporter, RequestProtocol, RequestRecord, ResponseFlags, Security};
pub use tcp::TcpOutcome;

use self::{access_log::Sink, cache::Outcome, series::Standard};
use crate::{config::Limits, state::State};

/// How often series of workloads that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Everyone's handle, cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    standard: Arc<Standard>,
    own: own::Own,
    log: Sink,
    log_format: AtomicU8,
    retention: Duration,
}

impl Telemetry {
    /// The access log goes to `log`, on a thread of its own.
    pub fn new(limits: &Limits, log: impl Write + Send + 'static) -> std::io::Result<Self> {
        let own = own::Own::new();
        let refused =
            own.counter("mesh_metric_series_refused", "Events whose labels did not fit under metric_series");
        let dropped =
            own.counter("mesh_access_log_dropped", "Access log lines dropped because they came too fast");
        let standard = Arc::new(Standard::new(limits.metric_series, refused));
        own.collect(standard.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                standard,
                own,
                log: Sink::start(log, limits.access_log_lines, dropped)?,
                log_format: AtomicU8::new(format_number(AccessLog::default())),
                retention: limits.metric_retention,
            }),
        })
    }

    /// Counts an opened TCP connection. What becomes known later goes into [`TcpOutcome::record`].
    pub fn tcp_opened(&self, record: ConnectionRecord) -> TcpOutcome {
        TcpOutcome::open(self.clone(), record)
    }

    /// Counts and logs a finished HTTP request.
    pub fn request(&self, connection: &ConnectionRecord, request: &RequestRecord<'_>) {
        let outcome = Outcome::of_request(connection, request);
        let series = cache::http(&self.shared.standard, connection, outcome);
        series.requests.inc();
        series.duration.observe(u64::try_from(request.duration.as_micros()).unwrap_or(u64::MAX));
        series.request_bytes.observe(request.bytes_received);
        series.response_bytes.observe(request.bytes_sent);
        if let Some(format) = self.log_format() {
            self.shared.log.write(access_log::request_line(format, connection, request));
        }
    }

    /// Registers a counter of our own; `name` without `_total`. Asked twice for one name, it gives the same counter.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.shared.own.counter(name, help)
    }

    /// Registers a gauge of our own. Asked twice for one name, it gives the same gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.shared.own.gauge(name, help)
    }

    /// Lets a room add to the registry what is neither a plain counter nor a plain gauge.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        self.shared.own.register(add);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.shared.own.text()
    }

    /// Follows the snapshots: the access log's setting, and series of workloads that are gone. Runs for ever.
    pub async fn follow(&self, state: &State) {
        let mut changed = state.changed();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.set_access_log(state.snapshot().mesh().access_log);
            tokio::select! {
                changed = changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = sweep.tick() => self.sweep(&state.snapshot(), Instant::now()),
            }
        }
    }

    /// Waits until the access log is written as far as it has come, at most so long. For the end of the process.
    pub fn flush(&self, wait: Duration) {
        self.shared.log.flush(wait);
    }

    /// Sets the access log's format, or none.
    pub fn set_access_log(&self, setting: AccessLog) {
        self.shared.log_format.store(format_number(setting), Ordering::Relaxed);
    }

    /// Forgets the series of workloads that have been gone for `metric_retention`.
    fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        self.shared.standard.sweep(snapshot, now, self.shared.retention);
    }

    fn log_format(&self) -> Option<access_log::Format> {
        match self.shared.log_format.load(Ordering::Relaxed) {
            1 => Some(access_log::Format::Text),
            2 => Some(access_log::Format::Json),
            _ => None,
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

const fn format_number(setting: AccessLog) -> u8 {
    match setting {
        AccessLog::Off => 0,
        AccessLog::Text => 1,
        AccessLog::Json => 2,
    }
}

#[cfg(test)]
mod tests;
