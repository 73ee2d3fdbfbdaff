//! Runs the families of tests and sums them up.
//!
//! A family is a row in [`FAMILIES`]; one that cannot run here fails, unless a person said to skip it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::repo::Repo;
use crate::report::{self, Tally};
use crate::{apt, conformance, ebpf, libtest, product, setup, step, tidy};

/// Which tests.
#[derive(clap::Args, Default)]
pub struct Options {
    /// A family (see --list), or part of a test's name; may be given more than once. Names alone mean worlds
    #[arg(long, value_name = "FAMILY|NAME")]
    only: Vec<String>,
    /// Say which families there are, and run nothing
    #[arg(long)]
    list: bool,
}

/// One family of tests.
struct Family {
    name: &'static str,
    about: &'static str,
    /// Runs those whose name contains one of the filters; all without a filter.
    run: fn(&Repo, filters: &[&str]) -> Result<Tally>,
    /// Why it cannot run here, if it cannot: without being asked for by name it is then left out, for all to see.
    obstacle: fn() -> Option<String>,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "tidy",
        about: "rules of the house about our own files",
        run: |repo, _| tidy::run(repo),
        obstacle: none,
    },
    Family {
        name: "unit",
        about: "tests of every crate, and of the hooks against this kernel (root)",
        run: unit,
        obstacle: none,
    },
    Family {
        name: "world",
        about: "real eBPF and real binaries in network namespaces (root)",
        run: world,
        obstacle: none,
    },
    Family {
        name: "cluster",
        about: "the chart and the images on a real two-node Kubernetes (root)",
        run: cluster,
        obstacle: obstacle_of_cluster,
    },
];

/// The package that holds the worlds.
const WORLDS: &str = "mesh-tests";

/// The test binary in it that wants a Kubernetes.
const CLUSTER: &str = "cluster";

/// A person may say `MESH_WORLD=skip` where worlds cannot run.
const WORLD_VARIABLE: &str = "MESH_WORLD";

/// A person may say `MESH_CLUSTER=skip` to save the ten minutes that the first build of a Kubernetes takes.
const CLUSTER_VARIABLE: &str = "MESH_CLUSTER";

