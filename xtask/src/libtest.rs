//! Runs `cargo test`, shows its output as it comes, and counts what it says.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::report::Tally;
use crate::step;

/// Runs `command` (a `cargo test`) as the family `name`.
pub fn run(name: &str, command: &mut Command) -> Result<Tally> {
    eprintln!("-> {name}: {}", step::line_of(command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut reader = Reader::new(name);
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what cargo test says")?;
            println!("{line}");
            reader.line(&line);
        }
    }
    let good = child.wait().context("cannot wait for cargo test")?.success();
    Ok(reader.finish(good))
}

/// Collects results from libtest's lines.
struct Reader {
    tally: Tally,
    failed: BTreeSet<String>,
    counted_failures: usize,
}

impl Reader {
    fn new(name: &str) -> Self {
        Self { tally: Tally::new(name), failed: BTreeSet::new(), counted_failures: 0 }
    }

    fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.tally.passed += count(result, " passed");
            self.counted_failures += count(result, " failed");
        } else if let Some((test, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            if outcome.starts_with("FAILED") {
                self.failed.insert(test.to_owned());
            } else if outcome.starts_with("ignored") {
                let why = outcome.strip_prefix("ignored, ").unwrap_or("marked #[ignore] without a reason");
                self.tally.skipped.push(format!("{test}: {why}"));
            }
        }
    }

    /// A run that fails without a failed test did not compile or was killed: that is a failure, too.
    fn finish(mut self, good: bool) -> Tally {
        let unnamed = self.counted_failures.saturating_sub(self.failed.len());
        self.tally.failed.extend(self.failed);
        self.tally.failed.extend((0..unnamed).map(|_| "a test whose name was lost in its output".to_owned()));
        if !good && self.tally.failed.is_empty() {
            self.tally.failed.push("cargo test did not finish: see its last lines above".to_owned());
        }
        self.tally
    }
}

/// The number before `what` in `3 passed; 1 failed; ...`.
fn count(result: &str, what: &str) -> usize {
    let before = result.split(what).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str], good: bool) -> Tally {
        let mut reader = Reader::new("unit");
        lines.iter().for_each(|line| reader.line(line));
        reader.finish(good)
    }

    #[test]
    fn results_are_counted_over_all_binaries() {
        let result = tally(
            &[
                "test a::b ... ok",
                "test a::c ... FAILED",
                "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                "test d ... ignored, needs a cluster",
                "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            ],
            false,
        );
        assert_eq!(result.passed, 8);
        assert_eq!(result.failed, ["a::c"]);
        assert_eq!(result.skipped, ["d: needs a cluster"]);
    }

    #[test]
    fn a_run_that_breaks_off_is_a_failure() {
        assert_eq!(tally(&["test a ... ok"], false).failed.len(), 1);
        assert!(tally(&["test a ... ok"], true).failed.is_empty());
    }

    #[test]
    fn a_failure_is_counted_even_without_its_name() {
        let lines = ["test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out"];
        assert_eq!(tally(&lines, false).failed.len(), 2);
    }
}
