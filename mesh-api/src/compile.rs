//! Facts -> meaning: the resources of the model, and findings for people.
//!
//! One file per subject. Each takes the facts it needs and gives its resources and findings; this file puts them together.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    name::WorkloadUid,
    resource::{Resource, ResourceKey},
    workload::{Enrolment, Tunnel},
};

mod authz;
mod destinations;
mod endpoints;
mod enrolment;
mod gateway;
mod hosts;
mod mesh;
mod mtls;
mod network_policy;
mod owners;
mod pods;
mod routes;
mod services;
mod statics;

use crate::{diagnostic::Diagnostic, index::Index, object::ObjectRef, status::RouteStatus};

/// How far the enrolment hand-shake has come; only the controller knows.
///
/// A workload's `enrolment` is Yes while its labels want it *or* it is in `published`; its `tunnel` is HBONE only while its labels
/// want it *and* it is in `captured`. So un-enrolment needs no special call: the label goes, the next compilation says tunnel NONE
/// with enrolment still Yes, the controller awaits the acknowledgements, takes the workload out of `published` and compiles again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Enrolled {
    /// Workloads whose own node reports them as captured.
    pub captured: BTreeSet<WorkloadUid>,
    /// Workloads that some node may still believe to be HBONE.
    pub published: BTreeSet<WorkloadUid>,
}

/// What the labels want of one workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnrolmentDecision {
    /// It shall be in the mesh.
    Wanted,
    /// It shall not: no label asks for it, or one opts out.
    NotWanted,
    /// A label asks for it, and it cannot be: the reason, for people.
    Refused(String),
}

/// The meaning of an index.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compiled {
    /// What the nodes get.
    pub resources: BTreeMap<ResourceKey, Resource>,
    /// What people get: of parsing, admission and compilation, the worst first.
    pub diagnostics: Vec<Diagnostic>,
    /// What the labels want, for every workload in `resources`.
    pub enrolment: BTreeMap<WorkloadUid, EnrolmentDecision>,
    /// Pods to or from which a NetworkPolicy cuts calls within the mesh, and what to do about it.
    pub cut_off: BTreeMap<WorkloadUid, String>,
    /// Static pods by the UID that their node knows: the UID that the API server's copy has.
    pub mirrored_as: BTreeMap<WorkloadUid, WorkloadUid>,
    /// What each route of the Gateway API is told. Each route that is read has an entry, perhaps an empty one: then what was told
    /// earlier is to be taken back.
    pub route_statuses: BTreeMap<ObjectRef, RouteStatus>,
}

/// Compiles everything. Deterministic: the same index and hand-shake give the same value.
pub fn compile(index: &Index, enrolled: &Enrolled) -> Compiled {
    let mut findings = index.diagnostics();
    let mut mesh = mesh::settings(index, &mut findings);
    let pods = pods::live(index, &mut findings);
    let services = services::compile(index, &pods, &mut findings);
    let hosts = hosts::Hosts::new(index, &services);
    let destinations = destinations::compile(index, &hosts, &pods, &mut findings);
    let gateway = gateway::compile(index, &mesh, &services, &mut findings);
    let routes = routes::compile(index, &mesh, &hosts, &destinations, &gateway.tables, &mut findings);
    let authz = authz::compile(index, &mesh, &pods, &services, &mut findings);
    let modes = mtls::compile(index, &mesh, &pods, &mut findings);
    let statics = statics::all(index, &pods);
    let decided = enrolment::decide(index, &mesh, &pods, &statics, &mut findings);
    mesh.enrolled_namespaces = decided.namespaces;
    let decisions = decided.workloads;
    let cut_off = network_policy::check(index, &pods, &decisions, &authz, &mut findings);

    let mut resources = vec![Resource::Mesh(mesh.clone())];
    for pod in pods.iter() {
        let uid = &pod.uid;
        let wanted = decisions.get(uid) == Some(&EnrolmentDecision::Wanted);
        let mut workload = pod.workload(&mesh.trust_domain);
        workload.endpoints = services.endpoints.get(uid).cloned().unwrap_or_default();
        workload.protocols = services.protocols.get(uid).cloned().unwrap_or_default();
        workload.mtls = modes.get(uid).cloned().unwrap_or_default();
        workload.policies = authz.selected.get(uid).cloned().unwrap_or_default();
        if wanted || enrolled.published.contains(uid) {
            workload.enrolment = Enrolment::Yes;
        }
        if wanted && enrolled.captured.contains(uid) {
            workload.tunnel = Tunnel::Hbone;
        }
        resources.push(Resource::Workload(workload));
    }
    resources.extend(statics.iter().map(|pod| Resource::Workload(pod.workload(&mesh.trust_domain))));
    resources.extend(services.services.into_iter().map(Resource::Service));
    resources.extend(authz.policies.into_iter().map(Resource::Policy));
    resources.extend(gateway.tables.into_iter().chain(routes).map(Resource::Routes));
    resources.extend(destinations.into_iter().map(Resource::Destination));

    findings.extend(mesh::leaving(index));
    findings.sort_by(|one, other| {
        let order =
            |finding: &Diagnostic| (finding.object.clone(), finding.origin.clone(), finding.field.clone());
        other.severity.cmp(&one.severity).then_with(|| order(one).cmp(&order(other)))
    });
    findings.dedup();
    Compiled {
        resources: resources.into_iter().map(|resource| (resource.key(), resource)).collect(),
        diagnostics: findings,
        enrolment: decisions,
        cut_off,
        mirrored_as: statics.iter().filter_map(|pod| Some((pod.uid.clone(), pod.uid_of_copy()?))).collect(),
        route_statuses: gateway.statuses,
    }
}
