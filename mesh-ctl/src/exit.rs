//! Exit codes and errors as people and scripts read them (DESIGN §6): one place, so that a code means one thing.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::print::{self, Output};

/// The answer is negative: denied, unhealthy, no route.
pub const NEGATIVE: u8 = 2;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// A file or an argument could not be read.
pub const BAD_INPUT: u8 = 65;
/// The controller or a node cannot be reached.
pub const UNREACHABLE: u8 = 69;
/// The caller may not ask this.
pub const FORBIDDEN: u8 = 77;
/// Findings.
pub const FINDINGS: u8 = 79;
/// The deadline passed.
pub const TIMEOUT: u8 = 124;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed, and what to do next.
#[derive(Debug, Serialize)]
pub struct Failure {
    code: u8,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Failure {
    fn new(code: u8, error: impl Into<String>) -> Self {
        Self { code, error: error.into(), hint: None }
    }

    /// Exit code 1.
    pub fn runtime(error: impl Into<String>) -> Self {
        Self::new(1, error)
    }

    /// Exit code 65.
    pub fn bad_input(error: impl Into<String>) -> Self {
        Self::new(BAD_INPUT, error)
    }

    /// Exit code 64.
    pub fn usage(error: impl Into<String>) -> Self {
        Self::new(USAGE, error)
    }

    /// Exit code 69.
    pub fn unreachable(error: impl Into<String>) -> Self {
        Self::new(UNREACHABLE, error)
    }

    /// Exit code 124.
    pub fn timeout(after: Duration) -> Self {
        Self::new(TIMEOUT, format!("no answer within {after:?}")).hint("raise it with --timeout")
    }

    /// Exit code 130.
    pub fn interrupted() -> Self {
        Self::new(INTERRUPTED, "interrupted")
    }

    /// Exit code 124, with what was still awaited.
    pub fn too_late(error: impl Into<String>) -> Self {
        Self::new(TIMEOUT, error)
    }

    /// What to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An answer of the Kubernetes API, or none, as an exit code.
    pub fn from_kube(what: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let text = format!("{what}: {}", status.message);
                match status.code {
                    401 | 403 => Self::new(FORBIDDEN, text)
                        .hint("the kubeconfig's user lacks this permission: ask a cluster administrator"),
                    504 => Self::new(TIMEOUT, text),
                    _ => Self::new(1, text),
                }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::UpgradeConnection(_) => {
                Self::new(UNREACHABLE, format!("{what}: {}", deepest(error)))
                    .hint("is the cluster running, and is the kubeconfig's server its address?")
            }
            _ => Self::new(1, format!("{what}: {}", deepest(error))),
        }
    }

    /// A gRPC status as an exit code.
    pub fn from_status(what: &str, status: &tonic::Status) -> Self {
        let text = format!("{what}: {}", status.message());
        match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Self::new(FORBIDDEN, text)
                .hint("without a cluster, give the admin token with --token-file or --state"),
            tonic::Code::Unavailable => Self::new(UNREACHABLE, text)
                .hint("is mesh-controller running, and is --controller its address?"),
            tonic::Code::DeadlineExceeded => Self::new(TIMEOUT, text),
            tonic::Code::InvalidArgument | tonic::Code::NotFound => Self::new(BAD_INPUT, text),
            _ => Self::new(1, text),
        }
    }

    /// Prints to standard error, as JSON when JSON was asked for, and gives the exit code.
    pub fn report(&self, output: Output) -> ExitCode {
        let mut text = String::new();
        if output == Output::Json {
            text = serde_json::to_string(self).unwrap_or_else(|_| self.error.clone());
        } else {
            let _ = write!(text, "error: {}", self.error);
            if let Some(hint) = &self.hint {
                let _ = write!(text, "\nhint: {hint}");
            }
        }
        print::stderr(&text);
        ExitCode::from(self.code)
    }
}

/// Runs work, but not beyond `patience`, and not beyond Ctrl-C or SIGTERM (which is how Kubernetes ends a hook's pod).
pub async fn bounded<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Failure::runtime(format!("cannot listen for SIGTERM: {error}")))?;
    tokio::select! {
        result = timeout(patience, work) => result.unwrap_or_else(|_| Err(Failure::timeout(patience))),
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        _ = terminate.recv() => Err(Failure::interrupted()),
    }
}

/// Libraries say "service error" or "transport error"; the reason is at the bottom of the chain.
pub fn deepest(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

/// What clap found wrong (64), or the help that was asked for (0).
pub fn usage(error: &clap::Error) -> ExitCode {
    let asked = !error.use_stderr();
    if error.print().is_err() {
        return ExitCode::from(1);
    }
    if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
}
