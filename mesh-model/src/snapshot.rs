//! The immutable picture on which a decision is made; indexed at construction, numbered.
//!
//! Invariant: nothing in here changes after construction, and what it holds depends only on the resources, never on the order in
//! which they came. The next snapshot shares every unchanged `Arc` and every unchanged list with this one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use crate::{
    authz::AuthzPolicy,
    mesh::MeshSettings,
    name::{Hostname, Namespace, ObjectKey, ServiceKey, WorkloadUid},
    resource::{Resource, ResourceKey},
    route::{RouteSource, RouteTable},
    service::Service,
    traffic::DestinationPolicy,
    workload::Workload,
};

mod index;
#[cfg(test)]
mod tests;

use index::{Change, HostIndex, Index};

/// Everything known, at one moment.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(PartialEq))]
pub struct Snapshot {
    generation: u64,
    mesh: Arc<MeshSettings>,
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    services: HashMap<ServiceKey, Arc<Service>>,
    policies: HashMap<ObjectKey, Arc<AuthzPolicy>>,
    routes: BTreeMap<ObjectKey, Arc<RouteTable>>,
    destinations: BTreeMap<(ObjectKey, Hostname), Arc<DestinationPolicy>>,
    workloads_by_ip: Index<IpAddr, Workload>,
    services_by_host: Index<Hostname, Service>,
    services_by_vip: Index<IpAddr, Service>,
    endpoints: Index<ServiceKey, Workload>,
    routes_by_host: HostIndex<RouteTable>,
    destinations_by_host: HostIndex<DestinationPolicy>,
}

impl Snapshot {
    /// The first snapshot, made of these. Of two resources with one key the later counts.
    pub fn from_resources(resources: Vec<Resource>) -> Self {
        Self::default().next(resources, &[])
    }

    /// The number of this snapshot; grows by one with each.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The mesh's settings.
    pub fn mesh(&self) -> &MeshSettings {
        &self.mesh
    }

