//! Services, who answers for them, and what their ports speak on each pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::Service as Written,
    discovery::v1::{Endpoint, EndpointSlice},
};
use mesh_model::{
    name::{Hostname, Namespace, ServiceKey, WorkloadUid},
    service::{Protocol, Service},
    workload::EndpointOf,
};

use super::{
    hosts,
    pods::{Live, Pods},
};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::Object,
    read::{pod, service},
};

/// Says which service a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

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

/// One pod behind a service.
struct Behind<'p, 'a> {
    pod: &'p Live<'a>,
    ports: BTreeMap<u16, u16>,
    ready: bool,
}

/// Compiles all services.
pub(super) fn compile(index: &Index, pods: &Pods<'_>, list: &mut Vec<Diagnostic>) -> Services {
    let mut all = Services::default();
    let mut claims: BTreeMap<(WorkloadUid, u16), Claim> = BTreeMap::new();
    let mut cluster_ips: BTreeMap<IpAddr, String> = BTreeMap::new();
    let slices = Slices::new(index);
    let pods = Lookup::new(pods);
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
        let behind = match slices.of(&fact) {
            Some(slices) => behind_slices(&slices, &ports, &pods),
            None => behind_selector(&fact, &ports, &pods, list),
        };
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
        let vips = service::addresses(fact.object);
        name_shared_addresses(&fact, &vips, &mut cluster_ips, list);
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

/// Pods by what endpoints name them with.
struct Lookup<'p, 'a> {
    pods: &'p Pods<'a>,
    by_name: BTreeMap<(&'p str, &'p str), &'p Live<'a>>,
    by_address: BTreeMap<IpAddr, &'p Live<'a>>,
}

impl<'p, 'a> Lookup<'p, 'a> {
    fn new(pods: &'p Pods<'a>) -> Self {
        let by_address = pods.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (*ip, pod)));
        let by_name = pods.iter().map(|pod| ((pod.namespace.as_str(), &*pod.fact.reference.name), pod));
        Self { pods, by_name: by_name.collect(), by_address: by_address.collect() }
    }
}

/// The pods that the selector picks; none without a selector.
fn behind_selector<'p, 'a>(
    fact: &Fact<'_, Written>,
    ports: &[service::Port],
    pods: &Lookup<'p, 'a>,
    list: &mut Vec<Diagnostic>,
) -> Result<Vec<Behind<'p, 'a>>, String> {
    let spec = fact.object.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let Some(selector) = selector else { return Ok(Vec::new()) };
    let always_ready = spec.is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
    let labels = || selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let picked = pods.pods.of(&fact.reference.namespace).iter().filter(|pod| pod.has_labels(labels()));
    let mut behind = Vec::new();
    let mut unknown = BTreeSet::new();
    for pod in picked {
        if pod::is_host_network(pod.fact.object) {
            return Err(format!("{} (on the host's network)", pod.fact.reference));
        }
        let mut targets = BTreeMap::new();
        for (number, port) in ports.iter().enumerate() {
            match port.target_on(pod.fact.object) {
                Some(target) => drop(targets.insert(port.port.port, target)),
                None => drop(unknown.insert((number, port.target_text(), pod.fact.reference.to_string()))),
            }
        }
        let ready = always_ready || pod::is_ready(pod.fact.object);
        behind.push(Behind { pod, ports: targets, ready });
    }
    for (number, target, pod) in unknown {
        let message =
            format!("no container of {pod} has a port named {target:?}: the pod does not answer on it");
        fact.findings(list).add(Code::UnknownTargetPort, format!("spec.ports[{number}].targetPort"), message);
    }
    Ok(behind)
}

/// The EndpointSlices, by service.
struct Slices<'a>(BTreeMap<(String, String), Vec<Fact<'a, EndpointSlice>>>);

impl<'a> Slices<'a> {
    fn new(index: &'a Index) -> Self {
        let slices = index.facts(|object| match object {
            Object::EndpointSlice(slice) => Some(&**slice),
            _ => None,
        });
        let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for fact in slices {
            if let Some(service) =
                fact.object.metadata.labels.iter().flatten().find(|label| label.0 == SERVICE_LABEL)
            {
                let key = (fact.reference.namespace.to_string(), service.1.clone());
                by_service.entry(key).or_default().push(fact);
            }
        }
        Self(by_service)
    }

    fn of(&self, service: &Fact<'_, Written>) -> Option<Vec<&'a EndpointSlice>> {
        let key = (service.reference.namespace.to_string(), service.reference.name.to_string());
        Some(self.0.get(&key)?.iter().map(|fact| fact.object).collect())
    }
}

fn behind_slices<'p, 'a>(
    slices: &[&EndpointSlice],
    ports: &[service::Port],
    pods: &Lookup<'p, 'a>,
) -> Result<Vec<Behind<'p, 'a>>, String> {
    let mut behind: BTreeMap<WorkloadUid, Behind<'p, 'a>> = BTreeMap::new();
    for slice in slices {
        let targets = slice_targets(slice, ports);
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
            let Some(pod) = pod_of(slice, endpoint, pods) else {
                // A pod that has just gone is in its slice for a moment yet.
                if ready { return Err(endpoint.addresses.join(", ")) } else { continue }
            };
            let fresh = || Behind { pod, ports: BTreeMap::new(), ready: false };
            // One pod is in several slices: one for each family of addresses.
            let end = behind.entry(pod.uid.clone()).or_insert_with(fresh);
            end.ports.extend(targets.iter().map(|(port, target)| (*port, *target)));
            end.ready |= ready;
        }
    }
    Ok(behind.into_values().collect())
}

fn slice_targets(slice: &EndpointSlice, ports: &[service::Port]) -> Vec<(u16, u16)> {
    let mut targets = Vec::new();
    for written in slice.ports.iter().flatten() {
        let name = written.name.as_deref().unwrap_or_default();
        let port = ports.iter().find(|port| port.port.name == name);
        let target = written.port.and_then(|number| u16::try_from(number).ok());
        targets.extend(port.zip(target).map(|(port, target)| (port.port.port, target)));
    }
    targets
}

fn pod_of<'p, 'a>(slice: &EndpointSlice, endpoint: &Endpoint, pods: &Lookup<'p, 'a>) -> Option<&'p Live<'a>> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or(crate::object::DEFAULT_NAMESPACE);
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let name = target.and_then(|target| target.name.as_deref());
    let named = name.and_then(|name| pods.by_name.get(&(namespace, name)));
    let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let mut addressed = addresses.filter_map(|ip| pods.by_address.get(&ip.to_canonical()));
    let pod = named.or_else(|| addressed.next()).copied()?;
    (!pod::is_host_network(pod.fact.object)).then_some(pod)
}

/// External addresses may be shared by ports; cluster addresses may not.
fn name_shared_addresses(
    fact: &Fact<'_, Written>,
    vips: &[IpAddr],
    taken: &mut BTreeMap<IpAddr, String>,
    list: &mut Vec<Diagnostic>,
) {
    let spec = fact.object.spec.as_ref();
    let own: Vec<&String> = spec
        .iter()
        .flat_map(|spec| spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten()))
        .collect();
    for ip in vips.iter().filter(|ip| own.iter().any(|text| text.parse() == Ok(**ip))) {
        match taken.get(ip) {
            None => drop(taken.insert(*ip, fact.reference.to_string())),
            Some(other) => {
                let message = format!("cluster address {ip} is {other}'s too");
                fact.findings(list).add(Code::AddressConflict, "spec.clusterIPs", message);
            }
        }
    }
}
