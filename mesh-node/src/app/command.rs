//! `mesh-node check`, `detach` and `mount-bpffs`: what works without a controller and without a running agent.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;

use crate::{
    bpf::{self, HooksConfig},
    check::{self, Verdict},
    config::{CheckArguments, DetachArguments, MountBpffsArguments, Output},
    sys,
};

/// Findings at which a node cannot work.
const FINDINGS: u8 = 79;

/// Prints what this machine has and lacks.
pub(super) fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let config = HooksConfig {
        bpffs: arguments.bpffs.clone(),
        cgroup: arguments.cgroup.clone(),
        ..HooksConfig::new("check")
    };
    let report = check::run(&config);
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        Output::Text => {
            for finding in &report.findings {
                let verdict = match finding.verdict {
                    Verdict::Good => "ok     ",
                    Verdict::Warning => "warning",
                    Verdict::Bad => "MISSING",
                };
                writeln!(out, "{verdict}  {}: {}", finding.name, finding.detail)?;
            }
        }
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) })
}

/// Mounts bpffs, so that pins outlive the container that makes them.
pub(super) fn mount_bpffs(arguments: &MountBpffsArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.bpffs;
    sys::mount_bpffs(path).with_context(|| format!("mounting bpffs at {}", path.display()))?;
    writeln!(io::stdout(), "bpffs is mounted at {}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Takes hooks off the kernel.
pub(super) fn detach(arguments: &DetachArguments) -> anyhow::Result<ExitCode> {
    let instance = if arguments.all { None } else { arguments.instance.as_deref() };
    let detached = bpf::detach_all(&arguments.bpffs, instance)?;
    let mut out = io::stdout().lock();
    if detached.instances.is_empty() {
        writeln!(out, "nothing of mesh-node was attached")?;
    }
    for instance in &detached.instances {
        writeln!(out, "detached {instance}")?;
    }
    writeln!(out, "{} links detached", detached.links)?;
    Ok(ExitCode::SUCCESS)
}
