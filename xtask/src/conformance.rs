//! The Gateway API's own conformance suite, run against the mesh on the test cluster: `cargo xtask conformance`.
//!
//! The suite is a Go test binary built from its module ([`crate::kube`]). Its report goes to `tests/conformance/report.yaml`, its log to
//! `target/conformance.log`. Invariant: a test that did not run is never counted as passed, and the verb fails if any of [`REQUIRED`] did not
//! pass.

mod outcome;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::cluster::{self, Kubectl};
use crate::kube::{self, Tools};
use crate::repo::Repo;
use crate::report::Tally;
use crate::{images, product, step};
use outcome::{Outcome, Outcomes};

/// What a mesh is measured by.
const PROFILES: &str = "MESH-HTTP,MESH-GRPC";
/// Features beyond the core of the profiles that the mesh says it has.
const CLAIMED: &[&str] = &[
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
];
/// Features of the suite's mesh tests that are not built; `--all` runs their tests too.
const NOT_BUILT: &[&str] = &[
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
];
/// The tests that must pass.
const REQUIRED: &[&str] = &[
    "MeshBasic",
    "MeshHTTPRouteMatching",
    "MeshHTTPRouteRequestHeaderModifier",
    "MeshHTTPRouteSimpleSameNamespace",
    "MeshHTTPRouteWeight",
    "MeshTrafficSplit",
];
/// Core tests that fail because what they ask for is not built yet: redirects, GRPCRoutes. Each takes minutes to give up.
const FAILING: &[&str] = &["MeshGRPCRouteWeight", "MeshHTTPRouteRedirectHostAndStatus"];
/// The label that puts the suite's namespaces into the mesh.
const ENROLLED: &str = "tulle.dev/mesh=enabled";
/// The namespace and the name of the node agent.
const AGENT: [&str; 2] = ["tulle-system", "mesh-node"];
/// A hung suite ends itself; each failing test takes up to half a minute for each of its cases.
const LONGEST: &str = "-test.timeout=45m";

/// What is run.
#[derive(clap::Args)]
pub struct Options {
    /// Only this test, by its short name: `MeshTrafficSplit`; the report stays as it is
    #[arg(long)]
    only: Option<String>,
    /// Also the tests of features that are not built
    #[arg(long)]
    all: bool,
    /// Take the binaries that are there
    #[arg(long)]
    no_build: bool,
    /// Leave the suite's namespaces and routes there, to look at them
    #[arg(long)]
    keep: bool,
}