    /// The next snapshot: this one with `removals` taken out and then `upserts` put in (a key in both stays). O(changed) but for
    /// the map copies. Removing what is not there is no error; removing the mesh's settings brings back the defaults.
    pub fn next(&self, upserts: Vec<Resource>, removals: &[ResourceKey]) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        let mut edits = Edits::default();
        for key in removals {
            edits.remove(key);
        }
        for resource in upserts {
            edits.put(resource);
        }
        next.apply(edits);
        next
    }

    fn apply(&mut self, edits: Edits) {
        if let Some(mesh) = edits.mesh
            && *self.mesh != mesh
        {
            self.mesh = Arc::new(mesh);
        }
        let workloads = change_all(&mut self.workloads, edits.workloads);
        self.workloads_by_ip
            .follow(&workloads, |workload| distinct(workload.ips.iter().map(IpAddr::to_canonical)));
        self.endpoints.follow(&workloads, |workload| {
            distinct(workload.endpoints.iter().map(|end| end.service.clone()))
        });

        let services = change_all(&mut self.services, edits.services);
        self.services_by_host.follow(&services, |service| vec![service.key.host.clone()]);
        self.services_by_vip
            .follow(&services, |service| distinct(service.vips.iter().map(IpAddr::to_canonical)));

        change_all(&mut self.policies, edits.policies);

        let routes = change_all(&mut self.routes, edits.routes);
        self.routes_by_host.follow(&routes, |table| &table.hosts);
        let destinations = change_all(&mut self.destinations, edits.destinations);
        self.destinations_by_host.follow(&destinations, |rule| std::slice::from_ref(&rule.host));
    }

    /// A workload by UID.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that has this address. An address that two workloads claim belongs to neither: one address never has two
    /// identities (see [`Self::is_contested`]).
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        match self.workloads_by_ip.all(&ip.to_canonical()) {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether more than one workload claims the address. The controller prevents it; should it happen, nobody is called there.
    pub fn is_contested(&self, ip: IpAddr) -> bool {
        self.workloads_by_ip.all(&ip.to_canonical()).len() > 1
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The service with this host name; of several, the one whose namespace comes first.
    pub fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.services_by_host.all(host).first()
    }

    /// A service by its key.
    pub fn service_by_key(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The service that owns this address and port. A VIP without that port is still a VIP: see [`Self::is_vip`].
    pub fn service_at(&self, ip: IpAddr, port: u16) -> Option<&Arc<Service>> {
        self.services_by_vip.all(&ip.to_canonical()).iter().find(|service| service.port(port).is_some())
    }

    /// Whether the address is a VIP of any service.
    pub fn is_vip(&self, ip: IpAddr) -> bool {
        !self.services_by_vip.all(&ip.to_canonical()).is_empty()
    }

    /// Everything that answers for the service, ready or not, in UID order so that round robin is stable.
    pub fn endpoints(&self, service: &ServiceKey) -> &[Arc<Workload>] {
        self.endpoints.all(service)
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

    /// All destination policies, by key and host.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<DestinationPolicy>> {
        self.destinations.values()
    }

    /// The route table that a client of this namespace uses for this host and port: HTTPRoutes of that very port before
    /// VirtualServices; then the most specific host, then the client's own namespace, then the oldest, then the first by key. Only
    /// tables that are exported to the client count.
    pub fn routes_for(&self, client: &Namespace, host: &Hostname, port: u16) -> Option<&Arc<RouteTable>> {
        [RouteSource::Gateway { port }, RouteSource::VirtualService].into_iter().find_map(|source| {
            self.routes_by_host.by_specificity(host).find_map(|tables| {
                let visible = || {
                    tables.iter().filter(|table| table.source == source && table.export_to.includes(client))
                };
                visible().find(|table| table.key.namespace == *client).or_else(|| visible().next())
            })
        })
    }

    /// The DestinationRule that holds for a client of this namespace: its own, then the service's namespace's, then the root's;
    /// in each the most specific host, among those exported to the client.
    pub fn destination_for(&self, client: &Namespace, service: &Service) -> Option<&Arc<DestinationPolicy>> {
        [client, &service.key.namespace, &self.mesh.root_namespace].into_iter().find_map(|namespace| {
            self.destinations_by_host
                .by_specificity(&service.key.host)
                .flatten()
                .find(|rule| rule.key.namespace == *namespace && rule.export_to.includes(client))
        })
    }
}

/// What is to become of each key; None: it goes.
#[derive(Default)]
struct Edits {
    mesh: Option<MeshSettings>,
    workloads: HashMap<WorkloadUid, Option<Workload>>,
    services: HashMap<ServiceKey, Option<Service>>,
    policies: HashMap<ObjectKey, Option<AuthzPolicy>>,
    routes: HashMap<ObjectKey, Option<RouteTable>>,
    destinations: HashMap<(ObjectKey, Hostname), Option<DestinationPolicy>>,
}

impl Edits {
    fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Mesh(mesh) => self.mesh = Some(mesh),
            Resource::Workload(workload) => drop(self.workloads.insert(workload.uid.clone(), Some(workload))),
            Resource::Service(service) => drop(self.services.insert(service.key.clone(), Some(service))),
            Resource::Policy(policy) => drop(self.policies.insert(policy.key.clone(), Some(policy))),
            Resource::Routes(table) => drop(self.routes.insert(table.key.clone(), Some(table))),
            Resource::Destination(rule) => {
                drop(self.destinations.insert((rule.key.clone(), rule.host.clone()), Some(rule)));
            }
        }
    }

    fn remove(&mut self, key: &ResourceKey) {
        match key {
            ResourceKey::Mesh => self.mesh = Some(MeshSettings::default()),
            ResourceKey::Workload(uid) => drop(self.workloads.insert(uid.clone(), None)),
            ResourceKey::Service(key) => drop(self.services.insert(key.clone(), None)),
            ResourceKey::Policy(key) => drop(self.policies.insert(key.clone(), None)),
            ResourceKey::Routes(key) => drop(self.routes.insert(key.clone(), None)),
            ResourceKey::Destination(key, host) => {
                drop(self.destinations.insert((key.clone(), host.clone()), None))
            }
        }
    }
}

/// A map of one kind of resource.
trait Store<K, V> {
    fn put(&mut self, key: K, value: Option<Arc<V>>) -> Option<Arc<V>>;
    fn current(&self, key: &K) -> Option<&Arc<V>>;
}

impl<K: Eq + Hash, V> Store<K, V> for HashMap<K, Arc<V>> {
    fn put(&mut self, key: K, value: Option<Arc<V>>) -> Option<Arc<V>> {
        match value {
            Some(value) => self.insert(key, value),
            None => self.remove(&key),
        }
    }

    fn current(&self, key: &K) -> Option<&Arc<V>> {
        self.get(key)
    }
}

impl<K: Ord, V> Store<K, V> for BTreeMap<K, Arc<V>> {
    fn put(&mut self, key: K, value: Option<Arc<V>>) -> Option<Arc<V>> {
        match value {
            Some(value) => self.insert(key, value),
            None => self.remove(&key),
        }
    }

    fn current(&self, key: &K) -> Option<&Arc<V>> {
        self.get(key)
    }
}

/// Puts the edits in and says what really changed: a value equal to the one that is there keeps its `Arc`.
fn change_all<K, V: PartialEq>(store: &mut impl Store<K, V>, edits: HashMap<K, Option<V>>) -> Vec<Change<V>> {
    let mut changes = Vec::new();
    for (key, value) in edits {
        if store.current(&key).map(|current| &**current) == value.as_ref() {
            continue;
        }
        let new = value.map(Arc::new);
        let old = store.put(key, new.clone());
        changes.push(Change { old, new });
    }
    changes
}

fn distinct<T: Eq + Hash>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect::<HashSet<T>>().into_iter().collect()
}
