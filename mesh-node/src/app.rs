//! Builds each room once, in order, and owns start and stop.

use std::{process::ExitCode, sync::Arc};

use crate::{
    bpf::Hooks,
    config::Config,
    feed::Reporter,
    identity::Certificates,
    phase::Phase,
    state::State,
    telemetry::Telemetry,
};

/// What the data path is given: everything that is built once. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    /// The process settings; `config.limits` bounds everything.
    pub config: Arc<Config>,
    /// The snapshot.
    pub state: State,
    /// Certificates of local workloads.
    pub certificates: Certificates,
    /// Metrics and access log.
    pub telemetry: Telemetry,
    /// The kernel side.
    pub hooks: Arc<Hooks>,
    /// Start and stop.
    pub phase: Phase,
    /// Where captured workloads are reported.
    pub reporter: Reporter,
}

/// The whole program.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
