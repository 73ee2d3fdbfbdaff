//! Runs the families of tests and sums them up.
//!
//! A family is a row in [`FAMILIES`]; one that cannot run here fails, unless a person said to skip it.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::repo::Repo;
use crate::report::{self, Tally};
use crate::{apt, libtest, product, tidy};

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
}

const FAMILIES: &[Family] = &[
    Family { name: "tidy", about: "rules of the house about our own files", run: |repo, _| tidy::run(repo) },
    Family { name: "unit", about: "pure tests of every crate; no privilege, no network", run: unit },
    Family { name: "world", about: "real eBPF and real binaries in network namespaces (root)", run: world },
];

/// A person may say `MESH_WORLD=skip` where worlds cannot run.
const WORLD_VARIABLE: &str = "MESH_WORLD";

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

/// Every family, for CI.
pub fn all(repo: &Repo) -> Vec<Tally> {
    run_families(repo, &Choice::of(&[]))
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
    FAMILIES.iter().filter(|family| choice.families.contains(&family.name)).map(run).collect()
}

/// What `--only` means.
#[derive(Debug, PartialEq, Eq)]
struct Choice<'a> {
    families: Vec<&'static str>,
    filters: Vec<&'a str>,
}

impl<'a> Choice<'a> {
    fn of(only: &'a [String]) -> Self {
        let named = |word: &str| FAMILIES.iter().map(|family| family.name).find(|name| *name == word);
        let families: Vec<_> = only.iter().filter_map(|word| named(word)).collect();
        let filters: Vec<_> = only.iter().map(String::as_str).filter(|word| named(word).is_none()).collect();
        let families = match (families.is_empty(), filters.is_empty()) {
            (false, _) => families,
            (true, true) => FAMILIES.iter().map(|family| family.name).collect(),
            (true, false) => vec!["world"],
        };
        Self { families, filters }
    }
}

fn unit(repo: &Repo, filters: &[&str]) -> Result<Tally> {
    libtest::run("unit", &mut cargo_test(repo, &["--workspace", "--exclude", "mesh-tests"], filters))
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
    let mut command = cargo_test(repo, &["--package", "mesh-tests"], filters);
    libtest::run("world", command.env(product::BINARIES_VARIABLE, repo.path("target/release")))
}

fn cargo_test(repo: &Repo, packages: &[&str], filters: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(repo.root()).args(["test", "--release", "--no-fail-fast"]).args(packages);
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
    fn without_only_everything_runs() {
        assert_eq!(choice(&[]), (vec!["tidy", "unit", "world"], vec![]));
    }

    #[test]
    fn names_go_to_worlds_unless_a_family_is_given() {
        assert_eq!(choice(&["drain"]), (vec!["world"], vec!["drain".to_owned()]));
        assert_eq!(choice(&["unit", "drain"]), (vec!["unit"], vec!["drain".to_owned()]));
    }
}
