//! `meshctl enroll` and `unenroll`: what would change is compiled here first, by the controller's own code; then the label is set; then
//! the nodes' word is awaited.
//!
//! Invariant: meshctl only sets a label. Who is captured is decided by the controller and reported by the nodes.

pub mod preview;
mod settle;

use std::process::ExitCode;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mesh_api::diagnostic::Severity;
use mesh_api::object::ENROLMENT_LABEL;
use mesh_model::name::WorkloadUid;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::{EnrollArgs, Globals, Target, TargetKind},
    cluster::{Cluster, objects},
    exit::Failure,
    install::MANAGER,
    print::{Answer, Grid, verdict},
    progress::Progress,
};
use preview::Preview;
use settle::Wanted;

/// What the label shall say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Enabled,
    Disabled,
    Absent,
}

#[derive(Serialize)]
struct Report {
    target: String,
    /// `enabled`, `disabled`, or nothing.
    label: Option<&'static str>,
    pods: Vec<PodReport>,
    findings: Vec<String>,
}

/// One pod of the target, after the change.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct PodReport {
    pod: String,
    node: String,
    state: String,
    reason: String,
    /// As it was asked for.
    good: bool,
}

/// Puts a namespace or a pod into the mesh.
pub async fn enroll(globals: &Globals, args: &EnrollArgs) -> Result<ExitCode, Failure> {
    change(globals, args, true).await
}

/// Takes a namespace or a pod out of the mesh.
pub async fn unenroll(globals: &Globals, args: &EnrollArgs) -> Result<ExitCode, Failure> {
    change(globals, args, false).await
}

async fn change(globals: &Globals, args: &EnrollArgs, into: bool) -> Result<ExitCode, Failure> {
    let cluster = Cluster::connect(globals).await?;
    let mut progress = Progress::new();
    progress.now("reading the cluster");
    let settings = preview::settings(&cluster).await?;
    let facts = objects::all(&cluster).await?;
    let target = &args.target;
    if !facts.iter().any(|object| target.is(object)) {
        return Err(Failure::bad_input(format!("there is no {target}")));
    }
    let label = if into { Label::Enabled } else { opposite(&settings, &facts, target) };
    let preview = Preview::of(&settings, &relabelled(&facts, target, label), target);
    let refused = preview.errors();
    let worth = preview.findings.iter().filter(|(severity, _)| *severity != Severity::Info);
    worth.for_each(|(_, finding)| progress.warn(finding));
    if let (true, Some(reason)) = (into, &preview.in_vain) {
        return Err(Failure::bad_input(format!("{target} cannot be enrolled: {reason}")));
    }
    if into && refused > 0 && !args.force {
        return Err(Failure::bad_input(format!(
            "{target} is not enrolled: {refused} of the findings above are errors"
        ))
        .hint("mend them, or say --force"));
    }
    if !args.dry_run {
        write(&cluster, target, label).await?;
        progress.done(&match label.text() {
            Some(text) => format!("{target} is labelled {ENROLMENT_LABEL}={text}"),
            None => format!("{target} is no longer labelled"),
        });
    }
    let pods = match args.wait && !args.dry_run {
        true => {
            let want = if into { Wanted::Captured } else { Wanted::Free };
            settle::wait(&cluster, &preview, want, globals.patience(), &mut progress).await?
        }
        false => preview.planned(),
    };
    drop(progress);
    let good = pods.iter().all(|pod| pod.good);
    let findings = preview.findings.into_iter().map(|(_, finding)| finding).collect();
    let report = Report { target: target.to_string(), label: label.text(), pods, findings };
    report.answer().print(globals.output)?;
    Ok(verdict(good))
}

/// The weakest label by which the target is out: none, unless something else would still enrol it.
fn opposite(settings: &preview::Settings, facts: &[Value], target: &Target) -> Label {
    let without = Preview::of(settings, &relabelled(facts, target, Label::Absent), target);
    if without.wants_any() { Label::Disabled } else { Label::Absent }
}

/// The facts as if the target were enrolled.
pub fn as_enrolled(facts: &[Value], target: &Target) -> Vec<Value> {
    relabelled(facts, target, Label::Enabled)
}

/// The facts as if the target's label were this.
fn relabelled(facts: &[Value], target: &Target, label: Label) -> Vec<Value> {
    let mut facts = facts.to_vec();
    for object in facts.iter_mut().filter(|object| target.is(object)) {
        let Some(metadata) = object["metadata"].as_object_mut() else { continue };
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            match label.text() {
                Some(text) => drop(labels.insert(ENROLMENT_LABEL.to_owned(), text.into())),
                None => drop(labels.remove(ENROLMENT_LABEL)),
            }
        }
    }
    facts
}

async fn write(cluster: &Cluster, target: &Target, label: Label) -> Result<(), Failure> {
    let patch = Patch::Merge(json!({ "metadata": { "labels": { ENROLMENT_LABEL: label.text() } } }));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let client = cluster.client.clone();
    let written = match target.kind {
        TargetKind::Namespace => {
            Api::<Namespace>::all(client).patch(&target.name, &parameters, &patch).await.map(drop)
        }
        TargetKind::Pod => Api::<Pod>::namespaced(client, &target.namespace)
            .patch(&target.name, &parameters, &patch)
            .await
            .map(drop),
    };
    written.map_err(|error| Failure::from_kube(&format!("cannot label {target}"), &error))
}

impl Target {
    /// Whether this object is it.
    fn is(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        match self.kind {
            TargetKind::Namespace => object["kind"] == "Namespace" && metadata["name"] == *self.name,
            TargetKind::Pod => {
                object["kind"] == "Pod"
                    && metadata["name"] == *self.name
                    && metadata["namespace"] == *self.namespace
            }
        }
    }

    /// Whether the pod is it, or in it.
    fn has_pod(&self, namespace: &str, name: &str) -> bool {
        match self.kind {
            TargetKind::Namespace => namespace == self.name,
            TargetKind::Pod => namespace == self.namespace && name == self.name,
        }
    }

    /// The namespace whose objects concern it.
    fn namespace(&self) -> &str {
        match self.kind {
            TargetKind::Namespace => &self.name,
            TargetKind::Pod => &self.namespace,
        }
    }
}

impl Label {
    fn text(self) -> Option<&'static str> {
        match self {
            Self::Enabled => Some("enabled"),
            Self::Disabled => Some("disabled"),
            Self::Absent => None,
        }
    }
}

impl Report {
    fn answer(self) -> Answer<Self> {
        let rows = self
            .pods
            .iter()
            .map(|pod| [&pod.pod, &pod.node, &pod.state, &pod.reason].into_iter().cloned().collect())
            .collect();
        let names = self.pods.iter().map(|pod| pod.pod.clone()).collect();
        let good = self.pods.iter().filter(|pod| pod.good).count();
        let summary = vec![format!("{}: {good} of {} pods as asked for", self.target, self.pods.len())];
        let grid =
            Grid { title: String::new(), head: vec!["POD", "NODE", "STATE", "REASON"], rows, wide_from: 4 };
        Answer { kind: "Enrolment", data: self, summary, tables: vec![grid], names }
    }
}

/// A pod of the target: its UID by which nodes report it, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    uid: WorkloadUid,
    pod: String,
    node: String,
    /// What the labels give it.
    decision: mesh_api::compile::EnrolmentDecision,
}

#[cfg(test)]
mod tests;
