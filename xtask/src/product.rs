//! Builds what runs: the kernel side, then the binaries, in the one profile that tests and the demo use, too.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::{ebpf, setup, step};

/// Everything, in order, on a machine that may be bare; the node embeds the kernel side.
pub fn build(repo: &Repo) -> Result<()> {
    setup::run(repo)?;
    ebpf::build(repo, &ebpf::Options::default())?;
    // The whole workspace, as for the tests: with `--package` cargo would choose other features for shared dependencies and
    // compile them once more.
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repo.root()).args(["build", "--release", "--workspace", "--bins"]);
    step::quietly("every binary", &mut cargo)
}

/// Builds the product and becomes one of the binaries.
pub fn build_and_become(repo: &Repo, binary: &str, arguments: &[String]) -> Result<()> {
    build(repo)?;
    let error =
        Command::new(repo.binary(binary)).args(arguments).env(BINARIES_VARIABLE, repo.binaries()).exec();
    Err(error).with_context(|| format!("cannot start {}", repo.binary(binary).display()))
}

/// Tells tests and the demo where the binaries are that belong to them.
pub const BINARIES_VARIABLE: &str = "TULLE_BIN";
