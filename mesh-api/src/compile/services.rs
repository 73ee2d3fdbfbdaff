//! Services, and what their ports speak on each pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service as Written;
use mesh_model::{
    name::{Hostname, Namespace, ServiceKey, WorkloadUid},
    service::{Protocol, Service},
    workload::EndpointOf,
};

use super::{
    endpoints::{Behind, Endpoints},
    hosts,
    owners::Owners,
    pods::Pods,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::Object,
    read::service,
};

/// All services.
#[derive(Default)]
pub(super) struct Services {
    pub(super) services: Vec<Service>,
    pub(super) endpoints: BTreeMap<WorkloadUid, Vec<EndpointOf>>,
    pub(super) protocols: BTreeMap<WorkloadUid, BTreeMap<u16, Protocol>>,
}

impl Services {
    /// The service of this name in this namespace.
    pub(super) fn named(&self, namespace: &Namespace, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.key.namespace == *namespace && service.name == name)
    }

    /// Whether the workload answers for the service.
    pub(super) fn is_endpoint(&self, uid: &WorkloadUid, service: &ServiceKey) -> bool {
        self.endpoints.get(uid).is_some_and(|list| list.iter().any(|end| end.service == *service))
    }
}

/// Compiles all services.
pub(super) fn compile(index: &Index, pods: &Pods<'_>, list: &mut Vec<Diagnostic>) -> Services {
    let mut all = Services::default();
    let mut claims: BTreeMap<(WorkloadUid, u16), Claim> = BTreeMap::new();
    let owners = Owners::of(index);
    let endpoints = Endpoints::new(index, pods);
    let written = index.facts(|object| match object {
        Object::Service(service) => Some(&**service),
        _ => None,
    });
    for fact in written {
        if service::is_external_name(fact.object) {
            let message = "an ExternalName is only a name: its traffic passes through as dialled";
            fact.findings(list).add(Code::ServiceNotInMesh, "spec.type", message);
            continue;
        }
        let ports = service::ports(fact.object);
        let behind = endpoints.behind(&fact, &ports, list);
        let behind = match behind {
            Ok(behind) => behind,
            Err(address) => {
                let message =
                    format!("endpoint {address} is no pod of the mesh: traffic passes through as dialled");
                fact.findings(list).add(Code::ServiceNotInMesh, "", message);
                continue;
            }
        };
        let key = ServiceKey {
            namespace: Namespace::new(fact.reference.namespace.clone()),
            host: Hostname::new(&hosts::full_name(
                index.options(),
                &fact.reference.name,
                &fact.reference.namespace,
            )),
        };
        for end in behind {
            claim_ports(&fact, &ports, &end, &mut claims, list);
            let endpoint = EndpointOf { service: key.clone(), ports: end.ports, ready: end.ready };
            all.endpoints.entry(end.pod.uid.clone()).or_default().push(endpoint);
        }
        let vips = owners.vips(&fact, list);
        let name = fact.reference.name.to_string();
        let ports = ports.into_iter().map(|port| port.port).collect();
        all.services.push(Service { key, name, vips, ports });
    }
    for ((uid, port), claim) in claims {
        all.protocols.entry(uid).or_default().insert(port, claim.protocol);
    }
    all
}

/// What services say of one port of a pod.
struct Claim {
    protocol: Protocol,
    by: String,
    conflicts: bool,
}

fn claim_ports(
    fact: &Fact<'_, Written>,
    ports: &[service::Port],
    end: &Behind<'_, '_>,
    claims: &mut BTreeMap<(WorkloadUid, u16), Claim>,
    list: &mut Vec<Diagnostic>,
) {
    for port in ports.iter().map(|port| &port.port).filter(|port| port.protocol != Protocol::Unknown) {
        let Some(target) = end.ports.get(&port.port) else { continue };
        let by = format!("{} port {}", fact.reference, port.port);
        let fresh = Claim { protocol: port.protocol, by, conflicts: false };
        let claim = claims.entry((end.pod.uid.clone(), *target)).or_insert(fresh);
        if !claim.conflicts && claim.protocol != port.protocol {
            let message = format!(
                "port {target} of {} is {:?} here and {:?} for {}: it is treated as unknown and sniffed",
                end.pod.fact.reference, port.protocol, claim.protocol, claim.by
            );
            fact.findings(list).add(Code::ProtocolConflict, "spec.ports", message);
            claim.conflicts = true;
            claim.protocol = Protocol::Unknown;
        }
    }
}