/// The verb `test`.
pub fn run(repo: &Repo, options: &Options) -> Result<ExitCode> {
    if options.list {
        for family in FAMILIES {
            println!("{:<8} {}", family.name, family.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let choice = Choice::of(&options.only);
    let tallies = run_families(repo, &choice);
    if tallies.iter().all(Tally::is_empty) {
        bail!("no test has {} in its name", choice.filters.join(" or "));
    }
    Ok(conclude(&tallies))
}

/// Every family, for CI: none is left out.
pub fn all(repo: &Repo) -> Vec<Tally> {
    run_families(repo, &Choice { required: true, ..Choice::of(&[]) })
}

/// Prints the summary and turns it into an exit code.
pub fn conclude(tallies: &[Tally]) -> ExitCode {
    println!("{}", report::render(tallies));
    if report::is_good(tallies) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_families(repo: &Repo, choice: &Choice) -> Vec<Tally> {
    // A family that cannot start does not keep the others from running.
    let run = |family: &Family| {
        let tally = (family.run)(repo, &choice.filters);
        let tally = tally.unwrap_or_else(|error| Tally::broken(family.name, format!("{error:#}")));
        // With a filter a family may have nothing to say; without one its tests were lost.
        if choice.filters.is_empty() && tally.is_empty() {
            Tally::broken(family.name, "no test ran")
        } else {
            tally
        }
    };
    let chosen = FAMILIES.iter().filter(|family| choice.families.contains(&family.name));
    chosen.map(|family| choice.left_out(family).unwrap_or_else(|| run(family))).collect()
}

/// What `--only` means.
#[derive(Debug, PartialEq, Eq)]
struct Choice<'a> {
    families: Vec<&'static str>,
    filters: Vec<&'a str>,
    /// A family that cannot run has failed: somebody named it, or wants all.
    required: bool,
}

impl<'a> Choice<'a> {
    fn of(only: &'a [String]) -> Self {
        let named = |word: &str| FAMILIES.iter().map(|family| family.name).find(|name| *name == word);
        let families: Vec<_> = only.iter().filter_map(|word| named(word)).collect();
        let filters: Vec<_> = only.iter().map(String::as_str).filter(|word| named(word).is_none()).collect();
        let required = !families.is_empty();
        let families = match (families.is_empty(), filters.is_empty()) {
            (false, _) => families,
            (true, true) => FAMILIES.iter().map(|family| family.name).collect(),
            (true, false) => vec!["world"],
        };
        Self { families, filters, required }
    }

    /// What becomes of a family that cannot run here.
    fn left_out(&self, family: &Family) -> Option<Tally> {
        let why = (family.obstacle)()?;
        eprintln!("!! {} DOES NOT RUN: {why}", family.name);
        Some(if self.required { Tally::broken(family.name, why) } else { Tally::skipped(family.name, why) })
    }
}

fn unit(repo: &Repo, filters: &[&str]) -> Result<Tally> {
    // The kernel tests of the node load what it embeds.
    setup::run(repo)?;
    ebpf::build(repo, &ebpf::Options::default())?;
    let binaries = test_binaries(&metadata(repo)?, |package| package != WORLDS)?;
    let mut chosen = vec!["--lib", "--bins"];
    chosen.extend(binaries.iter().flat_map(|name| ["--test", name]));
    let mut tally = libtest::run("unit", &mut cargo_test(repo, &chosen, filters))?;
    // Cargo runs the examples of documentation only alone.
    tally.add(libtest::run("unit", &mut cargo_test(repo, &["--doc"], filters))?);
    Ok(tally)
}

fn world(repo: &Repo, filters: &[&str]) -> Result<Tally> {
    if std::env::var(WORLD_VARIABLE).is_ok_and(|value| value == "skip") {
        eprintln!("!! {WORLD_VARIABLE}=skip: NO WORLD RUNS; capture, mTLS and policy are NOT tested");
        return Ok(Tally::skipped("world", format!("all worlds: {WORLD_VARIABLE}=skip was set by a person")));
    }
    if !apt::is_root() {
        bail!(
            "worlds need root (eBPF, network namespaces): run as root, or set {WORLD_VARIABLE}=skip to go without"
        );
    }
    product::build(repo)?;
    let mut binaries = test_binaries(&metadata(repo)?, |package| package == WORLDS)?;
    binaries.retain(|name| name != CLUSTER);
    if binaries.is_empty() {
        bail!("{WORLDS} has no tests");
    }
    let chosen: Vec<&str> = binaries.iter().flat_map(|name| ["--test", name]).collect();
    let run = |filters: &[&str]| {
        let mut command = cargo_test(repo, &chosen, filters);
        libtest::run("world", command.env(product::BINARIES_VARIABLE, repo.binaries()))
    };
    let mut tally = run(filters)?;
    if (1..=MOST_SECOND_TRIES).contains(&tally.failed.len()) {
        for name in std::mem::take(&mut tally.failed) {
            second_try(&mut tally, &name, run(&["--exact", &name])?);
        }
    }
    Ok(tally)
}

/// A family that looks for itself.
fn none() -> Option<String> {
    None
}

fn obstacle_of_cluster() -> Option<String> {
    if std::env::var(CLUSTER_VARIABLE).is_ok_and(|value| value == "skip") {
        return Some(format!("{CLUSTER_VARIABLE}=skip was set by a person"));
    }
    (!apt::is_root())
        .then(|| "a Kubernetes on this machine needs root (namespaces, mounts, cgroups)".to_owned())
}

/// Brings the cluster up (and down again, if it was not up before), loads the images, and runs the tests one after the other: they share
/// the mesh and take parts of it away. The conformance suite comes last, against the mesh that they leave.
fn cluster(repo: &Repo, filters: &[&str]) -> Result<Tally> {
    let was_up = crate::cluster::runs();
    product::build(repo)?;
    crate::cluster::run(repo, &crate::cluster::Verb::Up)?;
    crate::cluster::run(repo, &crate::cluster::Verb::load())?;
    let mut command = cargo_test(repo, &["--test", CLUSTER], filters);
    command.arg("--test-threads=1").env(product::BINARIES_VARIABLE, repo.binaries());
    let mut tally = libtest::run("cluster", &mut command);
    if let (Ok(tally), true) = (&mut tally, filters.is_empty()) {
        tally.add(
            conformance::tally(repo).unwrap_or_else(|error| Tally::broken(CLUSTER, format!("{error:#}"))),
        );
    }
    if !was_up {
        crate::cluster::remove()?;
    }
    tally
}

/// More failures than this are no accident.
const MOST_SECOND_TRIES: usize = 3;

/// Worlds share two cores with each other and hold real time limits: one that failed is run once more, alone. If that passes, it is
/// told as unstable, for all to see; if not, it failed.
fn second_try(tally: &mut Tally, name: &str, alone: Tally) {
    if alone.failed.is_empty() && alone.passed > 0 {
        tally.passed += 1;
        tally.unstable.push(format!("{name}: failed beside others, passed alone"));
    } else {
        tally.failed.push(name.to_owned());
    }
}

fn metadata(repo: &Repo) -> Result<String> {
    let mut cargo = Command::new("cargo");
    step::output_of(cargo.current_dir(repo.root()).args(["metadata", "--no-deps", "--format-version", "1"]))
}

/// The names of the test binaries (`tests/*.rs`) of some packages, from what `cargo metadata` says.
fn test_binaries(metadata: &str, of: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let metadata: Metadata = serde_json::from_str(metadata).context("cannot read cargo metadata")?;
    let targets = metadata.packages.into_iter().filter(|package| of(&package.name)).flat_map(|p| p.targets);
    Ok(targets
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect())
}

/// Always the whole workspace, narrowed down by `chosen`: with `--package` cargo would choose other features for
/// shared dependencies, and compile about seventy of them a second time.
fn cargo_test(repo: &Repo, chosen: &[&str], filters: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(repo.root())
        .args(["test", "--release", "--no-fail-fast", "--workspace"])
        .args(chosen);
    command.arg("--").args(filters);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(only: &[&str]) -> (Vec<&'static str>, Vec<String>) {
        let only: Vec<String> = only.iter().map(|word| (*word).to_owned()).collect();
        let choice = Choice::of(&only);
        (choice.families, choice.filters.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_second_failure_and_a_test_that_did_not_run_count_as_failures() {
        let mut tally = Tally::new("world");
        second_try(&mut tally, "a", Tally::of("world", true));
        second_try(&mut tally, "b", Tally::of("world", false));
        second_try(&mut tally, "c", Tally::new("world"));
        assert_eq!((tally.passed, tally.failed, tally.unstable.len()), (1, vec!["b".into(), "c".into()], 1));
    }

    #[test]
    fn without_only_everything_runs() {
        assert_eq!(choice(&[]), (vec!["tidy", "unit", "world", "cluster"], vec![]));
    }

    #[test]
    fn a_family_that_cannot_run_is_skipped_unless_it_is_required() {
        let family = Family {
            name: "cluster",
            about: "",
            run: |_, _| Ok(Tally::of("cluster", true)),
            obstacle: || Some("no root".to_owned()),
        };
        let outcome = |choice: Choice| choice.left_out(&family).unwrap();
        assert_eq!(outcome(Choice::of(&[])), Tally::skipped("cluster", "no root"));
        assert_eq!(outcome(Choice::of(&["cluster".to_owned()])), Tally::broken("cluster", "no root"));
        let family = Family { obstacle: none, ..family };
        assert_eq!(Choice::of(&[]).left_out(&family), None);
    }

    #[test]
    fn test_binaries_are_told_by_package() {
        let target = |name: &str, kind: &str| format!(r#"{{"name":"{name}","kind":["{kind}"]}}"#);
        let package = |name: &str, targets: [String; 2]| {
            format!(r#"{{"name":"{name}","targets":[{}]}}"#, targets.join(","))
        };
        let ours = package(WORLDS, [target("mesh_tests", "lib"), target("drain", "test")]);
        let other = package("mesh-api", [target("mesh_api", "lib"), target("golden", "test")]);
        let metadata = format!(r#"{{"packages":[{ours},{other}]}}"#);
        assert_eq!(test_binaries(&metadata, |package| package == WORLDS).unwrap(), ["drain"]);
        assert_eq!(test_binaries(&metadata, |package| package != WORLDS).unwrap(), ["golden"]);
    }

    #[test]
    fn names_go_to_worlds_unless_a_family_is_given() {
        assert_eq!(choice(&["drain"]), (vec!["world"], vec!["drain".to_owned()]));
        assert_eq!(choice(&["unit", "drain"]), (vec!["unit"], vec!["drain".to_owned()]));
    }
}
