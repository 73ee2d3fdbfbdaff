//! A workload: one pod, its identity, and everything that is decided per pod.
//!
//! Endpoints travel here (`endpoints`), so that one pod's change is one small message. What a person wrote about mTLS is already
//! resolved to this pod by the compiler (`mtls`), and so are the keys of the policies that select it (`policies`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    identity::Identity,
    mtls::MtlsModes,
    name::{Namespace, NodeName, ObjectKey, ServiceKey, WorkloadUid},
    service::Protocol,
};

/// How other nodes reach it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tunnel {
    /// Not in the mesh (or not captured yet): plaintext TCP.
    #[default]
    None,
    /// mTLS to port 15008 of its IP. A workload published so is never dialled in plaintext.
    Hbone,
}

/// What the controller wants of the workload's own node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Enrolment {
    /// Leave it alone; let go of it if it is captured.
    #[default]
    No,
    /// Capture it.
    Yes,
}

/// What never goes through the proxy, by annotation of the pod.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exclusions {
    /// Destination ports of outbound connections.
    pub outbound_ports: Vec<u16>,
    /// Destination networks of outbound connections.
    pub outbound_cidrs: Vec<IpNet>,
    /// Local ports of inbound connections.
    pub inbound_ports: Vec<u16>,
}

/// One service that this workload answers for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointOf {
    /// The service.
    pub service: ServiceKey,
    /// Service port -> port of the pod.
    pub ports: BTreeMap<u16, u16>,
    /// Whether it takes new connections: ready, not terminating.
    pub ready: bool,
}

/// Names for metrics and logs; they never decide anything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Telemetry {
    /// The owner's name (`reviews-v1`), or the pod's.
    pub workload_name: Arc<str>,
    /// `deployment`, `statefulset`, `job`, `pod`…
    pub workload_type: Arc<str>,
    /// Label `app`, `app.kubernetes.io/name`, or "unknown".
    pub app: Arc<str>,
    /// Label `version`, `app.kubernetes.io/version`, or "unknown".
    pub version: Arc<str>,
    /// `service.istio.io/canonical-name`, or app, or workload.
    pub canonical_service: Arc<str>,
    /// `service.istio.io/canonical-revision`, or version, or "latest".
    pub canonical_revision: Arc<str>,
    /// The cluster's name, "Kubernetes" by default.
    pub cluster: Arc<str>,
}

/// A pod as the mesh sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its UID.
    pub uid: WorkloadUid,
    /// The pod's name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its identity. A pod without a service account is not a workload.
    pub identity: Identity,
    /// Where it runs.
    pub node: NodeName,
    /// Its addresses, canonical, the primary one first. Never two live workloads with one address.
    pub ips: Vec<IpAddr>,
    /// Addresses that it holds and has lost in the mesh, because another workload has one of them. Only its own node is told: the
    /// pod is captured by them, and nobody calls it there.
    pub contested_ips: Vec<IpAddr>,
    /// The labels of the pod (subsets select on them).
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Names for telemetry.
    pub telemetry: Telemetry,
    /// How other nodes reach it now.
    pub tunnel: Tunnel,
    /// What its own node shall do.
    pub enrolment: Enrolment,
    /// The services it answers for.
    pub endpoints: Vec<EndpointOf>,
    /// What is declared about each of its own (target) ports. A port not named here is unknown.
    pub protocols: BTreeMap<u16, Protocol>,
    /// mTLS per port, resolved from PeerAuthentication.
    pub mtls: MtlsModes,
    /// Every AuthorizationPolicy that selects it, mesh-wide and namespace-wide ones included.
    pub policies: Vec<ObjectKey>,
    /// What bypasses the proxy.
    pub exclusions: Exclusions,
    /// Its own ports that the kubelet's probes and lifecycle hooks name: only these may be probed past the proxy.
    pub probe_ports: Vec<u16>,
    /// The network namespace's path, in the directory source only.
    pub netns: Option<Arc<str>>,
}

impl Workload {
    /// Whether the address is one of its own.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip.to_canonical())
    }

    /// Every address that it holds on its node, contested or not.
    pub fn held_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ips.iter().chain(&self.contested_ips).copied()
    }

    /// What is declared of its own port.
    pub fn protocol(&self, port: u16) -> Protocol {
        self.protocols.get(&port).copied().unwrap_or_default()
    }
}
