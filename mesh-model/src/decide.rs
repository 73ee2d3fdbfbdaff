//! Where a connection or a request goes. Pure: live load and random draws come from the caller.
//!
//! The steps: [`outbound`] looks at the dialled address alone; an HTTP port then asks [`request`] for each request; the caller
//! picks one of the candidates (it knows the load), and the destination side asks [`crate::authz::authorize`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    addr::{OrigDst, UpstreamAddr},
    name::SubsetName,
    request::RequestHead,
    route::{HttpRule, RetryPolicy, RouteTable},
    service::{Protocol, Service},
    snapshot::Snapshot,
    traffic::PortPolicy,
    workload::{Tunnel, Workload},
};

/// What a captured outbound connection is for, by its original destination.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// A port of a known service (by VIP).
    Service {
        /// Which one.
        service: Arc<Service>,
        /// The service's port.
        port: u16,
        /// What it speaks.
        protocol: Protocol,
    },
    /// A known workload, by its own IP (headless services too): no route applies to it but those of `service`.
    Workload {
        /// Which one.
        workload: Arc<Workload>,
        /// Its port.
        port: u16,
        /// What it speaks.
        protocol: Protocol,
    },
    /// Unknown: passed through as dialled.
    Passthrough(OrigDst),
    /// Refused, with the reason.
    Refused(Refusal),
}

/// Why an outbound connection or request cannot go anywhere.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// REGISTRY_ONLY and the destination is unknown.
    #[error("destination {0} is not in the registry and outboundTrafficPolicy is REGISTRY_ONLY")]
    UnknownDestination(SocketAddr),
    /// A VIP's port that the service does not have.
    #[error("service VIP {0} has no such port")]
    NoSuchPort(SocketAddr),
    /// There is a route table and no rule matches: 404, `NR`.
    #[error("no route matches")]
    NoRoute,
    /// The route names a host, port or subset that is not there: 503, `NC`.
    #[error("no such destination: {0}")]
    NoCluster(String),
    /// No endpoint is ready: 503, `UH`.
    #[error("no healthy upstream: {0}")]
    NoEndpoint(String),
}

/// One endpoint that may be dialled.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Its address and port.
    pub addr: UpstreamAddr,
    /// How it is reached from another node.
    pub tunnel: Tunnel,
}

/// Endpoints of one destination, and what holds for them.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub service: Arc<Service>,
    /// The service's port.
    pub port: u16,
    /// The subset, if any.
    pub subset: Option<SubsetName>,
    /// Balancing and limits.
    pub policy: PortPolicy,
    /// Ready endpoints; never empty.
    pub candidates: Vec<Candidate>,
}

/// Where one request goes.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    /// The table and rule that decided; None: no VirtualService for the host, default routing.
    pub rule: Option<(Arc<RouteTable>, Arc<HttpRule>)>,
    /// Index into `rule.destinations` of the drawn destination; 0 without a rule.
    pub destination: usize,
    /// Its endpoints.
    pub target: Target,
    /// Overall deadline.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retry: RetryPolicy,
}

/// Step one: what is this connection for? Service VIPs win over pod IPs.
pub fn outbound(snapshot: &Snapshot, source: &Workload, dst: OrigDst) -> Outbound {
    let _ = (snapshot, source, dst);
    unimplemented!("skeleton")
}

/// Step two for HTTP: which rule, which destination. `draw` is uniform in [0, 1): the split is drawn once per request.
pub fn request(
    snapshot: &Snapshot,
    source: &Workload,
    service: &Arc<Service>,
    port: u16,
    head: &RequestHead<'_>,
    draw: f64,
) -> Result<RequestPlan, Refusal> {
    let _ = (snapshot, source, service, port, head, draw);
    unimplemented!("skeleton")
}

/// Step two for opaque connections: the endpoints of the service's port, by its DestinationRule.
pub fn connection(
    snapshot: &Snapshot,
    source: &Workload,
    service: &Arc<Service>,
    port: u16,
) -> Result<Target, Refusal> {
    let _ = (snapshot, source, service, port);
    unimplemented!("skeleton")
}
