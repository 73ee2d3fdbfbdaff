//! Where a connection or a request goes. Pure: live load and random draws come from the caller.
//!
//! The steps: [`outbound`] looks at the dialled address alone; an HTTP port then asks [`request`] (or [`request_at`], where a pod was
//! dialled) for each request, an opaque one [`connection`] once; the caller picks one of the candidates (it knows the load), and the
//! destination side asks [`crate::authz::authorize`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    addr::{OrigDst, UpstreamAddr},
    mesh::OutboundPolicy,
    name::{ServiceKey, SubsetName},
    request::RequestHead,
    route::{Caller, Destination, HttpRule, RetryPolicy, RouteTable, WeightedDestination},
    service::{Protocol, Service},
    snapshot::Snapshot,
    traffic::{Balancer, PortPolicy},
    workload::{Tunnel, Workload},
};

#[cfg(test)]
mod tests;

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
    /// A known workload, by its own IP: the source's own too (it calls itself), and those of headless services.
    Workload {
        /// Which one; [`Candidate::dialled`] makes it a candidate.
        workload: Arc<Workload>,
        /// Its port.
        port: u16,
        /// What it speaks.
        protocol: Protocol,
        /// The headless service, and its port, that the workload answers for on the dialled port: its routes apply (see
        /// [`request_at`]). None: no route applies.
        service: Option<(Arc<Service>, u16)>,
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
    /// Two workloads claim the address: whose identity would be expected there?
    #[error("address {0} is claimed by more than one workload")]
    ContestedAddress(SocketAddr),
    /// There is a route table and no rule matches: 404, `NR`.
    #[error("no route matches")]
    NoRoute,
    /// The route names a host, port or subset that is not there: 503, `NC`.
    #[error("no such destination: {0}")]
    NoCluster(String),
    /// The HTTPRoute names a backend that cannot be used: 500.
    #[error("invalid backend: {0}")]
    InvalidBackend(String),
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

impl Candidate {
    /// The workload at the very address that was dialled.
    pub fn dialled(workload: &Arc<Workload>, dst: OrigDst) -> Self {
        Self { workload: Arc::clone(workload), addr: UpstreamAddr::new(dst.get()), tunnel: workload.tunnel }
    }
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

impl Target {
    /// Prefers, of each endpoint's addresses, the family of the one that was dialled, as the Service VIP of that family does
    /// without a mesh. An endpoint without such an address keeps the one it has.
    pub fn in_family_of(mut self, snapshot: &Snapshot, dialled: IpAddr) -> Self {
        let wanted = |ip: &IpAddr| ip.is_ipv4() == dialled.to_canonical().is_ipv4();
        for candidate in self.candidates.iter_mut().filter(|candidate| !wanted(&candidate.addr.ip())) {
            let mut others = candidate.workload.ips.iter().filter(|ip| wanted(ip));
            if let Some(ip) = others.find(|ip| !snapshot.is_contested(**ip)) {
                candidate.addr = UpstreamAddr::new(SocketAddr::new(*ip, candidate.addr.port()));
            }
        }
        self
    }
}

/// Where one request goes.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    /// The table and rule that decided; None: no routes for the service, default routing.
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
    let (ip, port) = (dst.ip(), dst.port());
    if let Some(service) = snapshot.service_at(ip, port) {
        let protocol = service.port(port).map(|port| port.protocol).unwrap_or_default();
        return Outbound::Service { service: Arc::clone(service), port, protocol };
    }
    if snapshot.is_vip(ip) {
        return Outbound::Refused(Refusal::NoSuchPort(dst.get()));
    }
    // The source's own address is its own, whoever else claims it.
    let is_own = |own: IpAddr| own == ip.to_canonical();
    let itself = || snapshot.workload(&source.uid).filter(|workload| workload.held_ips().any(is_own));
    if let Some(workload) = itself().or_else(|| snapshot.workload_at(ip)) {
        let service = headless_service(snapshot, workload, port);
        let declared =
            service.as_ref().and_then(|(service, port)| service.port(*port)).map(|port| port.protocol);
        let protocol = match workload.protocol(port) {
            Protocol::Unknown => declared.unwrap_or_default(),
            known => known,
        };
        return Outbound::Workload { workload: Arc::clone(workload), port, protocol, service };
    }
    if snapshot.is_contested(ip) {
        return Outbound::Refused(Refusal::ContestedAddress(dst.get()));
    }
    match snapshot.mesh().outbound_policy {
        OutboundPolicy::AllowAny => Outbound::Passthrough(dst),
        OutboundPolicy::RegistryOnly => Outbound::Refused(Refusal::UnknownDestination(dst.get())),
    }
}

/// The headless service that the workload answers for on its own port; of several, the first by key.
fn headless_service(
    snapshot: &Snapshot,
    workload: &Workload,
    target_port: u16,
) -> Option<(Arc<Service>, u16)> {
    workload
        .endpoints
        .iter()
        .flat_map(|end| end.ports.iter().map(move |(port, target)| (&end.service, *port, *target)))
        .filter(|(_, _, target)| *target == target_port)
        .filter_map(|(key, port, _)| snapshot.service_by_key(key).map(|service| (service, port)))
        .filter(|(service, _)| service.vips.is_empty())
        .min_by(|(one, port), (other, other_port)| (&one.key, port).cmp(&(&other.key, other_port)))
        .map(|(service, port)| (Arc::clone(service), port))
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
    plan(snapshot, &Dialled { source, service, port, pod: None }, head, draw)
}

/// As [`request`], for a connection to `pod`, an endpoint of the headless `service`. The routes of the service hold, but a
/// destination that is the service itself (or balances by PASSTHROUGH) is the pod that was dialled, ready or not.
pub fn request_at(
    snapshot: &Snapshot,
    source: &Workload,
    service: &Arc<Service>,
    port: u16,
    pod: &Candidate,
    head: &RequestHead<'_>,
    draw: f64,
) -> Result<RequestPlan, Refusal> {
    plan(snapshot, &Dialled { source, service, port, pod: Some(pod) }, head, draw)
}

/// Step two for opaque connections: the endpoints of the service's port, by its DestinationRule.
pub fn connection(
    snapshot: &Snapshot,
    source: &Workload,
    service: &Arc<Service>,
    port: u16,
) -> Result<Target, Refusal> {
    Dialled { source, service, port, pod: None }.unrouted(snapshot)
}

/// Who called what; where a request starts from.
pub(crate) struct Dialled<'a> {
    pub(crate) source: &'a Workload,
    pub(crate) service: &'a Arc<Service>,
    /// The service's port.
    pub(crate) port: u16,
    /// A pod of the headless service was dialled, not a VIP.
    pub(crate) pod: Option<&'a Candidate>,
}

