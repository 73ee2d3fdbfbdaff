//! What the suite's tests came to, read from the output of its test binary (`go test -v`).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::report::Tally;

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It ran and failed.
    Failed,
    /// It did not run.
    Skipped,
    /// It ran and passed.
    Passed,
}

/// All tests for meshes, by name. Those for gateways, which never run here, are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes(BTreeMap<String, Outcome>);

impl Outcomes {
    /// Reads the results; what never ended (a time-out) has none.
    pub fn parse(output: &str) -> Self {
        let mut found = BTreeMap::new();
        for line in output.lines() {
            let Some((sign, rest)) =
                line.trim_start().strip_prefix("--- ").and_then(|line| line.split_once(": "))
            else {
                continue;
            };
            let outcome = match sign {
                "PASS" => Outcome::Passed,
                "FAIL" => Outcome::Failed,
                "SKIP" => Outcome::Skipped,
                _ => continue,
            };
            let name = rest.split(' ').next().unwrap_or_default().strip_prefix("TestConformance/");
            if let Some(name) = name.filter(|name| name.starts_with("Mesh") && !name.contains('/')) {
                found.insert(name.to_owned(), outcome);
            }
        }
        Self(found)
    }

    /// How this test ended; None: it never did.
    pub fn of(&self, name: &str) -> Option<Outcome> {
        self.0.get(name).copied()
    }

    /// As a family of tests: what is required and did not pass has failed, whatever became of it; what was skipped is one line.
    pub fn tally(&self, required: &[&str]) -> Tally {
        let mut tally = Tally::new("conformance");
        let mut skipped = Vec::new();
        for (name, outcome) in &self.0 {
            match outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Skipped if !required.contains(&name.as_str()) => skipped.push(name.as_str()),
                Outcome::Failed | Outcome::Skipped => tally.failed.push(name.clone()),
            }
        }
        let lost = required.iter().filter(|name| self.of(name).is_none());
        tally.failed.extend(lost.map(|name| format!("{name}: it has no end")));
        if !skipped.is_empty() {
            tally.skipped.push(format!("not built: {}", skipped.join(", ")));
        }
        tally
    }

    /// Every test, the worst first; its last line stands alone so that a machine can find it.
    pub fn table(&self, required: &[&str]) -> String {
        let mut rows: Vec<(Option<Outcome>, &str)> =
            self.0.iter().map(|(name, outcome)| (Some(*outcome), name.as_str())).collect();
        rows.extend(required.iter().filter(|name| self.of(name).is_none()).map(|name| (None, *name)));
        rows.sort();
        let mut text = String::new();
        for (outcome, name) in &rows {
            let sign = match outcome {
                None => "no end",
                Some(Outcome::Failed) => "FAILED",
                Some(Outcome::Skipped) => "skipped",
                Some(Outcome::Passed) => "ok",
            };
            let must = if required.contains(name) { "  (required)" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{sign:>8}  {name}{must}");
        }
        let count = |wanted| rows.iter().filter(|(outcome, _)| *outcome == wanted).count();
        let (passed, skipped) = (count(Some(Outcome::Passed)), count(Some(Outcome::Skipped)));
        let failed = count(Some(Outcome::Failed)) + count(None);
        let _ = write!(text, "{passed} passed, {failed} failed, {skipped} skipped");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
=== RUN   TestConformance
    conformance.go:88: Running conformance tests with:
--- FAIL: TestConformance (80.1s)
    --- SKIP: TestConformance/GatewayWithAttachedRoutes (0.00s)
    --- PASS: TestConformance/MeshBasic (0.41s)
        --- PASS: TestConformance/MeshBasic/0_request_to_'echo/'_should_go_to_ (0.30s)
    --- FAIL: TestConformance/MeshGRPCRouteWeight (30.2s)
    --- SKIP: TestConformance/MeshHTTPRouteRewritePath (0.00s)
FAIL
";

    #[test]
    fn tests_of_meshes_are_read_and_no_part_of_them() {
        let outcomes = Outcomes::parse(OUTPUT);
        assert_eq!(outcomes.0.len(), 3);
        assert_eq!(outcomes.of("MeshBasic"), Some(Outcome::Passed));
        assert_eq!(outcomes.of("MeshGRPCRouteWeight"), Some(Outcome::Failed));
        assert_eq!(outcomes.of("MeshHTTPRouteRewritePath"), Some(Outcome::Skipped));
        assert_eq!(outcomes.of("GatewayWithAttachedRoutes"), None);
    }

    #[test]
    fn a_required_test_without_an_end_is_in_the_table_as_failed() {
        let table = Outcomes::parse(OUTPUT).table(&["MeshBasic", "MeshTrafficSplit"]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.first(), Some(&"  no end  MeshTrafficSplit  (required)"));
        assert!(lines.contains(&"      ok  MeshBasic  (required)"), "{table}");
        assert_eq!(lines.last(), Some(&"1 passed, 2 failed, 1 skipped"));
    }

    #[test]
    fn a_tally_counts_what_is_required_and_lost_as_failed() {
        let tally = Outcomes::parse(OUTPUT).tally(&["MeshBasic", "MeshTrafficSplit"]);
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["MeshGRPCRouteWeight", "MeshTrafficSplit: it has no end"]);
        assert_eq!(tally.skipped, ["not built: MeshHTTPRouteRewritePath"]);
    }
}
