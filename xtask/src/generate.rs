//! Files that a program writes and that are committed all the same, because people and helm read them.
//!
//! A generator is a cargo example that takes a folder and fills it. `--check` compares without writing: CI fails when
//! somebody changed a type and not its reference.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::report::Tally;
use crate::step;

/// One folder of generated files.
struct Artifact {
    /// Holds what is generated and nothing else.
    folder: &'static str,
    package: &'static str,
    /// The example of that package; it is given a folder to fill.
    generator: &'static str,
}

const ARTIFACTS: &[Artifact] = &[
    Artifact { folder: "helm/tulle/crds", package: "mesh-api", generator: "crds" },
    Artifact { folder: "docs/reference/meshctl", package: "mesh-ctl", generator: "help" },
];

/// Write or compare.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Write nothing; fail if a file differs from what would be generated
    #[arg(long)]
    pub check: bool,
}

/// Brings every generated folder up to date, or tells which are not.
pub fn run(repo: &Repo, options: &Options) -> Result<Tally> {
    let mut tally = Tally::new("generate");
    for artifact in ARTIFACTS {
        let Some(fresh) = generate(repo, artifact)? else {
            tally.skipped.push(format!(
                "{}: {} has no example `{}`",
                artifact.folder, artifact.package, artifact.generator
            ));
            continue;
        };
        let folder = repo.path(artifact.folder);
        let differences = differences(&read_folder(&folder)?, &fresh);
        if !options.check {
            write(&folder, &differences, &fresh)?;
        }
        for name in &differences {
            println!("generate: {}/{}", artifact.folder, name.display());
        }
        if options.check && !differences.is_empty() {
            tally.failed.push(format!(
                "{} is not what its generator writes: run `cargo xtask generate`",
                artifact.folder
            ));
        } else {
            tally.passed += 1;
        }
    }
    Ok(tally)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What the generator writes now; nothing if there is no such generator yet.
fn generate(repo: &Repo, artifact: &Artifact) -> Result<Option<Files>> {
    if !repo.path(artifact.package).join("examples").join(artifact.generator).with_extension("rs").exists() {
        return Ok(None);
    }
    let scratch = repo.path("target/generated").join(artifact.folder);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot empty {}", scratch.display()))?;
    }
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    // The whole workspace, narrowed down: the same features as in the tests, so nothing is compiled twice.
    let mut build = Command::new("cargo");
    build.current_dir(repo.root()).args([
        "build",
        "--release",
        "--workspace",
        "--example",
        artifact.generator,
    ]);
    step::quietly(&format!("generator of {}", artifact.folder), &mut build)?;
    let mut generator = Command::new(repo.binary("examples").join(artifact.generator));
    step::quietly(artifact.folder, generator.arg(&scratch))?;
    read_folder(&scratch).map(Some)
}

/// Names that are only on one side, or hold something else.
fn differences(old: &Files, new: &Files) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
    names.sort();
    names.dedup();
    names.into_iter().cloned().collect()
}

fn write(folder: &Path, names: &[PathBuf], fresh: &Files) -> Result<()> {
    for name in names {
        let file = folder.join(name);
        let Some(content) = fresh.get(name) else {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
            continue;
        };
        fs::create_dir_all(file.parent().unwrap_or(folder))?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        if !next.exists() {
            continue;
        }
        for entry in fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
                files.insert(
                    name,
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?,
                );
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn added_changed_and_removed_files_differ() {
        let old = files(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let new = files(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(differences(&old, &new), [PathBuf::from("b"), PathBuf::from("c"), PathBuf::from("d")]);
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn writing_makes_a_folder_equal() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("old"), "x").unwrap();
        let fresh = files(&[("sub/new", "y")]);
        write(root.path(), &differences(&read_folder(root.path()).unwrap(), &fresh), &fresh).unwrap();
        assert_eq!(read_folder(root.path()).unwrap(), fresh);
    }
}
