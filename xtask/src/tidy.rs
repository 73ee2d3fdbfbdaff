//! What the house asks of its own files, checked instead of remembered.
//!
//! [`check`] is a pure function over a [`Tree`]: each rule has a test that shows it can fail. Reading the work tree
//! and asking cargo happen in [`load`] alone.

mod edges;
mod mask;
mod text;
mod unsafety;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::report::Tally;
use crate::step;
use edges::Graph;

/// Everything the rules look at.
#[derive(Default)]
pub struct Tree {
    /// Text files that git knows or would add.
    pub files: Vec<File>,
    /// Who depends on whom, one graph for each lock file: features differ between them.
    pub graphs: Vec<Graph>,
}

/// One text file.
pub struct File {
    /// Below the root, with `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { place: format!("{}:{line}", self.path), what: what.into() }
    }
}

/// A rule that was broken, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    place: String,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// Every broken rule.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        findings.extend(text::check(file));
        if file.is_rust() {
            findings.extend(unsafety::check(file));
        }
    }
    findings.extend(text::stale_exceptions(&tree.files));
    findings.extend(tree.graphs.iter().flat_map(edges::check));
    findings
}

/// Checks the work tree; one passed test, or one failed test per finding.
pub fn run(repo: &Repo) -> Result<Tally> {
    let tree = load(repo)?;
    let findings = check(&tree);
    for finding in &findings {
        println!("tidy: {finding}");
    }
    println!("tidy: {} files, {} findings", tree.files.len(), findings.len());
    let mut tally = Tally::new("tidy");
    tally.passed = usize::from(findings.is_empty());
    tally.failed = findings.iter().map(ToString::to_string).collect();
    Ok(tally)
}

fn load(repo: &Repo) -> Result<Tree> {
    let mut git = Command::new("git");
    git.current_dir(repo.root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = step::output_of(&mut git).context("tidy asks git which files there are")?;
    let files = names.split('\0').filter_map(|name| read(repo.root(), name)).collect();
    Ok(Tree { files, graphs: Graph::load(repo)? })
}

/// A file that is gone from the work tree, or is not text, has nothing to check.
fn read(root: &Path, name: &str) -> Option<File> {
    let text = std::fs::read_to_string(root.join(name)).ok()?;
    Some(File { path: name.to_owned(), text })
}

#[cfg(test)]
fn rust(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}