/// The verb `conformance`.
pub fn run(repo: &Repo, options: &Options) -> Result<ExitCode> {
    if !options.no_build {
        product::build(repo)?;
    }
    let report = match options.only {
        None => repo.path("tests/conformance/report.yaml"),
        Some(_) => scratch_report(repo),
    };
    let outcomes = outcomes(repo, &options.arguments(), &report)?;
    println!("{}", outcomes.table(REQUIRED));
    if options.only.is_none() {
        println!("report: {}", report.display());
    }
    Ok(if is_good(&outcomes, options.only.as_deref()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The suite as a part of the cluster's tests, without the tests that are known to fail.
pub fn tally(repo: &Repo) -> Result<Tally> {
    let arguments = [features(CLAIMED), format!("--skip-tests={}", FAILING.join(","))];
    Ok(outcomes(repo, &arguments, &scratch_report(repo))?.tally(REQUIRED))
}

/// What becomes of the report of a run that is not the whole suite's.
fn scratch_report(repo: &Repo) -> PathBuf {
    repo.path("target/conformance-report.yaml")
}

/// Prepares the cluster, runs the suite, and reads its log.
fn outcomes(repo: &Repo, chosen: &[String], report: &Path) -> Result<Outcomes> {
    let tools = kube::ensure_conformance(repo)?;
    let kubectl = Kubectl::of(&tools);
    ensure_mesh(&kubectl)?;
    step::work("the suite's images on both nodes", || {
        images::write_conformance(repo).and_then(|archives| cluster::load_archives(&archives))
    })?;
    step::work("the definitions of the Gateway API", || apply_definitions(&tools, &kubectl))?;
    let log = repo.path("target/conformance.log");
    step::work(&format!("the suite {PROFILES}; it says more in {}", log.display()), || {
        suite(&tools, chosen, report, &log)
    })?;
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Outcomes::parse(&text))
}

/// Whether everything passed that must: one test, if that one was asked for.
fn is_good(outcomes: &Outcomes, only: Option<&str>) -> bool {
    match only {
        Some(name) => outcomes.of(name) == Some(Outcome::Passed),
        None => REQUIRED.iter().all(|name| outcomes.of(name) == Some(Outcome::Passed)),
    }
}

/// Every node runs an agent that is ready.
fn ensure_mesh(kubectl: &Kubectl) -> Result<()> {
    let [namespace, name] = AGENT;
    let found = kubectl.json(&["get", "daemonset", name, "--namespace", namespace]);
    let agents = match found {
        Ok(agents) => agents,
        Err(problem) => bail!(
            "no mesh on the test cluster ({problem}): `cargo xtask cluster up`, `cargo xtask cluster load`, `meshctl install`"
        ),
    };
    let count = |field: &str| agents.pointer(&format!("/status/{field}")).and_then(serde_json::Value::as_u64);
    match (count("numberReady"), count("desiredNumberScheduled")) {
        (Some(ready), Some(wanted)) if ready == wanted && ready > 0 => Ok(()),
        (ready, wanted) => {
            bail!("{} of {} node agents are ready", ready.unwrap_or_default(), wanted.unwrap_or_default())
        }
    }
}

/// The suite insists on definitions of its own version; those of one channel only.
fn apply_definitions(tools: &Tools, kubectl: &Kubectl) -> Result<()> {
    let folder = tools.gateway_crds().join("standard");
    for file in definitions(&folder)? {
        let file = file.to_string_lossy().into_owned();
        // The largest are too long for the annotation that a client-side apply leaves.
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename", &file];
        kubectl.output(&arguments).map_err(|problem| anyhow::anyhow!("{file}: {problem}"))?;
    }
    let route = "crd/httproutes.gateway.networking.k8s.io";
    kubectl
        .output(&["wait", "--for=condition=Established", route])
        .map(drop)
        .map_err(|problem| anyhow::anyhow!("{route}: {problem}"))
}

/// The manifests of a channel, without what is for kustomize.
fn definitions(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("gateway.networking") && name.ends_with(".yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs the suite. That tests fail is no error here: the log says which.
fn suite(tools: &Tools, chosen: &[String], report: &Path, log: &Path) -> Result<()> {
    for file in [report, log] {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log")?;
    let mut command = Command::new(tools.bin("gateway-conformance"));
    command
        .args(always(report))
        .args(chosen)
        .env("KUBECONFIG", cluster::kubeconfig())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = command.status().context("cannot start the suite")?;
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => bail!("the suite ended with {status}; see {}", log.display()),
    }
}

/// The arguments of every run.
fn always(report: &Path) -> [String; 11] {
    [
        "-test.run=^TestConformance$".to_owned(),
        "-test.v".to_owned(),
        LONGEST.to_owned(),
        format!("--conformance-profiles={PROFILES}"),
        format!("--namespace-labels={ENROLLED}"),
        "--organization=tulle".to_owned(),
        "--project=tulle".to_owned(),
        "--url=https://tulle.dev".to_owned(),
        "--contact=https://tulle.dev".to_owned(),
        format!("--version=v{}", env!("CARGO_PKG_VERSION")),
        format!("--report-output={}", report.display()),
    ]
}

fn features(names: &[&str]) -> String {
    format!("--supported-features={}", names.join(","))
}

impl Options {
    /// What of the suite is run.
    fn arguments(&self) -> Vec<String> {
        let mut claimed = CLAIMED.to_vec();
        claimed.extend_from_slice(if self.all { NOT_BUILT } else { &[] });
        let mut arguments = vec![features(&claimed)];
        arguments.extend(self.only.iter().map(|name| format!("--run-test={name}")));
        if self.keep {
            arguments.extend(["base", "test"].map(|part| format!("--cleanup-{part}-resources=false")));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_test_that_did_not_run_is_a_failure() {
        let passed = |name: &&str| format!("    --- PASS: TestConformance/{name} (1.00s)\n");
        let all: String = REQUIRED.iter().map(passed).collect();
        assert!(is_good(&Outcomes::parse(&all), None));
        let but_one: String = REQUIRED.iter().skip(1).map(passed).collect();
        assert!(!is_good(&Outcomes::parse(&but_one), None));
        let skipped = format!("{but_one}    --- SKIP: TestConformance/{} (0.00s)\n", REQUIRED[0]);
        assert!(!is_good(&Outcomes::parse(&skipped), None));
        assert!(is_good(&Outcomes::parse(&but_one), Some(REQUIRED[1])));
        assert!(!is_good(&Outcomes::parse(&but_one), Some(REQUIRED[0])));
    }

    #[test]
    fn only_what_is_built_is_claimed() {
        let arguments = |all| {
            Options { only: Some("MeshBasic".to_owned()), all, no_build: false, keep: true }.arguments()
        };
        let claimed = arguments(false);
        assert!(claimed.iter().any(|one| one.contains("MeshConsumerRoute") && !one.contains("RewritePath")));
        assert!(claimed.contains(&"--run-test=MeshBasic".to_owned()));
        assert!(claimed.contains(&"--cleanup-test-resources=false".to_owned()));
        assert!(arguments(true).iter().any(|one| one.contains("RewritePath")));
    }

    #[test]
    fn nothing_is_both_required_and_known_to_fail() {
        assert!(!REQUIRED.iter().any(|name| FAILING.contains(name)));
    }
}
