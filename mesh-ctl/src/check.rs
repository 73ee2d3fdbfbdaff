//! `meshctl check`: is the cluster fit for the mesh (`--pre`), and is the mesh as it should be? One line per question, with what to do.
//!
//! Invariant: nothing is changed. A question that could not be asked is a failure of its own, never a silent success.

mod health;
mod pre;

use std::process::ExitCode;

use serde::Serialize;

use crate::{
    cli::{CheckArgs, Globals, Target, TargetKind},
    cluster::{Cluster, objects},
    enroll::preview::{self, Preview},
    exit::{FINDINGS, Failure},
    print::{Answer, Grid},
    progress::Progress,
};

/// The answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and somebody should look.
    Warning,
    /// It is not as it should be.
    Bad,
}

/// One question and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    category: &'static str,
    what: String,
    verdict: Verdict,
    /// What was found.
    detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

#[derive(Serialize)]
struct Report {
    good: bool,
    checks: Vec<Line>,
}

/// Asks everything; exit code 79 if an answer is bad.
pub async fn run(globals: &Globals, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let cluster = Cluster::connect(globals).await?;
    let mut progress = Progress::new();
    progress.now("asking the cluster");
    let mut checks = pre::cluster(&cluster, args.pre).await?;
    if args.pre {
        checks.extend(pre::permissions(&cluster).await?);
    } else {
        progress.now("asking the mesh");
        checks.extend(health::all(&cluster).await?);
    }
    if let Some(namespace) = &args.namespace {
        progress.now(&format!("compiling namespace {namespace}"));
        checks.extend(enrolment(&cluster, namespace).await?);
    }
    drop(progress);
    let good = checks.iter().all(|line| line.verdict != Verdict::Bad);
    Report { good, checks }.answer().print(globals.output)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) })
}

/// What would be wrong in the namespace if it were enrolled.
async fn enrolment(cluster: &Cluster, namespace: &str) -> Result<Vec<Line>, Failure> {
    let settings = preview::settings(cluster).await?;
    let facts = objects::all(cluster).await?;
    let target = Target { kind: TargetKind::Namespace, name: namespace.to_owned(), namespace: String::new() };
    let preview = Preview::of(&settings, &crate::enroll::as_enrolled(&facts, &target), &target);
    let what = format!("namespace {namespace}, if enrolled");
    let mut lines: Vec<Line> = preview
        .findings
        .iter()
        .map(|(severity, finding)| {
            let verdict = match severity {
                mesh_api::diagnostic::Severity::Error => Verdict::Bad,
                mesh_api::diagnostic::Severity::Warning => Verdict::Warning,
                mesh_api::diagnostic::Severity::Info => Verdict::Good,
            };
            Line::new("enrolment", &what, verdict, finding.clone())
        })
        .collect();
    if lines.is_empty() {
        let pods = format!("{} pods, no findings", preview.members.len());
        lines.push(Line::new("enrolment", &what, Verdict::Good, pods));
    }
    Ok(lines)
}

impl Line {
    fn new(
        category: &'static str,
        what: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
    ) -> Self {
        Self { category, what: what.into(), verdict, detail: detail.into(), hint: String::new() }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        if self.verdict != Verdict::Good {
            self.hint = hint.into();
        }
        self
    }
}

impl Verdict {
    fn good_if(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Warning => "!",
            Self::Bad => "✗",
        }
    }
}

impl Report {
    fn answer(self) -> Answer<Self> {
        let row = |line: &Line| {
            let detail = match line.hint.as_str() {
                "" => line.detail.clone(),
                hint => format!("{} — {hint}", line.detail),
            };
            vec![line.verdict.mark().to_owned(), line.category.to_owned(), line.what.clone(), detail]
        };
        let count = |verdict| self.checks.iter().filter(|line| line.verdict == verdict).count();
        let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
        let summary = match (bad, warnings) {
            (0, 0) => format!("all {} checks are good", self.checks.len()),
            _ => format!("{bad} of {} checks are bad, {warnings} are warnings", self.checks.len()),
        };
        let rows = self.checks.iter().map(row).collect();
        let bad = self.checks.iter().filter(|line| line.verdict == Verdict::Bad);
        let names = bad.map(|line| format!("{}/{}", line.category, line.what)).collect();
        let grid =
            Grid { title: String::new(), head: vec!["", "CATEGORY", "CHECK", "FOUND"], rows, wide_from: 4 };
        Answer { kind: "Check", data: self, summary: vec![summary], tables: vec![grid], names }
    }
}

#[cfg(test)]
mod tests;
