//! What happened, for machines and people: Istio's standard metrics, our own, and the access log.
//!
//! Invariant: nothing here ever blocks the data path; what cannot be kept is dropped and counted.

pub mod record;

pub use record::{
    ConnectionRecord, Reporter, RequestProtocol, RequestRecord, ResponseFlags, Security,
};

/// Everyone's handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {}

/// A counter of our own, `mesh_*_total`.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// A gauge of our own, `mesh_*`.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

/// An open TCP connection that is to be accounted for. Dropped without `finish`, it counts as cancelled.
#[derive(Debug)]
#[must_use = "dropping it says that the connection was cancelled"]
pub struct TcpOutcome {}

impl TcpOutcome {
    /// The record, to fill in what becomes known later (identity of the upstream, its address).
    pub fn record(&mut self) -> &mut ConnectionRecord {
        unimplemented!("skeleton")
    }

    /// Bytes so far, both since the start: `sent` to the caller, `received` from the caller. For long connections.
    pub fn progress(&mut self, sent: u64, received: u64) {
        let _ = (sent, received);
    }

    /// The connection is over. `sent`: bytes of the upstream to the caller; `received`: bytes from the caller (Istio's directions).
    /// `error`: for people, goes into the log line.
    pub fn finish(self, sent: u64, received: u64, flags: ResponseFlags, error: Option<&str>) {
        let _ = (sent, received, flags, error);
    }
}

impl Telemetry {
    /// Counts an opened TCP connection.
    pub fn tcp_opened(&self, record: ConnectionRecord) -> TcpOutcome {
        let _ = record;
        unimplemented!("skeleton")
    }

    /// Counts and logs a finished HTTP request.
    pub fn request(&self, connection: &ConnectionRecord, request: &RequestRecord<'_>) {
        let _ = (connection, request);
    }

    /// Registers a counter of our own; `name` without `_total`. Asked twice for one name, it gives the same counter.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let _ = (name, help);
        Counter::default()
    }

    /// Registers a gauge of our own.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let _ = (name, help);
        Gauge::default()
    }
}
