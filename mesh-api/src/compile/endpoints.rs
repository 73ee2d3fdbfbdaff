//! Who answers for a service: its EndpointSlices say it, or in a directory without any, its selector.
//!
//! Slices, pods and their addresses come by separate watches, so any of them may be a moment behind: an endpoint whose pod is not
//! there (yet, or any more) is left out, and one without an address takes no connections. Only an endpoint that certainly is no pod
//! of the mesh makes the whole service pass through as dialled.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use mesh_model::name::WorkloadUid;

use super::pods::{Live, Pods};
use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::{DEFAULT_NAMESPACE, Object},
    read::{
        pod::{self, NoWorkload},
        service,
    },
};

/// Says which service a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One pod behind a service.
pub(super) struct Behind<'p, 'a> {
    pub(super) pod: &'p Live<'a>,
    /// Service port -> port of the pod.
    pub(super) ports: BTreeMap<u16, u16>,
    pub(super) ready: bool,
}

/// Everything that is needed to tell.
pub(super) struct Endpoints<'p, 'a> {
    pods: &'p Pods<'a>,
    by_name: BTreeMap<(&'p str, &'p str), &'p Live<'a>>,
    by_address: BTreeMap<IpAddr, &'p Live<'a>>,
    /// Pods that run and never are workloads: mirror pods, pods without an identity.
    outside: BTreeSet<(&'a str, &'a str)>,
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    selects: bool,
}

/// Whom an endpoint means.
enum Meant<'p, 'a> {
    Pod(&'p Live<'a>),
    /// A pod that has gone, or that has not been heard of yet.
    Gone,
    /// Nobody whom the mesh could capture.
    Foreign,
}

