//! Whose an address is: the cluster address of a service, the address of a pod.
//!
//! Whoever may write a Service may write any address as its external one. Invariant: no service gets an address so that the cluster
//! gave to another service or to a pod; external addresses of nobody may be shared, by ports.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Service;

use crate::{
    diagnostic::{Code, Diagnostic},
    index::{Fact, Index},
    object::{Object, ObjectRef},
    read::{
        pod::{self, NoWorkload},
        service,
    },
};

/// The owner of each address that the cluster gives out.
pub(super) struct Owners<'a> {
    services: BTreeMap<IpAddr, &'a ObjectRef>,
    pods: BTreeMap<IpAddr, &'a ObjectRef>,
}

impl<'a> Owners<'a> {
    /// Of all services, in the mesh or not, and all pods that have not ended.
    pub(super) fn of(index: &'a Index) -> Self {
        let written = index.facts(|object| match object {
            Object::Service(service) => Some(&**service),
            _ => None,
        });
        let mut services = BTreeMap::new();
        for fact in written.filter(|fact| !service::is_external_name(fact.object)) {
            for ip in service::cluster_addresses(fact.object) {
                services.entry(ip).or_insert(fact.reference);
            }
        }
        let running = index.facts(|object| match object {
            Object::Pod(pod) => Some(&**pod),
            _ => None,
        });
        let own = running.filter(|fact| {
            !pod::is_host_network(fact.object) && pod::placement(fact.object) != Err(NoWorkload::Finished)
        });
        let pods = own.flat_map(|fact| {
            let ips = pod::addresses(fact.object);
            ips.into_iter().map(move |ip| (ip, fact.reference))
        });
        Self { services, pods: pods.collect() }
    }

    /// The addresses by which the service is called. What it has no right to is said and left out; a cluster address that two
    /// services have is only said.
    pub(super) fn vips(&self, fact: &Fact<'_, Service>, list: &mut Vec<Diagnostic>) -> Vec<IpAddr> {
        let mut vips = service::cluster_addresses(fact.object);
        for ip in &vips {
            if let Some(other) = self.services.get(ip).filter(|owner| ***owner != *fact.reference) {
                let message = format!("cluster address {ip} is {other}'s too");
                fact.findings(list).add(Code::AddressConflict, "spec.clusterIPs", message);
            }
        }
        let external = service::external_addresses(fact.object);
        let external = external.into_iter().map(|ip| (ip, "spec.externalIPs"));
        let balancers = service::balancer_addresses(fact.object);
        let balancers = balancers.into_iter().map(|ip| (ip, "status.loadBalancer.ingress"));
        for (ip, field) in external.chain(balancers) {
            match self.services.get(&ip).or_else(|| self.pods.get(&ip)) {
                Some(owner) if **owner != *fact.reference => {
                    let message = format!("address {ip} is {owner}'s: this service is not called by it");
                    fact.findings(list).add(Code::AddressConflict, field, message);
                }
                _ if vips.contains(&ip) => {}
                _ => vips.push(ip),
            }
        }
        vips
    }
}
