//! A Go module of ours that requires others and builds their programs.
//!
//! Kubernetes cannot simply be required: its go.mod names its own libraries as `v0.0.0` and replaces them by folders of its tree. They
//! are published as modules of the same release, so each is replaced by that. Every other module that Kubernetes names is held at the
//! version that it names: what stands beside it in the module (CoreDNS, Helm) must not change what Kubernetes is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::golang::Go;
use crate::step;

/// What is built with one `go build`.
pub enum Target {
    /// Programs of Kubernetes, which get its version stamped in.
    Kubernetes(&'static [&'static str]),
    /// A program, and the package it is built from.
    Program(&'static str, &'static str),
    /// A test binary, and the package whose tests it holds.
    Test(&'static str, &'static str),
}

impl Target {
    /// The names of the files that this leaves.
    pub fn programs(&self) -> &[&'static str] {
        match self {
            Self::Kubernetes(names) => names,
            Self::Program(name, _) | Self::Test(name, _) => std::slice::from_ref(name),
        }
    }

    /// The packages that this is built from.
    fn packages(&self) -> Vec<String> {
        match self {
            Self::Kubernetes(names) => {
                names.iter().map(|name| format!("k8s.io/kubernetes/cmd/{name}")).collect()
            }
            Self::Program(_, package) | Self::Test(_, package) => vec![(*package).to_owned()],
        }
    }

    /// The arguments of `go` that build this into `bin`.
    pub fn build(&self, kubernetes: &str, bin: &Path, command: &mut Command) {
        const STRIPPED: &str = "-s -w";
        let common = ["-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags"];
        match self {
            Self::Kubernetes(_) => {
                command.arg("build").args(common).arg(format!("{STRIPPED} {}", version_flags(kubernetes)));
                command.arg("-o").arg(bin.join("")).args(self.packages());
            }
            Self::Program(name, package) => {
                command.arg("build").args(common).arg(STRIPPED).arg("-o").arg(bin.join(name)).arg(package);
            }
            Self::Test(name, package) => {
                command
                    .args(["test", "-c"])
                    .args(common)
                    .arg(STRIPPED)
                    .arg("-o")
                    .arg(bin.join(name))
                    .arg(package);
            }
        }
    }
}

/// What makes the programs say their release; the API server refuses clients' version arithmetic without it.
fn version_flags(kubernetes: &str) -> String {
    let mut parts = kubernetes.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let fields =
        [("gitVersion", format!("v{kubernetes}")), ("gitMajor", major.into()), ("gitMinor", minor.into())];
    fields.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}")).join(" ")
}

/// A module on disk.
pub struct Module<'a> {
    /// Where it is written.
    pub folder: PathBuf,
    /// What it builds.
    pub targets: &'a [Target],
    /// Its own source files: path below the folder, and text.
    pub sources: &'a [(&'a str, &'a str)],
}

