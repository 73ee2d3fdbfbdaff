//! What ran, what did not and why: the last thing a person or a CI log shows.
//!
//! Invariant: a skipped test never looks like a passed one, and nothing having run is a failure.

use std::fmt::Write;

/// The outcome of one family of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The family.
    pub name: String,
    /// How many passed.
    pub passed: usize,
    /// What failed, by name.
    pub failed: Vec<String>,
    /// What did not run, each with its reason.
    pub skipped: Vec<String>,
    /// What passed only when it was run a second time, alone.
    pub unstable: Vec<String>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// One thing that either holds or does not.
    pub fn of(name: impl Into<String>, good: bool) -> Self {
        let mut tally = Self::new(name);
        tally.passed = usize::from(good);
        if !good {
            tally.failed.push(tally.name.clone());
        }
        tally
    }

    /// A family that did not run.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { skipped: vec![why.into()], ..Self::new(name) }
    }

    /// A family that could not even start.
    pub fn broken(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { failed: vec![why.into()], ..Self::new(name) }
    }

    /// Takes in the results of a further run of the same family.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.unstable.extend(other.unstable);
    }

    /// Whether nothing happened at all.
    pub fn is_empty(&self) -> bool {
        self.passed + self.failed.len() + self.skipped.len() == 0
    }
}

/// The summary; its last line stands alone so that a machine can find it.
pub fn render(tallies: &[Tally]) -> String {
    let mut out = String::from("\n== summary\n");
    for tally in tallies {
        let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
        let sign = if failed > 0 { "FAILED" } else { "ok" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{sign:>6}  {:<10} {passed} passed, {failed} failed, {skipped} skipped",
            tally.name
        );
        for name in &tally.failed {
            let _ = writeln!(out, "          failed:  {name}");
        }
        for why in &tally.unstable {
            let _ = writeln!(out, "          UNSTABLE: {why}");
        }
        for why in &tally.skipped {
            let _ = writeln!(out, "          SKIPPED: {why}");
        }
    }
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum::<usize>();
    let (passed, failed, skipped) = (sum(|t| t.passed), sum(|t| t.failed.len()), sum(|t| t.skipped.len()));
    let _ = write!(out, "{passed} passed, {failed} failed, {skipped} skipped");
    out
}

/// Whether all is well: something passed, nothing failed. A run in which everything was skipped on purpose is well.
pub fn is_good(tallies: &[Tally]) -> bool {
    let ran = tallies.iter().any(|tally| tally.passed > 0 || !tally.skipped.is_empty());
    ran && tallies.iter().all(|tally| tally.failed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_stands_alone() {
        let tallies =
            [Tally::of("fmt", true), Tally::of("tidy", false), Tally::skipped("world", "MESH_WORLD=skip")];
        let text = render(&tallies);
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
        assert!(text.contains("SKIPPED: MESH_WORLD=skip"));
        assert!(!is_good(&tallies));
    }

    #[test]
    fn nothing_is_not_good() {
        assert!(!is_good(&[]));
        assert!(!is_good(&[Tally::new("unit")]));
        assert!(is_good(&[Tally::of("unit", true)]));
    }
}
