//! What the labels would give, and what would be wrong then: the controller's compilation, run here on the cluster's objects.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use mesh_api::{
    Options,
    compile::{Compiled, Enrolled, EnrolmentDecision, compile},
    diagnostic::{Code, Diagnostic, Origin, Severity},
    index::Index,
    object::Kind,
    parse,
};
use mesh_model::{name::Namespace, resource::Resource};
use serde_json::Value;

use super::{Member, PodReport};
use crate::{
    cli::{Target, TargetKind},
    cluster::Cluster,
    exit::Failure,
};

/// How the controller of this cluster reads its objects.
#[derive(Clone, Debug)]
pub struct Settings {
    own_namespace: String,
    istio_labels: bool,
}

#[cfg(test)]
impl Settings {
    /// As if a controller ran so.
    pub fn for_tests(own_namespace: &str, istio_labels: bool) -> Self {
        Self { own_namespace: own_namespace.to_owned(), istio_labels }
    }
}

/// Asks the running controller's Deployment, so that this compilation means what the controller's does.
pub async fn settings(cluster: &Cluster) -> Result<Settings, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
    let controller = deployments
        .get_opt("mesh-controller")
        .await
        .map_err(|error| Failure::from_kube("cannot see the controller", &error))?
        .ok_or_else(|| {
            Failure::unreachable(format!("the mesh is not installed in namespace {}", cluster.mesh_namespace))
                .hint("run `meshctl install`, or name its namespace with --mesh-namespace")
        })?;
    let containers = controller.spec.and_then(|spec| spec.template.spec).map(|pod| pod.containers);
    let istio_labels = containers
        .iter()
        .flatten()
        .flat_map(|container| container.env.iter().flatten())
        .find(|variable| variable.name == "MESH_COMPAT_ISTIO_LABELS")
        .is_some_and(|variable| variable.value.as_deref() == Some("true"));
    Ok(Settings { own_namespace: cluster.mesh_namespace.clone(), istio_labels })
}

/// The outcome of one compilation, as far as it concerns the target.
pub struct Preview {
    /// The target's pods.
    pub members: Vec<Member>,
    /// Findings on the target and on objects of its namespace, the worst first.
    pub findings: Vec<(Severity, String)>,
    /// Why a label on the target would have no effect, if it would have none.
    pub in_vain: Option<String>,
}

impl Preview {
    /// Compiles these objects, as if everything that the labels want were captured.
    pub fn of(settings: &Settings, objects: &[Value], target: &Target) -> Self {
        let mut index = Index::with_options(Options {
            istio_labels: settings.istio_labels,
            ..Options::on_cluster(Namespace::new(settings.own_namespace.as_str()))
        });
        for object in objects {
            let _ = index.apply_file(parse::parse_value(&origin(object), object));
        }
        let wanted = |compiled: &Compiled| -> BTreeSet<_> {
            let wanted = |(_, decision): &(_, &EnrolmentDecision)| **decision == EnrolmentDecision::Wanted;
            compiled.enrolment.iter().filter(wanted).map(|(uid, _)| uid.clone()).collect()
        };
        let captured = wanted(&compile(&index, &Enrolled::default()));
        let compiled = compile(&index, &Enrolled { published: captured.clone(), captured });
        let concerning = || compiled.diagnostics.iter().filter(|finding| concerns(finding, target));
        let members = members(&compiled, target);
        let wants_any = members.iter().any(|member| member.decision == EnrolmentDecision::Wanted);
        let in_vain = concerning()
            .find(|finding| finding.code == Code::LabelWithoutEffect && is_target(finding, target))
            .filter(|_| !wants_any)
            .map(|finding| finding.message.clone());
        Self {
            members,
            findings: concerning().map(|finding| (finding.severity, line(finding))).collect(),
            in_vain,
        }
    }

    /// How many of the findings are errors.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|(severity, _)| *severity == Severity::Error).count()
    }

    /// Whether any pod of the target is wanted in the mesh.
    pub fn wants_any(&self) -> bool {
        self.members.iter().any(|member| member.decision == EnrolmentDecision::Wanted)
    }

    /// What the labels give each pod, where nobody waits for the nodes.
    pub fn planned(&self) -> Vec<PodReport> {
        let report = |member: &Member| {
            let (state, reason) = match &member.decision {
                EnrolmentDecision::Wanted => ("wanted", String::new()),
                EnrolmentDecision::NotWanted => ("not wanted", String::new()),
                EnrolmentDecision::Refused(reason) => ("refused", reason.clone()),
            };
            let good = !matches!(member.decision, EnrolmentDecision::Refused(_));
            PodReport {
                pod: member.pod.clone(),
                node: member.node.clone(),
                state: state.to_owned(),
                reason,
                good,
            }
        };
        self.members.iter().map(report).collect()
    }
}

fn members(compiled: &Compiled, target: &Target) -> Vec<Member> {
    let workloads = compiled.resources.values().filter_map(|resource| match resource {
        Resource::Workload(workload) => Some(workload),
        _ => None,
    });
    workloads
        .filter(|workload| target.has_pod(workload.namespace.as_str(), &workload.name))
        .map(|workload| Member {
            uid: workload.uid.clone(),
            pod: format!("{}/{}", workload.namespace, workload.name),
            node: workload.node.to_string(),
            decision: compiled.enrolment.get(&workload.uid).cloned().unwrap_or(EnrolmentDecision::NotWanted),
        })
        .collect()
}

/// The finding without its origin: here every object comes from the cluster.
fn line(finding: &Diagnostic) -> String {
    Diagnostic { origin: None, ..finding.clone() }.to_string()
}

/// A finding on the very object that carries the label.
fn is_target(finding: &Diagnostic, target: &Target) -> bool {
    finding.object.as_ref().is_some_and(|object| match target.kind {
        TargetKind::Namespace => object.kind == Kind::Namespace && *object.name == *target.name,
        TargetKind::Pod => {
            object.kind == Kind::Pod && *object.name == *target.name && *object.namespace == *target.namespace
        }
    })
}

/// A finding on an object of the target's namespace, or on the namespace itself.
fn concerns(finding: &Diagnostic, target: &Target) -> bool {
    finding.object.as_ref().is_some_and(|object| {
        &*object.namespace == target.namespace()
            || (object.namespace.is_empty() && &*object.name == target.namespace())
    })
}

fn origin(object: &Value) -> Origin {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let name = [text(&metadata["namespace"]), text(&metadata["name"])];
    let name = name.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    Origin { file: format!("{} {name}", text(&object["kind"])).into(), line: 0 }
}
