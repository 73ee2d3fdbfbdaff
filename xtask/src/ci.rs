//! Everything that must hold before a change is taken, as one command; CI runs nothing else.
//!
//! Lints and tests share the release profile, so that build scripts and procedural macros are compiled once.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::repo::Repo;
use crate::report::Tally;
use crate::{ebpf, generate, setup, step, test};

/// Runs all of it, whatever fails on the way, and sums up.
pub fn run(repo: &Repo) -> Result<ExitCode> {
    setup::run(repo)?;
    // First: the node embeds it, and compiled without it the node would be compiled again.
    ebpf::build(repo, &ebpf::Options::default())?;
    let mut tallies = vec![
        fmt(repo)?,
        clippy(repo)?,
        generate::run(repo, &generate::Options { check: true })
            .unwrap_or_else(|error| Tally::broken("generate", format!("{error:#}"))),
    ];
    tallies.extend(test::all(repo));
    Ok(test::conclude(&tallies))
}

/// The workspace, and the kernel side, which stands outside of it.
fn fmt(repo: &Repo) -> Result<Tally> {
    let mut good = true;
    for manifest in ["Cargo.toml", "mesh-ebpf/Cargo.toml"] {
        let mut command = Command::new("cargo");
        command.args(["fmt", "--all", "--check", "--manifest-path"]).arg(repo.path(manifest));
        good &= step::openly("fmt", &mut command)?;
    }
    Ok(Tally::of("fmt", good))
}

fn clippy(repo: &Repo) -> Result<Tally> {
    let mut command = Command::new("cargo");
    command.current_dir(repo.root()).args(["clippy", "--release", "--workspace", "--all-targets"]);
    command.args(["--", "--deny", "warnings"]);
    Ok(Tally::of("clippy", step::openly("clippy", &mut command)?))
}
