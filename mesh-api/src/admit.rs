//! Semantic validation of one object, with field paths.
//!
//! What has an error here never reaches the index as it is: see [`crate::Index`] for what is used instead.

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_model::{identity::TrustDomain, mesh::MeshSettings, name::Namespace, route::RetryPolicy};

use crate::{
    diagnostic::{Code, Diagnostic, Findings, Origin, Severity},
    object::{AuthorizationPolicy, Object},
    read::{self, value},
};

/// Everything that can be said about the object alone.
pub fn admit(object: &Object, origin: Option<&Origin>) -> Vec<Diagnostic> {
    let mut list = Vec::new();
    let reference = object.reference();
    let mut findings = Findings::new(reference.clone(), origin.cloned(), &mut list);
    if !value::is_dns_name(&reference.name) {
        let message = format!("{:?} is not a name: lower-case letters, digits, `-` and `.`", reference.name);
        findings.add(Code::Invalid, "metadata.name", message);
    }
    if object.kind().is_namespaced() && !value::is_dns_label(&reference.namespace) {
        let message = format!("{:?} is not a namespace", reference.namespace);
        findings.add(Code::Invalid, "metadata.namespace", message);
    }
    match object {
        Object::Node(_)
        | Object::Namespace(_)
        | Object::ServiceAccount(_)
        | Object::EndpointSlice(_)
        | Object::NetworkPolicy(_) => (),
        // A route that is refused has a status that says so: compilation does it.
        Object::HTTPRoute(_) => (),
        Object::ConfigMap(map) => admit_config(map, &mut findings),
        Object::Pod(pod) => read::pod::check(pod, &mut findings),
        Object::Service(service) => read::service::check(service, &mut findings),
        Object::VirtualService(routes) => {
            read::routes::read(&routes.spec, &RetryPolicy::mesh_default(), &mut findings);
            let own = Namespace::new(reference.namespace);
            value::export_to(&routes.spec.export_to, &own, &mut findings);
        }
        Object::DestinationRule(rule) => {
            read::destination::read(&rule.spec, &mut findings);
            let own = Namespace::new(reference.namespace);
            value::export_to(&rule.spec.export_to, &own, &mut findings);
        }
        Object::AuthorizationPolicy(policy) => admit_policy(policy, &reference.namespace, &mut findings),
        Object::PeerAuthentication(peer) => {
            read::selector::check(peer.spec.selector.as_ref(), &mut findings);
            read::peer::read(&peer.spec, &mut findings);
        }
    }
    list
}

/// Whether any of these refuses the object.
pub fn is_refused(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

fn admit_config(map: &ConfigMap, findings: &mut Findings<'_>) {
    if read::mesh::is_mesh_config(map) {
        read::mesh::read(map, &MeshSettings::default(), findings);
    }
}

fn admit_policy(policy: &AuthorizationPolicy, namespace: &str, findings: &mut Findings<'_>) {
    read::selector::check(policy.spec.selector.as_ref(), findings);
    read::policy::read(&policy.spec, &Namespace::new(namespace), &TrustDomain::default(), findings);
}
