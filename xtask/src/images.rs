//! The images of the product and of the test cluster, written as OCI archives into `target/images`.
//!
//! An image is one static program, stripped, and nothing else: no shell, no libraries. [`TABLE`] is the list of them.

mod archive;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Need};
use crate::kube::{self, Tools};
use crate::repo::Repo;
use crate::{product, step};
use archive::Image;

pub use archive::identity;

/// The version of the workspace, which is the tag of every image of ours.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The registry and the organisation that images of ours are named after. Nothing is ever pulled from there by tests.
const OURS: &str = "docker.io/tulle";
/// Whoever runs a program that needs no right of root.
const NOBODY: u32 = 65532;
/// The sandbox of every pod.
pub const PAUSE: &str = "pause";
/// The cluster's name server.
pub const COREDNS: &str = "coredns";
/// The server of the conformance suite's mesh tests; in its pod it is also the client, by that name.
const ECHO_ADVANCED: &str = "echo-advanced";
const CLIENT: &str = "/usr/bin/client";

/// An image: a program, where it comes from and who runs it.
struct Row {
    /// Name of the program and of the archive.
    program: &'static str,
    from: Origin,
    user: u32,
    name: Name,
}

enum Origin {
    /// A binary of the workspace.
    Workspace,
    /// Built by `kube` from Go.
    Kube,
    /// One file of C.
    C(&'static str),
}

enum Name {
    /// `<OURS>/<program>:<VERSION>`.
    Ours,
    /// Another tag than the product's.
    Tagged(&'static str),
    /// What somebody else's manifests ask for.
    Foreign(&'static str),
}

/// Every image that there is.
const TABLE: &[Row] = &[
    Row { program: "mesh-node", from: Origin::Workspace, user: 0, name: Name::Ours },
    Row { program: "mesh-controller", from: Origin::Workspace, user: NOBODY, name: Name::Ours },
    Row { program: "meshctl", from: Origin::Workspace, user: NOBODY, name: Name::Ours },
    Row { program: "mesh-app", from: Origin::Workspace, user: NOBODY, name: Name::Ours },
    Row { program: PAUSE, from: Origin::C("xtask/kube/pause.c"), user: NOBODY, name: Name::Ours },
    Row { program: COREDNS, from: Origin::Kube, user: NOBODY, name: Name::Tagged(kube::COREDNS) },
];

/// What the conformance suite of the Gateway API asks for, by the names in its manifests.
const CONFORMANCE: &[Row] = &[
    Row {
        program: ECHO_ADVANCED,
        from: Origin::Workspace,
        user: NOBODY,
        name: Name::Foreign("registry.k8s.io/gateway-api/echo-advanced:v1.5.1"),
    },
    Row {
        program: "echo-basic",
        from: Origin::Kube,
        user: NOBODY,
        name: Name::Foreign("registry.k8s.io/gateway-api/echo-basic:v1.5.1"),
    },
];

/// How much to do.
#[derive(clap::Args)]
pub struct Options {
    /// Take the binaries that are there
    #[arg(long)]
    no_build: bool,
}

/// The verb `images`: builds the product and writes every image.
pub fn run(repo: &Repo, options: &Options) -> Result<()> {
    if !options.no_build {
        product::build(repo)?;
    }
    write_all(repo)
}

/// Writes every image from binaries that are there, but for what Go builds: that is built if it is missing.
pub fn write_all(repo: &Repo) -> Result<()> {
    kube::ensure_cluster(repo)?;
    for row in TABLE {
        let written = row.write(repo)?;
        println!("{} {} {}", written.digest, row.reference(), written.archive.display());
    }
    Ok(())
}

/// Writes the images of the conformance suite from binaries that are there, and says where the archives are.
pub fn write_conformance(repo: &Repo) -> Result<Vec<PathBuf>> {
    CONFORMANCE.iter().map(|row| Ok(row.write(repo)?.archive)).collect()
}

/// Where the archives are, of all images or of those with a name in `only`; those that were never written are left out.
pub fn archives(repo: &Repo, only: &[&str]) -> Vec<PathBuf> {
    let wanted = |row: &&Row| only.is_empty() || only.contains(&row.program);
    let paths = TABLE.iter().filter(wanted).map(|row| row.archive(repo));
    paths.filter(|path| path.is_file()).collect()
}

/// Writes the images without which no pod starts.
pub fn write_base(repo: &Repo) -> Result<()> {
    TABLE.iter().filter(|row| [PAUSE, COREDNS].contains(&row.program)).try_for_each(|row| {
        row.write(repo)?;
        Ok(())
    })
}

/// Registry, repository and tag of the image of this program.
pub fn reference(program: &str) -> Option<String> {
    TABLE.iter().find(|row| row.program == program).map(Row::reference)
}

struct Written {
    digest: String,
    archive: PathBuf,
}

impl Row {
    fn reference(&self) -> String {
        match self.name {
            Name::Ours => format!("{OURS}/{}:{VERSION}", self.program),
            Name::Tagged(tag) => format!("{OURS}/{}:{tag}", self.program),
            Name::Foreign(reference) => reference.to_owned(),
        }
    }

    fn archive(&self, repo: &Repo) -> PathBuf {
        folder(repo).join(format!("{}.tar", self.program))
    }

    fn write(&self, repo: &Repo) -> Result<Written> {
        let folder = folder(repo);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let stripped = folder.join(format!("{}.stripped", self.program));
        match self.from {
            Origin::Workspace => strip(&repo.binary(self.program), &stripped)?,
            Origin::Kube => strip(&Tools::of(repo).bin(self.program), &stripped)?,
            Origin::C(source) => compile(&repo.path(source), &stripped)?,
        }
        let content = fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
        // It stands in the archive now; if it cannot be removed, it is overwritten the next time.
        let _ = fs::remove_file(&stripped);
        let image = Image {
            name: self.reference(),
            program: format!("/usr/bin/{}", self.program),
            alias: (self.program == ECHO_ADVANCED).then(|| CLIENT.to_owned()),
            content,
            user: self.user,
        };
        let archive = self.archive(repo);
        Ok(Written { digest: image.write(&archive)?, archive })
    }
}

fn folder(repo: &Repo) -> PathBuf {
    repo.path("target/images")
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    apt::ensure(&[Need::new("binutils", "strip", "images hold stripped programs")])?;
    let mut command = Command::new("strip");
    step::output_of(command.arg("-o").arg(to).arg(from)).map(drop)
}

fn compile(source: &Path, to: &Path) -> Result<()> {
    apt::ensure(&[Need::new("gcc", "cc", "the program of a pod's sandbox is C")])?;
    let mut command = Command::new("cc");
    command
        .args(["-std=c17", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-o"])
        .arg(to)
        .arg(source);
    step::output_of(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_name_of_its_own() {
        let all = || TABLE.iter().chain(CONFORMANCE);
        let mut names: Vec<String> = all().map(Row::reference).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all().count());
        assert_eq!(reference("mesh-node"), Some(format!("docker.io/tulle/mesh-node:{VERSION}")));
    }

    #[test]
    fn only_the_node_runs_as_root() {
        let roots: Vec<&str> = TABLE.iter().filter(|row| row.user == 0).map(|row| row.program).collect();
        assert_eq!(roots, ["mesh-node"]);
    }
}
