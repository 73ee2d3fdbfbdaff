//! Who may know whom: the arrows of DESIGN §2, compared with what cargo resolves.
//!
//! Arrows between our crates are compared as written in the manifests; what a crate must never know is searched for
//! in everything that it pulls in, because a dependency of a dependency is linked just the same.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::repo::Repo;
use crate::step;

/// What one crate of ours may and must not know.
struct Rule {
    name: &'static str,
    /// Crates of ours that it may depend on.
    ours: &'static [&'static str],
    /// What it must not name in its manifest.
    not_named: &'static [&'static str],
    /// What must not be linked into it, by whatever way.
    never: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { name: "mesh-abi", ours: &[], not_named: &["libc", "serde"], never: &["kube", "prost"] },
    Rule {
        name: "mesh-model",
        ours: &[],
        not_named: &["serde"],
        never: &["tokio", "kube", "k8s-openapi", "prost", "tonic", "aya", "hyper"],
    },
    Rule {
        name: "mesh-api",
        ours: &["mesh-model"],
        not_named: &[],
        never: &["kube", "tokio", "tonic", "prost", "aya"],
    },
    Rule {
        name: "mesh-proto",
        ours: &["mesh-model"],
        not_named: &[],
        never: &["kube", "k8s-openapi", "aya"],
    },
    Rule { name: "mesh-ebpf", ours: &["mesh-abi"], not_named: &[], never: &["aya", "tokio"] },
    Rule {
        name: "mesh-node",
        ours: &["mesh-abi", "mesh-model", "mesh-proto"],
        not_named: &["serde_yaml_ng"],
        never: &["kube", "k8s-openapi", "mesh-api"],
    },
    Rule {
        name: "mesh-controller",
        ours: &["mesh-model", "mesh-api", "mesh-proto"],
        not_named: &[],
        never: &["aya", "mesh-abi"],
    },
    Rule {
        name: "mesh-ctl",
        ours: &["mesh-model", "mesh-api", "mesh-proto"],
        not_named: &[],
        never: &["aya", "mesh-abi"],
    },
    Rule { name: "mesh-apps", ours: &[], not_named: &[], never: &["kube", "aya"] },
    Rule {
        name: "mesh-tests",
        ours: &["mesh-abi", "mesh-model", "mesh-api", "mesh-proto", "mesh-apps"],
        not_named: &[],
        never: &["mesh-node", "mesh-controller"],
    },
    Rule { name: "xtask", ours: &[], not_named: &[], never: &["tokio", "kube", "aya"] },
];

/// Packages and what they depend on, without what only their tests use.
#[derive(Default)]
pub struct Graph {
    /// Our crates.
    pub members: BTreeSet<String>,
    /// Every package, by name, and the names it links.
    pub links: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// The graphs of the workspace and of mesh-ebpf, which stands outside of it.
    pub fn load(repo: &Repo) -> Result<Vec<Self>> {
        let graph = |manifest: &str| {
            let mut cargo = Command::new("cargo");
            // Without a platform cargo would fetch the packages of every other system as well.
            let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            cargo.args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                &platform,
                "--manifest-path",
            ]);
            cargo.arg(repo.path(manifest));
            let text = step::output_of(&mut cargo)?;
            Self::parse(&text).with_context(|| format!("cannot read cargo metadata of {manifest}"))
        };
        ["Cargo.toml", "mesh-ebpf/Cargo.toml"].into_iter().map(graph).collect()
    }

    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Metadata = serde_json::from_str(metadata)?;
        let names: BTreeMap<&str, &str> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let name_of = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |name| (*name).to_owned());
        let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in &metadata.resolve.nodes {
            let normal = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            // Two releases of a package count as one: the rules are about names.
            links.entry(name_of(&node.id)).or_default().extend(normal.map(|dep| name_of(&dep.pkg)));
        }
        let members = metadata.workspace_members.iter().map(|id| name_of(id)).collect();
        Ok(Self { members, links })
    }

    fn named_by(&self, name: &str) -> BTreeSet<&str> {
        self.links.get(name).into_iter().flatten().map(String::as_str).collect()
    }

    /// Every package that `name` links, with the one that pulls it in.
    fn linked_by<'a>(&'a self, name: &'a str) -> BTreeMap<&'a str, &'a str> {
        let mut found = BTreeMap::new();
        let mut open = vec![name];
        while let Some(package) = open.pop() {
            for next in self.named_by(package) {
                if next != name && !found.contains_key(next) {
                    found.insert(next, package);
                    open.push(next);
                }
            }
        }
        found
    }
}

/// Arrows that point where they must not.
pub fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &graph.members {
        let mut say = |what: String| findings.push(Finding { place: format!("{member}/Cargo.toml"), what });
        let Some(rule) = RULES.iter().find(|rule| rule.name == member) else {
            say("has no row in the table of arrows (xtask/src/tidy/edges.rs)".to_owned());
            continue;
        };
        for name in graph.named_by(member) {
            if is_ours(name) && !rule.ours.contains(&name) {
                say(format!("{member} must not depend on {name}: arrows point down only"));
            } else if rule.not_named.contains(&name) {
                say(format!("{member} must not know {name}"));
            }
        }
        for (name, through) in graph.linked_by(member) {
            if rule.never.contains(&name) {
                say(format!("{member} must not link {name}, which comes through {through}"));
            }
        }
    }
    findings
}

/// By the table, because mesh-abi is no member of mesh-ebpf's workspace.
fn is_ours(name: &str) -> bool {
    RULES.iter().any(|rule| rule.name == name)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Absent for what is linked; `dev` or `build` otherwise.
    kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(links: &[(&str, &[&str])]) -> Graph {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let members = links.iter().map(|(name, _)| *name).filter(|name| name.starts_with("mesh-"));
        Graph {
            members: members.map(str::to_owned).collect(),
            links: links.iter().map(|(name, to)| ((*name).to_owned(), owned(to))).collect(),
        }
    }

    #[test]
    fn arrows_downwards_are_fine() {
        let good = graph(&[("mesh-api", &["mesh-model", "serde"]), ("mesh-model", &["http"]), ("http", &[])]);
        assert_eq!(check(&good), []);
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let bad = graph(&[("mesh-model", &["mesh-api"]), ("mesh-api", &[])]);
        assert_eq!(check(&bad).len(), 1);
    }

    #[test]
    fn a_library_that_must_not_be_known_is_found() {
        assert_eq!(check(&graph(&[("mesh-model", &["serde"])])).len(), 1);
        assert_eq!(check(&graph(&[("mesh-controller", &["aya"])])).len(), 1);
    }

    #[test]
    fn so_is_one_that_comes_through_another() {
        let bad = graph(&[("mesh-node", &["client"]), ("client", &["kube"]), ("kube", &[])]);
        assert!(check(&bad)[0].what.contains("through client"));
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert_eq!(check(&graph(&[("mesh-new", &[])])).len(), 1);
    }

    #[test]
    fn what_only_tests_use_is_not_linked() {
        let text = r#"{"packages":[{"id":"m","name":"mesh-model"},{"id":"t","name":"tokio"}],
            "workspace_members":["m"],
            "resolve":{"nodes":[{"id":"m","deps":[{"pkg":"t","dep_kinds":[{"kind":KIND}]}]},{"id":"t","deps":[]}]}}"#;
        let findings = |kind: &str| check(&Graph::parse(&text.replace("KIND", kind)).unwrap()).len();
        assert_eq!(findings("\"dev\""), 0);
        assert_eq!(findings("null"), 1);
    }
}
