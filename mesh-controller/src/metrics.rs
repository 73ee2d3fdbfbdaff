//! The controller's own metrics, `mesh_controller_*`.
//!
//! Invariant: no label carries a name that people choose, except the node's, whose number is bounded by Node objects.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// What came of a signing request: `signed`, or the check that refused it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct SignLabels {
    /// The word.
    pub result: &'static str,
}

/// Why a caller was not served.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A word.
    pub reason: &'static str,
}

/// What came of a write.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ResultLabels {
    /// `written`, `gone`, `failed`.
    pub result: &'static str,
}

/// A severity of findings.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct SeverityLabels {
    /// `info`, `warning`, `error`.
    pub severity: &'static str,
}

/// A stage of the enrolment hand-shake.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct StageLabels {
    /// `capturing`, `captured`, `withdrawing`, `releasing`.
    pub stage: &'static str,
}

/// Why a stream ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct EndLabels {
    /// A word.
    pub reason: &'static str,
}

/// Every metric; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Nodes with a stream.
    pub connected_nodes: Gauge,
    /// The number of the published picture.
    pub generation: Gauge,
    /// Resources in it.
    pub resources: Gauge,
    /// Compilations, in seconds.
    pub compile_seconds: Histogram,
    /// From a delta's sending to its acknowledgement, in seconds.
    pub acknowledge_seconds: Histogram,
    /// Deltas sent.
    pub deltas: Counter,
    /// Resources that nodes refused.
    pub refused_resources: Counter,
    /// Streams that ended.
    pub stream_ends: Family<EndLabels, Counter>,
    /// Callers with a bad token, or one that could not be checked.
    pub unauthenticated: Family<ReasonLabels, Counter>,
    /// Signing requests.
    pub sign: Family<SignLabels, Counter>,
    /// Findings of the last compilation.
    pub diagnostics: Family<SeverityLabels, Gauge>,
    /// Workloads by stage.
    pub enrolment: Family<StageLabels, Gauge>,
    /// TLS connections refused or failed before a request.
    pub tls_failures: Counter,
    /// Times that the source could not be read.
    pub source_failures: Counter,
    /// Since when the source cannot be read, as Unix time; 0 while it can.
    pub source_unreadable_since: Gauge,
    /// Times that the state could not be written.
    pub state_failures: Counter,
    /// Statuses and conditions of objects.
    pub status_writes: Family<ResultLabels, Counter>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("mesh_controller");
        let seconds =
            [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let mut metrics = Self {
            registry: Arc::default(),
            connected_nodes: Gauge::default(),
            generation: Gauge::default(),
            resources: Gauge::default(),
            compile_seconds: Histogram::new(seconds),
            acknowledge_seconds: Histogram::new(seconds),
            deltas: Counter::default(),
            refused_resources: Counter::default(),
            stream_ends: Family::default(),
            unauthenticated: Family::default(),
            sign: Family::default(),
            diagnostics: Family::default(),
            enrolment: Family::default(),
            tls_failures: Counter::default(),
            source_failures: Counter::default(),
            source_unreadable_since: Gauge::default(),
            state_failures: Counter::default(),
            status_writes: Family::default(),
        };
        metrics.register(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This controller", build);
        registry.register("connected_nodes", "Nodes with a stream", self.connected_nodes.clone());
        registry.register("generation", "Number of the published picture", self.generation.clone());
        registry.register("resources", "Resources in the published picture", self.resources.clone());
        registry.register_with_unit(
            "compile",
            "Time to compile everything",
            Unit::Seconds,
            self.compile_seconds.clone(),
        );
        registry.register_with_unit(
            "acknowledge",
            "From a delta's sending to its acknowledgement",
            Unit::Seconds,
            self.acknowledge_seconds.clone(),
        );
        registry.register("deltas", "Deltas sent", self.deltas.clone());
        registry.register(
            "refused_resources",
            "Resources that nodes refused",
            self.refused_resources.clone(),
        );
        registry.register("stream_ends", "Node streams that ended, by reason", self.stream_ends.clone());
        let unauthenticated = self.unauthenticated.clone();
        registry.register("unauthenticated", "Calls without a valid token, by reason", unauthenticated);
        registry.register("sign_requests", "Signing requests, by result", self.sign.clone());
        registry.register("diagnostics", "Findings of the last compilation", self.diagnostics.clone());
        registry.register("enrolment", "Workloads in the mesh, by stage", self.enrolment.clone());
        registry.register(
            "tls_failures",
            "Connections that failed before a request",
            self.tls_failures.clone(),
        );
        registry.register("source_failures", "Times the source was unreadable", self.source_failures.clone());
        registry.register_with_unit(
            "source_unreadable_since_timestamp",
            "Since when the source cannot be read, as Unix time; 0 while it can",
            Unit::Seconds,
            self.source_unreadable_since.clone(),
        );
        registry.register(
            "state_failures",
            "Times the state could not be written",
            self.state_failures.clone(),
        );
        let status_writes = self.status_writes.clone();
        registry.register("status_writes", "Statuses written to objects, by result", status_writes);
    }

    /// Since when the source cannot be read; None: it can.
    pub fn source_away(&self, since: Option<time::OffsetDateTime>) {
        self.source_unreadable_since.set(since.map_or(0, time::OffsetDateTime::unix_timestamp));
    }

    /// The OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
