//! `meshctl install`: renders the chart, applies it by server-side apply, and waits until it runs.
//!
//! Invariant: the objects are the chart's. Only the label that says who manages them is added, as Helm does.

mod apply;
pub mod ready;

use std::{fs, path::Path, process::ExitCode};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde::Serialize;
use serde_json::Value;

use crate::{
    chart::{self, ChartError, Manifest, Release},
    cli::{Globals, InstallArgs, Profile},
    cluster::Cluster,
    exit::Failure,
    leave,
    print::{self, Answer, Grid, Output},
    progress::{Progress, confirm},
};

pub use apply::{MANAGED_BY, MANAGER};

/// A file of values that is larger than this is refused.
const MAX_VALUES_BYTES: u64 = 1 << 20;
/// What the chart's `compat.istioLabels` says when the cluster shall decide.
const AUTO: &str = "auto";

#[derive(Serialize)]
struct Planned {
    kind: String,
    namespace: String,
    name: String,
}

/// Installs, or prints what would be installed.
pub async fn run(globals: &Globals, args: &InstallArgs) -> Result<ExitCode, Failure> {
    let mut values = values(args)?;
    let release = Release { name: "tulle".to_owned(), namespace: globals.mesh_namespace.clone() };
    if args.dry_run {
        plan(globals.output, chart::crds().map_err(broken)?, render(&release, &values)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::connect(globals).await?;
    let mut progress = Progress::new();
    progress.now("asking the cluster");
    let again = refuse_foreign(&cluster).await?;
    decide_istio_labels(&cluster, &mut values, &mut progress).await?;
    let objects = render(&release, &values)?;
    let question =
        format!("Install Tulle {} into {}, namespace {}?", version(), cluster.name, release.namespace);
    confirm(&question, args.yes)?;

    apply::crds(&cluster, &chart::crds().map_err(broken)?, &mut progress).await?;
    apply::namespace(&cluster, &mut progress).await?;
    apply::objects(&cluster, &objects, &mut progress).await?;
    if leave::back(&cluster).await? {
        progress.done("the mesh was leaving, and stays");
    }
    if args.wait {
        ready::wait(&cluster, globals.patience(), &mut progress).await?;
    }
    drop(progress);
    print::stdout(&format!(
        "Tulle {} is installed in namespace {}. {}: `meshctl enroll ns NAME` puts a namespace into the mesh.",
        version(),
        release.namespace,
        if again { "What was enrolled is enrolled" } else { "Nothing is enrolled by it" },
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The chart's values with the profile, the files and the flags laid over them, in this order.
fn values(args: &InstallArgs) -> Result<Value, Failure> {
    let mut values = chart::default_values().map_err(broken)?;
    match args.profile {
        Profile::Default => {}
    }
    for path in &args.values {
        let over = read_values(path)?;
        chart::merge_file(&mut values, over)
            .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
    }
    for argument in &args.set {
        chart::set(&mut values, argument).map_err(|error| {
            Failure::bad_input(error.to_string()).hint("the values are those of helm/tulle/values.yaml")
        })?;
    }
    Ok(values)
}

fn read_values(path: &Path) -> Result<Value, Failure> {
    let bad = |error: String| Failure::bad_input(format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > MAX_VALUES_BYTES {
        return Err(bad(format!("over {MAX_VALUES_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    serde_yaml_ng::from_str(&text).map_err(|error| bad(error.to_string()))
}

fn render(release: &Release, values: &Value) -> Result<Vec<Manifest>, Failure> {
    chart::render(release, values).map_err(|error| match error {
        // With the chart's own values this is excluded by a test: it is the user's value.
        ChartError::Yaml { .. } => Failure::bad_input(error.to_string())
            .hint("one of the values does not fit where the chart puts it"),
        _ => broken(error),
    })
}

fn broken(error: ChartError) -> Failure {
    Failure::runtime(format!("the embedded chart: {error}"))
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Helm's objects are Helm's: two managers would undo each other's work.
/// True: the mesh is there already, and ours.
async fn refuse_foreign(cluster: &Cluster) -> Result<bool, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let found = deployments
        .get_opt("mesh-controller")
        .await
        .map_err(|error| Failure::from_kube("cannot see whether the mesh is installed", &error))?;
    let again = found.is_some();
    let manager =
        found.and_then(|found| found.metadata.labels).and_then(|mut labels| labels.remove(MANAGED_BY));
    match manager {
        Some(manager) if manager != MANAGER => Err(Failure::bad_input(format!(
            "the mesh in namespace {} is managed by {manager}",
            cluster.mesh_namespace
        ))
        .hint("upgrade it with `helm upgrade`, or remove it with `helm uninstall` first")),
        _ => Ok(again),
    }
}

/// Beside Istio its labels are Istio's; without it they are the mesh's.
async fn decide_istio_labels(
    cluster: &Cluster,
    values: &mut Value,
    progress: &mut Progress,
) -> Result<(), Failure> {
    if values["compat"]["istioLabels"] != AUTO {
        return Ok(());
    }
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "istio-system");
    let istiod = deployments
        .get_opt("istiod")
        .await
        .map_err(|error| Failure::from_kube("cannot see whether Istio is installed", &error))?;
    if istiod.is_some() {
        progress.warn("istiod runs in istio-system: Istio's enrolment labels have no effect on Tulle (compat.istioLabels)");
    }
    values["compat"]["istioLabels"] = Value::Bool(istiod.is_none());
    Ok(())
}

/// Prints the objects as a stream that `kubectl apply -f -` takes, or a list of their names.
fn plan(output: Output, crds: Vec<Manifest>, objects: Vec<Manifest>) -> Result<(), Failure> {
    let all: Vec<Manifest> = crds.into_iter().chain(objects).collect();
    let cannot = |error: String| Failure::runtime(format!("cannot print: {error}"));
    match output {
        Output::Yaml => {
            let documents: Result<Vec<String>, _> = all.iter().map(serde_yaml_ng::to_string).collect();
            let text = documents.map_err(|error| cannot(error.to_string()))?.join("---\n");
            print::stdout(text.trim_end())
        }
        Output::Json => {
            let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": all });
            print::stdout(&serde_json::to_string_pretty(&list).map_err(|error| cannot(error.to_string()))?)
        }
        Output::Table | Output::Wide | Output::Name => table(&all).print(output),
    }
}

fn table(objects: &[Manifest]) -> Answer<Vec<Planned>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let planned: Vec<Planned> = objects
        .iter()
        .map(|object| Planned {
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        })
        .collect();
    let rows = planned.iter().map(|p| vec![p.kind.clone(), p.namespace.clone(), p.name.clone()]).collect();
    let names = planned.iter().map(|p| format!("{}/{}", p.kind.to_lowercase(), p.name)).collect();
    let grid = Grid { title: String::new(), head: vec!["KIND", "NAMESPACE", "NAME"], rows, wide_from: 3 };
    Answer { kind: "InstallPlan", data: planned, summary: Vec::new(), tables: vec![grid], names }
}
