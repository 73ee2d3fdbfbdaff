//! The immutable picture on which a decision is made; indexed at construction, numbered.
//!
//! Invariant: nothing in here changes after construction. The next snapshot shares every unchanged `Arc` with this one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    authz::AuthzPolicy,
    mesh::MeshSettings,
    name::{Hostname, Namespace, ObjectKey, ServiceKey, WorkloadUid},
    resource::{Resource, ResourceKey},
    route::RouteTable,
    service::Service,
    traffic::DestinationPolicy,
    workload::Workload,
};

/// Everything known, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: u64,
    mesh: Arc<MeshSettings>,
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    workloads_by_ip: HashMap<IpAddr, Arc<Workload>>,
    services: HashMap<ServiceKey, Arc<Service>>,
    services_by_host: HashMap<Hostname, Arc<Service>>,
    services_by_vip: HashMap<IpAddr, Vec<Arc<Service>>>,
    /// Endpoints of a service, in UID order so that round robin is stable.
    endpoints: HashMap<ServiceKey, Arc<[Arc<Workload>]>>,
    policies: HashMap<ObjectKey, Arc<AuthzPolicy>>,
    routes: BTreeMap<ObjectKey, Arc<RouteTable>>,
    destinations: BTreeMap<(ObjectKey, Hostname), Arc<DestinationPolicy>>,
}

impl Snapshot {
    /// The number of this snapshot; grows by one with each.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The mesh's settings.
    pub fn mesh(&self) -> &MeshSettings {
        &self.mesh
    }

    /// The next snapshot: this one with `upserts` put in and `removals` taken out. O(changed) but for the map copies.
    pub fn next(&self, upserts: Vec<Resource>, removals: &[ResourceKey]) -> Self {
        let _ = (upserts, removals);
        unimplemented!("skeleton")
    }

    /// A workload by UID.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that has this address.
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads_by_ip.get(&ip.to_canonical())
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The service with this host name.
    pub fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.services_by_host.get(host)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The service that owns this address and port. A VIP without that port is still the service's: see `service_owns`.
    pub fn service_at(&self, ip: IpAddr, port: u16) -> Option<&Arc<Service>> {
        self.services_by_vip.get(&ip.to_canonical())?.iter().find(|service| service.port(port).is_some())
    }

    /// Whether the address is a VIP of any service.
    pub fn is_vip(&self, ip: IpAddr) -> bool {
        self.services_by_vip.contains_key(&ip.to_canonical())
    }

    /// Everything that answers for the service, ready or not.
    pub fn endpoints(&self, service: &ServiceKey) -> &[Arc<Workload>] {
        self.endpoints.get(service).map_or(&[], |list| list)
    }

    /// A policy.
    pub fn policy(&self, key: &ObjectKey) -> Option<&Arc<AuthzPolicy>> {
        self.policies.get(key)
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AuthzPolicy>> {
        self.policies.values()
    }

    /// All route tables, by key.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.routes.values()
    }

    /// The route table that a client of this namespace uses for this host: the most specific host, then the client's own
    /// namespace, then the oldest.
    pub fn routes_for(&self, client: &Namespace, host: &Hostname) -> Option<&Arc<RouteTable>> {
        let _ = (client, host);
        unimplemented!("skeleton")
    }

    /// The DestinationRule that holds for a client of this namespace: its own, then the service's namespace's, then the root's.
    pub fn destination_for(&self, client: &Namespace, service: &Service) -> Option<&Arc<DestinationPolicy>> {
        let _ = (client, service);
        unimplemented!("skeleton")
    }
}