fn plan(
    snapshot: &Snapshot,
    dialled: &Dialled<'_>,
    head: &RequestHead<'_>,
    draw: f64,
) -> Result<RequestPlan, Refusal> {
    let Some(table) = dialled.table(snapshot) else {
        return Ok(RequestPlan {
            rule: None,
            destination: 0,
            target: dialled.unrouted(snapshot)?,
            timeout: None,
            retry: snapshot.mesh().default_retry.clone(),
        });
    };
    let rule = table.first_match(head, &dialled.caller(), &mut |_, _, _| ()).ok_or(Refusal::NoRoute)?;
    let (number, drawn) =
        rule.draw(draw).ok_or_else(|| Refusal::NoCluster(format!("{}: every weight is 0", rule.name)))?;
    Ok(RequestPlan {
        destination: number,
        target: dialled.share(snapshot, drawn)?,
        timeout: rule.timeout,
        retry: rule.retry.clone(),
        rule: Some((Arc::clone(table), Arc::clone(rule))),
    })
}

impl Dialled<'_> {
    /// The routes that hold. None: default routing, also where an object for the host has no HTTP part.
    pub(crate) fn table<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<RouteTable>> {
        let table = snapshot.routes_for(&self.source.namespace, &self.service.key.host, self.port)?;
        (!table.rules.is_empty()).then_some(table)
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { namespace: &self.source.namespace, labels: &self.source.labels, port: self.port }
    }

    /// The service itself, at the dialled port.
    pub(crate) fn unrouted(&self, snapshot: &Snapshot) -> Result<Target, Refusal> {
        self.endpoints(snapshot, self.service, self.port, None)
    }

    /// Where a share of a rule goes.
    pub(crate) fn share(
        &self,
        snapshot: &Snapshot,
        weighted: &WeightedDestination,
    ) -> Result<Target, Refusal> {
        match &weighted.invalid {
            Some(reason) => Err(Refusal::InvalidBackend(reason.clone())),
            None => self.target(snapshot, &weighted.destination),
        }
    }

    /// The host, port and subset that a route names.
    fn target(&self, snapshot: &Snapshot, to: &Destination) -> Result<Target, Refusal> {
        let service = snapshot.service(&to.host).ok_or_else(|| Refusal::NoCluster(to.host.to_string()))?;
        let port = to.port.unwrap_or(match service.ports.as_slice() {
            [only] => only.port,
            _ => self.port,
        });
        self.endpoints(snapshot, service, port, to.subset.as_ref())
    }

    fn endpoints(
        &self,
        snapshot: &Snapshot,
        service: &Arc<Service>,
        port: u16,
        subset: Option<&SubsetName>,
    ) -> Result<Target, Refusal> {
        let host = &service.key.host;
        let named = || match subset {
            Some(subset) => format!("{host}:{port} subset {subset}"),
            None => format!("{host}:{port}"),
        };
        if service.port(port).is_none() {
            return Err(Refusal::NoCluster(named()));
        }
        let rule = snapshot.destination_for(&self.source.namespace, service);
        let (policy, labels) = match subset {
            None => (rule.map(|rule| rule.policy.of(port)), None),
            Some(name) => {
                let subset = rule
                    .and_then(|rule| rule.subsets.get(name))
                    .ok_or_else(|| Refusal::NoCluster(named()))?;
                (Some(subset.policy.of(port)), Some(&subset.labels))
            }
        };
        let policy = policy.cloned().unwrap_or_default();
        let headless = service.vips.is_empty() && service.key == self.service.key;
        let candidates = match self.pod {
            Some(pod) if headless || policy.balancer == Balancer::Passthrough => vec![pod.clone()],
            _ => snapshot
                .endpoints(&service.key)
                .iter()
                .filter(|workload| {
                    labels.is_none_or(|labels| {
                        labels.iter().all(|(name, value)| workload.labels.get(name) == Some(value))
                    })
                })
                .filter_map(|workload| candidate(snapshot, self.source, workload, &service.key, port))
                .collect(),
        };
        if candidates.is_empty() {
            return Err(Refusal::NoEndpoint(named()));
        }
        Ok(Target { service: Arc::clone(service), port, subset: subset.cloned(), policy, candidates })
    }
}

/// The workload as an endpoint of the service's port, if it is ready there and has an address of a family the source has too that
/// is nobody else's.
fn candidate(
    snapshot: &Snapshot,
    source: &Workload,
    workload: &Arc<Workload>,
    service: &ServiceKey,
    port: u16,
) -> Option<Candidate> {
    let mut ready = workload.endpoints.iter().filter(|end| end.service == *service && end.ready);
    let target_port = ready.find_map(|end| end.ports.get(&port).copied())?;
    let reachable = |ip: &IpAddr| source.held_ips().any(|own| own.is_ipv4() == ip.is_ipv4());
    let ip = workload.ips.iter().find(|ip| reachable(ip) && !snapshot.is_contested(**ip))?;
    let addr = UpstreamAddr::new(SocketAddr::new(*ip, target_port));
    Some(Candidate { workload: Arc::clone(workload), addr, tunnel: workload.tunnel })
}