impl<'p, 'a> Endpoints<'p, 'a> {
    pub(super) fn new(index: &'a Index, pods: &'p Pods<'a>) -> Self {
        let by_address = pods.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (*ip, pod)));
        let by_name = pods.iter().map(|pod| ((pod.namespace.as_str(), &*pod.fact.reference.name), pod));
        let all_pods = index.facts(|object| match object {
            Object::Pod(pod) => Some(&**pod),
            _ => None,
        });
        let outside = all_pods.filter(|fact| never_is_workload(fact.object));
        Self {
            pods,
            by_name: by_name.collect(),
            by_address: by_address.collect(),
            outside: outside.map(|fact| (&*fact.reference.namespace, &*fact.reference.name)).collect(),
            slices: slices_by_service(index),
            selects: index.options().selects_endpoints,
        }
    }

    /// The pods behind a service, or an endpoint that is none.
    pub(super) fn behind(
        &self,
        fact: &Fact<'_, Service>,
        ports: &[service::Port],
        list: &mut Vec<Diagnostic>,
    ) -> Result<Vec<Behind<'p, 'a>>, String> {
        let mut behind = match self.slices.get(&(&*fact.reference.namespace, &*fact.reference.name)) {
            Some(slices) => self.of_slices(slices, ports)?,
            None if self.selects => self.of_selector(fact, ports, list)?,
            None => Vec::new(),
        };
        for end in &mut behind {
            end.ready &= !end.pod.ips.is_empty();
        }
        Ok(behind)
    }

    fn of_slices(
        &self,
        slices: &[&'a EndpointSlice],
        ports: &[service::Port],
    ) -> Result<Vec<Behind<'p, 'a>>, String> {
        let mut behind: BTreeMap<WorkloadUid, Behind<'p, 'a>> = BTreeMap::new();
        let mut draining: BTreeSet<WorkloadUid> = BTreeSet::new();
        for slice in slices {
            let targets = slice_targets(slice, ports);
            for endpoint in &slice.endpoints {
                let state = State::of(endpoint);
                let pod = match self.meant(slice, endpoint) {
                    Meant::Pod(pod) => pod,
                    Meant::Foreign if state == State::Ready => return Err(endpoint.addresses.join(", ")),
                    Meant::Foreign | Meant::Gone => continue,
                };
                let fresh = || Behind { pod, ports: BTreeMap::new(), ready: false };
                // One pod is in several slices: one for each family of addresses.
                let end = behind.entry(pod.uid.clone()).or_insert_with(fresh);
                end.ports.extend(targets.iter().map(|(port, target)| (*port, *target)));
                end.ready |= state == State::Ready;
                if state == State::Draining {
                    draining.insert(pod.uid.clone());
                }
            }
        }
        // As kube-proxy has it: while all are going away, those that still serve are better than nobody.
        if behind.values().all(|end| !end.ready) {
            behind.iter_mut().for_each(|(uid, end)| end.ready = draining.contains(uid));
        }
        Ok(behind.into_values().collect())
    }

    /// The reference decides: an address may be another pod's by now.
    fn meant(&self, slice: &EndpointSlice, endpoint: &Endpoint) -> Meant<'p, 'a> {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let Some((target, name)) = target.and_then(|target| Some((target, target.name.as_deref()?))) else {
            let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
            let mut pods = addresses.filter_map(|ip| self.by_address.get(&ip.to_canonical()));
            return pods.next().map_or(Meant::Foreign, |pod| Meant::Pod(pod));
        };
        let namespace = slice.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let Some(pod) = self.by_name.get(&(namespace, name)) else {
            return if self.outside.contains(&(namespace, name)) { Meant::Foreign } else { Meant::Gone };
        };
        let is_another = match (&target.uid, &pod.fact.object.metadata.uid) {
            (Some(meant), Some(found)) => meant != found,
            _ => false,
        };
        match pod::is_host_network(pod.fact.object) {
            _ if is_another => Meant::Gone,
            true => Meant::Foreign,
            false => Meant::Pod(pod),
        }
    }

    /// The pods that the selector picks; none without a selector.
    fn of_selector(
        &self,
        fact: &Fact<'_, Service>,
        ports: &[service::Port],
        list: &mut Vec<Diagnostic>,
    ) -> Result<Vec<Behind<'p, 'a>>, String> {
        let spec = fact.object.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
        let Some(selector) = selector else { return Ok(Vec::new()) };
        let always_ready = spec.is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
        let labels = || selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let picked = self.pods.of(&fact.reference.namespace).iter().filter(|pod| pod.has_labels(labels()));
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
                    None => {
                        unknown.insert((number, port.target_text(), pod.fact.reference.to_string()));
                    }
                }
            }
            let ready = always_ready || pod::is_ready(pod.fact.object);
            behind.push(Behind { pod, ports: targets, ready });
        }
        for (number, target, pod) in unknown {
            let message =
                format!("no container of {pod} has a port named {target:?}: the pod does not answer on it");
            fact.findings(list).add(
                Code::UnknownTargetPort,
                format!("spec.ports[{number}].targetPort"),
                message,
            );
        }
        Ok(behind)
    }
}

/// What a slice says of an endpoint. What it does not say means that all is well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Being deleted, and serving yet.
    Draining,
    Out,
}

impl State {
    fn of(endpoint: &Endpoint) -> Self {
        let Some(conditions) = &endpoint.conditions else { return Self::Ready };
        let ready = conditions.ready != Some(false);
        match conditions.terminating == Some(true) && conditions.serving.unwrap_or(ready) {
            _ if ready => Self::Ready,
            true => Self::Draining,
            false => Self::Out,
        }
    }
}

fn never_is_workload(pod: &Pod) -> bool {
    matches!(pod::placement(pod), Err(NoWorkload::Mirror | NoWorkload::NoIdentity))
}

fn slices_by_service(index: &Index) -> BTreeMap<(&str, &str), Vec<&EndpointSlice>> {
    let slices = index.facts(|object| match object {
        Object::EndpointSlice(slice) => Some(&**slice),
        _ => None,
    });
    let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for fact in slices {
        let service = fact.object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
        if let Some(service) = service {
            let key = (&*fact.reference.namespace, service.as_str());
            by_service.entry(key).or_default().push(fact.object);
        }
    }
    by_service
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
