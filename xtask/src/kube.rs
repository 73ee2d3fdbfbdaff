//! The parts of a real Kubernetes, built from their Go modules into `.tools/kube-<version>/bin`.
//!
//! Nothing is downloaded but Go modules, and nothing is built twice: each module leaves a stamp of what it was built from. The
//! binaries are static and carry no paths, so they also stand in images.

mod module;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::golang::Go;
use crate::repo::Repo;
use crate::step;
use module::{Module, Target};

/// The release of Kubernetes: the last one whose kubelet takes cgroup v1 without a switch and a containerd before 2.0.
pub const KUBERNETES: &str = "1.34.4";
/// The newest CoreDNS whose Kubernetes libraries are those of [`KUBERNETES`]: they are compiled once.
pub const COREDNS: &str = "1.12.4";
/// The newest Helm that compiles with the libraries of [`KUBERNETES`]; later ones want a newer pflag.
const HELM: &str = "3.19.0";
/// The newest Gateway API whose conformance suite builds with Go 1.26.
const GATEWAY_API: &str = "1.6.3";

/// Where the built tools are.
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The tools of this tree, whether they are built or not.
    pub fn of(repo: &Repo) -> Self {
        Self { folder: repo.tools().join(format!("kube-{KUBERNETES}")) }
    }

    /// A program by its name: `kubelet`, `kubectl`, `etcd`, `helm`, `coredns`.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The custom resource definitions of the Gateway API: a folder with `standard` and `experimental`.
    pub fn gateway_crds(&self) -> PathBuf {
        self.folder.join("gateway-crds")
    }
}

/// Builds what a cluster is made of, if it is not there.
pub fn ensure_cluster(repo: &Repo) -> Result<Tools> {
    let tools = Tools::of(repo);
    let build = Build { repo, tools: &tools };
    let targets = [
        Target::Kubernetes(&[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ]),
        Target::Program("etcd", "go.etcd.io/etcd/server/v3"),
        Target::Program("coredns", "./coredns"),
        Target::Program("helm", "helm.sh/helm/v3/cmd/helm"),
    ];
    let sources = &[("coredns/main.go", include_str!("../kube/coredns/main.go"))];
    build.module("cluster", &targets, sources, |go, folder| {
        let upstream = module::download(go, folder, "k8s.io/kubernetes", KUBERNETES)?;
        let text = fs::read_to_string(&upstream.go_mod).context("the go.mod of Kubernetes")?;
        module::beside_kubernetes(
            KUBERNETES,
            &text,
            &[("github.com/coredns/coredns", COREDNS), ("helm.sh/helm/v3", HELM)],
        )
    })?;
    Ok(tools)
}

/// Builds the conformance suite of the Gateway API (`gateway-conformance`, a Go test binary) and its echo server
/// (`echo-basic`), if they are not there, and unpacks the definitions that belong to them.
pub fn ensure_conformance(repo: &Repo) -> Result<Tools> {
    let tools = Tools::of(repo);
    let build = Build { repo, tools: &tools };
    let targets = [
        Target::Test("gateway-conformance", "sigs.k8s.io/gateway-api/conformance"),
        Target::Program("echo-basic", "sigs.k8s.io/gateway-api/conformance/echo-basic"),
    ];
    let definitions = tools.gateway_crds();
    build.module("conformance", &targets, &[], |go, folder| {
        let api = module::download(go, folder, "sigs.k8s.io/gateway-api", GATEWAY_API)?;
        for channel in ["standard", "experimental"] {
            copy_files(&api.folder.join("config/crd").join(channel), &definitions.join(channel))?;
        }
        Ok(module::requiring(&[
            ("sigs.k8s.io/gateway-api", GATEWAY_API),
            ("sigs.k8s.io/gateway-api/conformance", GATEWAY_API),
        ]))
    })?;
    Ok(tools)
}

struct Build<'a> {
    repo: &'a Repo,
    tools: &'a Tools,
}

impl Build<'_> {
    /// Builds one module, unless its stamp says that this was done already from the same input.
    fn module(
        &self,
        name: &str,
        targets: &[Target],
        sources: &[(&str, &str)],
        go_mod: impl Fn(&Go, &Path) -> Result<String>,
    ) -> Result<()> {
        let module = Module { folder: self.tools.folder.join("src").join(name), targets, sources };
        let stamp = self.tools.folder.join(format!("{name}.stamp"));
        let wanted = module.stamp(&[KUBERNETES, COREDNS, HELM, GATEWAY_API]);
        let there = |program: &str| self.tools.bin(program).is_file();
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && module.programs().all(there) {
            return Ok(());
        }
        let go = Go::ensure(self.repo)?;
        module.write(&go, go_mod)?;
        let bin = self.tools.folder.join("bin");
        fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        for target in targets {
            let mut command = go.command(&module.folder);
            target.build(KUBERNETES, &bin, &mut command);
            step::quietly(&format!("build {}", target.programs().join(", ")), &mut command)?;
        }
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
    }
}

/// Copies the plain files of a folder. The module cache is read-only, what is copied out of it must not be.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let text = fs::read(entry.path())?;
            fs::write(to.join(entry.file_name()), text)?;
        }
    }
    Ok(())
}
