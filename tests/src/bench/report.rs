//! Rows `{setup, scenario, metric, median, min, max}`, a table of them, and ratios against the peer of the same run.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Scenario, Setup};

/// Everything measured.
#[derive(Debug, Default)]
pub struct Report {
    samples: BTreeMap<(Setup, String, &'static str), Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    setup: &'static str,
    scenario: &'a str,
    metric: &'static str,
    median: f64,
    min: f64,
    max: f64,
}

/// Which of ours is held against which peer.
const PAIRS: &[(Setup, Setup)] = &[
    (Setup::TulleSame, Setup::DirectSame),
    (Setup::TulleSame, Setup::EnvoyHop),
    (Setup::TulleCross, Setup::Direct),
    (Setup::TulleCross, Setup::EnvoyPairH2),
    (Setup::TulleCross, Setup::EnvoyTcp),
];

impl Report {
    /// One sample of one round.
    pub fn note(&mut self, setup: Setup, scenario: &str, metric: &'static str, value: f64) {
        self.samples.entry((setup, scenario.to_owned(), metric)).or_default().push(value);
    }

    /// Derives the added CPU: that of a setup less that of its run without a proxy, round by round.
    pub fn finish(&mut self, setups: &[Setup], scenarios: &[Scenario]) {
        for setup in setups.iter().filter(|setup| setup.baseline() != **setup) {
            for scenario in scenarios {
                let of = |setup: Setup| self.samples.get(&(setup, scenario.name().to_owned(), "cpu_us"));
                let (Some(ours), Some(base)) = (of(*setup), of(setup.baseline())) else { continue };
                let added: Vec<f64> = ours.iter().zip(base).map(|(ours, base)| ours - base).collect();
                self.samples.insert((*setup, scenario.name().to_owned(), "added_cpu_us"), added);
            }
        }
    }

    fn rows(&self) -> Vec<Row<'_>> {
        self.samples
            .iter()
            .map(|((setup, scenario, metric), values)| {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
                Row {
                    setup: setup.name(),
                    scenario,
                    metric,
                    median: at(sorted.len() / 2),
                    min: at(0),
                    max: at(sorted.len().saturating_sub(1)),
                }
            })
            .collect()
    }

    fn median(&self, setup: Setup, scenario: &str, metric: &str) -> Option<f64> {
        self.rows()
            .iter()
            .find(|row| row.setup == setup.name() && row.scenario == scenario && row.metric == metric)
            .map(|row| row.median)
    }

    /// The table, then the ratios.
    #[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
    pub fn print(&self) {
        println!(
            "{:14} {:12} {:13} {:>12} {:>12} {:>12}",
            "setup", "scenario", "metric", "median", "min", "max"
        );
        for row in self.rows() {
            println!(
                "{:14} {:12} {:13} {:>12.1} {:>12.1} {:>12.1}",
                row.setup, row.scenario, row.metric, row.median, row.min, row.max
            );
        }
        println!("\nratios of medians in this run (ours / peer)");
        for (ours, peer) in PAIRS {
            for ((_, scenario, metric), _) in self.samples.iter().filter(|((setup, ..), _)| setup == ours) {
                let values = (self.median(*ours, scenario, metric), self.median(*peer, scenario, metric));
                if let (Some(a), Some(b)) = values
                    && b.abs() > f64::EPSILON
                {
                    println!(
                        "{:12} / {:14} {scenario:12} {metric:13} {:>8.2}",
                        ours.name(),
                        peer.name(),
                        a / b
                    );
                }
            }
        }
    }

    /// The rows as JSON.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.rows())?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}
