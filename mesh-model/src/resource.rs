//! The unit of the controller-to-node stream: one keyed resource.
//!
//! A snapshot is made of these and of nothing else. Resources refer to each other by key; a reference to what has not arrived is
//! legal, and means "deny" for a policy and "no endpoint" for the rest.

use std::fmt;

use crate::{
    authz::AuthzPolicy,
    mesh::MeshSettings,
    name::{Hostname, ObjectKey, ServiceKey, WorkloadUid},
    route::RouteTable,
    service::Service,
    traffic::DestinationPolicy,
    workload::Workload,
};

/// One resource.
#[derive(Clone, PartialEq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all resources of a mesh are workloads, and none lives long in this form"
)]
pub enum Resource {
    /// The mesh's settings: exactly one.
    Mesh(MeshSettings),
    /// A pod.
    Workload(Workload),
    /// A service.
    Service(Service),
    /// An authorization policy.
    Policy(AuthzPolicy),
    /// HTTP routes.
    Routes(RouteTable),
    /// Subsets and limits.
    Destination(DestinationPolicy),
}

/// What names a resource among all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ResourceKey {
    /// The mesh's settings.
    Mesh,
    /// A pod, by UID.
    Workload(WorkloadUid),
    /// A service.
    Service(ServiceKey),
    /// An authorization policy.
    Policy(ObjectKey),
    /// HTTP routes, by their VirtualService or by the service port of their HTTPRoutes.
    Routes(ObjectKey),
    /// Subsets and limits, by defining object and host.
    Destination(ObjectKey, Hostname),
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Mesh(_) => ResourceKey::Mesh,
            Self::Workload(workload) => ResourceKey::Workload(workload.uid.clone()),
            Self::Service(service) => ResourceKey::Service(service.key.clone()),
            Self::Policy(policy) => ResourceKey::Policy(policy.key.clone()),
            Self::Routes(routes) => ResourceKey::Routes(routes.key.clone()),
            Self::Destination(rule) => ResourceKey::Destination(rule.key.clone(), rule.host.clone()),
        }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Workload(uid) => write!(f, "workload/{uid}"),
            Self::Service(key) => write!(f, "service/{key}"),
            Self::Policy(key) => write!(f, "policy/{key}"),
            Self::Routes(key) => write!(f, "routes/{key}"),
            Self::Destination(key, host) => write!(f, "destination/{key}/{host}"),
        }
    }
}
