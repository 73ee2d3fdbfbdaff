//! Everything a developer or CI runs: `cargo xtask <verb>`. A match; each verb is a file.
#![allow(clippy::print_stdout, reason = "xtask talks to a person: its results go to stdout")]

mod apt;
mod ci;
mod clean;
mod cluster;
mod conformance;
#[path = "../../mesh-node/build/digest.rs"]
mod digest;
mod ebpf;
mod generate;
mod golang;
mod images;
mod kube;
mod libtest;
mod product;
mod repo;
mod report;
mod setup;
mod step;
mod test;
mod tidy;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::repo::Repo;

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup                     make a bare Debian machine able to do the rest (root)
  cargo xtask build                     the whole product
  cargo xtask demo                      show it
  cargo xtask ebpf --disassemble        the kernel side, and its instructions for review
  cargo xtask test --list               which families of tests there are
  cargo xtask test --only unit          one family
  cargo xtask test --only drain         the worlds that have `drain` in their name
  MESH_WORLD=skip cargo xtask test      everything but worlds; the summary says so
  cargo xtask clean                     what killed worlds left behind
  cargo xtask cluster up                a real two-node Kubernetes on this machine (root)
  cargo xtask cluster load              the product's images onto its nodes
  cargo xtask ci                        everything that must hold";

const CLUSTER: &str = "\
Cluster:
  etcd, API server, controllers, scheduler, and two nodes with containerd, kubelet, kube-proxy and CNI of their own. They are built
  from their Go modules once (about 8 minutes) into .tools; from then on `up` takes half a minute, and a second `up` repairs what was
  killed. A node is a network and a mount namespace of this machine: nothing of it is left after `down`.

  export KUBECONFIG=/run/tulle/cluster/kubeconfig
  control plane 172.31.0.1, nodes .11 and .12; pods 10.245.N.0/24, Services 10.97.0.0/16, all reachable from this machine
  logs: target/cluster-logs";

/// Builds, tests and shows the mesh.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing needs; nothing to do takes less than a second
    Setup,
    /// Build the kernel side into target/ebpf/mesh-ebpf.o
    Ebpf(ebpf::Options),
    /// Build the kernel side and every binary
    Build,
    /// Run the tests and sum them up
    Test(test::Options),
    /// Check the rules of the house about our own files
    Tidy,
    /// Write the files that are generated and committed
    Generate(generate::Options),
    /// Write the images of the product as OCI archives into target/images
    Images(images::Options),
    /// A real two-node Kubernetes on this machine
    #[command(subcommand, after_help = CLUSTER)]
    Cluster(cluster::Verb),
    /// Run the Gateway API's conformance suite against the mesh on the test cluster
    Conformance(conformance::Options),
    /// Remove what killed worlds and demos left: processes, namespaces, links, pins, cgroups
    Clean(clean::Options),
    /// Everything that must hold: fmt, clippy, generate --check, test
    Ci,
    /// Build, then show the mesh at work; arguments go to mesh-demo
    #[command(disable_help_flag = true)]
    Demo(Passed),
    /// Build, then measure beside a peer; arguments go to mesh-bench
    #[command(disable_help_flag = true)]
    Bench(Passed),
}

/// Arguments for another program.
#[derive(clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    run(Arguments::parse().verb, &Repo::locate()).unwrap_or_else(|error| {
        // The chain of causes, without a stack: the reader wants to know what to do, not where xtask was.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(verb: Verb, repo: &Repo) -> Result<ExitCode> {
    match verb {
        Verb::Setup => setup::run(repo)?,
        Verb::Ebpf(options) => ebpf::build(repo, &options)?,
        Verb::Build => product::build(repo)?,
        Verb::Test(options) => return test::run(repo, &options),
        Verb::Tidy => return Ok(test::conclude(&[tidy::run(repo)?])),
        Verb::Generate(options) => return Ok(test::conclude(&[generate::run(repo, &options)?])),
        Verb::Images(options) => images::run(repo, &options)?,
        Verb::Cluster(verb) => cluster::run(repo, &verb)?,
        Verb::Conformance(options) => return conformance::run(repo, &options),
        Verb::Clean(options) => clean::run(&options)?,
        Verb::Ci => return ci::run(repo),
        Verb::Demo(passed) => product::build_and_become(repo, "mesh-demo", &passed.arguments)?,
        Verb::Bench(passed) => product::build_and_become(repo, "mesh-bench", &passed.arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
