//! DestinationRule: subsets, balancing and connection limits of a host.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    name::{Hostname, ObjectKey, SubsetName},
    route::Visibility,
};

/// The DestinationRule of one host as one namespace defines it (several of that namespace are already merged).
#[derive(Clone, PartialEq, Debug)]
pub struct DestinationPolicy {
    /// The first object that made it.
    pub key: ObjectKey,
    /// Fully qualified, wildcards allowed.
    pub host: Hostname,
    /// Which namespaces see it.
    pub export_to: Visibility,
    /// For the host as a whole.
    pub policy: TrafficPolicy,
    /// By name.
    pub subsets: BTreeMap<SubsetName, Subset>,
}

/// A subset of a host's endpoints.
#[derive(Clone, PartialEq, Debug)]
pub struct Subset {
    /// An endpoint belongs to it if its labels include all of these.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Overrides the host's policy block by block (already merged here).
    pub policy: TrafficPolicy,
}

/// What holds for a host or a subset; `ports` replace (they do not inherit).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TrafficPolicy {
    /// For all ports not named below.
    pub all: PortPolicy,
    /// `portLevelSettings`, by service port.
    pub ports: BTreeMap<u16, PortPolicy>,
}

impl TrafficPolicy {
    /// What holds for a port of the service.
    pub fn of(&self, port: u16) -> &PortPolicy {
        self.ports.get(&port).unwrap_or(&self.all)
    }
}

/// The settings of one port.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PortPolicy {
    /// How an endpoint is picked.
    pub balancer: Balancer,
    /// `connectionPool.tcp.connectTimeout`; None: the mesh's 10 s.
    pub connect_timeout: Option<Duration>,
    /// `connectionPool.http.maxRequestsPerConnection`; None: unlimited, 1: no keep-alive.
    pub max_requests_per_connection: Option<u32>,
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balancer {
    /// Power of two choices by outstanding requests. The default; LEAST_CONN is its old name.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Independent draws.
    Random,
    /// To the address the client dialled.
    Passthrough,
}
