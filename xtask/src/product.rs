//! Builds what runs: the kernel side, then the binaries, in the one profile that tests and the demo use, too.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::{ebpf, step};

/// The packages whose binaries make up the product, its applications for tests included.
const PACKAGES: &[&str] = &["mesh-node", "mesh-controller", "mesh-ctl", "mesh-apps"];

/// Everything, in order; the node embeds the kernel side.
pub fn build(repo: &Repo) -> Result<()> {
    ebpf::build(repo, &ebpf::Options::default())?;
    step::quietly("mesh-node, mesh-controller, meshctl, mesh-apps", cargo_build(repo).args(packages()))
}

/// Builds the product and one binary of the package mesh-tests, and becomes that binary.
pub fn build_and_become(repo: &Repo, binary: &str, arguments: &[String]) -> Result<()> {
    build(repo)?;
    step::quietly(binary, cargo_build(repo).args(["--package", "mesh-tests", "--bin", binary]))?;
    let error = Command::new(repo.binary(binary))
        .args(arguments)
        .env(BINARIES_VARIABLE, repo.path("target/release"))
        .exec();
    Err(error).with_context(|| format!("cannot start {}", repo.binary(binary).display()))
}

/// Tells tests and the demo where the binaries are that belong to them.
pub const BINARIES_VARIABLE: &str = "TULLE_BIN";

fn cargo_build(repo: &Repo) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(repo.root()).args(["build", "--release"]);
    command
}

fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().flat_map(|package| ["--package", package])
}
