//! Everything a developer or CI runs: `cargo xtask <verb>`. A match; each verb is a file.
#![allow(clippy::print_stdout, reason = "xtask talks to a person: its results go to stdout")]

mod apt;
#[path = "../../mesh-node/build/digest.rs"]
mod digest;
mod ebpf;
mod repo;
mod setup;
mod step;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::repo::Repo;

/// Builds, tests and shows the mesh.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup                     make a bare Debian machine able to do the rest (root)
  cargo xtask ebpf --disassemble        the kernel side, and its instructions for review";

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing needs; nothing to do takes less than a second
    Setup,
    /// Build the kernel side into target/ebpf/mesh-ebpf.o
    Ebpf(ebpf::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb, &Repo::locate()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, without a stack: the reader wants to know what to do, not where xtask was.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, repo: &Repo) -> Result<()> {
    match verb {
        Verb::Setup => setup::run(repo),
        Verb::Ebpf(options) => ebpf::build(repo, &options),
    }
}