impl Module<'_> {
    /// The names of everything that it builds.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().flat_map(|target| target.programs().iter().copied())
    }

    /// A digest of everything that decides what is built, besides the compiler.
    pub fn stamp(&self, versions: &[&str]) -> String {
        let mut hash = Sha256::new();
        let sources = self.sources.iter().flat_map(|(path, text)| [*path, *text]);
        // This file decides what the go.mod says.
        for part in
            versions.iter().copied().chain(self.programs()).chain(sources).chain([include_str!("module.rs")])
        {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes its files anew.
    pub fn write(&self, go: &Go, go_mod: impl Fn(&Go, &Path) -> Result<String>) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let text = go_mod(go, &self.folder)?;
        for (path, text) in self.sources.iter().copied().chain([("go.mod", text.as_str())]) {
            let path = self.folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.resolve(go)
    }

    /// Fetches what all targets need, which completes the go.mod: were it completed target by target, a version chosen for a later one
    /// would have what was built before compiled once more.
    fn resolve(&self, go: &Go) -> Result<()> {
        let mut command = go.command(&self.folder);
        command.args(["list", "-mod=mod", "-deps"]);
        if self.targets.iter().any(|target| matches!(target, Target::Test(..))) {
            command.arg("-test");
        }
        command.args(self.targets.iter().flat_map(Target::packages));
        step::quietly("Go modules", &mut command)
    }
}

/// A module in Go's cache.
#[derive(Deserialize)]
pub struct Downloaded {
    /// Its go.mod.
    #[serde(rename = "GoMod")]
    pub go_mod: PathBuf,
    /// Its files.
    #[serde(rename = "Dir")]
    pub folder: PathBuf,
}

/// Fetches a module, if it is not in Go's cache, and says where it is.
pub fn download(go: &Go, folder: &Path, module: &str, version: &str) -> Result<Downloaded> {
    let mut command = go.command(folder);
    command.args(["mod", "download", "-json", &format!("{module}@v{version}")]);
    let said = step::output_of(&mut command).with_context(|| {
        format!("the Go module {module} v{version} cannot be fetched; what does `go env GOPROXY` say?")
    })?;
    serde_json::from_str(&said).context("`go mod download -json` said something else than JSON")
}

/// The go.mod of a module that requires these and leaves everything else to Go.
pub fn requiring(modules: &[(&str, &str)]) -> String {
    let lines: String = modules.iter().map(|(module, version)| format!("\t{module} v{version}\n")).collect();
    format!("module tulle.dev/xtask\n\ngo 1.26.0\n\nrequire (\n{lines})\n")
}

/// The go.mod of a module that builds Kubernetes `version`, whose own go.mod is `upstream`, and `others` beside it.
pub fn beside_kubernetes(version: &str, upstream: &str, others: &[(&str, &str)]) -> Result<String> {
    let staging = format!("v{}", version.replacen("1.", "0.", 1));
    let required = requirements(upstream);
    let Some((_, etcd)) = required.iter().find(|(module, _)| *module == "go.etcd.io/etcd/client/v3") else {
        bail!("the go.mod of Kubernetes {version} does not name its etcd client");
    };
    let mut text = String::from("module tulle.dev/xtask\n\n");
    // What the language and the runtime do by default, as upstream chose it.
    for line in upstream.lines().filter(|line| line.starts_with("go ") || line.starts_with("godebug ")) {
        text.push_str(&format!("{line}\n\n"));
    }
    text.push_str(&format!(
        "require (\n\tgo.etcd.io/etcd/server/v3 {etcd}\n\tk8s.io/kubernetes v{version}\n"
    ));
    for (module, version) in others {
        text.push_str(&format!("\t{module} v{version}\n"));
    }
    text.push_str(")\n\nreplace (\n");
    for (module, version) in required {
        let version = if version == "v0.0.0" { &staging } else { version };
        text.push_str(&format!("\t{module} => {module} {version}\n"));
    }
    text.push_str(")\n");
    Ok(text)
}

/// Module and version of every line of the `require` blocks.
fn requirements(go_mod: &str) -> Vec<(&str, &str)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in go_mod.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        match line {
            "require (" => inside = true,
            ")" => inside = false,
            _ => {
                let line = line.strip_prefix("require ").or(inside.then_some(line));
                found.extend(line.and_then(|line| line.split_once(' ')));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = "// Generated.\nmodule k8s.io/kubernetes\n\ngo 1.24.0\n\ngodebug default=go1.24\n\n\
        require (\n\tgo.etcd.io/etcd/client/v3 v3.6.4\n\tk8s.io/api v0.0.0\n\tk8s.io/utils v0.0.0-2025\n)\n\n\
        require (\n\tgopkg.in/yaml.v3 v3.0.1 // indirect\n)\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";

    #[test]
    fn the_libraries_of_kubernetes_are_taken_from_the_release() {
        let text = beside_kubernetes("1.34.4", UPSTREAM, &[("helm.sh/helm/v3", "3.19.0")]).unwrap();
        for line in [
            "\tk8s.io/kubernetes v1.34.4",
            "\tgo.etcd.io/etcd/server/v3 v3.6.4",
            "\thelm.sh/helm/v3 v3.19.0",
            "\tk8s.io/api => k8s.io/api v0.34.4",
            "\tk8s.io/utils => k8s.io/utils v0.0.0-2025",
            "\tgopkg.in/yaml.v3 => gopkg.in/yaml.v3 v3.0.1",
            "godebug default=go1.24",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is missing in\n{text}");
        }
        assert!(!text.contains("staging"));
    }

    #[test]
    fn a_kubernetes_without_etcd_is_an_error() {
        assert!(beside_kubernetes("1.34.4", "module k8s.io/kubernetes\n", &[]).is_err());
    }

    #[test]
    fn another_source_is_another_stamp() {
        let module = |text| Module { folder: PathBuf::new(), targets: &[], sources: text }.stamp(&["1"]);
        assert_ne!(module(&[("main.go", "a")]), module(&[("main.go", "b")]));
        assert_eq!(module(&[("main.go", "a")]), module(&[("main.go", "a")]));
    }

    #[test]
    fn the_programs_know_their_version() {
        assert!(version_flags("1.34.4").ends_with("gitMinor=34"));
        assert!(version_flags("1.34.4").contains("gitVersion=v1.34.4 "));
    }
}
